"""
TLS, Unix sockets, and more than one endpoint, by the strings that --listen takes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import stat
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect, unix_connect

from tests.integration.certificates import Certificate
from tests.integration.clients import ask, handshake, hear, say, silence
from tests.integration.machine import PATIENCE, until
from tests.integration.running import Service, service

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def secure(certificate: Certificate) -> Iterator[Service]:
    """
    A service that listens with TLS.
    """
    with service(
        f"--listen={certificate.endpoint()}", "--max-send-buffer=1000000", "--handshake-timeout=60"
    ) as running:
        yield running
        assert running.stop(signal.SIGTERM) == 0


@pytest.fixture
def trusting(certificate: Certificate) -> ssl.SSLContext:
    return certificate.trusting


@contextlib.contextmanager
def dial(
    running: Service, certificate: Certificate, host: str = "127.0.0.1", **options: Any
) -> Iterator[ClientConnection]:
    """
    A client that has read its C{connected} frame.
    """
    with connect(f"wss://{host}:{running.port}/ws", ssl=certificate.threaded, **options) as client:
        assert hear(client)["type"] == "connected"
        yield client


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_events_over_tls(secure: Service, certificate: Certificate, trusting: ssl.SSLContext, host: str) -> None:
    """
    A client that verifies the certificate publishes and hears events, and gets /health.
    """
    assert f"listening on wss://127.0.0.1:{secure.port}/ (health: https://" in secure.log
    with dial(secure, certificate, host) as one, dial(secure, certificate, host) as two:
        assert ask(one, type="publish", channel="global", event="system.info", data={"n": 1})["data"] == {"n": 1}
        assert hear(two)["data"] == {"n": 1}
    with socket.create_connection(("127.0.0.1", secure.port), timeout=PATIENCE) as plain:
        tls = trusting.wrap_socket(plain, server_hostname=host)
        tls.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: tls.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == "healthy"


def test_client_that_does_not_trust_the_certificate(secure: Service) -> None:
    """
    A client that trusts other certificates does not connect, nor does one without TLS; others are not disturbed.
    """
    strangers = ssl.create_default_context()
    with (
        pytest.raises(ssl.SSLCertVerificationError),
        connect(f"wss://127.0.0.1:{secure.port}/", ssl=strangers),
    ):
        pass
    with socket.create_connection(("127.0.0.1", secure.port), timeout=PATIENCE) as plain:
        plain.sendall(handshake())
        assert b"101" not in plain.recv(1 << 16)


def test_frames_sent_with_the_handshake_over_tls(secure: Service, trusting: ssl.SSLContext) -> None:
    """
    What a client sends along with its handshake, in one TLS record, is not lost.
    """
    with (
        socket.create_connection(("127.0.0.1", secure.port), timeout=PATIENCE) as plain,
        trusting.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        tls.sendall(handshake() + b"\x81\x8f\0\0\0\0" + b'{"type":"ping"}')
        heard = b""
        while b'"pong"' not in heard:
            data = tls.recv(1 << 16)
            assert data, heard
            heard += data
        assert b'"connected"' in heard


def test_connections_that_end_over_tls(secure: Service, trusting: ssl.SSLContext) -> None:
    """
    A client that talks on after its last request, and leaves without a goodbye, is not counted any longer.
    """

    def get_stats() -> Any:
        with (
            socket.create_connection(("127.0.0.1", secure.port), timeout=PATIENCE) as plain,
            trusting.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"GET /stats HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := tls.recv(1 << 16):
                answer += data
        return json.loads(answer.partition(b"\r\n\r\n")[2])

    for _ in range(10):
        with (
            socket.create_connection(("127.0.0.1", secure.port), timeout=PATIENCE) as plain,
            trusting.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"GET /live.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            tls.sendall(b"x" * 40_000)
    until(lambda: get_stats()["connections"]["http"] == 1)


def test_large_messages_over_tls(secure: Service, certificate: Certificate) -> None:
    """
    Messages of 500 KB go in and out whole.
    """
    data = "".join(chr(97 + n % 26) for n in range(500_000))
    with dial(secure, certificate, max_size=None) as one, dial(secure, certificate, max_size=None) as two:
        for n in range(3):
            say(one, type="publish", channel="topics/large", event="system.info", data=[n, data])
            for client in one, two:
                assert hear(client)["data"] == [n, data]


def test_slow_reader_over_tls(secure: Service, certificate: Certificate, trusting: ssl.SSLContext) -> None:
    """
    A client that stops reading is cut off past the send buffer's limit; the others get every event meanwhile.
    """
    with (
        socket.create_connection(("127.0.0.1", secure.port), timeout=PATIENCE) as plain,
        trusting.wrap_socket(plain, server_hostname="localhost") as tls,
        dial(secure, certificate, max_size=None) as one,
    ):
        tls.sendall(handshake())
        until(lambda: clients(one) == 2)
        data, n = "x" * 200_000, 0
        while clients(one) == 2:
            assert n < 200
            for _ in range(5):
                say(one, type="publish", channel="topics/much", event="system.info", data=[n, data])
                assert hear(one)["data"] == [n, data]
                n += 1
        silence(one)


def clients(client: ClientConnection) -> int:
    """
    How many clients there are, by /health on the client's own endpoint.
    """
    host, port = client.remote_address
    assert isinstance(client.socket, ssl.SSLSocket)
    with (
        socket.create_connection((host, port), timeout=PATIENCE) as plain,
        client.socket.context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        tls.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: tls.recv(1 << 16), b""))
    number: int = json.loads(answer.partition(b"\r\n\r\n")[2])["connectedClients"]
    return number


def test_unix_socket() -> None:
    """
    A service on a Unix socket is used like any other.
    """
    # the path of a Unix socket may have about a hundred characters
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/dcm-ws.sock"
        with service(f"--listen=unix:{path}") as running:
            assert f"listening on unix:{path}" in running.log
            with unix_connect(path, "ws://localhost/ws") as client:
                assert hear(client)["type"] == "connected"
                event = ask(client, type="publish", channel="global", event="system.info", data=1)
                assert event["data"] == 1
                assert running.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("mode", "permissions", "warned"),
    [
        ("", 0o660, False),
        (":mode=600", 0o600, False),
        (":backlog=5:mode=666", 0o666, True),
        (":lockfile=1", 0o660, False),
    ],
)
def test_mode_of_a_unix_socket(mode: str, permissions: int, warned: bool) -> None:
    """
    Only the owner and the group may connect to a Unix socket, unless its endpoint says otherwise; the log warns then.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/dcm-ws.sock"
        with service(f"--listen=unix:{path}{mode}") as running:
            assert stat.S_IMODE(os.stat(path).st_mode) == permissions
            assert ("every account of this machine may connect" in running.log) is warned


