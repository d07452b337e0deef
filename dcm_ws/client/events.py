"""
Events on a client's side: which listeners get an event, and when it is acknowledged.
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
Called once when an event has been handled, with whether that succeeded.
"""

SEEN_MAX = 10_000
"""
Number of event ids that are remembered, to drop duplicates.
"""

_TRACKED = ("task.", "subtask.", "message.")


@dataclass(frozen=True, slots=True)
class Event:
    """
    An event, as it came on one channel.

    @ivar id: the same on every channel and each time that the event is sent.
    @ivar timestamp: milliseconds since the epoch; the time of arrival if the server sent none that is usable
        (L{moment_of}).
    @ivar frame: the server's whole frame.
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
        The agent that published it; None for events of the service, of the database and of anonymous clients.
        """
        return self.frame.get("from")

    @property
    def origin(self) -> str | None:
        """
        On C{global}, the channel that it was published to; None if that was C{global}, and on other channels.
        """
        return self.frame.get("origin")

    @property
    def tracked(self) -> bool:
        """
        Whether the server expects an acknowledgement.
        """
        return self.event.startswith(_TRACKED)


@dataclass(eq=False, slots=True)
class Listener:
    """
    Somebody who wants events.

    @ivar pattern: of event names, such as C{task.*}.
    @ivar channel: a pattern of channel names; None for events on any channel, each only once.
    @ivar take: called with each event, and with what to call when it has been handled.
    """

    pattern: str
    channel: str | None
    take: Callable[[Event, Done], object]

    def wants(self, event: str, channel: str) -> bool:
        """
        Whether this listener wants such an event on such a channel.

        @param event: the event's name.
        @param channel: the channel's name.
        """
        # compared literally, too: a name may contain characters that are special in a pattern
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
    What is known of an event that has come.

    @ivar channels: where it has come.
    @ivar open: number of listeners that are handling it.
    @ivar awaited: it will come on C{global}, too, where listeners want it.
    """

    channels: set[str] = field(default_factory=set)
    open: int = 0
    awaited: bool = False
    fate: _Fate = _Fate.PENDING


class Dispatcher:
    """
    Gives each event once to each listener that wants it, and acknowledges events that all their listeners have handled.

    @param acknowledge: called with the id of such an event, if the server expects an acknowledgement.
    @param mirrored: returns whether the client receives the events of its other channels on C{global}, too.
    @param room: called when fewer events wait.
    @param wall_ms: returns the time of arrival, for events without a usable timestamp.

    @ivar waiting: number of events that wait for listeners, or that listeners are handling.
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
            # sent again before it came on global: do not wait for that any longer
            seen.awaited = False
            self._settle_fate(event, seen)
            return
        fresh = first or again
        if again:
            # it failed, so the server delivers it again on all its channels
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
        Whether a listener still has to get the event on C{global}: one acknowledgement counts for all its channels.
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
        called = False

        def handled(success: bool) -> None:
            nonlocal called
            if called:
                return
            called = True
            seen.open -= 1
            if not success:
                # without an acknowledgement the server sends it again
                seen.fate = _Fate.FAILED
            self._settle_fate(event, seen)

        return handled

    def _settle(self, event: Event) -> None:
        if event.tracked:
            self._acknowledge(event.id)

    def one_less(self) -> None:
        """
        An event no longer waits.
        """
        self.waiting -= 1
        self._room()


class Queue:
    """
    The events that wait for one listener, in order.

    @param pattern: of event names.
    @param channel: a pattern of channel names; None for events on any channel, each only once.
    @param arrived: called when an event was added, and at the end.

    @ivar ended: no more events will be added.
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
        The next event, and what to call when it has been handled; None if none waits.
        """
        if not self._waiting:
            return None
        event, done = self._waiting.popleft()

        def handled(success: bool) -> None:
            self._dispatcher.one_less()
            done(success)

        return event, handled

    def end(self) -> None:
        """
        Take no more events.  Those that wait are not acknowledged.
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
    A queue from which events are taken one by one; taking the next event acknowledges the previous one.
    """

    _done: Done | None = None

    def next(self) -> Event | None:
        """
        The next event; None if none waits.
        """
        self._finish(True)
        taken = self.take()
        if taken is None:
            return None
        event, self._done = taken
        return event

    def end(self) -> None:
        """
        Take no more events.  Neither the last one that was taken nor those that wait are acknowledged.
        """
        self._finish(False)
        super().end()

    def _finish(self, success: bool) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(success)
