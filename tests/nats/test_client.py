"""
The client of NATS against real servers.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from dcm_ws.nats.client import BACKOFF_FIRST, BACKOFF_LAST, NatsClient, backoff
from dcm_ws.nats.connection import Credentials
from dcm_ws.nats.nkeys import read_creds, read_nkey
from dcm_ws.nats.tls import NatsCertificateError, tls_options
from dcm_ws.nats.urls import read_urls
from tests.integration.certificates import Certificate
from tests.integration.machine import free_port
from tests.integration.nats_servers import nats, nats_cluster, start_cluster, with_nkey, with_operator

URL = "nats://127.0.0.1"


class Clients:
    """
    Makes clients, and stops them.
    """

    def __init__(self) -> None:
        from twisted.internet import reactor

        self._reactor: Any = reactor
        self._clients: list[NatsClient] = []
        self.ups: list[str] = []
        self.downs: list[str] = []

    def make(
        self, *urls: str, credentials: Callable[[], Credentials] = Credentials, ca: Path | None = None
    ) -> NatsClient:
        client = NatsClient(
            self._reactor,
            read_urls(urls),
            name=lambda: "test",
            credentials=credentials,
            tls=tls_options(ca),
            up=self.ups.append,
            down=self.downs.append,
            writable=lambda: None,
            probed=lambda seconds: None,
            now=time.monotonic,
            random=Random(5).random,
        )
        client.startService()
        self._clients.append(client)
        return client

    async def until(self, holds: Callable[[], object]) -> None:
        for _ in range(4000):
            if holds():
                return
            await deferLater(self._reactor, 0.01)
        raise AssertionError(f"it never was the case: {self.downs[-3:]}")

    async def are_connected(self, one: NatsClient, other: NatsClient) -> None:
        """
        Wait until messages of one client reach another one.
        """
        heard: list[bytes] = []
        sid = other.subscribe(b"probe", lambda message: heard.append(message.payload))

        def again() -> bool:
            one.publish(b"probe", b"?")
            return bool(heard)

        await self.until(again)
        other.unsubscribe(sid)

    async def end(self) -> None:
        for client in self._clients:
            ending: Deferred[None] | None = client.stopService()
            if ending is not None:
                await ending


@pytest_twisted.async_yield_fixture
async def clients() -> AsyncIterator[Clients]:
    clients = Clients()
    yield clients
    await clients.end()


def as_key(path: Path) -> Callable[[], Credentials]:
    return lambda: Credentials(read_nkey(path))


def as_creds(path: Path) -> Callable[[], Credentials]:
    def read() -> Credentials:
        jwt, key = read_creds(path)
        return Credentials(key, jwt)

    return read


async def test_token_and_password(clients: Clients) -> None:
    """
    A token or a password in the URL opens the connection; a wrong one does not, and the reason is told without it.
    """
    for configuration, good in (("token: s3cret", "s3cret@"), ("user: ann, password: s3cret", "ann:s3cret@")):
        with nats(f"authorization {{ {configuration} }}") as server:
            one, two = (clients.make(f"nats://{good}127.0.0.1:{server.port}") for _ in range(2))
            await clients.are_connected(one, two)
            clients.downs.clear()
            clients.make(f"nats://ann:wr0ng@127.0.0.1:{server.port}")
            await clients.until(lambda: clients.downs)
            assert clients.downs[0] == f"127.0.0.1:{server.port}: NATS refused: Authorization Violation"


@pytest.mark.parametrize(("configured", "read"), [(with_nkey, as_key), (with_operator, as_creds)])
async def test_keys(clients: Clients, tmp_path: Path, configured: Any, read: Any) -> None:
    """
    An nkey, or a JWT with its key, opens the connection; another key does not.
    """
    configuration, file = configured(tmp_path)
    with nats(configuration) as server:
        one, two = (clients.make(server.url, credentials=read(file)) for _ in range(2))
        await clients.are_connected(one, two)
        clients.downs.clear()
        (tmp_path / "other").mkdir()
        clients.make(server.url, credentials=read(configured(tmp_path / "other")[1]))
        await clients.until(lambda: clients.downs)
        assert "Authorization Violation" in clients.downs[0]


async def test_tls(clients: Clients, tmp_path: Path) -> None:
    """
    The connection is encrypted if the server or the URL wants it, and only to a server with a certificate that is
    trusted and is for its name.
    """
    certificate = Certificate(tmp_path, "localhost")
    (tmp_path / "wrong").mkdir()
    wrong = Certificate(tmp_path / "wrong").file
    tls = f'tls {{ cert_file: "{certificate.file}", key_file: "{certificate.key}" }}'
    with nats(tls) as server, nats() as plain:
        one = clients.make(f"tls://127.0.0.1:{server.port}", ca=certificate.file)
        two = clients.make(f"tls://localhost:{server.port}", ca=certificate.file)
        three = clients.make(server.url, ca=certificate.file)
        await clients.are_connected(one, two)
        await clients.are_connected(two, three)
        large: list[bytes] = []
        two.subscribe(b"large", lambda message: large.append(message.payload))
        await clients.are_connected(one, two)
        for number in range(20):
            one.publish(b"large", bytes([number]) * 500_000)
        await clients.until(lambda: len(large) == 20)
        assert large == [bytes([number]) * 500_000 for number in range(20)]
        for url, ca in (
            (f"tls://127.0.0.1:{server.port}", wrong),
            (f"tls://127.0.0.1:{server.port}", None),
            (f"tls://127.0.0.1:{plain.port}", certificate.file),
        ):
            clients.downs.clear()
            ups = len(clients.ups)
            clients.make(url, ca=ca)
            await clients.until(lambda: clients.downs)
            assert len(clients.ups) == ups
    (tmp_path / "empty").write_text("")
    for file in ("empty", "broken"):
        (tmp_path / "broken").write_text("-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n")
        with pytest.raises(NatsCertificateError, match=file):
            tls_options(tmp_path / file)
    with pytest.raises(OSError, match="nowhere"):
        tls_options(tmp_path / "nowhere")


async def test_server_restarted(clients: Clients) -> None:
    """
    After a server was killed and started again, subscriptions are there again.
    """
    with nats() as server:
        one, two = clients.make(server.url), clients.make(server.url)
        heard: list[bytes] = []
        two.subscribe(b"kept", lambda message: heard.append(message.payload))
        await clients.are_connected(one, two)
        clients.downs.clear()
        server.stop(kill=True)
        await clients.until(lambda: len(clients.downs) >= 2)
        one.publish(b"kept", b"lost")
        assert not one.writable
        server.start()
        await clients.are_connected(one, two)
        one.publish(b"kept", b"after")
        await clients.until(lambda: heard)
        assert heard == [b"after"]


async def test_frozen_server(clients: Clients) -> None:
    """
    A server that is frozen is given up; when it goes on, it is used again.
    """
    with nats() as server:
        client = clients.make(server.url)
        await clients.until(lambda: client.writable)
        server.send_signal(signal.SIGSTOP)
        await clients.until(lambda: clients.downs)
        assert "no answer" in clients.downs[0]
        server.send_signal(signal.SIGCONT)
        await clients.until(lambda: client.writable)


async def test_others_of_the_cluster(clients: Clients) -> None:
    """
    A client that knows one server of a cluster goes on with another one, and comes through when the whole cluster was
    restarted.
    """
    with nats_cluster() as servers:
        first, second, third = servers
        one, two = clients.make(first.url), clients.make(third.url)
        await clients.are_connected(one, two)
        assert sorted(clients.ups) == sorted(f"127.0.0.1:{server.port}" for server in (first, third))
        first.stop(kill=True)
        await clients.until(lambda: len(clients.ups) == 3)
        assert clients.ups[2] in {f"127.0.0.1:{server.port}" for server in (second, third)}
        await clients.are_connected(one, two)
        for server in servers:
            server.stop()
        await clients.until(lambda: not one.writable and not two.writable)
        start_cluster(servers)
        await clients.are_connected(one, two)
        await clients.are_connected(two, one)


async def test_secure_cluster(clients: Clients, tmp_path: Path) -> None:
    """
    In a cluster with TLS whose users have JWTs, a client goes on with another server, with TLS and its JWT.
    """
    certificate = Certificate(tmp_path, "localhost")
    configuration, creds = with_operator(tmp_path)
    tls = f'tls {{ cert_file: "{certificate.file}", key_file: "{certificate.key}" }}'
    with nats_cluster(3, f"{configuration}\n{tls}\n") as servers:
        one, two = (
            clients.make(f"tls://localhost:{server.port}", credentials=as_creds(creds), ca=certificate.file)
            for server in servers[:2]
        )
        await clients.are_connected(one, two)
        servers[0].stop(kill=True)
        await clients.until(lambda: len(clients.ups) == 3)
        await clients.are_connected(one, two)


async def test_server_that_may_not_be_used(clients: Clients) -> None:
    """
    A client that may not subscribe is told why, and tries again with longer and longer pauses.
    """
    users = "users: [ { user: ann, password: pw, permissions: { subscribe: { deny: secret } } } ]"
    with nats(f"authorization {{ {users} }}") as server:
        client = clients.make(f"nats://ann:pw@127.0.0.1:{server.port}")
        await clients.until(lambda: client.writable)
        client.subscribe(b"secret", lambda message: None)
        await clients.until(lambda: len(clients.downs) >= 3)
        assert all("Permissions Violation for Subscription" in reason for reason in clients.downs)


async def test_nobody_there(clients: Clients) -> None:
    """
    A port on which nobody listens, a name that does not exist, and a server that is not NATS do not stop a client from
    reaching the one that is there.
    """
    with nats() as server, socket.create_server(("127.0.0.1", 0)) as silent:
        silent_port = silent.getsockname()[1]
        urls = [f"{URL}:{free_port()}", "nats://none.invalid", f"{URL}:{silent_port}", server.url]
        client = clients.make(*urls)
        await clients.until(lambda: client.writable)


async def test_stop_while_connecting(clients: Clients) -> None:
    """
    A client that has not reached a server, or waits before it tries again, stops at once.
    """
    with socket.create_server(("127.0.0.1", 0)) as silent:
        clients.make(f"{URL}:{silent.getsockname()[1]}")
        clients.make(f"{URL}:{free_port()}")
        await clients.until(lambda: clients.downs)
        await clients.end()


def test_backoff() -> None:
    """
    The pauses grow, are different for different clients, and have an upper bound.
    """
    assert backoff(0, 1.0) == BACKOFF_FIRST
    assert backoff(0, 0.0) == BACKOFF_FIRST / 2
    assert backoff(1, 1.0) == 2 * BACKOFF_FIRST
    assert backoff(1000, 1.0) == BACKOFF_LAST
