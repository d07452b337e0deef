"""
The hot paths one by one, without a socket: C{pytest benchmarks --benchmark-only}, with the extra C{bench}.

Compare two states of the code with C{--benchmark-save} and C{--benchmark-compare}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from dcm_ws.core.session import Origin
from dcm_ws.protocol.channels import parse_channel
from dcm_ws.protocol.commands import decode_command
from dcm_ws.protocol.frames import text_frame
from dcm_ws.protocol.notifications import decode_notification
from dcm_ws.protocol.replies import event_frame
from dcm_ws.websocket.connection import WebSocketConnection
from tests.fakes import make_connections, make_core
from tests.websocket.test_short_messages import HANDSHAKE, AutobahnOnly, Transport, frame

Benchmark = Callable[..., Any]

PUBLISH = (
    b'{"type":"publish","channel":"topics/bench","event":"task.updated","data":{"pad":"'
    + b"x" * 180
    + b'"},"id":"p1","timestamp":1706000000000}'
)
ACK = b'{"type":"ack","message_id":"msg_mwtlvrukmqma6a1qnfoa_1","timestamp":1706000000000}'


class Sink:
    """
    A peer that takes everything and keeps nothing.
    """

    def send(self, frame: bytes) -> None:
        pass

    def offer(self, name: str, frame: bytes) -> None:
        pass

    def replay(self, frames: object) -> None:
        pass

    def has_unsent(self) -> bool:
        return False

    def has_unread(self) -> bool:
        return False

    def trust(self) -> None:
        pass

    def go_on(self) -> None:
        pass

    def close(self, code: object) -> None:
        pass


def core_of(subscribers: int, *, agents: bool = False) -> Any:
    """
    A core with that many subscribers of topics/bench, who are not in global.

    @param agents: each is a durable agent.
    """
    clock = Clock()
    clock.advance(1000)
    core = make_core(clock, max_connections=subscribers + 1)
    for number in range(subscribers):
        session = core.hub.connect(Sink(), Origin())
        assert session is not None
        core.registry.leave(session, "global")
        core.registry.join(session, "topics/bench")
        if agents:
            core.interpreter.receive(session, f'{{"type":"auth","agent_id":"agent-{number}","durable":true}}')
    return core, clock


@pytest.mark.parametrize("message", [ACK, PUBLISH], ids=["ack", "publish"])
def test_decode(benchmark: Benchmark, message: bytes) -> None:
    benchmark(decode_command, message.decode())


def test_decode_notification(benchmark: Benchmark) -> None:
    benchmark(decode_notification, '{"channel":"topics/bench","event":"task.updated","data":{"task_id":"1"}}')


def test_encode_event(benchmark: Benchmark) -> None:
    benchmark(event_frame, "msg_mwtlvrukmqma6a1qnfoa_1", b'"topics/bench"', "task.updated", b"{}" * 100, 1706000000000)


@pytest.mark.parametrize("subscribers", [1, 100, 1000, 5000])
def test_publish(benchmark: Benchmark, subscribers: int) -> None:
    """
    An untracked event to N subscribers, as far as their queues.
    """
    core, _ = core_of(subscribers)
    publisher = core.hub.connect(Sink(), Origin())
    benchmark(core.interpreter.receive, publisher, PUBLISH.replace(b"task.updated", b"system.info").decode())


def test_ping(benchmark: Benchmark) -> None:
    """
    A client's ping, and its pong.
    """
    core, _ = core_of(1)
    client = core.hub.connect(Sink(), Origin())
    benchmark(core.interpreter.receive, client, '{"type":"ping"}')


@pytest.mark.parametrize("subscribers", [1, 1000])
def test_notify(benchmark: Benchmark, subscribers: int) -> None:
    """
    A notification of an untracked event to N subscribers, as far as their queues.
    """
    core, _ = core_of(subscribers)
    benchmark(core.router.notified, '{"channel":"topics/bench","event":"system.info","data":{"task_id":"1"}}')


@pytest.mark.parametrize("agents", [False, True], ids=["anonymous", "agents"])
@pytest.mark.parametrize("subscribers", [100, 1000])
def test_publish_tracked_and_ack(benchmark: Benchmark, subscribers: int, agents: bool) -> None:
    """
    A tracked event to N subscribers, and the ack of each.
    """
    core, clock = core_of(subscribers, agents=agents)
    publisher = core.hub.connect(Sink(), Origin())
    listeners = list(core.registry.members("topics/bench"))
    text, receive = PUBLISH.decode(), core.interpreter.receive

    def once() -> None:
        receive(publisher, text)
        event_id = next(iter(listeners[0].owed))
        ack = f'{{"type":"ack","message_id":"{event_id}","timestamp":1706000000000}}'
        for session in listeners:
            session.heard_at = clock.seconds()
            receive(session, ack)
        clock.advance(0.001)
        # what is noted of them becomes a page, as it does while the service runs
        next(core.hub.sweep(), None)

    benchmark(once)


@pytest.mark.parametrize("agents", [False, True], ids=["anonymous", "agents"])
def test_retry(benchmark: Benchmark, agents: bool) -> None:
    """
    Sending 1,000 deliveries again.
    """

    def late() -> tuple[tuple[Any], dict[str, Any]]:
        core, clock = core_of(1000, agents=agents)
        core.router.announce(parse_channel("topics/bench"), "task.updated", {})
        clock.advance(6)
        return (core,), {}

    benchmark.pedantic(lambda core: list(core.retrying.sweep()), setup=late, rounds=50)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [WebSocketConnection, AutobahnOnly], ids=["short cut", "Autobahn"])
def test_read_frames(benchmark: Benchmark, kind: type[WebSocketConnection]) -> None:
    """
    100 acks in one read, from the socket to the session.
    """
    clock = Clock()
    clock.advance(1000)
    core = make_core(clock)
    connections = make_connections(core, clock, connection=kind)
    connection = connections.buildProtocol(None)
    transport: StringTransport = Transport()
    connection.makeConnection(transport)
    connection.dataReceived(HANDSHAKE)
    read = frame(0x81, ACK) * 100
    benchmark(connection.dataReceived, read)


def test_frame(benchmark: Benchmark) -> None:
    benchmark(text_frame, b"x" * 300)
