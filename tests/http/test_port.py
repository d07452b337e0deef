"""
The port hands connections over to HTTP or WebSocket, on transports in memory.
"""

from __future__ import annotations

import gc
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from dcm_ws.core.counts import LimitCounts
from dcm_ws.http.port import Port
from dcm_ws.http.reception import GOODBYE, HEADS_A_TURN
from dcm_ws.http.shares import Share

HEAD_MAX = 16 << 10
HEAD_TIMEOUT = 5.0
WAITING_MAX = 10
ADDRESS = IPv4Address("TCP", "192.0.2.1", 50_000)
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n"
PLAIN = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


class Taker(Protocol):
    """
    Records what it receives.
    """

    def __init__(self, address: object) -> None:
        self.address = address
        self.data = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class Takers(Factory):
    """
    Makes L{Taker}s, and keeps them.
    """

    noisy = False

    def __init__(self) -> None:
        self.made: list[Taker] = []
        self.running = False

    def startFactory(self) -> None:
        self.running = True

    def stopFactory(self) -> None:
        self.running = False

    def buildProtocol(self, addr: object) -> Taker:
        taker = Taker(addr)
        self.made.append(taker)
        return taker


class Transport(StringTransport):
    """
    The far end of a connection.
    """

    protocol: Protocol

    def send(self, data: bytes) -> None:
        """
        Deliver C{data} to the current protocol.
        """
        self.protocol.dataReceived(data)

    def lose(self) -> None:
        """
        Lose the connection.
        """
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def status(self) -> int:
        """
        The status of the response, which must have a JSON body of the right length.
        """
        head, _, body = self.value().partition(b"\r\n\r\n")
        assert b"\r\nConnection: close" in head
        assert f"\r\nContent-Length: {len(body)}".encode() in head
        assert json.loads(body).keys() == {"error", "code", "timestamp"}
        return int(head.split()[1])


class Ground:
    """
    A port, and the two factories that it gives connections to.
    """

    def __init__(self, clock: Clock, most: int = WAITING_MAX) -> None:
        self.websockets, self.web = Takers(), Takers()
        self.waiting, self.http = Share(per_address=most + 1), Share(most=4, per_address=2)
        self.limits = LimitCounts()
        self.port = Port(
            self.websockets,
            self.web,
            paths=("/", "/ws"),
            now=clock.seconds,
            wall_ms=lambda: 1_706_000_000_000,
            head_timeout=HEAD_TIMEOUT,
            max_head=HEAD_MAX,
            max_waiting=most,
            clock=clock,
            limits=self.limits,
            waiting=self.waiting,
            http=self.http,
            trusts="192.0.2.9".__eq__,
            client=lambda peer, head: "198.51.100.1" if b"X-Forwarded-For" in head else peer,
        )

    def connect(self, host: str = "192.0.2.1") -> Transport:
        """
        Make a connection on which nothing has been sent.
        """
        transport = Transport(peerAddress=IPv4Address("TCP", host, 50_000))
        transport.protocol = self.port.buildProtocol(ADDRESS)
        transport.protocol.makeConnection(transport)
        return transport


@pytest.fixture
def ground(clock: Clock) -> Ground:
    return Ground(clock)


