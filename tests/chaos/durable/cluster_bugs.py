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


@bug(Follower, "_look", "a node that reads the log again after a lost connection skips a row")
async def row_skipped(good: Any, self: Follower, session: Any, most: int) -> tuple[bool, str, int, list[Any]]:
    leads, epoch, head, rows = await good(self, session, most)
    if vars(self).get("last_session") is not session:
        vars(self)["last_session"] = session
        rows = rows[1:]
    return leads, epoch, head, rows


@bug(PostgresLog, "reach", "clients do not wait for a node that has read less of the log than they have")
def not_waited(good: Any, self: PostgresLog, pos: int, ready: Callable[[bool], object]) -> None:
    ready(True)
