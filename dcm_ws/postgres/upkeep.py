"""
What the leader does with the tables of the log from time to time: it drops what has been kept for long enough, and
empties the inbox, so that neither grows, and nothing is left behind for VACUUM.

The log is partitioned by position.  Its newest partition has no end, so an event always has a place; when it is old or
large enough it gets its end, and another one follows it.  The inbox has three slots: one is written, and before the
next one is written it is emptied.  That is put off while somebody has locked it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

import psycopg2
from twisted.logger import Logger

from dcm_ws.postgres.connection import DatabaseConnection, one_line, transaction
from dcm_ws.postgres.ledger_upkeep import LedgerUpkeep
from dcm_ws.postgres.log_place import LogPlace
from dcm_ws.postgres.statements import statement

_log = Logger(namespace="dcm_ws.log")

LOOK_SECONDS = 5.0
"""
Seconds between two looks at the tables.
"""

TURN_SECONDS = 600.0
"""
Seconds after which another slot of the inbox is written.
"""

PARTS = 16
"""
Partitions that the log has, at least, when it is as old as it may be; when it is as large as it may be, twice as many.
"""

_TURN_BYTES = 64 << 20
_KEYS_SECONDS = 3600.0
_SLOTS = 3
_EMPTY = 256 << 10

_PARTITIONS = statement("upkeep/partitions")
_INBOX = statement("upkeep/inbox")


class Partition(NamedTuple):
    """
    A partition of the log.

    @ivar name: of the table.
    @ivar first: its first position.
    @ivar last: its last one; None for the newest partition.
    @ivar oldest: seconds since its first event was logged, by the clock of the database; None if it has none.
    @ivar newest: the same for its last event, if it has an end.
    @ivar bytes: with its indexes.
    """

    name: str
    first: int
    last: int | None
    oldest: float | None
    newest: float | None
    bytes: int


class Kept(NamedTuple):
    """
    What is in the database.

    @ivar first: the oldest position.
    @ivar bytes: of the log, with its indexes.
    @ivar inbox: bytes of the inbox.
    @ivar partitions: of the log.
    @ivar oldest: ms since the epoch at which the oldest event was logged; None if there is none.
    @ivar held_since: ms since the epoch at which somebody was first found to keep the inbox from being emptied; None if
        nobody does.
    """

    first: int = 1
    bytes: int = 0
    inbox: int = 0
    partitions: int = 0
    oldest: int | None = None
    held_since: int | None = None


class LogEnd(NamedTuple):
    """
    How far the log is.

    @ivar head: the last position.
    @ivar snapshot: of the step that ended there, or of a later one that found nothing.
    @ivar read: what is up to this position is not read in the log any more to be delivered.
    """

    head: int
    snapshot: str
    read: int


class Upkeep:
    """
    Looks after the tables of the log.

    @param now: monotonic seconds.
    @param wall_ms: ms since the epoch.
    @param keep: seconds for which an event is kept.
    @param max_bytes: bytes of the log, after which the oldest events are dropped before their time.
    @param kept: called after each look with what is there.
    @param ledger: looks after the ledger.

    @ivar first: the oldest position.
    @ivar hour_ago: a position that is at least so old.
    """

    def __init__(
        self,
        now: Callable[[], float],
        wall_ms: Callable[[], int],
        *,
        keep: float,
        max_bytes: int,
        kept: Callable[[Kept], object],
        ledger: LedgerUpkeep,
    ) -> None:
        self._now = now
        self._wall_ms = wall_ms
        self._keep = keep
        self._max_bytes = max_bytes
        self._kept = kept
        self._ledger = ledger
        self._due = 0.0
        self._turned = 0.0
        self._slot = 0
        self._epoch = ""
        self._inbox = 0
        self._held_since: int | None = None
        self.first = 1
        self.hour_ago = 0

    async def begin(self, session: DatabaseConnection, place: LogPlace) -> None:
        """
        A session begins.
        """
        self._slot = place.slot
        self._turned = self._now()
        await self.look(session)

    def is_due(self) -> bool:
        """
        Is it time to look?
        """
        return self._now() >= self._due

    async def run(
        self,
        session: DatabaseConnection,
        end: LogEnd,
        turn: Callable[[DatabaseConnection], Awaitable[None]],
    ) -> str:
        """
        Look after the tables; returns the epoch of the log.

        @param turn: numbers what is in the inbox, in the transaction that empties a slot.
        """
        partitions = await self.look(session)
        newest = partitions[-1]
        is_old = newest.oldest is not None and newest.oldest >= self._keep / PARTS
        is_large = newest.bytes >= self._max_bytes / (2 * PARTS)
        has_changed = is_held = False
        if newest.first <= end.head and (is_old or is_large):
            has_changed = await self._attempt(session, partial(self._roll, session, newest, end))
        size = sum(partition.bytes for partition in partitions)
        for partition in partitions[:-1]:
            expired = partition.newest is None or partition.newest >= self._keep
            if not expired and size <= self._max_bytes:
                break
            if partition.last is None or partition.last > end.read:
                # not everything in it was delivered yet
                break
            if not await self._attempt(session, partial(self._drop, session, partition.name)):
                is_held = True
                break
            size -= partition.bytes
            has_changed = True
        if has_changed:
            partitions = await self.look(session)
        look = partial(self._ledger.run, session, partitions[0].first, partitions[-1].first, end.head)
        await self._attempt(session, look)
        is_due = self._now() - self._turned >= TURN_SECONDS or self._inbox >= _SLOTS * _TURN_BYTES
        if is_due and self._inbox > _EMPTY:
            if await self._attempt(session, partial(self._turn, session, turn)):
                self._turned = self._now()
            else:
                is_held = True
        if not is_held:
            self._held_since = None
        elif self._held_since is None:
            self._held_since = self._wall_ms()
        return self._epoch

    async def look(self, session: DatabaseConnection) -> list[Partition]:
        """
        Look at what is kept; returns the partitions, the oldest first.
        """
        self._due = self._now() + LOOK_SECONDS
        partitions = [Partition(*row) for row in await session.runQuery(_PARTITIONS)]
        self.first = partitions[0].first
        self.hour_ago = next(
            (
                partition.last
                for partition in reversed(partitions)
                if partition.last and partition.newest and partition.newest >= _KEYS_SECONDS
            ),
            0,
        )
        ((self._epoch, inbox),) = await session.runQuery(_INBOX)
        size = sum(partition.bytes for partition in partitions)
        oldest = partitions[0].oldest
        oldest_ms = None if oldest is None else self._wall_ms() - round(oldest * 1000)
        self._kept(Kept(self.first, size, inbox, len(partitions), oldest_ms, self._held_since))
        self._inbox = inbox
        return partitions

    async def _attempt(self, session: DatabaseConnection, change: Callable[[], Awaitable[None]]) -> bool:
        """
        Make a change in a transaction.  False if somebody holds a lock that it needs: then it is made later.
        """
        try:
            async with transaction(session):
                await session.runOperation("set local lock_timeout = '200ms'")
                await change()
        except psycopg2.errors.LockNotAvailable as error:
            _log.debug("put off: {reason}", reason=one_line(error))
            return False
        return True

    async def _roll(self, session: DatabaseConnection, newest: Partition, end: LogEnd) -> None:
        start = "minvalue" if newest.first == 1 else str(newest.first)
        await session.runOperation(
            statement(
                "upkeep/roll",
                newest=newest.name,
                start=start,
                end=str(end.head + 1),
                next=f"log_{end.head + 1}",
            ),
            {"head": end.head, "snapshot": end.snapshot},
        )

    async def _drop(self, session: DatabaseConnection, name: str) -> None:
        await session.runOperation(f"drop table dcm_ws.{name}")

    async def _turn(self, session: DatabaseConnection, turn: Callable[[DatabaseConnection], Awaitable[None]]) -> None:
        slot = (self._slot + 1) % _SLOTS
        await session.runOperation(f"lock table dcm_ws.inbox_{slot} in access exclusive mode nowait")
        await turn(session)
        await session.runOperation(f"truncate dcm_ws.inbox_{slot}; update dcm_ws.meta set slot = {slot}")
        self._slot = slot
