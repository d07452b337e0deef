"""
HTTP connections: their requests, their time, and their end.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from dcm_ws.http.site import REQUESTS_A_TURN
from tests.http.service import HTTP_TIMEOUT, Service


def connect(service: Service) -> tuple[Any, StringTransport]:
    """
    An HTTP connection.
    """
    protocol = service.site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 5))
    transport = StringTransport()
    protocol.makeConnection(transport)
    return protocol, transport


def test_idle_connection(service: Service) -> None:
    """
    A connection on which no further request arrives is closed.
    """
    service.site.doStart()
    protocol, transport = connect(service)
    protocol.dataReceived(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert transport.value().startswith(b"HTTP/1.1 200 OK\r\n")
    service.reactor.advance(HTTP_TIMEOUT - 1)
    assert not transport.disconnecting
    service.reactor.advance(1)
    assert transport.disconnecting
    service.site.doStop()


@pytest.mark.parametrize("request_", [b"GET /health HTTP/1.0\r\n\r\n", b"nonsense\r\n\r\n"])
@pytest.mark.parametrize("says_goodbye", [False, True])
def test_end_that_takes_too_long(service: Service, request_: bytes, says_goodbye: bool) -> None:
    """
    A connection that has been answered for the last time ends, also if the far end does not agree, as TLS asks it to;
    what it still says is not read.
    """
    service.site.doStart()
    protocol, transport = connect(service)
    protocol.dataReceived(request_)
    protocol.dataReceived(b"x" * 100_000)
    assert transport.value().count(b"HTTP/1.") == 1
    assert transport.disconnecting
    assert transport.producerState == "producing"
    if says_goodbye:
        protocol.connectionLost(Failure(ConnectionDone()))
    service.reactor.advance(15)
    assert transport.disconnected is not says_goodbye
    service.site.doStop()


@pytest.mark.parametrize("piece", [b"x", b"X-Header: y\r\n"])
def test_trickle(service: Service, piece: bytes) -> None:
    """
    A request that arrives in small pieces, in its head or in its body, has no more time than any other.
    """
    service.site.doStart()
    protocol, transport = connect(service)
    protocol.dataReceived(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    head = b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    protocol.dataReceived(head if b"\r" in piece else head + b"\r\n")
    for _ in range(round(HTTP_TIMEOUT) - 1):
        service.reactor.advance(1)
        protocol.dataReceived(piece)
    assert not transport.disconnecting
    service.reactor.advance(1)
    assert transport.disconnecting
    assert service.limits.http_timeout.value == 1
    service.site.doStop()


@pytest.mark.parametrize("request_", [b"GET /hea", b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nxx"])
def test_request_that_is_never_whole(service: Service, request_: bytes) -> None:
    """
    If a client stops sending in the middle of a request, the connection is closed.
    """
    service.site.doStart()
    protocol, transport = connect(service)
    protocol.dataReceived(request_)
    assert not transport.disconnecting
    IHalfCloseableProtocol(protocol).readConnectionLost()
    assert transport.disconnecting
    service.site.doStop()


def test_many_connections_ask_at_once(service: Service) -> None:
    """
    In one turn of the reactor a limited number of connections is answered, and all of them in the end; one that is gone
    by then is not missed.
    """
    service.site.doStart()
    connections = [connect(service) for _ in range(3 * REQUESTS_A_TURN)]

    def answered() -> int:
        return sum(transport.value().startswith(b"HTTP/1.1 200 ") for _, transport in connections)

    for protocol, _ in connections:
        protocol.dataReceived(b"GET /health HTTP/1.1\r\n")
        protocol.dataReceived(b"Host: x\r\n\r\n")
    # each took two pieces
    assert answered() == REQUESTS_A_TURN // 2
    assert connections[-1][1].producerState == "paused"
    connections[-2][0].connectionLost(Failure(ConnectionDone()))
    for _ in range(3):
        service.reactor.advance(0)
    assert answered() == 3 * REQUESTS_A_TURN - 1
    assert connections[-1][1].producerState == "producing"
    service.site.doStop()


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 1000000\r\n\r\n" + b"x" * 1_000_000,
        b"Transfer-Encoding: chunked\r\n\r\n" + b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n",
    ],
)
def test_body_is_thrown_away(service: Service, body: bytes) -> None:
    """
    A body is read and ignored, and not mistaken for the next request.
    """
    service.site.doStart()
    protocol, transport = connect(service)
    protocol.dataReceived(b"POST /health HTTP/1.1\r\nHost: x\r\n" + body)
    assert transport.value().startswith(b"HTTP/1.1 405 ")
    transport.clear()
    protocol.dataReceived(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert transport.value().startswith(b"HTTP/1.1 200 ")
    service.site.doStop()


def test_no_access_log(service: Service) -> None:
    """
    Requests are not logged: a query may hold a token.
    """
    events: list[object] = []
    globalLogPublisher.addObserver(events.append)  # type: ignore[arg-type]
    try:
        service.site.doStart()
        protocol, _ = connect(service)
        protocol.dataReceived(b"GET /?token=secret HTTP/1.1\r\nHost: x\r\n\r\n")
        service.site.doStop()
    finally:
        globalLogPublisher.removeObserver(events.append)  # type: ignore[arg-type]
    assert "secret" not in repr(events)
