"""
Clients that wait until this node has their agents.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.agent_states import AgentState
from dcm_ws.core.assembly import Core
from dcm_ws.core.log import MemoryLog
from dcm_ws.core.session import Origin, State
from dcm_ws.protocol.channels import GLOBAL
from dcm_ws.protocol.errors import CloseCode, ErrorCode
from dcm_ws.protocol.tokens import Claims
from tests.core.living import finish
from tests.core.owning import LateOwners
from tests.fakes import Client, make_core


@pytest.fixture
def owners() -> LateOwners:
    return LateOwners()


@pytest.fixture
def core(clock: Clock, owners: LateOwners) -> Core:
    core = make_core(clock, owners=owners)
    finish(core.loading.load({}, ()))
    return core


def types(messages: list[dict[str, Any]]) -> list[str]:
    return [message["type"] if "type" in message else message["event"] for message in messages]


def test_a_client_waits(core: Core, owners: LateOwners) -> None:
    """
    It goes on getting events, and the ack of its auth comes when the agent is here.
    """
    client = Client(core)
    client.peer.take()
    assert client.auth("ann", id=1) == []
    assert client.peer.stopped and client.session.state is State.WAITING
    core.application_hub.announce(GLOBAL, "session.created", None)
    assert types(client.peer.take()) == ["session.created"]
    assert owners.answer() == "ann"
    assert types(client.peer.take()) == ["ack", "agent.connected"]
    assert not client.peer.stopped and client.session.state is State.AUTHENTICATED
    assert core.counts.owners.take_seconds.counts[0] == 1


def test_an_answer_at_once(core: Core, owners: LateOwners) -> None:
    owners.at_once = True
    client = Client(core)
    client.peer.take()
    assert types(client.auth("ann", id=1)) == ["ack", "agent.connected"]
    assert not client.peer.stopped


def test_a_token_when_it_connects(core: Core, owners: LateOwners) -> None:
    client = Client(core, Origin(claims=Claims("ann", None, 0)))
    assert types(client.peer.take()) == ["connected"]
    assert client.peer.stopped
    owners.answer()
    assert types(client.peer.take()) == ["ack", "agent.connected"]


def test_observers_take_nothing(core: Core, owners: LateOwners) -> None:
    client = Client(core)
    client.peer.take()
    assert types(client.auth("ann", observer=True, id=1)) == ["ack"]
    assert owners.asked == []


def test_it_cannot_be_taken(core: Core, owners: LateOwners) -> None:
    client = Client(core)
    client.peer.take()
    client.auth("ann", id=1)
    owners.answer(False)
    (refusal,) = client.peer.take()
    assert (refusal["code"], refusal["id"]) == (ErrorCode.NOT_AVAILABLE, 1)
    assert client.peer.closed is CloseCode.TRY_AGAIN_LATER
    assert core.counts.owners.refused == core.counts.closes[CloseCode.TRY_AGAIN_LATER] == 1
    assert core.counts.refusals[ErrorCode.NOT_AVAILABLE] == 1
    assert client.session not in core.clients.sessions


@pytest.mark.parametrize("is_here", [True, False])
def test_it_leaves_while_it_waits(core: Core, owners: LateOwners, is_here: bool) -> None:
    """
    What the agent is owed waits for its next connection.
    """
    client = Client(core)
    client.auth("ann", id=1)
    client.leave()
    if is_here:
        core.ownership.take_over("ann", AgentState(channels={"topics/t": 0}), ())
    owners.answer(is_here)
    assert "ann" not in core.clients.connections
    assert (core.memory.absence("ann") is not None) is is_here


def test_it_is_lost_while_it_waits(core: Core, owners: LateOwners) -> None:
    """
    Its connection is one of many that are cleaned up later.
    """
    client = Client(core)
    client.auth("ann", id=1)
    core.hub.leave(client.session)
    owners.answer()
    assert "ann" not in core.clients.connections
    assert client.session.state is State.CLOSED


def test_another_connection_is_here_when_it_has_left(core: Core, owners: LateOwners) -> None:
    """
    The connection that another node's agent has here gets what was kept, except for subscriptions: these are for the
    agent's next connection.
    """
    first, second = Client(core), Client(core)
    for client in (first, second):
        client.auth("ann", id=1)
    owners.answer()
    core.ownership.release("ann", "2")
    second.leave()
    core.ownership.take_over("ann", AgentState(channels={"topics/t": 0}, durable=True), ())
    owners.answer()
    assert "topics/t" not in core.registry.channels(first.session)
    assert first.session.durable
    third = Client(core)
    third.auth("ann", id=1)
    owners.answer()
    assert "topics/t" in core.registry.channels(third.session)


def test_a_reset_while_it_waits(core: Core, owners: LateOwners) -> None:
    client = Client(core)
    client.auth("ann", id=1)
    core.hub.reset()
    assert client.session.state is State.CLOSED
    finish(core.hub.sweep())
    assert client.peer.closed is CloseCode.RESTART


def test_it_becomes_another_agent(core: Core, owners: LateOwners) -> None:
    """
    Until then, it is still a connection of the former one.
    """
    client = Client(core)
    client.auth("ann", id=1)
    owners.answer()
    client.peer.take()
    client.auth("bob", id=2)
    assert list(core.clients.connections) == ["ann"]
    owners.answer()
    assert list(core.clients.connections) == ["bob"]
    assert [json.loads(json.dumps(one))["event"] for one in client.peer.take() if "event" in one] == [
        "agent.disconnected",
        "agent.connected",
    ]


def test_the_service_drains_while_it_waits(core: Core, owners: LateOwners) -> None:
    client = Client(core)
    client.auth("ann", id=1)
    core.hub.drain()
    owners.answer()
    assert client.session.state is State.AUTHENTICATED
    client.peer.take()
    core.hub.close(client.session, CloseCode.RESTART)
    assert client.peer.closed is CloseCode.RESTART


def test_a_bug(core: Core, owners: LateOwners, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nobody waits for ever.
    """
    client = Client(core)
    monkeypatch.setattr(core.identity, "identify", lambda *_: 1 / 0)
    client.auth("ann", id=1)
    with pytest.raises(ZeroDivisionError):
        owners.answer()
    assert client.peer.closed is CloseCode.INTERNAL_ERROR


