"""
What the service may be made to listen on beside a TCP port: TLS, a Unix socket, IPv6, the PROXY protocol.
"""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path

import pytest
from websockets.sync.client import connect, unix_connect

from tests.integration.attacks import push, read_to_the_end, status
from tests.integration.certificates import Certificate
from tests.integration.clients import (
    RawClient,
    ask,
    client_frame,
    close_of,
    handshake,
    hear,
    say,
    silence,
    unsubscribe_global,
)
from tests.integration.machine import PATIENCE, until
from tests.integration.running import Service, service

pytestmark = pytest.mark.integration

PROXY_2 = b"\r\n\r\n\0\r\nQUIT\n"


class Everywhere:
    """
    A service on plain TCP, TLS and a Unix socket.
    """

    def __init__(self, running: Service, certificate: Certificate, path: Path) -> None:
        self.running = running
        self.path = str(path)
        self.context = certificate.trusting
        self.threaded = certificate.threaded
        found = re.search(r"listening on wss://127\.0\.0\.1:(\d+)/ \(health: https://", running.log)
        assert found
        self.tls_port = int(found.group(1))

    @property
    def tls_url(self) -> str:
        return f"wss://127.0.0.1:{self.tls_port}/ws"


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everywhere]:
    folder = tmp_path_factory.mktemp("endpoints")
    certificate = Certificate(folder)
    path = folder / "dcm-ws.sock"
    endpoints = (
        "tcp:0:interface=127.0.0.1",
        certificate.endpoint(),
        f"unix:{path}",
    )
    options = [part for endpoint in endpoints for part in ("--listen", endpoint)]
    with service(*options, "--max-send-buffer", "200000") as running:
        yield Everywhere(running, certificate, path)


def test_all_are_one_service(everywhere: Everywhere) -> None:
    """
    A client on one of several endpoints hears what is published on another.
    """
    with (
        connect(everywhere.tls_url, ssl=everywhere.threaded) as secure,
        unix_connect(everywhere.path, "ws://localhost/") as local,
    ):
        plain = everywhere.running.connect()
        assert hear(secure)["type"] == hear(local)["type"] == "connected"
        say(secure, type="publish", channel="global", event="system.info", data="x" * 100_000)
        for client in (plain, secure, local):
            assert hear(client)["data"] == "x" * 100_000
        for client in (plain, secure, local):
            silence(client)
    everywhere.running.forget_clients()


def test_https(everywhere: Everywhere) -> None:
    """
    Where the port is TLS, /health is too, and names the first port.
    """
    connection = HTTPSConnection("127.0.0.1", everywhere.tls_port, timeout=PATIENCE, context=everywhere.context)
    for _ in range(2):
        connection.request("GET", "/health")
        answer = connection.getresponse()
        assert answer.status == 200
        assert json.loads(answer.read())["port"] == everywhere.running.port
    connection.close()


def test_frames_sent_with_the_handshake_through_tls(everywhere: Everywhere) -> None:
    """
    What a client sends along with its handshake is not lost on the way through TLS either.
    """
    plain = socket.create_connection(("127.0.0.1", everywhere.tls_port), timeout=PATIENCE)
    with everywhere.context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
        client = RawClient(secure, "/", client_frame(b'{"type":"ping"}'))
        assert client.hear()["type"] == "connected"
        assert client.hear()["type"] == "pong"


def test_client_that_never_reads_through_tls(everywhere: Everywhere) -> None:
    """
    A client that does not read is too slow through TLS as well.
    """
    running = everywhere.running
    plain = socket.create_connection(("127.0.0.1", everywhere.tls_port), timeout=PATIENCE)
    with everywhere.context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
        slow = RawClient(secure, "/", b"")
        assert slow.hear()["type"] == "connected"
        publisher = running.connect()
        unsubscribe_global(publisher)

        before = running.stats()["closes"].get("4008", 0)

        def closed() -> bool:
            for number in range(10):
                message = {"channel": "global", "event": "system.info", "data": "x" * 60_000}
                assert ask(publisher, type="publish", id=number, **message)["success"] is True
            return bool(running.stats()["closes"].get("4008", 0) == before + 1)

        until(closed)
        assert slow.close_code() == 4008
    running.forget_clients()


