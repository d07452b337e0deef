"""
The events that wait for a client's listeners.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from dcm_ws.client.events import Dispatcher, Done, Event, Listener
from dcm_ws.client.gaps import Gap

T = TypeVar("T", Event, Event | Gap)
"""
What waits: events, or events and gaps.
"""


class Queue(Generic[T]):
    """
    The events that wait for one listener, in order.

    @param pattern: of event names.
    @param channel: a pattern of channel names; None for events on any channel, each only once.
    @param arrived: called when an event was added, and at the end.
    @param gaps: gaps are added, too, in their place between the events.

    @ivar ended: no more events will be added.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        pattern: str,
        channel: str | None,
        arrived: Callable[[], object],
        *,
        gaps: bool = False,
    ) -> None:
        self._dispatcher = dispatcher
        self._arrived = arrived
        self._waiting: deque[tuple[Any, Done]] = deque()
        self._listener = Listener(pattern, channel, self._take, self._skip if gaps else None)
        self.ended = False
        dispatcher.listeners[self._listener] = None

    def __len__(self) -> int:
        return len(self._waiting)

    def _take(self, event: Event, done: Done) -> None:
        self._dispatcher.waiting += 1
        self._waiting.append((event, done))
        self._arrived()

    def _skip(self, gap: Gap) -> None:
        self._dispatcher.waiting += 1
        self._waiting.append((gap, _nothing))
        self._arrived()

    def take(self) -> tuple[T, Done] | None:
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


class Inbox(Queue[T]):
    """
    A queue from which events are taken one by one; taking the next event acknowledges the previous one.
    """

    _done: Done | None = None

    def next(self) -> T | None:
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


def _nothing(success: bool) -> None:
    pass
