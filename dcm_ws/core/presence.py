"""
Which agents are connected (protocol, section 3).
"""

from __future__ import annotations

from collections import Counter

from dcm_ws.core.router import Router
from dcm_ws.core.session import Session
from dcm_ws.protocol.channels import GLOBAL


class Presence:
    """
    Counts the connections of each agent, and notifies the subscribers of C{global} when agents come and go.

    @ivar agents: the number of connections of each agent that has any.
    @ivar connections: the connections of each agent that has any, the oldest first.
    @ivar shared: the agents that have several.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self.agents: Counter[str] = Counter()
        self.connections: dict[str, dict[Session, None]] = {}
        self.shared: set[str] = set()

    def begin(self, session: Session, agent: str) -> None:
        """
        C{session} is one more connection of C{agent}.
        """
        self.agents[agent] += 1
        connections = self.connections.setdefault(agent, {})
        connections[session] = None
        if len(connections) == 2:
            self.shared.add(agent)

    def others(self, session: Session, agent: str) -> list[Session]:
        """
        The connections of C{agent} other than C{session}.
        """
        connections = self.connections.get(agent)
        if connections is None or (len(connections) == 1 and session in connections):
            return []
        return [one for one in connections if one is not session]

    def end(self, session: Session, agent: str) -> None:
        """
        C{session} is not a connection of C{agent} any more.
        """
        self.agents[agent] -= 1
        del self.connections[agent][session]
        if len(self.connections[agent]) == 1:
            self.shared.remove(agent)
        if not self.agents[agent]:
            del self.agents[agent]
            del self.connections[agent]
        self.announce("agent.disconnected", session, agent)

    def announce(self, event: str, session: Session, agent: str) -> None:
        """
        Publish that C{agent} is connected, or disconnected, by C{session}.
        """
        data = {"agent_id": agent, "client_id": session.client_id, "session_id": session.dcm_session}
        self._router.announce(GLOBAL, event, data)
