"""
Connections to PostgreSQL under the reactor.

txpostgres passes notifications on out of order, and reports the loss of an idle connection as an unhandled error.  The
connection class here fixes both.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2.extensions import POLL_WRITE, make_dsn, parse_dsn
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from txpostgres.txpostgres import Connection, Cursor

from dcm_ws.postgres.registration import Registration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from twisted.internet.defer import Deferred

CONNECT_TIMEOUT = 10.0
"""
Seconds to connect to one address.
"""

# A lost connection is noticed within ten seconds: by keepalives if it is idle, else by the user timeout.
_ALIVE = {
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "8000",
}


class DatabaseUnavailableError(Exception):
    """
    The database cannot be used now; the text says why, in one line.
    """


DatabaseError = (
    psycopg2.Error,
    ConnectionDone,
    ConnectionLost,
    OSError,
    DatabaseUnavailableError,
)
"""
The errors with which a connection to the database may end.
"""


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where a database is.

    @ivar dsn: a connection string.
    @ivar own: it is the service's own server, for which libpq's environment variables are ignored.
    """

    dsn: str = field(repr=False)
    own: bool = False


Address = Callable[[], Awaitable[Place]]
"""
Returns where the database is, as soon as it can be connected to.
"""


class _Cursor(Cursor):
    """
    Fails with PostgreSQL's own error if PostgreSQL cancels a query; txpostgres assumes that its caller cancelled it.
    """

    def _handleCancellation(self, failure: Failure) -> Failure:
        return failure


class DatabaseConnection(Connection):
    """
    A connection whose loss is reported once and not logged.

    @ivar lost: called with the reason when the connection has ended.
    @ivar isolated: libpq does not see its environment variables.
    @ivar connecting: the connection is not established yet.
    @ivar own_reactor: the reactor, also while C{reactor} is a registration there.
    """

    cursorFactory = _Cursor

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor=reactor)
        self.reactor: Any = reactor
        self.own_reactor = reactor
        self._registration: Registration | None = None
        self.lost: Callable[[str], object] | None = None
        self.isolated = False
        self.connecting = False

    def poll(self) -> Deferred[Any]:
        polled: Deferred[Any] = super().poll()
        return polled.addCallback(self._is_open)

    def _is_open(self, result: object) -> object:
        # the result comes a turn later, and the connection may have been closed meanwhile
        if self.pollable().closed:
            raise DatabaseUnavailableError("the connection was closed while it was made")
        return result

    def continuePolling(self, swallowErrors: bool = False) -> None:
        if self.connecting:
            # libpq tries the next server after closing its socket, which the reactor must not watch any more
            self.reactor.removeReader(self)
            self.reactor.removeWriter(self)
        with _no_libpq_environment() if self.isolated else nullcontext():
            super().continuePolling(swallowErrors)

    def connected(self) -> None:
        """
        The connection is established: keep its socket registered from now on.
        """
        self.isolated = self.connecting = False
        self.reactor.removeReader(self)
        self.reactor = self._registration = Registration(self.own_reactor, self.fileno())
        self.reactor.addReader(self)

    def doRead(self) -> BaseException | None:
        try:
            if self.connecting:
                # not that of Connection, which continues to read although libpq may wait to write, or has closed its
                # socket
                super(Connection, self).doRead()
            elif self._connection.poll() == POLL_WRITE:
                self.reactor.addWriter(self)
            self.checkForNotifies()
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
            # a cursor that still waits would stay registered under a file descriptor that the next socket gets
            for cursor in self._cursors:
                self.reactor.removeReader(cursor)
                self.reactor.removeWriter(cursor)
            if self._registration is not None:
                self._registration.close()
                self.reactor, self._registration = self.own_reactor, None
            super().close()


