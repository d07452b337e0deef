"""
Time limits that a pause of the process must not end.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from dcm_ws.postgres.connection import DatabaseUnavailableError, deadline


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
