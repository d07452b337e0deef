"""
The ledger in the database: pages of what became of events at agents.

As with all that a process writes, each statement checks that the process may write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dcm_ws.postgres.connection import DatabaseConnection, deadline
from dcm_ws.postgres.statements import statement

PAGES_MAX = 1000
BYTES_MAX = 32 << 20
"""
What is read of the ledger for one event: pages, and bytes beyond the first one.
"""

_ANSWER_SECONDS = 12.0
_FIND = statement("ledger/find")
_EVENT = statement("ledger/event")


class FoundEvent(NamedTuple):
    """
    An event in the log.

    @ivar data: JSON.
    @ivar at: ms since the epoch.
    @ivar sender: the JSON field that names the agent that published the event; None for none.
    """

    pos: int
    event_id: str
    channel: str
    event: str
    data: str
    at: int
    sender: str | None


def write_statement(right: str, sql: str) -> str:
    """
    SQL that writes pages if the process may write.

    @param right: the name of the part of the statement that has a row then.
    @param sql: that part.
    """
    return statement("ledger/write", right=right, sql=sql)


async def write(
    connection: DatabaseConnection,
    query: str,
    lease: Mapping[str, Any],
    pages: Sequence[tuple[int, int, bytes]],
    node: int | None = None,
) -> bool:
    """
    Write pages.  False if this process may not write any more: then nothing was written.

    @param query: by L{write_statement}.
    @param lease: the parameters of the right to write.
    @param pages: the first and the last position of each, and the page as JSON.
    @param node: the node of a cluster that writes.
    """
    parameters = {
        **lease,
        "node": node,
        "firsts": [first for first, _, _ in pages],
        "uptos": [upto for _, upto, _ in pages],
        "entries": [entries.decode() for _, _, entries in pages],
    }
    with deadline(connection, _ANSWER_SECONDS):
        return bool((await connection.runQuery(query, parameters))[0][0])


async def find_event(connection: DatabaseConnection, event_id: str) -> FoundEvent | None:
    """
    Find an event in the log.
    """
    with deadline(connection, _ANSWER_SECONDS):
        rows = await connection.runQuery(_EVENT, {"event_id": event_id})
    return FoundEvent(*rows[0]) if rows else None


async def find_pages(connection: DatabaseConnection, pos: int, end: int) -> list[bytes]:
    """
    Read the pages that may have something of the event at C{pos}, the oldest first, as JSON.

    @param end: they end before this position.
    """
    part = {"pos": pos, "end": end, "most": PAGES_MAX, "bytes": BYTES_MAX}
    with deadline(connection, _ANSWER_SECONDS):
        return [entries.encode() for (entries,) in await connection.runQuery(_FIND, part)]
