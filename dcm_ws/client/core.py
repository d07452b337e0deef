"""
A client's side of the protocol, without sockets, clocks and tasks.
"""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

Reply = Callable[["dict[str, Any] | DCMError"], None]
Done = Callable[[bool], None]
"""
Told once whether an event has been dealt with well.
"""

BACKOFF_BASE = 0.5
BACKOFF_MAX = 30.0
"""
Seconds that the first retry, and in the end every retry, takes at most.
"""

SEEN_MAX = 10_000
"""
Event ids remembered, to leave out repetitions.
"""

QUEUE_MAX = 1000
"""
Events that wait for their listeners; while there are more, nothing is read, and the server waits.
"""

STABLE = 10.0
"""
Seconds that a connection must stand for the back-off to begin anew.
"""

SILENCE = 75.0
"""
Seconds without anything from the server, which pings every 30, after which the connection is taken for dead.
"""

ALIVE = 20.0
"""
Seconds after which a client that does not read says that it is there: the server closes one that is silent for 60.
"""

AT_ONCE = 16
"""
Subscriptions on their way at once after a reconnection: many more would be over the server's rate limit.
"""

_TRACKED = ("task.", "subtask.", "message.")
# all other refusals of an authentication would come again
_PASSING = frozenset({"RATE_LIMITED", "NOT_AVAILABLE"})
_AUTHENTICATION_REQUIRED = 4001
_GOING_AWAY = 1001
_UNWELCOME = frozenset({1013, 4029})
_UNWELCOME_ATTEMPT = 4
_ATTEMPT_MAX = 30


class State(StrEnum):
    IDLE = "idle"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    CLOSED = "closed"


class DCMError(Exception):
    """
    Something did not work; C{code} says what, for programs.
    """

    code = "ERROR"


class RefusedError(DCMError):
    """
    The server said no; there is a class below this one for each of its codes.

    @ivar frame: all that the server said.
    @ivar channel: the channel that a subscription was refused to after connecting; None for other errors.
    @ivar retry_after: seconds after which it may be tried again, where the server said so.
    """

    def __init__(self, code: str, text: str, frame: dict[str, Any]) -> None:
        super().__init__(text)
        self.code = code
        self.frame = frame
        self.channel: str | None = None
        after = frame.get("retry_after_ms")
        self.retry_after = None if after is None else after / 1000


class ParseFailedError(RefusedError):
    code = "PARSE_ERROR"


class UnknownMessageTypeError(RefusedError):
    code = "UNKNOWN_MESSAGE_TYPE"


class InvalidMessageError(RefusedError):
    code = "INVALID_MESSAGE"


class InvalidChannelError(RefusedError):
    code = "INVALID_CHANNEL"


class InvalidEventError(RefusedError):
    code = "INVALID_EVENT"


class NotAuthorizedError(RefusedError):
    code = "NOT_AUTHORIZED"


class TokenRequiredError(RefusedError):
    code = "TOKEN_REQUIRED"


class TokenInvalidError(RefusedError):
    code = "TOKEN_INVALID"


class TokenExpiredError(RefusedError):
    code = "TOKEN_EXPIRED"


class AgentIdRequiredError(RefusedError):
    code = "AGENT_ID_REQUIRED"


class TooManySubscriptionsError(RefusedError):
    code = "TOO_MANY_SUBSCRIPTIONS"


class RateLimitedError(RefusedError):
    code = "RATE_LIMITED"


class NotAvailableError(RefusedError):
    code = "NOT_AVAILABLE"


_CLASSES: dict[str, type[RefusedError]] = {kind.code: kind for kind in RefusedError.__subclasses__()}


def refusal(frame: dict[str, Any]) -> RefusedError:
    """
    The error that a failure frame tells.
    """
    code = str(frame.get("code", "ERROR"))
    return _CLASSES.get(code, RefusedError)(code, str(frame.get("error", "refused")), frame)


class NotConnectedError(DCMError):
    """
    There is no connection, or it ended before the answer came: what was asked for may have been done.
    """

    code = "NOT_CONNECTED"


class RequestTimeoutError(DCMError):
    """
    No answer in time; what was asked for may have been done.
    """

    code = "TIMEOUT"


class TokenFailedError(DCMError):
    """
    What should get a token did not.
    """

    code = "TOKEN_FAILED"


