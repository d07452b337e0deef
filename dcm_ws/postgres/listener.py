"""
The bridge from PostgreSQL: a service that LISTENs on a connection of its own, probes it, and reconnects indefinitely
(protocol, section 7).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from enum import Enum
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dcm_ws.postgres.backoff import Backoff
from dcm_ws.postgres.connection import Address, DatabaseError, DatabaseUnavailableError, one_line
from dcm_ws.postgres.inbox import Inbox
from dcm_ws.postgres.listen_connection import CHANNEL, ListenConnection
from dcm_ws.postgres.sleep import Sleep

# an operator may filter by this name
_log = Logger(namespace="dcm_ws.listener.NotifyListener")

PROBE_INTERVAL = 5.0
"""
Seconds without a notification after which the connection is probed.
"""


class DatabaseState(Enum):
    """
    The state of the database, as C{/health} shows it.
    """

    CONNECTING = "connecting"
    UP = "up"
    DOWN = "down"
    STOPPED = "stopped"


class NotifyListener(Service):
    """
    Listens to the database, and reports each change of its state.

    @param address: returns where the database is.
    @param heard: called with each payload, in order; an exception of it is logged.
    @param together: calls what it is given, and then writes the events that this published.
    @param changed: called with whether the database is up, each time that changes.
    @param written: called with the seconds from the arrival of notifications until their events were written, and with
        the number of these notifications.
    @param probed: called with the seconds that a probe took.
    @param now: monotonic seconds.
    @param random: returns a number from 0 to 1.

    @ivar after: fires when the first connection may be made; None for at once.
    @ivar woken: as in L{ListenConnection}.
    @ivar up: fires when the service listens for the first time.
    @ivar connects: how often it has connected.
    @ivar reason: why the database is down; empty if it is not.
    """

    def __init__(
        self,
        reactor: Any,
        address: Address,
        *,
        heard: Callable[[str], object],
        together: Callable[[Callable[[], object]], object],
        changed: Callable[[bool], object],
        written: Callable[[float, int], object],
        probed: Callable[[float], object],
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._inbox = Inbox(reactor, heard=heard, together=together, written=written, now=now)
        self._changed = changed
        self._probed = probed
        self._now = now
        self._backoff = Backoff(now, random)
        self._echo = f"dcm_ws_echo_{secrets.token_hex(8)}"
        self._connection: ListenConnection | None = None
        self._sleep = Sleep(reactor)
        self._ended: Deferred[None] | None = None
        self._was_down = False
        self.after: Deferred[None] | None = None
        self.woken: Callable[[bool], object] = _nothing
        self.up: Deferred[None] = Deferred()
        self.state = DatabaseState.CONNECTING
        self.connects = 0
        self.reason = ""

    def report(self) -> dict[str, object]:
        """
        The state of the database, as C{/health} shows it.
        """
        return {
            "state": self.state.value,
            "reconnects": max(0, self.connects - 1),
            "notifications": self._inbox.received,
            "waiting": len(self._inbox),
            "pauses": self._inbox.pauses,
        }

    def hurry(self) -> None:
        """
        The database can be reached again: connect now.
        """
        if self.state is DatabaseState.DOWN:
            self._sleep.end()

    def startService(self) -> None:
        super().startService()
        self._ended = Deferred.fromCoroutine(self._serve())
        self._ended.addErrback(lambda failure: _log.failure("the database listener failed", failure))

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._sleep.end()
        if self._connection is not None:
            self._connection.close()
        if self._ended is not None:
            await self._ended
        self.state = DatabaseState.STOPPED

    async def _serve(self) -> None:
        if self.after is not None:
            await self.after
        while self.running:
            try:
                connection = await self._listen()
                self._backoff.connected()
                self._change_to(DatabaseState.UP)
                reason = await self._until_lost(connection)
            except DatabaseError as error:
                reason = one_line(error)
            except Exception as error:
                _log.failure("the database listener failed; it will reconnect")
                reason = type(error).__name__
            finally:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = self._inbox.source = None
            if self.running:
                self._change_to(DatabaseState.DOWN, reason)
                await self._sleep.rest(self._backoff.next())

    async def _listen(self) -> ListenConnection:
        place = await self._address()
        connection = ListenConnection(self._reactor, self._inbox.receive, self._echo, self.woken)
        if not self.running:
            raise DatabaseUnavailableError("the service stops")
        self._connection = self._inbox.source = connection
        await connection.listen(place)
        self.connects += 1
        return connection

    async def _until_lost(self, connection: ListenConnection) -> str:
        """
        Probe the connection until it is lost, and return the reason.
        """
        reasons = self._sleep.watch(connection)
        while not reasons and self.running:
            received = self._inbox.received
            await self._sleep.rest(PROBE_INTERVAL)
            # a database that sends notifications is alive, and would answer only after all of them
            if not reasons and self.running and self._inbox.received == received and not connection.paused:
                begun = self._now()
                await connection.probe()
                self._probed(self._now() - begun)
        return reasons[0] if reasons else ""

    def _change_to(self, state: DatabaseState, reason: str = "") -> None:
        self.reason = reason
        if state is self.state:
            return
        self.state = state
        if state is DatabaseState.UP:
            _log.info("database up: listening to {channel}", channel=CHANNEL)
            if self._was_down:
                self._changed(True)
            if not self.up.called:
                self.up.callback(None)
        else:
            _log.warn("database down: {reason}", reason=reason)
            self._was_down = True
            self._changed(False)


def _nothing(*_: object) -> None:
    pass
