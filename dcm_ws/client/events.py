"""
Events on a client's side: who wants them, and when they are acknowledged.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

from dcm_ws.client.moments import moment_of

Done = Callable[[bool], None]
"""
Told once whether an event has been dealt with well.
"""

SEEN_MAX = 10_000
"""
Event ids remembered, to leave out repetitions.
"""

_TRACKED = ("task.", "subtask.", "message.")


@dataclass(frozen=True, slots=True)
class Event:
    """
    What happened.

    @ivar id: the same on every channel, and in every repetition.
    @ivar timestamp: ms since the epoch; of the arrival, where the server sent none that is usable (L{moment_of}).
    @ivar frame: all that the server sent.
    """

    id: str
    channel: str
    event: str
    data: Any
    timestamp: int
    frame: dict[str, Any] = field(repr=False, compare=False, hash=False)

    @property
    def sender(self) -> str | None:
        """
        The agent that published it; None for the service's and the database's events, and for anonymous clients'.
        """
        return self.frame.get("from")

    @property
    def origin(self) -> str | None:
        """
        On C{global}, the channel that it was published to; None if that was C{global} itself, or on other channels.
        """
        return self.frame.get("origin")

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
        # a name may have characters that mean something in a pattern
        return fnmatchcase(event, self.pattern) and (
            self.channel in (None, channel) or fnmatchcase(channel, self.channel or "")
        )


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


class Dispatcher:
    """
    Gives events to those who want them, each once, and acknowledges those that all of them have dealt with.

    @param acknowledge: called with the id of such an event, if the server awaits that.
    @param mirrored: does the client get what is on its other channels on C{global}, too?
    @param room: called when fewer events wait.
    @param wall_ms: the time of arrival, which events without a usable timestamp get.

    @ivar waiting: events that wait for listeners, or are with them.
    """

    def __init__(
        self,
        *,
        acknowledge: Callable[[str], object],
        mirrored: Callable[[], bool],
        room: Callable[[], object],
        wall_ms: Callable[[], int],
    ) -> None:
        self._acknowledge = acknowledge
        self._mirrored = mirrored
        self._room = room
        self._wall_ms = wall_ms
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self.listeners: dict[Listener, None] = {}
        self.waiting = 0

    def take(self, frame: dict[str, Any]) -> None:
        """
        An event has come.

        @param frame: as the server sent it.
        """
        moment = moment_of(frame.get("timestamp"))
        event = Event(
            str(frame.get("id")),
            str(frame.get("channel")),
            str(frame["event"]),
            frame.get("data"),
            self._wall_ms() if moment is None else moment,
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
            self._settle(event)
        if again and seen.fate is not _Fate.FAILED:
            # what was awaited does not seem to come
            seen.awaited = False
            self._settle_fate(event, seen)
            return
        fresh = first or again
        if again:
            # it failed, and is delivered again on all its channels
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
            and self._mirrored()
            and "global" not in seen.channels
            and any(one.channel is not None and one.wants(event.event, "global") for one in self.listeners)
        )

    def _settle_fate(self, event: Event, seen: _Seen) -> None:
        if seen.open == 0 and not seen.awaited and seen.fate is _Fate.PENDING:
            seen.fate = _Fate.DONE
            self._settle(event)

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

    def _settle(self, event: Event) -> None:
        if event.tracked:
            self._acknowledge(event.id)

    def one_less(self) -> None:
        """
        An event does not wait any more.
        """
        self.waiting -= 1
        self._room()


class Queue:
    """
    The events that wait for one listener, in their order.

    @param arrived: called when there is one more.

    @ivar ended: there will be no more.
    """

    def __init__(
        self, dispatcher: Dispatcher, pattern: str, channel: str | None, arrived: Callable[[], object]
    ) -> None:
        self._dispatcher = dispatcher
        self._arrived = arrived
        self._waiting: deque[tuple[Event, Done]] = deque()
        self._listener = Listener(pattern, channel, self._take)
        self.ended = False
        dispatcher.listeners[self._listener] = None

    def __len__(self) -> int:
        return len(self._waiting)

    def _take(self, event: Event, done: Done) -> None:
        self._dispatcher.waiting += 1
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
            self._dispatcher.one_less()
            done(well)

        return event, dealt_with

    def end(self) -> None:
        """
        Take no more; those that wait are not acknowledged.
        """
        if self.ended:
            return
        self.ended = True
        self._dispatcher.listeners.pop(self._listener, None)
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
