"""
What the calls of C{/v1} have in common: who calls, from which web page, and how errors are answered (docs/protocol.md,
section 12).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from math import ceil

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES
from twisted.web.server import NOT_DONE_YET, Request

from dcm_ws.core.callers import Callers
from dcm_ws.core.identity import Identity
from dcm_ws.core.session import Session
from dcm_ws.http.addresses import UNIX
from dcm_ws.http.admission import Admission, RefusedError, Visitor
from dcm_ws.http.bodies import Body, BodyState
from dcm_ws.http.refusals import TOO_LARGE, error_body
from dcm_ws.http.resources import Page
from dcm_ws.http.shares import address_of, loopback_port
from dcm_ws.protocol.errors import ErrorCode, ProtocolError

_STATUS = {
    ErrorCode.NOT_AUTHORIZED: HTTPStatus.FORBIDDEN,
    ErrorCode.TOKEN_REQUIRED: HTTPStatus.UNAUTHORIZED,
    ErrorCode.TOKEN_INVALID: HTTPStatus.UNAUTHORIZED,
    ErrorCode.TOKEN_EXPIRED: HTTPStatus.UNAUTHORIZED,
    ErrorCode.TOO_MANY_SUBSCRIPTIONS: HTTPStatus.TOO_MANY_REQUESTS,
    ErrorCode.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
    ErrorCode.NOT_AVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}
_READ = ("origin", "host", "authorization", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")
_SAFE = (b"GET", b"HEAD", b"OPTIONS")
_PREFLIGHT_SECONDS = 600

ALLOWED_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Mcp-Protocol-Version, Mcp-Session-Id"
)
"""
The headers that web pages of other origins may send.
"""

EXPOSED_HEADERS = (
    "ETag, Retry-After, WWW-Authenticate, Stream-Cursor, Stream-Next-Offset, Stream-Up-To-Date, Stream-Closed,"
    " Mcp-Session-Id"
)
"""
The headers of responses that these pages may read.
"""


class Gate:
    """
    Lets callers in.

    @param admission: knows which pages may call, and the addresses of clients behind proxies.
    """

    def __init__(self, admission: Admission, callers: Callers, identity: Identity) -> None:
        self._admission = admission
        self._identity = identity
        self.callers = callers

    def check_origin(self, request: Request) -> str:
        """
        Return the origin of the web page that a request is made by; empty if it is made by none.

        @raise RefusedError: the page may not make it.
        """
        headers = _headers(request)
        if "origin" not in headers:
            return ""
        port = loopback_port(request.getHost())
        self._admission.check_origin(headers, _peer(request), port, writes=request.method not in _SAFE)
        return headers["origin"]

    def address(self, request: Request) -> str:
        """
        The address of the client.
        """
        return self._admission.visitor(request.uri.decode("iso-8859-1"), _headers(request), _peer(request)).address

    def enter(self, request: Request) -> Deferred[Session]:
        """
        Return the session of a caller.  This is the only place where the token of a call becomes a session.

        It fails with L{RefusedError} if something is malformed, or with L{ProtocolError} if the token is not valid.
        """
        visitor = self._visitor(request)
        return self._key_known(visitor).addCallback(lambda _: self._admit(visitor))

    def has_token(self, request: Request) -> Deferred[bool]:
        """
        Does a request have a valid token?
        """
        try:
            visitor = self._visitor(request)
        except RefusedError:
            return succeed(False)
        token = visitor.token
        return self._key_known(visitor).addCallback(lambda _: token is not None and self.callers.knows(token))

    def _visitor(self, request: Request) -> Visitor:
        return self._admission.visitor(request.uri.decode("iso-8859-1"), _headers(request), _peer(request))

    def _key_known(self, visitor: Visitor) -> Deferred[None]:
        """
        Fires when the token of a request can be verified: its key may have to be fetched first.
        """
        known: Deferred[None] = Deferred()
        ready = partial(known.callback, None)
        if visitor.token is None or not self._identity.awaits_key(visitor.token, ready, visitor.limit_key):
            ready()
        return known

    def knows(self, request: Request, target: bytes) -> bool:
        """
        Return whether the token of a request is valid, before its page is asked.

        @param target: its path with the query.
        """
        try:
            visitor = self._admission.visitor(target.decode("iso-8859-1"), _headers(request), UNIX)
        except RefusedError:
            return False
        return visitor.token is not None and self.callers.knows(visitor.token)

    def _admit(self, visitor: Visitor) -> Session:
        return self.callers.admit(visitor.token, visitor.agent_id, visitor.limit_key)


class ApiPage(Page):
    """
    A call of C{/v1}, which answers each of its methods with L{answer_call}.

    It is called with a session, and charged to it; errors that are raised, or that its Deferred fails with, are
    answered in JSON.
    """

    allowed: tuple[str, ...] = (*Page.allowed, "OPTIONS")

    def __init__(self, wall_ms: Callable[[], int], gate: Gate) -> None:
        super().__init__(wall_ms)
        self.gate = gate

    def answer_call(self, request: Request, session: Session) -> bytes | int | Deferred[bytes] | Deferred[bytes | int]:
        """
        Answer a call.

        @param session: the caller; released when the response is finished, or the caller is gone.
        @return: the body of the response; or C{NOT_DONE_YET}, if the page writes and finishes the response by itself.
        @raise ProtocolError: and L{RefusedError}: why not.
        """
        raise NotImplementedError

    def release(self, session: Session) -> None:
        """
        The response is finished, or the caller is gone.
        """
        self.gate.callers.release(session)

    def take_body(self, request: Request) -> bytes:
        """
        Return the body of a request, once; empty without one.

        @raise RefusedError: it was too large.
        @raise ProtocolError: C{NOT_AVAILABLE}: there was no room for it.
        """
        body = self.body(request)
        if body is None:
            return b""
        match body.state:
            case BodyState.TOO_LARGE:
                raise too_large(f"The body is longer than {body.most} bytes")
            case BodyState.CROWDED_OUT:
                raise ProtocolError(ErrorCode.NOT_AVAILABLE, "There was no room for the body; try again")
            case _:
                return body.take()

    @staticmethod
    def body(request: Request) -> Body | None:
        """
        The body of a request; None without one.
        """
        body: Body | None = getattr(request, "body", None)
        return body

    def render(self, request: Request) -> bytes | int:
        request.setHeader("Vary", "Origin")
        try:
            origin = self.gate.check_origin(request)
        except RefusedError as error:
            return self._refuse(request, error)
        if origin:
            request.setHeader("Access-Control-Allow-Origin", origin)
            request.setHeader("Access-Control-Expose-Headers", EXPOSED_HEADERS)
        method = request.method.decode("iso-8859-1")
        if method == "OPTIONS":
            return self.options(request)
        if method not in self.methods(request):
            return self.refuse_method(request)
        _Call(self, request).begin()
        return NOT_DONE_YET

    def options(self, request: Request) -> bytes:
        request.setResponseCode(HTTPStatus.NO_CONTENT)
        allowed = ", ".join(self.methods(request))
        request.setHeader("Allow", allowed)
        if request.responseHeaders.hasHeader("Access-Control-Allow-Origin"):
            request.setHeader("Access-Control-Allow-Methods", allowed)
            request.setHeader("Access-Control-Allow-Headers", ALLOWED_HEADERS)
            request.setHeader("Access-Control-Max-Age", str(_PREFLIGHT_SECONDS))
        return b""

    def refuse(self, request: Request, error: ProtocolError | RefusedError) -> bytes:
        """
        Answer with an error.
        """
        if isinstance(error, RefusedError):
            return self._refuse(request, error)
        self.gate.callers.refused(error)
        status = _STATUS.get(error.code, HTTPStatus.BAD_REQUEST)
        extra: dict[str, object] = {}
        if error.retry_after_ms is not None:
            extra["retry_after_ms"] = error.retry_after_ms
            request.setHeader("Retry-After", str(max(1, ceil(error.retry_after_ms / 1000))))
        elif status is HTTPStatus.SERVICE_UNAVAILABLE:
            request.setHeader("Retry-After", "1")
        if status is HTTPStatus.UNAUTHORIZED:
            # RFC 6750, section 3: a request without a token gets no error code
            fault = "" if error.code is ErrorCode.TOKEN_REQUIRED else ' error="invalid_token"'
            request.setHeader("WWW-Authenticate", f"Bearer{fault}")
        return self._error(request, status, error.code, error.reason, **extra)

    def _refuse(self, request: Request, error: RefusedError) -> bytes:
        if error.status is HTTPStatus.SERVICE_UNAVAILABLE:
            request.setHeader("Retry-After", "1")
        return self._error(request, error.status, error.code, error.reason)

    def _error(self, request: Request, status: HTTPStatus, code: str, reason: str, **extra: object) -> bytes:
        request.setResponseCode(status.value, status.phrase.encode())
        return self._as_json(request, error_body(status, reason, self.wall_ms(), code, **extra))


def too_large(reason: str) -> RefusedError:
    """
    The refusal of what is too large.
    """
    return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TOO_LARGE, reason)


class _Call:
    """
    One call, until its response is finished or the caller is gone.
    """

    def __init__(self, page: ApiPage, request: Request) -> None:
        self._page = page
        self._request = request
        self._session: Session | None = None
        self._over = False

    def begin(self) -> None:
        self._request.notifyFinish().addBoth(self._finished)
        try:
            entering = self._page.gate.enter(self._request)
        except RefusedError as error:
            self._send(self._page.refuse(self._request, error))
            return
        entering.addCallback(self._entered).addErrback(self._failed)

    def _entered(self, session: Session) -> Deferred[None] | None:
        if self._over:
            # gone while its token was verified
            self._page.gate.callers.release(session)
            return None
        self._session = session
        request = self._request
        body = self._page.body(request)
        self._page.gate.callers.charge(session, 0 if body is None else body.size)
        answer = self._page.answer_call(request, session)
        if isinstance(answer, Deferred):
            return answer.addCallback(self._send)
        if isinstance(answer, bytes):
            self._send(answer)
        return None

    def _failed(self, failure: Failure) -> None:
        if self._over:
            return
        error = failure.value
        if isinstance(error, ProtocolError | RefusedError):
            self._send(self._page.refuse(self._request, error))
        else:
            self._request.processingFailed(failure)

    def _send(self, body: bytes | int) -> None:
        if isinstance(body, bytes) and not self._over:
            request = self._request
            if request.code not in NO_BODY_CODES:
                request.setHeader("Content-Length", str(len(body)))
            request.write(body)
            request.finish()

    def _finished(self, _: object) -> None:
        self._over = True
        if self._session is not None:
            self._page.release(self._session)


def _headers(request: Request) -> dict[str, str]:
    """
    The headers of a request that an admission reads, by lower-case name.
    """
    raw = request.requestHeaders.getRawHeaders
    found = {name: raw(name.encode()) for name in _READ}
    return {name: b", ".join(values).decode("iso-8859-1") for name, values in found.items() if values}


def _peer(request: Request) -> str:
    return address_of(request.getClientAddress())
