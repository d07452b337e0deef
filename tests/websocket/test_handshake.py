"""
Handshakes that are admitted or rejected, whether read by the short cut or by Autobahn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import pytest

from dcm_ws.core.session import Origin
from dcm_ws.http.admission import RefusedError
from tests.websocket.ends import HANDSHAKE, Ground
from tests.websocket.test_short_messages import Transport

# the short cut leaves it to Autobahn
UNUSUAL = HANDSHAKE.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: one, two\r\n\r\n")


class Nobody:
    """
    Admits nobody.

    @ivar asked: the targets and the headers of the requests.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    def admit(self, target: str, headers: Mapping[str, str], peer: str, port: int | None) -> tuple[Origin, str]:
        self.asked.append((target, headers))
        raise RefusedError(HTTPStatus.FORBIDDEN, "ORIGIN_NOT_ALLOWED", "Pages of this origin may not connect")


def shake_hands(ground: Ground, request: bytes) -> Any:
    """
    The transport of a connection that has received C{request}.
    """
    connection: Any = ground.connections.buildProtocol(None)
    transport = Transport()
    connection.makeConnection(transport)
    connection.dataReceived(request)
    ground.reactor.advance(0)
    return transport


def error_of(transport: Any) -> tuple[bytes, dict[str, str]]:
    """
    The status line of an error, and its body without the time.
    """
    head, _, body = transport.value().partition(b"\r\n\r\n")
    assert b"Content-Type: application/json\r\n" in head
    error = json.loads(body)
    del error["timestamp"]
    return head.partition(b"\r\n")[0], error


@pytest.mark.parametrize("request_head", [HANDSHAKE, UNUSUAL], ids=["plain", "unusual"])
def test_refused(ground: Ground, request_head: bytes) -> None:
    """
    A client that is not admitted receives the reason as JSON, and the connection is closed.
    """
    nobody: Any = Nobody()
    ground.connections._admission = nobody
    transport = shake_hands(ground, request_head)
    assert error_of(transport) == (
        b"HTTP/1.1 403 Forbidden",
        {"error": "Pages of this origin may not connect", "code": "ORIGIN_NOT_ALLOWED"},
    )
    assert transport.disconnecting
    ((target, headers),) = nobody.asked
    assert (target, headers["host"]) == ("/", "localhost")
    assert not ground.core.clients.sessions


def test_first_subprotocol(ground: Ground) -> None:
    """
    The first subprotocol that a client offers is selected.
    """
    assert b"\r\nSec-WebSocket-Protocol: one\r\n" in shake_hands(ground, UNUSUAL).value()
    assert len(ground.core.clients.sessions) == 1


def test_other_version(ground: Ground) -> None:
    """
    A client of another version of the protocol learns the right one (RFC 6455, section 4.2.2).
    """
    transport = shake_hands(ground, HANDSHAKE.replace(b"Version: 13", b"Version: 12"))
    status, error = error_of(transport)
    assert (status, error["code"]) == (b"HTTP/1.1 426 Upgrade Required", "UPGRADE_REQUIRED")
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in transport.value()
    assert b"\r\nUpgrade: websocket\r\n" in transport.value()


def test_header_that_servers_read_differently(ground: Ground) -> None:
    """
    A request head that is ambiguous is rejected.
    """
    transport = shake_hands(ground, HANDSHAKE.replace(b"\r\n\r\n", b"\r\nContent-Length : 5\r\n\r\n"))
    status, error = error_of(transport)
    assert (status, error["code"]) == (b"HTTP/1.1 400 Bad Request", "BAD_REQUEST")


def test_in_pieces(ground: Ground) -> None:
    """
    A handshake that comes byte by byte is left to Autobahn, and frames that follow it at once are read.
    """
    connection: Any = ground.connections.buildProtocol(None)
    transport = Transport()
    connection.makeConnection(transport)
    for byte in HANDSHAKE[:-1]:
        connection.dataReceived(bytes((byte,)))
    assert transport.value() == b""
    connection.dataReceived(HANDSHAKE[-1:] + b'\x81\x8f\0\0\0\0{"type":"ping"}')
    ground.reactor.advance(0)
    assert transport.value().startswith(b"HTTP/1.1 101 ")
    assert b'"type":"pong"' in transport.value()
