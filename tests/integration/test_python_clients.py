"""
The clients for asyncio and for Twisted, against the real service: each test is one program, run with both.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate as TrustedCertificate
from twisted.internet.ssl import optionsForClientTLS, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from dcm_ws.app.settings import DEFAULT_SECRET
from dcm_ws.client import aio, backoff, errors, tx
from dcm_ws.client.events import Event
from tests.integration.certificates import Certificate
from tests.integration.databases import PostgresServer, postgres
from tests.integration.machine import free_port
from tests.integration.running import Service, service
from tests.integration.tokens import make_token

SECRET = "a secret that only these tests know about"


class Asyncio:
    """
    Runs a program with the client for asyncio, in a thread that has a loop.
    """

    @staticmethod
    def client(url: str, **options: Any) -> Any:
        return aio.DCMClient(url, **options)

    @staticmethod
    def trust(certificate: Path, host: str) -> Any:
        return ssl.create_default_context(cafile=str(certificate))

    @staticmethod
    def begin(call: Any) -> Any:
        return asyncio.ensure_future(call)

    @staticmethod
    async def connect(client: Any) -> None:
        await client.connect()

    @staticmethod
    async def close(client: Any) -> None:
        await client.close()

    @staticmethod
    async def until(condition: Callable[[], Any]) -> None:
        end = time.monotonic() + 15
        while not condition():
            assert time.monotonic() < end, "it did not happen in time"
            await asyncio.sleep(0.01)

    @staticmethod
    @contextlib.contextmanager
    def warnings() -> Iterator[list[str]]:
        texts: list[str] = []
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
        logger = logging.getLogger("dcm_ws.client")
        logger.addHandler(handler)
        # a command of dcm-ws that another test ran in this process has changed it
        level = logger.level
        logger.setLevel(logging.NOTSET)
        try:
            yield texts
        finally:
            logger.setLevel(level)
            logger.removeHandler(handler)

    @staticmethod
    def run(program: Callable[[], Awaitable[None]]) -> Deferred[None]:
        from twisted.internet.threads import deferToThread

        return deferToThread(asyncio.run, program())  # type: ignore[arg-type]


class InTwisted:
    """
    Runs it with the client for Twisted, in the tests' own reactor.
    """

    @staticmethod
    def client(url: str, **options: Any) -> Any:
        return tx.DCMClient(url, **options)

    @staticmethod
    def trust(certificate: Path, host: str) -> Any:
        trusted = TrustedCertificate.loadPEM(certificate.read_bytes())
        root = trustRootFromCertificates([trusted])
        return optionsForClientTLS(host, trustRoot=root)

    @staticmethod
    def begin(call: Any) -> Any:
        return Deferred.fromCoroutine(call) if asyncio.iscoroutine(call) else call

    @staticmethod
    async def connect(client: Any) -> None:
        client.startService()
        await client.when_connected()

    @staticmethod
    async def close(client: Any) -> None:
        if client.running:
            await client.stopService()

    @staticmethod
    async def until(condition: Callable[[], Any]) -> None:
        end = time.monotonic() + 15
        while not condition():
            assert time.monotonic() < end, "it did not happen in time"
            await deferLater(reactor, 0.01)

    @staticmethod
    @contextlib.contextmanager
    def warnings() -> Iterator[list[str]]:
        texts: list[str] = []

        @implementer(ILogObserver)
        def observe(event: Any) -> None:
            if event["log_level"] >= LogLevel.warn and event["log_namespace"].startswith("dcm_ws.client"):
                texts.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        try:
            yield texts
        finally:
            globalLogPublisher.removeObserver(observe)

    @staticmethod
    def run(program: Callable[[], Awaitable[None]]) -> Deferred[None]:
        return Deferred.fromCoroutine(program())  # type: ignore[arg-type]


class Way:
    """
    A way to the service that can be cut.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._ends: list[socket.socket] = []
        self._stalled: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}/ws"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._port))
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                if one not in self._stalled:
                    other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """
        From now on, nothing passes on the connections that there are.
        """
        self._stalled = list(self._ends)

    def cut(self) -> None:
        """
        End all connections.
        """
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """
        End it all.
        """
        self._listener.close()
        self.cut()


