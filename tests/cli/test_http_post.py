"""
Publishing by HTTP on a plain socket.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

from dcm_ws.cli.http_post import ANSWER_MAX, Answer, post
from tests.cli.commands import another_service, answer
from tests.integration.certificates import Certificate
from tests.integration.machine import PATIENCE, free_port
from tests.integration.running import Service, service
from tests.integration.tokens import make_token

pytestmark = pytest.mark.integration

EVENT = {"channel": "topics/a", "event": "task.created", "data": {"é": "\U0001f600"}}


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    with service() as started:
        yield started


def base(running: Service) -> str:
    return f"http://127.0.0.1:{running.port}"


def test_one_and_several(shared: Service) -> None:
    """
    An event, and an array of events.
    """
    with shared.connect("/?observer=1") as client:
        assert post(base(shared), json.dumps(EVENT).encode(), 10) == Answer(200, "")
        assert post(base(shared), json.dumps([EVENT, EVENT]).encode(), 10).status == 200
        for _ in range(3):
            assert json.loads(client.recv(timeout=PATIENCE))["data"] == EVENT["data"]


def test_refusals(shared: Service, guarded: Service) -> None:
    """
    The status, and the reason that the service gives.
    """
    refused = post(base(shared), json.dumps(EVENT | {"event": "no"}).encode(), 10)
    assert refused.status == 400 and "Invalid event type" in refused.reason
    assert post(base(guarded), json.dumps(EVENT).encode(), 10).status == 401
    token = make_token("worker", secret=guarded.secret)
    assert post(base(guarded), json.dumps(EVENT).encode(), 10, token=token).status != 401


@pytest.mark.parametrize(
    "said,expected",
    [
        (answer(b'{"error":"why"}'), Answer(200, "why")),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n<html>", Answer(503, "")),
        (b"HTTP/1.0 204\r\n\r\n", Answer(204, "")),
        (b"HTTP/1.1 400 No\r\n\r\n" + b"[" * 99_999, Answer(400, "")),
        (b'HTTP/1.1 400 No\r\n\r\n{"error":1}', Answer(400, "")),
        (b'HTTP/1.1 400 No\r\n\r\n["error"]', Answer(400, "")),
        # an answer without an end
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (ANSWER_MAX + 100_000), Answer(200, "")),
    ],
)
def test_answers_of_others(said: bytes, expected: Answer) -> None:
    """
    Whatever answers, its status counts.
    """
    with another_service(said) as where:
        assert post(where.replace("ws", "http").rstrip("/"), b"{}", 10) == expected


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 OK\r\n\r\n", b"HTTP/1.1", b"HTTP/1.1 +20 OK\r\n\r\n"]
)
def test_not_http(said: bytes) -> None:
    """
    What does not speak HTTP is an error.
    """
    with another_service(said) as where, pytest.raises(ValueError, match="does not speak HTTP"):
        post(where.replace("ws", "http").rstrip("/"), b"{}", 10)


def test_no_answer() -> None:
    """
    A refused connection, one that is closed, and silence are errors of the system; silence takes only the given time.
    """
    with another_service(b"") as where, pytest.raises(ConnectionError):
        post(where.replace("ws", "http").rstrip("/"), b"{}", 10)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        post(f"http://127.0.0.1:{silent.getsockname()[1]}", b"{}", 0.3)
    with pytest.raises(ConnectionRefusedError):
        post(f"http://127.0.0.1:{free_port()}", b"{}", 10)


def test_an_answer_that_drips() -> None:
    """
    An answer that comes byte by byte does not take longer than the given time either.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            with server.accept()[0] as client:
                for _ in range(100):
                    try:
                        client.sendall(b"H")
                    except OSError:
                        return
                    time.sleep(0.05)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        with pytest.raises(TimeoutError):
            post(f"http://127.0.0.1:{server.getsockname()[1]}", b"{}", 0.4)
        thread.join(10)


def test_host_names(shared: Service) -> None:
    """
    A name with other characters than ASCII, and one that does not exist, are errors.
    """
    for host in ("caf\u00e9.invalid", "no-such-host.invalid"):
        with pytest.raises((OSError, ValueError)):
            post(f"http://{host}:1", b"{}", 10)
    assert post(f"http://localhost:{shared.port}", json.dumps(EVENT).encode(), 10).status == 200


def test_tls(monkeypatch: pytest.MonkeyPatch, certificate: Certificate) -> None:
    """
    With TLS, the certificate is checked against those that the caller trusts, of the system, or of SSL_CERT_FILE.
    """
    body = json.dumps(EVENT).encode()
    with service("--listen", certificate.endpoint()) as secure:
        where = f"https://localhost:{secure.port}"
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            post(where, body, 10)
        assert post(where, body, 10, tls=certificate.trusting) == Answer(200, "")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
        assert post(where, body, 10) == Answer(200, "")
