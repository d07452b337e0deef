"""
The messages between the service and the process that speaks MCP for clients over HTTP (docs/mcp.md), each a line of
JSON.
"""

from __future__ import annotations

import msgspec

RequestId = int | str


class Open(msgspec.Struct, tag=True):
    """
    To the process: a client begins a session.

    @ivar session: its number, which no other session of this process has had.
    @ivar agent: the agent's name.
    @ivar token: with which it connects; None without one, which only development allows.
    @ivar channels: what it subscribes to, in addition to its own channel.
    @ivar events: patterns of the events that the model is shown; none for all.
    @ivar senders: agents whose events it is shown; none for all.
    @ivar unnamed: with C{senders}: also events without a sender.
    @ivar push: as C{dcm-ws mcp --push}.
    @ivar per_minute: notifications in a minute.
    @ivar data_max: characters of an event's data that the model is shown.
    """

    session: int
    agent: str
    token: str | None
    channels: list[str]
    events: list[str]
    senders: list[str]
    unnamed: bool
    push: str
    per_minute: int
    data_max: int


class Renew(msgspec.Struct, tag=True):
    """
    To the process: the agent has a new token, for the connections from now on.
    """

    session: int
    token: str | None


class Message(msgspec.Struct, tag=True):
    """
    To the process: the client sends a message.

    @ivar text: JSON.
    """

    session: int
    text: str


class Listening(msgspec.Struct, tag=True):
    """
    To the process: the client now receives notifications, or does not any more.
    """

    session: int
    on: bool


class Taken(msgspec.Struct, tag=True):
    """
    To the process: what became of an answer or a notification.

    @ivar number: that of the L{Sent}.
    @ivar read: the client has got it, as far as the system can tell.
    """

    session: int
    number: int
    read: bool


class Close(msgspec.Struct, tag=True):
    """
    To the process: the session is over.
    """

    session: int


class Stop(msgspec.Struct, tag=True):
    """
    To the process: the service is about to end it by closing the connection, and removes the folder of its socket.
    Without this message, the service was killed.
    """


class Sent(msgspec.Struct, tag=True):
    """
    From the process: an answer or a notification for the client.

    @ivar number: counts those of a session.
    @ivar text: JSON.
    @ivar answers: the id of the request that it answers; None for a notification.
    @ivar failed: it is an error.
    """

    session: int
    number: int
    text: str
    answers: RequestId | None = None
    failed: bool = False


class Closed(msgspec.Struct, tag=True):
    """
    From the process: the session is over, because the service does not accept the agent any more.
    """

    session: int
    reason: str


ToGateway = Open | Renew | Message | Listening | Taken | Close | Stop
FromGateway = Sent | Closed

to_gateway: msgspec.json.Decoder[ToGateway] = msgspec.json.Decoder(ToGateway)
from_gateway: msgspec.json.Decoder[FromGateway] = msgspec.json.Decoder(FromGateway)
encode = msgspec.json.Encoder().encode
