"""
What operators see of agents and dead letters in a service that is alone.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.agent_records import AgentRecord, Choice, LetterPlace, place_of
from dcm_ws.core.agent_states import AgentState
from dcm_ws.core.assembly import Core
from tests.core.living import live
from tests.fakes import Client, make_core


def worker(core: Core, agent: str) -> Client:
    """
    A durable agent of C{topics/a} only.
    """
    client = Client(core)
    client.auth(agent, durable=True)
    client.say(type="subscribe", channel="topics/a")
    client.say(type="unsubscribe", channel="global")
    client.peer.take()
    return client


def publish(core: Core, data: Any = None) -> str:
    """
    Publish a task; return its id.
    """
    session = core.callers.admit(None, None, "")
    return core.publishing.publish(session, "topics/a", "task.created", b"null" if data is None else data).id


def dead(core: Core, clock: Clock, *agents: str, events: int = 1) -> list[str]:
    """
    Make dead letters of so many events for some agents; return the ids of the events.
    """
    for agent in agents:
        worker(core, agent)
    ids = []
    for _ in range(events):
        ids.append(publish(core))
        live(core, clock, 20)
    return ids


def test_agents_by_name(clock: Clock) -> None:
    """
    Agents are listed by name, a page at a time: those that are connected, and those that are away and owed something.
    """
    core = make_core(clock)
    clients = {name: worker(core, name) for name in ("eve", "ann", "dan", "bob")}
    publish(core)
    clients["dan"].leave()
    names = [record.agent for record in core.records.agents("", 3)]
    assert names == ["ann", "bob", "dan"]
    assert [record.agent for record in core.records.agents("dan", 3)] == ["eve"]
    assert [record.agent for record in core.records.agents("eve", 3)] == []


def test_state_of_an_agent(clock: Clock) -> None:
    """
    The record of an agent says what it is owed, and how far it has acknowledged.
    """
    core = make_core(clock)
    client = worker(core, "ann")
    ids = [publish(core) for _ in range(3)]
    client.say(type="ack", message_id=ids[0])
    record = core.records.agent("ann")
    assert record is not None
    assert record.state is not None
    assert sorted(record.state.owed) == [2, 3]
    assert (record.sent, record.acknowledged, record.dead) == (3, 1, 0)
    client.leave()
    publish(core)
    record = core.records.agent("ann")
    assert record is not None
    assert (record.sent, record.acknowledged) == (3, 1)
    assert core.records.agent("nobody") is None


def test_records_of_little() -> None:
    """
    An agent may be subscribed to nothing, or only have dead letters.
    """
    assert AgentRecord("ann", None, 3).sent == AgentRecord("ann", None, 3).acknowledged == 0
    assert AgentRecord("ann", AgentState(sent=7), 0).acknowledged == 7


def test_agent_with_dead_letters_only(clock: Clock) -> None:
    """
    An agent of which nothing is left but dead letters is listed.
    """
    core = make_core(clock)
    dead(core, clock, "ann")
    core.memory.clear()
    core.clients.connections.clear()
    record = core.records.agent("ann")
    assert record is not None
    assert (record.state, record.dead) == (None, 1)
    assert core.records.agents("", 10) == [record]


def test_letters(clock: Clock) -> None:
    """
    Dead letters are listed in the order of dying, a page at a time, and by agent, event, reason and time.
    """
    core = make_core(clock)
    ids = dead(core, clock, "bob", "ann", events=2)
    letters = core.records.letters(Choice())
    assert [(one.agent, one.event_id) for one in letters] == [
        ("ann", ids[0]),
        ("bob", ids[0]),
        ("ann", ids[1]),
        ("bob", ids[1]),
    ]
    first = core.records.letters(Choice(most=3))
    assert first == letters[:3]
    assert core.records.letters(Choice(after=place_of(first[-1]))) == letters[3:]
    assert core.records.letters(Choice(agent="bob", event_ids=[ids[1]])) == [letters[3]]
    assert core.records.letters(Choice(reasons=["poison"])) == []
    assert core.records.letters(Choice(reasons=["attempts"], since=letters[2].died_at)) == letters[2:]
    assert core.records.letters(Choice(until=letters[2].died_at)) == letters[:2]
    assert core.records.letters(Choice(after=LetterPlace(1 << 50, "", 0))) == []


@pytest.mark.parametrize("most", [1, 10])
def test_redrive(clock: Clock, most: int) -> None:
    """
    Dead letters are sent again, and those that were redriven before are not.
    """
    core = make_core(clock)
    dead(core, clock, "ann", events=2)
    assert core.records.redrive(Choice(most=most)) == min(2, most)
    assert core.records.redrive(Choice()) == 2 - min(2, most)
    assert core.records.redrive(Choice()) == 0
    assert all(letter.redriven_at for letter in core.records.letters(Choice()))
