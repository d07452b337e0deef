"""
What HTTP answers, without a port.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urljoin

import pytest
from treq.testing import StubTreq
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from dcm_ws.core.counts import LimitCounts
from dcm_ws.core.hub import CHANNELS_SHOWN, Hub
from dcm_ws.http.assets import pages
from dcm_ws.http.site import REQUESTS_A_TURN, QuietSite, make_site
from dcm_ws.http.status import ReportPage
from dcm_ws.protocol.tokens import sign
from tests.fakes import SECRET, WALL_MS, Client, make_hub, make_report

HTTP_TIMEOUT = 30.0
ANSWER = tuple[int, dict[str, str], bytes]


class Service:
    """
    The HTTP side of a service.

    @ivar database: what it says of its database.
    """

    def __init__(self, **rules: Any) -> None:
        self.reactor = MemoryReactorClock()
        self.reactor.advance(1000)
        self.hub: Hub = make_hub(self.reactor, **rules)
        self.database: dict[str, object] = {"state": "up"}
        self.limits = LimitCounts()
        report = make_report(self.hub, database=lambda: self.database)
        self.site: QuietSite = make_site(
            self.hub.wall_ms,
            {
                b"health": ReportPage(self.hub, report.health),
                b"stats": ReportPage(self.hub, report.stats),
                **dict(pages(self.hub.wall_ms)),
            },
            self.reactor,
            HTTP_TIMEOUT,
            ("/", "/ws"),
            self.limits,
        )

    def get(self, path: str, method: str = "GET", **headers: str) -> ANSWER:
        """
        The status, the headers and the body that are answered.
        """
        treq = StubTreq(self.site.resource)
        answer: list[Any] = []
        url = f"http://localhost{path}"
        treq.request(method, url, headers=headers, allow_redirects=False).addCallback(answer.append)
        treq.flush()
        treq.content(answer[0]).addCallback(answer.append)
        treq.flush()
        response, body = answer
        found = {name.decode(): values[0].decode() for name, values in response.headers.getAllRawHeaders()}
        return response.code, found, body

    def json(self, path: str, **headers: str) -> dict[str, Any]:
        """
        The JSON object that is answered.
        """
        value: dict[str, Any] = json.loads(self.get(path, **headers)[2])
        return value


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.mark.parametrize(
    ("state", "status"),
    [("up", "healthy"), ("none", "healthy"), ("down", "degraded"), ("connecting", "degraded")],
)
def test_health_follows_the_database(service: Service, state: str, status: str) -> None:
    """
    Without its database the service is degraded, but still of use: 200.
    """
    service.database = {"state": state, "reconnects": 3}
    code, _, body = service.get("/health")
    assert code == 200
    health = json.loads(body)
    assert health["status"] == status
    assert health["database"] == {"state": state, "reconnects": 3}


@pytest.mark.parametrize("state", ["up", "down"])
def test_draining(service: Service, state: str) -> None:
    """
    A service that stops says so with 503, whatever its database does; its counts are still told.
    """
    service.database = {"state": state}
    service.hub.drain()
    code, _, body = service.get("/health")
    assert code == 503
    assert json.loads(body)["status"] == "draining"
    assert service.get("/health", "HEAD")[0] == 503
    assert service.get("/stats")[0] == 200


def test_health_times(service: Service) -> None:
    """
    uptime_s counts from the start, on a clock that nobody sets.
    """
    service.reactor.advance(61.5)
    health = service.json("/health")
    assert health["uptime_s"] == 61.5
    assert health["timestamp"] == "2024-01-23T08:54:21.500Z"
    assert (health["port"], health["version"]) == (3849, "1.2.3")


def test_many_channels() -> None:
    """
    channelStats lists so many channels at most; activeChannels counts them all.
    """
    service = Service(max_subscriptions=CHANNELS_SHOWN + 10)
    client = Client(service.hub)
    for number in range(CHANNELS_SHOWN):
        client.say(type="subscribe", channel=f"topics/{number}")
    health = service.json("/health")
    assert len(health["channelStats"]) == CHANNELS_SHOWN
    assert health["activeChannels"] == CHANNELS_SHOWN + 1


@pytest.mark.parametrize(
    ("authorization", "shown"),
    [
        (None, False),
        ("", False),
        ("Bearer", False),
        ("Bearer ", False),
        ("Bearer x", False),
        ("Bearer {expired}", False),
        ("Basic {good}", False),
        ("{good}", False),
        ("Bearer {good}", True),
        ("bearer  {good} ", True),
    ],
)
def test_channels_in_production(authorization: str | None, shown: bool) -> None:
    """
    In production the channels' names take a good Bearer token.
    """
    service = Service(production=True)
    tokens = {
        "good": sign(SECRET, "lara", None, WALL_MS),
        "expired": sign(SECRET, "lara", None, WALL_MS - 3_600_001),
    }
    headers = {} if authorization is None else {"Authorization": authorization.format(**tokens)}
    for path in ("/health", "/stats"):
        assert ("channelStats" in service.json(path, **headers)) is shown


@pytest.mark.parametrize(
    ("accept", "redirected"),
    [
        ("text/html", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("TEXT/HTML ; q=0.5", True),
        ("application/json;q=0.4, text/html;q=0.5", True),
        ("application/json;q=x, text/html", True),
        ("text/html;level=1;q=0.7", True),
        ("", False),
        ("*/*", False),
        ("text/*", False),
        ("application/json", False),
        ("application/json, text/html", False),
        ("text/html;q=0", False),
        ("text/html;q=nonsense", False),
        ("text/html;q", False),
        ("text/html;q=0.5, application/json;q=0.6", False),
        (";;;,,,q=", False),
    ],
)
def test_person_or_program(service: Service, accept: str, redirected: bool) -> None:
    """
    Who prefers HTML to JSON, and says so, is sent to the live page; all others are told to use WebSocket.
    """
    for path in ("/", "/ws", "/ws?agent_id=a"):
        status, headers, _ = service.get(path, Accept=accept)
        assert status == (302 if redirected else 426)
        assert headers["Vary"] == "Accept"
        assert headers.get("Location") == ("live" if redirected else None)


@pytest.mark.parametrize("path", ["/", "/ws", "/health", "/stats", "/nothing"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_answer_is_json(service: Service, path: str, method: str) -> None:
    """
    Every answer is JSON, is not to be cached, and not to be taken for anything else.
    """
    _, headers, body = service.get(path, method)
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert isinstance(json.loads(body), dict)


def connect(service: Service) -> tuple[Any, StringTransport]:
    """
    An HTTP connection.
    """
    protocol = service.site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 5))
    transport = StringTransport()
    protocol.makeConnection(transport)
    return protocol, transport


def test_idle_connection(service: Service) -> None:
    """
    A kept-alive connection on which nothing comes any more is closed.
    """
    service.site.doStart()
    protocol, transport = connect(service)
    protocol.dataReceived(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert transport.value().startswith(b"HTTP/1.1 200 OK\r\n")
    service.reactor.advance(HTTP_TIMEOUT - 1)
    assert not transport.disconnecting
    service.reactor.advance(1)
    assert transport.disconnecting
    service.site.doStop()


@pytest.mark.parametrize("request_", [b"GET /health HTTP/1.0\r\n\r\n", b"nonsense\r\n\r\n"])
@pytest.mark.parametrize("says_goodbye", [False, True])
def test_end_that_takes_too_long(service: Service, request_: bytes, says_goodbye: bool) -> None:
    """
    A connection that has been answered for the last time ends, also if the far end does not agree, as TLS asks it to;
    what it still says is not read.
    """
    service.site.doStart()
    protocol, transport = connect(service)
    protocol.dataReceived(request_)
    protocol.dataReceived(b"x" * 100_000)
    assert transport.value().count(b"HTTP/1.") == 1
    assert transport.disconnecting
    assert transport.producerState == "producing"
    if says_goodbye:
        protocol.connectionLost(Failure(ConnectionDone()))
    service.reactor.advance(15)
    assert transport.disconnected is not says_goodbye
    service.site.doStop()


@pytest.mark.parametrize("piece", [b"x", b"X-Header: y\r\n"])
def test_trickle(service: Service, piece: bytes) -> None:
    """
    A request that comes bit by bit, in its head or in its body, has no more time for that than one that does not come.
    """
    service.site.doStart()
    protocol, transport = connect(service)
    protocol.dataReceived(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    head = b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    protocol.dataReceived(head if b"\r" in piece else head + b"\r\n")
    for _ in range(round(HTTP_TIMEOUT) - 1):
        service.reactor.advance(1)
        protocol.dataReceived(piece)
    assert not transport.disconnecting
    service.reactor.advance(1)
    assert transport.disconnecting
    assert service.limits.http_timeout.value == 1
    service.site.doStop()


@pytest.mark.parametrize("request_", [b"GET /hea", b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nxx"])
def test_request_that_is_never_whole(service: Service, request_: bytes) -> None:
    """
    A client that stops sending in the middle of a request is not waited for.
    """
    service.site.doStart()
    protocol, transport = connect(service)
    protocol.dataReceived(request_)
    assert not transport.disconnecting
    IHalfCloseableProtocol(protocol).readConnectionLost()
    assert transport.disconnecting
    service.site.doStop()


def test_many_connections_ask_at_once(service: Service) -> None:
    """
    In one turn of the reactor a limited number of connections is answered, and all of them in the end; one that is gone
    by then is not missed.
    """
    service.site.doStart()
    connections = [connect(service) for _ in range(3 * REQUESTS_A_TURN)]

    def answered() -> int:
        return sum(transport.value().startswith(b"HTTP/1.1 200 ") for _, transport in connections)

    for protocol, _ in connections:
        protocol.dataReceived(b"GET /health HTTP/1.1\r\n")
        protocol.dataReceived(b"Host: x\r\n\r\n")
    # each took two pieces
    assert answered() == REQUESTS_A_TURN // 2
    assert connections[-1][1].producerState == "paused"
    connections[-2][0].connectionLost(Failure(ConnectionDone()))
    for _ in range(3):
        service.reactor.advance(0)
    assert answered() == 3 * REQUESTS_A_TURN - 1
    assert connections[-1][1].producerState == "producing"
    service.site.doStop()


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 1000000\r\n\r\n" + b"x" * 1_000_000,
        b"Transfer-Encoding: chunked\r\n\r\n" + b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n",
    ],
)
def test_body_is_thrown_away(service: Service, body: bytes) -> None:
    """
    A body is read, thrown away, and not mistaken for the next request.
    """
    service.site.doStart()
    protocol, transport = connect(service)
    protocol.dataReceived(b"POST /health HTTP/1.1\r\nHost: x\r\n" + body)
    assert transport.value().startswith(b"HTTP/1.1 405 ")
    transport.clear()
    protocol.dataReceived(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert transport.value().startswith(b"HTTP/1.1 200 ")
    service.site.doStop()


def test_no_access_log(service: Service) -> None:
    """
    Requests are not logged: a query may hold a token.
    """
    events: list[object] = []
    globalLogPublisher.addObserver(events.append)
    try:
        service.site.doStart()
        protocol, _ = connect(service)
        protocol.dataReceived(b"GET /?token=secret HTTP/1.1\r\nHost: x\r\n\r\n")
        service.site.doStop()
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert "secret" not in repr(events)


# files


@pytest.mark.parametrize(
    ("path", "content_type", "holds"),
    [
        ("/live", "text/html; charset=utf-8", b"<title>dcm-ws live</title>"),
        ("/dashboard", "text/html; charset=utf-8", b"<title>dcm-ws dashboard</title>"),
        ("/live.css", "text/css; charset=utf-8", b":root"),
        ("/dcm-ws.js", "text/javascript; charset=utf-8", b"export class DCMClient"),
        ("/dcm-ws.d.ts", "text/plain; charset=utf-8", b"export class DCMClient"),
        ("/icon.svg", "image/svg+xml", b"<svg"),
    ],
)
def test_files(service: Service, path: str, content_type: str, holds: bytes) -> None:
    """
    Browsers get the pages and the client, may load nothing from elsewhere, and ask anew each time.
    """
    status, headers, body = service.get(path)
    assert (status, headers["Content-Type"]) == (200, content_type)
    assert holds in body
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-cache"
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy
    assert service.get(path, "HEAD")[2] == b""
    for tag in (headers["ETag"], f"W/{headers['ETag']}", f'"other",{headers["ETag"]}', "*"):
        assert service.get(path, **{"If-None-Match": tag})[::2] == (304, b"")
    assert service.get(path, **{"If-None-Match": '"other"'})[0] == 200
    # scripts may be imported from elsewhere, and pages not be read
    shared = headers["Content-Type"].startswith(("text/javascript", "text/plain", "text/css"))
    assert headers.get("Access-Control-Allow-Origin") == ("*" if shared else None)
    assert service.get(path, "POST")[0] == 405
    assert service.get(f"{path}/more")[0] == 404


@pytest.mark.parametrize("path", ["/live", "/dashboard"])
def test_slash_at_the_end(service: Service, path: str) -> None:
    """
    A page is found with a slash behind it, too.
    """
    status, headers, _ = service.get(f"{path}/")
    assert (status, urljoin(f"http://x/dcm{path}/", headers["Location"])) == (302, f"http://x/dcm{path}")
    assert service.get(f"{path}//")[0] == 404


def test_pages_below_a_path(service: Service) -> None:
    """
    Every link of the pages and their scripts is relative: they work at the root, and below any path of a proxy.
    """
    files = [path for path, _ in pages(service.hub.wall_ms) if path.endswith((b"live", b"dashboard", b".js", b".css"))]
    assert len(files) > 8
    for path in files:
        text = re.sub(r"/\*.*?\*/", "", service.get(f"/{path.decode()}")[2].decode(), flags=re.DOTALL)
        links = re.findall(r"""(?:src|href|action)=["']([^"']*)|url\(["']?([^"')]*)""", text)
        links += re.findall(r"""(?:(?:from|import) |(?:ask|fetch|DCMClient)\()["']([^"']*)()["']""", text)
        for link in map("".join, links):
            if not link.startswith(("#", "data:")) and path != b"dcm-ws-react.js":
                below = urljoin("http://x/dcm/live", link)
                assert below.startswith("http://x/dcm/"), (path, link)
                assert below == "http://x/dcm/ws" or service.get(below.removeprefix("http://x/dcm"))[0] == 200


@pytest.mark.parametrize("path", ["/live.html", "/package.json", "/..%2fsetup.cfg", "/web", "/dcm_ws.py"])
def test_no_other_files(service: Service, path: str) -> None:
    """
    What is not meant for browsers is not there.
    """
    assert service.get(path)[0] == 404
