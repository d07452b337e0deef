"""
The connections of the client for Twisted: Autobahn's protocol, and the endpoint that it connects through.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectingCancelledError, ConnectionRefusedError
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from zope.interface import implementer

from dcm_ws.client.reasons import REFUSED

# what Autobahn writes around the reason
_UNCLEAN = re.compile(r'connection was closed uncleanly \("(.*)"\)', re.DOTALL)

_CLOSE_GRACE = 1.0
"""
Seconds that the server has to end a connection that the client has closed.
"""


class Connection(WebSocketClientProtocol):
    """
    One WebSocket, which its client may stop reading.

    @param opened: called when the WebSocket is open.
    @param received: called with each message.
    @param closed: called with the close code and the reason when the connection has ended; it may never have been open.

    @ivar paused: the client does not read.
    """

    def __init__(
        self,
        opened: Callable[[Connection], object],
        received: Callable[[Connection, bytes], object],
        closed: Callable[[Connection, int | None, str], object],
    ) -> None:
        super().__init__()
        self._opened = opened
        self._received = received
        self._closed = closed
        self.paused = False

    def onOpen(self) -> None:
        self._opened(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self._received(self, payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self._closed(self, code, _UNCLEAN.sub(r"\1", reason or ""))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)

    def pause(self, paused: bool) -> None:
        """
        Stop reading, or read again.
        """
        if paused == self.paused:
            return
        self.paused = paused
        transport: Any = self.transport
        if paused:
            transport.pauseProducing()
        else:
            transport.resumeProducing()

    def finish(self, reactor: Any) -> IDelayedCall:
        """
        Close the connection.

        @return: the timer that drops it if the server does not answer in time.
        """
        # under TLS the end of the connection has to be read
        self.pause(False)
        self.sendClose(self.CLOSE_STATUS_CODE_NORMAL)
        timer: IDelayedCall = reactor.callLater(_CLOSE_GRACE, self.dropConnection, abort=True)
        return timer


def make_factory(url: str, make: Callable[[], Connection], timeout: float, reactor: Any) -> Any:
    """
    The factory for the connections of one client.

    @param make: makes a connection.
    @param timeout: seconds that the opening handshake may take.
    """
    factory: Any = WebSocketClientFactory(url, reactor=reactor)
    factory.setProtocolOptions(openHandshakeTimeout=timeout, closeHandshakeTimeout=1)
    factory.noisy = False
    factory.protocol = make
    return factory


@implementer(IStreamClientEndpoint)
class ReportingEndpoint:
    """
    An endpoint that reports why it did not connect.

    @param report: called with the reason.
    """

    def __init__(self, endpoint: Any, report: Callable[[str], object]) -> None:
        self._endpoint = endpoint
        self._report = report

    def connect(self, factory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = maybeDeferred(self._endpoint.connect, factory)
        return connecting.addErrback(self._failed)

    def _failed(self, failure: Failure) -> Failure:
        if not failure.check(CancelledError, ConnectingCancelledError):
            refused = failure.check(ConnectionRefusedError)
            self._report(REFUSED if refused else failure.getErrorMessage().rstrip("."))
        return failure


def make_endpoint(
    host: str, port: int, *, tls: Any, timeout: float, reactor: Any, report: Callable[[str], object]
) -> ReportingEndpoint:
    """
    The endpoint for a host.

    @param tls: True, or the result of C{optionsForClientTLS}; False without TLS.
    @param timeout: seconds that connecting may take.
    @param report: called with the reason if there is no connection.
    """
    endpoint: Any = HostnameEndpoint(reactor, host, port, timeout=timeout)
    if tls:
        endpoint = wrapClientTLS(optionsForClientTLS(host) if tls is True else tls, endpoint)
    return ReportingEndpoint(endpoint, report)
