"""
One listening port for HTTP and WebSockets: the first request head of a connection decides which of them it is for.

Autobahn inside C{twisted.web} would lose the frames that a client sends along with its handshake, drop long heads
without an answer, and start its time-out only after the whole request.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
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
from twisted.python.failure import Failure
from zope.interface import implementer

from dcm_ws.core.counts import LimitCounts
from dcm_ws.http.heads import origin_form
from dcm_ws.http.reception import AwaitsKey, Reception, WaitingRoom, set_protocol
from dcm_ws.http.shares import Share
from dcm_ws.http.transport import abort

UNSENT = 128 << 10
"""
Bytes that the kernel keeps for a client in addition to those that it has sent.
"""

_upgrade = re.compile(rb"\r\nupgrade:[^\r\n]*\bwebsocket\b", re.IGNORECASE)


@implementer(IProtocolNegotiationFactory)
class Port(Factory):
    """
    Accepts connections, and gives each to WebSockets or to HTTP.

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
    @param trusts: whether the far end, given its address, is a proxy.  Its connections are not limited per address
        before their heads.
    @param client: returns the client's address, given the address of the far end and the request head.
    @param awaits_key: whether the token of a WebSocket's handshake can be verified only later, given its head, the
        address of the far end, and what is called then; None if it always can at once.
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
        head_timeout: float,
        max_head: int,
        max_waiting: int,
        clock: IReactorTime,
        limits: LimitCounts,
        waiting: Share,
        http: Share,
        trusts: Callable[[str], bool],
        client: Callable[[str, bytes], str],
        awaits_key: AwaitsKey | None = None,
    ) -> None:
        self._websockets = websockets
        self._web = web
        self._targets = tuple(path.encode() for path in paths)
        self.max_head = max_head
        self._http = http
        self._client = client
        self._awaits_key_of = awaits_key
        self._visits: set[_Visit] = set()
        self._room = WaitingRoom(
            waiting,
            now=now,
            wall_ms=wall_ms,
            clock=clock,
            limits=limits,
            head_timeout=head_timeout,
            max_head=max_head,
            most=max_waiting,
            trusts=trusts,
            choose=self._choose,
            awaits_key=None if awaits_key is None else self._awaits_key,
        )

    def startFactory(self) -> None:
        self._websockets.doStart()
        self._web.doStart()

    def stopFactory(self) -> None:
        self._web.doStop()
        self._websockets.doStop()

    def acceptableProtocols(self) -> list[bytes]:
        """
        The protocols over TLS: without an answer, TLS refuses clients that ask (RFC 7301).
        """
        return [b"http/1.1"]

    def buildProtocol(self, addr: IAddress | None) -> Reception:
        return Reception(self._room, addr)

    def sweep(self) -> None:
        """
        Refuse the connections that did not send a request head in time.
        """
        self._room.sweep()

    def drop(self) -> None:
        """
        Close the connections that have not sent a request head yet.
        """
        self._room.drop()

    def abort(self) -> None:
        """
        Drop the HTTP connections that are still open.
        """
        for visit in list(self._visits):
            abort(visit.transport)

    def _awaits_key(self, head: bytes, peer: str, ready: Callable[[], object]) -> bool:
        assert self._awaits_key_of is not None
        return self.is_upgrade(head) and self._awaits_key_of(head, peer, ready)

    def _choose(self, head: bytes, reception: Reception) -> IProtocol | None:
        assert reception.address is not None
        if self.is_upgrade(head):
            return self._websockets.buildProtocol(reception.address)
        client = self._client(reception.peer, head)
        if self._http.refuses(client):
            return None
        protocol = self._web.buildProtocol(reception.address)
        assert protocol is not None
        return _Visit(self, client, protocol)

    def began(self, visit: _Visit) -> None:
        """
        An HTTP connection begins to count.
        """
        self._visits.add(visit)
        self._http.enter(visit.client)

    def ended(self, visit: _Visit) -> None:
        """
        An HTTP connection is gone.
        """
        self._visits.remove(visit)
        self._http.leave(visit.client)

    def is_upgrade(self, head: bytes) -> bool:
        """
        True if a request asks for a WebSocket on a path where one may be opened.
        """
        return _upgrade.search(head) is not None and self._is_target(head)

    def _is_target(self, head: bytes) -> bool:
        parts = head[: head.find(b"\r\n")].split(b" ")
        if len(parts) != 3:
            return False
        return origin_form(parts[1]).partition(b"?")[0] in self._targets


@implementer(IHalfCloseableProtocol)
class _Visit(Protocol):
    """
    An HTTP connection.  It counts as long as it lasts, and becomes a WebSocket if a later request asks for that.

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
        self._protocol.given_away = self._given_away
        self._protocol.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        if self._early or getattr(self._protocol, "is_idle", False):
            # only a whole head says what the request asks for
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
        Begin again: a proxy has reused the connection for a request that asks for a WebSocket.
        """
        transport = self.transport
        transport.unregisterProducer()
        self.connectionLost()
        reception = self._port.buildProtocol(transport.getPeer())
        set_protocol(transport, reception)
        reception.makeConnection(transport)
        reception.dataReceived(data)

    def readConnectionLost(self) -> None:
        self._protocol.readConnectionLost()

    def writeConnectionLost(self) -> None:
        self._protocol.writeConnectionLost()

    def _given_away(self) -> None:
        """
        The connection is another protocol's: it does not count as an HTTP connection any more.
        """
        self._protocol.given_away = None
        self._port.ended(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._protocol.given_away = None
        self._port.ended(self)
        self._protocol.connectionLost(reason)


def bound_unsent(port: IListeningPort) -> None:
    """
    Limit the unsent bytes that the kernel keeps for a client (C{TCP_NOTSENT_LOWAT} in tcp(7)): without it, the kernel
    keeps some 4 MiB for each in addition to what the service keeps, and limits.  Accepted connections inherit it.
    """
    listener = getattr(port, "socket", None)
    # not for Unix sockets, nor on systems without it
    if listener is not None and listener.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
