"""
A client's side of the protocol, without sockets, clocks and tasks.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dcm_ws.client.errors import ClosedError, DCMError, NotConnectedError, RefusedError, refusal
from dcm_ws.client.events import Dispatcher
from dcm_ws.client.subscriptions import Subscriptions

Reply = Callable[[dict[str, Any] | DCMError], None]

BACKOFF_BASE = 0.5
BACKOFF_MAX = 30.0
"""
Seconds that the first retry, and in the end every retry, takes at most.
"""

QUEUE_MAX = 1000
"""
Events that wait for their listeners; while there are more, nothing is read, and the server waits.
"""

STABLE = 10.0
"""
Seconds that a connection must last for the back-off to start again from its minimum.
"""

SILENCE = 75.0
"""
Seconds without anything from the server, which pings every 30, after which the connection is taken for dead.
"""

ALIVE = 20.0
"""
Seconds after which a client that does not read says that it is there: the server closes one that is silent for 60.
"""

# all other refusals of an authentication would come again
_PASSING = frozenset({"RATE_LIMITED", "NOT_AVAILABLE"})
_AUTHENTICATION_REQUIRED = 4001
_GOING_AWAY = 1001
_UNWELCOME = frozenset({1013, 4029})
_UNWELCOME_ATTEMPT = 4
_ATTEMPT_MAX = 30
# close codes that are never on the wire (RFC 6455, section 7.4.1)
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
    What comes after the end of a connection.

    @ivar delay: seconds until the next attempt; None where there is none.
    @ivar error: why there is none.
    """

    delay: float | None
    error: ClosedError | None = None


