"""
Spreads work over the reactor's turns, so that the clients that cause it do not delay the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime


class Turns:
    """
    Does a limited number of jobs in each turn of the reactor, in the order in which they were given.

    @param most: jobs in one turn.
    """

    def __init__(self, clock: IReactorTime, most: int) -> None:
        self._clock = clock
        self._most = most
        self._done = 0
        self._jobs: deque[Callable[[], object]] = deque()

    def __len__(self) -> int:
        """
        The jobs that wait for a later turn.
        """
        return len(self._jobs)

    def __bool__(self) -> bool:
        return True

    def do(self, job: Callable[[], object]) -> bool:
        """
        Call C{job} at once, or in a later turn if this one has reached the limit.  Returns whether it was called.
        """
        if not self._done:
            self._clock.callLater(0, self._next)
        if self._done >= self._most:
            self._jobs.append(job)
            return False
        self._done += 1
        job()
        return True

    def _next(self) -> None:
        self._done = min(self._most, len(self._jobs))
        if self._done:
            self._clock.callLater(0, self._next)
        for _ in range(self._done):
            self._jobs.popleft()()
