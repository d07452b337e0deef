"""
The bus over PostgreSQL: LISTEN and NOTIFY on a connection of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dcm_ws.brokers.bus_base import BaseBus
from dcm_ws.brokers.bus_parcels import Parcel, Unpacking
from dcm_ws.brokers.bus_payloads import read_payload, write_payloads
from dcm_ws.core.counts import Counts
from dcm_ws.postgres.backoff import Backoff
from dcm_ws.postgres.bus_connection import PAYLOAD_MOST, BusConnection, channel_of
from dcm_ws.postgres.connection import Address, DatabaseError, DatabaseUnavailableError, one_line
from dcm_ws.postgres.listener import PROBE_INTERVAL
from dcm_ws.postgres.sleep import Sleep

_log = Logger(namespace="dcm_ws.bus")

_BATCH_BYTES = 256 << 10
"""
Bytes of the messages that go out in one transaction, at most, unless it has only one.
"""


class PostgresBus(BaseBus, Service):
    """
    A L{Bus<dcm_ws.core.ports.Bus>} on the channels C{dcm_ws_bus} and C{dcm_ws_bus_NODE} of the database.

    While one transaction is on its way, what is to be sent waits for the next one.

    @param address: returns where the database is.
    @param random: returns a number from 0 to 1.
    """

    engine = "postgres"

    def __init__(
        self,
        reactor: Any,
        address: Address,
        *,
        counts: Counts,
        now: Callable[[], float],
        random: Callable[[], float],
        max_message: int,
        max_waiting: int,
    ) -> None:
        super().__init__(reactor.callLater, now, counts, max_message=max_message, max_waiting=max_waiting)
        self._reactor = reactor
        self._address = address
        self._now = now
        self._backoff = Backoff(now, random)
        self._echo = f"dcm_ws_echo_{secrets.token_hex(8)}"
        self._unpacking = Unpacking(self._broken, self._most)
        # being made, or in use
        self._connection: BusConnection | None = None
        self._is_open = False
        self._is_sending = False
        self._sleep = Sleep(reactor)
        self._working: Deferred[None] | None = None

    def startService(self) -> None:
        Service.startService(self)
        self._working = Deferred.fromCoroutine(self._serve())
        self._working.addErrback(lambda failure: _log.failure("the bus failed", failure))

    def stopService(self) -> Deferred[None] | None:
        Service.stopService(self)
        self._end()
        return self._working

    def hurry(self) -> None:
        """
        The database can be reached again: connect now.
        """
        if self._state == "down":
            self._sleep.end()

    async def _serve(self) -> None:
        while self.running:
            try:
                reason = await self._use()
            except DatabaseError as error:
                reason = one_line(error)
            except Exception as error:
                _log.failure("the bus failed; it will reconnect")
                reason = type(error).__name__
            finally:
                self._is_open = False
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
            if self.running:
                self._is_down(reason)
                await self._sleep.rest(self._backoff.next())

    async def _use(self) -> str:
        """
        Use one connection until it is lost, and return the reason.
        """
        place = await self._address()
        if not self.running:
            raise DatabaseUnavailableError("the service stops")
        node = self.node
        self._connection = connection = BusConnection(self._reactor, self._arrived, self._echo, node)
        await connection.listen(place)
        await connection.prepare()
        if self.node != node:
            await connection.rename(self.node)
        reasons = self._sleep.watch(connection)
        self._is_open = True
        self._backoff.connected()
        self._is_up("connected to PostgreSQL")
        self._queued()
        while not reasons and self.running:
            begun = self._now()
            await connection.probe()
            self._rtt = round((self._now() - begun) * 1000, 3)
            self._counts.probe_seconds.observe(self._now() - begun)
            if not reasons and self.running:
                await self._sleep.rest(PROBE_INTERVAL)
        return reasons[0] if reasons else "the connection was closed"

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._sleep.end()

    def _named(self) -> None:
        connection = self._connection
        if connection is not None and self._is_open:
            renaming = Deferred.fromCoroutine(connection.rename(self.node))
            renaming.addErrback(lambda failure: self._end())

    def _may_send(self) -> bool:
        # all messages of a turn go out together
        return False

    def _queued(self) -> None:
        if self._is_open and not self._is_sending:
            self._is_sending = True
            self._later(0, self._begin)

    def _begin(self) -> None:
        Deferred.fromCoroutine(self._write()).addErrback(lambda failure: _log.failure("the bus failed", failure))

    async def _write(self) -> None:
        try:
            while self._is_open and (parcels := self._queue.take(_BATCH_BYTES)):
                connection = self._connection
                assert connection is not None
                for parcel in parcels:
                    self._sent(parcel)
                texts = list(write_payloads(parcels, PAYLOAD_MOST))
                await connection.send([channel_of(target) for target, _ in texts], [text for _, text in texts])
        except DatabaseError as error:
            _log.debug("what was sent on the bus may be lost: {reason}", reason=one_line(error))
            self._end()
        finally:
            self._is_sending = False

    def _arrived(self, payloads: list[str]) -> None:
        for payload in payloads:
            for packet in read_payload(payload, self._broken):
                parcel = self._unpacking.feed(packet)
                if parcel is not None:
                    self._receive(parcel)

    def _transmit(self, parcel: Parcel) -> None:
        raise NotImplementedError("what is sent waits for the next transaction")