class ClosedError(DCMError):
    """
    The client is closed, by its user or for good by the server.

    @ivar close_code: the WebSocket's; None where the user closed it.
    """

    code = "CLOSED"

    def __init__(self, text: str, close_code: int | None = None) -> None:
        super().__init__(text)
        self.close_code = close_code


@dataclass(frozen=True, slots=True)
class Event:
    """
    What happened.

    @ivar id: the same on every channel, and in every repetition.
    @ivar timestamp: ms since the epoch.
    @ivar frame: all that the server sent.
    """

    id: str
    channel: str
    event: str
    data: Any
    timestamp: int
    frame: dict[str, Any] = field(repr=False, compare=False, hash=False)

    @property
    def tracked(self) -> bool:
        """
        Does the server await an acknowledgement?
        """
        return self.event.startswith(_TRACKED)


@dataclass(eq=False, slots=True)
class Listener:
    """
    Who wants which events.

    @ivar pattern: of event names, as in C{task.*}.
    @ivar channel: of channel names; None for whatever channel an event comes on, but each event once.
    @ivar take: given each event, and what to call when it has been dealt with.
    """

    pattern: str
    channel: str | None
    take: Callable[[Event, Done], object]

    def wants(self, event: str, channel: str) -> bool:
        """
        Is it one that this listener asked for, coming on C{channel}?
        """
        return fnmatchcase(event, self.pattern) and (self.channel is None or fnmatchcase(channel, self.channel))


class _Fate(Enum):
    PENDING = 1
    DONE = 2
    FAILED = 3


