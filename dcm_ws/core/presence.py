"""
Which agents are connected (protocol, section 3).
"""

from __future__ import annotations

from collections import Counter

from dcm_ws.core.clients import Clients
from dcm_ws.core.router import Router
from dcm_ws.core.session import Session
from dcm_ws.protocol.channels import GLOBAL


class Presence:
    """
    Counts the connections of each agent, and notifies the subscribers of C{global} when agents come and go.

    @ivar agents: the number of connections of each agent that has any.
    """

    def __init__(self, router: Router, clients: Clients) -> None:
        self._router = router
        self._connections = clients.connections
        self._shared = clients.shared
        self.agents: Counter[str] = Counter()

    def begin(self, session: Session, agent: str) -> None:
        """
        C{session} is one more connection of C{agent}.
        """
        self.agents[agent] += 1
        connections = self._connections.setdefault(agent, {})
        connections[session] = None
        if len(connections) == 2:
            self._shared.add(agent)

    def end(self, session: Session, agent: str) -> None:
        """
        C{session} is not a connection of C{agent} any more.
        """
        self.agents[agent] -= 1
        del self._connections[agent][session]
        if len(self._connections[agent]) == 1:
            self._shared.remove(agent)
        if not self.agents[agent]:
            del self.agents[agent]
            del self._connections[agent]
        self.announce("agent.disconnected", session, agent)

    def announce(self, event: str, session: Session, agent: str) -> None:
        """
        Publish that C{agent} is connected, or disconnected, by C{session}.
        """
        data = {"agent_id": agent, "client_id": session.client_id, "session_id": session.dcm_session}
        self._router.announce(GLOBAL, event, data)
