"""
Whatever a request holds, the response is JSON or a page, and no failure is logged.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.registry import CollectorRegistry
from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import LogEvent, globalLogPublisher
from twisted.web.server import Request

from dcm_ws.core.counts import LimitCounts
from dcm_ws.http.assets import pages
from dcm_ws.http.metrics import MetricsPage
from dcm_ws.http.resources import Page
from dcm_ws.http.site import make_site
from dcm_ws.protocol.tokens import sign
from tests.fakes import SECRET, WALL_MS, make_core, make_page, make_report

PATHS = (b"/", b"/ws", b"/health", b"/stats", b"/metrics", b"/live", b"/live/", b"/dcm-ws.js", b"/broken", b"/nothing")
JSON = b"application/json"
END = b"\r\n\r\n"
PLAIN = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
FORM = b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data"


class Broken(Page):
    """
    A page that raises.
    """

    def render(self, request: Request) -> bytes:
        raise RuntimeError("a fault of ours")


class Site:
    """
    The HTTP side of a service in production, with all that it serves.

    @ivar events: what is logged.
    """

    def __init__(self) -> None:
        self.reactor = MemoryReactorClock()
        core = make_core(self.reactor, production=True)
        counts = make_page(core, make_report(core).stats)
        self.site = make_site(
            core.world.wall_ms,
            {
                b"health": counts,
                b"stats": counts,
                b"metrics": MetricsPage(core.world.wall_ms, CollectorRegistry(), self.reactor.seconds),
                b"broken": Broken(core.world.wall_ms),
                **dict(pages(core.world.wall_ms)),
            },
            self.reactor,
            30.0,
            ("/", "/ws"),
            LimitCounts(),
        )
        self.events: list[LogEvent] = []

    def ask(self, *pieces: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
        """
        Send pieces on a new connection, and return the status, headers and body of each response.
        """
        self.site.doStart()
        protocol = self.site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 5))
        assert protocol is not None
        transport = StringTransport()
        globalLogPublisher.addObserver(self.events.append)  # type: ignore[arg-type]
        try:
            protocol.makeConnection(transport)
            for piece in pieces:
                protocol.dataReceived(piece)
            for _ in range(50):
                self.reactor.advance(0)
        finally:
            globalLogPublisher.removeObserver(self.events.append)  # type: ignore[arg-type]
            self.site.doStop()
        return list(_answers(transport.value()))


def _answers(data: bytes) -> Any:
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, data
        line, *lines = head.split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(b":") for one in lines)}
        status = int(line.split()[1])
        size = int(headers.get(b"content-length", b"0"))
        # the answer to HEAD has no body
        body = b"" if data.startswith(b"HTTP/1.1 ") else data[:size]
        data = data[len(body) :]
        yield status, headers, body


@pytest.fixture(scope="module")
def shared() -> Site:
    return Site()


@pytest.fixture
def site(shared: Site) -> Site:
    shared.events.clear()
    return shared


def check(answer: tuple[int, dict[bytes, bytes], bytes]) -> int:
    """
    The status of a response, which must be of the expected type.
    """
    status, headers, body = answer
    assert status < 500
    if status >= 400 and body:
        assert headers[b"content-type"] == JSON
        assert json.loads(body).keys() == {"error", "code", "timestamp"}
    assert b"<html>" not in body
    return status


@pytest.mark.parametrize("path", ["/", "/ws", "/health", "/stats", "/metrics", "/live", "/dcm-ws.js"])
@pytest.mark.parametrize("name", ["Accept", "If-None-Match", "Authorization", "Cookie", "Range", "Content-Type"])
def test_bytes_that_are_not_text(site: Site, path: str, name: str) -> None:
    """
    A header that is not UTF-8 is ignored, or the request is refused in JSON; neither logs a failure.
    """
    for value in (b"\xff\xfe", b"Bearer \xff", b"text/html;q=\xe9", b'W/"\x80"', b"=\x80; \x00"[:5]):
        line = b"%b: %b\r\n" % (name.encode(), value)
        (answer,) = site.ask(b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (path.encode(), line))
        assert check(answer) in (200, 302, 400, 426)
    assert site.events == []


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /stats HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n\r\n", 400),
        (b"GET /live HTTP/1.1\r\nHost: x\r\nIf-None-Match: \xff\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nAccept: \xff\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: \xff\r\n\r\n", 400),
        # methods and targets
        (b"OPTIONS / HTTP/1.0\r\n\r\n", 200),
        (b"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"OPTIONS /ws HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /%ff%00%zz%c3 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /\xa0 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /health?\x80=%ff&&=&% HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET ///live HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET http://x/health?a HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET HTTP://X HTTP/1.1\r\nHost: x\r\n\r\n", 426),
        (b"GET http://y/health HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        # hosts
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /health HTTP/1.0\r\n\r\n", 200),
        # what is not HTTP
        (b"nonsense\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 600 + b"\r\n", 400),
        # bodies
        (b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + END, 400),
        (FORM + b"; boundary=\xff\r\nContent-Length: 0" + END, 405),
        (FORM + b"\r\nContent-Length: 2" + END + b"xx", 405),
    ],
)  # fmt: skip
def test_odd_requests(site: Site, request_: bytes, status: int) -> None:
    """
    Unusual requests get the fitting status, and nothing is logged.
    """
    (answer,) = site.ask(request_)
    assert check(answer) == status
    assert site.events == []


@pytest.mark.parametrize("kind", [b"application/openmetrics-text", b"text/plain"])
@pytest.mark.parametrize(
    "version", [b"1.0.0", b"1.x", b"x", b'"1.0.0"', b"-1", b"", b"9" * 5000, b"1.0, text/plain; version=y"]
)
def test_versions_of_metrics(site: Site, kind: bytes, version: bytes) -> None:
    """
    The version of a format in an Accept header does not matter.
    """
    accept = b"Accept: %b; version=%b" % (kind, version)
    (answer,) = site.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + accept + END)
    assert check(answer) == 200
    assert site.events == []


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 4\r\nContent-Length: 40\r\n",
        b"Transfer-Encoding: identity\r\nContent-Length: 40\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"X: y\r\n Transfer-Encoding: chunked\r\n",
        b"X: y\nTransfer-Encoding: chunked\r\n",
        b"Bad\r\nContent-Length: 40\r\n",
    ],
)
def test_nothing_is_smuggled(site: Site, head: bytes) -> None:
    """
    If a proxy may see the end of a request elsewhere, there is one response, 400, and the connection is closed.
    """
    (answer,) = site.ask(b"POST / HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n0\r\n\r\n" + PLAIN)
    assert check(answer) == 400
    assert answer[1][b"connection"] == b"close"
    assert site.events == []


@pytest.mark.parametrize("bad", [b"nonsense", b"GET /health HTTP/1.1", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b"])
@pytest.mark.parametrize("more", [b"\r\n", b"x\r\n\r\n", PLAIN, b"\r\n" + PLAIN])
def test_nothing_is_read_after_a_refusal(site: Site, bad: bytes, more: bytes) -> None:
    """
    What arrives after a 400, as happens over TLS, is ignored.
    """
    (answer,) = site.ask(bad + b"\r\n\r\n", more, more)
    assert check(answer) == 400
    assert site.events == []


def test_second_request_is_checked_too(site: Site) -> None:
    """
    Each request of a connection needs a Host header.
    """
    answers = site.ask(
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n\r\nGET /health HTTP/1.1\r\n\r\nGET /health HTTP/1.0\r\n\r\n"
    )
    assert [check(answer) for answer in answers] == [200, 400]


def test_fault_of_ours(site: Site, no_logged_failures: list[LogEvent]) -> None:
    """
    A page that raises is answered with 500 in JSON, and logged.
    """
    ((status, headers, body),) = site.ask(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, headers[b"content-type"], json.loads(body)["code"]) == (500, JSON, "INTERNAL_SERVER_ERROR")
    assert b"fault of ours" not in body
    assert len(site.events) == 1
    no_logged_failures.clear()


@pytest.mark.parametrize("path", ["/", "/health", "/live", "/metrics", "/nothing"])
def test_head_is_not_logged(site: Site, path: str) -> None:
    """
    A HEAD is answered without a body and without a line in the log.
    """
    ((_, headers, body),) = site.ask(b"HEAD %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
    assert int(headers[b"content-length"]) > 0
    assert body == b""
    assert site.events == []


def test_good_token_among_odd_headers(site: Site) -> None:
    """
    Headers that are not read may hold anything.
    """
    token = sign(SECRET, "lara", None, WALL_MS).encode()
    request = b"GET /stats HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nCookie: \xff\r\nAccept: \xfe\r\n\r\n"
    ((status, _, body),) = site.ask(request % token)
    assert status == 200
    assert "channelStats" in json.loads(body)


names = st.sampled_from(
    b"Host Accept Authorization If-None-Match Cookie Connection Expect Range Upgrade Content-Length Content-Type"
    b" Transfer-Encoding If-Modified-Since X-Forwarded-For Origin".split()
) | st.binary(min_size=1, max_size=8)
values = st.binary(max_size=30) | st.sampled_from([b"chunked", b"5", b"100-continue", b"close", b"multipart/form-data"])
targets = st.sampled_from([path for path in PATHS if path != b"/broken"]) | st.binary(max_size=30) | st.just(b"*")
methods = st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS", b"PUT", b"TRACE"]) | st.binary(max_size=8)


@given(
    method=methods,
    target=targets,
    query=st.binary(max_size=10),
    version=st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/3", b""]),
    headers=st.lists(st.tuples(names, values), max_size=4),
    host=st.booleans(),
    more=st.binary(max_size=40),
)
def test_any_request(
    shared: Site,
    method: bytes,
    target: bytes,
    query: bytes,
    version: bytes,
    headers: list[tuple[bytes, bytes]],
    host: bool,
    more: bytes,
) -> None:
    """
    Random bytes in the target, in any header and after the head give JSON or a page, and nothing in the log.
    """
    shared.events.clear()
    lines = [b"%b: %b" % pair for pair in headers] + [b"Host: x"] * host
    request = b"\r\n".join((b"%b %b?%b %b" % (method, target, query, version), *lines, b"", more))
    for answer in shared.ask(request):
        check(answer)
    assert shared.events == []
