"""
A client's side of the protocol, without sockets, clocks and tasks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dcm_ws.client.backoff import Backoff
from dcm_ws.client.errors import ClosedError, DCMError, NotConnectedError, RefusedError, refusal
from dcm_ws.client.events import Dispatcher
from dcm_ws.client.gaps import Gap, gap_of, number_of
from dcm_ws.client.places import Places
from dcm_ws.client.requests import Reply, Requests
from dcm_ws.client.subscriptions import Subscriptions

QUEUE_MAX = 1000
"""
Maximum number of events that wait for their listeners.  At this number the client stops reading, and the server queues
events.
"""

SILENCE = 75.0
"""
Seconds without any message after which the connection counts as dead.  The server pings every 30.
"""

ALIVE = 20.0
"""
Seconds between two signs of life of a client that does not read.  The server closes a connection that is silent for 60.
"""

# the server would give any other refusal of an authentication again
_TEMPORARY = frozenset({"RATE_LIMITED", "NOT_AVAILABLE"})
_AUTHENTICATION_REQUIRED = 4001
# close codes that are never sent (RFC 6455, section 7.4.1)
_NOT_SENT = frozenset({1005, 1006})


class State(StrEnum):
    IDLE = "idle"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What the client does after the end of a connection.

    @ivar delay: seconds until the next attempt; None if there will be none.
    @ivar error: why there will be none.
    """

    delay: float | None
    error: ClosedError | None = None


