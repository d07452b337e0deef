"""
Agents of a cluster that come to this node, and go to others.

What is kept of an agent is at one node, which is its owner.  When the agent authenticates at another node, that one
becomes its owner, and is given everything by the former one.  Connections that the agent has there may be alive, or may
be dead without anybody knowing yet: they get events as before, but nothing of what they owe is kept, or becomes a dead
letter, unless this node takes the agent back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dcm_ws.core.agent_states import AgentState
from dcm_ws.core.agents import Absence, AgentMemory
from dcm_ws.core.catchup import CatchUp
from dcm_ws.core.changed import Changed
from dcm_ws.core.clients import NOTHING, Clients, Elsewhere
from dcm_ws.core.counts import Counts
from dcm_ws.core.dead_letters import DeadLetters, Listed
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.journal import Journal
from dcm_ws.core.loading import Loading
from dcm_ws.core.other_nodes import channels_of
from dcm_ws.core.ports import Owners, World
from dcm_ws.core.registry import ChannelRegistry
from dcm_ws.core.resumption import Resumption
from dcm_ws.core.session import Session
from dcm_ws.core.settling import Settling
from dcm_ws.protocol.commands import Ack, AckUpTo


class Given(NamedTuple):
    """
    What this node had of an agent.

    @ivar state: None if it had nothing.
    @ivar letters: the dead letters that the database does not have in this form yet, in the order of dying.
    """

    state: AgentState | None
    letters: list[Listed]


class Ownership:
    """
    Gives agents away, and takes them over.

    @param owners: None if there are no other nodes: then all of this is never needed.
    """

    def __init__(
        self,
        world: World,
        counts: Counts,
        *,
        clients: Clients,
        memory: AgentMemory,
        letters: DeadLetters,
        deliveries: DeliveryQueue,
        catch_up: CatchUp,
        registry: ChannelRegistry[Session],
        resumption: Resumption,
        settling: Settling,
        journal: Journal,
        loading: Loading,
        changed: Changed,
        owners: Owners | None,
    ) -> None:
        self._wall_ms = world.wall_ms
        self._counts = counts.owners
        self._clients = clients
        self._memory = memory
        self._letters = letters
        self._deliveries = deliveries
        self._catch_up = catch_up
        self._registry = registry
        self._resumption = resumption
        self._settling = settling
        self._journal = journal
        self._loading = loading
        self._changed = changed
        self._owners = owners

    def take_over(self, agent: str, state: AgentState | None, letters: Sequence[Listed]) -> None:
        """
        This node has C{agent} now, and did not have it before.  Its next connection gets what was kept of it; or those
        that it has, with L{settle_in}.

        @param state: None if nothing is kept of it.
        @param letters: its dead letters, in the order of dying.
        """
        there = self._clients.elsewhere.pop(agent, None)
        self._clients.look(agent)
        self._letters.take_over(letters)
        if state is not None:
            places: Mapping[str, int] = {}
            if there is not None:
                self._settle(agent, state)
                places = self._sent_meanwhile(agent, state, there)
            self._counts.taken += 1
            self._loading.take_over(agent, state, places)
        self._changed.agent(agent)

    def _settle(self, agent: str, state: AgentState) -> None:
        """
        Connections here of C{agent}, which was elsewhere, owe no acks for what has been settled there.
        """
        places = state.places
        for session in self._clients.connections.get(agent, ()):
            for delivery in list(session.owed.values()):
                event = delivery.event
                done = any(event.seq <= places.get(name, 0) for name in channels_of(event))
                if done and event.seq not in state.owed:
                    self._deliveries.forget(session, event.id)

    def _sent_meanwhile(self, agent: str, state: AgentState, there: Elsewhere) -> dict[str, int]:
        """
        How far C{agent} is in its channels, because connections that stayed here were sent what was published while it
        was elsewhere.  They owe acks for that, unless it was acknowledged or given up.
        """
        places: dict[str, int] = {}
        for session in self._clients.connections.get(agent, ()):
            since = self._registry.since(session)
            for name, place in self._catch_up.places(session)[1].items():
                if since.get(name, NOTHING) <= there.head:
                    places[name] = min(place, there.given_up - 1, places.get(name, place))
        known = state.places
        return {
            name: place
            for name, place in places.items()
            if there.places.get(name, NOTHING) <= known.get(name, NOTHING) < place
        }

    def learn(self, letter: Listed) -> None:
        """
        There is a dead letter of an agent of this node in the database, which may not be known here.
        """
        if self._letters.get(letter.agent, letter.event_id) is None:
            self._letters.take_over([letter])

    def settle_in(self, agent: str) -> None:
        """
        Give a connection of C{agent} what is kept of it, if there is a connection, and if it has not got it already.
        """
        connections = self._clients.connections.get(agent)
        if connections and self._memory.absence(agent) is not None:
            absence = self._memory.returned(agent)
            if absence is not None:
                self._resumption.settle_in(next(reversed(connections)), absence)

    def release(self, agent: str, node: str) -> Given:
        """
        Give C{agent} away.

        @param node: the name of the node that has it from now on.
        """
        self._counts.given += 1
        return self._part_with(agent, node)

    def _part_with(self, agent: str, node: str) -> Given:
        connections = self._clients.connections.get(agent)
        state = self._journal.release(agent)
        if connections:
            for session in connections:
                self._catch_up.disown(session)
            places = {} if state is None else state.places
            self._clients.elsewhere[agent] = Elsewhere(node, places, self._catch_up.head)
            self._clients.look(agent)
        self._memory.release(agent)
        return Given(state, self._letters.release(agent))

    def lose(self, agent: str, node: str) -> None:
        """
        Another node has taken C{agent} without this one knowing: what is here is old.
        """
        self._counts.lost += 1
        self._part_with(agent, node)

    def give_back(self, agent: str) -> AgentState | None:
        """
        This node is about to stop, and nobody need have C{agent}, which has no connection here: return its state, as
        L{release} does.
        """
        self._counts.given_back += 1
        return self._part_with(agent, "").state

    def acknowledged(self, agent: str, event_id: str, pos: int) -> None:
        """
        C{agent}, which is this node's or has connections here, has acknowledged something at another node.

        @param event_id: and C{pos}: as in L{Owners.acknowledged<dcm_ws.core.ports.Owners.acknowledged>}.
        """
        self._settling.acknowledge(agent, Ack(event_id) if event_id else AckUpTo(pos))

    def merge(self, agent: str, places: Mapping[str, int], *, stays: bool = False) -> None:
        """
        A connection of C{agent}, which is this node's, has ended at another node.

        @param places: and C{stays}: as in L{Owners.merge<dcm_ws.core.ports.Owners.merge>}.
        """
        connections = self._clients.connections.get(agent)
        if connections:
            newest = next(reversed(connections))
            self._memory.add(agent, places.keys(), durable=newest.durable)
            if not stays:
                self._resumption.inherit(newest, {}, places)
            return
        absence = self._memory.absence(agent) or Absence({}, {}, left=self._wall_ms())
        channels = {name: min(pos, absence.channels.get(name, pos)) for name, pos in places.items()}
        self._changed.agent(agent)
        self._memory.left(agent, absence._replace(channels={**absence.channels, **channels}))

    def is_connected(self, agent: str) -> bool:
        """
        Has C{agent} a connection here?
        """
        return agent in self._clients.connections

    def offered(self, agent: str) -> None:
        """
        A node has C{agent}, without a connection of it: if it has one here, it comes back.
        """
        if agent in self._clients.elsewhere:
            self._adopt([agent])

    def adopt_all(self) -> None:
        """
        Take back those agents with connections here that other nodes have without a connection, or that were those of a
        node that is gone.
        """
        if self._clients.elsewhere:
            self._adopt(list(self._clients.elsewhere))

    def gone(self, node: str) -> None:
        """
        Another node is gone, and may have had agents with connections here.
        """
        self.adopt_all()

    def _adopt(self, agents: list[str]) -> None:
        assert self._owners is not None
        self._owners.adopt(agents)

    def offer(self, agent: str) -> None:
        """
        The last connection of C{agent} here has ended, and it has others elsewhere.
        """
        if self._owners is not None:
            self._owners.offer(agent)

    def parted(self, agent: str) -> None:
        """
        This node is about to stop, and a connection of C{agent} here has ended.
        """
        if self._owners is not None and not self.is_connected(agent):
            self._owners.give_back(agent)
