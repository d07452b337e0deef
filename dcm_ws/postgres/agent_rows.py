"""
What agents are owed, in the tables of the database: a state for each agent, a journal of what has changed since,
and the dead letters.

Only the leader writes.  Its number is in the database, and each statement that writes checks it; so a process that has
lost the leader's lock without knowing it writes nothing more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any, NamedTuple

import msgspec

from dcm_ws.postgres import ledger_rows
from dcm_ws.postgres.connection import DatabaseConnection, deadline
from dcm_ws.postgres.statements import statement

PAGE_ROWS = 1000
PAGE_BYTES = 1 << 20
"""
What is read or written at once: rows, and bytes beyond the first row.
"""

ANSWER_SECONDS = 12.0
"""
Seconds until a statement is given up.  The server gives it up before that.
"""

_LEADS = statement("agents/leads").strip()
_CLAIM = statement("agents/claim")
_HOLDS = f"with {_LEADS} select exists (select from leads)"
_WRITE = statement("agents/write", leads=_LEADS, letters=statement("agents/bury", right="leads"))
_NOTE = ledger_rows.write_statement("leads", _LEADS)
_DONE = statement("agents/done", leads=_LEADS)
_CHECKPOINT = statement("agents/checkpoint", leads=_LEADS)
_REQUESTS = statement("agents/requests")
_DISOWN = statement("agents/disown", leads=_LEADS)
_encode = msgspec.json.encode


class LostRightError(Exception):
    """
    This process may not write any more.
    """


class NotLeadingError(LostRightError):
    """
    Another process has become the leader; nothing was written.
    """


class Lease(NamedTuple):
    """
    The right to write.

    @ivar leader: the number of the leader, which counts how often there was a new one.
    @ivar epoch: of the log that positions belong to.
    """

    leader: int
    epoch: str


class StoredLetter(msgspec.Struct, frozen=True, gc=False):
    """
    A dead letter as it is stored.

    @ivar data: JSON, as the event was published.
    @ivar at: ms since the epoch, as are C{died_at} and C{redriven_at}.
    @ivar sender: the JSON field that names the agent that published the event; None for none.
    @ivar redriven_at: None if it was not redriven.
    """

    agent: str
    event_id: str
    pos: int
    channel: str
    event: str
    data: str
    at: int
    sender: str | None
    deliveries: int
    reason: str
    died_at: int
    redriven_at: int | None


class LetterKey(msgspec.Struct, frozen=True, gc=False):
    """
    Which letter is meant.
    """

    agent: str
    event_id: str


class Request(NamedTuple):
    """
    What an operator wants to be done with a dead letter.

    @ivar request: C{redrive} or C{purge}.
    """

    agent: str
    event_id: str
    request: str


async def claim(session: DatabaseConnection) -> Lease:
    """
    Become the leader, in a session that has the leader's lock.
    """
    with deadline(session, ANSWER_SECONDS):
        return Lease(*(await session.runQuery(_CLAIM))[0])


async def holds(session: DatabaseConnection, lease: Lease) -> bool:
    """
    Is a lease still valid?
    """
    with deadline(session, ANSWER_SECONDS):
        return bool((await session.runQuery(_HOLDS, lease._asdict()))[0][0])


async def states(connection: DatabaseConnection) -> AsyncIterator[Sequence[tuple[str, str, int]]]:
    """
    Read the agents, their states (JSON) and how often nodes of a cluster have taken them, a page at a time.
    """
    async for page in _pages(connection, "agents/read_agents", {"after": ""}):
        yield page


async def journal(connection: DatabaseConnection) -> AsyncIterator[Sequence[tuple[int, str]]]:
    """
    Read the numbers and the changes (JSON) of the journal in their order, a page at a time.
    """
    async for page in _pages(connection, "agents/read_journal", {"after": 0}):
        yield page


async def letters(connection: DatabaseConnection) -> AsyncIterator[Sequence[StoredLetter]]:
    """
    Read the dead letters, a page at a time.
    """
    async for page in _pages(connection, "agents/read_letters", {"agent": "", "event_id": ""}):
        yield [StoredLetter(*row) for row in page]


async def _pages(
    connection: DatabaseConnection, name: str, after: dict[str, Any]
) -> AsyncIterator[Sequence[tuple[Any, ...]]]:
    query = statement(name)
    while True:
        with deadline(connection, ANSWER_SECONDS):
            page = await connection.runQuery(query, {**after, "most": PAGE_ROWS, "bytes": PAGE_BYTES})
        if not page:
            return
        yield page
        after = dict(zip(after, page[-1], strict=False))


async def write(
    connection: DatabaseConnection,
    lease: Lease,
    changes: str | None,
    buried: Collection[StoredLetter] = (),
    dropped: Collection[LetterKey] = (),
) -> int | None:
    """
    Write what has changed, in one transaction.

    @param changes: the changes of agents, a JSON object; None for none.
    @return: the number of the row in the journal, if there are changes.
    @raise NotLeadingError: nothing was written.
    """
    parameters = {
        **lease._asdict(),
        "changes": changes,
        "letters": _encode(buried).decode(),
        "dropped": _encode(dropped).decode(),
    }
    with deadline(connection, ANSWER_SECONDS):
        leads, number = (await connection.runQuery(_WRITE, parameters))[0]
    if not leads:
        raise NotLeadingError
    return None if number is None else int(number)


async def note(connection: DatabaseConnection, lease: Lease, pages: Sequence[tuple[int, int, bytes]]) -> None:
    """
    Write pages of the ledger.

    @param pages: the first and the last position of each, and the page as JSON.
    @raise NotLeadingError: nothing was written.
    """
    if not await ledger_rows.write(connection, _NOTE, lease._asdict(), pages):
        raise NotLeadingError


async def checkpoint(
    connection: DatabaseConnection, lease: Lease, states: str, gone: Collection[str], upto: int
) -> None:
    """
    Write the states of agents, in one transaction.

    @param states: a JSON object with the states by agent.
    @param gone: agents that are forgotten.
    @param upto: rows of the journal up to this number are covered, and deleted; 0 for none.
    @raise NotLeadingError: nothing was written.
    """
    parameters = {**lease._asdict(), "states": states, "gone": list(gone), "upto": upto}
    with deadline(connection, ANSWER_SECONDS):
        rows = await connection.runQuery(_CHECKPOINT, parameters)
    if not rows[0][0]:
        raise NotLeadingError


async def disown(session: DatabaseConnection, lease: Lease) -> None:
    """
    Take all agents from the nodes of a cluster, which are gone, after everything that they wrote was read.
    """
    with deadline(session, ANSWER_SECONDS):
        await session.runOperation(_DISOWN, lease._asdict())


async def requests(connection: DatabaseConnection, most: int) -> list[Request]:
    """
    Read what operators want to be done, C{most} letters at the most.
    """
    with deadline(connection, ANSWER_SECONDS):
        return [Request(*row) for row in await connection.runQuery(_REQUESTS, {"most": most})]


async def redriven(connection: DatabaseConnection, lease: Lease, done: Collection[LetterKey]) -> None:
    """
    What operators wanted to be redriven has been redriven.
    """
    with deadline(connection, ANSWER_SECONDS):
        await connection.runOperation(_DONE, {**lease._asdict(), "letters": _encode(done).decode()})
