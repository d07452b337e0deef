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

from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IProtocolNegotiationFactory,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from dcm_ws.core.counts import LimitCounts
from dcm_ws.http.addresses import UNIX
from dcm_ws.http.heads import origin_form
from dcm_ws.http.refusals import error_response
from dcm_ws.http.shares import Share, address_of
from dcm_ws.http.transport import ProxiedConnection, abort
from dcm_ws.http.turns import Turns

HEADS_A_TURN = 32
"""
Requests on new connections that are read in one turn of the reactor.
"""

GOODBYE = 5.0
"""
Seconds that the far end has to answer the end of a TLS connection.
"""

UNSENT = 128 << 10
"""
Bytes that the kernel takes for a client, past those that are on their way to it.
"""

_TLS = b"\x16\x03"
"""
What a TLS handshake begins with (RFC 8446, section 5.1).
"""

_upgrade = re.compile(rb"\r\nupgrade:[^\r\n]*\bwebsocket\b", re.IGNORECASE)


@implementer(IProtocolNegotiationFactory)
class Port(Factory):
    """
    @param websockets: takes the connections that ask for a WebSocket on one of C{paths}.
    @param web: takes all others.
    @param now: monotonic seconds.
    @param wall_ms: ms since the epoch.
    @param head_timeout: seconds within which a connection must have sent its first request head.
    @param max_head: bytes of a request head.
    @param max_waiting: connections that may be without a request head; beyond it the oldest is closed.
    @param clock: runs what has to wait for a later turn.
    @param limits: where crossed limits are counted.
    @param waiting: counts the connections that are without a request head, by the address of the far end.
    @param http: counts the HTTP connections, by the client's address; beyond its limits they are refused with 503.
    @param trusts: is the far end, given its address, a proxy?  Its connections are not limited before their heads.
    @param client: returns the client's address, given the address of the far end and the request head.
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
        clock: IReactorTime,
        limits: LimitCounts,
        waiting: Share | None = None,
        http: Share | None = None,
        trusts: Callable[[str], bool] = lambda peer: False,
        client: Callable[[str, bytes], str] = lambda peer, head: peer,
    ) -> None:
        self._websockets = websockets
        self._web = web
        self.clock = clock
        self._targets = tuple(path.encode() for path in paths)
        self._now = now
        self.wall_ms = wall_ms
        self.max_head = max_head
        self._head_timeout = head_timeout
        self._max_waiting = max_waiting
        # in the order of arrival, and so of their deadlines
        self._waiting: dict[_Reception, float] = {}
        self.waiting = waiting or Share()
        self.http = http or Share()
        self.trusts = trusts
        self.client = client
        self.heads = Turns(clock, HEADS_A_TURN)
        self._visits: set[_Visit] = set()
        self.limits = limits

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
        A connection has been made, and must send a request head in time.  It is closed if its address has too many of
        the kind.
        """
        if self.waiting.refuses(reception.charged):
            reception.drop()
            return
        self.waiting.enter(reception.charged)
        if len(self._waiting) >= self._max_waiting:
            self.limits.max_waiting.add()
            next(iter(self._waiting)).drop()
        self._waiting[reception] = self._now() + self._head_timeout

    def served(self, reception: _Reception) -> None:
        """
        The connection is handed on, refused or lost.
        """
        if self._waiting.pop(reception, None) is not None:
            self.waiting.leave(reception.charged)

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
            self.limits.handshake_timeout.add()
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
        for visit in list(self._visits):
            abort(visit.transport)

    def build(self, head: bytes, reception: _Reception) -> IProtocol | None:
        """
        The protocol that a request is handed to.  None if there is no room for another HTTP connection.

        @param head: the request line and the headers.
        """
        assert reception.address is not None
        if self.is_upgrade(head):
            return self._websockets.buildProtocol(reception.address)
        client = self.client(reception.peer, head)
        if self.http.refuses(client):
            return None
        protocol = self._web.buildProtocol(reception.address)
        assert protocol is not None
        return _Visit(self, client, protocol)

    def began(self, visit: _Visit) -> None:
        """
        An HTTP connection begins to count.
        """
        self._visits.add(visit)
        self.http.enter(visit.client)

    def ended(self, visit: _Visit) -> None:
        """
        An HTTP connection is gone.
        """
        self._visits.remove(visit)
        self.http.leave(visit.client)

    def is_upgrade(self, head: bytes) -> bool:
        """
        True if a request asks for a WebSocket where one may be opened.
        """
        return _upgrade.search(head) is not None and self._is_target(head)

    def _is_target(self, head: bytes) -> bool:
        parts = head[: head.find(b"\r\n")].split(b" ")
        if len(parts) != 3:
            return False
        return origin_form(parts[1]).partition(b"?")[0] in self._targets


