"""
How long events take from their publication in the database until they are here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dcm_ws.brokers.log_rows import Row
from dcm_ws.core.counts import EngineCounts


class Lag:
    """
    Measures it.

    @param wall_ms: ms since the epoch.
    """

    def __init__(self, counts: EngineCounts, wall_ms: Callable[[], int]) -> None:
        self._observe = counts.lag_seconds.observe
        self._wall_ms = wall_ms

    def measure(self, rows: Sequence[Row]) -> None:
        """
        These events are here now.
        """
        now_ms = self._wall_ms()
        for row in rows:
            if row.publisher is None:
                self._observe(max(0, now_ms - row.at) / 1000)