@dataclass(slots=True)
class _Seen:
    """
    @ivar open: listeners that have it and are not done.
    @ivar awaited: it is to come on global too, where listeners want it.
    """

    channels: set[str] = field(default_factory=set)
    open: int = 0
    awaited: bool = False
    fate: _Fate = _Fate.PENDING


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

    @ivar channels: what it is, or will be, subscribed to.
    @ivar has: what the server has it subscribed to, until that is settled.
    @ivar waiting: events that wait for listeners, or are with them.
    @ivar pause: seconds between two messages while that is settled, since the server did not take them faster.
    @ivar unsettled: channels to look at before that is settled; None at other times.
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
    ) -> None:
        self.channels = dict.fromkeys(channels)
        self.agent_id = agent_id
        self._session_id = session_id
        self._fresh_tokens = fresh_tokens
        self._queue_max = queue_max
        self._random = random
        self._room = room
        # what the server might give back to an agent that has left it
        self._left: dict[str, None] = {}
        self._send: Callable[[str], object] | None = None
        self._requests: dict[str, Reply] = {}
        # a pong says not which ping it answers, but they come in order; None where nobody waits for it any more
        self._pings: OrderedDict[str, Reply | None] = OrderedDict()
        self._next_id = 1
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._attempt = 0
        self.listeners: dict[Listener, None] = {}
        self.waiting = 0
        self.client_id: str | None = None
        self.has: set[str] = set()
        self.unsettled: deque[str] | None = None
        self.pause = 0.0
        if "global" not in self.channels:
            self._left["global"] = None

    # connections

    def opened(self, send: Callable[[str], object]) -> None:
        """
        There is a connection; C{send} takes texts.
        """
        self._send = send
        self.has = {"global"}

    def stable(self) -> None:
        """
        The connection has stood for a while: the back-off begins anew.
        """
        self._attempt = 0

    def lost(self, code: int | None, reason: str, error: DCMError | None = None) -> Verdict:
        """
        The connection has ended, or there was none.

        @param error: why the client ended it by itself.
        """
        self._send = None
        self.client_id = None
        self.unsettled = None
        waiting = [*self._requests.values(), *filter(None, self._pings.values())]
        self._requests.clear()
        self._pings.clear()
        for reply in waiting:
            reply(NotConnectedError("the connection ended before the answer came"))
        refused = code == _AUTHENTICATION_REQUIRED or (isinstance(error, RefusedError) and error.code not in _PASSING)
        if refused and not self._fresh_tokens:
            return Verdict(None, ClosedError(str(error or reason or "authentication required"), code))
        if code in _UNWELCOME:
            self._attempt = max(self._attempt, _UNWELCOME_ATTEMPT)
        longest = BACKOFF_MAX if code == _GOING_AWAY else min(BACKOFF_MAX, BACKOFF_BASE * 2**self._attempt)
        self._attempt = min(self._attempt + 1, _ATTEMPT_MAX)
        # full jitter: a crowd that was sent away together does not come back together
        return Verdict(self._random() * longest)

    def begin_settling(self) -> None:
        """
        After authenticating: what is subscribed to is to become what is wanted.
        """
        self.unsettled = deque((*self.channels, *self._left))
        self.pause = 0.0

    def next_to_settle(self) -> dict[str, str] | None:
        """
        What to ask for next; None where there is nothing at the moment.
        """
        while self.unsettled:
            channel = self.unsettled.popleft()
            if channel in self.channels and channel not in self.has:
                # messages are obeyed in their order: what is asked for after this one may count on it
                self.has.add(channel)
                return {"type": "subscribe", "channel": channel}
            if channel in self._left and channel in self.has:
                self.has.remove(channel)
                return {"type": "unsubscribe", "channel": channel}
        return None

    def not_settled(self, message: dict[str, str], error: RefusedError) -> bool:
        """
        What C{next_to_settle} gave was refused.  True where it is to be asked for again, since there was too much at
        once; then it goes on slowly.
        """
        error.channel = message["channel"]
        (self.has.discard if message["type"] == "subscribe" else self.has.add)(error.channel)
        if self.unsettled is None or not isinstance(error, RateLimitedError):
            return False
        self.pause = max(self.pause, error.retry_after or 0.01)
        self.unsettled.append(error.channel)
        return True

    @property
    def settlers(self) -> int:
        """
        How many may ask at once.
        """
        return 1 if self.pause else AT_ONCE

    def settled(self) -> None:
        """
        The subscriptions are what they should be, as far as the server allows.
        """
        self.unsettled = None

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

    def wants(self, channel: str, wanted: bool) -> None:
        """
        The user wants to be subscribed to C{channel}, or not.
        """
        (self.channels if wanted else self._left)[channel] = None
        (self._left if wanted else self.channels).pop(channel, None)
        if self.unsettled is not None:
            self.unsettled.append(channel)

    def request(self, message: dict[str, Any], reply: Reply) -> str:
        """
        Ask for something; C{reply} is called once, with the answer or what went wrong.  Answers the request's id.

        @raise TypeError: what is in it cannot be said in JSON.
        @raise ValueError: the same.
        """
        name = self._next_name()
        text = encode({**message, "id": name})
        if self._send is None:
            reply(NotConnectedError("there is no connection"))
        else:
            self._requests[name] = self._remembering(message, reply)
            self._send(text)
        return name

    def _next_name(self) -> str:
        name = f"r{self._next_id}"
        self._next_id += 1
        return name

    def _remembering(self, message: dict[str, Any], reply: Reply) -> Reply:
        if message["type"] != "unsubscribe":
            return reply
        channel = message["channel"]

        def left(answer: dict[str, Any] | DCMError) -> None:
            # what the server knows to be left it does not give back; global it gives to everybody
            if isinstance(answer, dict) and channel != "global":
                self._left.pop(channel, None)
            reply(answer)

        return left

    def ping(self, reply: Reply) -> str:
        """
        Ask for a sign of life.  Answers the request's id.
        """
        name = self._next_name()
        if self._send is None:
            reply(NotConnectedError("there is no connection"))
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
        return self.waiting >= (10 * self._queue_max if self.asking else self._queue_max)

    def one_less(self) -> None:
        """
        An event does not wait any more.
        """
        self.waiting -= 1
        self._room()

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
            self._take(frame)
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
            self.has = set(frame["subscriptions"])
            own = [name for name in frame["subscriptions"] if name.startswith("agents/")]
            if self.agent_id is None and len(own) == 1:
                self.agent_id = own[0].removeprefix("agents/")
        name = frame.get("id") or ""
        reply = self._requests.pop(name, None) or self._pings.pop(name, None)
        if reply is not None:
            reply(frame if frame.get("success") else refusal(frame))

    def _take(self, frame: dict[str, Any]) -> None:
        event = Event(
            str(frame.get("id")),
            str(frame.get("channel")),
            str(frame["event"]),
            frame.get("data"),
            int(frame.get("timestamp") or 0),
            frame,
        )
        seen = self._seen.get(event.id)
        first = seen is None
        if seen is None:
            seen = self._seen[event.id] = _Seen()
            if len(self._seen) > SEEN_MAX:
                self._seen.popitem(last=False)
        again = event.channel in seen.channels
        if again and seen.fate is _Fate.DONE:
            # the ack got lost
            self._acknowledge(event)
        if again and seen.fate is not _Fate.FAILED:
            # what was awaited does not seem to come
            seen.awaited = False
            self._settle_fate(event, seen)
            return
        fresh = first or again
        if again:
            # it failed, and is given anew on all its channels
            seen.channels.clear()
        seen.channels.add(event.channel)
        if fresh:
            seen.fate = _Fate.PENDING
        seen.awaited = self._comes_on_global(event, seen)
        wanting = [
            one
            for one in self.listeners
            if (fresh or one.channel is not None) and one.wants(event.event, event.channel)
        ]
        seen.open += len(wanting)
        for listener in wanting:
            listener.take(event, self._closer(event, seen))
        self._settle_fate(event, seen)

    def _comes_on_global(self, event: Event, seen: _Seen) -> bool:
        """
        One ack settles an event on all its channels: is there a listener that has yet to get it on C{global}?
        """
        return (
            event.tracked
            and "global" in self.channels
            and "global" not in seen.channels
            and any(one.channel is not None and one.wants(event.event, "global") for one in self.listeners)
        )

    def _settle_fate(self, event: Event, seen: _Seen) -> None:
        if seen.open == 0 and not seen.awaited and seen.fate is _Fate.PENDING:
            seen.fate = _Fate.DONE
            self._acknowledge(event)

    def _closer(self, event: Event, seen: _Seen) -> Done:
        told = False

        def dealt_with(well: bool) -> None:
            nonlocal told
            if told:
                return
            told = True
            seen.open -= 1
            if not well:
                # it is not acknowledged, and comes again
                seen.fate = _Fate.FAILED
            self._settle_fate(event, seen)

        return dealt_with

    def _acknowledge(self, event: Event) -> None:
        if event.tracked:
            self._say(encode({"type": "ack", "message_id": event.id}))


