"""
What a worker has in common with the other workers of its supervisor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from dcm_ws.app.listening import Endpoints
from dcm_ws.app.node_budgets import NodePool
from dcm_ws.app.node_counts import Region, Tally
from dcm_ws.app.node_memory import NodeMemory
from dcm_ws.core.budgets import Allowance
from dcm_ws.core.counters import Count
from dcm_ws.http.gathering import Gather
from dcm_ws.http.shares import CommonShare
from dcm_ws.postgres.connection import Place

SHARES = ("websocket", "waiting", "http", "waiting of operators", "http of operators")
"""
The kinds of connections that are counted over all workers.
"""


class OwnPostgres(Protocol):
    """
    An embedded PostgreSQL: that of this process, or that of its supervisor.
    """

    def place(self) -> Deferred[Place]: ...

    async def stop(self) -> None: ...


class Siblings:
    """
    What a worker needs of its supervisor and of the other workers.

    @ivar worker: the number of this one, from 1 on.
    @ivar workers: how many there are.
    @ivar endpoints: accept connections from inherited sockets.
    @ivar postgres: the supervisor's embedded PostgreSQL.
    @ivar gather: asks the other workers.
    @ivar clients_elsewhere: returns the number of clients that the other workers have.
    @ivar reports: what they ask of this one: a function for each report, given whether to include names.
    """

    def __init__(
        self, worker: int, memory: NodeMemory, *, endpoints: Endpoints, postgres: OwnPostgres, gather: Gather
    ) -> None:
        self.worker = worker
        self.workers = memory.plan.workers
        self.endpoints = endpoints
        self.postgres = postgres
        self.gather = gather
        self.reports: dict[str, Callable[[bool], Any]] = {}
        self._memory = memory
        self._regions = [Region(memory.region(one), memory.plan.addresses) for one in range(self.workers)]
        self.clients_elsewhere = self._tally("websocket", by_address=False).elsewhere

    def share(
        self, kind: str, most: int = 0, per_address: int = 0, *, full: Count | None = None, crowded: Count
    ) -> CommonShare:
        """
        Room for the connections of a kind, of which each worker takes some.

        @param kind: one of L{SHARES}.
        """
        tally = self._tally(kind, by_address=per_address > 0)
        return CommonShare(tally, most, per_address, full=full, crowded=crowded)

    def pool(self, kind: str, allowance: Allowance) -> NodePool:
        """
        The budgets of a kind, from which all workers spend.
        """
        return NodePool(self._memory, kind, allowance, time.monotonic)

    def _tally(self, kind: str, *, by_address: bool) -> Tally:
        return Tally(self._memory, self.worker - 1, self._regions, SHARES.index(kind), by_address=by_address)
