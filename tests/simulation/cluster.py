"""
A cluster of nodes, each with its core, its bus and its agents; clients that hop between them; and what they were
promised.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from twisted.internet.task import Clock

from dcm_ws.brokers.bus_memory import MemoryHub
from dcm_ws.brokers.owned_agents import OwnedAgents
from dcm_ws.core.assembly import Core
from dcm_ws.core.counts import Counts
from dcm_ws.core.entries import Draft, Published
from dcm_ws.core.ids import base36
from dcm_ws.core.log import MemoryLog
from dcm_ws.core.session import Origin
from dcm_ws.protocol.errors import CloseCode
from tests.core.living import finish
from tests.fakes import RecordingPeer, make_core
from tests.simulation.tables import Database, Tables

EVENT = "task.created"
_ORIGIN = Origin()


class SharedLog:
    """
    The log that all nodes have in common.

    @ivar drafts: by position, from 1.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.drafts: list[Draft] = []

    def append(self, draft: Draft) -> None:
        self.drafts.append(draft)
        for node in self.cluster.nodes.values():
            node.log.look_soon()


class NodeLog(MemoryLog):
    """
    The log as one node reads it.
    """

    shared: SharedLog

    def __init__(self, *args: Any, **limits: Any) -> None:
        super().__init__(*args, **limits)
        self._sent: dict[str, Published] = {}
        self._looks = False
        for draft in self.shared.drafts:
            # not attached to anything yet
            super().append(draft, Published(draft.id))

    def append(self, draft: Draft, published: Published) -> None:
        cluster = self.shared.cluster
        published.waiting = True
        self._sent[draft.id] = published
        cluster.clock.callLater(cluster.random.uniform(0.001, 0.005), self.shared.append, draft)

    def look_soon(self) -> None:
        if not self._looks:
            self._looks = True
            cluster = self.shared.cluster
            cluster.clock.callLater(cluster.random.uniform(0.001, 0.02), self.look)

    def look(self) -> None:
        self._looks = False
        while self.head < len(self.shared.drafts):
            draft = self.shared.drafts[self.head]
            super().append(draft, Published(draft.id))
            published = self._sent.pop(draft.id, None)
            if published is not None:
                published.answer(self.head)


class Node:
    """
    One node.
    """

    def __init__(self, cluster: Cluster, **choices: Any) -> None:
        self.cluster = cluster
        clock = cluster.clock
        self.number = cluster.database.register()
        self.tables = [Tables(cluster.database, self.number) for _ in range(2)]
        counts = Counts()
        self.bus = cluster.hub.bus(counts)
        self.bus.join(str(self.number), "test")
        self.is_alive = True

        class Log(NodeLog):
            shared = cluster.log

        self.owned = OwnedAgents(
            clock,
            *self.tables,
            self.bus,
            counts,
            leads=lambda: cluster.database.leader() == self.number,
            fenced=lambda: None,
            now=clock.seconds,
            wall_ms=cluster.wall_ms,
            random=lambda: 0.5,
        )
        self.core: Core = make_core(
            clock,
            counts=counts,
            log=Log,
            random=lambda length: base36(cluster.random.getrandbits(5 * length)).rjust(length, "0")[-length:],
            owners=self.owned,
            bus=self.bus,
            **choices,
        )
        self.owned.attach(journal=self.core.journal, ownership=self.core.ownership, hub=self.core.hub)
        self.owned.open(self.core.loading)
        self.owned.startService()
        self.log: NodeLog = self.core.log  # type: ignore[assignment]

    def tick(self) -> None:
        """
        What a node does once a second.
        """
        self.cluster.database.nodes[self.number] = self.cluster.clock.seconds()
        finish(self.core.hub.sweep())
        finish(self.core.hub.retry())
        self.owned.tick()

    def die(self) -> None:
        """
        End as a process that is killed.
        """
        self.is_alive = False
        self.bus.leave()
        for tables in self.tables:
            tables.is_cut = True
        self.owned.takes.stop()


