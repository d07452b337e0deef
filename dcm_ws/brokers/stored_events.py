"""
What operators see of one event if the log is in the database.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import deferLater

from dcm_ws.brokers.postgres_log import PostgresLog
from dcm_ws.core.event_records import EventRecord, EventRecords, sender_of
from dcm_ws.core.fates import fates
from dcm_ws.core.ledger import Ledger
from dcm_ws.core.ledger_pages import BLOCK, LedgerEntry, entries_of
from dcm_ws.postgres import ledger_rows
from dcm_ws.postgres.connection import Address, DatabaseError
from dcm_ws.postgres.kept_connection import KeptConnection
from dcm_ws.postgres.statements import statement
from dcm_ws.protocol.errors import ErrorCode, ProtocolError

WAITING_MAX = 20
"""
Questions that may wait for the database.
"""


class StoredEvents(Service):
    """
    Reads events and the ledger, one question at a time on a connection of its own, which is there while somebody asks.

    What the nodes of a cluster have noted in the last second may be missing, but not what this one has.

    @param address: returns where the database is.
    @param log: says if the log is in the database.
    @param memory: has the events if it is not.
    @param ledger: what this process has noted and not written yet.
    """

    def __init__(self, reactor: Any, address: Address, log: PostgresLog, memory: EventRecords, ledger: Ledger) -> None:
        self._reactor = reactor
        self._connection = KeptConnection(
            reactor,
            address,
            "dcm-ws ledger",
            runs=lambda: bool(self.running),
            settings=statement("agents/connection"),
        )
        self._log = log
        self._memory = memory
        self._ledger = ledger
        self._turn = DeferredLock()

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        self._connection.close()
        return None

    def event(self, event_id: str) -> EventRecord | Deferred[EventRecord | None] | None:
        """
        One event; None if the log does not have it.

        @raise ProtocolError: C{NOT_AVAILABLE}: too many questions wait, or the database cannot be asked; the Deferred
            may fail with it as well.
        """
        if self._log.in_memory:
            return self._memory.event(event_id)
        if len(self._turn.waiting) >= WAITING_MAX:
            raise ProtocolError(ErrorCode.NOT_AVAILABLE, "Too many questions wait for the database; try again")
        return self._turn.run(Deferred.fromCoroutine, self._event(event_id))

    async def _event(self, event_id: str) -> EventRecord | None:
        try:
            connection = await self._connection.get()
            found = await ledger_rows.find_event(connection, event_id)
            if found is None:
                return None
            pos = found.pos
            # before the database is asked: what is written meanwhile may come twice, and is not missing
            pages = self._ledger.pages_of(pos)
            pages += await ledger_rows.find_pages(connection, pos, (pos // BLOCK + 1) * BLOCK)
        except DatabaseError:
            raise ProtocolError(ErrorCode.NOT_AVAILABLE, "The database cannot be asked now; try again") from None
        finally:
            if not self._turn.waiting:
                # questions are rare, and connections are not
                self._connection.close()
        entries: list[LedgerEntry] = []
        for page in pages:
            # a page may take some milliseconds
            entries += entries_of([page], pos)
            await deferLater(self._reactor, 0)
        sender = sender_of(found.sender)
        return EventRecord(pos, found.event_id, found.channel, found.event, found.at, sender, fates(entries))
