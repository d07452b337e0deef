"""
Which agents are connected (protocol, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator

from dcm_ws.core.clients import Clients
from dcm_ws.core.ledger import Ledger
from dcm_ws.core.nodes import Nodes
from dcm_ws.core.ownership import Ownership
from dcm_ws.core.ports import Bus, World
from dcm_ws.core.presence_messages import Member, as_event
from dcm_ws.core.registry import ChannelRegistry
from dcm_ws.core.router import Router
from dcm_ws.core.session import Session
from dcm_ws.protocol.channels import GLOBAL, METRICS


class Presence:
    """
    Keeps the connections of each agent, and notifies the subscribers of C{global} when agents come and go.

    @param bus: to the other nodes; None if there are none.

    @ivar nodes: the connections at all nodes; None if there is only this one.
    """

    def __init__(
        self,
        world: World,
        router: Router,
        clients: Clients,
        *,
        registry: ChannelRegistry[Session],
        bus: Bus | None,
        ownership: Ownership,
        ledger: Ledger,
    ) -> None:
        self._ledger = ledger
        self._router = router
        self._connections = clients.connections
        self._clients = clients
        self._ownership = ownership
        self._registry = registry
        self.nodes: Nodes | None = None
        if bus is not None:
            self.nodes = Nodes(
                bus,
                world.now,
                self._announce,
                gone=ownership.gone,
                moved=self._moved,
                metrics=self._metrics_here,
            )

    def begin(self, session: Session, agent: str) -> None:
        """
        C{session} is one more connection of C{agent}.
        """
        connections = self._connections.setdefault(agent, {})
        connections[session] = None
        self._ledger.join(session, agent)
        if self.nodes is not None:
            self._moved(agent)
        elif len(connections) == 2:
            self._clients.look(agent)

    def end(self, session: Session, agent: str) -> None:
        """
        C{session} is not a connection of C{agent} any more.
        """
        self._ledger.leave(session)
        connections = self._connections[agent]
        del connections[session]
        if not connections:
            del self._connections[agent]
            self._clients.abroad.discard(agent)
        self._clients.look(agent)
        if self.nodes is None:
            self._announce("agent.disconnected", Member(session.client_id, agent, session.dcm_session))
        else:
            self.nodes.parted(session.client_id)
            if not connections and self.nodes.has(agent):
                self._ownership.offer(agent)

    def _moved(self, agent: str) -> None:
        """
        The connections of C{agent} have changed, here or at other nodes.
        """
        connections = self._connections.get(agent)
        if connections:
            assert self.nodes is not None
            abroad = self._clients.abroad
            if self.nodes.is_elsewhere(agent, (session.client_id for session in connections)):
                abroad.add(agent)
            else:
                abroad.discard(agent)
            self._clients.look(agent)

    def announce(self, session: Session, agent: str) -> None:
        """
        Publish that C{agent} is connected by C{session}.
        """
        member = Member(session.client_id, agent, session.dcm_session)
        if self.nodes is None:
            self._announce("agent.connected", member)
        else:
            self.nodes.joined(member)

    def wants_metrics(self) -> bool:
        """
        Is a client subscribed to the metrics, at any node?
        """
        return self._metrics_here() or (self.nodes is not None and self.nodes.metrics)

    def _metrics_here(self) -> bool:
        return bool(self._registry.members(METRICS.name))

    def sweep(self) -> Iterator[None]:
        """
        Look after the other nodes, a little with each step.
        """
        if self.nodes is not None:
            yield from self.nodes.sweep()

    def suspect(self, node: str) -> None:
        """
        The database has not seen another node for long.
        """
        if self.nodes is not None:
            self.nodes.suspect(node)

    def leave(self) -> None:
        """
        This node stops.
        """
        if self.nodes is not None:
            self.nodes.leave()

    def clear(self) -> None:
        """
        All clients are closed.
        """
        if self.nodes is not None:
            self.nodes.clear()

    def _announce(self, event: str, member: Member) -> None:
        self._router.announce(GLOBAL, event, as_event(member))