class Far:
    """
    A connection, as its client sees it.

    @ivar reads: the client reads and acknowledges; if it does not, nobody knows yet that the connection is dead.
    """

    def __init__(self, agent: SimAgent | None, node: Node) -> None:
        self.node = node
        self.agent = agent
        self.peer = RecordingPeer()
        session = node.core.hub.connect(self.peer, _ORIGIN)
        assert session is not None
        self.session = session
        self.reads = True
        self._waiting: list[str] = []
        self.is_open = True

    def say(self, **message: Any) -> None:
        self._waiting.append(json.dumps(message))
        self.send()

    def send(self) -> None:
        """
        Have the node read what the client has sent, as far as it does.
        """
        while self._waiting and not self.peer.stopped and self.peer.closed is None:
            self.node.core.interpreter.receive(self.session, self._waiting.pop(0))

    def take(self) -> list[dict[str, Any]]:
        if self.peer.replaying is not None:
            self.peer.read(64)
        return self.peer.take()

    def end(self) -> None:
        """
        The connection is lost.
        """
        if self.is_open:
            self.is_open = False
            if self.node.is_alive:
                self.node.core.hub.disconnect(self.session)


@dataclass
class SimAgent:
    """
    An agent that acknowledges what it gets.

    @ivar due: numbers of events that it must get, as far as is known.
    @ivar acked: the events that it has acknowledged, with the times.
    @ivar last: the last position that was new to it, by channel.
    """

    name: str
    channels: list[str]
    far: Far | None = None
    old: list[Far] = field(default_factory=list)
    is_in: bool = False
    is_safe: bool = False
    was_half_dead: bool = False
    due: set[int] = field(default_factory=set)
    got: set[int] = field(default_factory=set)
    acked: dict[int, float] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    repeats: list[tuple[float, int, float]] = field(default_factory=list)


