"""
What has been sent and not been read, and time limits that a pause of the process must not end.
"""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.tcp import Server
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from dcm_ws.postgres.connection import DatabaseUnavailableError, deadline
from dcm_ws.websocket.connection import WebSocketConnection


def connection_on(transport: Any) -> WebSocketConnection:
    connection = WebSocketConnection()
    connection.transport = transport
    return connection


@pytest.mark.parametrize("wrapped", [False, True])
def test_bytes_that_wait_in_the_kernel(wrapped: bool) -> None:
    """
    A connection knows of bytes that have arrived and have not been read, and leaves them there.
    """
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        transport: Any = Server(near, None, ("", 0), None, 1, MemoryReactorClock())  # type: ignore[arg-type]
        connection = connection_on(transport)
        if wrapped:
            # as TLS has it
            wrapper = ProtocolWrapper(WrappingFactory(None), connection)  # type: ignore[arg-type]
            wrapper.transport = transport
            connection = connection_on(wrapper)
        assert not connection.has_unread()
        far.send(b"x")
        assert connection.has_unread()
        assert connection.has_unread()
        assert near.recv(10) == b"x"
        assert not connection.has_unread()
        far.close()
        assert not connection.has_unread()
        transport.connected = False
        assert not connection.has_unread()
    assert not connection_on(None).has_unread()


class Database:
    """
    A connection that waits for an answer.
    """

    def __init__(self) -> None:
        self.reactor = MemoryReactorClock()
        self.answer: Deferred[None] = Deferred()

    def close(self) -> None:
        self.answer.errback(Failure(ConnectionDone()))

    async def ask(self) -> None:
        with deadline(self, 3.0):  # type: ignore[arg-type]
            await self.answer


def test_database_that_does_not_answer() -> None:
    """
    Without an answer in time the connection is closed.
    """
    database = Database()
    asking = Deferred.fromCoroutine(database.ask())
    database.reactor.advance(2.9)
    assert not asking.called
    database.reactor.advance(0.2)
    failures: list[Failure] = []
    asking.addErrback(failures.append)
    assert failures[0].check(DatabaseUnavailableError)


def test_pause_is_not_the_databases_silence() -> None:
    """
    Where the process was stopped while it waited, the database has the whole time again, once for each pause.
    """
    database = Database()
    asking = Deferred.fromCoroutine(database.ask())
    for _ in range(3):
        database.reactor.advance(100)
        assert not asking.called
    database.reactor.advance(2.9)
    assert not asking.called
    database.answer.callback(None)
    assert asking.called
    assert database.reactor.getDelayedCalls() == []
