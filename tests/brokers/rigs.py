"""
The buses of several nodes on one engine, for tests that run over all of them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import permutations
from random import Random
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from dcm_ws.brokers.bus_base import BaseBus
from dcm_ws.brokers.bus_memory import MemoryBus, MemoryHub
from dcm_ws.brokers.bus_nats import NatsBus
from dcm_ws.brokers.bus_postgres import PostgresBus
from dcm_ws.core.counts import Counts
from dcm_ws.nats.connection import Credentials
from dcm_ws.nats.tls import tls_options
from dcm_ws.nats.urls import read_urls
from dcm_ws.postgres.connection import Place
from tests.integration.databases import PostgresServer
from tests.integration.nats_servers import NatsServer, nats_cluster, start_cluster

MESSAGE = 1 << 20
WAITING = 8 << 20


class Node:
    """
    One node: its bus, and what it has heard.

    @ivar heard: by topic: who said what, in order.
    """

    def __init__(self, bus: BaseBus, counts: Counts) -> None:
        self.bus = bus
        self.counts = counts
        self.heard: dict[str, list[tuple[str, bytes]]] = {}

    def hear(self, topic: str, answer: Any = None) -> None:
        """
        Listen to a topic; each message has C{answer}.
        """
        heard = self.heard[topic] = []

        def listen(sender: str, message: bytes) -> Any:
            heard.append((sender, message))
            return answer

        self.bus.attach(topic, listen)


class Rig(Protocol):
    """
    An engine, and how it is disturbed.
    """

    async def node(self, name: str, max_waiting: int = WAITING) -> Node:
        """
        A node that is connected.
        """

    async def until(self, holds: Callable[[], object]) -> None:
        """
        Wait until something is the case.
        """

    async def stop(self) -> None:
        """
        Stop the engine, and wait until all nodes know.
        """

    async def start(self) -> None:
        """
        Start the engine, and wait until all nodes are connected.
        """

    async def lose(self, node: Node) -> None:
        """
        End the process of a node.
        """


class MemoryRig:
    """
    The bus in memory.
    """

    def __init__(self) -> None:
        self._clock = Clock()
        self.hub = MemoryHub(self._clock.callLater, self._clock.seconds, Random(1), delay=(0.001, 0.005))

    async def node(self, name: str, max_waiting: int = WAITING) -> Node:
        counts = Counts()
        bus = self.hub.bus(counts, max_message=MESSAGE, max_waiting=max_waiting)
        bus.join(name, "tests")
        return Node(bus, counts)

    async def until(self, holds: Callable[[], object]) -> None:
        for _ in range(10_000):
            if holds():
                return
            self._clock.advance(0.001)
        raise AssertionError("it never was the case")

    async def stop(self) -> None:
        self.hub.stop()

    async def start(self) -> None:
        self.hub.start()

    async def lose(self, node: Node) -> None:
        assert isinstance(node.bus, MemoryBus)
        node.bus.leave()


class _RealRig:
    """
    An engine that is a server.

    @ivar cluster: the name of the cluster of the next node.
    """

    cluster = "tests"

    def __init__(self) -> None:
        from twisted.internet import reactor

        self._reactor: Any = reactor
        self._nodes: list[tuple[Node, Any]] = []

    def _bus(self, counts: Counts, max_waiting: int) -> NatsBus | PostgresBus:
        raise NotImplementedError

    async def node(self, name: str, max_waiting: int = WAITING) -> Node:
        counts = Counts()
        bus = self._bus(counts, max_waiting)
        bus.join(name, self.cluster)
        bus.startService()
        node = Node(bus, counts)
        self._nodes.append((node, bus))
        await self.until(lambda: bus.report()["state"] == "up")
        return node

    async def until(self, holds: Callable[[], object]) -> None:
        for _ in range(2000):
            if holds():
                return
            await deferLater(self._reactor, 0.01)
        raise AssertionError("it never was the case")

    async def are(self, state: str) -> None:
        """
        Wait until all nodes have a state.
        """
        await self.until(lambda: all(bus.report()["state"] == state for _, bus in self._nodes))

    async def lose(self, node: Node) -> None:
        for one in [one for one in self._nodes if one[0] is node]:
            self._nodes.remove(one)
            await _ended(one[1])

    async def end(self) -> None:
        """
        Stop all nodes.
        """
        for _, bus in self._nodes:
            await _ended(bus)


class PostgresRig(_RealRig):
    """
    The bus over PostgreSQL.
    """

    def __init__(self, database: PostgresServer) -> None:
        super().__init__()
        self.database = database

    def _bus(self, counts: Counts, max_waiting: int) -> PostgresBus:
        async def address() -> Place:
            return Place(self.database.url)

        return PostgresBus(
            self._reactor,
            address,
            counts=counts,
            now=time.monotonic,
            random=lambda: 0.0,
            max_message=MESSAGE,
            max_waiting=max_waiting,
        )

    async def stop(self) -> None:
        self.database.stop()
        await self.are("down")

    async def start(self) -> None:
        self.database.start()
        await self.are("up")


class NatsRig(_RealRig):
    """
    The bus over a cluster of NATS servers.
    """

    def __init__(self, servers: list[NatsServer]) -> None:
        super().__init__()
        self.servers = servers

    def _bus(self, counts: Counts, max_waiting: int) -> NatsBus:
        return NatsBus(
            self._reactor,
            read_urls([server.url for server in self.servers]),
            credentials=Credentials,
            tls=tls_options(None),
            counts=counts,
            now=time.monotonic,
            random=Random().random,
            max_message=MESSAGE,
            max_waiting=max_waiting,
        )

    async def node(self, name: str, max_waiting: int = WAITING) -> Node:
        node = await super().node(name, max_waiting)
        node.bus.attach("acquainted", lambda sender, message: b"yes")
        await self._acquainted()
        return node

    async def stop(self) -> None:
        for server in self.servers:
            server.stop()
        await self.are("down")

    async def start(self) -> None:
        start_cluster(self.servers)
        await self.are("up")
        await self._acquainted()

    async def _acquainted(self) -> None:
        """
        Wait until each server has heard from the others what their clients subscribe to: until then, it sends them
        nothing.  The messages for that are not counted.
        """
        if len(self.servers) == 1:
            return
        counts = [(node.counts.bus, replace(node.counts.bus)) for node, _ in self._nodes]
        for (_, asking), (_, asked) in permutations(self._nodes, 2):
            while not await self._reaches(asking, asked):
                pass
        for now, before in counts:
            for name in ("sent", "heard", "sent_bytes", "heard_bytes", "unanswered"):
                setattr(now, name, getattr(before, name))

    async def _reaches(self, asking: NatsBus, asked: NatsBus) -> bool:
        answers: list[bytes | None] = []
        asking.ask(asked.node, "acquainted", b"", 1.0, answers.append)
        await self.until(lambda: answers)
        return answers[0] is not None


@contextlib.contextmanager
def rig_servers(engine: str, database: Callable[[], PostgresServer]) -> Iterator[Any]:
    """
    What an engine needs: a database, or a cluster of NATS servers.
    """
    if engine == "postgres":
        yield database()
    elif engine == "nats":
        with nats_cluster() as servers:
            yield servers
    else:
        yield None


async def _ended(bus: NatsBus | PostgresBus) -> None:
    ending: Deferred[None] | None = bus.stopService()
    if ending is not None:
        await ending
