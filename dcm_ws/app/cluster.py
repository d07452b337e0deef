"""
This process as a node of a cluster.
"""

from __future__ import annotations

import os
import socket

from dcm_ws.app.listening import Endpoints
from dcm_ws.app.settings import Settings
from dcm_ws.brokers.membership import Membership
from dcm_ws.core.clients import Clients
from dcm_ws.core.ports import Log, World
from dcm_ws.postgres.nodes import NodeInfo
from dcm_ws.version import VERSION


def make_membership(settings: Settings, world: World, endpoints: Endpoints, clients: Clients, log: Log) -> Membership:
    """
    What the other nodes and operators learn of this one.
    """

    def info() -> NodeInfo:
        host = socket.gethostname()
        name = settings.node_name or f"{host}:{endpoints.number or os.getpid()}"
        return NodeInfo(name, host, os.getpid(), VERSION, endpoints.address)

    def figures() -> dict[str, object]:
        return {"clients": len(clients.sessions), "agents": len(clients.connections), "pos": log.head}

    return Membership(info, figures, world.now)
