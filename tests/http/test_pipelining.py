"""
Pipelined requests on one HTTP connection: one is handled in each reactor turn, and none while responses wait.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from dcm_ws.core.counts import LimitCounts
from dcm_ws.http.site import make_site
from tests.fakes import make_core, make_page

REQUEST = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
POSTED = b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"


PATHS = ("/", "/ws")
HTTP_TIMEOUT = 30.0
TURN = 2.0**-10


class Turns(MemoryReactorClock):
    """
    A reactor whose turns take time, so that tests can distinguish them.
    """

    def callLater(self, delay: float, *call: Any, **arguments: Any) -> Any:
        return super().callLater(max(delay, TURN), *call, **arguments)


class Connection:
    """
    An HTTP connection in memory.
    """

    def __init__(self) -> None:
        self.reactor = Turns()
        core = make_core(self.reactor)
        page = make_page(core, lambda channels: {})
        pages = {b"health": page, b"stats": page}
        site = make_site(core.world.wall_ms, pages, self.reactor, HTTP_TIMEOUT, PATHS, LimitCounts())
        site.doStart()
        self.transport = StringTransport()
        protocol = site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 50_000))
        assert isinstance(protocol, Protocol)
        self.protocol = protocol
        protocol.makeConnection(self.transport)

    def turn(self) -> int:
        """
        Run the next turn of the reactor, and return the number of responses so far.
        """
        self.reactor.advance(TURN)
        return self.answers

    @property
    def answers(self) -> int:
        """
        The number of responses so far.
        """
        return self.transport.value().count(b"HTTP/1.1 ")

    @property
    def reading(self) -> bool:
        """
        True if the transport is reading.
        """
        return self.transport.producerState == "producing"


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest.mark.parametrize("request_", [REQUEST, POSTED])
def test_one_request_a_turn(connection: Connection, request_: bytes) -> None:
    """
    Requests that arrive together are answered one in each turn.
    """
    connection.protocol.dataReceived(request_ * 5)
    assert [connection.answers, *(connection.turn() for _ in range(5))] == [1, 2, 3, 4, 5, 5]
    assert connection.reading


def test_request_in_pieces(connection: Connection) -> None:
    """
    Requests may be split between reads at any place.
    """
    data = REQUEST * 3
    for byte in data:
        connection.protocol.dataReceived(bytes((byte,)))
        connection.turn()
    assert connection.answers == 3


def test_many_requests_are_not_read_before_their_time(connection: Connection) -> None:
    """
    While many requests wait for responses, nothing more is read.
    """
    connection.protocol.dataReceived(REQUEST * 2000)
    assert not connection.reading
    for _ in range(2000):
        connection.turn()
    assert (connection.answers, connection.reading) == (2000, True)


def test_answers_that_are_not_read(connection: Connection) -> None:
    """
    While the client does not read the responses, no more requests are answered or read.
    """
    connection.protocol.dataReceived(REQUEST * 10)
    connection.turn()
    producer = connection.transport.producer
    assert producer is not None
    producer.pauseProducing()
    assert [connection.turn() for _ in range(5)] == [2] * 5
    assert not connection.reading
    producer.resumeProducing()
    assert [connection.turn() for _ in range(3)] == [3, 4, 5]


def test_answers_that_are_never_read(connection: Connection) -> None:
    """
    A client that does not read the responses in time is disconnected.
    """
    connection.protocol.dataReceived(REQUEST * 10)
    producer = connection.transport.producer
    assert producer is not None
    producer.pauseProducing()
    connection.turn()
    connection.reactor.advance(HTTP_TIMEOUT)
    assert connection.transport.disconnecting


def test_gone_between_two_requests(connection: Connection) -> None:
    """
    When a connection ends, its remaining requests are not answered.
    """
    connection.protocol.dataReceived(REQUEST * 10)
    connection.protocol.connectionLost(Failure(connectionDone.value))
    assert [connection.turn() for _ in range(3)] == [1] * 3


@pytest.mark.parametrize("rest", [b"", REQUEST[:10]])
def test_client_that_has_asked_for_all(connection: Connection, rest: bytes) -> None:
    """
    A client that stops sending gets all responses that are due, and then the connection is closed.
    """
    connection.protocol.dataReceived(REQUEST * 10 + rest)
    IHalfCloseableProtocol(connection.protocol).readConnectionLost()
    assert not connection.transport.disconnecting
    for _ in range(12):
        connection.turn()
    assert (connection.answers, connection.transport.disconnecting) == (10, True)


def test_client_that_asks_for_nothing(connection: Connection) -> None:
    """
    If a client stops sending and no response is due, the connection is closed at once.
    """
    IHalfCloseableProtocol(connection.protocol).readConnectionLost()
    assert connection.transport.disconnecting


def test_last_request(connection: Connection) -> None:
    """
    Requests after one that says it is the last are not answered.
    """
    connection.protocol.dataReceived(REQUEST + REQUEST.replace(b"Host", b"Connection: close\r\nHost") + REQUEST)
    for _ in range(5):
        connection.turn()
    assert connection.answers == 2
    assert connection.transport.disconnecting