def test_ipv6_and_shutdown() -> None:
    """
    HOST may be an IPv6 address; a client there is closed like any other.
    """
    if not socket.has_ipv6:
        pytest.skip("there is no IPv6")
    with service("--host", "::1") as running, connect(f"ws://[::1]:{running.port}/") as client:
        assert hear(client)["type"] == "connected"
        assert f"listening on ws://[::1]:{running.port}/" in running.log
        running.process.send_signal(signal.SIGTERM)
        assert close_of(client)[0] == 1012
        assert running.process.wait(timeout=PATIENCE) == 0


@pytest.fixture(scope="module")
def proxied() -> Iterator[Service]:
    """
    A service behind a proxy that speaks the PROXY protocol.
    """
    with service("--listen", "haproxy:tcp:0:interface=127.0.0.1") as running:
        yield running


def dial(running: Service) -> socket.socket:
    """
    A connection as the proxy makes it.
    """
    return socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE)


@pytest.mark.parametrize(
    ("head", "address"),
    [
        (b"PROXY TCP6 2001:db8::1 ::1 50000 80\r\n", "2001:db8::1"),
        (b"PROXY TCP4 ::ffff:192.0.2.1 127.0.0.1 50000 80\r\n", "192.0.2.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "127.0.0.1"),
        (PROXY_2 + b"\x20\0\0\0", "127.0.0.1"),
        (PROXY_2 + b"\x21\x11\0\x0c\xc0\0\2\1\x7f\0\0\1\0\1\0\2", "192.0.2.1"),
        # what is not an address has none of its own in the log or in a limit
        (b"PROXY TCP4 unix 127.0.0.1 50000 80\r\n", "unknown"),
        (b"PROXY TCP4 \x1b[31m 127.0.0.1 50000 80\r\n", "unknown"),
        (b"PROXY TCP4 999.1.1.1 127.0.0.1 50000 80\r\n", "unknown"),
    ],
)
def test_heads_of_the_proxy_protocol(proxied: Service, head: bytes, address: str) -> None:
    """
    The address that such a proxy names is the client's, and without one the client's is the proxy's.
    """
    said = len(proxied.log)
    with dial(proxied) as plain:
        push(plain, head + handshake())
        assert status(plain.recv(1 << 16)) == 101
    until(lambda: f"joined from {address}\n" in proxied.log[said:])


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"PROXY TCP4 192.0.2.1 127.0.0.1 x 80\r\n",
        b"PROXY TCP4 192.0.2.1 127.0.0.1 50000 \xb2\r\n",
        b"PROXY TCP4 \xff\xfe 127.0.0.1 50000 80\r\n",
        b"PROXY TCP4 192.0.2.1 127.0.0.1\r\n",
        b"PROXY TCP9 1 2 3 4\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        PROXY_2 + b"\x2f\x11\0\0",
        PROXY_2 + b"\x21\x9f\0\0",
        PROXY_2 + b"\x21\x11\0\3abc",
    ],
)
def test_bad_heads_of_the_proxy_protocol(proxied: Service, head: bytes) -> None:
    """
    A connection whose first bytes are not the PROXY protocol's is closed, without a word in the log.
    """
    said = len(proxied.log)
    with dial(proxied) as plain:
        push(plain, head + handshake())
        assert read_to_the_end(plain) == b""
    # what it would log is there when the next connection is
    with dial(proxied) as plain:
        push(plain, b"PROXY UNKNOWN\r\n" + handshake())
        assert status(plain.recv(1 << 16)) == 101
    until(lambda: "joined from" in proxied.log[said:])
    assert "Traceback" not in proxied.log[said:]
