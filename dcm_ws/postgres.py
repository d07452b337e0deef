"""
The bridge from PostgreSQL: a connection of its own that LISTENs, comes back for ever, and is never silently dead
(protocol, section 7).

txpostgres hands notifications on out of order and reports an idle connection's loss as an unhandled error; the small
connection class here mends both.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import contextmanager, suppress
from enum import Enum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from txpostgres.txpostgres import Connection

if TYPE_CHECKING:
    from collections.abc import Iterator

CHANNEL = "dcm_events"
"""
What is LISTENed to.
"""

CONNECT_TIMEOUT = 10.0
PROBE_INTERVAL = 5.0
PROBE_TIMEOUT = 3.0
BACKOFF_FIRST = 0.1
BACKOFF_LAST = 10.0
INBOX_MAX = 10_000
"""
Notifications that may wait to be published; past it the database is not read from until they have been.
"""

_INBOX_LOW = INBOX_MAX // 10
_SLICE_SECONDS = 0.005
_SLICE_CHECK = 16

# Noticed within ten seconds, idle or not: keepalives for the one, the user time-out for the other.
_ALIVE = {
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "8000",
    "client_encoding": "UTF8",
}


class DatabaseUnavailableError(Exception):
    """
    There is no database to connect to now; the text says why, in one line.
    """


DatabaseError = (
    psycopg2.Error,
    ConnectionDone,
    ConnectionLost,
    OSError,
    DatabaseUnavailableError,
)
"""
What a connection to the database may end with.
"""

Address = Callable[[], Awaitable[str]]
"""
Where the database is, as a connection string, once it may be connected to.
"""


class DatabaseState(Enum):
    CONNECTING = "connecting"
    UP = "up"
    DOWN = "down"
    STOPPED = "stopped"


class DatabaseConnection(Connection):  # type: ignore[misc]
    """
    A connection whose loss is told once, without a word in the log.

    @ivar lost: called with the reason when the connection has ended.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor=reactor)
        self.lost: Callable[[str], None] | None = None

    def doRead(self) -> BaseException | None:
        try:
            super().doRead()
        except psycopg2.Error as error:
            lost: BaseException = error
            return lost
        return None

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        if self.lost is not None:
            lost, self.lost = self.lost, None
            lost(one_line(reason.value))

    def close(self) -> None:
        if self.pollable() is not None:
            super().close()


class _ListenConnection(DatabaseConnection):
    """
    Hands notifications on in their order, all of one read at once.
    """

    def __init__(self, reactor: Any, heard: Callable[[list[str]], None]) -> None:
        super().__init__(reactor)
        self._heard = heard
        self._paused = False

    def checkForNotifies(self) -> None:
        notifies = self.pollable().notifies
        if notifies:
            payloads = [notify.payload for notify in notifies]
            del notifies[:]
            self._heard(payloads)

    def doRead(self) -> BaseException | None:
        failure: BaseException | None = super().doRead()
        if self._paused and failure is None:
            self.reactor.removeReader(self)
        return failure

    def pause(self) -> None:
        """
        Read nothing more; the database keeps what it has for us.
        """
        self._paused = True

    def resume(self) -> None:
        """
        Undo L{pause}.
        """
        self._paused = False
        if not self.pollable().closed:
            self.reactor.addReader(self)


async def connect(connection: DatabaseConnection, dsn: str, name: str) -> None:
    """
    Connect, within L{CONNECT_TIMEOUT} seconds.

    @param name: what C{pg_stat_activity} shows.
    """
    reactor = connection.reactor
    given = parse_dsn(dsn)
    wanted = {**_ALIVE, "application_name": name, **given}
    address = await _resolved(reactor, given)
    if address is not None:
        wanted["hostaddr"] = address
    with deadline(connection, CONNECT_TIMEOUT):
        await connection.connect(make_dsn(**wanted))


@contextmanager
def deadline(connection: DatabaseConnection, seconds: float) -> Iterator[None]:
    """
    Close C{connection} unless the block ends within C{seconds}: what waits for it then fails with C{ConnectionDone}.

    Nothing gentler is safe: a query that is cancelled raises into the canceller.
    """
    timer = connection.reactor.callLater(seconds, connection.close)
    try:
        yield
    finally:
        if timer.active():
            timer.cancel()


async def _resolved(reactor: Any, dsn: dict[str, str]) -> str | None:
    """
    The address of the DSN's host: libpq would look it up with the reactor standing still.
    """
    host = dsn.get("host", "")
    if not host or "hostaddr" in dsn or "/" in host or "," in host:
        return None
    with suppress(ValueError):
        ip_address(host)
        return None
    found = await deferToThreadPool(
        reactor,
        reactor.getThreadPool(),
        socket.getaddrinfo,
        host,
        None,
        type=socket.SOCK_STREAM,
    )
    return str(found[0][4][0])