class Cluster:
    """
    Nodes, agents and what happens to them.

    @ivar faults: when something was lost that may cost acks: crashes and losses of the bus.
    """

    def __init__(self, seed: int, nodes: int, **choices: Any) -> None:
        self.random = Random(seed)
        self.clock = Clock()
        self.clock.advance(1000)
        self.database = Database(self.clock, self.random)
        self.hub = MemoryHub(self.clock.callLater, self.clock.seconds, self.random, delay=(0.0005, 0.005))
        self.nodes: dict[int, Node] = {}
        self.log = SharedLog(self)
        self.choices = choices
        self.agents: dict[str, SimAgent] = {}
        self.published: dict[int, str] = {}
        self.numbers = 0
        self.faults: list[float] = []
        self.closed: Counter[int] = Counter()
        for _ in range(nodes):
            self.add_node()
        self._ticked: dict[int, float] = {}

    def wall_ms(self) -> int:
        return round(self.clock.seconds() * 1000)

    def add_node(self) -> Node:
        node = Node(self, **self.choices)
        self.nodes[node.number] = node
        return node

    def add_agent(self, name: str, *channels: str) -> SimAgent:
        agent = self.agents[name] = SimAgent(name, list(channels))
        return agent

    def any_node(self) -> Node:
        return self.random.choice(list(self.nodes.values()))

    # what happens

    def connect(self, agent: SimAgent, node: Node | None = None, *, hangs: bool = False) -> Far:
        """
        An agent connects, maybe to another node than before.

        @param hangs: its former connection is not ended: nobody knows that it is dead.
        """
        former = agent.far
        if former is not None:
            former.reads = False
            if hangs:
                agent.old.append(former)
                agent.was_half_dead = True
            else:
                former.end()
        agent.is_in = False
        agent.far = far = Far(agent, node or self.any_node())
        far.say(type="unsubscribe", channel="global")
        far.say(type="auth", agent_id=agent.name, durable=True, id=1)
        for number, channel in enumerate(agent.channels, 2):
            far.say(type="subscribe", channel=channel, id=number)
        return far

    def leave(self, agent: SimAgent) -> None:
        if agent.far is not None:
            agent.far.end()
            agent.far = None
            agent.is_in = False

    def publish(self, channel: str) -> None:
        self.numbers += 1
        number = self.numbers
        node = self.any_node()
        far = Far(None, node)
        far.say(type="publish", channel=channel, event=EVENT, data=number, id=number)
        self.published[number] = channel
        far.end()
        for agent in self.agents.values():
            if agent.is_safe and channel in agent.channels:
                agent.due.add(number)

    def kill(self, node: Node) -> None:
        """
        A node is gone, with all of its connections.
        """
        self.faults.append(self.clock.seconds())
        del self.nodes[node.number]
        node.die()
        for agent in self.agents.values():
            agent.old = [far for far in agent.old if far.node is not node]
            if agent.far is not None and agent.far.node is node:
                agent.far = None
                agent.is_in = False

    def stop(self, node: Node) -> None:
        """
        A node stops in order: its clients are closed, and it ends a moment later.
        """
        del self.nodes[node.number]
        node.core.hub.draining = True
        for session in list(node.core.clients.sessions):
            node.core.hub.close(session, CloseCode.RESTART)
        self.clock.callLater(self.random.uniform(0.0, 0.5), self._end, node)

    def _end(self, node: Node) -> None:
        def ended(_: object) -> None:
            node.core.presence.leave()
            self.database.nodes.pop(node.number, None)
            node.die()

        node.owned.stopService().addCallback(ended)

    # time

    def run(self, seconds: float, step: float = 0.01) -> None:
        """
        Let time pass.
        """
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(step)
            now = self.clock.seconds()
            for node in list(self.nodes.values()):
                if now >= self._ticked.get(node.number, 0.0):
                    self._ticked[node.number] = now + 1.0
                    node.tick()
            self.database.fence()
            for agent in self.agents.values():
                self._look(agent)

    def _look(self, agent: SimAgent) -> None:
        for far in list(agent.old):
            if not far.node.is_alive or far.peer.closed is not None:
                agent.old.remove(far)
                far.end()
        far = agent.far
        if far is None:
            return
        far.send()
        for message in far.take():
            if message.get("event") == EVENT:
                self._event(agent, far, message)
            elif message.get("type") == "ack" and message.get("id") == 1 + len(agent.channels):
                agent.is_in = True
        if far.peer.closed is not None:
            self.closed[int(far.peer.closed)] += 1
            far.end()
            agent.far = None
            agent.is_in = False

    def _event(self, agent: SimAgent, far: Far, message: dict[str, Any]) -> None:
        number, now = message["data"], self.clock.seconds()
        channel = self.published[number]
        if number in agent.acked:
            agent.repeats.append((now, number, agent.acked[number]))
        if number not in agent.got:
            agent.got.add(number)
            last = agent.last.get(channel, 0)
            assert agent.was_half_dead or message["pos"] > last, (
                f"{agent.name} gets {message['pos']} after {last} in {channel}"
            )
            agent.last[channel] = message["pos"]
        agent.acked[number] = now
        far.say(type="ack", message_id=message["id"])

    def settle(self, seconds: float = 15.0) -> None:
        """
        Connect everybody, and give everything time to arrive.
        """
        for _ in range(int(seconds)):
            for agent in self.agents.values():
                if agent.far is None:
                    self.connect(agent)
            self.run(1.0)

    def make_safe(self) -> None:
        """
        What is published from now on must reach everybody.
        """
        self.settle(4)
        for agent in self.agents.values():
            assert agent.is_in, agent.name
            agent.is_safe = True

    # what was promised

    def dead(self, agent: SimAgent) -> set[int]:
        letters = [letter for (name, _), letter in self.database.dead.items() if name == agent.name]
        return {json.loads(letter.data) for letter in letters}

    def check(self, allowed: float | None = None, lately: float = 0.0) -> None:
        """
        @param lately: seconds in which an ack may be on its way from another node.
        @param allowed: seconds before a fault in which acks may be lost; None if none may be.
        """
        for agent in self.agents.values():
            missing = agent.due - agent.got - self.dead(agent)
            assert not missing, f"{agent.name} does not get {sorted(missing)[:10]}"
            for now, number, acked in agent.repeats:
                fault = allowed is not None and any(at - allowed <= acked <= at + allowed for at in self.faults)
                assert fault or now - acked < lately, (
                    f"{agent.name} gets {number} again at {now}, which it acknowledged at {acked}"
                )

    def check_presence(self) -> None:
        """
        All nodes agree on who is connected.
        """
        truth = sorted(
            (session.client_id, agent)
            for node in self.nodes.values()
            for agent, connections in node.core.clients.connections.items()
            for session in connections
        )
        for node in self.nodes.values():
            nodes = node.core.presence.nodes
            assert nodes is not None
            assert sorted((member.client, member.agent) for member in nodes.members()) == truth

    def owners(self) -> Iterator[tuple[str, list[int]]]:
        """
        The nodes that believe that they have an agent.
        """
        for agent in self.agents:
            yield agent, [node.number for node in self.nodes.values() if agent in node.owned.takes.gens]
