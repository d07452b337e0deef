"""
Where the log in the database ends, and whether its positions still mean what they meant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dcm_ws.postgres.connection import DatabaseConnection, transaction
from dcm_ws.postgres.statements import statement

_PLACE = statement("numbering/place")
_EVENT_AT = statement("numbering/event_at")
_ADOPT = "update dcm_ws.meta set epoch = %s, system_id = %s, timeline = %s"


class Snapshot(NamedTuple):
    """
    Which transactions had ended at some time.

    @ivar xmax: those from this one on had not begun.
    @ivar xip: of those before it, these were open; as an array of PostgreSQL.
    """

    xmax: str
    xip: str

    def __str__(self) -> str:
        """
        As a C{pg_snapshot}.
        """
        xip = self.xip.strip("{}")
        return f"{xip.partition(',')[0] or self.xmax}:{self.xmax}:{xip}"

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """
        Read a C{pg_snapshot}.
        """
        _, xmax, xip = text.split(":")
        return cls(xmax, f"{{{xip}}}")


class LogPlace(NamedTuple):
    """
    The end of the log.

    @ivar epoch: names it.
    @ivar head: its last position.
    @ivar snapshot: of the last step that has put something into it.
    @ivar slot: the slot of the inbox that is written now.
    @ivar last: the position and the id of the last event; 0 and nothing if it is not kept.
    """

    epoch: str
    head: int
    snapshot: Snapshot
    slot: int
    last: tuple[int, str]

    @classmethod
    async def find(
        cls, session: DatabaseConnection, last: tuple[int, str] | None, known: str, new_epoch: Callable[[], str]
    ) -> LogPlace:
        """
        Find the end of the log, in a session that holds the leader's lock.

        The log gets a new epoch on a server that is another one (a restored dump, a copy), if it does not have the
        event that this process has seen last, and on a new timeline (a failover, a restored backup) if no such event
        says that nothing is missing.

        @param last: the position and the id of the event that was delivered last here; None if this process does not
            know the log yet.
        @param known: the epoch in which that was.
        """
        place, server, server_now = await cls._read(session)
        epoch, head, snapshot = place.epoch, place.head, place.snapshot
        (system, timeline), (system_now, timeline_now) = server, server_now
        vouched = is_lost = False
        if last is not None and epoch == known and last[0]:
            vouched = last[0] <= head and await has_event(session, last)
            is_lost = not vouched
        is_foreign = bool(system) and system != system_now
        is_unknown = bool(system) and timeline != timeline_now and not vouched
        if is_foreign or is_lost or is_unknown:
            epoch = new_epoch()
        if is_foreign:
            snapshot = Snapshot.parse(await _take_over_inbox(session, head, epoch, system_now, timeline_now))
        elif (system, timeline) != (system_now, timeline_now) or is_lost or is_unknown:
            await session.runOperation(_ADOPT, (epoch, system_now, timeline_now))
        return place._replace(epoch=epoch, snapshot=snapshot)

    @classmethod
    async def settled(cls, session: DatabaseConnection) -> LogPlace | None:
        """
        Find the end of the log, in any session.  None if the server is not the one that the epoch was made on, and the
        leader has to decide what that means.
        """
        place, server, server_now = await cls._read(session)
        return place if server == server_now else None

    @classmethod
    async def _read(cls, session: DatabaseConnection) -> tuple[LogPlace, tuple[str, int], tuple[str, int]]:
        """
        What is in the database, the server that the epoch was made on, and the server now.
        """
        (
            (epoch, system, timeline, slot, base, snapshot, system_now, timeline_now, pos, log_snapshot, last_id),
        ) = await session.runQuery(_PLACE)
        if pos is not None and pos > base:
            head, snapshot = pos, log_snapshot
        else:
            head = base
        last = (head, last_id) if pos == head else (0, "")
        place = cls(epoch, head, Snapshot.parse(snapshot), slot, last)
        return place, (system, timeline), (system_now, timeline_now)


async def has_event(session: DatabaseConnection, last: tuple[int, str]) -> bool:
    """
    Does the log have an event, or did it have it: by position and id?
    """
    pos, event_id = last
    rows = await session.runQuery(_EVENT_AT, {"pos": pos})
    # what is not kept any more was there
    return not rows or rows[0][0] == event_id


async def _take_over_inbox(session: DatabaseConnection, head: int, epoch: str, system: str, timeline: int) -> str:
    """
    The numbers of transactions in the inbox are those of another server: give its events numbers of this one, without
    those that have positions already.  Returns the snapshot from which to go on.
    """
    parameters = {"head": head, "epoch": epoch, "system": system, "timeline": timeline}
    async with transaction(session):
        # before this transaction has a number: it must be one of those that are new
        ((snapshot,),) = await session.runQuery("select pg_current_snapshot()::text")
        await session.runOperation(statement("numbering/take_over"), {**parameters, "snapshot": snapshot})
    return str(snapshot)