class NotifyListener(Service):  # type: ignore[misc]
    """
    @param address: where the database is.
    @param heard: told each payload, in order; what it raises is logged.
    @param changed: told whether the database is up, each time that changes.
    @param now: monotonic seconds.
    @param random: a number from 0 to 1.

    @ivar up: fires when the database is listened to for the first time.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        address: Address,
        *,
        heard: Callable[[str], object],
        changed: Callable[[bool], object],
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._heard = heard
        self._changed = changed
        self._now = now
        self._random = random
        self._inbox: deque[str] = deque()
        self._publishing = False
        self._connection: _ListenConnection | None = None
        self._sleep: Deferred[None] | None = None
        self._ended: Deferred[None] | None = None
        self._told_down = False
        self.up: Deferred[None] = Deferred()
        self.state = DatabaseState.CONNECTING
        self.connects = 0
        self.notifications = 0
        self.pauses = 0
        self.reason = ""

    def report(self) -> dict[str, object]:
        """
        The state of the database, as C{/health} shows it.
        """
        return {
            "state": self.state.value,
            "reconnects": max(0, self.connects - 1),
            "notifications": self.notifications,
            "waiting": len(self._inbox),
        }

    def startService(self) -> None:
        super().startService()
        self._ended = Deferred.fromCoroutine(self._serve())
        self._ended.addErrback(lambda failure: self._log.failure("the bridge broke", failure))

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._sleep is not None:
            self._sleep.cancel()
        if self._connection is not None:
            self._connection.close()
        if self._ended is not None:
            await self._ended
        self.state = DatabaseState.STOPPED

    async def _serve(self) -> None:
        attempt = 0
        while self.running:
            try:
                lost = await self._listen()
                attempt = 0
                self._tell(DatabaseState.UP)
                reason = await self._until(lost)
            except DatabaseError as error:
                reason = one_line(error)
            finally:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
            if self.running:
                self._tell(DatabaseState.DOWN, reason)
                await self._pause(backoff(attempt, self._random()))
                attempt += 1

    async def _listen(self) -> Deferred[str]:
        """
        Connect and LISTEN; answers what fires with the reason when the connection is lost.
        """
        dsn = await self._address()
        connection = _ListenConnection(self._reactor, self._received)
        lost: Deferred[str] = Deferred()
        connection.lost = lost.callback
        self._connection = connection
        await connect(connection, dsn, "dcm-ws listen")
        with deadline(connection, PROBE_TIMEOUT):
            await connection.runOperation(f"listen {CHANNEL}")
        self.connects += 1
        return lost

    async def _until(self, lost: Deferred[str]) -> str:
        """
        Probe the connection until it is lost; answers why.
        """
        reasons: list[str] = []

        def over(reason: str) -> None:
            reasons.append(reason)
            if self._sleep is not None:
                self._sleep.cancel()

        lost.addCallback(over)
        connection = self._connection
        assert connection is not None
        while not reasons and self.running:
            await self._pause(PROBE_INTERVAL)
            if not reasons and self.running and not connection._paused:
                with deadline(connection, PROBE_TIMEOUT):
                    await connection.runOperation("select 1")
        return reasons[0] if reasons else ""

    async def _pause(self, seconds: float) -> None:
        self._sleep = deferLater(self._reactor, seconds)
        with suppress(CancelledError):
            await self._sleep
        self._sleep = None

    def _tell(self, state: DatabaseState, reason: str = "") -> None:
        self.reason = reason
        if state is self.state:
            return
        self.state = state
        if state is DatabaseState.UP:
            self._log.info("database up: listening to {channel}", channel=CHANNEL)
            if self._told_down:
                self._changed(True)
            if not self.up.called:
                self.up.callback(None)
        else:
            self._log.warn("database down: {reason}", reason=reason)
            self._told_down = True
            self._changed(False)

    def _received(self, payloads: list[str]) -> None:
        self.notifications += len(payloads)
        self._inbox.extend(payloads)
        if len(self._inbox) > INBOX_MAX and self._connection is not None:
            self._connection.pause()
            self.pauses += 1
        if not self._publishing:
            self._publish()

    def _publish(self) -> None:
        """
        Hand on what is in the inbox, for a few milliseconds a turn.
        """
        inbox, heard = self._inbox, self._heard
        until = self._now() + _SLICE_SECONDS
        count = 0
        while inbox:
            try:
                heard(inbox.popleft())
            except Exception:
                self._log.failure("a notification broke the hub")
            count += 1
            if count % _SLICE_CHECK == 0 and self._now() >= until:
                break
        connection = self._connection
        if connection is not None and connection._paused and len(inbox) <= _INBOX_LOW:
            connection.resume()
        self._publishing = bool(inbox)
        if inbox:
            self._reactor.callLater(0, self._publish)


def backoff(attempt: int, random: float) -> float:
    """
    Seconds to wait before attempt number C{attempt} (from 0) to come back: exponential, up to half of it by chance.
    """
    full = min(BACKOFF_LAST, BACKOFF_FIRST * 2.0 ** min(attempt, 32))
    return max(BACKOFF_FIRST, full * (0.5 + random / 2))


def one_line(error: BaseException | None) -> str:
    """
    An error's text in one line.
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
