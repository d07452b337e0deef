"""
The factory counts its connections, and ends them.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.tcp import Server
from twisted.python.failure import Failure

from tests.fakes import split_frames
from tests.websocket.ends import HANDSHAKE, Ground, KernelSocket


def test_abort(ground: Ground) -> None:
    """
    Clients that are still connected at the end are dropped.
    """
    ends = [ground.connect() for _ in range(3)]
    assert len(ground.connections) == 3
    assert ground.connections
    ground.connections.abort()
    ground.reactor.advance(0)
    assert all(end.socket.closed for end in ends)
    assert len(ground.connections) == 0
    assert ground.connections
    assert ground.core.clients.sessions == set()


def test_no_room(ground: Ground) -> None:
    """
    A client that there is no room for is not counted, nor listened to.
    """
    for _ in range(3):
        ground.connect()
    socket = KernelSocket()
    connection: Any = ground.connections.buildProtocol(None)
    transport = Server(socket, connection, ("192.0.2.1", 1), None, 1, ground.reactor)  # type: ignore[arg-type]
    connection.makeConnection(transport)
    transport._dataReceived(HANDSHAKE + b'\x81\x8f\0\0\0\0{"type":"ping"}')
    ground.reactor.advance(0)
    while transport in ground.reactor.writers:
        transport.doWrite()
    opcode, payload = list(split_frames(b"".join(socket.sent).partition(b"\r\n\r\n")[2]))[-1]
    assert (opcode, payload[:2]) == (8, (1013).to_bytes(2))
    assert len(ground.core.clients.sessions) == 3
    transport.connectionLost(Failure(ConnectionDone()))
    assert len(ground.connections) == 3