def bound_unsent(port: IListeningPort) -> None:
    """
    Let what waits for a client wait in the service, which has a limit for it, and not in the kernel, which would take
    some 4 MiB more for each: see C{TCP_NOTSENT_LOWAT} in tcp(7).  Accepted connections inherit it.
    """
    listener = getattr(port, "socket", None)
    # not for Unix sockets, nor where the system does not know it
    if listener is not None and listener.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)


def _set_protocol(transport: Any, protocol: IProtocol) -> None:
    """
    Have C{protocol} get what arrives from now on.
    """
    if isinstance(transport, ProtocolWrapper):
        transport.wrappedProtocol = protocol
    else:
        transport.protocol = protocol


class _Reception(Protocol):
    """
    Stands in front until the request head is there.

    @ivar charged: the address that the connection is counted by until then.
    """

    transport: Any
    charged: str

    def __init__(self, port: Port, address: IAddress | None) -> None:
        self._port = port
        self.address = address
        self._data = b""
        self._end: int | None = None
        self._dropped = False
        self._paused = False

    def connectionMade(self) -> None:
        # the PROXY protocol names the client in its first bytes, which are still to come
        proxied = isinstance(self.transport, ProxiedConnection) or self._port.trusts(self.peer)
        self.charged = UNIX if proxied else self.peer
        self._port.arrived(self)

    @property
    def peer(self) -> str:
        """
        The address of the far end.
        """
        return address_of(self.transport.getPeer())

    def dataReceived(self, data: bytes) -> None:
        if self._dropped:
            return
        # the end of the head may straddle two reads
        seen = max(0, len(self._data) - 3)
        self._data += data
        if self._end is not None:
            return
        if self._data.startswith(_TLS):
            # it would wait for the time-out, like its user
            self.refuse(HTTPStatus.BAD_REQUEST, "This port speaks HTTP without TLS: use ws:// or http://")
            return
        end = self._data.find(b"\r\n\r\n", seen)
        if (end < 0 and len(self._data) > self._port.max_head) or end > self._port.max_head:
            self._port.limits.max_head_size.add()
            self.refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"The request head is longer than {self._port.max_head} bytes",
            )
        elif end >= 0:
            self._end = end + 2
            if not self._port.heads.do(self._hand_on):
                self._paused = True
                self.transport.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._dropped = True
        self._port.served(self)

    def refuse(self, status: HTTPStatus, reason: str, code: str = "") -> None:
        """
        Answer with an error, and close.
        """
        self.transport.write(error_response(status, reason, self._port.wall_ms(), code))
        self.drop()

    def drop(self) -> None:
        """
        Close the connection.
        """
        self._port.served(self)
        self._dropped = True
        self._data = b""
        transport = self.transport
        if isinstance(transport, ProtocolWrapper):
            # TLS waits for the far end's goodbye, or even for the end of its handshake
            self._port.clock.callLater(GOODBYE, abort, transport)
        transport.loseConnection()

    def _hand_on(self) -> None:
        if self._dropped:
            return
        self._port.served(self)
        data, self._data = self._data, b""
        protocol = self._port.build(data[: self._end], self)
        if protocol is None:
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, "Too many HTTP connections; try again", "TOO_MANY_CONNECTIONS")
            return
        transport = self.transport
        _set_protocol(transport, protocol)
        if self._paused:
            transport.resumeProducing()
        protocol.makeConnection(transport)
        protocol.dataReceived(data)


@implementer(IHalfCloseableProtocol)
class _Visit(Protocol):
    """
    An HTTP connection, which counts as long as it lasts.

    @ivar client: the address of the client.
    """

    transport: Any

    def __init__(self, port: Port, client: str, protocol: Any) -> None:
        self._port = port
        self.client = client
        self._protocol = protocol
        self._early = b""

    def connectionMade(self) -> None:
        self._port.began(self)
        self._protocol.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        if self._early or getattr(self._protocol, "is_idle", False):
            # what a request asks for is known once its head is there
            data = self._early + data
            end = data.find(b"\r\n\r\n")
            if end < 0 and len(data) <= self._port.max_head:
                self._early = data
                self._protocol.has_begun = True
                return
            self._early, self._protocol.has_begun = b"", False
            if end > 0 and self._port.is_upgrade(data[: end + 2]):
                self._become_websocket(data)
                return
        self._protocol.dataReceived(data)

    def _become_websocket(self, data: bytes) -> None:
        """
        Begin again on a connection that a proxy has kept for its next request, which asks for a WebSocket.
        """
        transport = self.transport
        transport.unregisterProducer()
        self.connectionLost()
        reception = _Reception(self._port, transport.getPeer())
        _set_protocol(transport, reception)
        reception.makeConnection(transport)
        reception.dataReceived(data)

    def readConnectionLost(self) -> None:
        self._protocol.readConnectionLost()

    def writeConnectionLost(self) -> None:
        self._protocol.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._port.ended(self)
        self._protocol.connectionLost(reason)
