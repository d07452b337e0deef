"""
What a client is subscribed to, and what its user wants it to be subscribed to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from dcm_ws.client.errors import RateLimitedError, RefusedError

AT_ONCE = 16
"""
Maximum number of pending messages while the client subscribes, until the server limits the rate.
"""

PAUSE = 0.01
"""
Seconds between two messages if the server limits the rate and does not say how long to wait.
"""


class Subscriptions:
    """
    The channels that the user wants, and the messages that subscribe to them on a new connection.

    @param channels: wanted from the start.

    @ivar channels: the channels that the user wants, in order.
    @ivar unwanted: channels to unsubscribe from, if the server subscribes the client to them.
    @ivar has: the channels that the server has for this connection, while the client subscribes.
    @ivar pause: seconds to wait before each message, because the server limits the rate; 0 otherwise.
    @ivar unsettled: channels to check before the subscriptions are as wanted; None except while the client subscribes.
    """

    def __init__(self, channels: Iterable[str]) -> None:
        self.channels = dict.fromkeys(channels)
        self.unwanted: dict[str, None] = {}
        if "global" not in self.channels:
            self.unwanted["global"] = None
        self.has: set[str] = set()
        self.unsettled: deque[str] | None = None
        self.pause = 0.0

    def wants(self, channel: str, wanted: bool) -> None:
        """
        The user wants to be subscribed to C{channel}, or not.
        """
        (self.channels if wanted else self.unwanted)[channel] = None
        (self.unwanted if wanted else self.channels).pop(channel, None)
        if self.unsettled is not None:
            self.unsettled.append(channel)

    def forget(self, channel: str) -> None:
        """
        Do not subscribe to C{channel} again: there is no channel of such a name.
        """
        self.channels.pop(channel, None)

    def left(self, channel: str) -> None:
        """
        The server has unsubscribed the client from C{channel}, and will not restore it.  It subscribes every client to
        C{global} again.
        """
        if channel != "global":
            self.unwanted.pop(channel, None)

    def begin(self) -> None:
        """
        A new connection: check all channels.
        """
        self.unsettled = deque((*self.channels, *self.unwanted))
        self.pause = 0.0

    def next_message(self) -> dict[str, str] | None:
        """
        The next message to send; None if there is none at the moment.
        """
        while self.unsettled:
            channel = self.unsettled.popleft()
            if channel in self.channels and channel not in self.has:
                # the server executes messages in order, so later messages may count on this one
                self.has.add(channel)
                return {"type": "subscribe", "channel": channel}
            if channel in self.unwanted and channel in self.has:
                self.has.remove(channel)
                return {"type": "unsubscribe", "channel": channel}
        return None

    def refused(self, message: dict[str, str], error: RefusedError) -> bool:
        """
        The server has refused a message of C{next_message}.

        @return: True if the message will be sent again, more slowly, because the server limits the rate.
        """
        error.channel = message["channel"]
        (self.has.discard if message["type"] == "subscribe" else self.has.add)(error.channel)
        if self.unsettled is None or not isinstance(error, RateLimitedError):
            return False
        self.pause = max(self.pause, error.retry_after or PAUSE)
        self.unsettled.append(error.channel)
        return True

    @property
    def settlers(self) -> int:
        """
        How many messages may be pending at the same time.
        """
        return 1 if self.pause else AT_ONCE

    def end(self) -> None:
        """
        The subscriptions are as wanted, as far as the server allows; or the connection has ended.
        """
        self.unsettled = None
