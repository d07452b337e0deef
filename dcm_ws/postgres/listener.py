"""
The bridge from PostgreSQL: a connection of its own that LISTENs, reconnects indefinitely, and is never silently dead
(protocol, section 7).
"""

from __future__ import annotations

import os
import secrets
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any

from psycopg2.extensions import make_dsn
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcm_ws.postgres.connection import (
    Address,
    DatabaseConnection,
    DatabaseError,
    DatabaseUnavailableError,
    Place,
    connect,
    deadline,
    one_line,
)

# an operator may filter by this name
_log = Logger(namespace="dcm_ws.listener.NotifyListener")

CHANNEL = "dcm_events"
"""
What is LISTENed to.
"""

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
_DEAF = (
    "notifications do not arrive: a connection pool in transaction mode may be in between;"
    " connect to PostgreSQL itself, or to a pool in session mode"
)


class DatabaseState(Enum):
    CONNECTING = "connecting"
    UP = "up"
    DOWN = "down"
    STOPPED = "stopped"


class _ListenConnection(DatabaseConnection):
    """
    Hands notifications on in their order, all of one read at once.

    @param echo: the name of a channel that nobody else uses.

    @ivar paused: nothing is read now; the database keeps what it has for us.
    """

    def __init__(self, reactor: Any, heard: Callable[[list[str]], None], echo: str) -> None:
        super().__init__(reactor)
        self._heard = heard
        self._echo = echo
        self._arrival: Deferred[None] | None = None
        self._as_bytes = False
        self._direct = False
        self._place = Place("")
        self.paused = False

    async def listen(self, place: Place) -> None:
        """
        Connect, LISTEN, and see a notification arrive.
        """
        self._place = place
        await connect(self, place, "dcm-ws listen", writable=True)
        self._as_bytes = self.pollable().get_parameter_status("server_encoding") == "SQL_ASCII"
        if self._as_bytes:
            # Such a database may send what is not UTF-8, and trips over it where the client asked for that; in
            # Latin-1 every byte is a character.
            self.close()
            await connect(self, place, "dcm-ws listen", writable=True, encoding="LATIN1")
        with deadline(self, PROBE_TIMEOUT):
            rows = await self.runQuery(f"listen {CHANNEL}; listen {self._echo}; select pg_catalog.pg_backend_pid()")
        # a pooler speaks for the server, and gives a number of its own
        self._direct = rows[0][0] == self.pollable().info.backend_pid
        await self._hear_another()

    async def probe(self) -> None:
        """
        Have a notification sent to this connection, and close the connection if it does not arrive.

        A connection pool in transaction mode takes LISTEN, and even returns what this connection itself notifies; what
        others notify is lost in it.
        """
        if self._direct:
            await self._hear_oneself()
        else:
            await self._hear_another()

    async def _hear_oneself(self) -> None:
        with deadline(self, PROBE_TIMEOUT, spare=self._hears_more()):
            arrival = self._expect()
            await self.runOperation(f"notify {self._echo}")
            await arrival

    async def _hear_another(self) -> None:
        other = DatabaseConnection(self.reactor)
        try:
            await connect(other, self._same_server(), "dcm-ws probe")
            arrival = self._expect()
            with deadline(other, PROBE_TIMEOUT):
                await other.runOperation(f"notify {self._echo}")
        except DatabaseError:
            # too few connections, perhaps: a pool in which that is so keeps one for us
            await self._hear_oneself()
            return
        finally:
            other.close()
        try:
            with deadline(self, PROBE_TIMEOUT):
                await arrival
        except DatabaseUnavailableError:
            raise DatabaseUnavailableError(_DEAF) from None

    def _same_server(self) -> Place:
        """
        The very server of this connection, of several.
        """
        info = self.pollable().info
        with socket.socket(fileno=os.dup(self.fileno())) as ours:
            peer = ours.getpeername() if ours.family in (socket.AF_INET, socket.AF_INET6) else None
        hostaddr = {"hostaddr": peer[0]} if peer else {}
        return Place(make_dsn(self._place.dsn, host=info.host, port=info.port, **hostaddr), self._place.own)

    def _expect(self) -> Deferred[None]:
        """
        Fires when the next notification arrives, whichever it is.
        """
        self._arrival = Deferred()
        return self._arrival

    def connectionLost(self, reason: Failure) -> None:
        arrival, self._arrival = self._arrival, None
        super().connectionLost(reason)
        if arrival is not None:
            arrival.errback(reason)

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
            payloads = [notify.payload for notify in notifies if notify.channel == CHANNEL]
            del notifies[:]
            if self._arrival is not None:
                arrival, self._arrival = self._arrival, None
                arrival.callback(None)
            if self._as_bytes:
                # the hub refuses, and counts, what has a lone surrogate in it
                payloads = [payload.encode("latin-1").decode("utf-8", "surrogateescape") for payload in payloads]
            if payloads:
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
        self._echo = f"dcm_ws_echo_{secrets.token_hex(8)}"
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
        self._ended.addErrback(lambda failure: _log.failure("the bridge broke", failure))

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
                _log.failure("the bridge broke; it will connect again")
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
        place = await self._address()
        connection = _ListenConnection(self._reactor, self._received, self._echo)
        if not self.running:
            raise DatabaseUnavailableError("the service stops")
        self._connection = connection
        await connection.listen(place)
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
            _log.info("database up: listening to {channel}", channel=CHANNEL)
            if self._told_down:
                self._changed(True)
            if not self.up.called:
                self.up.callback(None)
        else:
            _log.warn("database down: {reason}", reason=reason)
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
                _log.failure("a notification broke the hub")
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
