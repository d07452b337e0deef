"""
A cluster of nodes, each with its core, its log, its bus and its agents; clients that hop between them; what happens to
all of them; and what they were promised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from twisted.logger import globalLogPublisher

from tests.fakes import WALL_MS
from tests.simulation.clients import Connection, Publisher, Roamer, SimAgent, SimReader, Watcher
from tests.simulation.clock import SimClock
from tests.simulation.database import Database
from tests.simulation.nodes import Node, hub_of

_FOREVER = float("inf")
_THERE_SECONDS = 1.0


@dataclass
class Trouble:
    """
    Something that may cost acks.

    @ivar nodes: at which nodes; None for all.
    """

    nodes: frozenset[Node] | None
    begin: float
    end: float = _FOREVER


class Cluster:
    """
    Nodes, clients and what happens to them.

    @param keep: seconds for which the log keeps events.
    @param max_waiting: bytes of messages that wait for the bus at one node.
    @param watched: nodes that have a client that hears which agents come and go.

    @ivar crowd: the agents.
    @ivar numbered: the nodes by their numbers.
    @ivar heard: messages that have arrived at nodes, by topic.
    @ivar answered: the positions that publishers were told, by the numbers of the events; and C{refused}: how many
        were not logged, by the reason.
    @ivar closed: how many connections nodes have closed, by the reason.
    @ivar restarted: how often a node has learnt that it is fenced.
    @ivar received: how many events clients have received.
    @ivar repeats: events that agents got again after they had acknowledged them: the agent, the position, when it came
        again, when it was acknowledged, and the nodes that may have lost that.
    @ivar broken: promises that were broken.
    """

    def __init__(
        self,
        seed: int,
        nodes: int,
        *,
        keep: float = 86_400.0,
        watched: int = 1000,
        max_waiting: int = 8 << 20,
        **choices: Any,
    ) -> None:
        self.random = Random(seed)
        self.clock = SimClock(1000.0)
        self.database = Database(self.clock, self.random, keep)
        self.hub = hub_of(self)
        self.bus_is_away = False
        self.max_waiting = max_waiting
        self.heard: Counter[str] = Counter()
        self.nodes: list[Node] = []
        self.numbered: dict[int, Node] = {}
        self.publishers: dict[Node, Publisher] = {}
        self.watchers: list[Watcher] = []
        self.agents: dict[str, SimAgent] = {}
        self.crowd: list[SimAgent] = []
        self.readers: list[SimReader] = []
        self.channels: list[str] = []
        self.numbers = 0
        self.answered: dict[int, int] = {}
        self.refused: Counter[str] = Counter()
        self.closed: Counter[int] = Counter()
        self.restarted = 0
        self.received = 0
        self.repeats: list[tuple[SimAgent, int, float, float, frozenset[Node]]] = []
        self.troubles: list[Trouble] = []
        self.broken: list[str] = []
        self._watched = watched
        self._choices = {"keep": keep, "max_connections": 1_000_000, "max_agents": 1_000_000, **choices}
        self._sides: list[list[Node]] = []
        self._named = 0
        globalLogPublisher.addObserver(self._logged)  # type: ignore[arg-type]
        for _ in range(nodes):
            self.add_node()

    def close(self) -> None:
        """
        The simulation has ended.
        """
        globalLogPublisher.removeObserver(self._logged)  # type: ignore[arg-type]

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _logged(self, event: dict[str, Any]) -> None:
        failure = event.get("log_failure")
        if failure is not None:
            self.broken.append(f"{self.clock.seconds():.3f} an error: {failure.getTraceback()}")

    def wall_ms(self) -> int:
        return WALL_MS + round((self.clock.seconds() - 1000) * 1000)

    # who is there

    def add_node(self) -> Node:
        self._named += 1
        node = Node(self, f"node{self._named}", **self._choices)
        self.nodes.append(node)
        self.publishers[node] = Publisher(self, node)
        if len(self.watchers) < self._watched:
            self.watchers.append(Watcher(self, f"watcher at {node.name}", node))
        if self._sides:
            self._part()
        return node

    def add_agent(self, name: str, *channels: str, lazy: float = 0.0) -> SimAgent:
        agent = self.agents[name] = SimAgent(self, name, list(channels))
        agent.lazy = lazy
        self.crowd.append(agent)
        return agent

    def add_reader(self, name: str, *channels: str) -> SimReader:
        reader = SimReader(self, name, list(channels))
        self.readers.append(reader)
        return reader

    def roamers(self) -> Iterator[Roamer]:
        yield from self.agents.values()
        yield from self.readers

    def any_agent(self) -> SimAgent:
        return self.random.choice(self.crowd)

    def any_node(self) -> Node:
        """
        A load balancer sends most clients to nodes that answer.
        """
        node = self.random.choice(self.nodes)
        if not node.serves and self.random.random() < 0.8:
            node = self.random.choice([node for node in self.nodes if node.serves] or self.nodes)
        return node

    # what happens

    def publish(self, channel: str) -> int:
        """
        Publish at any node; returns the number of the event.
        """
        self.numbers += 1
        self.publishers[self.any_node()].publish(channel, self.numbers)
        return self.numbers

    def kill(self, node: Node) -> None:
        """
        A node is gone, with all of its connections.
        """
        now = self.clock.seconds()
        self.troubles.append(Trouble(frozenset([node]), now, now))
        node.kill()
        self._gone(node)

    def stop(self, node: Node) -> None:
        """
        A node is asked to end; its clients are closed.
        """
        node.stop()
        self.clock.callLater(3.0, self._gone, node)

    def _gone(self, node: Node) -> None:
        if node not in self.nodes:
            return
        self.nodes.remove(node)
        del self.publishers[node]
        self.watchers = [watcher for watcher in self.watchers if watcher.home is not node]
        for roamer in self.roamers():
            connections: list[Connection] = [] if roamer.connection is None else [roamer.connection]
            if isinstance(roamer, SimAgent):
                roamer.old = [one for one in roamer.old if one.node is not node]
                connections += roamer.others
            for connection in connections:
                if connection.node is node:
                    connection.end()
                    roamer.lost(connection)

    def trouble(self, seconds: float, nodes: Collection[Node] | None, end: Callable[[], object]) -> None:
        """
        Something begins that ends after some time.
        """
        trouble = Trouble(None if nodes is None else frozenset(nodes), self.clock.seconds())
        self.troubles.append(trouble)

        def over() -> None:
            trouble.end = self.clock.seconds()
            end()

        self.clock.callLater(seconds, over)

    def freeze(self, node: Node, seconds: float, *, noticed: float = 0.5) -> None:
        """
        A node is stopped for some time.

        @param noticed: the part of its clients that notice it within some seconds.
        """
        node.process.freeze()
        node.link.silent()
        self.trouble(seconds, [node], node.process.thaw)
        for roamer in list(self.roamers()):
            connection = roamer.connection
            if connection is not None and connection.node is node and self.random.random() < noticed:
                self.clock.callLater(self.random.uniform(1.0, 8.0), self._notice, roamer, connection)

    def _notice(self, roamer: Roamer, connection: Connection) -> None:
        if roamer.connection is connection and connection.node.process.is_frozen:
            if isinstance(roamer, SimAgent):
                roamer.hop()
            else:
                roamer.connect()

    def cut_off(self, nodes: Collection[Node], seconds: float) -> None:
        """
        Nodes do not reach the database for some time.
        """
        for node in nodes:
            node.link.cut()
        self.trouble(seconds, nodes, lambda: [node.link.heal() for node in nodes])  # type: ignore[func-returns-value]

    def take_database_away(self, seconds: float) -> None:
        """
        The database answers nobody for some time.
        """
        database = self.database
        database.is_away = True
        for link in database.links:
            link.silent()

        def back() -> None:
            database.is_away = False

        self.trouble(seconds, None, back)

    def part(self, sides: list[list[Node]], seconds: float) -> None:
        """
        Nodes of one side do not hear those of another one for some time.
        """
        self._sides = sides
        self._part()

        def heal() -> None:
            if self._sides is sides:
                self._sides = []
                self.hub.heal()

        self.trouble(seconds, None, heal)

    def _part(self) -> None:
        self.hub.part(*([node.bus.node for node in side] for side in self._sides))

    def take_bus_away(self, seconds: float) -> None:
        """
        The servers of the bus are gone for some time.
        """
        self.bus_is_away = True
        self.hub.stop()

        def back() -> None:
            self.bus_is_away = False
            self.hub.start()

        self.trouble(seconds, None, back)

    def freeze_bus(self, seconds: float) -> None:
        """
        The servers of the bus do nothing for some time, and then bring what was sent meanwhile.
        """
        self.hub.freeze()
        self.trouble(seconds, None, self.hub.thaw)

    # time

    def run(self, seconds: float) -> None:
        self.clock.run(seconds)

    def settle(self, seconds: float = 20.0) -> None:
        """
        Connect everybody, and give everything time to arrive.
        """
        for roamer in list(self.roamers()):
            roamer.stays_away = False
            if roamer.connection is None:
                self.clock.callLater(self.random.uniform(0.0, 1.0), roamer.come_back)
        self.run(seconds)

    def make_safe(self, spread: float = 1.0) -> None:
        """
        Connect everybody; what is published from now on must reach them.

        @param spread: seconds within which they connect.
        """
        for roamer in self.roamers():
            roamer.stays_away = False
            self.clock.callLater(self.random.uniform(0.0, spread), roamer.come_back)
        self.run(spread + 4.0)
        for roamer in self.roamers():
            assert roamer.connection is not None and roamer.connection.is_in, roamer
        for agent in self.agents.values():
            agent.safe_from = self.numbers + 1

    # what was promised

    def log_at(self, pos: int) -> int | None:
        """
        The number of the event at a position.
        """
        log = self.database.log
        return int(log[pos - 1].data) if 0 < pos <= len(log) else None

    def nodes_of(self, agent: SimAgent, node: Node) -> frozenset[Node]:
        """
        A node, and the one that has an agent now.
        """
        row = self.database.agents.get(agent.name)
        owner = None if row is None else self.numbered.get(row.node or 0)
        return frozenset((node,) if owner is None else (node, owner))

    def repeated(self, agent: SimAgent, pos: int, acked: float, nodes: frozenset[Node]) -> None:
        self.repeats.append((agent, pos, self.clock.seconds(), acked, nodes))

    def dead(self, agent: SimAgent) -> set[int]:
        """
        The positions of its dead letters.  None may be of an event that it has not got although it was there.
        """
        letters = self.database.dead.get(agent.name, {}).values()
        for letter in letters:
            died = (letter.died_at - self.wall_ms()) / 1000 + self.clock.seconds()
            there = [one for since, one in agent.visits if one.reads and since + _THERE_SECONDS < died < one.until]
            if there and letter.pos not in agent.got and not self._was_trouble(died, frozenset(self.nodes), 20.0):
                agent.broken(f"was there at {died:.3f} when {letter.pos} became a dead letter, which it did not get")
        return {letter.pos for letter in letters}

    def check(self, allowed: float = 2.5, lately: float = 0.2) -> None:
        """
        Has everybody got what was promised, and nothing else?

        @param allowed: seconds around a trouble in which acks may be lost.
        @param lately: seconds in which an ack may be on its way from another node.
        """
        broken = self.broken
        broken += [failure.getTraceback() for failure in self.clock.failures]
        numbers = Counter(int(row.data) for row in self.database.log)
        broken += [f"{number} is in the log {times} times" for number, times in numbers.items() if times > 1]
        for number, pos in self.answered.items():
            if self.log_at(pos) != number:
                broken.append(f"{number} was acknowledged as {pos}, which is {self.log_at(pos)}")
        for agent in self.agents.values():
            self._check_agent(agent)
        for agent, pos, now, acked, nodes in self.repeats:
            if now - acked >= lately and not self._was_trouble(acked, nodes, allowed):
                broken.append(f"{agent} gets {pos} again at {now:.3f}, which it acknowledged at {acked:.3f}")
        for reader in self.readers:
            reader.judge()
        assert not broken, f"{len(broken)} promises are broken:\n" + "\n".join(broken[:20])

    def _check_agent(self, agent: SimAgent) -> None:
        if agent.safe_from is None:
            return
        due = {
            pos
            for channel in agent.channels
            for pos, number in self.database.numbers_of(channel)
            if number >= agent.safe_from
        }
        missing = due - agent.got
        if missing:
            missing -= self.dead(agent)
        told = max(agent.gaps, default=0)
        missing = {pos for pos in missing if pos >= told}
        if missing:
            agent.broken(f"does not get {sorted(missing)[:10]}")

    def _was_trouble(self, acked: float, nodes: frozenset[Node], margin: float) -> bool:
        return any(
            one.begin - margin <= acked <= one.end + margin
            for one in self.troubles
            if one.nodes is None or one.nodes & nodes
        )

    def check_presence(self) -> None:
        """
        All nodes agree on who is connected, and have told their clients so.
        """
        truth: set[tuple[str, str]] = set()
        for node in self.nodes:
            for agent, connections in node.core.clients.connections.items():
                truth.update((session.client_id, agent) for session in connections)
        connections_of = Counter(agent for _, agent in truth)
        for node in self.nodes:
            nodes = node.core.presence.nodes
            assert nodes is not None
            known = {(member.client, member.agent) for member in nodes.members()}
            assert known == truth, f"{node.name} misses {truth - known}, and has {known - truth}"
        for watcher in self.watchers:
            balance = watcher.balance
            for agent in balance.keys() | connections_of.keys():
                if agent in self.agents and watcher.is_whole:
                    assert balance[agent] == connections_of[agent], f"{watcher} is told wrong things of {agent}"

    def check_owners(self) -> None:
        """
        Each agent is at the node that the database says.  Another one may not know yet that it has lost the agent, but
        no connection is there then.
        """
        for name in self.agents:
            row = self.database.agents[name]
            for node in self.nodes:
                if node.number == row.node:
                    assert node.owned.releases.gens.get(name) == row.gen, (
                        f"{node.name} does not know that it has {name}"
                    )
                elif name in node.owned.releases.gens:
                    assert name not in node.core.clients.connections, (
                        f"{node.name} does not know that it has lost {name}"
                    )
