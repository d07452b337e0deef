"""
The connection to PostgreSQL under the reactor.
"""

from __future__ import annotations

import os
from typing import Any

import psycopg2
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from dcm_ws.postgres.connection import DatabaseConnection, DatabaseUnavailableError, Place, connect, deadline
from tests.integration.databases import PostgresServer
from tests.integration.machine import until


class Registrations:
    """
    The reactor, which counts how often something is registered for reading.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.count = 0

    def addReader(self, reader: Any) -> None:
        self.count += 1
        self._reactor.addReader(reader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


def descriptors() -> set[str]:
    """
    The open sockets of this process.
    """
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    return {os.readlink(link) + link for link in links if os.path.exists(link)}


@pytest_twisted.ensureDeferred
async def test_its_socket_stays_registered(database: PostgresServer) -> None:
    """
    Queries and notifications are read without a change to what the reactor watches.
    """
    from twisted.internet import reactor

    heard: Deferred[str] = Deferred()

    class Listener(DatabaseConnection):
        def checkForNotifies(self) -> None:
            if self.pollable().notifies:
                heard.callback(self.pollable().notifies.pop().payload)

    watched = Registrations(reactor)
    connection = Listener(watched)
    await connect(connection, Place(database.url), "test")
    registered = watched.count
    try:
        assert await connection.runQuery("select 1") == [(1,)]
        await connection.runOperation("listen heard")
        await database.run("notify heard, 'something'")
        assert await heard == "something"
        assert await connection.runQuery("select 2") == [(2,)]
        assert watched.count == registered
    finally:
        connection.close()


@pytest.mark.parametrize("busy", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_lost_connection_leaves_nothing(database: PostgresServer, busy: bool) -> None:
    """
    When the server ends a connection, the reactor no longer watches it, its sockets are closed, and the same object
    can connect again.
    """
    from twisted.internet import reactor

    # it keeps its session
    database.execute("select 1")
    watching, sockets = set(reactor.getReaders()), descriptors()
    connection = DatabaseConnection(reactor)
    for _ in range(2):
        lost: Deferred[str] = Deferred()
        connection.lost = lost.callback
        await connect(connection, Place(database.url), "test")
        query = connection.runQuery("select pg_sleep(60)") if busy else None
        await database.run("select pg_terminate_backend(%s)", connection.pollable().get_backend_pid())
        if query is not None:
            with pytest.raises(psycopg2.Error):
                await query
        else:
            assert "closed the connection" in await lost
        connection.close()
        assert set(reactor.getReaders()) == watching
        assert descriptors() == sockets


@pytest_twisted.ensureDeferred
async def test_closed_as_it_is_made(database: PostgresServer) -> None:
    """
    The server has accepted the connection, and nobody knows it yet, when a service that stops closes it: that is no
    fault, and nothing watches its socket.
    """
    from twisted.internet import reactor

    class Stopped(DatabaseConnection):
        def continuePolling(self, swallowErrors: bool = False) -> None:
            super().continuePolling(swallowErrors)
            if self._pollingD is None:
                self.close()

    watching = set(reactor.getReaders())
    with pytest.raises(DatabaseUnavailableError, match="the connection was closed while it was made"):
        await connect(Stopped(reactor), Place(database.url), "test")
    assert set(reactor.getReaders()) == watching


@pytest_twisted.ensureDeferred
async def test_the_time_is_over_as_the_answer_is_read(database: PostgresServer) -> None:
    """
    It is read, and nobody has got it, when the connection is closed: that is no other error than if it came later.
    """
    from twisted.internet import reactor

    connection = DatabaseConnection(reactor)
    await connect(connection, Place(database.url), "test")
    with pytest.raises(DatabaseUnavailableError, match="no answer within 0 s"), deadline(connection, 0.0):
        query = connection.runQuery("select 1")
        (cursor,) = connection._cursors

        def is_read() -> bool:
            if cursor._pollingD is not None:
                cursor.doRead()
            return cursor._pollingD is None

        until(is_read)
        await query