async def connect(
    connection: DatabaseConnection, place: Place, name: str, *, writable: bool = False, encoding: str = "UTF8"
) -> None:
    """
    Connect, within L{CONNECT_TIMEOUT} seconds for each address that the database's host has.

    @param name: the name of the application, shown in C{pg_stat_activity}.
    @param writable: if there are several servers, connect to one that accepts writes, unless the connection string says
        otherwise.
    @param encoding: the client's encoding; it overrides the connection string, because the server ends a connection if
        it cannot convert a notification to that encoding.
    """
    reactor = connection.reactor
    given = parse_dsn(place.dsn)
    places = await _places(reactor, given)
    wanted = {**_ALIVE, "application_name": name, **given, **places, "client_encoding": encoding}
    if writable and not place.own and "target_session_attrs" not in given and _are_several(wanted, os.environ):
        wanted["target_session_attrs"] = "read-write"
    connection.isolated = place.own
    connection.connecting = True
    with deadline(connection, CONNECT_TIMEOUT * (places.get("hostaddr", "").count(",") + 1)):
        with _no_libpq_environment() if place.own else nullcontext():
            connected = connection.connect(make_dsn(**wanted))
        await connected
    connection.connected()


def _are_several(dsn: Mapping[str, str], environment: Mapping[str, str]) -> bool:
    """
    Whether the connection string may lead to more than one server.
    """
    if "service" in dsn or any(name in environment for name in ("PGSERVICE", "PGTARGETSESSIONATTRS")):
        return False  # these say which server to use
    hosts = (dsn.get("host") or environment.get("PGHOST", "")).split(",")
    addresses = (dsn.get("hostaddr") or environment.get("PGHOSTADDR", "")).split(",")
    ports = (dsn.get("port") or environment.get("PGPORT", "")).split(",")
    if len(set(hosts)) > 1 or len(set(ports)) > 1:
        return True
    # one machine has a loopback address of each family
    return len({address for address in addresses if not _is_address(address) or not _is_loopback(address)}) > 1


def _is_loopback(address: str) -> bool:
    return bool(address) and ip_address(address).is_loopback


def remove_libpq_environment() -> dict[str, str]:
    """
    Remove the variables that libpq reads from the environment of this process.  Some of them, such as C{PGSERVICE} and
    C{PGTZ}, override the connection string.

    @return: the variables.
    """
    return {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PG")}


@contextmanager
def _no_libpq_environment() -> Iterator[None]:
    hidden = remove_libpq_environment()
    try:
        yield
    finally:
        os.environ.update(hidden)


@asynccontextmanager
async def transaction(connection: DatabaseConnection) -> AsyncIterator[None]:
    """
    A transaction, which is committed at the end of the block, and rolled back if the block raises.
    """
    await connection.runOperation("begin")
    try:
        yield
        await connection.runOperation("commit")
    except BaseException:
        if not connection.pollable().closed:
            await connection.runOperation("rollback")
        raise


_STOPPED = 1.0
"""
Seconds by which a timer is late only if the process was stopped or starved.
"""


@contextmanager
def deadline(
    connection: DatabaseConnection, seconds: float, spare: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """
    Close C{connection} unless the block ends within C{seconds}.

    Cancelling the query instead is not safe: it raises in the canceller.

    The time counts only while this process runs.  If the process was stopped meanwhile, the answer may not have been
    read yet, so the timeout starts again.

    @param spare: called at the end of the time; if it returns True, the timeout starts again.
    @raise DatabaseUnavailableError: the time is over.
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
    except (ConnectionDone, psycopg2.InterfaceError):
        # the second if the answer has been read and nobody has got it, or if the next query was about to begin
        if late:
            raise DatabaseUnavailableError(f"no answer within {seconds:g} s") from None
        raise
    finally:
        if timer.active():
            timer.cancel()


async def _places(reactor: Any, dsn: dict[str, str]) -> dict[str, str]:
    """
    Returns the addresses of the DSN's hosts as parameters of libpq, which would block the reactor to look them up.
    """
    hosts = dsn.get("host", "").split(",")
    if "hostaddr" in dsn or all(_is_address(host) for host in hosts):
        return {}
    ports = dsn.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    elif len(ports) != len(hosts):
        return {}  # libpq reports the error
    found = await deferToThreadPool(reactor, reactor.getThreadPool(), _look_up, hosts, ports)
    places = zip(("host", "hostaddr", "port"), zip(*found, strict=True), strict=True)
    return {name: ",".join(column) for name, column in places if any(column)}


def _look_up(hosts: list[str], ports: list[str]) -> list[tuple[str, str, str]]:
    """
    Returns each address once, with its host and port; libpq tries them in turn.
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
    Whether a host needs no look-up: it is an IP address or the folder of a Unix socket.
    """
    if not host or host.startswith(("/", "@")):
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def one_line(error: BaseException | None) -> str:
    """
    Returns the first line of an error's text.
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