def test_more_than_one_endpoint(certificate: Certificate) -> None:
    """
    Clients of one service on different endpoints, one with TLS and one without, hear each other.
    """
    with service("--listen=tcp:0:interface=127.0.0.1", f"--listen={certificate.endpoint()}") as running:
        ports = [int(port) for port in re.findall(r"listening on wss?://127\.0\.0\.1:(\d+)/", running.log)]
        assert len(ports) == 2
        assert running.health()["port"] == ports[0]
        plain = running.connect()
        with connect(f"wss://127.0.0.1:{ports[1]}/", ssl=certificate.threaded) as secure:
            assert hear(secure)["type"] == "connected"
            say(secure, type="publish", channel="global", event="system.info", data=1)
            assert hear(secure)["data"] == hear(plain)["data"] == 1
            assert running.health()["connectedClients"] == 2
            assert running.stop(signal.SIGTERM) == 0
        for port in ports:
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()


@pytest.mark.parametrize(
    "endpoint", ["nonsense", "tcp:x", "ssl:0:privateKey=/no/such/key.pem", "tcp:0:interface=192.0.2.1"]
)
def test_endpoint_that_is_none(endpoint: str) -> None:
    """
    An endpoint that cannot be listened on ends the start with one line that names it, and status 1.
    """
    running = Service("--no-database", f"--listen={endpoint}", wait="Server Shut Down")
    assert running.process.wait(30) == 1
    lines = [line for line in running.log.splitlines() if " info " not in line]
    assert len(lines) == 1, running.log
    assert "cannot listen on" in lines[0]
    assert endpoint in lines[0]