class ClientCore:
    """
    @param fresh_tokens: there may be another token next time.
    @param queue_max: events that may wait for listeners.
    @param random: a number from 0 to 1.
    @param room: called when fewer events wait.
    @param wall_ms: the time, in milliseconds since the epoch.
    @param observer: the server expects no acknowledgements.

    @ivar agent_id: who the server takes it for, or is to.
    @ivar ended: how the last connection ended, or why there was none; empty while there is one, and before the first.
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
        observer: bool = False,
    ) -> None:
        self.agent_id = agent_id
        self.subscriptions = Subscriptions(channels)
        self.events = Dispatcher(
            acknowledge=_nothing if observer else self._acknowledge,
            mirrored=lambda: "global" in self.subscriptions.channels,
            room=room,
            wall_ms=wall_ms,
        )
        self._session_id = session_id
        self._fresh_tokens = fresh_tokens
        self._queue_max = queue_max
        self._random = random
        self._send: Callable[[str], object] | None = None
        self._requests: dict[str, Reply] = {}
        # a pong says not which ping it answers, but they come in order; None where nobody waits for it any more
        self._pings: OrderedDict[str, Reply | None] = OrderedDict()
        self._next_id = 1
        self._attempt = 0
        self.ended = ""
        self.client_id: str | None = None

    # connections

    def opened(self, send: Callable[[str], object]) -> None:
        """
        There is a connection; C{send} takes texts.
        """
        self._send = send
        self.ended = ""
        self.subscriptions.has = {"global"}

    def stable(self) -> None:
        """
        The connection has lasted for a while: the back-off starts again from its minimum.
        """
        self._attempt = 0

    def lost(self, code: int | None, reason: str, error: DCMError | None = None) -> Verdict:
        """
        The connection has ended, or there was none.

        @param error: why the client ended it by itself.
        """
        self._send = None
        self.client_id = None
        self.subscriptions.end()
        waiting = [*self._requests.values(), *filter(None, self._pings.values())]
        self._requests.clear()
        self._pings.clear()
        self.ended = how_it_ended(code, reason, error)
        for reply in waiting:
            reply(NotConnectedError(f"{self.ended}; there was no answer yet", code))
        refused = code == _AUTHENTICATION_REQUIRED or (isinstance(error, RefusedError) and error.code not in _PASSING)
        if refused and not self._fresh_tokens:
            refusal = error if isinstance(error, RefusedError) else None
            return Verdict(None, ClosedError(self.ended, code, refusal))
        if code in _UNWELCOME:
            self._attempt = max(self._attempt, _UNWELCOME_ATTEMPT)
        longest = BACKOFF_MAX if code == _GOING_AWAY else min(BACKOFF_MAX, BACKOFF_BASE * 2**self._attempt)
        self._attempt = min(self._attempt + 1, _ATTEMPT_MAX)
        # full jitter: a crowd that was sent away together does not come back together
        return Verdict(self._random() * longest)

    # requests

    def auth(self, token: str | None) -> dict[str, str] | None:
        """
        The message that authenticates; None where there is nothing to say.
        """
        if token is not None:
            message = {"type": "auth", "token": token}
        elif self.agent_id is not None:
            message = {"type": "auth", "agent_id": self.agent_id}
        else:
            return None
        if self._session_id is not None:
            message["session_id"] = self._session_id
        return message

    def request(self, message: dict[str, Any], reply: Reply) -> str:
        """
        Ask for something; C{reply} is called once, with the answer or what went wrong.  Answers the request's id.

        @raise TypeError: what is in it cannot be said in JSON.
        @raise ValueError: the same.
        """
        name = self._next_name()
        text = encode({**message, "id": name})
        if self._send is None:
            reply(self._not_connected())
        else:
            self._requests[name] = self._remembering(message, reply)
            self._send(text)
        return name

    def _not_connected(self) -> NotConnectedError:
        why = f": {self.ended}" if self.ended else ""
        return NotConnectedError(f"there is no connection{why}")

    def _next_name(self) -> str:
        name = f"r{self._next_id}"
        self._next_id += 1
        return name

    def _remembering(self, message: dict[str, Any], reply: Reply) -> Reply:
        if message["type"] != "unsubscribe":
            return reply
        channel = message["channel"]

        def left(answer: dict[str, Any] | DCMError) -> None:
            if isinstance(answer, dict):
                self.subscriptions.left(channel)
            reply(answer)

        return left

    def ping(self, reply: Reply) -> str:
        """
        Ask for a sign of life.  Answers the request's id.
        """
        name = self._next_name()
        if self._send is None:
            reply(self._not_connected())
        else:
            self._pings[name] = reply
            # with an id, so that it can be refused
            self._send(encode({"type": "ping", "id": name}))
        return name

    def alive(self) -> None:
        """
        Tell the server that somebody is there, though nothing is read.
        """
        self._say('{"type":"pong"}')

    @property
    def full(self) -> bool:
        """
        Should nothing be read, since so many events wait?  While an answer is awaited, which may be what a listener
        waits for, ten times as many may.
        """
        return self.events.waiting >= (10 * self._queue_max if self.asking else self._queue_max)

    def give_up(self, name: str) -> None:
        """
        Nobody waits for the answer to that request any more.
        """
        self._requests.pop(name, None)
        if name in self._pings:
            self._pings[name] = None

    @property
    def asking(self) -> bool:
        """
        Is an answer awaited?
        """
        return bool(self._requests) or any(self._pings.values())

    # messages

    def received(self, text: str | bytes) -> DCMError | bool:
        """
        A message has come.  True where it greets; an error that answers nothing; False otherwise.
        """
        try:
            frame = json.loads(text)
        except (ValueError, RecursionError):
            return DCMError("the server sent what is not JSON")
        if not isinstance(frame, dict):
            return DCMError("the server sent what is not an object")
        try:
            return self._obey(frame)
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            return DCMError(f"the server sent what cannot be understood: {error}")

    def _obey(self, frame: dict[str, Any]) -> DCMError | bool:
        if "event" in frame:
            self.events.take(frame)
        elif frame.get("type") == "ack":
            self._answer(frame)
        elif frame.get("type") == "ping":
            self._say('{"type":"pong"}')
        elif frame.get("type") == "pong":
            if self._pings:
                _, reply = self._pings.popitem(last=False)
                if reply is not None:
                    reply(frame)
        elif frame.get("type") == "connected":
            self.client_id = frame.get("client_id")
            return True
        elif "error" in frame:
            return refusal(frame)
        return False

    def _say(self, text: str) -> None:
        if self._send is not None:
            self._send(text)

    def _answer(self, frame: dict[str, Any]) -> None:
        if "subscriptions" in frame:
            self.subscriptions.has = set(frame["subscriptions"])
            own = [name for name in frame["subscriptions"] if name.startswith("agents/")]
            if self.agent_id is None and len(own) == 1:
                self.agent_id = own[0].removeprefix("agents/")
        name = frame.get("id") or ""
        reply = self._requests.pop(name, None) or self._pings.pop(name, None)
        if reply is not None:
            reply(frame if frame.get("success") else refusal(frame))

    def _acknowledge(self, message_id: str) -> None:
        self._say(encode({"type": "ack", "message_id": message_id}))


def _nothing(message_id: str) -> None:
    pass


def how_it_ended(code: int | None, reason: str, error: DCMError | None = None) -> str:
    """
    One phrase for the end of a connection, or for an attempt that failed.

    @param code: the close code; None where no connection was opened.
    @param error: why the client ended it by itself.
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
    @raise TypeError: something in it is nothing that JSON has.
    @raise ValueError: a number in it is not finite, or it holds itself.
    """
    text = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        # half a surrogate pair can be said with its number alone
        return json.dumps(message)
    return text
