"""
What other nodes of a cluster say that are of a newer version.
"""

from __future__ import annotations

import msgspec
import pytest
from twisted.internet.task import Clock

from dcm_ws.core import casting, nodes
from dcm_ws.core.agent_states import AgentState, Change, decode_change, decode_state, encode
from dcm_ws.core.presence_messages import Member, Said
from dcm_ws.protocol.channels import Channels, parse_channel
from tests.core.owning import Air
from tests.core.test_nodes import Node
from tests.core.test_nodes import join as join_node
from tests.newer import MORE, more_of


def test_presence(clock: Clock) -> None:
    """
    What is known here counts, and what is not is left out.
    """
    air = Air()
    node = Node(air, "1", clock)
    node.nodes.joined(Member("c1", "ann", None))
    heard = node.end.listeners[nodes.TOPIC]
    for said in (Said("join", 1, [Member("c2", "bob", None)]), Said("beat", 1, connections=1, sum=0)):
        heard("2", more_of("presence", msgspec.json.encode(said)))
    heard("2", msgspec.json.encode(Said("rename", 2, [Member("c2", "bob", None)])))
    assert [member.client for member in node.nodes.members()] == ["c1", "c2"]
    assert node.take() == [("connected", "c1"), ("connected", "c2")]
    answer = heard("2", more_of("presence", msgspec.json.encode(Said("ask"))))
    assert isinstance(answer, bytes) and msgspec.json.decode(answer)[0] == "page"


def test_the_connections_of_another_node(clock: Clock) -> None:
    """
    They are read of what a newer version lists.
    """
    air = Air()
    two = Node(air, "2", clock)
    join_node(two, "c2")
    listed = two.end.listeners[nodes.TOPIC]

    def newer(node: str, message: bytes) -> bytes | None:
        answer = listed(node, message)
        return more_of("presence", answer) if isinstance(answer, bytes) else None

    two.end.listeners[nodes.TOPIC] = newer
    three = Node(air, "3", clock)
    air.ends["3"].listeners[nodes.TOPIC]("2", msgspec.json.encode(Said("beat", 1, connections=1, sum=7)))
    assert [member.client for member in three.nodes.members()] == ["c2"]


def test_events_that_are_not_logged() -> None:
    channels = Channels(())
    line = ["msg_1", "topics/t", "agent.heartbeat", 7, "", "topics/t", True, "ann"]
    message = msgspec.json.encode(line) + b"\n{}"
    draft = casting.draft_of(more_of("event", message), channels)
    assert draft is not None
    assert (draft.id, draft.channel, draft.data) == ("msg_1", parse_channel("topics/t"), b"{}")
    assert draft == casting.draft_of(message, channels)


@pytest.mark.parametrize("value", [AgentState(7, {"global": 0}), Change(sent=7)])
def test_what_is_kept_of_agents(value: AgentState | Change) -> None:
    """
    A newer version may write more into the database.
    """
    decode = decode_state if isinstance(value, AgentState) else decode_change
    assert decode(msgspec.json.encode({**msgspec.json.decode(encode(value)), **MORE})) == value
