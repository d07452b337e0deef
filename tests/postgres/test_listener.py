"""
The database listener on a real PostgreSQL: when it pauses, and when it reports that it listens.
"""

from __future__ import annotations

import itertools
import json
import socket
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from dcm_ws.postgres.connection import Place
from dcm_ws.postgres.inbox import INBOX_MAX
from dcm_ws.postgres.listener import NotifyListener
from tests.integration.databases import PostgresServer
from tests.integration.machine import until
from tests.integration.running import service

pytestmark = pytest.mark.integration

BURST = 3 * INBOX_MAX


class Reader:
    """
    Receives the notifications of a burst.

    @ivar read: the numbers received so far.
    @ivar most_waiting: how many notifications waited in the inbox at most.
    @ivar done: fires when all have been received.
    """

    def __init__(self) -> None:
        self.read: list[int] = []
        self.most_waiting = 0
        self.done: Deferred[None] = Deferred()
        self.listener: NotifyListener

    def heard(self, payload: str) -> None:
        waiting = self.listener.report()["waiting"]
        assert isinstance(waiting, int)
        self.most_waiting = max(self.most_waiting, waiting)
        self.read.append(json.loads(payload))
        if len(self.read) == BURST:
            self.done.callback(None)


@pytest_twisted.async_yield_fixture
async def reader(database: PostgresServer) -> AsyncIterator[Reader]:
    """
    A listener that hands on only a few notifications in each turn of the reactor, as behind a busy service.
    """
    from twisted.internet import reactor

    async def address() -> Place:
        return Place(database.url)

    reader = Reader()
    # every look at the clock finds that a second has passed, so the time slice of the turn is used up at the first look
    clock = itertools.count()
    reader.listener = NotifyListener(
        reactor,
        address,
        heard=reader.heard,
        together=lambda step: step(),
        changed=lambda up: None,
        written=lambda seconds, count: None,
        probed=lambda seconds: None,
        now=lambda: float(next(clock)),
        random=lambda: 0.5,
    )
    reader.listener.startService()
    await reader.listener.up
    yield reader
    await reader.listener.stopService()


@pytest_twisted.ensureDeferred
async def test_reading_pauses_and_resumes(database: PostgresServer, reader: Reader) -> None:
    """
    A burst that comes faster than it is published pauses reading when the inbox is full; reading resumes when it is
    nearly empty, and nothing is lost or out of order.
    """
    await database.run("select pg_notify('dcm_events', n::text) from generate_series(1, %s) n", BURST)
    await reader.done
    assert reader.read == list(range(1, BURST + 1))
    pauses = reader.listener.report()["pauses"]
    assert isinstance(pauses, int) and pauses >= 2
    # what one read brings may exceed the limit
    assert INBOX_MAX < reader.most_waiting < INBOX_MAX * 1.2


class HeldBack:
    """
    A TCP proxy for one connection to PostgreSQL that keeps the LISTEN until it is released.

    @ivar port: where it listens.
    @ivar listen: set when the client has sent its LISTEN.
    @ivar released: when set, everything is forwarded.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self.listen = threading.Event()
        self.released = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            threading.Thread(target=self._forward, args=(near, far), daemon=True).start()
            threading.Thread(target=self._forward, args=(far, near), daemon=True).start()

    def _forward(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(1 << 16):
                if b"listen dcm_events" in data.lower():
                    self.listen.set()
                    self.released.wait()
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            one.close()
            other.close()


def test_up_means_listening(database: PostgresServer) -> None:
    """
    The database is "up" only after PostgreSQL has confirmed the LISTEN: a NOTIFY before that would be lost.
    """
    link = HeldBack(database.port)
    url = f"postgresql://dcm@127.0.0.1:{link.port}/postgres"
    try:
        with service("--database-url", url, "--ready-needs-database", wait="listening on") as running:
            assert link.listen.wait(20)
            assert running.health()["database"]["state"] == "connecting"
            assert running.get("/readyz")[0] == 503
            assert "database up" not in running.log
            link.released.set()
            until(lambda: running.health()["database"]["state"] == "up")
    finally:
        link.close()
