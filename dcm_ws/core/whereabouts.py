"""
Which connections an agent has, and which are subscribed to a channel, at this node and at the others of its cluster
(protocol, section 12).

Each node knows only its own connections, so the others are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct

from dcm_ws.core.catchup import CatchUp
from dcm_ws.core.clients import Clients
from dcm_ws.core.ports import Bus, World
from dcm_ws.core.presence import Presence
from dcm_ws.core.registry import ChannelRegistry
from dcm_ws.core.session import Session

TOPIC = "where"
SUBSCRIPTIONS_SHOWN = 100
"""
Channels that are listed of each connection, at most.
"""

_ASK_SECONDS = 1.0
_BYTES = 512 << 10


class Connection(Struct, frozen=True, gc=False):
    """
    A connection.

    @ivar agent_id: None for a client that has not authenticated.
    @ivar session_id: the DCM session; None without one.
    @ivar node: the node that has it; empty without a cluster.
    @ivar since: when it was opened, in ms since the epoch.
    @ivar observer: it owes no acks, and its agent is not present by it.
    @ivar pos: everything up to this position has been sent to it.
    @ivar unacknowledged: how many events it was sent and has not acknowledged.
    @ivar subscribed: how many channels it is subscribed to.
    @ivar subscriptions: the first of them by name, unless only a channel was asked for.
    """

    client_id: str
    agent_id: str | None
    session_id: str | None
    node: str
    since: int
    observer: bool
    pos: int
    unacknowledged: int
    subscribed: int
    subscriptions: list[str]


class Found(NamedTuple):
    """
    What all nodes have answered.

    @ivar total: how many connections there are.
    @ivar connections: these, or the first of them, as JSON.
    @ivar missing: the nodes that have not answered in time.
    """

    total: int
    connections: list[Raw]
    missing: list[str]


class _Question(Struct, array_like=True, frozen=True):
    kind: str
    name: str


class _Answer(Struct, array_like=True, frozen=True):
    total: int
    connections: list[Raw]


_encode = msgspec.json.Encoder().encode
_question = msgspec.json.Decoder(_Question).decode
_answer = msgspec.json.Decoder(_Answer).decode
_Ready = Callable[[Found], object]


class Whereabouts:
    """
    Finds connections.

    @param bus: to the other nodes; None if there are none.
    """

    def __init__(
        self,
        world: World,
        *,
        clients: Clients,
        registry: ChannelRegistry[Session],
        catch_up: CatchUp,
        presence: Presence,
        bus: Bus | None,
    ) -> None:
        self._world = world
        self._clients = clients
        self._registry = registry
        self._catch_up = catch_up
        self._presence = presence
        self._bus = bus
        if bus is not None:
            bus.attach(TOPIC, self._asked)

    def agents(self) -> Iterable[str]:
        """
        The agents that are connected anywhere.
        """
        nodes = self._presence.nodes
        return self._clients.connections if nodes is None else nodes.connected

    def number(self, agent: str) -> int:
        """
        How many connections an agent has anywhere.
        """
        nodes = self._presence.nodes
        return len(self._clients.connections.get(agent, ())) if nodes is None else nodes.connected.get(agent, 0)

    def of_agent(self, agent: str, ready: _Ready) -> None:
        """
        Find the connections by which an agent is present.

        @param ready: called once, within about a second, and maybe before this returns.
        """
        self._find(_Question("agent", agent), ready)

    def of_channel(self, channel: str, ready: _Ready) -> None:
        """
        Find the connections that are subscribed to a channel, observers included.

        @param ready: as in L{of_agent}.
        """
        self._find(_Question("channel", channel), ready)

    def _find(self, question: _Question, ready: _Ready) -> None:
        own = self._answer(question)
        if self._bus is None or self._presence.nodes is None:
            ready(Found(own.total, own.connections, []))
            return
        _Inquiry(own, self._presence.nodes.names, ready).ask(self._bus, _encode(question))

    def _asked(self, node: str, message: bytes) -> bytes | None:
        try:
            question = _question(message)
        except msgspec.DecodeError:
            # only a node of another version understands it
            return None
        return _encode(self._answer(question))

    def _answer(self, question: _Question) -> _Answer:
        is_agent = question.kind == "agent"
        sessions = (
            self._clients.connections.get(question.name, {}) if is_agent else self._registry.members(question.name)
        )
        connections, size = [], 0
        for connection in self._shown(sessions, names=is_agent):
            size += len(connection)
            if size > _BYTES:
                break
            connections.append(Raw(connection))
        return _Answer(len(sessions), connections)

    def _shown(self, sessions: Iterable[Session], *, names: bool) -> Iterator[bytes]:
        now, now_ms = self._world.now(), self._world.wall_ms()
        node = "" if self._bus is None else self._bus.node
        for session in sessions:
            channels = self._registry.channels(session)
            connection = Connection(
                session.client_id,
                session.agent,
                session.dcm_session,
                node,
                now_ms - round((now - session.joined_at) * 1000),
                session.observer,
                self._catch_up.sent_upto(session),
                len(session.owed),
                len(channels),
                sorted(channels)[:SUBSCRIPTIONS_SHOWN] if names else [],
            )
            yield _encode(connection)


class _Inquiry:
    """
    One question to all other nodes.
    """

    def __init__(self, own: _Answer, nodes: Iterable[str], ready: _Ready) -> None:
        self._total = own.total
        self._connections = list(own.connections)
        self._nodes = list(nodes)
        self._missing: list[str] = []
        self._left = len(self._nodes)
        self._ready = ready

    def ask(self, bus: Bus, question: bytes) -> None:
        """
        Ask, and see to it that C{ready} is called.
        """
        if not self._nodes:
            self._finish()
        for node in self._nodes:
            bus.ask(node, TOPIC, question, _ASK_SECONDS, partial(self._answered, node))

    def _answered(self, node: str, message: bytes | None) -> None:
        answer = None
        if message is not None:
            try:
                answer = _answer(message)
            except msgspec.DecodeError:
                answer = None
        if answer is None:
            self._missing.append(node)
        else:
            self._total += answer.total
            self._connections += answer.connections
        self._left -= 1
        if not self._left:
            self._finish()

    def _finish(self) -> None:
        self._ready(Found(self._total, self._connections, sorted(self._missing)))
