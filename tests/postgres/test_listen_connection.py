"""
The connection that LISTENs, on a real PostgreSQL.
"""

from __future__ import annotations

import fcntl
import os
import signal
import termios
from array import array
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater

from dcm_ws.postgres import listen_connection
from dcm_ws.postgres.connection import Place
from dcm_ws.postgres.listen_connection import ListenConnection
from tests.integration.databases import PostgresServer
from tests.integration.machine import until

pytestmark = pytest.mark.integration


async def test_notifications_with_the_result_of_a_query(database: PostgresServer) -> None:
    """
    Notifications that arrive together with the result of a query on the same connection, as during a probe, are heard
    at once, and not when something else arrives.
    """
    from twisted.internet import reactor

    heard: list[str] = []
    connection = ListenConnection(reactor, heard.extend, "dcm_ws_echo_test", lambda grown: None)
    await connection.listen(Place(database.url))
    # a query may only be sent in another turn than that in which the last one was answered
    await deferLater(reactor, 0)
    try:
        with unanswered(connection):
            query = connection.runQuery("select 1")
        # nothing is read before the reactor runs again
        until(lambda: unread(connection) > 0)
        answer = unread(connection)
        database.notify("one", "two")
        until(lambda: unread(connection) > answer)
        await query
        # in the same turn as the answer, or the next
        await deferLater(reactor, 0)
        assert heard == ["one", "two"]
    finally:
        connection.close()


async def test_it_is_closed_while_it_is_probed(database: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The query fails, and so nobody waits for the notification: it must not fail, too, which would be logged.
    """
    from twisted.internet import reactor

    connection = ListenConnection(reactor, lambda payloads: None, "dcm_ws_echo_test", lambda grown: None)
    await connection.listen(Place(database.url))
    await deferLater(reactor, 0)
    arrivals: list[Deferred[BaseException | None]] = []
    expect = connection._expect

    def expects() -> Deferred[BaseException | None]:
        arrivals.append(expect())
        return arrivals[-1]

    monkeypatch.setattr(connection, "_expect", expects)
    with unanswered(connection):
        probing = Deferred.fromCoroutine(connection.probe())
        connection.close()
    with pytest.raises(ConnectionDone):
        await probing
    assert isinstance(await arrivals[0], ConnectionDone)


async def test_the_server_ends_it_if_nobody_reads(database: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As when the process is stopped, or the network is cut.
    """
    from twisted.internet import reactor

    connection = ListenConnection(reactor, lambda payloads: None, "dcm_ws_echo_test", lambda grown: None)
    await connection.listen(Place(database.url))
    # a query may only be sent in another turn than that in which the last one was answered
    await deferLater(reactor, 0)
    ((timeout, idle),) = await connection.runQuery(
        "select current_setting('tcp_user_timeout'), current_setting('tcp_keepalives_idle')"
    )
    connection.close()
    assert (timeout, idle) == ("60000", "10")
    monkeypatch.setattr(listen_connection, "SETTINGS", "set tcp_user_timeout = '500ms'")
    connection = ListenConnection(reactor, lambda payloads: None, "dcm_ws_echo_test", lambda grown: None)
    await connection.listen(Place(database.url))
    backend = connection.pollable().info.backend_pid
    # more than the buffers on the way take; the reactor does not run meanwhile
    await database.run("select pg_notify('dcm_events', n || repeat('x', 7900)) from generate_series(1, 3000) as n")
    until(lambda: database.execute("select from pg_stat_activity where pid = %s", backend) == [])
    connection.close()


@contextmanager
def unanswered(connection: ListenConnection) -> Iterator[None]:
    """
    What is asked meanwhile is answered later.  An answer that is there at once is read in the turn of the question.
    """
    backend = connection.pollable().info.backend_pid
    os.kill(backend, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(backend, signal.SIGCONT)


def unread(connection: ListenConnection) -> int:
    """
    Bytes that have arrived.
    """
    size = array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.FIONREAD, size)
    return size[0]
