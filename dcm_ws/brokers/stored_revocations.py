"""
Agents whose tokens were revoked, in the database: for all nodes, and for the next start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcm_ws.brokers.postgres_log import PostgresLog
from dcm_ws.core.revocations import KEEP_MS, MAX_REVOKED
from dcm_ws.postgres.connection import Address, DatabaseError, deadline
from dcm_ws.postgres.kept_connection import KeptConnection
from dcm_ws.postgres.statements import statement

LOOK_SECONDS = 30.0
"""
Seconds between two looks at what other nodes have revoked.  The bus carries it at once, but may lose it.
"""

RETRY_SECONDS = 5.0
"""
The same after a failure, if nothing could be read yet.
"""

_log = Logger(namespace="dcm_ws.agents")
_SECONDS = 5.0
_READ = statement("revoked/read")
_SAVE = statement("revoked/save")


class StoredRevocations(Service):
    """
    Reads and writes them, each time on a connection of its own: that happens seldom.

    @param address: returns where the database is.
    @param log: knows if the database has a log.
    @param load: receives the agents, each with the time up to which its tokens are revoked, in ms since the epoch.
    @param now: monotonic seconds.
    @param wall_ms: ms since the epoch.
    @param shared: other nodes may revoke tokens.
    """

    def __init__(
        self,
        reactor: Any,
        address: Address,
        log: PostgresLog,
        load: Callable[[Iterable[tuple[str, int]]], object],
        *,
        now: Callable[[], float],
        wall_ms: Callable[[], int],
        shared: bool,
    ) -> None:
        self._log = log
        self._load = load
        self._now = now
        self._wall_ms = wall_ms
        self._shared = shared
        self._connection = KeptConnection(
            reactor,
            address,
            "dcm-ws revocations",
            runs=lambda: bool(self.running),
            settings=statement("agents/connection"),
            writable=True,
        )
        self._turn = DeferredLock()
        self._epoch = ""
        self._due = float("-inf")

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        self._connection.close()
        return None

    def look(self) -> None:
        """
        Read what was revoked, if it is time for that.  To be called every second.
        """
        if not (self._log.is_open and self.running) or self._turn.locked:
            return
        is_new = self._epoch != self._log.epoch
        if self._now() >= self._due and (is_new or self._shared):
            self._due = self._now() + (RETRY_SECONDS if is_new else LOOK_SECONDS)
            self._turn.run(Deferred.fromCoroutine, self._read()).addErrback(self._failed)

    def save(self, agent: str, revoked_at: int, ready: Callable[[bool], object]) -> None:
        """
        Write a revocation.

        @param ready: receives whether it is written, or need not be.
        """
        if not self._log.is_open:
            ready(self._log.in_memory)
            return
        writing = self._turn.run(Deferred.fromCoroutine, self._write(agent, revoked_at))
        writing.addCallbacks(lambda _: True, self._failed).addCallback(ready)

    def _failed(self, failure: Failure) -> bool:
        failure.trap(*DatabaseError)
        _log.warn("revoked tokens cannot be read or written: {reason}", reason=failure.getErrorMessage())
        return False

    async def _read(self) -> None:
        epoch = self._log.epoch
        rows = await self._query(_READ, {"most": MAX_REVOKED})
        self._epoch = epoch
        self._due = self._now() + LOOK_SECONDS
        self._load([(agent, revoked_at) for agent, revoked_at in rows])

    async def _write(self, agent: str, revoked_at: int) -> None:
        await self._query(_SAVE, {"agent": agent, "revoked_at": revoked_at})

    async def _query(self, sql: str, parameters: dict[str, object]) -> Sequence[tuple[Any, ...]]:
        try:
            connection = await self._connection.get()
            with deadline(connection, _SECONDS):
                rows: Sequence[tuple[Any, ...]] = await connection.runQuery(
                    sql, parameters | {"after": self._wall_ms() - KEEP_MS}
                )
            return rows
        finally:
            self._connection.close()
