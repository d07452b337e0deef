"""
What agents of a cluster are owed, in the tables of the database: like L{dcm_ws.postgres.agent_rows}, but each node
writes only its own agents.

The row of an agent says which node has it, and how often it was taken.  Each change in the journal carries that number,
so what a node writes that has lost the agent without knowing it counts for nothing.  A node that is fenced writes
nothing at all.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from dcm_ws.postgres import ledger_rows
from dcm_ws.postgres.agent_rows import ANSWER_SECONDS, PAGE_BYTES, PAGE_ROWS, LetterKey, LostRightError, StoredLetter
from dcm_ws.postgres.connection import DatabaseConnection, deadline
from dcm_ws.postgres.statements import statement

_HOLDS = statement(
    "agents/holds", delivered=statement("agents/delivered", pos="%(pos)s", event_id="%(event_id)s")
).strip()
_LOOK = statement("agents/look", holds=_HOLDS)
_TAKE = statement(
    "agents/take",
    holds=_HOLDS,
    delivered=statement("agents/delivered", pos="given.pos", event_id="given.event_id"),
)
_FLUSH = statement("agents/flush", holds=_HOLDS, letters=statement("agents/bury", right="holds"))
_NOTE = ledger_rows.write_statement("holds", _HOLDS)
_SAVE = statement("agents/save", holds=_HOLDS)
_GIVE_BACK = statement("agents/give_back", holds=_HOLDS)
_OWN_DONE = statement("agents/own_done", holds=_HOLDS)
_OTHER_REQUESTS = statement("agents/other_requests", holds=_HOLDS)
_FOLD = statement("agents/fold", holds=_HOLDS)
_EXPIRE = statement("agents/expire", holds=_HOLDS)
_LETTERS = statement("agents/letters")
_OWNERS_OF = statement("agents/owners_of")
_LOST = statement("agents/lost")
_OWN_REQUESTS = statement("agents/own_requests")
_LEFT_JOURNAL = statement("agents/left_journal")
_LEFT_AGENTS = statement("agents/left_agents")
_encode = msgspec.json.encode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


class FencedError(LostRightError):
    """
    The node is fenced, or the log has become another one, as after the restore of a backup; nothing was written.
    """


class NodeLease(NamedTuple):
    """
    The right of a node to write.

    @ivar node: the id of its row.
    @ivar epoch: of the log that positions belong to.
    @ivar pos: the position of the last event that was delivered there; 0 for none.  If the log does not have it,
        it has become another one, and the node does not know it yet.
    @ivar event_id: the id of that event.
    """

    node: int
    epoch: str
    pos: int = 0
    event_id: str = ""


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """
    An agent that a node wants to have.

    @ivar gen: its number when the node took it, as far as the node has it; None otherwise.
    @ivar forced: the node that has it does not answer.
    """

    agent: str
    gen: int | None
    forced: bool = False


class Found(Enum):
    """
    What was found of an agent that a node wants to have.
    """

    #: the node has it already
    KEPT = "kept"
    #: the node has it now
    TAKEN = "taken"
    #: nobody has it, and its journal has to be folded into its state
    STALE = "stale"
    #: another node has it
    OWNED = "owned"


class Seen(NamedTuple):
    """
    An agent that a node wants to have.

    @ivar gen: how often it was taken.
    @ivar owner: the node that has it, or had it.
    @ivar state: JSON; empty if another node has it.
    @ivar changes: those of its journal, in their order (JSON).
    @ivar letters: it has dead letters.
    """

    agent: str
    found: Found
    gen: int
    owner: int | None
    state: str
    changes: list[bytes]
    letters: bool


class Claim(msgspec.Struct, frozen=True, gc=False):
    """
    An agent that a node takes, or has.

    @ivar gen: how often it has been taken.
    @ivar state: JSON.
    @ivar pos: the position of the last event that was delivered at the node that the state is of; 0 if the state is of
        the database, or of the node that writes it.
    @ivar event_id: the id of that event.
    """

    agent: str
    gen: int
    state: msgspec.Raw
    pos: int = 0
    event_id: str = ""


class Gen(msgspec.Struct, frozen=True, gc=False):
    """
    An agent, and how often it has been taken.
    """

    agent: str
    gen: int


class Got(NamedTuple):
    """
    An agent that was taken.

    @ivar gen: how often it has been taken now.
    @ivar letters: it has dead letters.
    """

    gen: int
    letters: bool


class Flushed(NamedTuple):
    """
    What was written.

    @ivar number: that of the row in the journal; None if there are no changes.
    @ivar lost: the agents that another node has taken since, and that node; None if there is no such node any more.
    """

    number: int | None
    lost: dict[str, int | None]


class Asked(NamedTuple):
    """
    What an operator wants to be done with a dead letter of this node.

    @ivar request: C{redrive} or C{purge}.
    """

    letter: StoredLetter
    request: str


class Left(NamedTuple):
    """
    A part of the journals of nodes that are fenced.

    @ivar rows: their numbers, each with the changes (JSON).
    @ivar states: what nobody has of these agents: state (JSON) and number.
    """

    rows: list[tuple[int, str]]
    states: dict[str, tuple[str, int]]


async def _run(connection: DatabaseConnection, query: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    with deadline(connection, ANSWER_SECONDS):
        rows: list[tuple[Any, ...]] = await connection.runQuery(query, parameters)
    return rows


def _text(values: Collection[object]) -> str:
    return _encode(list(values)).decode()


async def look(connection: DatabaseConnection, lease: NodeLease, wanted: Collection[Wanted]) -> list[Seen]:
    """
    Take those agents that nobody has, as far as that is all, and find out what there is to do for the others.

    @return: some may be missing, if other nodes see them for the first time just now.
    @raise FencedError: nothing was taken.
    """
    rows = await _run(connection, _LOOK, {**lease._asdict(), "agents": _text(wanted)})
    if not rows:
        raise FencedError
    return [
        Seen(agent, Found(found), gen, owner, state or "", _changes_of(changes), letters)
        for agent, found, gen, owner, state, changes, letters in rows
        if agent is not None
    ]


def _changes_of(changes: str | None) -> list[bytes]:
    return [] if changes is None else [bytes(change) for change in _decode_list(changes)]


async def take(connection: DatabaseConnection, lease: NodeLease, claims: Collection[Claim]) -> dict[str, Got]:
    """
    Take agents, unless somebody else has taken them since.

    @param claims: with the states that they have from now on.
    @return: those that were taken.
    @raise FencedError: nothing was taken.
    """
    rows = await _run(connection, _TAKE, {**lease._asdict(), "claims": _text(claims)})
    if not rows:
        raise FencedError
    return {agent: Got(gen, letters) for agent, gen, letters in rows if agent is not None}


async def letters_of(connection: DatabaseConnection, agents: Collection[str]) -> list[StoredLetter]:
    """
    Read the dead letters of some agents, in the order of dying.
    """
    return [StoredLetter(*row) for row in await _run(connection, _LETTERS, {"agents": list(agents)})]


async def owners_of(connection: DatabaseConnection, agents: Collection[str]) -> dict[str, int]:
    """
    Which nodes have some agents; those that nobody has are missing.
    """
    return dict(await _run(connection, _OWNERS_OF, {"agents": list(agents)}))


async def lost_of(connection: DatabaseConnection, gens: Collection[Gen]) -> dict[str, int | None]:
    """
    Which of some agents another node has taken since, and that node; None if there is no such node any more.
    """
    return dict(await _run(connection, _LOST, {"agents": _text(gens)}))


async def flush(
    connection: DatabaseConnection,
    lease: NodeLease,
    changes: str | None,
    buried: Collection[StoredLetter] = (),
    dropped: Collection[LetterKey] = (),
) -> Flushed:
    """
    Write what has changed, in one transaction.

    @param changes: the changes of agents, a JSON object; None for none.
    @raise FencedError: nothing was written.
    """
    parameters = {**lease._asdict(), "changes": changes, "letters": _text(buried), "dropped": _text(dropped)}
    holds, number, lost = (await _run(connection, _FLUSH, parameters))[0]
    if not holds:
        raise FencedError
    return Flushed(number, json.loads(lost))


async def note(connection: DatabaseConnection, lease: NodeLease, pages: Sequence[tuple[int, int, bytes]]) -> None:
    """
    Write pages of the ledger.

    @param pages: the first and the last position of each, and the page as JSON.
    @raise FencedError: nothing was written.
    """
    if not await ledger_rows.write(connection, _NOTE, lease._asdict(), pages, lease.node):
        raise FencedError


async def save(
    connection: DatabaseConnection, lease: NodeLease, states: Collection[Claim], gone: Collection[Gen], upto: int
) -> None:
    """
    Write the states of agents that this node has, in one transaction.

    @param gone: agents that are forgotten.
    @param upto: rows of the journal of this node up to this number are covered, and deleted; 0 for none.
    @raise FencedError: nothing was written.
    """
    parameters = {**lease._asdict(), "states": _text(states), "gone": _text(gone), "upto": upto}
    _demand(await _run(connection, _SAVE, parameters))


async def give_back(connection: DatabaseConnection, lease: NodeLease, states: Collection[Claim]) -> None:
    """
    Write the states of agents that this node has, and that no node has from now on, in one transaction.

    @raise FencedError: nothing was written.
    """
    _demand(await _run(connection, _GIVE_BACK, {**lease._asdict(), "states": _text(states)}))


async def own_requests(connection: DatabaseConnection, lease: NodeLease, most: int) -> list[Asked]:
    """
    Read what operators want to be done with dead letters of agents that this node has.
    """
    rows = await _run(connection, _OWN_REQUESTS, {"node": lease.node, "most": most})
    return [Asked(StoredLetter(*row[:-1]), row[-1]) for row in rows]


async def own_done(connection: DatabaseConnection, lease: NodeLease, done: Collection[LetterKey]) -> None:
    """
    What operators wanted to be redriven has been redriven.
    """
    with deadline(connection, ANSWER_SECONDS):
        await connection.runOperation(_OWN_DONE, {**lease._asdict(), "letters": _text(done)})


# what the leader does for agents that no node has


async def other_requests(connection: DatabaseConnection, lease: NodeLease, most: int, now_ms: int) -> bool:
    """
    Do what operators want to be done with dead letters of agents that no node has.  Returns if there may be more.

    @raise FencedError: nothing was done.
    """
    rows = await _run(connection, _OTHER_REQUESTS, {**lease._asdict(), "most": most, "now": now_ms})
    _demand(rows)
    return bool(rows[0][1] == most)


async def left(connection: DatabaseConnection) -> Left:
    """
    Read the next part of the journals of nodes that are fenced; it is empty if there is nothing.
    """
    rows = await _run(connection, _LEFT_JOURNAL, {"most": PAGE_ROWS, "bytes": PAGE_BYTES})
    if not rows:
        return Left([], {})
    agents = sorted({agent for _, changes in rows for agent in json.loads(changes)})
    states = await _run(connection, _LEFT_AGENTS, {"agents": agents})
    return Left([(seq, changes) for seq, changes in rows], {agent: (state, gen) for agent, state, gen in states})


async def fold(
    connection: DatabaseConnection, lease: NodeLease, states: Collection[Claim], rows: Sequence[int]
) -> None:
    """
    Write the states of agents that no node has, and delete the rows of the journal that are in them.

    @raise FencedError: nothing was written.
    """
    parameters = {**lease._asdict(), "states": _text(states), "rows": list(rows)}
    _demand(await _run(connection, _FOLD, parameters))


async def expire(
    connection: DatabaseConnection, lease: NodeLease, now_ms: int, *, keep: float, keep_letters: float, most: int
) -> bool:
    """
    Forget agents that no node has and that have been away for long, and old dead letters.  Returns if there may be
    more.

    @param keep: seconds for which an agent is kept.
    @param keep_letters: seconds for which a dead letter is kept.
    @param most: of each, at most.
    @raise FencedError: nothing was forgotten.
    """
    parameters = {**lease._asdict(), "now": now_ms, "keep": keep, "keep_letters": keep_letters, "most": most}
    rows = await _run(connection, _EXPIRE, parameters)
    _demand(rows)
    return bool(rows[0][1] >= most)


def _demand(rows: Sequence[tuple[Any, ...]]) -> None:
    if not rows[0][0]:
        raise FencedError