@pytest.mark.parametrize(
    ("request_", "websocket"),
    [
        (UPGRADE, True),
        (b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", True),
        (b"GET /?agent_id=a HTTP/1.1\r\nupgrade:WebSocket\r\n\r\n", True),
        (b"GET /ws?x=/health HTTP/1.1\r\nUPGRADE: h2c, websocket\r\n\r\n", True),
        (b"GET http://host:1/ws?a HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", True),
        (b"GET http://host HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", True),
        (b"GET https://host/ HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", True),
        # Autobahn says what is wrong with it
        (b"POST / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", True),
        (PLAIN, False),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nX-Upgrade: websocket\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nX: 1\r\nUpgrade: nowebsockets\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nX: upgrade: websocket\r\n\r\n", False),
        (b"GET /health HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", False),
        (b"GET /ws/ HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", False),
        (b"GET http://host/health HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", False),
        (b"GET /\r\nUpgrade: websocket\r\n\r\n", False),
        (b"GET / x HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", False),
        (b"\r\n\r\n", False),
        # what follows the head is no part of it
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n\r\nUpgrade: websocket\r\n\r\n", False),
    ],
)
def test_who_gets_it(ground: Ground, request_: bytes, websocket: bool) -> None:
    """
    A request to open a WebSocket on one of the paths goes to WebSocket, and every other to HTTP.
    """
    ground.connect().send(request_)
    takers, others = (ground.websockets, ground.web) if websocket else (ground.web, ground.websockets)
    assert [(taker.data, taker.address) for taker in takers.made] == [(request_, ADDRESS)]
    assert others.made == []


@given(
    request_=st.sampled_from([UPGRADE, PLAIN]),
    more=st.binary(max_size=50),
    cuts=st.lists(st.integers(0, 150), max_size=20),
)
def test_any_pieces(request_: bytes, more: bytes, cuts: list[int]) -> None:
    """
    In whatever pieces a request arrives, with whatever follows it, no bytes are lost, duplicated or reordered.
    """
    ground = Ground(Clock())
    transport = ground.connect()
    stream = request_ + more
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for start, end in pairwise(places):
        transport.send(stream[start:end])
    takers = ground.websockets if request_ is UPGRADE else ground.web
    (taker,) = takers.made
    assert taker.data == stream
    assert transport.value() == b""


def test_wrapped_transport(ground: Ground) -> None:
    """
    A connection through TLS or another wrapper is handed over, too, and the wrapper stays.
    """
    wrapper = WrappingFactory(ground.port).buildProtocol(ADDRESS)
    assert isinstance(wrapper, ProtocolWrapper)
    wrapper.makeConnection(StringTransport(peerAddress=ADDRESS))
    wrapper.dataReceived(UPGRADE)
    wrapper.dataReceived(b"more")
    (taker,) = ground.websockets.made
    assert taker.data == UPGRADE + b"more"
    assert taker.transport is wrapper  # type: ignore[comparison-overlap]
    wrapper.connectionLost(Failure(ConnectionDone()))
    assert taker.lost is not None


@pytest.mark.parametrize("says_goodbye", [False, True])
def test_end_of_a_wrapped_transport(ground: Ground, clock: Clock, says_goodbye: bool) -> None:
    """
    A TLS connection ends when the far end closes its side; if it does not, the connection is aborted.
    """
    wrapper = WrappingFactory(ground.port).buildProtocol(ADDRESS)
    assert isinstance(wrapper, ProtocolWrapper)
    transport = StringTransport(peerAddress=ADDRESS)
    wrapper.makeConnection(transport)
    clock.advance(HEAD_TIMEOUT)
    ground.port.sweep()
    assert transport.value().startswith(b"HTTP/1.1 408 ")
    if says_goodbye:
        # as that of TLS does
        wrapper.connected = 0
        wrapper.connectionLost(Failure(ConnectionDone()))
    clock.advance(GOODBYE - 0.001)
    assert not transport.disconnected
    clock.advance(0.001)
    assert transport.disconnected is not says_goodbye


def test_deadline(ground: Ground, clock: Clock) -> None:
    """
    A connection without a complete request head after 5 s is refused with 408, and what arrives later is ignored.
    """
    early, late = ground.connect(), None
    early.send(b"GET / HTTP/1.1\r\n")
    clock.advance(1)
    late = ground.connect()
    clock.advance(HEAD_TIMEOUT - 1.001)
    ground.port.sweep()
    assert early.value() == b""
    clock.advance(0.001)
    ground.port.sweep()
    assert early.status == 408
    assert early.disconnecting
    assert late.value() == b""
    assert ground.limits.handshake_timeout.value == 1
    early.send(b"Host: x\r\n\r\n")
    assert ground.web.made == []
    early.lose()
    late.send(PLAIN)
    clock.advance(60)
    ground.port.sweep()
    assert late.value() == b""
    assert ground.limits.handshake_timeout.value == 1


@pytest.mark.parametrize("pieces", [(b"\x16\x03\x01\x02\x00\x01",), (b"\x16", b"\x03\x03")])
def test_tls_where_there_is_none(ground: Ground, pieces: tuple[bytes, ...]) -> None:
    """
    A client that speaks TLS to a port without it is refused at once: it would wait for the deadline.
    """
    transport = ground.connect()
    for piece in pieces:
        assert transport.value() == b""
        transport.send(piece)
    assert transport.status == 400 and transport.disconnecting
    assert ground.limits.handshake_timeout.value == 0


def test_lost_before_its_request(ground: Ground, clock: Clock) -> None:
    """
    A connection that is lost before its request is forgotten.
    """
    transport = ground.connect()
    transport.send(b"GET /")
    transport.lose()
    clock.advance(60)
    ground.port.sweep()
    assert transport.value() == b""
    assert ground.limits.handshake_timeout.value == 0


def test_crowded(ground: Ground) -> None:
    """
    If too many connections have not sent a request, the one that has waited longest is closed.
    """
    first, *others = (ground.connect() for _ in range(WAITING_MAX))
    assert not first.disconnecting
    served = ground.connect()
    assert first.disconnecting
    served.send(PLAIN)
    another = ground.connect()
    assert not any(each.disconnecting for each in (*others, served, another))
    assert ground.limits.max_waiting.value == 1


@pytest.mark.parametrize("piece", [1 << 20, 1000, HEAD_MAX, HEAD_MAX + 1])
def test_too_long(ground: Ground, piece: int) -> None:
    """
    A head of more than 16 KiB is refused with 431 as soon as it is too long, and what arrives later is ignored.
    """
    transport = ground.connect()
    head = b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_MAX + b"\r\n\r\n"
    for start in range(0, len(head), piece):
        transport.send(head[start : start + piece])
    assert transport.status == 431
    assert transport.disconnecting
    assert ground.limits.max_head_size.value == 1
    assert ground.web.made == []


def test_just_not_too_long(ground: Ground) -> None:
    """
    A head of 16 KiB is accepted, and what follows it does not count.
    """
    start = b"GET / HTTP/1.1\r\nX: "
    head = start + b"x" * (HEAD_MAX - len(start)) + b"\r\n\r\n"
    ground.connect().send(head + b"y" * HEAD_MAX)
    assert len(ground.web.made[0].data) == len(head) + HEAD_MAX


def test_drop(ground: Ground) -> None:
    """
    When the service stops, connections without a request are closed without a response, and others stay open.
    """
    waiting, half, web, websocket = (ground.connect() for _ in range(4))
    half.send(b"GET /")
    web.send(PLAIN)
    websocket.send(UPGRADE)
    ground.port.drop()
    assert [each.disconnecting for each in (waiting, half, web, websocket)] == [True, True, False, False]
    assert waiting.value() == half.value() == b""


def test_abort(ground: Ground) -> None:
    """
    Open HTTP connections are dropped in the end, and no reference to closed ones is kept.
    """
    stays, goes, websocket = (ground.connect() for _ in range(3))
    stays.send(PLAIN)
    goes.send(PLAIN)
    websocket.send(UPGRADE)
    goes.lose()
    ground.web.made.clear()
    del goes
    gc.collect()
    ground.port.abort()
    assert stays.disconnected or stays.disconnecting or stays.aborting  # type: ignore[attr-defined]
    assert not websocket.disconnecting


def test_starting_and_stopping(ground: Ground) -> None:
    """
    The two factories start and stop with the port.
    """
    ground.port.doStart()
    assert (ground.websockets.running, ground.web.running) == (True, True)
    ground.port.doStop()
    assert (ground.websockets.running, ground.web.running) == (False, False)


def test_connections_of_one_address_before_their_requests(ground: Ground) -> None:
    """
    One address has room for so many connections without a request; one more is closed at once, others are not; those
    of a trusted proxy are not limited, since they come from many clients.
    """
    ground.waiting.per_address = 3
    first, *others = (ground.connect() for _ in range(4))
    assert [each.disconnecting for each in (first, *others)] == [False, False, False, True]
    assert not ground.connect("192.0.2.2").disconnecting
    others[-1].lose()
    first.send(UPGRADE)
    assert not ground.connect().disconnecting
    assert ground.connect().disconnecting
    assert not any(ground.connect("192.0.2.9").disconnecting for _ in range(5))
    assert ground.waiting.crowded.value == 2


def test_http_connections_are_limited(ground: Ground) -> None:
    """
    HTTP connections beyond the limit of their address, or of all, get 503, and WebSockets are not touched; the address
    is that of the client behind a proxy, where there is one.
    """

    def ask(host: str = "192.0.2.1", request: bytes = PLAIN) -> Transport:
        transport = ground.connect(host)
        transport.send(request)
        return transport

    proxied = PLAIN[:-2] + b"X-Forwarded-For: y\r\n\r\n"
    first, second, third = ask(), ask(), ask()
    assert (first.value(), second.value(), third.status) == (b"", b"", 503)
    assert b"TOO_MANY_CONNECTIONS" in third.value() and third.disconnecting
    assert [ask("192.0.2.9", proxied).value() for _ in range(2)] == [b"", b""]
    assert ask("192.0.2.3").status == 503
    assert (ground.http.crowded.value, ground.http.full.value, len(ground.http)) == (1, 1, 4)
    assert ask(request=UPGRADE).value() == b""
    first.lose()
    assert ask(request=proxied).status == 503
    assert ask().value() == b""
    assert (len(ground.waiting), len(ground.http)) == (0, 4)
    # a browser's EventSource would not come back after an error
    events = b"GET /v1/streams/topics/a HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"
    turned_away = ask(request=events)
    head, _, body = turned_away.value().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and turned_away.disconnecting
    assert b"text/event-stream" in head and f"Content-Length: {len(body)}\r\n".encode() in head
    assert body.startswith(b": TOO_MANY_CONNECTIONS: ") and body.endswith(b"\nretry:3000\n\n")
    for other in (
        b"HEAD" + events[3:],
        events.replace(b"/v1/streams/", b"/v1/"),
        b"GET\r\nAccept: text/event-stream\r\n\r\n",
    ):
        assert ask(request=other).status == 503


def test_many_requests_at_once(clock: Clock) -> None:
    """
    In one turn of the reactor a limited number of new connections is handed on, the others in the next ones, with all
    that they sent meanwhile; those that are gone by then are forgotten.
    """
    ground = Ground(clock, 1000)
    transports = [ground.connect() for _ in range(2 * HEADS_A_TURN)]
    for transport in transports:
        transport.send(UPGRADE[:-1])
        transport.send(UPGRADE[-1:])
    late = transports[-1]
    late.send(b"more")
    transports[-2].lose()
    assert len(ground.websockets.made) == HEADS_A_TURN
    assert late.producerState == "paused"
    clock.advance(0)
    assert len(ground.websockets.made) == 2 * HEADS_A_TURN - 1
    assert late.producerState == "producing"
    assert ground.websockets.made[-1].data == UPGRADE + b"more"
    assert len(ground.waiting) == 0


def test_half_closed_http_connection(ground: Ground) -> None:
    """
    The HTTP side learns that the client has stopped sending or reading.
    """
    heard = []

    class HalfCloseable(Taker):
        def readConnectionLost(self) -> None:
            heard.append("read")

        def writeConnectionLost(self) -> None:
            heard.append("write")

    ground.web.buildProtocol = HalfCloseable  # type: ignore[method-assign, assignment]
    transport = ground.connect()
    transport.send(PLAIN)
    half = IHalfCloseableProtocol(transport.protocol)
    half.readConnectionLost()
    half.writeConnectionLost()
    assert heard == ["read", "write"]
