"""
Connections on Twisted's own TCP transport, above a socket whose kernel takes what the test lets it.
"""

from __future__ import annotations

import errno
import json
from typing import Any

from twisted.internet.tcp import Server
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from dcm_ws.core.assembly import Core
from dcm_ws.protocol.channels import GLOBAL
from dcm_ws.websocket.connection import WebSocketConnection
from dcm_ws.websocket.factory import WebSocketConnections
from tests.fakes import CONNECTION_LIMITS, make_connections, make_core, split_frames

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SEND_BUFFER = 300_000


class KernelSocket:
    """
    A socket that takes C{room} bytes more.

    @ivar sent: what it took, one item for each system call.
    @ivar unread: what it has received and nobody has read.
    """

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.room = 1 << 40
        self.unread = b""
        self.broken = False
        self.closed = False

    def send(self, data: bytes) -> int:
        if self.broken:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        size = min(len(data), self.room)
        if size == 0:
            raise BlockingIOError(errno.EAGAIN, "full")
        self.room -= size
        self.sent.append(bytes(data[:size]))
        return size

    def recv(self, size: int, flags: int) -> bytes:
        if not self.unread:
            raise BlockingIOError(errno.EAGAIN, "empty")
        return self.unread[:size]

    def fileno(self) -> int:
        return 99

    def getsockname(self) -> tuple[str, int]:
        return "192.0.2.9", 3849

    def setblocking(self, flag: bool) -> None:
        pass

    def setsockopt(self, *option: object) -> None:
        pass

    def shutdown(self, how: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class End:
    """
    A connection, as its far end and the kernel see it.
    """

    def __init__(self, connections: WebSocketConnections, reactor: MemoryReactorClock) -> None:
        self.reactor = reactor
        self.socket = KernelSocket()
        self.connection: WebSocketConnection = connections.buildProtocol(None)  # type: ignore[assignment]
        self.transport = Server(self.socket, self.connection, ("192.0.2.1", 50_000), None, 1, reactor)  # type: ignore[arg-type]
        self.connection.makeConnection(self.transport)
        self.transport._dataReceived(HANDSHAKE)
        self.turn()
        head, _, rest = b"".join(self.socket.sent).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        self.socket.sent = [rest]
        assert self.take()[0]["type"] == "connected"

    def say(self, **message: Any) -> None:
        """
        A message arrives.
        """
        payload = json.dumps(message).encode()
        assert len(payload) < 126
        self.transport._dataReceived(bytes((0x81, 0x80 | len(payload))) + bytes(4) + payload)

    def turn(self) -> None:
        """
        The reactor's next turn: what was put off is done, and sockets that can be written to are.
        """
        self.reactor.advance(0)
        while self.transport in self.reactor.writers and (self.socket.room or self.socket.broken):
            lost = self.transport.doWrite()
            if lost is not None:
                self.transport.connectionLost(Failure(lost))

    def turns(self, seconds: float = 5) -> None:
        """
        The reactor's turns of some seconds.
        """
        for _ in range(round(seconds * 100)):
            self.reactor.advance(0.01)
            self.turn()

    def frames(self) -> list[tuple[int, bytes]]:
        """
        The frames that came since the last call.
        """
        data = b"".join(self.socket.sent)
        self.socket.sent.clear()
        return list(split_frames(data))

    def take(self) -> list[Any]:
        """
        The messages that came since the last call.
        """
        return [json.loads(payload) for opcode, payload in self.frames() if opcode == 1]

    def close_code(self) -> int | None:
        """
        What it was closed with, if it was, last of all.
        """
        opcode, payload = self.frames()[-1]
        return int.from_bytes(payload[:2]) if opcode == 8 else None


class Ground:
    """
    The core with its connections.
    """

    def __init__(
        self, reactor: MemoryReactorClock, send_buffer: int = SEND_BUFFER, max_connections: int = 3, **choices: Any
    ) -> None:
        self.reactor = reactor
        self.core: Core = make_core(reactor, max_connections=max_connections, **choices)
        limits = CONNECTION_LIMITS._replace(send_buffer=send_buffer)
        self.connections = make_connections(self.core, reactor, limits)

    def connect(self) -> End:
        """
        A client whose handshake is done.
        """
        return End(self.connections, self.reactor)

    def announce(self, data: object, event: str = "system.info") -> None:
        """
        Publish on global.
        """
        self.core.router.announce(GLOBAL, event, data)


def data_of(messages: list[dict[str, Any]]) -> list[Any]:
    """
    What the events among C{messages} carried.
    """
    return [message["data"] for message in messages if "event" in message]
