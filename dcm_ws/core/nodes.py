"""
Which agents are connected in a cluster (protocol, section 3).

Each node knows its own connections, and tells the others of each that comes or goes.  What a node hears of another one
is as good as the bus.  Therefore each message has a number, and a heartbeat says how many connections there are, and
has a sum over them: if something is missing, a node asks for all of them.

Nodes hear of connections only here.  Each one announces them to its own clients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import nsmallest
from math import ceil

from dcm_ws.core import presence_messages as messages
from dcm_ws.core.ports import Bus
from dcm_ws.core.presence_messages import HEARTBEAT_SECONDS, Member, Said

HEARTBEATS_A_SECOND = 15
"""
Heartbeats that a node hears, at most: if there are more than 30 nodes, each sends them less often.
"""

MISSED_HEARTBEATS = 3
"""
Heartbeats without which a node counts as gone, if nothing else is heard of it.
"""

GRACE_SECONDS = 5.0
"""
Seconds that an agent has to come back, until it is announced that it has disconnected.
"""

PAGE = 2000
"""
Connections that one message lists.
"""

TOPIC = "presence"
# after the names of all clients
_LAST = "\U0010ffff"
_ASK_SECONDS = 2.0
_LATELY = 1000


@dataclass(slots=True)
class _Reading:
    """
    The connections of a node as they are being read.

    @ivar gone: those that have left meanwhile.
    """

    members: dict[str, Member] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Node:
    """
    What is known of another node.

    @ivar number: of its last join or leave that was heard.
    @ivar heard_at: monotonic seconds.
    @ivar metrics: a client of it is subscribed to the metrics.
    @ivar interval: seconds between two of its heartbeats.
    """

    heard_at: float
    interval: float = HEARTBEAT_SECONDS
    members: dict[str, Member] = field(default_factory=dict)
    sum: int = 0
    number: int = 0
    reading: _Reading | None = None
    metrics: bool = False


class Nodes:
    """
    The connections of agents at all nodes.

    @param announce: tells the clients of this node that a connection has come (C{agent.connected}) or gone
        (C{agent.disconnected}).
    @param gone: called with the name of a node that is gone.
    @param moved: called with an agent whose connections at other nodes have changed.
    @param metrics: returns if a client of this node is subscribed to the metrics.
    """

    def __init__(
        self,
        bus: Bus,
        now: Callable[[], float],
        announce: Callable[[str, Member], object],
        *,
        gone: Callable[[str], object],
        moved: Callable[[str], object],
        metrics: Callable[[], bool],
    ) -> None:
        self._bus = bus
        self._now = now
        self._announce = announce
        self._gone = gone
        self._moved = moved
        self._metrics = metrics
        self._own = _Node(now())
        self._others: dict[str, _Node] = {}
        # those that have said goodbye, the last ones
        self._quit: dict[str, None] = {}
        self._agents: dict[str, int] = {}
        # the last connection of agents that may come back, each with the time until which they may
        self._leaving: dict[str, tuple[float, Member]] = {}
        self._beat_at = now()
        self._interval = HEARTBEAT_SECONDS
        self._said_metrics = False
        bus.attach(TOPIC, self._heard)

    def __len__(self) -> int:
        """
        How many other nodes there are.
        """
        return len(self._others)

    def __contains__(self, node: str) -> bool:
        """
        Is another node there?
        """
        return node in self._others

    @property
    def names(self) -> Iterable[str]:
        """
        The other nodes.
        """
        return self._others

    @property
    def connected(self) -> Mapping[str, int]:
        """
        The agents that are connected anywhere, each with the number of its connections.
        """
        return self._agents

    @property
    def agents(self) -> int:
        """
        How many agents are connected anywhere.
        """
        return len(self._agents)

    def members(self) -> Iterator[Member]:
        """
        All connections, at this node and at others.
        """
        for node in (self._own, *self._others.values()):
            yield from node.members.values()

    def has(self, agent: str) -> bool:
        """
        Is an agent connected anywhere?
        """
        return agent in self._agents

    def is_elsewhere(self, agent: str, clients: Iterable[str]) -> bool:
        """
        Has an agent connections at other nodes?

        @param clients: its connections here, which others need not know of yet.
        """
        own = self._own.members
        return self._agents.get(agent, 0) > sum(client in own for client in clients)

    @property
    def metrics(self) -> bool:
        """
        Is a client of another node subscribed to the metrics?
        """
        return any(node.metrics for node in self._others.values())

    # this node

    def joined(self, member: Member) -> None:
        """
        A connection has come, or its client has authenticated again.
        """
        own = self._own
        own.number += 1
        self._come(own, member)
        self._cast(Said("join", own.number, [member], interval=self._interval))

    def parted(self, client: str) -> None:
        """
        A connection has gone.
        """
        own = self._own
        member = own.members.get(client)
        if member is not None:
            own.number += 1
            self._go(own, client)
            self._cast(Said("leave", own.number, [member], interval=self._interval))

    def clear(self) -> None:
        """
        All clients of this node are closed.  The other nodes learn of it with the next heartbeat.
        """
        self._own.number += 1
        for client in list(self._own.members):
            self._go(self._own, client, tell=False)

    def leave(self) -> None:
        """
        This node stops.
        """
        self._cast(Said("quit"))

    def suspect(self, name: str) -> None:
        """
        The database has not seen another node for long.
        """
        self._cast(Said("suspect", after=name))
        self._probe(name)

    def _probe(self, name: str) -> None:
        """
        Ask another node for a sign of life; without one it is gone.
        """
        node = self._others.get(name)

        def ready(answer: bytes | None) -> None:
            if answer is None and self._others.get(name) is node:
                self._drop_at_once(name)

        if node is not None:
            self._bus.ask(name, TOPIC, messages.write(Said("ask", after=_LAST)), _ASK_SECONDS, ready)

    def sweep(self) -> Iterator[None]:
        """
        Announce who has not come back, drop nodes that are silent, and send a heartbeat if it is time for one.  To be
        called every second; each announcement is a step.
        """
        now = self._now()
        for agent, (until, member) in list(self._leaving.items()):
            if until > now:
                break
            if self._leaving.get(agent, (0.0, None))[1] is member:
                del self._leaving[agent]
                self._announce("agent.disconnected", member)
                yield
        for name, node in list(self._others.items()):
            if now - node.heard_at > MISSED_HEARTBEATS * node.interval:
                yield from self._drop(name)
        metrics = self._metrics()
        if now >= self._beat_at or metrics != self._said_metrics:
            self._said_metrics = metrics
            # a whole number of sweeps
            interval = max(HEARTBEAT_SECONDS, float(ceil((len(self._others) + 1) / HEARTBEATS_A_SECOND)))
            self._beat_at, self._interval, own = now + interval, interval, self._own
            connections = len(own.members)
            self._cast(
                Said("beat", own.number, connections=connections, sum=own.sum, metrics=metrics, interval=interval)
            )

    # what other nodes say

    def _cast(self, said: Said) -> None:
        self._bus.cast(TOPIC, messages.write(said))

    def _heard(self, name: str, message: bytes) -> bytes | None:
        said = messages.read(message)
        if said is None or said.kind == "page":
            return None
        if said.kind == "ask":
            return self._page(said.after)
        if said.kind == "suspect":
            self._probe(said.after)
            return None
        if name in self._quit:
            return None
        node = self._others.get(name)
        if said.kind == "quit":
            self._quit[name] = None
            if len(self._quit) > _LATELY:
                del self._quit[next(iter(self._quit))]
            self._drop_at_once(name)
            return None
        if node is None:
            node = self._others[name] = _Node(self._now())
            self._ask(name, node)
        node.heard_at, node.interval = self._now(), said.interval
        if said.kind == "beat":
            node.metrics = said.metrics
            if (said.number, said.connections, said.sum) != (node.number, len(node.members), node.sum):
                self._ask(name, node)
        elif said.number > node.number:
            is_next = said.number == node.number + 1
            node.number = said.number
            for member in said.members:
                self._changed(node, said.kind, member)
            if not is_next:
                self._ask(name, node)
        return None

    def _changed(self, node: _Node, kind: str, member: Member) -> None:
        reading = node.reading
        if kind == "join":
            if reading is not None:
                reading.members[member.client] = member
                reading.gone.discard(member.client)
            self._come(node, member)
            return
        if reading is not None:
            reading.members.pop(member.client, None)
            reading.gone.add(member.client)
        if member.client in node.members:
            self._go(node, member.client)

    def _page(self, after: str) -> bytes:
        own = self._own
        clients = nsmallest(PAGE, (client for client in own.members if client > after))
        complete = len(clients) < PAGE
        members = [own.members[client] for client in clients]
        return messages.write(Said("page", own.number, members, complete=complete))

    def _ask(self, name: str, node: _Node) -> None:
        """
        Read the connections of another node, unless they are being read.
        """
        if node.reading is None:
            node.reading = _Reading()
            self._ask_after(name, node, node.reading, "")

    def _ask_after(self, name: str, node: _Node, reading: _Reading, after: str) -> None:
        def ready(answer: bytes | None) -> None:
            if node.reading is not reading or self._others.get(name) is not node:
                return
            page = None if answer is None else messages.read(answer)
            if page is None:
                # the next heartbeat asks again
                node.reading = None
                return
            for member in page.members:
                if member.client not in reading.gone:
                    reading.members.setdefault(member.client, member)
            if page.members and not page.complete:
                self._ask_after(name, node, reading, page.members[-1].client)
                return
            node.reading = None
            node.number = max(node.number, page.number)
            self._replace(node, reading.members)

        self._bus.ask(name, TOPIC, messages.write(Said("ask", after=after)), _ASK_SECONDS, ready)

    def _replace(self, node: _Node, members: dict[str, Member]) -> None:
        for client, member in members.items():
            if node.members.get(client) != member:
                self._come(node, member)
        for client in [client for client in node.members if client not in members]:
            self._go(node, client)

    def _drop(self, name: str) -> Iterator[None]:
        """
        A node is gone.
        """
        node = self._others.pop(name, None)
        if node is None:
            return
        for client in list(node.members):
            self._go(node, client)
            yield
        self._gone(name)

    def _drop_at_once(self, name: str) -> None:
        for _ in self._drop(name):
            pass

    # connections

    def _come(self, node: _Node, member: Member) -> None:
        former = node.members.get(member.client)
        if former is not None and former.agent != member.agent:
            self._go(node, member.client)
            former = None
        node.members[member.client] = member
        if former is None:
            node.sum = (node.sum + messages.sum_of(member)) % messages.SUMS
            agent = member.agent
            number = self._agents[agent] = self._agents.get(agent, 0) + 1
            if node is not self._own:
                self._moved(agent)
            if number == 1 and self._leaving.pop(agent, None) is not None:
                # it is back in time
                return
        self._announce("agent.connected", member)

    def _go(self, node: _Node, client: str, *, tell: bool = True) -> None:
        member = node.members.pop(client)
        node.sum = (node.sum - messages.sum_of(member)) % messages.SUMS
        agent = member.agent
        self._agents[agent] -= 1
        if not self._agents[agent]:
            del self._agents[agent]
            self._leaving[agent] = self._now() + GRACE_SECONDS, member
        elif tell:
            self._announce("agent.disconnected", member)
        if node is not self._own:
            self._moved(agent)
