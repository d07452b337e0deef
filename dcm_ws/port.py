"""
One listening port for both: reads a connection's first request head, and hands the connection on to whom it concerns.

Autobahn inside C{twisted.web} would lose the frames that a client sends along with its handshake, drop long heads
without an answer, and start its time-out only after the whole request.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from weakref import WeakSet

from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from dcm_ws.messages import to_json

UNSENT = 128 << 10
"""
Bytes that the kernel takes for a client, past those that are on their way to it.
"""

_upgrade = re.compile(rb"\r\nupgrade:[^\r\n]*\bwebsocket\b", re.IGNORECASE)


@implementer(IProtocolNegotiationFactory)
class Port(Factory):  # type: ignore[misc]
    """
    @param websockets: takes the connections that ask for a WebSocket on one of C{paths}.
    @param web: takes all others.
    @param now: monotonic seconds.
    @param wall_ms: ms since the epoch.
    @param head_timeout: seconds within which a connection must have sent its first request head.
    @param max_head: bytes of a request head.
    @param max_waiting: connections that may be without a request head; past it the oldest is closed.
    """

    noisy = False

    def __init__(
        self,
        websockets: IProtocolFactory,
        web: IProtocolFactory,
        *,
        paths: tuple[str, ...],
        now: Callable[[], float],
        wall_ms: Callable[[], int],
        head_timeout: float = 5.0,
        max_head: int = 16 << 10,
        max_waiting: int = 10_000,
    ) -> None:
        self._websockets = websockets
        self._web = web
        self._targets = tuple(path.encode() for path in paths)
        self._now = now
        self.wall_ms = wall_ms
        self.max_head = max_head
        self._head_timeout = head_timeout
        self._max_waiting = max_waiting
        # in the order of arrival, and so of their deadlines
        self._waiting: dict[_Reception, float] = {}
        self._web_transports: WeakSet[Any] = WeakSet()
        self.timed_out = 0
        self.too_long = 0
        self.crowded_out = 0

    def startFactory(self) -> None:
        self._websockets.doStart()
        self._web.doStart()

    def stopFactory(self) -> None:
        self._web.doStop()
        self._websockets.doStop()

    def acceptableProtocols(self) -> list[bytes]:
        """
        What is spoken over TLS: clients that ask (RFC 7301) are refused where nobody tells them.
        """
        return [b"http/1.1"]

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return _Reception(self, addr)

    def arrived(self, reception: _Reception) -> None:
        """
        A connection has been made, and must send a request head in time.
        """
        if len(self._waiting) >= self._max_waiting:
            self.crowded_out += 1
            next(iter(self._waiting)).drop()
        self._waiting[reception] = self._now() + self._head_timeout

    def served(self, reception: _Reception) -> None:
        """
        The connection is handed on, refused or lost.
        """
        self._waiting.pop(reception, None)

    def sweep(self) -> None:
        """
        Refuse the connections whose time is up.
        """
        now = self._now()
        late = []
        for reception, deadline in self._waiting.items():
            if deadline > now:
                break
            late.append(reception)
        for reception in late:
            self.timed_out += 1
            reception.refuse(HTTPStatus.REQUEST_TIMEOUT, "No request came in time; try again")

    def drop(self) -> None:
        """
        Close the connections that have not sent a request head yet.
        """
        for reception in list(self._waiting):
            reception.drop()

    def abort(self) -> None:
        """
        Drop the HTTP connections that are still there.
        """
        for transport in list(self._web_transports):
            # a TLS connection that has ended by itself cannot be aborted
            if transport.connected:
                transport.abortConnection()

    def choose(self, head: bytes, transport: object) -> IProtocolFactory:
        """
        Whom a request concerns.

        @param head: the request line and the headers.
        """
        if _upgrade.search(head) and self._is_target(head):
            return self._websockets
        self._web_transports.add(transport)
        return self._web

    def _is_target(self, head: bytes) -> bool:
        parts = head[: head.find(b"\r\n")].split(b" ")
        if len(parts) != 3:
            return False
        target = parts[1]
        if target.startswith(b"http"):
            # the absolute form (RFC 9112, section 3.2.2)
            slash = target.find(b"/", target.find(b"//") + 2)
            target = target[slash:] if slash > 0 else b"/"
        return target.partition(b"?")[0] in self._targets


def bound_unsent(port: IListeningPort) -> None:
    """
    Let what waits for a client wait in the service, which has a limit for it, and not in the kernel, which would take
    some 4 MiB more for each: see C{TCP_NOTSENT_LOWAT} in tcp(7).  Accepted connections inherit it.
    """
    listener = getattr(port, "socket", None)
    # not for Unix sockets, nor where the system does not know it
    if listener is not None and listener.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)


class _Reception(Protocol):  # type: ignore[misc]
    """
    Stands in front until the request head is there.
    """

    transport: Any

    def __init__(self, port: Port, addr: IAddress | None) -> None:
        self._port = port
        self._addr = addr
        self._data = b""
        self._dropped = False

    def connectionMade(self) -> None:
        self._port.arrived(self)

    def dataReceived(self, data: bytes) -> None:
        if self._dropped:
            return
        # the end of the head may straddle two reads
        seen = max(0, len(self._data) - 3)
        self._data += data
        end = self._data.find(b"\r\n\r\n", seen)
        if (end < 0 and len(self._data) > self._port.max_head) or end > self._port.max_head:
            self._port.too_long += 1
            self.refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"The request head is longer than {self._port.max_head} bytes",
            )
        elif end >= 0:
            self._hand_on(self._port.choose(self._data[: end + 2], self.transport))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._port.served(self)

    def refuse(self, status: HTTPStatus, reason: str) -> None:
        """
        Answer with an error, and close.
        """
        body = to_json({"error": reason, "code": status.name, "timestamp": self._port.wall_ms()})
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.drop()

    def drop(self) -> None:
        """
        Close the connection.
        """
        self._port.served(self)
        self._dropped = True
        self._data = b""
        self.transport.loseConnection()

    def _hand_on(self, factory: IProtocolFactory) -> None:
        self._port.served(self)
        transport = self.transport
        assert self._addr is not None
        protocol = factory.buildProtocol(self._addr)
        assert protocol is not None
        if isinstance(transport, ProtocolWrapper):
            transport.wrappedProtocol = protocol
        else:
            transport.protocol = protocol
        data, self._data = self._data, b""
        protocol.makeConnection(transport)
        protocol.dataReceived(data)
