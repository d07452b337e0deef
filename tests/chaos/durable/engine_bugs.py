"""
Bugs of the log in PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from dcm_ws.brokers import numberer
from dcm_ws.brokers.log_delivery import LogDelivery
from dcm_ws.brokers.numberer import Numberer
from dcm_ws.brokers.postgres_log import PostgresLog
from dcm_ws.core.publish_queue import Waiting
from dcm_ws.postgres.log_place import LogPlace, Snapshot
from dcm_ws.postgres.upkeep import Kept, Upkeep
from tests.chaos.durable.bugs import BUGS, Bug, bug


def sql_bug(name: str, what: str, statement: str, *changes: tuple[str, str]) -> None:
    """
    Make a bug of a statement in which some text is replaced.
    """

    def plant() -> None:
        good: Callable[..., str] = vars(numberer)["statement"]

        def bad(asked: str, **values: str) -> str:
            text = good(asked, **values)
            if asked == statement:
                for old, new in changes:
                    assert old in text, f"{old} is not in {statement}"
                    text = text.replace(old, new)
            return text

        vars(numberer)["statement"] = bad

    BUGS[name] = Bug(what, plant)


_OPEN = "from dcm_ws.inbox where xid = any ((select transactions from ended)::xid8[])"
_NEW = "from dcm_ws.inbox where xid >= $1"

sql_bug(
    "naive_cursor",
    "what is new is what has a higher number than the last event that was numbered",
    "numbering/prepare",
    (
        _NEW,
        "from dcm_ws.inbox where id > coalesce((select max(i.id) from dcm_ws.inbox i join dcm_ws.log l"
        " on l.event_id = i.event_id), 0) and $1 is not null",
    ),
    (_OPEN, f"{_OPEN} and false"),
)
sql_bug(
    "open_transactions_forgotten",
    "events of transactions that were open at the last step are forgotten",
    "numbering/prepare",
    (_OPEN, f"{_OPEN} and false"),
)
sql_bug(
    "order_by_transaction",
    "events of one step are in the order of the numbers of their transactions",
    "numbering/prepare",
    ("select 0 as source, id as number", "select 0 as source, (xid::text::bigint << 24) + id as number"),
    ("select 0, id, event_id", "select 0, (xid::text::bigint << 24) + id, event_id"),
)
sql_bug(
    "clients_first",
    "what clients publish stands before what was committed until then",
    "numbering/prepare",
    ("over (order by source, number) as pos", "over (order by source desc, number) as pos"),
)
sql_bug(
    "keys_not_compared",
    "what is published again under its key is numbered again",
    "numbering/prepare",
    ("where key is null or (source, number) in", "where key is null or true or (source, number) in"),
)


@bug(LogPlace, "find", "a service that takes over begins at the newest transaction")
async def newest_at_takeover(good: Any, *positional: Any) -> LogPlace:
    place: LogPlace = await good(*positional)
    ((text,),) = await positional[0].runQuery("select pg_current_snapshot()::text")
    return place._replace(snapshot=Snapshot.parse(text))


@bug(LogPlace, "find", "a service that takes over begins at the snapshot of the newest partition")
async def snapshot_not_stored(good: Any, *positional: Any) -> LogPlace:
    place: LogPlace = await good(*positional)
    ((text,),) = await positional[0].runQuery("select snapshot::text from dcm_ws.meta")
    return place._replace(snapshot=Snapshot.parse(text))


@bug(LogPlace, "find", "the epoch stays when the database is restored")
async def epoch_kept(good: Any, session: Any, last: Any, known: str, new_epoch: Any) -> LogPlace:
    place: LogPlace = await good(session, last, known, lambda: known)
    return place


@bug(Numberer, "_step", "events are delivered before they are committed")
async def delivered_before_commit(good: Any, self: Numberer, session: Any) -> int:
    await session.runOperation("begin")
    found: int = await good(self, session)
    await self._naps.sleep(0.03)
    await session.runOperation("commit")
    return found


@bug(Upkeep, "_turn", "a slot of the inbox is emptied without a look at what is in it")
async def emptied_unread(good: Any, self: Upkeep, session: Any, turn: Callable[[Any], Awaitable[None]]) -> None:
    slot = self._slot
    await session.runOperation(f"lock table dcm_ws.inbox_{slot} in access exclusive mode nowait")
    await session.runOperation(f"truncate dcm_ws.inbox_{slot}; update dcm_ws.meta set slot = {(slot + 1) % 3}")
    self._slot = (slot + 1) % 3


@bug(LogDelivery, "read", "what does not fit on the first page is skipped")
def rest_of_page_skipped(good: Any, self: LogDelivery, rows: Sequence[Any], upto: int) -> None:
    good(self, rows, upto)
    self.fetched = upto


@bug(Numberer, "_parameters", "what clients publish is acknowledged before it is committed")
def answered_before_commit(good: Any, self: Numberer, batch: Sequence[Waiting]) -> dict[str, object]:
    for number, waiting in enumerate(batch, start=1):
        waiting.published.answer(self._delivery.fetched + number)
        waiting.published.waiting = True
    parameters: dict[str, object] = good(self, batch)
    return parameters


@bug(PostgresLog, "kept", "what retention drops is not reported to readers")
def dropped_silently(good: Any, self: PostgresLog, kept: Kept) -> None:
    good(self, kept._replace(first=1))
