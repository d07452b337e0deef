"""
The metrics: snapshots of the sessions, agents, tasks and messages in the database (protocol, section 7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import psycopg2
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dcm_ws.postgres.connection import Address, DatabaseConnection, DatabaseError, deadline, one_line
from dcm_ws.postgres.figures import (
    QUERIES,
    SCHEMAS,
    Query,
    UnreadableError,
    found,
    guarded,
    joined,
    relations,
    snapshot,
    sql_of,
)
from dcm_ws.postgres.kept_connection import KeptConnection

# an operator may filter by this name
_log = Logger(namespace="dcm_ws.kpis.KpiPoller")

QUERY_TIMEOUT = 10.0
"""
Seconds that a snapshot may take.
"""

_STATEMENT_TIMEOUT_MS = int(QUERY_TIMEOUT * 900)
_RECHECK_TICKS = 12

# errors of one query, after which the other queries still work
_TableError = (psycopg2.ProgrammingError, psycopg2.DataError, psycopg2.NotSupportedError, psycopg2.InternalError)


class KpiPoller(Service):
    """
    Takes snapshots on a connection of its own.

    @param address: returns where the database is.
    @param took: called with the data of each snapshot.
    @param wall_ms: returns milliseconds since the epoch.

    @ivar skipped: ticks at which the last snapshot was not finished.
    @ivar failed: snapshots that could not be taken.
    """

    def __init__(
        self,
        reactor: Any,
        address: Address,
        *,
        took: Callable[[dict[str, object]], object],
        wall_ms: Callable[[], int],
    ) -> None:
        self._took = took
        self._wall_ms = wall_ms
        self._connection = KeptConnection(reactor, address, "dcm-ws metrics", runs=lambda: bool(self.running))
        self._running: Deferred[None] | None = None
        self._broken: set[Query] = set()
        self._warned: set[str] = set()
        self._ticks = 0
        self.skipped = 0
        self.failed = 0
        self._failing = False

    def tick(self) -> None:
        """
        Take a snapshot, unless the last one is not finished or the service does not run.
        """
        if not self.running:
            return
        if self._running is not None:
            self.skipped += 1
            return
        self._ticks += 1
        if self._ticks % _RECHECK_TICKS == 0:
            self._broken.clear()
        self._running = Deferred.fromCoroutine(self._snapshot())
        self._running.addErrback(lambda failure: _log.failure("the snapshot of the metrics failed", failure))
        self._running.addBoth(self._done)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        running: Deferred[None] = Deferred()
        if self._running is None:
            running.callback(None)
        else:
            self._running.chainDeferred(running)
        self._connection.close()
        return running

    def _done(self, _: object) -> None:
        self._running = None

    async def _snapshot(self) -> None:
        try:
            figures = await self._figures(await self._connection.get())
        except DatabaseError as error:
            self._fail(one_line(error))
            self._connection.close()
            return
        self._failing = False
        if self.running:
            self._took({**snapshot(figures), "timestamp": self._wall_ms()})

    def _fail(self, reason: str) -> None:
        self.failed += 1
        if self.running and not self._failing:
            self._failing = True
            _log.warn("no metrics: {reason}", reason=reason)

    async def _figures(self, connection: DatabaseConnection) -> dict[str, float]:
        # before each snapshot, because an ordinary table may have been replaced by a view that runs code of others
        readable = await self._find(connection)
        try:
            return await self._ask(connection, readable)
        except _TableError:
            # find out which query failed
            figures: dict[str, float] = {}
            for query, sql in readable.items():
                try:
                    figures |= await self._ask(connection, {query: sql})
                except _TableError as error:
                    self._broken.add(query)
                    self._miss(one_line(error))
            return figures

    async def _find(self, connection: DatabaseConnection) -> dict[Query, str]:
        """
        Returns the queries whose tables can be read, with their SQL.
        """
        with deadline(connection, QUERY_TIMEOUT):
            schemas = (await connection.runQuery(SCHEMAS))[0][0]
            sql, parameters = relations(schemas)
            tables = found(await connection.runQuery(guarded(sql, _STATEMENT_TIMEOUT_MS), parameters))
        readable = {}
        for query in QUERIES:
            if query in self._broken:
                continue
            try:
                readable[query] = sql_of(query, tables)
            except UnreadableError as error:
                self._miss(str(error))
        return readable

    async def _ask(self, connection: DatabaseConnection, queries: Mapping[Query, str]) -> dict[str, float]:
        if not queries:
            return {}
        sql, columns = joined(queries)
        # without a timeout of the statement, the server would continue a query that is given up here
        with deadline(connection, QUERY_TIMEOUT):
            rows = await connection.runQuery(guarded(sql, _STATEMENT_TIMEOUT_MS))
        return dict(zip(columns, rows[0], strict=True))

    def _miss(self, reason: str) -> None:
        # several queries may need the same table
        if reason not in self._warned:
            self._warned.add(reason)
            _log.warn("some metrics are given as 0: {reason}", reason=reason)
