"""
How often a model may be interrupted.
"""

from __future__ import annotations


class Pace:
    """
    A budget of notifications.

    @param per_minute: notifications in a minute, on average.
    @param burst: notifications at once.
    """

    def __init__(self, per_minute: float, burst: int) -> None:
        self._each = 60.0 / per_minute
        self._burst = burst
        # when the budget will be full again, monotonic seconds
        self._full_at = 0.0

    def delay(self, now: float) -> float:
        """
        The seconds until another notification may be sent.

        @param now: monotonic seconds.
        """
        return max(0.0, self._full_at - now - (self._burst - 1) * self._each)

    def spend(self, now: float) -> None:
        """
        A notification is sent.

        @param now: monotonic seconds.
        """
        self._full_at = max(self._full_at, now) + self._each