@pytest.fixture(params=[Asyncio, InTwisted], ids=["asyncio", "Twisted"])
def world(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    with postgres() as found:
        yield found


@pytest.fixture(scope="module")
def running(database: PostgresServer) -> Iterator[Service]:
    with service("--database-url", database.url, "--ack-timeout", "0.3", "--retry-interval", "0.1") as found:
        yield found


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A short back-off.
    """
    monkeypatch.setattr(backoff, "BACKOFF_BASE", 0.05)


def at(running: Service) -> str:
    return f"ws://127.0.0.1:{running.port}/ws"


async def played(world: Any, *clients: Any, program: Callable[[], Awaitable[None]]) -> None:
    """
    Run C{program}, and close the clients whatever becomes of it.
    """

    async def whole() -> None:
        try:
            await program()
        finally:
            for client in clients:
                await world.close(client)

    await world.run(whole)


@pytest_twisted.ensureDeferred
async def test_publish_and_hear(world: Any, running: Service, database: PostgresServer) -> None:
    """
    What a client publishes, and what the database says, comes to handlers that asked for it.
    """
    came: list[Any] = []
    client = world.client(at(running), channels=["topics/t"])
    client.on("task.*", came.append)
    client.on("*", lambda event: came.append(event.channel), channel="global")

    async def program() -> None:
        await world.connect(client)
        assert client.state == "connected"
        name = await client.publish("topics/t", "task.created", {"n": 1})
        await world.until(lambda: came)
        event = came.pop()
        assert (event.id, event.channel, event.event, event.data) == (name, "topics/t", "task.created", {"n": 1})
        assert event.tracked
        await client.subscribe("global")
        database.notify(json.dumps({"channel": "topics/t", "event": "pipeline.begun", "data": None}))
        await world.until(lambda: came)
        assert came == ["global"]
        assert 0 < await client.ping() < 5
        await client.unsubscribe("topics/t")
        assert "topics/t" not in running.stats()["channelStats"]

    await played(world, client, program=program)


@pytest_twisted.ensureDeferred
async def test_publish_once(world: Any, running: Service) -> None:
    """
    A publish that is repeated with the same key, also on another connection, returns the first event.
    """
    clients = [world.client(at(running), agent_id="ann") for _ in range(2)]
    # the service has served others
    key = str(uuid4())

    async def program() -> None:
        published = []
        for client in clients:
            await world.connect(client)
            published.append(await client.publish("topics/once", "task.created", 1, key=key))
        first, again = published
        assert (first, first.pos, first.duplicate) == (again, again.pos, False)
        assert first.pos > 0
        assert again.duplicate
        other = await clients[0].publish("topics/once", "metric.update", 1, key=f"{key} 2")
        assert (other.pos, other.duplicate) == (None, False)
        with pytest.raises(errors.InvalidMessageError):
            await clients[0].publish("topics/once", "task.created", key="x" * 129)

    await played(world, *clients, program=program)


@pytest.mark.parametrize(
    ("call", "error", "code"),
    [
        (lambda client: client.subscribe("nonsense"), errors.InvalidChannelError, "INVALID_CHANNEL"),
        (lambda client: client.subscribe("agents/bob"), errors.NotAuthorizedError, "NOT_AUTHORIZED"),
        (lambda client: client.publish("global", "no.such"), errors.InvalidEventError, "INVALID_EVENT"),
        (lambda client: client.publish("global", "x"), errors.InvalidEventError, "INVALID_EVENT"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_refusals(world: Any, running: Service, call: Any, error: type[errors.RefusedError], code: str) -> None:
    """
    What the server refuses is an error of a class for its code.
    """
    client = world.client(at(running))

    async def program() -> None:
        await world.connect(client)
        with pytest.raises(error) as refused:
            await call(client)
        assert refused.value.code == code
        assert refused.value.frame["success"] is False

    await played(world, client, program=program)


@pytest_twisted.ensureDeferred
async def test_without_a_connection(world: Any) -> None:
    """
    Without a connection asking fails at once, and subscribing waits.
    """
    client = world.client("ws://127.0.0.1:1/ws")

    async def program() -> None:
        with pytest.raises(errors.NotConnectedError):
            await client.publish("global", "system.info")
        with pytest.raises(errors.NotConnectedError):
            await client.ping()
        await client.subscribe("topics/later")
        assert client.channels == ["global", "topics/later"]

    await played(world, client, program=program)
    with pytest.raises(ValueError, match="not the address of a WebSocket"):
        world.client("http://127.0.0.1/")


@pytest_twisted.ensureDeferred
async def test_acknowledged_when_it_has_been_dealt_with(
    world: Any, running: Service, no_logged_failures: list[Any]
) -> None:
    """
    An event whose handler fails is not acknowledged, and comes again.
    """
    calls: list[Any] = []
    client = world.client(at(running), channels=["topics/f"])

    async def handler(event: Event) -> None:
        calls.append(event.id)
        if len(calls) == 1:
            raise ValueError("not now")

    client.on("task.*", handler)

    async def program() -> None:
        await world.connect(client)
        await client.publish("topics/f", "task.created", 1)
        await world.until(lambda: len(calls) == 2 and not running.stats()["pendingDeliveries"])
        assert calls[0] == calls[1]
        no_logged_failures.clear()

    await played(world, client, program=program)


@pytest_twisted.ensureDeferred
async def test_observers(world: Any, running: Service) -> None:
    """
    An observer receives events, acknowledges none, owes nothing, and is not its agent's presence.
    """
    heard: list[Event] = []
    observer = world.client(at(running), agent_id="watched", channels=["topics/o", "global"], observer=True)
    observer.on("task.*", heard.append)
    speaking = world.client(at(running), channels=[])

    async def program() -> None:
        await world.connect(observer)
        await world.connect(speaking)
        before = running.stats()
        assert (before["observers"], before["agentStats"]) == (1, {})
        await speaking.publish("topics/o", "task.created", 1)
        await world.until(lambda: heard)
        await observer.ping()
        after = running.stats()
        assert after["pendingDeliveries"] == 0
        assert after["deliveries"]["acked"] == before["deliveries"]["acked"]

    await played(world, observer, speaking, program=program)


@pytest_twisted.ensureDeferred
async def test_async_for(world: Any, running: Service) -> None:
    """
    Events come one by one; each is acknowledged when the next is asked for; publishing in between works however many
    wait; the loop ends with the client.
    """
    client = world.client(at(running), channels=["topics/loop"], queue_max=10)
    heard: list[int] = []

    async def program() -> None:
        await world.connect(client)
        events = client.events("task.*")
        pending = [world.begin(client.publish("topics/loop", "task.created", n)) for n in range(50)]
        async for event in events:
            heard.append(event.data)
            if event.data == 0:
                for answer in pending:
                    await answer
            await client.publish("topics/other", "system.info", event.data)
            if len(heard) == 50:
                break
        await events.aclose()
        assert heard == list(range(50))
        # the last one was left by break
        await world.until(lambda: running.stats()["pendingDeliveries"] <= 1)

    await played(world, client, program=program)


@pytest_twisted.ensureDeferred
async def test_closed_while_much_is_on_its_way(world: Any, running: Service) -> None:
    """
    Closing takes effect at once; each pending request has been answered or fails with NOT_CONNECTED.
    """
    clients = [world.client(at(running), channels=["topics/busy"]) for _ in range(20)]
    told: list[str] = []

    async def program() -> None:
        for number, client in enumerate(clients):
            client.on("*", lambda event: None)
            await world.connect(client)
            asked = [world.begin(client.publish("topics/busy", "system.info", one)) for one in range(20)]
            if number % 2:
                await client.ping()
            await world.close(client)
            assert client.state == "closed"
            for answer in asked:
                try:
                    told.append(await answer)
                except errors.NotConnectedError as error:
                    told.append(error.code)
        assert len(told) == 400

    await played(world, *clients, program=program)


@pytest_twisted.ensureDeferred
async def test_cut_connection(world: Any, running: Service, agent: str) -> None:
    """
    A connection that is cut is made again, with its subscriptions; an agent gets what it missed.
    """
    way = Way(running.port)
    states: list[str] = []
    came: list[Any] = []
    client = world.client(way.url, agent_id=agent, channels=["topics/cut"])
    client.on_state(states.append)
    client.on("task.*", lambda event: came.append(event.data))

    async def program() -> None:
        await world.connect(client)
        assert client.agent_id == agent
        way.cut()
        await world.until(lambda: states.count("connected") == 2)
        await client.publish("topics/cut", "task.created", "after")
        await world.until(lambda: came)
        assert came == ["after"]
        assert states == ["connecting", "connected", "waiting", "connecting", "connected"]

    try:
        await played(world, client, program=program)
    finally:
        way.close()


@pytest_twisted.ensureDeferred
async def test_restart(world: Any) -> None:
    """
    A restart of the service is survived, and so is a time in which there is none.
    """
    port = free_port()
    states: list[str] = []
    came: list[Any] = []
    client = world.client(f"ws://127.0.0.1:{port}/ws", channels=["topics/r"])
    client.on_state(states.append)
    client.on("*", lambda event: came.append(event.data))
    codes: list[Any] = []
    client.on_state(lambda state: codes.append(client.last_close) if state == "waiting" else None)

    async def program() -> None:
        with service("--ws-port", str(port), "--drain", "0.1") as first:
            await world.connect(client)
            first.stop()
            await world.until(lambda: states.count("waiting") >= 3)
        assert codes[0][0] == 1012
        with service("--ws-port", str(port)):
            await world.until(lambda: states[-1] == "connected")
            await client.publish("topics/r", "system.info", "again")
            await world.until(lambda: came)
            await world.close(client)
        assert states[-1] == "closed"

    await played(world, client, program=program)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Service]:
    options: tuple[str, ...] = (
        "--production",
        "--database-url",
        "postgresql://nobody@127.0.0.1:1/none",
        "--enforce-expiry",
    )
    # nobody can know whether that database has a log, which a client that resumes would wait for
    options = (*options, "--log", "memory")
    with service(*options, "--auth-timeout", "0.5", env={"WS_AUTH_SECRET": SECRET}, wait="listening on") as found:
        yield found


@pytest_twisted.ensureDeferred
async def test_tokens(world: Any, guarded: Service) -> None:
    """
    A token opens, and so does what gets one, which is asked again when a token has expired; a wrong one ends it.
    """
    asked: list[str] = []

    def fresh() -> str:
        asked.append(make_token("eve", secret=SECRET, seconds=3600 if asked else 1))
        return asked[-1]

    fixed = world.client(at(guarded), token=make_token("ann", secret=SECRET))
    renewed = world.client(at(guarded), token=fresh)
    wrong = world.client(at(guarded), token="wrong")
    nobody = world.client(at(guarded), channels=[])

    async def program() -> None:
        await world.connect(fixed)
        assert fixed.agent_id == "ann"
        await world.connect(renewed)
        await world.until(lambda: len(asked) == 2 and renewed.state == "connected")
        assert renewed.last_close[0] == 4001
        with pytest.raises(errors.ClosedError):
            await world.connect(wrong)
        assert wrong.state == "closed"

    await played(world, fixed, renewed, wrong, nobody, program=program)


@pytest_twisted.ensureDeferred
async def test_tls(world: Any, tmp_path: Path) -> None:
    """
    Over TLS the server must be who the URL says.
    """
    certificate = Certificate(tmp_path)
    port = free_port()
    good = world.client(f"wss://127.0.0.1:{port}/ws", tls=world.trust(certificate.file, "127.0.0.1"))
    untrusted = world.client(f"wss://127.0.0.1:{port}/ws")
    misnamed = world.client(f"wss://localhost:{port}/ws", tls=world.trust(certificate.file, "localhost"))
    states: list[str] = []
    for refusing in (untrusted, misnamed):
        refusing.on_state(states.append)

    async def program() -> None:
        await world.connect(good)
        assert await good.ping() > 0
        for refusing in (untrusted, misnamed):
            states.clear()
            connecting = world.begin(refusing.connect()) if world is Asyncio else refusing.startService()
            await world.until(lambda: states.count("waiting") >= 2)
            assert "connected" not in states
            if connecting is not None:
                connecting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await connecting

    with service("--listen", certificate.endpoint(port)):
        await played(world, good, untrusted, misnamed, program=program)


@pytest_twisted.ensureDeferred
async def test_many_channels(world: Any) -> None:
    """
    Very many subscriptions stay within the server's rate limit.
    """
    channels = [f"topics/many-{n}" for n in range(150)]

    async def program() -> None:
        await world.connect(client)
        assert strict.stats()["activeChannels"] == 150

    with service("--rate-limit", "200/s", "--rate-burst", "50") as strict:
        client = world.client(at(strict), channels=channels)
        await played(world, client, program=program)


@pytest_twisted.ensureDeferred
async def test_what_is_wanted_while_it_subscribes(world: Any) -> None:
    """
    Channels that the user takes or leaves while the client is still subscribing to the others are taken and left.
    """
    channels = [f"topics/many-{n}" for n in range(150)]

    async def program() -> None:
        connecting = world.begin(world.connect(client))
        await world.until(lambda: "topics/many-0" in strict.stats()["channelStats"])
        assert client.state == "connecting"
        await client.subscribe("topics/late")
        await client.unsubscribe("topics/many-0")
        await connecting
        found = strict.stats()["channelStats"]
        assert "topics/late" in found
        assert "topics/many-0" not in found

    with service("--rate-limit", "200/s", "--rate-burst", "50") as strict:
        client = world.client(at(strict), channels=channels)
        await played(world, client, program=program)


@pytest_twisted.ensureDeferred
async def test_cut_while_it_subscribes(world: Any) -> None:
    """
    A connection that ends while the client is still subscribing does no harm to the next one.
    """
    states: list[str] = []

    async def program() -> None:
        connecting = world.begin(world.connect(client))
        await world.until(lambda: strict.stats()["activeChannels"] >= 50)
        way.cut()
        await connecting
        assert states == ["connecting", "waiting", "connecting", "connected"]
        assert strict.stats()["activeChannels"] == 150
        assert client.state == "connected"

    with service("--rate-limit", "200/s", "--rate-burst", "50") as strict:
        way = Way(strict.port)
        client = world.client(way.url, channels=[f"topics/many-{n}" for n in range(150)])
        client.on_state(states.append)
        try:
            await played(world, client, program=program)
        finally:
            way.close()


@pytest_twisted.ensureDeferred
async def test_a_loop_that_is_left(world: Any, running: Service) -> None:
    """
    Who leaves C{async for} by C{break} and forgets the iterator holds up nobody else.
    """
    client = world.client(at(running), channels=["topics/left"], queue_max=5)
    heard: list[int] = []
    client.on("system.*", lambda event: heard.append(event.data))

    async def program() -> None:
        await world.connect(client)
        events = client.events()
        await client.publish("topics/left", "system.info", 0)
        async for _ in events:
            break
        del events
        gc.collect()
        for number in range(1, 30):
            await client.publish("topics/left", "system.info", number)
        await world.until(lambda: heard == list(range(30)))

    await played(world, client, program=program)


@pytest_twisted.ensureDeferred
async def test_an_iterator_that_is_closed_by_another(world: Any, running: Service) -> None:
    """
    Whoever waits for the next event hears that there will be none.
    """
    client = world.client(at(running))

    async def program() -> None:
        await world.connect(client)
        events = client.events("task.*")

        async def wait() -> list[Any]:
            return [event async for event in events]

        waiting = world.begin(wait())
        await client.ping()
        await events.aclose()
        assert await waiting == []
        waiting = world.begin(wait())
        assert await waiting == []

    await played(world, client, program=program)


@pytest_twisted.ensureDeferred
async def test_connecting_after_closing(world: Any, running: Service) -> None:
    """
    A client that was closed can be used again.
    """
    client = world.client(at(running), channels=["topics/again"])
    heard: list[Any] = []
    client.on("*", heard.append)

    async def program() -> None:
        for number in range(3):
            await world.connect(client)
            await client.publish("topics/again", "task.created", number)
            await world.until(lambda number=number: len(heard) == number + 1)
            await world.close(client)
            assert client.state == "closed"

    await played(world, client, program=program)


@pytest_twisted.ensureDeferred
async def test_cut_while_much_waits(world: Any, running: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A connection that ends while as many events wait as may is made again all the same.
    """
    # who does not read finds out by writing
    monkeypatch.setattr(tx, "ALIVE", 0.2)
    way = Way(running.port)
    states: list[str] = []
    heard: list[Any] = []
    gate: list[bool] = []
    client = world.client(way.url, channels=["topics/full"], queue_max=2)
    client.on_state(states.append)

    async def handler(event: Event) -> None:
        heard.append(event.data)
        await world.until(lambda: gate)

    client.on("system.*", handler)
    speaking = world.client(at(running), channels=[])

    async def program() -> None:
        await world.connect(client)
        await world.connect(speaking)
        for number in range(5):
            await speaking.publish("topics/full", "system.info", number)
        await world.until(lambda: heard)
        way.cut()
        await world.until(lambda: states.count("connected") == 2)
        gate.append(True)
        await speaking.publish("topics/full", "system.info", "after")
        await world.until(lambda: "after" in heard)

    try:
        await played(world, client, speaking, program=program)
    finally:
        way.close()


@pytest.mark.parametrize("problem", [ValueError, asyncio.CancelledError])
@pytest_twisted.ensureDeferred
async def test_a_handler_that_breaks(
    world: Any, running: Service, problem: type[BaseException], no_logged_failures: list[Any]
) -> None:
    """
    The events after the one at which a handler fails, in whatever way, are handled.
    """
    heard: list[int] = []
    client = world.client(at(running), channels=["topics/broken"])

    async def handler(event: Event) -> None:
        heard.append(event.data)
        if len(heard) == 1:
            raise problem("not this one")

    client.on("system.*", handler)

    async def program() -> None:
        await world.connect(client)
        for number in range(3):
            await client.publish("topics/broken", "system.info", number)
        await world.until(lambda: heard == [0, 1, 2])
        no_logged_failures.clear()

    await played(world, client, program=program)


@pytest_twisted.ensureDeferred
async def test_a_watcher_that_fails(world: Any, running: Service, no_logged_failures: list[Any]) -> None:
    """
    It keeps neither the client from connecting nor other watchers from hearing.
    """
    states: list[str] = []
    client = world.client(at(running))
    leave = client.on_state(lambda state: 1 / 0)
    client.on_state(states.append)

    async def program() -> None:
        await world.connect(client)
        leave()
        leave()
        assert states == ["connecting", "connected"]
        no_logged_failures.clear()

    await played(world, client, program=program)


@pytest_twisted.ensureDeferred
async def test_closed_by_a_handler(world: Any, running: Service) -> None:
    """
    A handler may close the client, and goes on.
    """
    told: list[str] = []
    client = world.client(at(running), channels=["topics/close"])

    async def handler(event: Event) -> None:
        await world.close(client)
        await world.until(lambda: client.state == "closed")
        told.append("closed")

    client.on("system.*", handler)

    async def program() -> None:
        await world.connect(client)
        speaking = world.client(at(running), channels=[])
        await world.connect(speaking)
        await speaking.publish("topics/close", "system.info")
        await world.until(lambda: told)
        await world.close(speaking)

    await played(world, client, program=program)


@pytest_twisted.ensureDeferred
async def test_what_is_no_json(world: Any, running: Service) -> None:
    """
    What cannot be said in JSON is an error and does no harm; other alphabets need no more room than they take.
    """
    client = world.client(at(running))

    async def program() -> None:
        await world.connect(client)
        for data in (object(), float("nan")):
            with pytest.raises((TypeError, ValueError)):
                await client.publish("global", "system.info", data)
        assert await client.publish("global", "system.info", "ж" * 400_000)
        assert await client.ping() > 0

    await played(world, client, program=program)


@pytest_twisted.ensureDeferred
async def test_errors_that_nobody_waits_for(world: Any, running: Service) -> None:
    """
    Refused subscriptions and errors that answer no request are reported to the watchers of errors.
    """
    told: list[errors.DCMError] = []
    client = world.client(at(running), channels=["agents/bob", "nonsense", "topics/fine"])
    client.on_error(told.append)

    async def program() -> None:
        await world.connect(client)
        found = sorted((error.channel, error.code) for error in told if isinstance(error, errors.RefusedError))
        assert found == [("agents/bob", "NOT_AUTHORIZED"), ("nonsense", "INVALID_CHANNEL")]
        assert running.stats()["channelStats"]["topics/fine"] == 1

    await played(world, client, program=program)


@pytest_twisted.ensureDeferred
async def test_a_name_that_cannot_be(world: Any, running: Service) -> None:
    """
    What would be refused each time ends it, with the reason.
    """
    client = world.client(at(running), agent_id="no\nname")

    async def program() -> None:
        with pytest.raises(errors.ClosedError, match="agent_id"):
            await world.connect(client)
        assert client.state == "closed"

    await played(world, client, program=program)


@pytest_twisted.ensureDeferred
async def test_why_there_is_no_connection(world: Any, running: Service) -> None:
    """
    C{last_close} says why, whatever kept it from connecting.
    """
    nobody = world.client(f"ws://127.0.0.1:{free_port()}/ws")
    elsewhere = world.client(f"ws://127.0.0.1:{running.port}/nowhere")
    closes: list[Any] = []

    async def program() -> None:
        for client in (nobody, elsewhere):
            client.on_state(lambda state, client=client: closes.append(client.last_close) if state == "waiting" else 0)
            connecting = world.begin(world.connect(client))
            await world.until(lambda: closes)
            await world.close(client)
            with pytest.raises((errors.ClosedError, asyncio.CancelledError)):
                await connecting
            assert re.search("refused|404", closes.pop()[1])
            closes.clear()

    await played(world, nobody, elsewhere, program=program)


@pytest_twisted.ensureDeferred
async def test_a_connection_that_fails_is_logged(world: Any) -> None:
    """
    The log says which URL cannot be reached, why, and when it is tried again: at the first failure, not at each.
    """
    url = f"ws://127.0.0.1:{free_port()}/ws"
    client = world.client(url)
    attempts: list[Any] = []
    client.on_state(lambda state: attempts.append(state) if state == "waiting" else None)

    async def program() -> None:
        connecting = world.begin(world.connect(client))
        await world.until(lambda: len(attempts) > 2)
        await world.close(client)
        with pytest.raises((errors.ClosedError, asyncio.CancelledError)):
            await connecting

    with world.warnings() as warnings:
        await played(world, client, program=program)
    (warning,) = warnings
    assert re.fullmatch(
        rf"{re.escape(url)}: connection refused: nothing listens there; next attempt in \d\.\d s", warning
    )


@pytest_twisted.ensureDeferred
async def test_what_a_close_ends_says_why(world: Any, running: Service) -> None:
    """
    A message that is too large ends the connection, and every request on it fails with the close code and the reason.
    """
    client = world.client(at(running), channels=[])
    results: list[Any] = []

    async def publish(data: object) -> None:
        try:
            await client.publish("topics/large", "system.info", data)
        except errors.NotConnectedError as error:
            results.append(error)

    async def program() -> None:
        await world.connect(client)
        publishing = [world.begin(publish(data)) for data in ("x" * 3_000_000, 1, 2, 3)]
        for one in publishing:
            await one
        assert [error.close_code for error in results] == [1009] * 4
        assert {str(error) for error in results} == {
            "connection closed: 1009 Message too large; there was no answer yet"
        }
        await world.until(lambda: warnings)

    with world.warnings() as warnings:
        await played(world, client, program=program)
    assert [warning.partition("; ")[0] for warning in warnings] == [
        f"{client.url}: connection closed: 1009 Message too large"
    ]


@pytest_twisted.ensureDeferred
async def test_closing_is_normal(world: Any, running: Service) -> None:
    """
    A client that its user closes says 1000: another code would read as a failure in the service's log.
    """
    client = world.client(at(running), agent_id="leaver")

    async def program() -> None:
        await world.connect(client)

    await played(world, client, program=program)
    running.read_log_until("(leaver, close code ")
    assert "(leaver, close code 1000)" in running.log


@pytest_twisted.ensureDeferred
async def test_no_proxy_for_this_machine(world: Any, running: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A proxy in the environment is not asked for a service on a loopback address.
    """
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    clients = [world.client(f"ws://{host}:{running.port}/ws") for host in ("127.0.0.1", "localhost")]

    async def program() -> None:
        for client in clients:
            await world.connect(client)
            assert client.last_close is None

    await played(world, *clients, program=program)


@pytest_twisted.ensureDeferred
async def test_a_token_that_does_not_come(world: Any, running: Service) -> None:
    """
    It is waited for as long as for an answer, and then asked for again.
    """
    asked: list[float] = []

    async def token() -> str:
        asked.append(time.monotonic())
        if len(asked) == 1:
            await world.until(lambda: False)
        return make_token("ann", secret=DEFAULT_SECRET)

    client = world.client(at(running), token=token, timeout=3)

    async def program() -> None:
        await world.connect(client)
        assert len(asked) == 2
        assert "there is no token" in client.last_close[1]

    await played(world, client, program=program)


@pytest_twisted.ensureDeferred
async def test_closing_over_tls_while_much_waits(world: Any, tmp_path: Path) -> None:
    """
    A client that has stopped reading is closed at once, too.
    """
    certificate = Certificate(tmp_path)
    port = free_port()
    client = world.client(f"wss://127.0.0.1:{port}/ws", tls=world.trust(certificate.file, "127.0.0.1"), queue_max=1)
    inbox = None

    async def program() -> None:
        nonlocal inbox
        await world.connect(client)
        inbox = client.events()
        for number in range(3):
            await client.publish("global", "system.info", number)
        await world.close(client)
        assert client.state == "closed"
        assert secure.stats()["connectedClients"] == 0

    options = ("--listen", certificate.endpoint(port))
    plain = free_port()
    with service(*options, "--listen", f"tcp:{plain}:interface=127.0.0.1") as secure:
        secure.port = plain
        await played(world, client, program=program)


def test_asyncio_without_a_reactor() -> None:
    """
    A program that runs asyncio gets no reactor of Twisted's.
    """
    program = "import sys, dcm_ws.client.aio; sys.exit('twisted.internet.reactor' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_examples(running: Service) -> None:
    """
    The examples of the documentation, one answering the other.
    """
    examples = Path(__file__).parents[2] / "docs" / "examples"
    command = [sys.executable, str(examples / "client_asyncio.py"), at(running)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as echo:
        assert echo.stdout is not None
        assert echo.stdout.readline() == "ready\n"
        asked = subprocess.run(
            [sys.executable, str(examples / "client_twisted.py"), at(running)],
            check=True,
            timeout=30,
            stdout=subprocess.PIPE,
            text=True,
        )
        echo.kill()
    assert asked.stdout == "echo has read: is anybody there?\n"