class ClientCore:
    """
    One client: its requests, pings and events, with its subscriptions and its back-off.

    @param fresh_tokens: the next connection may have another token.
    @param queue_max: maximum number of events that wait for their listeners.
    @param random: returns a number from 0 to 1.
    @param room: called when fewer events wait.
    @param wall_ms: returns the time, in milliseconds since the epoch.
    @param gap: called with each gap.
    @param observer: the server expects no acknowledgements.
    @param durable: the server keeps what the agent does not acknowledge, even before its first acknowledgement.
    @param start: as in L{Places}.

    @ivar agent_id: the agent that the client connects as; without one, the agent of the token, once the server has
        accepted it.
    @ivar greeted: the server has sent its greeting on this connection.
    @ivar client_id: the server's name for this connection; None without a connection.
    @ivar greeting: the server's last greeting; empty before the first.
    @ivar ended: how the last connection ended, or why there was none; empty while there is one, and before the first.
    @ivar close_code: its close code; None while there is one, and if the last attempt to connect failed.
    """

    def __init__(
        self,
        *,
        agent_id: str | None,
        session_id: str | None,
        channels: Iterable[str],
        fresh_tokens: bool,
        queue_max: int,
        random: Callable[[], float],
        room: Callable[[], object],
        wall_ms: Callable[[], int],
        gap: Callable[[Gap], object],
        observer: bool = False,
        durable: bool = False,
        start: tuple[str | None, int] | None = None,
    ) -> None:
        self.agent_id = agent_id
        self.subscriptions = Subscriptions(channels)
        self.events = Dispatcher(
            acknowledge=self._acknowledge,
            mirrored=lambda: "global" in self.subscriptions.channels,
            room=room,
            wall_ms=wall_ms,
            queue_max=queue_max,
        )
        self.places = Places(self.subscriptions.unwanted, start)
        self._gap = gap
        self._observer = observer
        self._durable = durable
        self._session_id = session_id
        self._fresh_tokens = fresh_tokens
        self._queue_max = queue_max
        self.backoff = Backoff(random)
        self._send: Callable[[str], object] | None = None
        self._requests = Requests()
        self.ended = ""
        self.close_code: int | None = None
        self.greeted = False
        self.client_id: str | None = None
        self.greeting: dict[str, Any] = {}

    # connections

    def opened(self, send: Callable[[str], object]) -> None:
        """
        A connection has been opened.

        @param send: sends a text message.
        """
        self._send = send
        self.greeted = False
        self.ended, self.close_code = "", None
        self.subscriptions.has = {"global"}
        self.places.opened()

    def lost(self, code: int | None, reason: str, error: DCMError | None = None) -> Verdict:
        """
        The connection has ended, or the attempt to connect has failed.  All pending requests fail.

        @param code: the close code; None if no connection was opened.
        @param error: why the client closed the connection by itself.
        """
        self._send = None
        self.greeted = False
        self.client_id = None
        self.subscriptions.end()
        self.ended, self.close_code = how_it_ended(code, reason, error), code
        self._requests.fail(lambda: NotConnectedError(f"{self.ended}; there was no answer yet", code))
        refused = code == _AUTHENTICATION_REQUIRED or (isinstance(error, RefusedError) and error.code not in _TEMPORARY)
        if refused and not self._fresh_tokens:
            refusal = error if isinstance(error, RefusedError) else None
            return Verdict(None, ClosedError(self.ended, code, refusal))
        return Verdict(self.backoff.next_delay(code))

    # requests

    def auth(self, token: str | None, *, resume: bool = True) -> dict[str, Any] | None:
        """
        The message that authenticates; None without a token and an agent's id.

        @param resume: resume the first channels with the same message.
        """
        message: dict[str, Any]
        if token is not None:
            message = {"type": "auth", "token": token}
        elif self.agent_id is not None:
            message = {"type": "auth", "agent_id": self.agent_id}
        else:
            return None
        if self._session_id is not None:
            message["session_id"] = self._session_id
        if self._durable:
            message["durable"] = True
        if resume and (group := self.places.next_group()) is not None:
            message["resume"] = group
        return message

    def resume(self) -> dict[str, Any] | None:
        """
        The message that resumes the next channels; None if none waits.
        """
        group = self.places.next_group()
        return None if group is None else {"type": "resume", **group}

    def not_resumed(self, group: dict[str, Any], *, everything: bool = False) -> None:
        """
        The server has refused to resume a group of channels.

        @param everything: it refuses to resume any.
        """
        places = self.places
        if everything:
            for name in list(places.waiting):
                places.left(name)
        if everything or places.refused(group):
            self._gap(Gap("refused", epoch=places.epoch))

    def settled(self) -> None:
        """
        The client has resumed and subscribed.
        """
        self.subscriptions.end()
        self.places.settled(self.subscriptions.has & self.subscriptions.channels.keys())

    def wants(self, channel: str, wanted: bool) -> None:
        """
        The user wants to be subscribed to C{channel}, or not.
        """
        self.subscriptions.wants(channel, wanted)
        if not wanted:
            self.places.left(channel)

    def nack(self, message_id: str, delay_ms: int) -> None:
        """
        Do not acknowledge an event, and have the server send it again.

        @param delay_ms: milliseconds until then; a server without positions chooses the time itself.
        """
        self.events.refuse(message_id)
        if self.places.epoch is not None and not self._observer:
            self._say(encode({"type": "nack", "message_id": message_id, "delay_ms": delay_ms}))

    def request(self, message: dict[str, Any], reply: Reply) -> str:
        """
        Send a message that the server answers.

        @param reply: called once, with the answer or the error.
        @return: the request's id.
        @raise TypeError: something in the message has no form in JSON.
        @raise ValueError: a number in it is not finite, or an object contains itself.
        """
        name = self._requests.new_name()
        text = encode({**message, "id": name})
        if self._send is None:
            reply(self._not_connected())
        else:
            self._requests.put(name, self._remembering(message, reply))
            self._send(text)
        return name

    def _not_connected(self) -> NotConnectedError:
        why = f": {self.ended}" if self.ended else ""
        return NotConnectedError(f"there is no connection{why}")

    def _remembering(self, message: dict[str, Any], reply: Reply) -> Reply:
        """
        What to call with the answer to a message that changes the subscriptions.
        """
        kind = message["type"]
        if kind not in ("auth", "resume", "subscribe", "unsubscribe"):
            return reply

        def answered(answer: dict[str, Any] | DCMError) -> None:
            if isinstance(answer, dict):
                if kind == "subscribe":
                    self.places.subscribed(message["channel"], answer)
                elif kind == "unsubscribe":
                    self.subscriptions.left(message["channel"])
                    if not self.places.leaving:
                        self.places.left(message["channel"])
                else:
                    self._place(answer, message.get("resume") if kind == "auth" else message)
            reply(answer)

        return answered

    def _place(self, answer: dict[str, Any], group: dict[str, Any] | None) -> None:
        epoch = self.places.epoch
        gap = self.places.answered(answer, group)
        if epoch != self.places.epoch:
            self.events.forget_positions()
        if gap is not None:
            self._gap(gap)

    def ping(self, reply: Reply) -> str:
        """
        Send a ping.

        @param reply: called once, with the pong or the error.
        @return: the request's id.
        """
        name = self._requests.new_name()
        if self._send is None:
            reply(self._not_connected())
        else:
            self._requests.put_ping(name, reply)
            # it has an id because the server may refuse it
            self._send(encode({"type": "ping", "id": name}))
        return name

    def expect_greeting(self, reply: Reply) -> str:
        """
        Wait for the greeting of the connection that has just been opened.

        @param reply: called once, with the greeting, or an empty one if it has come already, or with the error.
        @return: an id that is no request's.
        """
        if self._send is None:
            reply(self._not_connected())
        elif self.greeted:
            reply({})
        else:
            self._requests.expect_greeting(reply)
        return ""

    def alive(self) -> None:
        """
        Send a sign of life, because the client does not read and so does not answer the server's pings.
        """
        self._say('{"type":"pong"}')

    @property
    def full(self) -> bool:
        """
        Do so many events wait that the client should stop reading?  While an answer is awaited, ten times as many may
        wait, because a listener may be waiting for that answer.  The greeting is read in any case.
        """
        return self.greeted and self.events.waiting >= (10 * self._queue_max if self.asking else self._queue_max)

    def give_up(self, name: str) -> None:
        """
        Nothing waits for the answer to this request any more.
        """
        self._requests.give_up(name)

    @property
    def asking(self) -> bool:
        """
        Is an answer awaited?
        """
        return self._requests.asking

    # messages

    def received(self, text: str | bytes) -> DCMError | None:
        """
        A message has come.

        @return: the error that it reports, if that answers no request, or why it cannot be read.
        """
        try:
            frame = json.loads(text)
        except (ValueError, RecursionError):
            return DCMError("the server sent a message that is not JSON")
        if not isinstance(frame, dict):
            return DCMError("the server sent a message that is not a JSON object")
        try:
            return self._dispatch(frame)
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            return DCMError(f"the server sent an invalid message: {error}")

    def _dispatch(self, frame: dict[str, Any]) -> DCMError | None:
        if "event" in frame:
            self._hear(frame)
        elif frame.get("type") == "ack":
            self._answer(frame)
        elif frame.get("type") == "ping":
            self.places.sent(frame)
            self._say('{"type":"pong"}')
        elif frame.get("type") == "pong":
            self._requests.pong(frame)
        elif frame.get("type") == "connected":
            self._greet(frame)
        elif frame.get("type") == "gap":
            self._skip(frame)
        elif "error" in frame:
            return refusal(frame)
        return None

    def _hear(self, frame: dict[str, Any]) -> None:
        pos = number_of(frame.get("pos")) if self.places.epoch is not None else None
        if pos is not None and self.places.is_early(frame.get("channel"), pos):
            # not acknowledged, even if global is not wanted: docs/guarantees.md, What comes unasked for
            return
        event = self.events.take(frame)
        if event is not None and pos is not None:
            whole = event.channel == "global" or not self.events.is_wanted_on_global(event)
            self.places.heard(event.channel, pos, whole=whole)

    def _skip(self, frame: dict[str, Any]) -> None:
        gap = gap_of(frame, frame)
        if self.places.skipped(gap):
            self.events.forget_positions()
        self._gap(gap)

    def _greet(self, frame: dict[str, Any]) -> None:
        if not self.greeted:
            self.greeting = frame
            gap = self.places.greeted(frame, self.subscriptions.channels)
            if gap is not None:
                self.events.forget_positions()
                self._gap(gap)
        self.greeted = True
        self.client_id = frame.get("client_id")
        self._requests.greeted(frame)

    def _say(self, text: str) -> None:
        if self._send is not None:
            self._send(text)

    def _answer(self, frame: dict[str, Any]) -> None:
        if "subscriptions" in frame:
            self.subscriptions.has = set(frame["subscriptions"])
            own = [name for name in frame["subscriptions"] if name.startswith("agents/")]
            if self.agent_id is None and len(own) == 1:
                self.agent_id = own[0].removeprefix("agents/")
        reply = self._requests.take(frame.get("id") or "")
        if reply is None and "subscriptions" in frame:
            # the URL has a token
            self._place(frame, None)
        if reply is not None:
            reply(frame if frame.get("success") else refusal(frame))

    def _acknowledge(self, message_id: str) -> None:
        if not self._observer:
            self._say(encode({"type": "ack", "message_id": message_id}))


def how_it_ended(code: int | None, reason: str, error: DCMError | None = None) -> str:
    """
    The end of a connection, or of a failed attempt to connect, in one phrase.

    @param code: the close code; None if no connection was opened.
    @param error: why the client closed the connection by itself.
    """
    if error is not None:
        return str(error)
    if code is None:
        return reason or "there was no connection"
    if code in _NOT_SENT:
        return f"connection lost ({code}{': ' * bool(reason)}{reason})"
    return f"connection closed: {code} {reason}".rstrip()


def encode(message: dict[str, Any]) -> str:
    """
    A message as JSON.

    @raise TypeError: something in it has no form in JSON.
    @raise ValueError: a number in it is not finite, or an object contains itself.
    """
    text = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        # half a surrogate pair can be written only as an escape
        return json.dumps(message)
    return text
