"""
Bugs of the nodes of a cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dcm_ws.brokers.follower import Follower
from dcm_ws.brokers.handovers import UNKNOWN
from dcm_ws.brokers.postgres_log import PostgresLog
from dcm_ws.brokers.releases import Releases
from tests.chaos.durable.bugs import bug


@bug(Releases, "_heard", "a node that is asked for an agent says that it does not have it")
def release_refused(good: Any, self: Releases, node: str, message: bytes) -> bytes:
    return UNKNOWN


@bug(Follower, "_is_whole", "a node that reads the log again after a lost connection skips a row")
async def row_skipped(good: Any, self: Follower, session: Any, head: int) -> bool:
    whole: bool = await good(self, session, head)
    if whole and self._log.fetched < head:
        self._log.fetched += 1
    return whole


@bug(PostgresLog, "reach", "clients do not wait for a node that has read less of the log than they have")
def not_waited(good: Any, self: PostgresLog, pos: int, ready: Callable[[bool], object]) -> None:
    ready(True)
