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
from txpostgres.txpostgres import Connection, Cursor

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


class _Cursor(Cursor):
    """
    Fails with PostgreSQL's own error where PostgreSQL cancels a query: nobody here has cancelled it.
    """

    def _handleCancellation(self, failure: Failure) -> Failure:
        return failure


class DatabaseConnection(Connection):
    """
    A connection whose loss is told once, without a word in the log.

    @ivar lost: called with the reason when the connection has ended.
    """

    cursorFactory = _Cursor

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor=reactor)
        self.lost: Callable[[str], object] | None = None

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

    @ivar paused: nothing is read now; the database keeps what it has for us.
    """

    def __init__(self, reactor: Any, heard: Callable[[list[str]], None]) -> None:
        super().__init__(reactor)
        self._heard = heard
        self._as_bytes = False
        self.paused = False

    async def listen(self, dsn: str) -> None:
        """
        Connect and LISTEN.
        """
        await connect(self, dsn, "dcm-ws listen")
        self._as_bytes = self.pollable().get_parameter_status("server_encoding") == "SQL_ASCII"
        if self._as_bytes:
            # Such a database may send what is not UTF-8, and trips over it where the client asked for that; in
            # Latin-1 every byte is a character.
            self.close()
            await connect(self, make_dsn(dsn, client_encoding="LATIN1"), "dcm-ws listen")
        with deadline(self, PROBE_TIMEOUT):
            await self.runOperation(f"listen {CHANNEL}")

    async def probe(self) -> None:
        """
        Ask the database for a sign of life, and close the connection where there is none.
        """
        with deadline(self, PROBE_TIMEOUT, spare=self._hears_more()):
            await self.runOperation("select 1")

    def _hears_more(self) -> Callable[[], bool]:
        """
        Did notifications come since the last call?  The answer to a query waits behind them.
        """
        before = 0

        def more() -> bool:
            nonlocal before
            last, before = before, len(self.pollable().notifies)
            return before > last

        return more

    def checkForNotifies(self) -> None:
        notifies = self.pollable().notifies
        if notifies:
            payloads = [notify.payload for notify in notifies]
            del notifies[:]
            if self._as_bytes:
                # the hub refuses, and counts, what has a lone surrogate in it
                payloads = [payload.encode("latin-1").decode("utf-8", "surrogateescape") for payload in payloads]
            self._heard(payloads)

    def doRead(self) -> BaseException | None:
        failure: BaseException | None = super().doRead()
        if self.paused and failure is None:
            self.reactor.removeReader(self)
        return failure

    def resume(self) -> None:
        """
        Read again.
        """
        self.paused = False
        if not self.pollable().closed:
            self.reactor.addReader(self)


async def connect(connection: DatabaseConnection, dsn: str, name: str) -> None:
    """
    Connect, within L{CONNECT_TIMEOUT} seconds for each address that the database's host has.

    @param name: what C{pg_stat_activity} shows.
    """
    reactor = connection.reactor
    given = parse_dsn(dsn)
    places = await _places(reactor, given)
    wanted = {**_ALIVE, "application_name": name, **given, **places}
    with deadline(connection, CONNECT_TIMEOUT * (places.get("hostaddr", "").count(",") + 1)):
        await connection.connect(make_dsn(**wanted))


_STOPPED = 1.0
"""
Seconds by which a timer is late only if the process was not running, or not in time.
"""


@contextmanager
def deadline(
    connection: DatabaseConnection, seconds: float, spare: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """
    Close C{connection} unless the block ends within C{seconds}; it then fails with L{DatabaseUnavailableError}.

    Nothing gentler is safe: a query that is cancelled raises into the canceller.

    The time counts while this process runs: if it was stopped meanwhile, the answer may not have been read yet, and the
    same time is given again.

    @param spare: asked at the end of the time whether to give the same time again.
    """
    reactor = connection.reactor

    late = False
    timer: Any = None

    def over() -> None:
        nonlocal late, timer
        was_stopped = reactor.seconds() - timer.getTime() > _STOPPED
        if was_stopped or spare():
            timer = reactor.callLater(seconds, over)
        else:
            late = True
            connection.close()

    timer = reactor.callLater(seconds, over)
    try:
        yield
    except ConnectionDone:
        if late:
            raise DatabaseUnavailableError(f"no answer within {seconds:g} s") from None
        raise
    finally:
        if timer.active():
            timer.cancel()


async def _places(reactor: Any, dsn: dict[str, str]) -> dict[str, str]:
    """
    The addresses of the DSN's hosts, as libpq takes them: it would look them up with the reactor standing still.
    """
    hosts = dsn.get("host", "").split(",")
    if "hostaddr" in dsn or all(_is_address(host) for host in hosts):
        return {}
    ports = dsn.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    elif len(ports) != len(hosts):
        return {}  # libpq says what is wrong with it
    found = await deferToThreadPool(reactor, reactor.getThreadPool(), _look_up, hosts, ports)
    places = zip(("host", "hostaddr", "port"), zip(*found, strict=True), strict=True)
    return {name: ",".join(column) for name, column in places if any(column)}


def _look_up(hosts: list[str], ports: list[str]) -> list[tuple[str, str, str]]:
    """
    Each address once, with its host and port: libpq tries them in turn.
    """
    places: list[tuple[str, str, str]] = []
    error = OSError("the database has no address")
    for host, port in zip(hosts, ports, strict=True):
        if _is_address(host):
            places.append((host, "", port))
            continue
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as failure:
            error = OSError(f"cannot find the database's host: {one_line(failure)}")
            continue
        places += [(host, str(address), port) for address in dict.fromkeys(place[4][0] for place in found)]
    if not places:
        raise error
    return places


def _is_address(host: str) -> bool:
    """
    Is there nothing to look up: an IP address, or the folder of a Unix socket?
    """
    if not host or host.startswith(("/", "@")):
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class NotifyListener(Service):
    """
    @param address: where the database is.
    @param heard: told each payload, in order; what it raises is logged.
    @param changed: told whether the database is up, each time that changes.
    @param written: told how many seconds it took from the arrival of so many notifications to what the hub wrote.
    @param probed: told how many seconds the answer to a probe took.
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
        written: Callable[[float, int], object],
        probed: Callable[[float], object],
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._heard = heard
        self._changed = changed
        self._written = written
        self._probed = probed
        self._now = now
        self._random = random
        self._inbox: deque[str] = deque()
        self._arrived_at = 0.0
        self._arrived = 0
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
            "pauses": self.pauses,
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
            since = None
            try:
                connection = await self._listen()
                since = self._now()
                self._tell(DatabaseState.UP)
                reason = await self._until_lost(connection)
            except DatabaseError as error:
                reason = one_line(error)
            except Exception as error:
                self._log.failure("the bridge broke; it will connect again")
                reason = type(error).__name__
            finally:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
            if self.running:
                # a database that is lost at once, each time, is not asked ten times a second
                if since is not None and self._now() - since >= PROBE_INTERVAL:
                    attempt = 0
                self._tell(DatabaseState.DOWN, reason)
                await self._pause(backoff(attempt, self._random()))
                attempt += 1

    async def _listen(self) -> _ListenConnection:
        dsn = await self._address()
        connection = _ListenConnection(self._reactor, self._received)
        if not self.running:
            raise DatabaseUnavailableError("the service stops")
        self._connection = connection
        await connection.listen(dsn)
        self.connects += 1
        return connection

    async def _until_lost(self, connection: _ListenConnection) -> str:
        """
        Probe the connection until it is lost; answers why.
        """
        reasons: list[str] = []

        def over(reason: str) -> None:
            reasons.append(reason)
            if self._sleep is not None:
                self._sleep.cancel()

        connection.lost = over
        while not reasons and self.running:
            heard = self.notifications
            await self._pause(PROBE_INTERVAL)
            # what sends notifications lives, and would answer only after all of them
            if not reasons and self.running and self.notifications == heard and not connection.paused:
                begun = self._now()
                await connection.probe()
                self._probed(self._now() - begun)
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
        if not self._arrived:
            self._arrived_at = self._now()
        self._arrived += len(payloads)
        self._inbox.extend(payloads)
        if len(self._inbox) > INBOX_MAX and self._connection is not None:
            self._connection.paused = True
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
        if connection is not None and connection.paused and len(inbox) <= _INBOX_LOW:
            connection.resume()
        self._publishing = bool(inbox)
        # what the hub queued is written at the end of the turn
        self._reactor.callLater(0, self._publish if inbox else self._tell_written)

    def _tell_written(self) -> None:
        arrived, self._arrived = self._arrived, 0
        if arrived:
            self._written(self._now() - self._arrived_at, arrived)


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
