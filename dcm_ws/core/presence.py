"""
Which agents are connected (protocol, section 3).
"""

from __future__ import annotations

from dcm_ws.core.clients import Clients
from dcm_ws.core.router import Router
from dcm_ws.core.session import Session
from dcm_ws.protocol.channels import GLOBAL


class Presence:
    """
    Keeps the connections of each agent, and notifies the subscribers of C{global} when agents come and go.
    """

    def __init__(self, router: Router, clients: Clients) -> None:
        self._router = router
        self._connections = clients.connections
        self._shared = clients.shared

    def begin(self, session: Session, agent: str) -> None:
        """
        C{session} is one more connection of C{agent}.
        """
        connections = self._connections.setdefault(agent, {})
        connections[session] = None
        if len(connections) == 2:
            self._shared.add(agent)

    def end(self, session: Session, agent: str) -> None:
        """
        C{session} is not a connection of C{agent} any more.
        """
        connections = self._connections[agent]
        del connections[session]
        if len(connections) == 1:
            self._shared.remove(agent)
        elif not connections:
            del self._connections[agent]
        self.announce("agent.disconnected", session, agent)

    def announce(self, event: str, session: Session, agent: str) -> None:
        """
        Publish that C{agent} is connected, or disconnected, by C{session}.
        """
        data = {"agent_id": agent, "client_id": session.client_id, "session_id": session.dcm_session}
        self._router.announce(GLOBAL, event, data)
