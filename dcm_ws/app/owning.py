"""
The agents of this process as a node of a cluster.
"""

from __future__ import annotations

import random
from typing import Any

from twisted.logger import Logger

from dcm_ws.app.database import Database
from dcm_ws.brokers.agent_tables import PostgresAgents
from dcm_ws.brokers.membership import Membership
from dcm_ws.brokers.owned_agents import Keep, OwnedAgents
from dcm_ws.brokers.postgres_log import PostgresLog
from dcm_ws.core.assembly import Core
from dcm_ws.core.counts import Counts
from dcm_ws.core.ports import Bus, World
from dcm_ws.postgres.agent_owners import NodeLease
from dcm_ws.postgres.connection import Address

_log = Logger(namespace="dcm_ws.owners")


class NodeAgents:
    """
    Makes what keeps the agents of this node, and connects it with the parts that are made after it.

    @param address: returns where the database is.
    @param keep: seconds for which the deliveries of durable agents are kept.

    @ivar owned: keeps the agents.
    """

    def __init__(
        self, reactor: Any, address: Address, world: World, counts: Counts, log: PostgresLog, bus: Bus, keep: float
    ) -> None:
        self._log = log
        self._core: Core
        self._database: Database
        self._membership: Membership
        takes, flushes = (
            PostgresAgents(reactor, address, name, self._lease) for name in ("dcm-ws owners", "dcm-ws agents")
        )
        self.owned = OwnedAgents(
            reactor,
            takes,
            flushes,
            bus,
            counts,
            leads=lambda: self._database.leads,
            reach=log.reach,
            last=lambda: log.delivery.last,
            fenced=self._has_lost_right,
            now=world.now,
            wall_ms=world.wall_ms,
            random=random.random,
            keep=Keep(max(keep, Keep().agents)),
        )

    def attach(self, core: Core, database: Database, membership: Membership) -> None:
        """
        Called once, when everything is made.
        """
        self._core, self._database, self._membership = core, database, membership
        self.owned.attach(journal=core.journal, ledger=core.ledger, ownership=core.ownership, redriving=core.redriving)
        core.hub.was_reset = lambda: self.owned.open(core.loading)
        membership.fenced = self._begin_again
        membership.unseen = lambda node: core.presence.suspect(str(node))
        database.own(self.owned, core.presence.leave)

    def _lease(self) -> NodeLease | None:
        node = self._membership.node
        return (
            NodeLease(node, self._log.epoch, *self._log.delivery.last)
            if node is not None and self._log.is_open
            else None
        )

    def _has_lost_right(self) -> None:
        # the session of the log finds out why, and joins again
        self._membership.hurry()

    def _begin_again(self) -> None:
        """
        The other nodes have taken this one for dead, and may have its agents: its clients come again.
        """
        _log.warn("what agents are owed may be at other nodes now: all clients reconnect")
        self._core.hub.restart()
