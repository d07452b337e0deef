"""
The state of the core in figures, for C{/health} and C{/stats}.
"""

from __future__ import annotations

from itertools import islice

from dcm_ws.core.agents import AgentMemory
from dcm_ws.core.clients import Clients
from dcm_ws.core.counts import Counts
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.presence import Presence
from dcm_ws.core.registry import ChannelRegistry
from dcm_ws.core.session import Session

NAMES_SHOWN = 1000
"""
Channels that C{channelStats} lists, at most, and agents that C{agentStats} lists.
"""


class Stats:
    """
    Puts together what there is now, and what has been counted since the start.
    """

    def __init__(
        self,
        counts: Counts,
        *,
        clients: Clients,
        registry: ChannelRegistry[Session],
        deliveries: DeliveryQueue,
        memory: AgentMemory,
        presence: Presence,
    ) -> None:
        self._counts = counts
        self._clients = clients
        self._registry = registry
        self._deliveries = deliveries
        self._memory = memory
        self._presence = presence

    def sizes(self, *, names: bool) -> dict[str, object]:
        """
        The figures that C{/health} and C{/stats} share.

        @param names: include the names of the channels.
        """
        sizes: dict[str, object] = {
            "connectedClients": len(self._clients.sessions),
            "activeChannels": len(self._registry),
        }
        if names:
            sizes["channelStats"] = dict(self._registry.sizes(NAMES_SHOWN))
        sizes["pendingDeliveries"] = self._deliveries.pending
        return sizes

    def report(self, *, names: bool) -> dict[str, object]:
        """
        The figures of C{/stats}, as of now.

        @param names: include the names of the channels and of the agents.
        """
        counts, deliveries = self._counts, self._counts.deliveries
        named: dict[str, object] = {}
        if names:
            named["agentStats"] = dict(islice(self._presence.agents.items(), NAMES_SHOWN))
        return self.sizes(names=names) | {
            **named,
            "failedDeliveries": deliveries.given_up,
            "authenticatedClients": self._clients.authenticated,
            "observers": len(self._clients.observers),
            "totalConnections": counts.connections,
            "events": {
                "client": sum(counts.events.client.values()),
                "database": sum(counts.events.database.values()),
                "badNotifications": counts.events.bad_notifications,
            },
            "deliveries": {
                "acked": deliveries.acked,
                "retried": deliveries.retried,
                "givenUp": deliveries.given_up,
                "neverAcknowledged": deliveries.never_acknowledged,
                "keptForAbsentAgents": self._memory.kept,
            },
            "agents": {
                "connected": len(self._presence.agents),
                "absent": self._memory.absent,
                "remembered": len(self._memory),
            },
            "refusals": dict(counts.refusals),
            "closes": {str(int(code)): n for code, n in counts.closes.items()},
            "limits": counts.limits.report(),
        }
