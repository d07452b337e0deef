"""
JSON Web Tokens, and the keys of an identity provider.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.integration.certificates import Certificate
from tests.integration.clients import ask, hear
from tests.integration.databases import PostgresServer
from tests.integration.machine import until
from tests.integration.running import Service, production_service, service
from tests.integration.tokens import SECRET
from tests.protocol.web_tokens import key_set, private_key, public_jwk, sign_web_token

ALGORITHM = "EdDSA"


class Provider:
    """
    An identity provider with a page that has its keys.

    @ivar kids: the keys on the page.
    @ivar asked: how often it was asked for.
    @ivar answer: what it answers in place of the keys: a status, headers and a body.
    @ivar wait: seconds until it answers.

    @param certificate: for https; None for http.
    """

    def __init__(self, certificate: Certificate | None = None) -> None:
        self.kids = ["a"]
        self.asked = 0
        self.answer: tuple[int, dict[str, str], bytes] | None = None
        self.wait = 0.0
        provider = self

        class Page(BaseHTTPRequestHandler):
            def handle(self) -> None:
                # the service does not trust the certificate
                with contextlib.suppress(OSError):
                    super().handle()

            def do_GET(self) -> None:
                provider.asked += 1
                time.sleep(provider.wait)
                body = key_set(*(public_jwk(ALGORITHM, kid) for kid in provider.kids))
                status, headers, body = provider.answer or (200, {}, body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    # the service has seen enough
                    provider.answer = provider.answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        port = self._server.server_port
        self.url = f"http://127.0.0.1:{port}/jwks"
        if certificate is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(certificate.file, certificate.key)
            # the handshake is not made by the thread that accepts
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
            self.url = f"https://127.0.0.1:{port}/jwks"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.stop()


@pytest.fixture
def running(database: PostgresServer, provider: Provider) -> Iterator[Service]:
    with production_service(database.url, "--jwks", provider.url, "--jwt-audience", "dcm") as running:
        yield running


def token(kid: str, **claims: Any) -> str:
    key = private_key(ALGORITHM, kid)
    return sign_web_token(key, ALGORITHM, int(time.time()) + 60, header={"kid": kid}, aud="dcm", **claims)


def fetch_again(running: Service) -> None:
    """
    Have the service fetch its keys.
    """
    running.process.send_signal(signal.SIGHUP)


def channels(running: Service, **headers: str) -> list[str]:
    """
    The names of channels that C{/health} shows.
    """
    return list(json.loads(running.get("/health", **headers)[2]).get("channelStats", {}))


def test_every_way_in(running: Service, provider: Provider) -> None:
    """
    A token is accepted in the query, in a header, in C{auth}, by C{/health}; with its scope and its session.
    """
    until(lambda: provider.asked == 1)
    scoped = token("a", scope="subscribe:topics/x openid", sid="work")
    for client in (
        running.connect(f"/?token={scoped}"),
        running.connect("/ws", additional_headers={"Authorization": f"Bearer {scoped}"}),
    ):
        assert hear(client)["subscriptions"] == ["agents/ann", "sessions/work"]
    client = running.connect()
    answer = ask(client, type="auth", token=scoped, id=1)
    assert answer["subscriptions"] == ["agents/ann", "sessions/work"]
    assert ask(client, type="subscribe", channel="topics/x", id=2)["success"]
    assert ask(client, type="subscribe", channel="topics/y", id=3)["code"] == "NOT_AUTHORIZED"
    assert "topics/x" in channels(running, Authorization=f"Bearer {scoped}")
    assert channels(running) == []
    assert provider.asked == 1


def test_a_new_key(running: Service, provider: Provider) -> None:
    """
    A key that the provider has begun to use is fetched when a token with it comes, in any way, once for all of them.
    """
    until(lambda: provider.asked == 1)
    provider.kids.append("b")
    provider.wait = 0.5
    # not at once after the last time
    time.sleep(5.1)
    clients = [running.connect() for _ in range(5)]
    for client in clients:
        client.send(json.dumps({"type": "auth", "token": token("b"), "id": 1}))
    in_query = running.connect(f"/?token={token('b')}")
    assert hear(in_query)["success"]
    for client in clients:
        assert hear(client)["success"]
    assert provider.asked == 2
    provider.kids.append("c")
    time.sleep(5.1)
    assert channels(running, Authorization=f"Bearer {token('c')}")
    assert provider.asked == 3


def test_unknown_keys(running: Service, provider: Provider) -> None:
    """
    Nobody can have the keys fetched at will: a token with an unknown key is refused at once after the first one.
    """
    until(lambda: provider.asked == 1)
    time.sleep(5.1)
    client = running.connect()
    for number in range(50):
        answer = ask(client, type="auth", token=token(f"unknown {number}"), id=1)
        assert answer["code"] in ("TOKEN_INVALID", "RATE_LIMITED")
    # the first one had them fetched
    refused_keys = running.stats()["tokenKeys"]["refused"]
    assert running.stats()["limits"]["tokenKeyFetches"] == refused_keys > 0
    with pytest.raises(InvalidStatus) as refused:
        running.connect(f"/?token={token('unknown')}")
    assert refused.value.response.status_code == 401
    assert provider.asked == 2
    # the known ones still are
    assert ask(running.connect(), type="auth", token=token("a"), id=1)["success"]


def test_a_provider_that_fails(running: Service, provider: Provider) -> None:
    """
    If the keys cannot be fetched, those from before stay, and the log says why.  Limits that were exceeded are counted.
    """
    until(lambda: provider.asked == 1)
    large = b'{"keys":[' + b" " * (1 << 20) + b"]}"
    many = json.dumps({"keys": [public_jwk(ALGORITHM, "a")] * 101}).encode()
    for status, headers, body, reason in (
        (500, {}, b"", "it answers 500"),
        (302, {"Location": "https://example.com/"}, b"", "it answers 302"),
        (200, {}, b"no json", "it is not JSON"),
        # little of it would become much
        (200, {"Content-Encoding": "gzip"}, gzip.compress(large), "it is not JSON"),
        (200, {}, large, "it is larger than 262144 bytes"),
        (200, {}, many, "it has more than 100 keys"),
        (200, {"Content-Length": "1000"}, b"{", "the response is incomplete"),
    ):
        provider.answer = status, headers, body
        said = f"the keys of tokens stay as they are: {provider.url}: {reason}\n"
        before = running.log.count(said)
        fetch_again(running)
        until(lambda said=said, before=before: running.log.count(said) > before)
    client = running.connect()
    assert ask(client, type="auth", token=token("b"), id=1)["code"] == "TOKEN_INVALID"
    assert ask(client, type="auth", token=token("a"), id=2)["success"]
    limits = running.stats()["limits"]
    assert (limits["maxTokenKeysSize"], limits["maxTokenKeys"]) == (1, 1)


def test_https(database: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Over https the keys are fetched only if the certificate is trusted, and for the name in the URL.  A redirect is not
    followed: neither to http, nor to another host.
    """
    certificate = Certificate(tmp_path)
    provider, elsewhere = Provider(certificate), Provider()
    try:
        with production_service(database.url, "--jwks", provider.url) as running:
            running.read_log_until(f"{provider.url}: certificate verify failed; SSL_CERT_FILE may name")
            assert ask(running.connect(), type="auth", token=token("a"), id=1)["code"] == "TOKEN_INVALID"
        assert provider.asked == 0
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
        url = provider.url.replace("127.0.0.1", "localhost")
        with production_service(database.url, "--jwks", url) as running:
            running.read_log_until(f"{url}: its certificate is for another name")
        assert provider.asked == 0
        with production_service(database.url, "--jwks", provider.url) as running:
            running.read_log_until(f"1 keys of tokens from {provider.url}")
            assert ask(running.connect(), type="auth", token=token("a"), id=1)["success"]
            for target in (elsewhere.url, elsewhere.url.replace("127.0.0.1", "localhost")):
                provider.answer = 302, {"Location": target}, b""
                fetch_again(running)
                running.read_log_until(f"{provider.url}: it answers 302")
        assert elsewhere.asked == 0
    finally:
        provider.stop()
        elsewhere.stop()


