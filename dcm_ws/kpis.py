"""
The metrics: what the database says of sessions, agents, tasks and messages, as one snapshot (protocol, section 7).

The five queries go to the database as one statement: one round trip, and one moment that all figures are of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg2
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dcm_ws.postgres import (
    Address,
    DatabaseConnection,
    DatabaseError,
    DatabaseUnavailableError,
    connect,
    deadline,
    one_line,
)

QUERY_TIMEOUT = 10.0
"""
Seconds that a snapshot may take.
"""

_STATEMENT_TIMEOUT_MS = int(QUERY_TIMEOUT * 900)
_RECHECK_TICKS = 12


class _Query(NamedTuple):
    """
    A query that gives one row.

    @ivar zeros: its columns, as they are where it cannot be asked.
    """

    sql: str
    zeros: dict[str, int]


_QUERIES = {
    "sessions": _Query(
        "select count(*) as open_sessions from sessions where ended_at is null",
        {"open_sessions": 0},
    ),
    "sessions, actions": _Query(
        "select count(*) as revived_sessions from sessions s where ended_at is not null and exists ("
        "select 1 from actions a where a.session_id = s.id"
        " and a.created_at > now() - interval '15 minutes')",
        {"revived_sessions": 0},
    ),
    "subtasks": _Query(
        "select count(distinct agent_id) filter (where status = 'running') as active_agents,"
        " count(*) filter (where status = 'pending') as pending_tasks,"
        " count(*) filter (where status = 'running') as running_tasks,"
        " count(*) filter (where status = 'completed'"
        " and completed_at > now() - interval '1 hour') as completed_tasks_last_hour,"
        " coalesce(avg(extract(epoch from completed_at - created_at) * 1000) filter ("
        "where status = 'completed' and completed_at > now() - interval '1 hour'), 0)::float8"
        " as avg_task_duration_ms from subtasks",
        {
            "active_agents": 0,
            "pending_tasks": 0,
            "running_tasks": 0,
            "completed_tasks_last_hour": 0,
            "avg_task_duration_ms": 0,
        },
    ),
    "agent_messages": _Query(
        "select count(*) as messages_last_hour from agent_messages where created_at > now() - interval '1 hour'",
        {"messages_last_hour": 0},
    ),
    "actions": _Query(
        "select count(*)::float8 / 5 as actions_per_minute from actions"
        " where created_at > now() - interval '5 minutes'",
        {"actions_per_minute": 0},
    ),
}


class KpiPoller(Service):  # type: ignore[misc]
    """
    Takes snapshots on a connection of its own.

    @param address: where the database is.
    @param took: told each snapshot.
    @param wall_ms: ms since the epoch.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        address: Address,
        *,
        took: Callable[[dict[str, object]], object],
        wall_ms: Callable[[], int],
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._took = took
        self._wall_ms = wall_ms
        self._connection: DatabaseConnection | None = None
        self._running: Deferred[None] | None = None
        self._broken: set[str] = set()
        self._warned: set[str] = set()
        self._ticks = 0
        self.skipped = 0
        self.failed = 0
        self._failing = False

    def tick(self) -> None:
        """
        Take a snapshot, unless the last one is still being taken, or the service does not run.
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
        self._running.addErrback(lambda failure: self._log.failure("the metrics broke", failure))
        self._running.addBoth(self._done)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        running: Deferred[None] = Deferred()
        if self._running is None:
            running.callback(None)
        else:
            self._running.chainDeferred(running)
        self._close()
        return running

    def _done(self, _: object) -> None:
        self._running = None

    async def _snapshot(self) -> None:
        try:
            if self._connection is None:
                await self._connect()
            assert self._connection is not None
            figures = await self._figures(self._connection)
        except DatabaseError as error:
            self._fail(one_line(error))
            self._close()
            return
        self._failing = False
        if self.running:
            self._took(self._kpis(figures))

    async def _connect(self) -> None:
        dsn = await self._address()
        if not self.running:
            raise DatabaseUnavailableError("the service stops")
        self._connection = connection = DatabaseConnection(self._reactor)
        await connect(connection, dsn, "dcm-ws metrics")
        connection.lost = lambda reason: self._close()
        # a query that is given up here would go on there, and hold its connection
        with deadline(connection, QUERY_TIMEOUT):
            await connection.runOperation(f"set statement_timeout = {_STATEMENT_TIMEOUT_MS}")

    def _fail(self, reason: str) -> None:
        self.failed += 1
        if self.running and not self._failing:
            self._failing = True
            self._log.warn("no metrics: {reason}", reason=reason)

    async def _figures(self, connection: DatabaseConnection) -> dict[str, float]:
        zeros: dict[str, float] = {}
        for query in _QUERIES.values():
            zeros |= query.zeros
        asked = [name for name in _QUERIES if name not in self._broken]
        if not asked:
            return zeros
        try:
            return zeros | await self._ask(connection, asked)
        except psycopg2.ProgrammingError:
            # something is missing; which of them?
            for name in asked:
                try:
                    zeros |= await self._ask(connection, [name])
                except psycopg2.ProgrammingError as error:
                    self._miss(name, one_line(error))
            return zeros

    async def _ask(self, connection: DatabaseConnection, names: list[str]) -> dict[str, float]:
        queries = [_QUERIES[name] for name in names]
        parts = [f"({query.sql}) q{n}" for n, query in enumerate(queries)]
        columns = [column for query in queries for column in query.zeros]
        with deadline(connection, QUERY_TIMEOUT):
            rows = await connection.runQuery(f"select {', '.join(columns)} from {' cross join '.join(parts)}")
        return dict(zip(columns, rows[0], strict=True))

    def _miss(self, name: str, reason: str) -> None:
        self._broken.add(name)
        # one table may be missed by more than one query
        if reason not in self._warned:
            self._warned.add(reason)
            self._log.warn("some metrics are given as 0: {reason}", reason=reason)

    def _kpis(self, figures: dict[str, float]) -> dict[str, object]:
        kpis: dict[str, object] = {
            "active_sessions": figures.pop("open_sessions") + figures.pop("revived_sessions"),
            **figures,
            "timestamp": self._wall_ms(),
        }
        kpis["avg_task_duration_ms"] = round(figures["avg_task_duration_ms"])
        kpis["actions_per_minute"] = round(figures["actions_per_minute"], 2)
        return kpis

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.lost = None
            connection.close()
