"""
This process as a node of a cluster.
"""

from __future__ import annotations

import os
import socket

from twisted.internet.defer import Deferred

from dcm_ws.app.base import Base
from dcm_ws.app.bus import make_bus
from dcm_ws.app.database import Database
from dcm_ws.app.listening import Endpoints
from dcm_ws.app.modes import keep_durable
from dcm_ws.app.owning import NodeAgents
from dcm_ws.brokers.bus_postgres import PostgresBus
from dcm_ws.brokers.membership import Membership
from dcm_ws.brokers.postgres_log import PostgresLog
from dcm_ws.core.assembly import Core
from dcm_ws.core.counts import Counts
from dcm_ws.postgres.connection import Place
from dcm_ws.postgres.nodes import NodeInfo
from dcm_ws.version import VERSION


class ClusterNode:
    """
    Makes what a node needs, and connects it with the parts that are made after it.

    @ivar bus: to the other nodes.
    @ivar agents: the agents that this node has.
    """

    def __init__(self, base: Base, counts: Counts, log: PostgresLog, endpoints: Endpoints) -> None:
        settings, reactor, world, _ = base
        self._settings = settings
        self._world = world
        self._endpoints = endpoints
        self._membership: Membership
        self._database: Database
        self.bus = make_bus(settings, reactor, self._place, counts, world.now)
        self.agents = NodeAgents(reactor, self._place, world, counts, log, self.bus, keep_durable(settings))

    def _place(self) -> Deferred[Place]:
        return self._database.place()

    def membership(self, core: Core) -> Membership:
        """
        Make what the database learns of this node.
        """
        clients, log = core.clients, core.log

        def figures() -> dict[str, object]:
            return {"clients": len(clients.sessions), "agents": len(clients.connections), "pos": log.head}

        self._membership = membership = Membership(self._info, figures, self._world.now)
        join = self.bus.join
        membership.joined = lambda node, cluster: join(str(node), cluster)
        return membership

    def _info(self) -> NodeInfo:
        host = socket.gethostname()
        name = self._settings.node_name or f"{host}:{self._endpoints.number or os.getpid()}"
        return NodeInfo(name, host, os.getpid(), VERSION, self._endpoints.address)

    def attach(self, core: Core, database: Database) -> None:
        """
        Called once, when everything is made.
        """
        self._database = database
        self.agents.attach(core, database, self._membership)
        self.bus.setServiceParent(database)
        if isinstance(self.bus, PostgresBus):
            database.hurries.append(self.bus.hurry)
