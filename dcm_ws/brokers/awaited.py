"""
What waits until a node of a cluster has read the log as far as another node had.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

from dcm_ws.core.deadlines import Deadlines

AWAIT_SECONDS = 1.0
"""
Seconds that something waits for the log.
"""

# the first one may have begun before
_LOOKS = 2


class Awaited:
    """
    Positions that are waited for.

    @param later: calls a function after so many seconds; returns what can be cancelled.
    @param now: monotonic seconds.
    @param head: returns the position up to which the log was read.
    """

    def __init__(self, later: Callable[..., Any], now: Callable[[], float], head: Callable[[], int]) -> None:
        self._head = head
        self._looks = 0
        self._numbers = count()
        self._deadlines: Deadlines[int] = Deadlines(later, now, self._over)
        # by number; and positions with numbers, the lowest first
        self._waiting: dict[int, tuple[int, Callable[[bool], object]]] = {}
        self._positions: list[tuple[int, int]] = []

    def __len__(self) -> int:
        """
        How many wait.
        """
        return len(self._waiting)

    def add(self, pos: int, ready: Callable[[bool], object]) -> None:
        """
        See L{Log.reach<dcm_ws.core.ports.Log.reach>}.
        """
        number = next(self._numbers)
        self._waiting[number] = self._looks + _LOOKS, ready
        heappush(self._positions, (pos, number))
        self._deadlines.put(number, AWAIT_SECONDS)

    def looked(self) -> None:
        """
        It is known what is in the log now.
        """
        self._looks += 1

    def read(self) -> None:
        """
        More of the log is here.
        """
        head, positions = self._head(), self._positions
        while positions and positions[0][0] <= head:
            _, number = heappop(positions)
            self._deadlines.drop(number)
            waits = self._waiting.pop(number, None)
            if waits is not None:
                _, ready = waits
                ready(True)

    def _over(self, number: int) -> None:
        looks, ready = self._waiting.pop(number)
        if not self._waiting:
            self._positions.clear()
        ready(self._looks >= looks)
