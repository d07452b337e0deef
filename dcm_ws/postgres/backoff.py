"""
How long to wait before the database is connected to again (protocol, section 7).
"""

from __future__ import annotations

from collections.abc import Callable

BACKOFF_FIRST = 0.1
BACKOFF_LAST = 10.0
"""
Seconds to wait before the first attempt to reconnect, and the longest wait.
"""

LASTING = 5.0
"""
Seconds after which a connection that is lost was not lost at once.
"""

# about one attempt a second: a connection that is lost at once each time must not lead to ten
_AT_ONCE = 3


def backoff(attempt: int, random: float) -> float:
    """
    Returns the seconds to wait before an attempt to reconnect: exponential, and up to half of it random.

    @param attempt: the number of the attempt, from 0.
    @param random: a number from 0 to 1.
    """
    full = min(BACKOFF_LAST, BACKOFF_FIRST * 2.0 ** min(attempt, 32))
    return max(BACKOFF_FIRST, full * (0.5 + random / 2))


class Backoff:
    """
    The waits of one part of the service that has a connection of its own.

    @param now: monotonic seconds.
    @param random: returns a number from 0 to 1.
    """

    def __init__(self, now: Callable[[], float], random: Callable[[], float]) -> None:
        self._now = now
        self._random = random
        self._attempt = 0
        self._connected_at: float | None = None

    def connected(self) -> None:
        """
        There is a connection that can be used.
        """
        self._connected_at = self._now()

    def next(self) -> float:
        """
        The connection was lost, or could not be made: return the seconds to wait before the next attempt.
        """
        connected_at, self._connected_at = self._connected_at, None
        if connected_at is not None:
            lasted = self._now() - connected_at >= LASTING
            self._attempt = 0 if lasted else min(self._attempt, _AT_ONCE)
        attempt, self._attempt = self._attempt, self._attempt + 1
        return backoff(attempt, self._random())
