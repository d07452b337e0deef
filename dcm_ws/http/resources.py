"""
The pages of the HTTP side: what they have in common, probes, the WebSocket paths, and what is at no path.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from http import HTTPStatus

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from dcm_ws.http.refusals import error_body
from dcm_ws.http.request_headers import accepted_types, header
from dcm_ws.protocol.replies import to_json


class Page(Resource):
    """
    A resource without any below it.  It answers GET and HEAD with L{get}, OPTIONS with L{options} if that is allowed,
    and every other method with 405.

    @cvar allowed: the methods that it answers.
    """

    allowed: tuple[str, ...] = ("GET", "HEAD")

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        super().__init__()
        self.wall_ms = wall_ms

    def getChild(self, path: bytes, request: Request) -> IResource:
        return _NotFound(self.wall_ms)

    def render(self, request: Request) -> bytes | int:
        if request.method in (b"GET", b"HEAD"):
            body = self.get(request)
            return body if isinstance(body, bytes) else _send_later(request, body)
        if request.method == b"OPTIONS" and "OPTIONS" in self.allowed:
            return self.options(request)
        return self.refuse_method(request)

    def methods(self, request: Request) -> tuple[str, ...]:
        """
        The methods that the page answers, of those that are allowed, at the path of a request.
        """
        return self.allowed

    def refuse_method(self, request: Request) -> bytes:
        """
        Answer a method that the page does not have.
        """
        allowed = self.methods(request)
        request.setHeader("Allow", ", ".join(allowed))
        *others, last = allowed
        return self.fail(request, HTTPStatus.METHOD_NOT_ALLOWED, f"Use {', '.join(others)} or {last}")

    def get(self, request: Request) -> bytes | Deferred[bytes]:
        """
        The body of the response to GET; Twisted leaves it out for HEAD.
        """
        raise NotImplementedError

    def options(self, request: Request) -> bytes:
        """
        The body of the response to OPTIONS.
        """
        raise NotImplementedError

    def fail(self, request: Request, status: HTTPStatus, reason: str) -> bytes:
        """
        Answer with an error.
        """
        request.setResponseCode(status.value, status.phrase.encode())
        return self._as_json(request, error_body(status, reason, self.wall_ms()))

    def answer(self, request: Request, value: object) -> bytes:
        """
        Answer with C{value} as JSON.
        """
        return self._as_json(request, to_json(value))

    def _as_json(self, request: Request, body: bytes) -> bytes:
        request.setHeader("Content-Type", "application/json")
        forbid_caching(request)
        return body


class _NotFound(Page):
    """
    A path with nothing at it.
    """

    def render(self, request: Request) -> bytes | int:
        return self.fail(request, HTTPStatus.NOT_FOUND, "There is nothing here; try /health")


class Probe(Page):
    """
    Answers 200, or 503 and the reason, for programs that start services and send them clients.

    @param fault: what is wrong; empty if nothing is.
    """

    def __init__(self, wall_ms: Callable[[], int], fault: Callable[[], str | Deferred[str]]) -> None:
        super().__init__(wall_ms)
        self._fault = fault

    def get(self, request: Request) -> bytes | Deferred[bytes]:
        fault = self._fault()
        if isinstance(fault, Deferred):
            return fault.addCallback(partial(self._answer, request))
        return self._answer(request, fault)

    def _answer(self, request: Request, fault: str) -> bytes:
        if fault:
            return self.fail(request, HTTPStatus.SERVICE_UNAVAILABLE, fault)
        return self.answer(request, {"status": "ok", "timestamp": self.wall_ms()})


class _WebSocketPath(Page):
    """
    A path where a WebSocket may be opened, in a request that does not ask for one.
    """

    allowed = (*Page.allowed, "OPTIONS")

    def get(self, request: Request) -> bytes:
        request.setHeader("Vary", "Accept")
        types = accepted_types(header(request, "Accept"))
        if types.get("text/html", 0.0) > types.get("application/json", 0.0):
            return redirect(request, "live")
        request.setHeader("Upgrade", "websocket")
        return self.fail(
            request, HTTPStatus.UPGRADE_REQUIRED, "This is a WebSocket: connect with ws:// and not http://"
        )

    def options(self, request: Request) -> bytes:
        # the health check of HAProxy with no more than `option httpchk`
        request.setHeader("Allow", ", ".join(self.allowed))
        request.setHeader("Content-Length", "0")
        return b""


class _Root(_WebSocketPath):
    """
    The root, if it is a WebSocket path.
    """

    def getChild(self, path: bytes, request: Request) -> IResource:
        if path == b"" and not request.postpath:
            return self
        return _NotFound(self.wall_ms)


def _send_later(request: Request, body: Deferred[bytes]) -> int:
    """
    Send a body when it is there, unless the client is gone by then.
    """
    gone: list[Failure] = []
    request.notifyFinish().addErrback(gone.append)

    def send(content: bytes) -> None:
        if not gone:
            request.setHeader("Content-Length", str(len(content)))
            request.write(content)
            request.finish()

    def fail(failure: Failure) -> None:
        if not gone:
            request.processingFailed(failure)

    body.addCallback(send).addErrback(fail)
    return NOT_DONE_YET


def make_root(wall_ms: Callable[[], int], resources: Mapping[bytes, IResource], websockets: Collection[str]) -> Page:
    """
    Make the tree of resources of a port.

    @param resources: by path, without a slash in front; there is nothing at a folder that has no page of its own.
    @param websockets: the paths where the port opens WebSockets.
    """
    root: Page = _Root(wall_ms) if "/" in websockets else _NotFound(wall_ms)
    if "/ws" in websockets:
        root.putChild(b"ws", _WebSocketPath(wall_ms))
    for path, resource in resources.items():
        *folders, name = path.split(b"/")
        parent = root
        for folder in folders:
            if folder not in parent.children:
                parent.putChild(folder, _NotFound(wall_ms))
            parent = parent.children[folder]
        parent.putChild(name, resource)
    return root


def redirect(request: Request, place: str) -> bytes:
    """
    Redirect the client.

    @param place: relative to the request's path, since a proxy may serve the pages below any path.
    """
    request.setResponseCode(HTTPStatus.FOUND)
    request.setHeader("Location", place)
    request.setHeader("Content-Length", "0")
    return b""


def forbid_caching(request: Request) -> None:
    """
    Forbid caching the response, and forbid browsers to guess its content type.
    """
    request.setHeader("Cache-Control", "no-store")
    request.setHeader("X-Content-Type-Options", "nosniff")