class Queue:
    """
    The events that wait for one listener, in their order.

    @param arrived: called when there is one more.

    @ivar ended: there will be no more.
    """

    def __init__(self, core: ClientCore, pattern: str, channel: str | None, arrived: Callable[[], object]) -> None:
        self._core = core
        self._arrived = arrived
        self._waiting: deque[tuple[Event, Done]] = deque()
        self._listener = Listener(pattern, channel, self._take)
        self.ended = False
        core.listeners[self._listener] = None

    def __len__(self) -> int:
        return len(self._waiting)

    def _take(self, event: Event, done: Done) -> None:
        self._core.waiting += 1
        self._waiting.append((event, done))
        self._arrived()

    def take(self) -> tuple[Event, Done] | None:
        """
        The next event, and what to call with whether it has been dealt with; None where none waits.
        """
        if not self._waiting:
            return None
        event, done = self._waiting.popleft()

        def dealt_with(well: bool) -> None:
            self._core.one_less()
            done(well)

        return event, dealt_with

    def end(self) -> None:
        """
        Take no more; those that wait are not acknowledged.
        """
        if self.ended:
            return
        self.ended = True
        self._core.listeners.pop(self._listener, None)
        while (taken := self.take()) is not None:
            taken[1](False)
        self._arrived()


class Inbox(Queue):
    """
    A queue from which events are taken one by one: to ask for the next is to have dealt with the last.
    """

    _done: Done | None = None

    def next(self) -> Event | None:
        """
        The next event; None where none waits.
        """
        self._finish(True)
        taken = self.take()
        if taken is None:
            return None
        event, self._done = taken
        return event

    def end(self) -> None:
        """
        Take no more; neither the last that was taken nor those that wait are acknowledged.
        """
        self._finish(False)
        super().end()

    def _finish(self, well: bool) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(well)


def place_of(url: str, *, tls: bool) -> tuple[bool, str, int]:
    """
    Whether a WebSocket's URL says TLS, its host and its port.

    @param tls: there are settings for TLS, which only C{wss://} has.
    @raise ValueError: it is no such URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not the address of a WebSocket: {url!r}: {error}") from None
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"not the address of a WebSocket: {url!r}; use ws:// or wss://")
    secure = parts.scheme == "wss"
    if tls and not secure:
        raise ValueError(f"there is no TLS with {url!r}; use wss://")
    return secure, parts.hostname, port or (443 if secure else 80)


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
