"""
The factory of the WebSocket connections: makes, admits and counts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from twisted.internet.interfaces import IReactorTime

from dcm_ws.core.charges import Charges
from dcm_ws.core.counts import Counts
from dcm_ws.core.hub import Hub
from dcm_ws.core.interpreter import Interpreter
from dcm_ws.core.ports import World
from dcm_ws.core.session import Origin
from dcm_ws.http.addresses import UNIX, limit_key
from dcm_ws.http.admission import Admission, RefusedError
from dcm_ws.http.pacing import CLOSE_GRACE, Pacing
from dcm_ws.http.partial import Holder, PartialMessages
from dcm_ws.http.shares import Share, loopback_port
from dcm_ws.websocket.connection import ConnectionLimits, WebSocketConnection

PATHS = ("/", "/ws")
"""
Where a WebSocket may be opened.
"""


class WebSocketConnections(WebSocketServerFactory):
    """
    All WebSocket connections of the service.

    @param production: clients have to authenticate, and may send less until they have.
    @param pacing: spreads the work of the connections over the reactor's turns.
    @param server: the value of the C{Server} header.
    @param connection: the class of the connections.

    @ivar share: counts the open connections, and limits those of an address.
    @ivar partial: the bytes of incomplete messages, and of incomplete bodies of HTTP requests.
    """

    noisy = False

    def __init__(
        self,
        hub: Hub,
        interpreter: Interpreter,
        charges: Charges,
        reactor: IReactorTime,
        *,
        world: World,
        counts: Counts,
        production: bool,
        server: str,
        limits: ConnectionLimits,
        share: Share,
        admission: Admission,
        pacing: Pacing,
        connection: type[WebSocketConnection] = WebSocketConnection,
    ) -> None:
        # no URL: Autobahn rejects port 0 in one
        super().__init__(server=server, reactor=reactor)
        self._admission = admission
        self._max_message = limits.message
        self.share = share
        self.partial: PartialMessages[Holder] = PartialMessages(limits.partial, counts.limits.max_partial_bytes)
        self._pacing = pacing
        self._open: set[WebSocketConnection] = set()
        self.setProtocolOptions(
            versions=[13],
            # answer errors with 1002, 1007 and 1009 instead of dropping the connection
            failByDrop=False,
            maxFramePayloadSize=limits.message,
            maxMessagePayloadSize=limits.message,
            # the port has the whole request before it hands it on
            openHandshakeTimeout=0,
            closeHandshakeTimeout=CLOSE_GRACE,
            allowNullOrigin=True,
            # RFC 6455, section 5.5.1: some clients reconnect or not by the code of the answer
            echoCloseCodeReason=True,
            **({"perMessageCompressionAccept": self._accept_compression} if limits.compression else {}),
        )
        self.protocol: Any = connection.sharing(
            self,
            hub=hub,
            interpreter=interpreter,
            charges=charges,
            world=world,
            counts=counts,
            production=production,
            limits=limits,
            pacing=self._pacing,
        )

    def _accept_compression(self, offers: list[object]) -> PerMessageDeflateOfferAccept | None:
        """
        Accept the first offer of C{permessage-deflate}, without context takeover: that would hold a window of up to
        64 KiB for each client and direction, and compress for each client what is the same for all.
        """
        for offer in offers:
            if isinstance(offer, PerMessageDeflateOffer):
                return PerMessageDeflateOfferAccept(
                    offer,
                    request_no_context_takeover=offer.accept_no_context_takeover,
                    no_context_takeover=True,
                    max_message_size=self._max_message,
                )
        return None

    def admit(self, connection: WebSocketConnection, target: str, headers: Mapping[str, str]) -> Origin:
        """
        Return who the client says it is.

        @param target: the request's path and query.
        @param headers: by lower-case name.
        @raise RefusedError: it may not connect.
        """
        port = loopback_port(connection.transport.getHost()) if "origin" in headers else None
        origin, connection.address = self._admission.admit(target, headers, connection.address, port)
        if self.share.refuses(connection.address):
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "TOO_MANY_CONNECTIONS",
                f"Too many connections from your address: the limit is {self.share.per_address}",
            )
        if connection.address == UNIX:
            return origin
        # _replace() would take longer than the rest
        return Origin(origin.agent_id, origin.session_id, origin.claims, origin.observer, limit_key(connection.address))

    def opened(self, connection: WebSocketConnection) -> None:
        """
        The handshake of C{connection} is done: it begins to count.
        """
        self._open.add(connection)
        self.share.enter(connection.address)

    def lost(self, connection: WebSocketConnection) -> None:
        """
        The transport of C{connection} is closed.
        """
        if connection in self._open:
            self._open.remove(connection)
            self.share.leave(connection.address)
        self._pacing.forget(connection)

    def hold(self, connection: WebSocketConnection, size: int, *, stranger: bool) -> None:
        """
        C{connection} holds C{size} bytes of an incomplete message; if all together hold too much, one is closed.
        """
        crowded_out = self.partial.hold(connection, size, stranger=stranger)
        if crowded_out is not None:
            crowded_out.close_partial_message()

    def abort(self) -> None:
        """
        Drop all connections that are still open.
        """
        for connection in list(self._open):
            connection.dropConnection(abort=True)
        self._pacing.abort_all()

    def __len__(self) -> int:
        """
        The number of connections that are open, or not yet closed for good.
        """
        return len(self._open)

    def __bool__(self) -> bool:
        return True
