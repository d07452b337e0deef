"""
The connection that LISTENs, and the probes that show that notifications arrive on it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg2
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from dcm_ws.postgres.connection import (
    DatabaseConnection,
    DatabaseError,
    DatabaseUnavailableError,
    Place,
    connect,
    deadline,
)
from dcm_ws.postgres.pooling import process, same_server

CHANNEL = "dcm_events"
"""
The channel of the notifications.
"""

WAKE = "dcm_ws_wake"
"""
The channel on which C{dcm_ws.publish} says that there is something in the inbox of the log.
"""

HEAD = "dcm_ws_head"
"""
The channel on which the node of a cluster that leads says that the log has grown.
"""

PROBE_TIMEOUT = 3.0
"""
Seconds until a probe must have arrived.
"""

SETTINGS = (
    "set tcp_user_timeout = '60s'; set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5;"
    " set tcp_keepalives_count = 3"
)
"""
Have the server end the connection if nobody reads it any more, because the network is cut or the process is stopped:
until then, it keeps all notifications of the database in its queue, which has a limit.  A service that has too much to
do may pause for some seconds.
"""

_DEAF = (
    "notifications do not arrive: a connection pool in transaction mode may be in between;"
    " connect to PostgreSQL itself, or to a pool in session mode"
)


class ListenConnection(DatabaseConnection):
    """
    A connection that LISTENs, and passes notifications on in their order, all of one read at once.

    @param heard: called with the payloads of one read.
    @param echo: the name of a channel that only this connection uses.
    @param woken: called when there may be something in the inbox of the log; with True if the log itself has grown.

    @ivar paused: nothing is read now; the notifications stay in the socket's buffers and in the database.
    """

    application = "dcm-ws listen"

    def __init__(
        self, reactor: Any, heard: Callable[[list[str]], None], echo: str, woken: Callable[[bool], object]
    ) -> None:
        super().__init__(reactor)
        self._heard = heard
        self._echo = echo
        self._woken = woken
        self._arrival: Deferred[BaseException | None] | None = None
        self._as_bytes = False
        self._direct = False
        self._place = Place("")
        self.paused = False

    async def listen(self, place: Place) -> None:
        """
        Connect, LISTEN, and wait until a notification arrives.
        """
        self._place = place
        await connect(self, place, self.application, writable=True)
        self._as_bytes = self.pollable().get_parameter_status("server_encoding") == "SQL_ASCII"
        if self._as_bytes:
            # such a database may send bytes that are not UTF-8, and fails if the client asked for UTF-8; in Latin-1
            # every byte is a character
            self.close()
            await connect(self, place, self.application, writable=True, encoding="LATIN1")
        with deadline(self, PROBE_TIMEOUT):
            channels = (*self.channels(), self._echo)
            await self.runOperation("; ".join(f"listen {channel}" for channel in channels))
            self._direct = await process(self) == self.pollable().info.backend_pid
            if self._direct:
                # otherwise it is the session of a pool
                await self.runOperation(SETTINGS)
        await self._hear_another()

    def channels(self) -> tuple[str, ...]:
        """
        The channels that it listens to, as they are written in SQL.
        """
        return CHANNEL, WAKE, HEAD

    async def probe(self) -> None:
        """
        Have a notification sent to this connection, and close the connection if it does not arrive.

        A connection pool in transaction mode accepts LISTEN, and even returns notifications of this connection itself,
        but loses those of other connections.
        """
        if self._direct:
            await self._hear_oneself()
        else:
            await self._hear_another()

    async def _hear_oneself(self) -> None:
        with deadline(self, PROBE_TIMEOUT, spare=self._hears_more()):
            arrival = self._expect()
            await self.runOperation(f"notify {self._echo}")
            await _end_of(arrival)

    async def _hear_another(self) -> None:
        other = DatabaseConnection(self.own_reactor)
        try:
            await connect(other, same_server(self, self._place), "dcm-ws probe")
            arrival = self._expect()
            with deadline(other, PROBE_TIMEOUT):
                await other.runOperation(f"notify {self._echo}")
        except DatabaseError:
            # the pool may have no second connection; then it keeps one server connection for this one
            await self._hear_oneself()
            return
        finally:
            other.close()
        try:
            with deadline(self, PROBE_TIMEOUT):
                await _end_of(arrival)
        except DatabaseUnavailableError:
            raise DatabaseUnavailableError(_DEAF) from None

    def _expect(self) -> Deferred[BaseException | None]:
        """
        Returns a Deferred that fires with None when the next notification arrives, on any channel, or with the reason
        if the connection is lost.  It does not fail, because a query that fails first leaves it alone.
        """
        self._arrival = Deferred()
        return self._arrival

    def connectionLost(self, reason: Failure) -> None:
        arrival, self._arrival = self._arrival, None
        super().connectionLost(reason)
        if arrival is not None:
            arrival.callback(reason.value)

    def _hears_more(self) -> Callable[[], bool]:
        """
        Returns a function that says whether notifications have arrived since its last call.  The result of a query
        arrives after all notifications that were sent before it.
        """
        before = 0

        def more() -> bool:
            nonlocal before
            last, before = before, len(self.pollable().notifies)
            return before > last

        return more

    def cursorFinished(self, cursor: Any) -> None:
        if not self.pollable().closed:
            # libpq has read notifications that followed the result of the query, and psycopg2 does not take them before
            # the next poll; an error is found by the next read
            with suppress(psycopg2.Error):
                self.pollable().poll()
        super().cursorFinished(cursor)

    def checkForNotifies(self) -> None:
        notifies = self.pollable().notifies
        if notifies:
            taken = notifies[:]
            del notifies[:]
            if self._arrival is not None:
                arrival, self._arrival = self._arrival, None
                arrival.callback(None)
            self.take(taken)

    def take(self, notifies: list[Any]) -> None:
        """
        Notifications have arrived.
        """
        payloads = [notify.payload for notify in notifies if notify.channel == CHANNEL]
        if len(payloads) < len(notifies):
            channels = {notify.channel for notify in notifies}
            if WAKE in channels or HEAD in channels:
                self._woken(HEAD in channels)
        if self._as_bytes:
            # the hub rejects and counts payloads with a lone surrogate
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


async def _end_of(arrival: Deferred[BaseException | None]) -> None:
    """
    Wait for a notification.

    @raise BaseException: the connection was lost before.
    """
    lost = await arrival
    if lost is not None:
        raise lost
