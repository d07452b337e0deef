"""
What nodes of a newer version ask and answer when an agent goes from one node to the other.
"""

from __future__ import annotations

import msgspec

from dcm_ws.brokers import acks, handovers, merges
from dcm_ws.core.agent_states import AgentState
from dcm_ws.core.ownership import Given
from tests.core.test_ownership import letter
from tests.newer import MORE, more_of


def test_handovers() -> None:
    """
    The state of an agent can be read, and those dead letters that can.
    """
    question = msgspec.json.encode(handovers.Question("ann", 7))
    assert handovers.read_question(more_of("release", question)) == handovers.Question("ann", 7)
    given = Given(AgentState(7, {"global": 0}), [letter(1), letter(2)])
    answer = handovers.answer_of(given, (7, "msg_7"))
    assert handovers.read_answer(more_of("release", answer)) == (*given, 7, "msg_7")
    decoded = msgspec.json.decode(answer)
    decoded["letters"][0].append(MORE)
    assert handovers.read_answer(msgspec.json.encode(decoded)) == (given.state, [letter(2)], 7, "msg_7")


def test_handovers_of_an_older_version() -> None:
    """
    It does not say what was delivered there last.
    """
    assert handovers.read_answer(b'{"state":{"sent":7},"letters":[]}') == (AgentState(7), [], 0, "")


def test_what_other_nodes_pass_on() -> None:
    passed = msgspec.json.encode([acks._Ack("ann", "msg_1", 0), acks._Ack("bob", "", 7)])
    assert acks._decode(more_of("ack", passed)) == acks._decode(passed)
    rest = msgspec.json.encode(merges._Rest("ann", {"topics/t": 7}))
    assert merges._decode(more_of("merge", rest)) == merges._decode(rest)
