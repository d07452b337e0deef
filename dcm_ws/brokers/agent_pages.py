"""
What is written of agents and dead letters, in parts of limited size, and dead letters as rows and back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from dcm_ws.core.agent_states import AgentStates, encode
from dcm_ws.core.dead_letters import Listed, Reason
from dcm_ws.core.journal import Changes
from dcm_ws.postgres import agent_rows
from dcm_ws.postgres.agent_rows import LetterKey, StoredLetter


def parts_of(changes: Changes) -> Iterator[tuple[str | None, list[StoredLetter], list[LetterKey]]]:
    """
    Split what is to be written into parts of limited size.

    Dead letters are written before the changes of the agents that owe their events no more: if only a part is written,
    an event may be sent again, and is not lost.
    """
    buried: list[StoredLetter] = []
    size = 0
    for one in changes.letters.kept:
        buried.append(_to_stored(one))
        size += len(one.data)
        if size >= agent_rows.PAGE_BYTES or len(buried) >= agent_rows.PAGE_ROWS:
            yield None, buried, []
            buried, size = [], 0
    dropped = [LetterKey(*key) for key in changes.letters.dropped]
    pages = json_objects(changes.agents)
    for page in pages[:-1]:
        yield page, buried, []
        buried = []
    if pages or buried or dropped:
        yield pages[-1] if pages else None, buried, dropped


def add_journal(states: AgentStates, rows: Sequence[tuple[int, str]]) -> Iterator[None]:
    """
    Add rows of the journal to the states of their agents, one row a step.

    @param rows: each with its number and its changes (JSON).
    """
    for _, changes in rows:
        states.add_changes(changes)
        yield


def json_objects(agents: Sequence[tuple[str, bytes]]) -> list[str]:
    """
    Join agents, with something of each (JSON), to JSON objects of limited size.
    """
    objects: list[str] = []
    page: list[bytes] = []
    size = 0
    for number, (name, data) in enumerate(agents, 1):
        page.append(encode(name) + b":" + data)
        size += len(page[-1])
        if size >= agent_rows.PAGE_BYTES or len(page) >= agent_rows.PAGE_ROWS or number == len(agents):
            objects.append((b"{" + b",".join(page) + b"}").decode())
            page, size = [], 0
    return objects


def _to_stored(letter: Listed) -> StoredLetter:
    return StoredLetter(
        letter.agent,
        letter.event_id,
        letter.pos,
        letter.channel,
        letter.event,
        letter.data.decode(),
        letter.at,
        letter.sender.decode() or None,
        letter.deliveries,
        letter.reason,
        letter.died_at,
        letter.redriven_at,
    )


def to_listed(letter: StoredLetter) -> Listed:
    """
    A row as a dead letter.
    """
    return Listed(
        letter.agent,
        letter.pos,
        letter.event_id,
        letter.channel,
        letter.event,
        letter.data.encode(),
        letter.at,
        letter.deliveries,
        cast(Reason, letter.reason),
        letter.died_at,
        letter.redriven_at,
        (letter.sender or "").encode(),
    )
