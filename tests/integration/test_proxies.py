"""
The service behind nginx, HAProxy and Caddy, with the configurations of docs/operations.md as they are printed.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import NamedTuple

import pytest

from tests.integration.browser import chromium
from tests.integration.certificates import Authority
from tests.integration.clients import RawClient, client_frame
from tests.integration.databases import PostgresServer
from tests.integration.machine import PATIENCE, free_port, until
from tests.integration.proxies import HOST, NAMES, Proxy, proxies
from tests.integration.running import Service, production_service
from tests.integration.tokens import make_token

pytestmark = pytest.mark.integration

PER_ADDRESS = 20
SILENCE = 75.0


class Silent(threading.Thread):
    """
    A client that says nothing, and answers pings, until it is asked whether it is still there.
    """

    def __init__(self, client: RawClient) -> None:
        super().__init__(daemon=True)
        self._client = client
        client.socket.settimeout(1)
        self.asked, self.answered = threading.Event(), threading.Event()

    def run(self) -> None:
        while not self.answered.is_set():
            try:
                opcode, payload = self._client.read()
            except TimeoutError:
                if self.asked.is_set():
                    self._client.socket.sendall(client_frame(b'{"type":"ping"}'))
                continue
            if opcode == 9:
                self._client.socket.sendall(client_frame(payload, 10))
            elif opcode == 8:
                return
            elif json.loads(payload).get("type") == "pong":
                self.answered.set()


class Ground(NamedTuple):
    """
    A service in production, the proxies in front of it, and clients that say nothing from the start on.
    """

    service: Service
    proxies: dict[str, Proxy]
    silent: list[Silent]
    since: float


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority(HOST)


@pytest.fixture(scope="module")
def ground(authority: Authority, database: PostgresServer) -> Iterator[Ground]:
    documented = ("--trusted-proxy", "127.0.0.1", "--server-name", HOST)
    # which limits the HTTP connections of an address, too
    limits = ("--max-connections-per-ip", str(PER_ADDRESS))
    with production_service(database.url, *documented, *limits) as running, proxies(authority, running.port) as fronts:
        silent = []
        for proxy in fronts.values():
            client = proxy.connect(f"/dcm/ws?token={make_token('silent')}&observer=1", "127.0.1.1")
            authenticated(client)
            silent.append(Silent(client))
            silent[-1].start()
        yield Ground(running, fronts, silent, time.monotonic())
        for thread in silent:
            thread.answered.set()
            thread.join()


@pytest.fixture(params=NAMES)
def proxy(request: pytest.FixtureRequest, ground: Ground) -> Proxy:
    return ground.proxies[request.param]


def address(proxy: Proxy, last: int) -> str:
    """
    An address of a test's own behind each proxy.
    """
    return f"127.0.{2 + NAMES.index(proxy.name)}.{last}"


def authenticated(client: RawClient) -> None:
    """
    The service has accepted the client's token.
    """
    while (message := client.hear()).get("type") != "ack":
        pass
    assert message["success"]


def replies(client: RawClient) -> None:
    """
    The client is open, and the service answers it.
    """
    client.socket.sendall(client_frame(b'{"type":"ping"}'))
    while client.hear().get("type") != "pong":
        pass


@pytest.mark.parametrize("path", ["/dcm/", "/dcm/ws"])
def test_page_connects(proxy: Proxy, path: str) -> None:
    """
    A page of the proxy's own host connects through TLS below the sub-path; the log has no query, and so no token.
    """
    token = make_token("ann")
    client = proxy.connect(f"{path}?token={token}", address(proxy, 1))
    authenticated(client)
    replies(client)
    client.socket.close()
    until(lambda: re.search(rf'{path}[" ]', proxy.logs()))
    assert "token" not in proxy.logs()
    assert token not in proxy.logs()


def test_event_stream(proxy: Proxy, ground: Ground) -> None:
    """
    An event stream comes through each proxy event by event: nothing is held back until there is more.
    """
    query = f"?offset=now&live=sse&token={make_token('ann')}"
    reader = proxy.ask(f"/dcm/v1/streams/topics/{proxy.name}{query}", address(proxy, 9))
    reader.settimeout(PATIENCE)
    publisher = HTTPConnection("127.0.0.1", ground.service.port, timeout=PATIENCE)
    got = b""
    while b"upToDate" not in got:
        got += reader.recv(65536)
    assert got.startswith(b"HTTP/1.1 200 ")

    def publish(data: str) -> None:
        body = json.dumps({"channel": f"topics/{proxy.name}", "event": "session.created", "data": data})
        headers = {"Authorization": f"Bearer {make_token('bob')}"}
        publisher.request("POST", "/v1/publish", body, headers)
        response = publisher.getresponse()
        assert (response.status, bool(response.read())) == (200, True)

    for number in range(3):
        publish(f"number {number}")
        while f'"number {number}"'.encode() not in got:
            more = reader.recv(65536)
            assert more
            got += more
    reader.close()

    def gone() -> bool:
        # a proxy that only writes, as HAProxy does, notices it when it writes
        threading.Event().wait(0.2)
        publish("to nobody")
        return f"topics/{proxy.name}" not in channels(ground.service)

    until(gone)
    publisher.close()


def channels(service: Service) -> set[str]:
    """
    The channels that have subscribers.
    """
    _, _, body = service.get("/health", Authorization=f"Bearer {make_token('ann')}")
    return set(json.loads(body)["channelStats"])


def test_events_through_all(ground: Ground) -> None:
    """
    Agents behind different proxies hear each other.
    """
    clients = []
    for proxy in ground.proxies.values():
        clients.append(proxy.connect(f"/dcm/ws?token={make_token('bob')}&observer=1", address(proxy, 2)))
        authenticated(clients[-1])
    clients[0].socket.sendall(
        client_frame(b'{"type":"publish","channel":"global","event":"task.updated","data":"hello"}')
    )
    for client in clients:
        while client.hear().get("data") != "hello":
            pass
        client.socket.close()


def test_pages_of_elsewhere(proxy: Proxy) -> None:
    """
    A page of another origin may not connect.
    """
    for origin in (
        "https://evil.example",
        f"https://evil.example:{proxy.port}",
        "null",
        f"https://{HOST}.evil.example",
    ):
        assert proxy.refusal("/dcm/ws", address(proxy, 3), origin=origin) == 403


def test_pages_below_the_path(proxy: Proxy) -> None:
    """
    The pages and their scripts are there, and a browser that asks for the path itself is sent to the live page.
    """
    status, headers, _ = proxy.get("/dcm")
    assert status in (301, 302)
    assert headers["Location"] in ("/dcm/", f"https://{HOST}:{proxy.port}/dcm/")
    status, headers, _ = proxy.get("/dcm/", Accept="text/html")
    assert (status, headers["Location"]) == (302, "live")
    assert proxy.get("/dcm/")[0] == 426
    for path in (
        "live",
        "dashboard",
        "live.js",
        "live.css",
        "dashboard.css",
        "dcm-ws.js",
        "icon.svg",
        "health",
        "readyz",
    ):
        assert proxy.get(f"/dcm/{path}")[0] == 200, path


@pytest.mark.parametrize("page", ["metrics", "stats"])
def test_what_is_not_published(ground: Ground, proxy: Proxy, page: str) -> None:
    """
    The pages of operators are not there, however their path is written.
    """
    assert ground.service.get(f"/{page}")[0] == 200
    encoded = f"%{ord(page[0]):x}{page[1:]}"
    for path in (
        page,
        f"{page}?x=1",
        f"{page}/",
        encoded,
        f"/{page}",
        f"./{page}",
        f"x/../{page}",
        f"%2f{page}",
        f"{page}%2f",
    ):
        status, _, body = proxy.get(f"/dcm/{path}")
        assert status in (400, 404), path
        assert b"dcm_ws" not in body and b"connectedClients" not in body


def test_address_of_the_client(ground: Ground, proxy: Proxy) -> None:
    """
    The service logs and limits the client's own address, whatever the client writes into X-Forwarded-For.
    """
    here, token = address(proxy, 4), make_token("cat")
    path = f"/dcm/ws?token={token}&observer=1"
    clients = [
        proxy.connect(path, here, f"X-Forwarded-For: 198.51.100.{number}", f"Forwarded: for=198.51.100.{number}")
        for number in range(PER_ADDRESS)
    ]
    for client in clients:
        authenticated(client)
    for lie in ("198.51.100.200", "unix", "127.0.0.1", f"{here}:5, 198.51.100.201"):
        assert proxy.refusal(path, here, f"X-Forwarded-For: {lie}") == 503
    authenticated(proxy.connect(path, address(proxy, 5)))
    ground.service.read_log_until(f"joined from {address(proxy, 5)}\n")
    for client in clients:
        client.socket.close()
    assert ground.service.log.count(f"joined from {here}\n") == PER_ADDRESS
    assert "198.51.100." not in ground.service.log


def test_browser(ground: Ground) -> None:
    """
    In Chromium the live page signs in with a token and connects, through each proxy.  It needs few requests, which all
    come at once with HTTP/2.
    """
    protocols = """performance.getEntriesByType('resource')
        .filter(({ name }) => /\\.(js|css|svg)$/.test(name)).map(({ nextHopProtocol }) => nextHopProtocol)"""
    with chromium(HOST) as page:
        for proxy in ground.proxies.values():
            page.call("Page.navigate", url=f"https://{HOST}:{proxy.port}/dcm/")
            page.wait_for("location.pathname == '/dcm/live' && document.querySelector('#sign-in')?.open")
            page.evaluate(f"document.querySelector('#token').value = '{make_token('eve')}'")
            page.evaluate("document.querySelector('#sign-in-form .primary').click()")
            page.wait_for("document.querySelector('#state').dataset.state == 'connected'")
            assert set(found := page.evaluate(protocols)) == {"http/1.1" if proxy.name == "nginx" else "h2"}
            # the icon is in the page, too
            assert len(found) <= 4
            # from /health, since /stats is not there
            page.wait_for("document.querySelector('#clients').textContent > 0")
            # what the page suggests to copy has the path
            suggested = page.evaluate("document.querySelector('#empty code').textContent")
            assert suggested.split()[-1] == f"wss://{HOST}:{proxy.port}/dcm/ws"
            assert "token" not in proxy.logs()


def test_no_token_in_messages_about_errors(authority: Authority) -> None:
    """
    What a proxy logs while the service is away has no query, either.
    """
    with proxies(authority, free_port()) as fronts:
        for proxy in fronts.values():
            status, _, _ = proxy.get(f"/dcm/ws?token={make_token('fay')}")
            assert status in (502, 503)
            if proxy.name != "nginx":
                until(lambda proxy=proxy: "/dcm/ws" in proxy.logs())
            assert "token" not in proxy.logs()


def test_silence(ground: Ground) -> None:
    """
    A client that only answers pings for 75 s stays connected: the service's pings keep the proxies from ending it.

    The clients were there before the other tests, so that this one waits for no more than what is left.
    """
    time.sleep(max(0.0, ground.since + SILENCE - time.monotonic()))
    for client in ground.silent:
        client.asked.set()
    for client in ground.silent:
        assert client.answered.wait(30)
