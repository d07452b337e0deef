"""
The clients of L{benchmarks.rolling}: agents in processes of their own, which come back at any node.

They read frames without a WebSocket library, since a thousand of them share two cores with what is measured.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import re
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.returns import HEAD, said
from dcm_ws.client.backoff import STABLE, Backoff

TOPICS = 50
"""
Each event is published to one of so many channels, in turn, and each client is subscribed to one of them.
"""

EVENT = "task.created"
"""
It has to be acknowledged.
"""

ACK_SECONDS = 0.5
"""
Seconds between two acks of a client: in between, it owes some.
"""

_EVENT = re.compile(rb'"event":"task\.created","data":\{"n":(\d+),.*"pos":(\d+)', re.DOTALL)
_REFUSED_SECONDS = 0.1


def topic_of(number: int) -> str:
    """
    The channel of an event, or of a client.
    """
    return f"topics/t{number % TOPICS}"


class Found(NamedTuple):
    """
    What one client has found.

    @ivar missing: events that it has not got.
    @ivar again: events that it got more than once, counted each time after the first.
    @ivar acknowledged_again: those of them that it had acknowledged before.
    @ivar silences: the longest time without a new event in each phase, in seconds.
    @ivar connections: how often it has connected.
    """

    missing: int
    again: int
    acknowledged_again: int
    silences: list[float]
    connections: int


class Flags:
    """
    What the processes of a run have in common.

    @ivar ports: of the nodes.
    @ivar is_in: by node, if the load balancer sends clients there.
    @ivar phase: silences are noted for each phase separately.
    @ivar published: how many events have been sent to the database.
    @ivar last: one more than the number of the last event, as soon as that is known; before that 0.
    """

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self.is_in = multiprocessing.RawArray("b", len(ports))
        self.phase = multiprocessing.RawValue("i", 0)
        self.published = multiprocessing.RawValue("q", 0)
        self.last = multiprocessing.RawValue("q", 0)
        self.ready = multiprocessing.Semaphore(0)


@dataclass
class Agent:
    """
    A client, which stays one agent over all of its connections.
    """

    number: int
    flags: Flags
    phases: int
    seen: dict[int, int] = field(default_factory=dict)
    acknowledged: int = 0
    again: int = 0
    acknowledged_again: int = 0
    connections: int = 0
    highest: int = 0
    heard_at: float = 0.0
    silences: list[float] = field(default_factory=list)
    was_ready: bool = False
    connection: Connection | None = None

    def __post_init__(self) -> None:
        self.silences = [0.0] * self.phases

    async def live(self) -> None:
        """
        Connect, again and again.
        """
        backoff = Backoff(random.random)
        while True:
            connection = await self._connect()
            begun = time.monotonic()
            self.connection = connection
            await connection.ended
            self.connection = None
            if time.monotonic() - begun > STABLE:
                backoff.reset()
            await asyncio.sleep(backoff.next_delay(connection.code))

    async def _connect(self) -> Connection:
        """
        Do what a load balancer does: choose a node that is in, and another one if that refuses.
        """
        flags, loop = self.flags, asyncio.get_running_loop()
        while True:
            nodes = [node for node, is_in in enumerate(flags.is_in) if is_in]
            random.shuffle(nodes)
            for node in nodes:
                with suppress(OSError):
                    _, connection = await loop.create_connection(
                        lambda: Connection(self), "127.0.0.1", flags.ports[node]
                    )
                    return connection
            await asyncio.sleep(_REFUSED_SECONDS)

    def greet(self) -> bytes:
        """
        What it sends when it connects.
        """
        self.connections += 1
        return (
            HEAD
            + said(type="unsubscribe", channel="global")
            + said(type="auth", agent_id=f"agent-{self.number}", durable=True)
            + said(type="unsubscribe", channel="global")
            + said(type="subscribe", channel=topic_of(self.number), id="on")
        )

    def heard(self, pos: int, number: int) -> None:
        """
        An event has come.
        """
        if number % TOPICS != self.number % TOPICS:
            # of global, before the unsubscribe has come there
            return
        if number in self.seen:
            self.again += 1
            self.acknowledged_again += pos <= self.acknowledged
            return
        now = time.monotonic()
        self.seen[number] = pos
        self.highest = max(self.highest, pos)
        if self.heard_at:
            phase = self.flags.phase.value
            self.silences[phase] = max(self.silences[phase], now - self.heard_at)
        self.heard_at = now

    def acknowledge(self) -> None:
        """
        Acknowledge everything that it has got.
        """
        if self.connection is not None and self.connection.is_on and self.highest > self.acknowledged:
            self.connection.send(said(type="ack", pos=self.highest))
            self.acknowledged = self.highest

    def is_ready(self) -> None:
        """
        It has subscribed for the first time.
        """
        if not self.was_ready:
            self.was_ready = True
            self.flags.ready.release()

    def found(self, last: int) -> Found:
        """
        @param last: one more than the number of the last event.
        """
        wanted = range(self.number % TOPICS, last, TOPICS)
        missing = sum(number not in self.seen for number in wanted)
        return Found(missing, self.again, self.acknowledged_again, self.silences, self.connections)


class Connection(asyncio.Protocol):
    """
    One connection of a client.

    @ivar is_on: the client is its agent, and has subscribed.
    @ivar ended: is done when it has ended.
    @ivar code: the close code; None without one.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._data = b""
        self._has_head = False
        self.is_on = False
        self._transport: Any = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.code: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.send(self._agent.greet())

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def send(self, data: bytes) -> None:
        """
        Send frames.
        """
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._has_head:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head[:20]:
                self._transport.abort()
                return
            self._has_head, self._data = True, rest
        agent = self._agent
        for opcode, payload in self._frames():
            if opcode == 8:
                self.code = int.from_bytes(payload[:2])
                self._transport.close()
            elif found := _EVENT.search(payload):
                agent.heard(int(found[2]), int(found[1]))
            elif payload.startswith(b'{"type":"ping"'):
                self.send(said(type="pong"))
            elif b'"id":"on"' in payload:
                self.is_on = True
                agent.is_ready()

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        data, at = self._data, 0
        while len(data) - at >= 2:
            size, start = data[at + 1], at + 2
            if size == 126 and len(data) - at >= 4:
                (size,), start = struct.unpack_from("!H", data, start), at + 4
            elif size == 127 and len(data) - at >= 10:
                (size,), start = struct.unpack_from("!Q", data, start), at + 10
            elif size > 125:
                break
            if len(data) < start + size:
                break
            yield data[at] & 0x0F, data[start : start + size]
            at = start + size
        self._data = data[at:]


def run(first: int, number: int, flags: Flags, phases: int, answer: Any) -> None:
    """
    Be some of the clients until the last event is known and all have it, or a minute after that.

    @param first: the number of the first client.
    @param answer: the end of a pipe that receives what was found, and the CPU time that it took.
    """
    agents = [Agent(each, flags, phases) for each in range(first, first + number)]
    asyncio.run(_run(agents, flags))
    answer.send(([agent.found(flags.last.value) for agent in agents], time.process_time()))


async def _run(agents: list[Agent], flags: Flags) -> None:
    lives = []
    for agent in agents:
        lives.append(asyncio.ensure_future(agent.live()))
        # a thousand handshakes at once are another measurement
        await asyncio.sleep(0.005)
    late = 0.0
    while late < 60.0:
        for number, agent in enumerate(agents):
            agent.acknowledge()
            if number % 50 == 49:
                await asyncio.sleep(ACK_SECONDS * 50 / len(agents))
        await asyncio.sleep(0.01)
        if last := flags.last.value:
            if not any(agent.found(last).missing for agent in agents):
                break
            late += ACK_SECONDS
    for life in lives:
        life.cancel()
