"""
The partitions of the ledger: they are dropped with those of the log, and emptied before that if there is no room.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dcm_ws.postgres.connection import DatabaseConnection
from dcm_ws.postgres.statements import statement

PARTS = 16
"""
Partitions that the ledger has, at least, when it is as large as it may be.
"""

_PARTITIONS = statement("ledger/partitions")


class LedgerPart(NamedTuple):
    """
    A partition of the ledger.

    @ivar name: of the table.
    @ivar first: its first position.
    @ivar beyond: the position after its last one; None for the newest partition, which has no end.
    @ivar bytes: with its indexes.
    """

    name: str
    first: int
    beyond: int | None
    bytes: int


class LedgerUpkeep:
    """
    Looks after the table of the ledger.  Each method is called in a transaction.

    @param max_bytes: of the ledger, with its indexes; beyond it, its oldest partitions are emptied.
    @param dropped: called for each partition that was emptied before its time.
    """

    def __init__(self, max_bytes: int, dropped: Callable[[], object]) -> None:
        self._max_bytes = max_bytes
        self._dropped = dropped

    async def run(self, session: DatabaseConnection, first: int, newest: int, head: int) -> None:
        """
        Look at the partitions, and change what has to be changed.

        @param first: the oldest position of the log.
        @param newest: the first position of the newest partition of the log.
        @param head: the last position of the log.
        """
        parts = [LedgerPart(*row) for row in await session.runQuery(_PARTITIONS)]
        last = parts[-1]
        if last.first <= head and (last.first < newest or last.bytes >= self._max_bytes / PARTS):
            await self._roll(session, last, head)
        size = sum(part.bytes for part in parts)
        for part in parts[:-1]:
            if part.beyond is not None and part.beyond <= first:
                await session.runOperation(f"drop table dcm_ws.{part.name}")
            elif size > self._max_bytes:
                # as a place for what is still to be written
                await session.runOperation(f"truncate dcm_ws.{part.name}")
                self._dropped()
            else:
                break
            size -= part.bytes

    async def _roll(self, session: DatabaseConnection, last: LedgerPart, head: int) -> None:
        await session.runOperation(statement("ledger/begin_roll", newest=last.name))
        ((end,),) = await session.runQuery(statement("ledger/end", newest=last.name), {"head": head})
        start = "minvalue" if last.first == 1 else str(last.first)
        await session.runOperation(
            statement("ledger/roll", newest=last.name, start=start, end=str(end), next=f"ledger_{end}")
        )
