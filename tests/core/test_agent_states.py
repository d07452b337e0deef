"""
The states of agents as the database has them.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcm_ws.core.agent_states import (
    AgentState,
    AgentStates,
    Change,
    decode_change,
    decode_state,
    difference,
    encode,
    fold,
    merge,
    stamped,
    whole,
)

_positions = st.integers(0, 1 << 40)
_states = st.builds(
    AgentState,
    sent=_positions,
    channels=st.dictionaries(st.sampled_from(("topics/t", "topics/u")), _positions),
    owed=st.dictionaries(st.integers(0, 5), st.tuples(st.sampled_from(("a", "b")), st.integers(0, 3))),
    durable=st.booleans(),
    left=st.none() | _positions,
)


def test_state_as_json() -> None:
    """
    As the design of the tables has it.
    """
    state = AgentState(7, {"topics/t": 9}, {5: ("msg_a", 2)}, True, None)
    text = {"sent": 7, "channels": {"topics/t": 9}, "owed": {"5": ["msg_a", 2]}, "durable": True, "left": None}
    assert json.loads(encode(state)) == text
    assert decode_state(json.dumps(text)) == state
    assert encode(Change(settled=[5], left=8)) == b'{"settled":[5],"left":8}'
    assert encode(Change(gone=True)) == b'{"gone":true}'


@given(_states, _states, _states)
def test_changes(first: AgentState, second: AgentState, third: AgentState) -> None:
    """
    The changes between states make each of the one before it, also as one, also if they are applied twice.
    """
    changes = [difference(first, second), difference(second, third)]
    one, two = (Change() if change is None else decode_change(encode(change)) for change in changes)
    assert fold(first, one) == second
    merged = merge(one, two)
    for state in (first, second, third, fold(second, two)):
        assert fold(state, merged) == third
    assert fold(None, merge(whole(second), two)) == third
    assert fold(first, merge(one, whole(third))) == third
    assert merge(one, Change(gone=True)) == Change(gone=True)
    assert (changes[0] is None) is (first == second)


def test_agent_that_is_gone() -> None:
    state = AgentState(7, {"topics/t": 9})
    assert fold(state, Change(gone=True)) is None
    assert fold(None, whole(state)) == state
    assert fold(AgentState(1, {"topics/u": 1}, {1: ("a", 1)}), whole(state)) == state
    back = merge(Change(gone=True), whole(state))
    assert fold(AgentState(1), back) == state


def test_rows() -> None:
    states = AgentStates()
    states.add_state("ann", '{"sent":1,"owed":{"1":["a",1],"2":["b",1]}}')
    states.add_state("bob", '{"sent":1}')
    states.add_changes('{"ann":{"sent":5,"settled":[1]},"cy":{"durable":true}}')
    states.add_changes(b'{"bob":{"gone":true},"dee":{"gone":true}}')
    assert states.states == {"ann": AgentState(5, owed={2: ("b", 1)}), "cy": AgentState(durable=True)}
    assert (states.bad, states.errors) == (0, [])


@pytest.mark.parametrize(
    "state",
    [
        "",
        "[]",
        "null",
        '{"sent":-1}',
        '{"sent":"1"}',
        '{"sent":1e400}',
        '{"owed":{"x":["a",1]}}',
        '{"owed":{"1":5}}',
        "{",
    ],
)
def test_bad_state(state: str) -> None:
    """
    It is left out, and the error says whose it is.
    """
    states = AgentStates()
    states.add_state("ann", '{"sent":1}')
    states.add_state("bob", state)
    states.add_changes('{"ann":%s,"cy":{"sent":2}}' % (state or 7) if state != "{" else '{"ann":7,"cy":{"sent":2}}')
    assert states.states == {"ann": AgentState(1), "cy": AgentState(2)}
    assert states.bad == 2
    assert "the state of agent 'bob' cannot be read" in states.errors[0]
    assert "a change of agent 'ann' cannot be read" in states.errors[1]


def test_bad_row_of_changes() -> None:
    """
    The others are read; only the first errors are kept.
    """
    states = AgentStates()
    for _ in range(150):
        states.add_changes("[]")
    states.add_changes('{"ann":{"sent":1}}')
    assert states.states == {"ann": AgentState(1)}
    assert (states.bad, len(states.errors)) == (150, 100)
    assert "a row of changes cannot be read" in states.errors[0]


def test_changes_of_a_node_that_had_lost_the_agent() -> None:
    """
    They carry another number than the state, and do not count.
    """
    states = AgentStates()
    states.add_state("a", b'{"sent":1}', 2)
    states.add_state("b", b'{"sent":1}')
    for sent, gen in ((5, 2), (6, 1), (7, 3)):
        states.add_change("a", stamped(encode(Change(sent=sent)), gen))
    states.add_changes(b'{"a":{"sent":8},"b":{"sent":9},"c":{"gen":1,"sent":9}}')
    assert {agent: state.sent for agent, state in states.states.items()} == {"a": 5, "b": 9}


@pytest.mark.parametrize(
    ("state", "upto"),
    [
        (AgentState(), 0),
        (AgentState(sent=3), 3),
        (AgentState(sent=3, channels={"topics/t": 5}), 5),
        (AgentState(sent=3, channels={"topics/t": 5}, owed={7: ("msg_1", 1), 6: ("msg_2", 1)}), 7),
    ],
)
def test_the_last_position(state: AgentState, upto: int) -> None:
    assert state.upto == upto