def test_a_provider_that_comes_later(database: PostgresServer, provider: Provider) -> None:
    """
    The service starts without the provider, and asks again until it has the keys.
    """
    provider.answer = (503, {}, b"")
    with production_service(database.url, "--jwks", provider.url) as running:
        running.read_log_until("it answers 503")
        provider.answer = None
        until(lambda: provider.asked >= 2, 25)
        running.read_log_until("1 keys of tokens from")
        assert ask(running.connect(), type="auth", token=token("a"), id=1)["success"]


def test_a_slow_provider(running: Service, provider: Provider) -> None:
    """
    Those that wait are refused after 5 s, and the service serves others meanwhile; only 10 of an address may wait.
    """
    until(lambda: provider.asked == 1)
    time.sleep(5.1)
    provider.wait = 8.0
    clients, began = [running.connect() for _ in range(12)], time.monotonic()
    for client in clients:
        client.send(json.dumps({"type": "auth", "token": token("b"), "id": 1}))
    assert ask(running.connect(), type="auth", token=token("a"), id=1)["success"]
    # so many clients of an address may wait
    for client in clients[10:]:
        assert hear(client)["code"] == "TOKEN_INVALID"
    for client in clients[:10]:
        assert hear(client)["code"] == "TOKEN_INVALID"
    assert time.monotonic() - began > 4
    running.read_log_until(f"{provider.url}: it did not answer within 5 s")
    limits = running.stats()["limits"]
    assert (limits["tokenKeysTime"], limits["maxTokenKeyWaiting"]) == (1, 2)


