"""
HTTP connections and the site that they belong to: one request a reactor turn, in a limited time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import IResource
from twisted.web.server import Request, Site
from zope.interface import implementer

from dcm_ws.core.counts import LimitCounts
from dcm_ws.http.bodies import Bodies
from dcm_ws.http.reception import set_protocol
from dcm_ws.http.resources import make_root
from dcm_ws.http.strict import StrictChannel, StrictRequest
from dcm_ws.http.turns import Turns

REQUESTS_A_TURN = 16
"""
Pieces of HTTP requests that are read, and answered if they are complete, in one turn of the reactor.
"""


@implementer(IHalfCloseableProtocol)
class _Channel(StrictChannel):
    """
    Handles one request a reactor turn, and none while earlier responses wait to be read.  Twisted's own channel handles
    at once all requests of one read, which may be thousands if a client pipelines them, and keeps the responses if the
    client does not read.

    @ivar has_begun: the port holds the beginning of the next request.
    @ivar given_away: called when the connection is given to another protocol.
    """

    transport: Any
    #: set by the site
    site: QuietSite
    has_begun = False
    given_away: Callable[[], object] | None = None
    _answered: Request | None = None
    _full = False
    _asked_all = False
    _early = b""
    _put_off = False
    _lost = False

    def dataReceived(self, data: bytes) -> None:
        self._early += data
        if not self._put_off and not self.site.turns.do(self._read_on):
            self._put_off = True
            self.transport.pauseProducing()

    @property
    def is_idle(self) -> bool:
        """
        True between two requests, if no response is missing.
        """
        return bool(self.persistent) and not (self.requests or self.has_partial_line or self._early or self._full)

    def _read_on(self) -> None:
        data, self._early = self._early, b""
        if self._put_off:
            self._put_off = False
            if not self._full:
                self.transport.resumeProducing()
        if not self._lost:
            super().dataReceived(data)

    def resetTimeout(self) -> None:
        """
        Do nothing: the time is for a whole request, and does not start again with each byte.
        """

    def timeoutConnection(self) -> None:
        if self.requests or self.has_begun:
            self.site.limits.http_timeout.add()
        super().timeoutConnection()

    def requestDone(self, request: Request) -> None:
        behind = self.clearLineBuffer()
        if not (behind or self.has_pipelined or self._full):
            super().requestDone(request)
            self._end_if_done()
            return
        self.rawDataReceived(behind)
        self._answered = request
        self.setTimeout(self.site.timeOut)
        self.callLater(0, self._go_on)

    def _go_on(self) -> None:
        if self._answered is not None and not self._full:
            request, self._answered = self._answered, None
            super().requestDone(request)
            self._end_if_done()

    def _end_if_done(self) -> None:
        # a request that is not complete by now never will be
        answering = self._answered is not None or self._put_off or self.is_answering
        if self._asked_all and not answering:
            self.loseConnection()

    def pauseProducing(self) -> None:
        self._full = True
        super().pauseProducing()
        # Twisted's own channel reads on while it handles a request, and keeps what it reads
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._full = False
        super().resumeProducing()
        self.callLater(0, self._go_on)

    def give_away(self, protocol: IProtocol) -> None:
        """
        Give the connection to another protocol, in place of a response.
        """
        transport = self.transport
        transport.unregisterProducer()
        # the request is over
        self.connectionLost()
        if self.given_away is not None:
            self.given_away()
        set_protocol(transport, protocol)
        protocol.makeConnection(transport)
        transport.resumeProducing()

    def readConnectionLost(self) -> None:
        """
        The client will send no more requests, and may still read the responses.
        """
        self._asked_all = True
        for request in list(self.requests):
            if request.input_ended is not None:
                request.input_ended()
        self._end_if_done()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        self._answered = None
        super().connectionLost(reason)


class QuietSite(Site):
    """
    A site without an access log, since a query may hold a token.

    @ivar turns: spreads the requests over the reactor's turns.
    @ivar limits: where requests are counted that were not complete in time.
    @ivar bodies: which pages take bodies; None if none does.
    """

    noisy = False
    protocol = _Channel  # type: ignore[assignment]

    def __init__(
        self,
        root: IResource,
        reactor: IReactorTime,
        timeout: float,
        limits: LimitCounts,
        bodies: Bodies | None = None,
    ) -> None:
        super().__init__(root, requestFactory=StrictRequest, timeout=timeout, reactor=reactor)
        self.turns = Turns(reactor, REQUESTS_A_TURN)
        self.limits = limits
        self.bodies = bodies

    def log(self, request: http.Request) -> None:
        pass


def make_site(
    wall_ms: Callable[[], int],
    resources: Mapping[bytes, IResource],
    reactor: IReactorTime,
    timeout: float,
    websockets: Collection[str],
    limits: LimitCounts,
    bodies: Bodies | None = None,
) -> QuietSite:
    """
    Make the HTTP side of a port.

    @param resources: by path.
    @param timeout: seconds that a connection has for its next request, with its body, after the last response.
    @param websockets: the paths where the port opens WebSockets.
    @param limits: where requests are counted that were not complete in time.
    @param bodies: which pages take bodies; None if none does.
    """
    return QuietSite(make_root(wall_ms, resources, websockets), reactor, timeout, limits, bodies)
