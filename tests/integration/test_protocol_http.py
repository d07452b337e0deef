"""
Protocol, section 8: what HTTP answers on the same port.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPResponse

import pytest

from dcm_ws.version import VERSION
from tests.integration.clients import ask, handshake, hear, say
from tests.integration.databases import PostgresServer
from tests.integration.machine import PATIENCE
from tests.integration.running import Service
from tests.integration.sharing import SharedServices
from tests.integration.tokens import make_token

pytestmark = pytest.mark.integration

PAGES = ["/health", "/stats"]


@pytest.fixture
def running(services: SharedServices) -> Iterator[Service]:
    with services.lend() as running:
        yield running


@pytest.fixture
def production(services: SharedServices, database: PostgresServer) -> Iterator[Service]:
    with services.lend(in_production=database) as running:
        yield running


def test_health(running: Service) -> None:
    """
    /health says how the service is, and who is connected to what.
    """
    one, _two = running.connect(), running.connect()
    ask(one, type="subscribe", channel="topics/x", id=1)
    status, headers, body = running.get("/health")
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    health = json.loads(body)
    moment = health.pop("timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment)
    assert abs(datetime.fromisoformat(moment) - datetime.now(UTC)) < timedelta(seconds=10)
    assert health.pop("uptime_s") >= 0
    assert health == {
        "status": "healthy",
        "type": "websocket",
        "port": running.port,
        "connectedClients": 2,
        "activeChannels": 2,
        "channelStats": {"global": 2, "topics/x": 1},
        "pendingDeliveries": 0,
        "database": {"state": "none"},
        "log": {"engine": "memory", "state": "up", "reason": ""},
        "anonymousListeners": True,
        "version": VERSION,
        "name": None,
    }


def test_stats(running: Service) -> None:
    """
    /stats counts the clients, the channels, and what has not been acknowledged.
    """
    client = running.connect()
    say(client, type="publish", channel="global", event="task.created")
    event = hear(client)
    status, headers, body = running.get("/stats")
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    stats = json.loads(body)
    expected = {
        "connectedClients": 1,
        "activeChannels": 1,
        "channelStats": {"global": 1},
        "pendingDeliveries": 1,
        "failedDeliveries": 0,
    }
    assert {name: stats[name] for name in expected} == expected
    say(client, type="ack", message_id=event["id"])
    ask(client, type="ping")
    assert running.stats()["pendingDeliveries"] == 0


@pytest.mark.parametrize("path", PAGES)
def test_any_origin_may_read(running: Service, path: str) -> None:
    """
    A page of another origin may read the counts.
    """
    _, headers, _ = running.get(path, Origin="http://127.0.0.1:3848")
    assert headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("path", PAGES)
def test_preflight(running: Service, path: str) -> None:
    """
    A preflight request of a browser is answered with what the browser may send.
    """
    asked = {"Origin": "http://x", "Access-Control-Request-Method": "GET"}
    status, headers, body = running.get(path, "OPTIONS", **asked)
    assert status == 204
    assert body == b""
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert "GET" in headers["Access-Control-Allow-Methods"]
    assert "Authorization" in headers["Access-Control-Allow-Headers"]


@pytest.mark.parametrize("path", PAGES)
def test_head(running: Service, path: str) -> None:
    """
    HEAD answers like GET, without the body.
    """
    plain = running.socket()
    plain.sendall(f"HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    text = b""
    while data := plain.recv(1 << 16):
        text += data
    head, _, body = text.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: application/json" in head
    assert b"Access-Control-Allow-Origin: *" in head
    assert int(re.search(rb"Content-Length: (\d+)", head)[1]) > 50  # type: ignore[index]
    assert body == b""


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "BREW"])
def test_other_methods(running: Service, path: str, method: str) -> None:
    """
    Any other method is answered 405, with the methods there are.
    """
    status, headers, body = running.get(path, method)
    assert status == 405
    assert headers["Allow"] == "GET, HEAD, OPTIONS"
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert json.loads(body)["code"] == "METHOD_NOT_ALLOWED"


def test_other_methods_where_a_websocket_opens(running: Service) -> None:
    """
    / and /ws take nothing but GET, HEAD and OPTIONS either.
    """
    for path in ("/", "/ws"):
        status, headers, body = running.get(path, "POST")
        assert status == 405
        assert headers["Allow"] == "GET, HEAD, OPTIONS"
        assert json.loads(body)["code"] == "METHOD_NOT_ALLOWED"


@pytest.mark.parametrize(
    "request_",
    [
        # HAProxy's plain check (option httpchk), and that of others
        b"OPTIONS / HTTP/1.0\r\n\r\n",
        b"OPTIONS / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"OPTIONS /ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /health HTTP/1.0\r\n\r\n",
    ],
)
def test_checks_of_load_balancers(running: Service, request_: bytes) -> None:
    """
    OPTIONS says that the service is there, and HTTP/1.0 needs no Host.
    """
    plain = running.socket()
    plain.sendall(request_)
    assert re.match(rb"HTTP/1.[01] 200 OK\r\n", plain.recv(1 << 16))


@pytest.mark.parametrize("hosts", [b"", b"Host: a\r\nHost: a\r\n", b"Host: a b\r\n", b"Host: a:99999\r\n"])
@pytest.mark.parametrize(
    "head", [b"GET /health HTTP/1.1\r\n", b"OPTIONS / HTTP/1.1\r\n", handshake().split(b"Host")[0]]
)
def test_one_host(running: Service, head: bytes, hosts: bytes) -> None:
    """
    HTTP/1.1 takes one valid Host, for a page and for a WebSocket.
    """
    upgrade = handshake().partition(b"127.0.0.1\r\n")[2] if head.startswith(b"GET / ") else b"\r\n"
    plain = running.socket()
    plain.sendall(head + hosts + upgrade)
    answer = HTTPResponse(plain)
    answer.begin()
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/json"
    assert json.loads(answer.read()).keys() == {"error", "code", "timestamp"}


@pytest.mark.parametrize(
    "path", ["/nothing", "/health/", "/health/more", "/stats/x", "/ws/x", "//", "/../etc/passwd", "/%2e"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_anything_else(running: Service, path: str, method: str) -> None:
    """
    Anything else is 404, in JSON.
    """
    status, headers, body = running.get(path, method)
    assert status == 404
    assert headers["Content-Type"] == "application/json"
    error = json.loads(body)
    assert error.keys() == {"error", "code", "timestamp"}
    assert error["code"] == "NOT_FOUND"


def test_query_does_not_matter(running: Service) -> None:
    """
    A query after the path, as load balancers add it, changes nothing.
    """
    assert running.get("/health?verbose=1")[0] == 200


def test_body_is_ignored(running: Service) -> None:
    """
    A request's body is read and ignored, and the connection stays good for the next one.
    """
    connection = HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE)
    for _ in range(2):
        connection.request("POST", "/health", body=b"x" * 300_000)
        answer = connection.getresponse()
        assert answer.status == 405
        answer.read()
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()


def test_pipelined_requests(running: Service) -> None:
    """
    Requests sent together are all answered, in order.
    """
    plain = running.socket()
    request = b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n"
    plain.sendall(request % (b"/health", b"") + request % (b"/nothing", b"Connection: close\r\n"))
    text = b""
    while data := plain.recv(1 << 16):
        text += data
    assert re.findall(rb"HTTP/1.1 (\d+) ", text) == [b"200", b"404"]


def test_nonsense(running: Service) -> None:
    """
    What is not HTTP is refused, and the connection closed.
    """
    plain = running.socket()
    plain.sendall(b"\x16\x03\x01 hello\r\n\r\n")
    text = b""
    while data := plain.recv(1 << 16):
        text += data
    assert text == b"" or text.startswith(b"HTTP/1.1 400 ")


def test_upgrade_to_something_else(running: Service) -> None:
    """
    A client that offers HTTP/2 on the way is answered in HTTP/1.1.
    """
    status, _, body = running.get("/health", Connection="Upgrade, HTTP2-Settings", Upgrade="h2c")
    assert status == 200
    assert json.loads(body)["status"] == "healthy"


def test_websocket_upgrade_on_a_page(running: Service) -> None:
    """
    A WebSocket cannot be opened on /health: it is answered as a page.
    """
    plain = running.socket()
    plain.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    answer = HTTPResponse(plain)
    answer.begin()
    assert answer.status == 200


@pytest.mark.parametrize("path", PAGES)
def test_channel_names_are_private_in_production(production: Service, path: str) -> None:
    """
    In production the names of channels are shown only with a valid token.
    """
    client = production.connect()
    ask(client, type="auth", token=make_token("secret-agent"))
    expired, forged = make_token("x", seconds=-1), make_token("x", secret="x" * 32)
    for headers in (
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": f"Bearer {expired}"},
        {"Authorization": f"Bearer {forged}"},
        {"Authorization": f"Basic {make_token('x')}"},
    ):
        status, _, body = production.get(path, **headers)
        assert status == 200
        assert "channelStats" not in json.loads(body)
        assert b"secret-agent" not in body
        assert json.loads(body)["activeChannels"] == 2
    _, _, body = production.get(path, Authorization=f"Bearer {make_token('x')}")
    assert json.loads(body)["channelStats"] == {"global": 1, "agents/secret-agent": 1}


def test_database_in_health(production: Service) -> None:
    """
    /health tells of the database, and none of its secrets.
    """
    health = production.health()
    assert health["status"] == "healthy"
    assert health["database"]["state"] == "up"
    assert "postgresql://" not in json.dumps(health)
