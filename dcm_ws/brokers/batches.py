"""
What clients publish here, in batches for the database, which may refuse some of it.
"""

from __future__ import annotations

from collections import deque

import psycopg2

from dcm_ws.brokers.publishes import Publishes
from dcm_ws.core.publish_queue import Waiting

_BATCH = 2000
_BATCH_BYTES = 8 << 20


class Batches:
    """
    Takes publishes for the next step.  A batch that the database refuses because of its data is halved, until
    the one is found that it refuses; publishes that belong together are not parted.
    """

    def __init__(self, publishes: Publishes) -> None:
        self._publishes = publishes
        self._retry: deque[list[Waiting]] = deque()

    @property
    def has_waiting(self) -> bool:
        """
        True if there is something to take.
        """
        return bool(self._retry or self._publishes)

    def take(self) -> list[Waiting]:
        """
        The next batch, without what has been given up meanwhile.
        """
        batch = self._retry.popleft() if self._retry else self._publishes.take(_BATCH, _BATCH_BYTES)
        return [waiting for waiting in batch if waiting.published.waiting]

    def refused(self, batch: list[Waiting], error: psycopg2.Error) -> bool:
        """
        The database has refused a batch, and nothing of it was done.

        @return: the next one may be tried at once.
        """
        is_of_data = (error.pgcode or "")[:2] in ("22", "23", "54")
        ends = [number for number, waiting in enumerate(batch, 1) if not waiting.rest]
        if is_of_data and len(ends) > 1:
            half = ends[len(ends) // 2 - 1]
            self._retry.extendleft((batch[half:], batch[:half]))
            return True
        if is_of_data and batch:
            for waiting in batch:
                self._publishes.refuse(waiting)
        elif batch:
            self._retry.appendleft(batch)
        return False
