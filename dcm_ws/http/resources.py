"""
What HTTP answers: C{/health}, C{/stats}, and errors in JSON (protocol, section 8).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from dcm_ws.core.hub import Hub
from dcm_ws.http.counts import HttpCounts
from dcm_ws.http.strict import StrictChannel, StrictRequest, header
from dcm_ws.http.turns import Turns
from dcm_ws.protocol.errors import ProtocolError
from dcm_ws.protocol.replies import to_json

REQUESTS_A_TURN = 16
"""
Pieces of HTTP requests that are read, and answered if they are whole, in one turn of the reactor.
"""


class Page(Resource):
    """
    Answers in JSON, and has nothing below it.
    """

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        super().__init__()
        self.wall_ms = wall_ms

    def getChild(self, path: bytes, request: Request) -> IResource:
        return _NotFound(self.wall_ms)

    def fail(self, request: Request, status: HTTPStatus, reason: str) -> bytes:
        """
        An error, in the one shape they all have.
        """
        request.setResponseCode(status.value, status.phrase.encode())
        return self.answer(
            request,
            {"error": reason, "code": status.name, "timestamp": self.wall_ms()},
        )

    def answer(self, request: Request, value: object) -> bytes:
        """
        C{value} as JSON.
        """
        request.setHeader("Content-Type", "application/json")
        request.setHeader("Cache-Control", "no-store")
        request.setHeader("X-Content-Type-Options", "nosniff")
        return to_json(value)


class _NotFound(Page):
    def render(self, request: Request) -> bytes:
        return self.fail(request, HTTPStatus.NOT_FOUND, "There is nothing here; try /health")


def redirect(request: Request, place: str) -> bytes:
    """
    Send the client elsewhere.

    @param place: relative to the request's path: below which path a proxy has the service is not known here.
    """
    request.setResponseCode(HTTPStatus.FOUND)
    request.setHeader("Location", place)
    request.setHeader("Content-Length", "0")
    return b""


class Counts(Page):
    """
    A page of counts, which any other origin may read.

    @param report: the status and the counts, given whether the asker may see the channels' names.
    """

    def __init__(self, hub: Hub, report: Callable[[bool], Mapping[str, object]]) -> None:
        super().__init__(hub.wall_ms)
        self._hub = hub
        self._report = report

    def render(self, request: Request) -> bytes:
        request.setHeader("Access-Control-Allow-Origin", "*")
        if request.method in (b"GET", b"HEAD"):
            report = self._report(self._may_see_channels(request))
            if report.get("status") == "draining":
                request.setResponseCode(503, b"Service Unavailable")
            return self.answer(request, report)
        if request.method == b"OPTIONS":
            request.setResponseCode(HTTPStatus.NO_CONTENT)
            request.setHeader("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
            request.setHeader("Access-Control-Allow-Headers", "Authorization, Content-Type")
            return b""
        request.setHeader("Allow", "GET, HEAD, OPTIONS")
        return self.fail(request, HTTPStatus.METHOD_NOT_ALLOWED, "Use GET, HEAD or OPTIONS")

    def _may_see_channels(self, request: Request) -> bool:
        """
        Channel names hold agents' names: in production they take a token.
        """
        if not self._hub.rules.production:
            return True
        scheme, _, token = header(request, "Authorization").partition(" ")
        try:
            return scheme.lower() == "bearer" and bool(self._hub.verify(token.strip()))
        except ProtocolError:
            return False


class Probe(Page):
    """
    Answers whether all is well, for whoever starts and stops services: 200, or 503 and why not.

    @param fault: what is wrong; empty where nothing is.
    """

    def __init__(self, wall_ms: Callable[[], int], fault: Callable[[], str]) -> None:
        super().__init__(wall_ms)
        self._fault = fault

    def render(self, request: Request) -> bytes:
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader("Allow", "GET, HEAD")
            return self.fail(request, HTTPStatus.METHOD_NOT_ALLOWED, "Use GET")
        fault = self._fault()
        if fault:
            return self.fail(request, HTTPStatus.SERVICE_UNAVAILABLE, fault)
        return self.answer(request, {"status": "ok", "timestamp": self.wall_ms()})


class _WebSocketPath(Page):
    """
    Where a WebSocket may be opened, visited without asking for one.
    """

    def render(self, request: Request) -> bytes:
        if request.method == b"OPTIONS":
            # what HAProxy asks when it is told no more than to check (option httpchk)
            request.setHeader("Allow", "GET, HEAD, OPTIONS")
            request.setHeader("Content-Length", "0")
            return b""
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader("Allow", "GET, HEAD, OPTIONS")
            return self.fail(request, HTTPStatus.METHOD_NOT_ALLOWED, "Use GET")
        request.setHeader("Vary", "Accept")
        if _prefers_html(header(request, "Accept")):
            return redirect(request, "live")
        request.setHeader("Upgrade", "websocket")
        return self.fail(
            request,
            HTTPStatus.UPGRADE_REQUIRED,
            "This is a WebSocket: connect with ws:// and not http://",
        )


class _Root(_WebSocketPath):
    def getChild(self, path: bytes, request: Request) -> IResource:
        if path == b"" and not request.postpath:
            return self
        return _NotFound(self.wall_ms)


@implementer(IHalfCloseableProtocol)
class _Channel(StrictChannel):
    """
    Answers one request a reactor turn, and none while the answers before it wait to be read.  Twisted's own answers at
    once all that came in one read: thousands, from one that pipelines, and keeps the answers if that one does not read.

    @ivar has_begun: the port holds the beginning of the next request.
    """

    transport: Any
    #: set by the site
    site: QuietSite
    has_begun = False
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
        True between two requests, all of which have been answered.
        """
        return bool(self.persistent) and not (self.requests or self._buffer or self._early or self._full)

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
        Do nothing: the time for a request is for all of it, and does not begin again with each byte.
        """

    def timeoutConnection(self) -> None:
        if self.requests or self.has_begun:
            self.site.counts.late_requests += 1
        super().timeoutConnection()

    def requestDone(self, request: Request) -> None:
        behind = self.clearLineBuffer()
        if not (behind or any(self._dataBuffer) or self._full):
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
        # a request that is not whole by now never will be
        answering = self._answered is not None or self._put_off or self._handlingRequest
        if self._asked_all and not answering:
            self.loseConnection()

    def pauseProducing(self) -> None:
        self._full = True
        super().pauseProducing()
        # while a request is being answered Twisted's own reads on, and keeps what it reads
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._full = False
        super().resumeProducing()
        self.callLater(0, self._go_on)

    def readConnectionLost(self) -> None:
        """
        The client has asked for all that it wants, and may still read the answers.
        """
        self._asked_all = True
        self._end_if_done()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        self._answered = None
        super().connectionLost(reason)


class QuietSite(Site):
    """
    Keeps no access log: a query may hold a token.

    @ivar turns: spreads the requests over the reactor's turns.
    @ivar counts: receives the requests that were not complete in time.
    """

    noisy = False
    protocol = _Channel  # type: ignore[assignment]

    def __init__(self, root: IResource, reactor: IReactorTime, timeout: float, counts: HttpCounts) -> None:
        super().__init__(root, requestFactory=StrictRequest, timeout=timeout, reactor=reactor)
        self.turns = Turns(reactor, REQUESTS_A_TURN)
        self.counts = counts

    def log(self, request: http.Request) -> None:
        pass


def make_site(
    wall_ms: Callable[[], int],
    resources: Mapping[bytes, IResource],
    reactor: IReactorTime,
    timeout: float,
    websockets: Collection[str],
    counts: HttpCounts,
) -> QuietSite:
    """
    The HTTP side of the port.

    @param resources: by path.
    @param timeout: seconds that a connection has for its next request, with its body, after the last response.
    @param websockets: the paths where the port opens WebSockets.
    @param counts: receives the requests that were not complete in time.
    """
    root: Page = _Root(wall_ms) if "/" in websockets else _NotFound(wall_ms)
    if "/ws" in websockets:
        root.putChild(b"ws", _WebSocketPath(wall_ms))
    for path, resource in resources.items():
        root.putChild(path, resource)
    return QuietSite(root, reactor, timeout, counts)


def _prefers_html(accept: str) -> bool:
    """
    Does an C{Accept} header rank C{text/html} above JSON, and name it (RFC 9110, section 12.5.1)?
    """
    ranks = {"text/html": 0.0, "application/json": 0.0}
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        if kind not in ranks:
            continue
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        ranks[kind] = quality
    return ranks["text/html"] > ranks["application/json"]
