"""
What the calls of C{/v1} have in common, without a port.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET, Request

from dcm_ws.app.modes import writing_origin_patterns
from dcm_ws.app.settings import Settings
from dcm_ws.core.session import Session, State
from dcm_ws.http.admission import RefusedError
from dcm_ws.http.api import ApiPage
from dcm_ws.http.origins import AllowedOrigins
from dcm_ws.http.request_headers import header
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.tokens import sign
from tests.fakes import SECRET, WALL_MS, make_gate
from tests.http.service import Service

SAFE: dict[str, Any] = {"secret": "x" * 32, "database": "postgresql://"}
"""
What production needs.
"""

TOKEN = sign(SECRET, "one", None, WALL_MS)


class Call(ApiPage):
    """
    A call that says who calls, or fails as the query asks.

    @ivar sessions: of all its callers.
    @ivar later: fires with the body of the response, if the query asks for that.
    """

    allowed = ("GET", "HEAD", "POST", "OPTIONS")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sessions: list[Session] = []
        self.later: Deferred[bytes] = Deferred()

    def answer_call(self, request: Request, session: Session) -> bytes | int | Deferred[bytes]:
        self.sessions.append(session)
        way = request.args.get(b"way", [b""])[0].decode()
        match way:
            case "later":
                return self.later
            case "itself":
                request.write(b"by itself")
                request.finish()
                return NOT_DONE_YET
            case "gone":
                raise RefusedError(HTTPStatus.GONE, "GONE", "There was something")
            case "broken":
                raise RuntimeError
            case "utf-8":
                header(request, "X-Text")
            case "unchanged":
                request.setResponseCode(HTTPStatus.NOT_MODIFIED)
                return b""
            case "limited":
                error = ProtocolError(ErrorCode.RATE_LIMITED, "Slower")
                error.retry_after_ms = 1500
                raise error
            case _ if way:
                raise ProtocolError(ErrorCode(way), "Because")
        return self.answer(request, {"agent": session.agent, "address": session.origin.address})


class Api(Service):
    """
    A service with such a call.
    """

    def __init__(self, writing: AllowedOrigins | None = None, **rules: Any) -> None:
        super().__init__(**rules)
        gate = make_gate(self.core, writing=writing)
        self.call = Call(self.core.world.wall_ms, gate)
        self.put(b"v1/things/call", self.call)

    def error(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
        """
        The status, the code in the body, and the headers of an error.
        """
        status, found, body = self.get(path, method, **headers)
        return status, json.loads(body)["code"], found


def test_who_calls() -> None:
    """
    A call knows its caller: by the token in the header or in the query, or in development without one.
    """
    api = Api()
    path = "/v1/things/call"
    assert api.json(path)["agent"] is None
    assert api.json(path, Authorization=f"Bearer {TOKEN}")["agent"] == "one"
    assert api.json(f"{path}?token={TOKEN}")["agent"] == "one"
    assert api.json(f"{path}?agent_id=two")["agent"] is None
    assert api.call.sessions[-1].origin.agent_id == "two"
    assert all(session.state is State.CLOSED for session in api.call.sessions)


def test_other_paths() -> None:
    """
    There is nothing above, next to and below a call.
    """
    api = Api()
    for path in ("/v1", "/v1/", "/v1/things", "/v1/things/other", "/v1/things/call/below"):
        assert api.error(path)[:2] == (404, "NOT_FOUND")


def test_methods() -> None:
    """
    HEAD is GET without the body; a method that the call does not have is refused.
    """
    api = Api()
    _, headers, body = api.get("/v1/things/call")
    status, head, nothing = api.get("/v1/things/call", "HEAD")
    assert (status, nothing, head["Content-Length"]) == (200, b"", str(len(body)))
    assert headers["Content-Type"] == "application/json"
    status, code, headers = api.error("/v1/things/call", "DELETE")
    assert (status, code, headers["Allow"]) == (405, "METHOD_NOT_ALLOWED", "GET, HEAD, POST, OPTIONS")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("NOT_AUTHORIZED", 403),
        ("TOKEN_REQUIRED", 401),
        ("TOKEN_EXPIRED", 401),
        ("INVALID_CHANNEL", 400),
        ("TOO_MANY_SUBSCRIPTIONS", 429),
        ("NOT_AVAILABLE", 503),
    ],
)
def test_errors_of_the_protocol(code: str, status: int) -> None:
    """
    Each error of the protocol has a status, and is counted.
    """
    api = Api()
    assert api.error(f"/v1/things/call?way={code}")[:2] == (status, code)
    assert api.core.counts.refusals[ErrorCode(code)] == 1


def test_when_to_try_again() -> None:
    """
    A caller that is too fast learns when to try again, and so does one that comes at a bad time.
    """
    api = Api()
    status, headers, body = api.get("/v1/things/call?way=limited")
    assert (status, headers["Retry-After"], json.loads(body)["retry_after_ms"]) == (429, "2", 1500)
    assert api.error("/v1/things/call?way=NOT_AVAILABLE")[2]["Retry-After"] == "1"


def test_other_answers() -> None:
    """
    A call may answer later, by itself, without a body, or with an error that the protocol does not have.
    """
    api = Api()
    assert api.error("/v1/things/call?way=gone")[:2] == (410, "GONE")
    assert api.get("/v1/things/call?way=itself")[2] == b"by itself"
    status, headers, body = api.get("/v1/things/call?way=unchanged")
    assert (status, body, "Content-Length" in headers) == (304, b"", False)
    api.call.later.callback(b"later")
    assert api.get("/v1/things/call?way=later")[2] == b"later"


def test_tokens_that_are_refused() -> None:
    """
    Without a valid token, production answers 401 and says how to authenticate.
    """
    api = Api(production=True)
    status, code, headers = api.error("/v1/things/call")
    assert (status, code, headers["WWW-Authenticate"]) == (401, "TOKEN_REQUIRED", "Bearer")
    status, code, headers = api.error("/v1/things/call?token=x")
    assert (status, code, headers["WWW-Authenticate"]) == (401, "TOKEN_INVALID", 'Bearer error="invalid_token"')
    assert api.error(f"/v1/things/call?token={'x' * 5000}")[:2] == (400, "INVALID_MESSAGE")
    assert api.error("/v1/things/call?agent_id=%00")[:2] == (400, "INVALID_MESSAGE")
    assert not api.call.sessions


def test_rate_limit() -> None:
    """
    A request is charged before it is answered.
    """
    api = Api(rate_limit=1.0, rate_burst=1.0)
    path = f"/v1/things/call?token={TOKEN}"
    assert api.get(path)[0] == 200
    assert api.error(path)[:2] == (429, "RATE_LIMITED")
    assert len(api.call.sessions) == 1


def test_pages_of_other_origins() -> None:
    """
    A page that may connect may call, and read the answer; another one may not.
    """
    api = Api(writing=AllowedOrigins(("https://own.example",)))
    status, headers, _ = api.get("/v1/things/call", Origin="https://other.example")
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, "https://other.example")
    assert headers["Vary"] == "Origin"
    assert "Stream-Next-Offset" in headers["Access-Control-Expose-Headers"]
    status, code, headers = api.error("/v1/things/call", "POST", Origin="https://other.example")
    assert (status, code, "Access-Control-Allow-Origin" in headers) == (403, "ORIGIN_NOT_ALLOWED", False)
    assert api.get("/v1/things/call", "POST", Origin="https://own.example")[0] == 200
    assert "Access-Control-Allow-Origin" not in api.get("/v1/things/call")[1]
    assert api.core.counts.limits.allowed_origin.value == 1


def test_preflight() -> None:
    """
    A page of another origin may ask what it may send; it needs no token for that.
    """
    api = Api(production=True)
    status, headers, body = api.get("/v1/things/call", "OPTIONS", Origin="https://other.example")
    assert (status, body) == (204, b"")
    assert headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST, OPTIONS"
    assert "Authorization" in headers["Access-Control-Allow-Headers"]
    status, headers, _ = api.get("/v1/things/call", "OPTIONS")
    assert (status, headers["Allow"]) == (204, "GET, HEAD, POST, OPTIONS")
    assert "Access-Control-Allow-Methods" not in headers


@pytest.mark.parametrize(
    ("settings", "origin", "allowed"),
    [
        ({}, "http://localhost:5173", True),
        ({}, "http://127.0.0.1", True),
        ({}, "https://app.localhost", True),
        ({}, "http://[::1]:8080", True),
        ({}, "http://service:3849", True),
        ({}, "https://evil.example", False),
        ({}, "http://localhost.evil.example", False),
        ({}, "null", False),
        ({"same_host": False}, "http://service:3849", False),
        ({"allowed_origins": ("https://own.example",)}, "https://own.example", True),
        ({"allowed_origins": ("https://own.example",)}, "http://localhost:5173", False),
        ({"production": True}, "http://localhost:5173", False),
        ({"production": True}, "http://service:3849", True),
    ],
)
def test_pages_that_may_write(settings: dict[str, Any], origin: str, allowed: bool) -> None:
    """
    Without a setting, only pages of the own machine and of the service's host may publish: a browser sends a simple
    POST of any page.
    """
    origins = AllowedOrigins(writing_origin_patterns(Settings(**SAFE, **settings)))
    assert origins.allows(origin, "service:3849") is allowed


def connect(api: Api) -> tuple[Any, StringTransport]:
    """
    An HTTP connection to a service.
    """
    protocol: Any = api.site.buildProtocol(None)
    transport = StringTransport()
    protocol.makeConnection(transport)
    return protocol, transport


def test_caller_that_does_not_wait() -> None:
    """
    If a caller is gone before its call is answered, its session is released and the answer goes nowhere.
    """
    api = Api()
    for outcome in (b"late", RuntimeError()):
        api.call.later = Deferred()
        protocol, transport = connect(api)
        protocol.dataReceived(b"GET /v1/things/call?way=later HTTP/1.1\r\nHost: x\r\n\r\n")
        session = api.call.sessions[-1]
        assert session.state is State.ANONYMOUS
        protocol.connectionLost(Failure(ConnectionDone()))
        assert session.state is State.CLOSED  # type: ignore[comparison-overlap]
        if isinstance(outcome, bytes):
            api.call.later.callback(outcome)
        else:
            api.call.later.errback(outcome)
        assert transport.value() == b""


def test_caller_that_is_gone_before_it_enters(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    If a caller is gone while its token is verified, which may take a while, its call is not executed.
    """
    api = Api()
    entering: Deferred[Session] = Deferred()
    monkeypatch.setattr(api.call.gate, "enter", lambda request: entering)
    protocol, transport = connect(api)
    protocol.dataReceived(b"GET /v1/things/call HTTP/1.1\r\nHost: x\r\n\r\n")
    protocol.connectionLost(Failure(ConnectionDone()))
    session = api.core.callers.admit(None, None, "")
    entering.callback(session)
    assert session.state is State.CLOSED
    assert not api.call.sessions
    assert transport.value() == b""


def test_header_that_is_no_text() -> None:
    """
    What is wrong with a request as HTTP is answered with 400.
    """
    api = Api()
    protocol, transport = connect(api)
    protocol.dataReceived(b"GET /v1/things/call?way=utf-8 HTTP/1.1\r\nHost: x\r\nX-Text: \xff\r\n\r\n")
    assert transport.value().startswith(b"HTTP/1.1 400 ")


def test_call_that_fails(no_logged_failures: list[LogEvent]) -> None:
    """
    A bug is logged, and answered with 500.
    """
    protocol, transport = connect(Api())
    protocol.dataReceived(b"GET /v1/things/call?way=broken HTTP/1.1\r\nHost: x\r\n\r\n")
    assert transport.value().startswith(b"HTTP/1.1 500 ")
    assert [event["log_format"] for event in no_logged_failures] == ["a page failed"]
    no_logged_failures.clear()
