"""
Agents of a cluster that come to this node, and go to others.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.agent_states import AgentState
from dcm_ws.core.assembly import Core
from dcm_ws.core.dead_letters import Listed
from dcm_ws.protocol.errors import CloseCode
from tests.core.living import finish, live
from tests.core.owning import Air, LateOwners
from tests.fakes import WALL_MS, Client, make_core

TASK = "task.created"
CHANNELS = {"topics/t": 0}


@pytest.fixture
def owners() -> LateOwners:
    owners = LateOwners()
    owners.at_once = True
    return owners


@pytest.fixture
def core(clock: Clock, owners: LateOwners) -> Core:
    core = make_core(clock, owners=owners)
    finish(core.loading.load({}, ()))
    return core


def agent(core: Core, name: str = "ann", *channels: str) -> Client:
    client = Client(core)
    client.say(type="unsubscribe", channel="global")
    client.auth(name, durable=True)
    for channel in channels or ("topics/t",):
        client.say(type="subscribe", channel=channel)
    return client


def publish(core: Core, number: object, channel: str = "topics/t") -> str:
    publisher = Client(core)
    publisher.peer.take()
    publisher.say(type="unsubscribe", channel="global")
    (ack,) = publisher.say(type="publish", channel=channel, event=TASK, data=number, id=1)
    publisher.leave()
    event_id: str = ack["message_id"]
    return event_id


def data(messages: list[dict[str, Any]]) -> list[Any]:
    return [message["data"] for message in messages if message.get("event") == TASK]


def flush(core: Core) -> dict[str, bytes]:
    finish(core.journal.collect())
    changes = core.journal.take()
    if changes is None:
        return {}
    core.journal.written(changes)
    return dict(changes.agents)


def letter(pos: int = 1, **fields: Any) -> Listed:
    values: dict[str, Any] = {
        "agent": "ann",
        "pos": pos,
        "event_id": f"msg_{pos}",
        "channel": "topics/t",
        "event": TASK,
        "data": b"7",
        "at": WALL_MS,
        "deliveries": 3,
        "reason": "attempts",
        "died_at": WALL_MS,
        "redriven_at": None,
    }
    return Listed(**values | fields)


def test_what_is_given_away(core: Core) -> None:
    """
    All of the agent: nothing is kept here, or written of it.
    """
    client = agent(core)
    publish(core, 1)
    flush(core)
    publish(core, 2)
    given = core.ownership.release("ann", "2")
    state = given.state
    assert state is not None
    assert (sorted(state.channels), sorted(state.owed), state.left) == (["agents/ann", "topics/t"], [1, 2], None)
    assert given.letters == []
    assert "ann" not in flush(core)
    publish(core, 3)
    assert data(client.peer.take()) == [1, 2, 3]
    assert "ann" not in flush(core)
    client.leave()
    assert core.memory.absence("ann") is None and not core.memory.remembers("ann")
    assert core.clients.elsewhere == {}
    assert "ann" not in flush(core)
    assert core.counts.owners.given == 1


def test_nothing_to_give(core: Core) -> None:
    assert core.ownership.release("ann", "2").state is None
    core.ownership.lose("ann", "2")
    assert (core.counts.owners.given, core.counts.owners.lost) == (1, 1)


def test_an_agent_that_is_away_is_given(core: Core) -> None:
    client = agent(core)
    publish(core, 1)
    client.leave()
    state = core.ownership.release("ann", "2").state
    assert state is not None and state.left == WALL_MS and sorted(state.owed) == [1]
    assert core.memory.absence("ann") is None and core.memory.kept == 0


def test_an_agent_is_given_back(core: Core, owners: LateOwners) -> None:
    """
    When this node is about to stop, and the last connection of the agent here has ended.
    """
    first, second, third = (agent(core) for _ in range(3))
    publish(core, 1)
    first.leave()
    core.hub.draining = True
    second.leave()
    assert owners.given_back == []
    core.hub.close(third.session, CloseCode.RESTART)
    assert owners.given_back == ["ann"]
    state = core.ownership.give_back("ann")
    assert state is not None and sorted(state.owed) == [1]
    assert (core.counts.owners.given, core.counts.owners.given_back) == (0, 1)
    assert not core.memory.remembers("ann")


def test_nobody_to_give_back_to(clock: Clock) -> None:
    """
    Without other nodes, an agent stays where it is.
    """
    core = make_core(clock)
    client = Client(core)
    client.auth("ann")
    core.hub.draining = True
    client.leave()
    assert core.memory.remembers("ann")


def test_a_connection_of_an_agent_elsewhere(core: Core, owners: LateOwners, clock: Clock) -> None:
    """
    It is sent events again, which never become dead letters, and what it acknowledges is passed on.
    """
    client = agent(core)
    core.ownership.release("ann", "2")
    publish(core, 1)
    live(core, clock, 30)
    assert data(client.peer.take()) == [1, 1, 1]
    assert core.application_hub.dead_letters() == []
    event = publish(core, 2)
    client.say(type="ack", message_id=event)
    client.say(type="ack", pos=2)
    assert owners.acks == [("ann", event, 0), ("ann", "", 2)]


def held_up(core: Core) -> Client:
    """
    A connection of an agent that owes an ack for one event and has missed another one, and has not read anything yet.
    """
    client = agent(core)
    publish(core, 1)
    client.leave()
    publish(core, 2)
    client = Client(core)
    client.say(type="unsubscribe", channel="global")
    client.peer.replay = lambda frames: setattr(client.peer, "replaying", frames)  # type: ignore[method-assign]
    client.auth("ann")
    del client.peer.replay
    return client


def test_what_was_missed_comes_before_newer_events(core: Core) -> None:
    """
    Also on a connection whose agent another node has taken.  Only what the agent owes is up to that node.
    """
    client = held_up(core)
    given = core.ownership.release("ann", "2")
    assert given.state is not None and sorted(given.state.owed) == [1]
    publish(core, 3)
    client.peer.read()
    assert data(client.peer.take()) == [2, 3]


def test_an_agent_comes_back_to_what_it_has_got_here(core: Core) -> None:
    """
    A connection that stayed has been sent everything meanwhile, so only what the agent owes comes again.
    """
    client = held_up(core)
    state = core.ownership.release("ann", "2").state
    assert state is not None
    client.peer.read()
    event = publish(core, 3)
    publish(core, 4)
    assert data(client.say(type="ack", message_id=event)) == [2, 3, 4]
    core.ownership.take_over("ann", state, ())
    core.ownership.settle_in("ann")
    assert data(client.peer.take()) == [1]
    another = Client(core)
    another.say(type="unsubscribe", channel="global")
    assert data(another.auth("ann")) == [1, 2, 4]


def test_an_agent_comes_back_to_channels_that_the_other_node_has_added(core: Core) -> None:
    """
    What was published there, or on a channel to which the connection has been subscribed since, was not sent here.
    """
    client = agent(core)
    state = core.ownership.release("ann", "2").state
    assert state is not None
    publish(core, 1, "topics/u")
    publish(core, 2, "topics/v")
    client.say(type="subscribe", channel="topics/v")
    publish(core, 3, "topics/v")
    assert data(client.say(type="unsubscribe", channel="topics/t")) == [3]
    publish(core, 4)
    state.channels |= {"topics/u": 0, "topics/v": 0}
    assert data(client.peer.take()) == []
    core.ownership.take_over("ann", state, ())
    core.ownership.settle_in("ann")
    assert data(client.peer.take()) == [1, 2, 3, 4]


def test_an_agent_comes_back_without_the_channels_of_other_connections(core: Core) -> None:
    """
    A connection that stayed is not subscribed to what another one, which has ended, was subscribed to.
    """
    client = agent(core)
    state = core.ownership.release("ann", "2").state
    assert state is not None
    state.channels["global"] = 0
    publish(core, 1)
    client.say(type="ack", pos=1)
    core.ownership.take_over("ann", state, ())
    core.ownership.settle_in("ann")
    assert core.registry.channels(client.session) == {"agents/ann", "topics/t"}
    publish(core, 2, "topics/u")
    assert [message["channel"] for message in client.peer.take() if message.get("event") == TASK] == ["global"]


def test_what_an_absent_agent_acknowledges_elsewhere_is_not_missed(core: Core) -> None:
    client = agent(core)
    client.leave()
    publish(core, 1)
    publish(core, 2)
    core.ownership.acknowledged("ann", "", 1)
    again = Client(core)
    again.say(type="unsubscribe", channel="global")
    assert data(again.auth("ann")) == [2]


def test_an_old_state_of_an_agent_that_comes_back(core: Core) -> None:
    """
    The other node is lost, and the database has what was before this node gave the agent away.
    """
    client = agent(core)
    publish(core, 1)
    core.ownership.release("ann", "2")
    publish(core, 2)
    assert data(client.peer.take()) == [1, 2]
    core.ownership.take_over("ann", AgentState(0, {"topics/t": 0}, {}, True, None), ())
    core.ownership.settle_in("ann")
    assert data(client.peer.take()) == [1, 2]


def test_what_was_given_up_while_the_agent_was_elsewhere(core: Core, clock: Clock) -> None:
    """
    It became no dead letter, so the connection gets it again.
    """
    client = agent(core)
    event = publish(core, 1)
    assert data(client.say(type="ack", message_id=event)) == [1]
    state = core.ownership.release("ann", "2").state
    assert state is not None and state.owed == {}
    publish(core, 2)
    publish(core, 3)
    live(core, clock, 30)
    publish(core, 4)
    assert data(client.peer.take()) == [*[2, 3] * 3, 4]
    core.ownership.take_over("ann", state, ())
    core.ownership.settle_in("ann")
    assert data(client.peer.take()) == [2, 3, 4]
    live(core, clock, 30)
    assert [one.pos for one in core.application_hub.dead_letters("ann")] == [2, 3, 4]


def test_an_agent_is_taken_over(core: Core) -> None:
    """
    Its next connection gets everything.
    """
    publish(core, 1)
    publish(core, 2)
    state = AgentState(0, {"topics/t": 1}, {1: ("msg_x", 2)}, True, WALL_MS)
    core.ownership.take_over("ann", state, [letter(9)])
    assert not core.ownership.is_connected("ann")
    client = Client(core)
    client.say(type="unsubscribe", channel="global")
    assert data(client.auth("ann")) == [1, 2]
    assert core.ownership.is_connected("ann")
    assert [one.pos for one in core.application_hub.dead_letters("ann")] == [9]
    assert core.counts.owners.taken == 1


@pytest.mark.parametrize(("hours", "knows"), [(23, True), (25, False)])
def test_an_agent_that_was_away_for_long(core: Core, hours: int, knows: bool) -> None:
    """
    What it missed has expired, as if this node had had it all the time.
    """
    state = AgentState(0, {"topics/t": 0}, {}, False, WALL_MS - hours * 3_600_000)
    core.ownership.take_over("ann", state, ())
    publish(core, 1)
    client = Client(core)
    client.peer.take()
    assert data(client.auth("ann")) == []
    assert ("topics/t" in core.registry.channels(client.session)) is knows


def test_an_agent_comes_back(core: Core) -> None:
    """
    What was settled at the other node does not come again by the connection that was here.
    """
    old = agent(core)
    publish(core, 1)
    core.ownership.release("ann", "2")
    for number in (2, 3):
        publish(core, number)
    state = AgentState(3, {"agents/ann": 0, "topics/t": 0}, {2: ("msg_2", 1)}, True, None)
    core.ownership.take_over("ann", state, ())
    new = Client(core)
    new.say(type="unsubscribe", channel="global")
    assert data(new.auth("ann")) == [2]
    assert core.clients.elsewhere == {}
    assert [delivery.event.seq for delivery in old.session.owed.values()] == [2]
    assert flush(core).keys() == {"ann"}


def test_what_a_connection_leaves_for_another_node(core: Core, owners: LateOwners) -> None:
    """
    That node cannot know of channels to which the connection was subscribed since.
    """
    client = agent(core)
    publish(core, 1)
    core.ownership.release("ann", "2")
    client.say(type="subscribe", channel="topics/u")
    publish(core, 2)
    publish(core, 3, "topics/u")
    publish(core, 4, "topics/u")
    client.leave()
    assert owners.merged == [("ann", {"topics/u": 2})]
    assert core.counts.owners.merged == 1


def test_another_node_is_told_of_subscriptions(core: Core, owners: LateOwners) -> None:
    """
    This node may be killed before the connection ends.
    """
    client = agent(core)
    publish(core, 1)
    core.ownership.release("ann", "2")
    client.say(type="subscribe", channel="topics/u")
    client.say(type="subscribe", channel="topics/t")
    assert owners.subscribed == [("ann", {"topics/u": 1})]
    publish(core, 2)
    resumed = {"epoch": core.log.epoch, "pos": 2, "channels": ["topics/t", "topics/v", "topics/w"]}
    client.say(type="resume", **resumed)
    assert owners.subscribed[1:] == [("ann", {"topics/v": 2, "topics/w": 2})]
    client.say(type="resume", **resumed | {"channels": ["topics/t"]})
    assert len(owners.subscribed) == 2 and owners.merged == []


def test_what_a_connection_elsewhere_is_subscribed_to(core: Core) -> None:
    """
    The next connection of the agent is subscribed to that, too, also if that node is never heard of again.
    """
    client = agent(core)
    publish(core, 1, "topics/u")
    core.ownership.merge("ann", {"topics/u": 0}, stays=True)
    assert data(client.peer.take()) == []
    another = Client(core)
    assert data(another.auth("ann")) == []
    assert "topics/u" in core.registry.channels(another.session)
    core.ownership.merge("ann", {"topics/v": 0})
    another = Client(core)
    another.auth("ann")
    assert {"topics/u", "topics/v"} <= core.registry.channels(another.session)
    for each in list(core.clients.connections["ann"]):
        core.hub.close(each, CloseCode.RESTART)
    core.ownership.merge("ann", {"topics/w": 1}, stays=True)
    absence = core.memory.absence("ann")
    assert absence is not None and absence.channels["topics/w"] == 1


def test_nothing_is_left_for_another_node(core: Core, owners: LateOwners) -> None:
    """
    As long as there is another connection here, it is the heir.
    """
    first, second = agent(core), agent(core)
    core.ownership.release("ann", "2")
    publish(core, 1)
    first.leave()
    assert core.clients.elsewhere.keys() == {"ann"}
    assert "ann" in core.clients.shared
    second.leave()
    assert owners.merged == []
    assert core.clients.elsewhere == {} and "ann" not in core.clients.shared


def test_a_connection_elsewhere_has_left_something(core: Core) -> None:
    """
    The newest connection gets it, or the next one.
    """
    client = agent(core)
    publish(core, 1, "topics/u")
    core.ownership.merge("ann", {"topics/u": 0, "topics/t": 0})
    assert data(client.peer.take()) == [1]
    client.leave()
    publish(core, 2, "topics/v")
    core.ownership.merge("ann", {"topics/v": 1, "topics/t": 0})
    absence = core.memory.absence("ann")
    assert absence is not None and (absence.channels["topics/v"], absence.channels["topics/t"]) == (1, 0)
    core.ownership.merge("bob", {"topics/v": 1})
    assert core.memory.absence("bob") is not None
    again = Client(core)
    again.peer.take()
    assert data(again.auth("ann")) == [1, 2]


def test_an_agent_has_acknowledged_elsewhere(core: Core, clock: Clock) -> None:
    client = agent(core)
    events = [publish(core, number) for number in range(5)]
    core.ownership.acknowledged("ann", events[0], 0)
    core.ownership.acknowledged("ann", "", 3)
    assert [delivery.event.seq for delivery in client.session.owed.values()] == [4, 5]
    client.leave()
    core.ownership.acknowledged("ann", events[3], 0)
    absence = core.memory.absence("ann")
    assert absence is not None and list(absence.owed) == [5]
    core.ownership.acknowledged("ann", "", 5)
    absence = core.memory.absence("ann")
    assert absence is not None and list(absence.owed) == []
    core.ownership.acknowledged("nobody", "", 5)


def test_a_dead_letter_is_acknowledged_elsewhere(core: Core) -> None:
    core.ownership.take_over("ann", AgentState(), [letter(1), letter(2, redriven_at=5)])
    core.ownership.acknowledged("ann", "msg_1", 0)
    assert [one.pos for one in core.application_hub.dead_letters("ann")] == [2]
    core.ownership.acknowledged("ann", "msg_2", 0)
    assert core.application_hub.dead_letters("ann") == []


def test_dead_letters_are_given_away(core: Core) -> None:
    """
    Those that the database does not have yet are given with the agent, and written as well.
    """
    core.ownership.take_over("ann", AgentState(channels=CHANNELS), [letter(1), letter(2)])
    core.redriving.redrive_one("ann", "msg_2")
    given = core.ownership.release("ann", "2")
    assert [one.pos for one in given.letters] == [2]
    assert core.application_hub.dead_letters() == []
    changes = core.letters.changes()
    assert ([one.pos for one in changes.kept], changes.dropped) == ([2], [])
    core.letters.put_back(changes)
    again = core.letters.changes()
    assert ([one.pos for one in again.kept], again.dropped) == ([2], [])
    core.letters.put_back(again)
    core.ownership.take_over("ann", AgentState(), [letter(2)])
    core.redriving.purge_one("ann", "msg_2")
    core.letters.put_back(again)
    assert core.letters.changes().dropped == [("ann", "msg_2")]


def test_a_letter_of_the_database(core: Core) -> None:
    core.ownership.learn(letter(1))
    core.ownership.learn(letter(1, deliveries=9))
    (known,) = core.application_hub.dead_letters("ann")
    assert known.deliveries == 3


def test_what_could_not_be_written_of_an_agent_that_was_given_away(core: Core) -> None:
    agent(core, "ann")
    agent(core, "bob")
    finish(core.journal.collect())
    changes = core.journal.take()
    assert changes is not None
    core.ownership.release("ann", "2")
    core.journal.put_back(changes, [one for one in changes.agents if one[0] != "ann"])
    again = core.journal.take()
    assert again is not None and [name for name, _ in again.agents] == ["bob"]


def test_agents_are_taken_back(core: Core, owners: LateOwners) -> None:
    """
    When the other node is gone, or has no connection of the agent any more.
    """
    agent(core, "ann")
    core.ownership.gone("2")
    core.ownership.offered("ann")
    assert owners.adopted == []
    core.ownership.release("ann", "2")
    core.ownership.offered("ann")
    core.ownership.gone("2")
    assert owners.adopted == ["ann", "ann"]


def test_what_is_settled_in_once(core: Core) -> None:
    """
    Nobody is here, or has got everything.
    """
    core.ownership.take_over("ann", AgentState(channels=CHANNELS), ())
    core.ownership.settle_in("ann")
    assert core.memory.absence("ann") is not None
    agent(core)
    core.ownership.settle_in("ann")


def test_connections_of_an_agent_elsewhere_end(core: Core) -> None:
    """
    As long as there is one, it is still the other node's agent.
    """
    clients = [agent(core) for _ in range(3)]
    core.ownership.release("ann", "2")
    for client in clients[:2]:
        client.leave()
    assert core.clients.shared == {"ann"}
    core.ownership.take_over("ann", AgentState(), ())
    assert core.clients.shared == set()


def test_nothing_is_known_of_an_agent_that_comes_back(core: Core) -> None:
    clients = [agent(core) for _ in range(2)]
    core.ownership.release("ann", "2")
    core.ownership.take_over("ann", None, ())
    assert core.clients.elsewhere == {} and core.clients.shared == {"ann"}
    clients[0].leave()
    assert core.clients.shared == set()


def test_what_has_expired_is_not_settled_in(core: Core, clock: Clock) -> None:
    client = agent(core)
    core.ownership.release("ann", "2")
    core.ownership.take_over("ann", AgentState(channels={"topics/u": 0}), ())
    clock.advance(90_000)
    core.ownership.settle_in("ann")
    assert "topics/u" not in core.registry.channels(client.session)


def test_an_ack_settles_the_event_at_all_nodes(clock: Clock) -> None:
    """
    An agent has connections at two nodes, and its owner is told of an ack first.
    """
    air, owners = Air(), LateOwners()
    owners.at_once = True
    one, two = (make_core(clock, bus=air.end(name), owners=owners) for name in "12")
    for core in (one, two):
        finish(core.loading.load({}, ()))
    client = agent(one)
    event = publish(one, 1)
    client.say(type="ack", message_id=event)
    assert owners.acks == [] and "ann" not in one.clients.shared
    other = agent(two)
    event = publish(one, 2)
    client.say(type="ack", message_id=event)
    assert owners.acks == [("ann", event, 0)] and one.clients.abroad == {"ann"}
    agent(two)
    other.leave()
    assert one.clients.abroad == {"ann"}
    two.hub.restart()
    two.presence.leave()
    assert one.clients.abroad == set() and "ann" not in one.clients.shared
    event = publish(one, 3)
    client.say(type="ack", message_id=event)
    assert owners.acks == [("ann", owners.acks[0][1], 0)]


def test_a_connection_comes_where_others_are_known_of(clock: Clock) -> None:
    air, owners = Air(), LateOwners()
    owners.at_once = True
    one, two = (make_core(clock, bus=air.end(name), owners=owners) for name in "12")
    for core in (one, two):
        finish(core.loading.load({}, ()))
    agent(one)
    client = agent(two)
    assert two.clients.abroad == {"ann"}
    client.leave()
    assert two.clients.abroad == set() and two.clients.shared == set()


def test_sends_are_counted_on_when_an_agent_comes_back(core: Core, clock: Clock) -> None:
    """
    A connection that stayed here all the time is not sent an event more often than others, nor at once.
    """
    client = agent(core)
    publish(core, 1)
    live(core, clock, 6)
    state = core.ownership.release("ann", "2").state
    assert state is not None and data(client.peer.take()) == [1, 1]
    core.ownership.take_over("ann", state, ())
    core.ownership.settle_in("ann")
    assert data(client.peer.take()) == []
    live(core, clock, 30)
    assert data(client.peer.take()) == [1]
    (letter,) = core.application_hub.dead_letters("ann")
    assert letter.deliveries == 3
