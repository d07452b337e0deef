"""
Reads the log in the database for clients that catch up, one query at a time on a connection of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dcm_ws.brokers.log_rows import Row
from dcm_ws.brokers.postgres_log import Found
from dcm_ws.core.behind import NEVER
from dcm_ws.postgres.connection import Address, DatabaseError, deadline, one_line
from dcm_ws.postgres.kept_connection import KeptConnection
from dcm_ws.postgres.statements import statement
from dcm_ws.protocol.channels import GLOBAL

_log = Logger(namespace="dcm_ws.log")

_PAGE = statement("reading/page")
_FIND = statement("reading/find")
_PAGE_BYTES = 1 << 20
_QUERY_SECONDS = 10.0
_AGAIN_SECONDS = 0.5

_Ready = Callable[[Found | None], object]


class LogReader(Service):
    """
    A L{Reader<dcm_ws.brokers.postgres_log.Reader>} in PostgreSQL.

    @param address: returns where the database is.
    @param now: monotonic seconds.
    """

    def __init__(self, reactor: Any, address: Address, now: Callable[[], float]) -> None:
        self._now = now
        self._connection = KeptConnection(
            reactor,
            address,
            "dcm-ws read",
            runs=lambda: bool(self.running),
            settings=statement("reading/session"),
            writable=True,
        )
        # each client asks once, and then waits for the answer
        self._asked: deque[tuple[str, Mapping[str, object], int, _Ready]] = deque()
        self._working: Deferred[None] | None = None
        self._not_before = 0.0

    @property
    def waiting(self) -> int:
        """
        How many reads have no answer yet.
        """
        return len(self._asked)

    def page(self, lanes: Mapping[str, int], head: int, most: int, ready: _Ready) -> None:
        """
        Read the next events of some channels, each after its own position, up to C{head}.
        """
        after = dict(lanes)
        parameters = {
            "everything": after.get(GLOBAL.name, NEVER),
            "channels": list(after),
            "after": list(after.values()),
            "head": head,
            "most": most,
            "bytes": _PAGE_BYTES,
        }
        self._ask(_PAGE, parameters, most, ready)

    def find(self, positions: Sequence[int], ready: _Ready) -> None:
        """
        Read single events.
        """
        self._ask(_FIND, {"positions": list(positions)}, len(positions), ready)

    def _ask(self, sql: str, parameters: Mapping[str, object], most: int, ready: _Ready) -> None:
        self._asked.append((sql, parameters, most, ready))
        self._start()

    def _start(self) -> None:
        if self._asked and self._working is None:
            self._working = Deferred.fromCoroutine(self._work())
            self._working.addErrback(lambda failure: _log.failure("the log could not be read", failure))
            # not in the coroutine, which may have ended by now
            self._working.addBoth(self._done)

    def _done(self, _: object) -> None:
        self._working = None
        # unless one of those that were answered has raised an error
        self._start()

    def stopService(self) -> Awaitable[None] | None:
        super().stopService()
        self._connection.close()
        return self._working

    async def _work(self) -> None:
        while self._asked:
            sql, parameters, most, ready = self._asked[0]
            rows = await self._query(sql, parameters, most)
            self._asked.popleft()
            ready(rows)

    async def _query(self, sql: str, parameters: Mapping[str, object], most: int) -> Found | None:
        """
        None if it could not be read.
        """
        if not self.running or self._now() < self._not_before:
            return None
        try:
            connection = await self._connection.get()
            with deadline(connection, _QUERY_SECONDS):
                found = await connection.runQuery(sql, parameters)
        except DatabaseError as error:
            self._not_before = self._now() + _AGAIN_SECONDS
            if self.running:
                _log.warn("the log cannot be read: {reason}", reason=one_line(error))
            self._connection.close()
            return None
        rows = [Row(*row) for row in found]
        return Found(rows, is_all=len(rows) < most and _size(rows) < _PAGE_BYTES)


def _size(rows: list[Row]) -> int:
    return sum(len(row.data.encode()) for row in rows)