def test_a_file(database: PostgresServer, tmp_path: Path) -> None:
    """
    A file is read at the start, which it must allow, and again on SIGHUP.
    """
    keys = tmp_path / "keys.json"
    keys.write_bytes(key_set(public_jwk(ALGORITHM, "a")))
    with production_service(database.url, "--jwks", str(keys)) as running:
        assert ask(running.connect(), type="auth", token=token("a"), id=1)["success"]
        keys.write_bytes(key_set(public_jwk(ALGORITHM, "b")))
        fetch_again(running)
        running.read_log_until("1 keys of tokens from")
        assert ask(running.connect(), type="auth", token=token("b"), id=1)["success"]
        assert ask(running.connect(), type="auth", token=token("a"), id=1)["code"] == "TOKEN_INVALID"
    for content in ("{}", None):
        keys.write_text(content) if content else keys.unlink()
        with pytest.raises(AssertionError, match=r"--jwks .*keys\.json"):
            production_service(database.url, "--jwks", str(keys)).__enter__()
    with pytest.raises(AssertionError, match="--jwks must be a file or an https URL"):
        production_service(database.url, "--jwks", "http://192.0.2.1/jwks").__enter__()


def test_secrets() -> None:
    """
    A token that is signed with the secret of the service needs no key set.
    """
    with service() as running:
        good = sign_web_token(running.secret, "HS256", int(time.time()) + 60)
        expired = sign_web_token(running.secret, "HS256", int(time.time()) - 60)
        client = running.connect()
        assert ask(client, type="auth", token=expired, id=1)["code"] == "TOKEN_EXPIRED"
        assert ask(client, type="auth", token=sign_web_token(SECRET, "HS256", 1 << 40), id=1)["code"] == "TOKEN_INVALID"
        assert ask(client, type="auth", token=good, id=1)["success"]
