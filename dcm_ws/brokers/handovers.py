"""
What nodes of a cluster say to each other when an agent goes from one to the other, and what is put together of an agent
whose node does not say anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

import msgspec
from msgspec import Raw
from twisted.logger import Logger

from dcm_ws.core.agent_states import AgentState, AgentStates, decode_state, encode
from dcm_ws.core.dead_letters import Listed
from dcm_ws.core.ownership import Given
from dcm_ws.postgres.agent_owners import Claim, Seen

_log = Logger(namespace="dcm_ws.owners")

TOPIC = "release"

UNKNOWN = b"null"
"""
The answer of a node that does not have the agent.
"""

KEPT = b'"kept"'
"""
The answer of a node that keeps the agent, because a client of it is there, and no client waits at the other node; or
because it has taken the agent since that one looked.
"""

EMPTY = b"{}"
"""
The state of an agent of which nothing is known.
"""

_LETTERS_BYTES = 256 << 10


class Question(msgspec.Struct, omit_defaults=True):
    """
    What a node asks that wants an agent.

    @ivar gen: how often it had been taken when its row was read.
    @ivar idle: no client waits for it.
    """

    agent: str
    gen: int
    idle: bool = False


class Received(NamedTuple):
    """
    What another node had of an agent.

    @ivar pos: the position of the last event that was delivered there; 0 if an older version does not say it.
    @ivar event_id: the id of that event.
    """

    state: AgentState
    letters: list[Listed]
    pos: int
    event_id: str


class _Given(msgspec.Struct):
    state: AgentState | None = None
    letters: list[Raw] = []
    pos: int = 0
    event_id: str = ""


_decode_question = msgspec.json.Decoder(Question).decode
_decode_letter = msgspec.json.Decoder(Listed).decode
_decode_given = msgspec.json.Decoder(_Given).decode


def read_question(message: bytes) -> Question | None:
    """
    Which agent is wanted; None if that cannot be read.
    """
    try:
        return _decode_question(message)
    except msgspec.DecodeError:
        # of another version
        return None


def answer_of(given: Given, last: tuple[int, str]) -> bytes:
    """
    What a node gives away.

    @param last: the position and the id of the last event that was delivered at this node.
    """
    answer = encode(_Given(given.state, [Raw(encode(letter)) for letter in given.letters], *last))
    # the database has its letters a little later, too
    return answer if len(answer) <= _LETTERS_BYTES else encode(_Given(given.state, [], *last))


def same_answer(claim: Claim) -> bytes:
    """
    What a node has given away before.
    """
    return encode({"state": claim.state, "pos": claim.pos, "event_id": claim.event_id})


def read_answer(answer: bytes | None) -> Received | None:
    """
    What another node has given away; None if it gave nothing.
    """
    if answer is None or answer in (UNKNOWN, KEPT):
        return None
    try:
        given = _decode_given(answer)
    except msgspec.DecodeError:
        # of another version
        return None
    if given.state is None:
        return None
    return Received(given.state, list(_letters(given.letters)), given.pos, given.event_id)


def _letters(given: Iterable[Raw]) -> Iterator[Listed]:
    for letter in given:
        # those of another version may not be readable; the database has them a little later
        with suppress(msgspec.DecodeError):
            yield _decode_letter(letter)


def read_state(agent: str, state: bytes) -> AgentState | None:
    """
    The state of an agent; None if nothing is known of it.

    @param state: JSON.
    """
    if state == EMPTY:
        return None
    try:
        return decode_state(state)
    except msgspec.DecodeError as error:
        # somebody may have written into the table
        _log.warn("the state of agent {agent} cannot be read: {error}; it is left out", agent=agent, error=error)
        return None


def folded(one: Seen) -> bytes:
    """
    The state of an agent with the changes of its journal (JSON).
    """
    states = AgentStates()
    states.add_state(one.agent, one.state, one.gen)
    for change in one.changes:
        states.add_change(one.agent, change)
    for error in states.errors:
        _log.warn("{error}; it is left out", error=error)
    state = states.states.get(one.agent)
    return EMPTY if state is None else encode(state)
