"""
What is over after some time: one timer for any number of items.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from dcm_ws.core.schedule import Schedule

RESOLUTION = 0.01
"""
Seconds by which an item may be late.
"""

T = TypeVar("T", bound=Hashable)


class Deadlines(Generic[T]):
    """
    Calls a function with each item whose time is over.  There is one timer, for the item that is due next.

    @param later: calls a function after so many seconds; returns what can be cancelled.
    @param now: monotonic seconds.
    @param over: called with an item when its time is over, the earliest first.  If it raises, the other items are kept.
    """

    def __init__(self, later: Callable[..., Any], now: Callable[[], float], over: Callable[[T], object]) -> None:
        self._later = later
        self._now = now
        self._over = over
        self._schedule: Schedule[T] = Schedule(RESOLUTION)
        # of those that are due now, the ones that wait for their call
        self._due: dict[T, None] = {}
        self._timer: Any = None
        self._looks_at = 0.0

    def __len__(self) -> int:
        """
        How many items there are.
        """
        return len(self._schedule) + len(self._due)

    def put(self, item: T, seconds: float) -> None:
        """
        Have the time of an item be over in so many seconds, and at no other time.
        """
        self._due.pop(item, None)
        due = self._now() + seconds
        self._schedule.put(item, due)
        if self._timer is None or due < self._looks_at - RESOLUTION:
            self._wait()

    def drop(self, item: T) -> None:
        """
        Forget an item, if it is there.
        """
        self._due.pop(item, None)
        self._schedule.drop(item)

    def clear(self) -> None:
        """
        Forget all items.
        """
        self._due.clear()
        self._schedule.clear()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._schedule.next_due
        if due is None:
            return
        self._looks_at = due
        # the clock of the timer may be ahead of the other one
        self._timer = self._later(max(RESOLUTION, due - self._now()), self._look)

    def _look(self) -> None:
        self._timer = None
        self._due.update(dict.fromkeys(self._schedule.take(self._now())))
        try:
            while self._due:
                item = next(iter(self._due))
                del self._due[item]
                self._over(item)
        finally:
            for item in self._due:
                self._schedule.put(item, self._now())
            self._due.clear()
            self._wait()
