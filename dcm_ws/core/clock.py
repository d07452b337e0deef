"""
The clock for everything that waits for clients and for the database.
"""

from __future__ import annotations

from collections.abc import Callable


class RunningClock:
    """
    Monotonic seconds in which this process was running.

    A process may be stopped for any time: by SIGSTOP, a paused virtual machine, or a long stall of its own.  No client
    can be heard in that time, so it must not count as a client's silence.  What passes between two ticks therefore
    counts up to a limit only.

    @param real: monotonic seconds.

    @ivar longest: seconds between two ticks that count, at most.
    """

    def __init__(self, real: Callable[[], float], longest: float = 3.0) -> None:
        self.real = real
        self.longest = longest
        self._lost = 0.0
        self._ticked_at = real()
        # before the first tick everything counts
        self._limit = float("inf")

    def __call__(self) -> float:
        now = self.real() - self._lost
        return now if now < self._limit else self._limit

    def tick(self) -> float:
        """
        Note that the process is running.  To be called several times in L{longest} seconds.

        @return: seconds since the last tick, all of them.
        """
        real, now = self.real(), self()
        self._lost = real - now
        self._limit = now + self.longest
        gap, self._ticked_at = real - self._ticked_at, real
        return gap
