"""
What waits until a node of a cluster has read the log as far as another node had.
"""

from __future__ import annotations

from collections.abc import Callable

AWAIT_SECONDS = 1.0
"""
Seconds that something waits for the log.
"""

# the first one may have begun before
_LOOKS = 2


class Awaited:
    """
    Positions that are waited for.

    @param later: calls a function after so many seconds, with what comes after it.
    @param head: returns the position up to which the log was read.
    """

    def __init__(self, later: Callable[..., object], head: Callable[[], int]) -> None:
        self._later = later
        self._head = head
        self._looks = 0
        self._waiting: dict[object, tuple[int, int, Callable[[bool], object]]] = {}

    def __len__(self) -> int:
        """
        How many wait.
        """
        return len(self._waiting)

    def add(self, pos: int, ready: Callable[[bool], object]) -> None:
        """
        See L{Log.reach<dcm_ws.core.ports.Log.reach>}.
        """
        one = object()
        self._waiting[one] = pos, self._looks + _LOOKS, ready
        self._later(AWAIT_SECONDS, self._over, one)

    def looked(self) -> None:
        """
        It is known what is in the log now.
        """
        self._looks += 1

    def read(self) -> None:
        """
        More of the log is here.
        """
        head = self._head()
        for one, (pos, _, ready) in list(self._waiting.items()):
            if pos <= head:
                del self._waiting[one]
                ready(True)

    def _over(self, one: object) -> None:
        waits = self._waiting.pop(one, None)
        if waits is not None:
            _, looks, ready = waits
            ready(self._looks >= looks)