class LateLog(MemoryLog):
    """
    The log at a node that has not read all of it: it knows when it has when the test says so.
    """

    def __init__(self, *arguments: Any, **choices: Any) -> None:
        super().__init__(*arguments, **choices)
        self.awaited: list[tuple[int, Callable[[bool], object]]] = []

    def reach(self, pos: int, ready: Callable[[bool], object]) -> None:
        self.awaited.append((pos, ready))

    def answer(self, is_there: bool = True) -> int:
        pos, ready = self.awaited.pop(0)
        ready(is_there)
        return pos


@pytest.fixture
def behind(clock: Clock, owners: LateOwners) -> tuple[Core, LateLog]:
    core = make_core(clock, owners=owners, log=LateLog)
    finish(core.loading.load({}, ()))
    assert isinstance(core.log, LateLog)
    return core, core.log


RESUME = {"epoch": "epoch", "pos": 2, "channels": ["topics/t"]}


@pytest.mark.parametrize(
    "request_", [{"type": "resume", **RESUME}, {"type": "auth", "agent_id": "ann", "observer": True}]
)
def test_a_client_was_further_at_another_node(
    behind: tuple[Core, LateLog], request_: dict[str, Any], clock: Clock
) -> None:
    """
    It waits until this node is there, is not told of a gap that it does not have, and gets nothing twice.
    """
    core, log = behind
    client = Client(core)
    publisher = Client(core)
    publisher.say(type="publish", channel="topics/t", event="task.created", data=1)
    client.peer.take()
    if request_["type"] == "auth":
        request_ = {**request_, "resume": RESUME}
    assert client.say(**request_, id=1) == []
    assert client.peer.stopped and client.session.state is State.WAITING
    publisher.say(type="publish", channel="topics/t", event="task.created", data=2)
    publisher.say(type="publish", channel="topics/t", event="task.created", data=3)
    assert log.answer() == 2
    ack, *events = [one for one in client.peer.take() if one.get("channel") != "global" or "origin" not in one]
    assert ack["success"] and ack["resumed"] and "gap" not in ack
    assert [one["data"] for one in events if "data" in one] == [3]
    assert not client.peer.stopped
    assert client.session.state is (State.ANONYMOUS if request_["type"] == "resume" else State.AUTHENTICATED)


def test_nobody_waits_for_what_is_here(behind: tuple[Core, LateLog]) -> None:
    """
    Nor for positions of another log.
    """
    core, log = behind
    client = Client(core)
    (ack,) = [
        one for one in client.say(type="resume", epoch="epoch", pos=0, channels=["topics/t"], id=1) if "id" in one
    ]
    assert ack["resumed"]
    (ack,) = client.say(type="resume", epoch="other", pos=9, channels=["topics/t"], id=2)
    assert ack["gap"]["reason"] == "epoch"
    assert log.awaited == []


def test_the_log_cannot_be_read(behind: tuple[Core, LateLog]) -> None:
    core, log = behind
    client = Client(core)
    client.peer.take()
    client.say(type="resume", **RESUME, id=1)
    log.answer(False)
    (ack,) = client.peer.take()
    assert (ack["id"], ack["code"]) == (1, ErrorCode.NOT_AVAILABLE)
    assert client.peer.closed is CloseCode.TRY_AGAIN_LATER


def test_the_agent_is_here_and_the_log_is_not(behind: tuple[Core, LateLog], owners: LateOwners) -> None:
    core, log = behind
    client = Client(core)
    client.peer.take()
    client.say(type="auth", agent_id="ann", resume=RESUME, id=1)
    owners.answer()
    assert client.session.state is State.WAITING and client.peer.take() == []
    assert log.answer() == 2
    assert client.peer.take()[0]["gap"]["reason"] == "ahead"
    assert list(core.clients.connections) == ["ann"]


def test_a_client_leaves_while_it_waits_for_the_log(behind: tuple[Core, LateLog]) -> None:
    core, log = behind
    client = Client(core)
    client.say(type="resume", **RESUME, id=1)
    client.leave()
    client.peer.take()
    log.answer()
    assert client.peer.take() == [] and client.session.state is State.CLOSED
