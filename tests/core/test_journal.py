"""
What the database has to learn of agents, and what the service makes of it after a crash.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.agent_states import AgentStates
from dcm_ws.core.assembly import Core
from dcm_ws.core.journal import SETTLED_MAX, UnwrittenError
from dcm_ws.core.redriving import Redriven
from tests.core.clients import TASK, joined, stats, texts
from tests.core.journalled import Database, restarted
from tests.core.latelog import LateLog
from tests.core.living import finish, live
from tests.core.promises.crashes import SlowPeer
from tests.fakes import WALL_MS, Client, make_core


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def core(clock: Clock, database: Database) -> Core:
    """
    A core with a journal.
    """
    core = make_core(clock)
    database.load(core)
    return core


def publish(core: Core, *data: Any, channel: str = "topics/t", event: str = "task.created") -> None:
    publisher = joined(core, quiet=True)
    for one in data:
        publisher.say(**(TASK | {"channel": channel, "event": event}), data=one)
    publisher.leave()


def acknowledge(client: Client, *messages: dict[str, Any]) -> None:
    for message in messages:
        client.say(type="ack", message_id=message["id"])


def got(client: Client) -> list[Any]:
    return [data for _, data in texts(client.peer.take())]


def worker(core: Core, *channels: str, agent: str = "ann") -> Client:
    client = joined(core, quiet=True)
    client.auth(agent, durable=True)
    for channel in channels or ("topics/t",):
        client.say(type="subscribe", channel=channel)
    client.peer.take()
    return client


def test_crash(clock: Clock, core: Core, database: Database) -> None:
    """
    An agent gets what it has not acknowledged, and what came after the last flush, in order.
    """
    ann = worker(core)
    publish(core, 0, 1, 2)
    first, *_ = ann.peer.take()
    acknowledge(ann, first)
    database.flush(core)
    publish(core, 3)

    new = restarted(clock, core, database)
    back = joined(new, quiet=True)
    answer, *replayed = back.auth("ann", id=1)
    assert answer["subscriptions"] == ["agents/ann", "topics/t"]
    assert texts(replayed) == [("topics/t", data) for data in (1, 2, 3)]


def test_acks_of_what_a_crashed_service_had_sent(clock: Clock, core: Core, database: Database) -> None:
    """
    Regression: an agent that comes back after a crash, and at once acknowledges everything up to the last position that
    it knows, does not get it again: not on this connection, and not after the next crash.
    """
    worker(core)
    database.flush(core)
    publish(core, 0, 1, 2)

    new = restarted(clock, core, database)
    database.flush(new)
    back = joined(new, quiet=True)
    back.peer = back.session.peer = SlowPeer()
    back.auth("ann")
    back.peer.take()
    database.flush(new)
    back.say(type="ack", pos=3)
    database.flush(new)
    back.peer.read()
    assert got(back) == []

    last = joined(restarted(clock, new, database), quiet=True)
    assert texts(last.auth("ann")) == []


def test_how_many_agents_are_to_be_written(core: Core, database: Database) -> None:
    """
    Agents with changes that are not written yet are counted, for those who watch the service: until the database has
    them.
    """
    ann = worker(core, agent="ann")
    worker(core, agent="ben")
    assert core.journal.pending == 2
    finish(core.journal.collect())
    assert core.journal.pending == 2
    changes = core.journal.take()
    assert changes is not None and core.journal.pending == 2
    core.journal.put_back(changes)
    assert core.journal.pending == 2
    changes = core.journal.take()
    assert changes is not None
    core.journal.written(changes)
    assert core.journal.pending == 0
    publish(core, 0)
    database.flush(core)
    acknowledge(ann, *ann.peer.take())
    assert core.journal.pending == 1
    database.flush(core)
    assert core.journal.pending == 0


def test_checkpoint_needs_all_to_be_written(core: Core, database: Database) -> None:
    """
    A checkpoint cannot have what is not in the database.
    """
    for agent in ("ann", "ben"):
        worker(core, agent=agent)
    finish(core.journal.collect())
    with pytest.raises(UnwrittenError):
        core.journal.checkpoint()
    changes = core.journal.take()
    assert changes is not None
    with pytest.raises(UnwrittenError):
        core.journal.checkpoint()
    core.journal.written(changes)
    steps = core.journal.checkpoint()
    next(steps)
    worker(core, agent="cat")
    finish(core.journal.collect())
    with pytest.raises(UnwrittenError):
        finish(steps)


def test_nothing_to_write(clock: Clock, core: Core, database: Database) -> None:
    """
    An agent that is not sent anything, and changes nothing, costs nothing; and neither do clients without an agent.
    """
    worker(core)
    joined(core, "topics/v")
    database.flush(core)
    assert core.journal.pending == 0
    publish(core, 0, channel="topics/v")
    publish(core, 1, channel="topics/u")
    assert core.journal.pending == 0
    live(core, clock, 30)
    assert database.flush(core) == {}


def test_without_a_journal(clock: Clock) -> None:
    """
    Nothing is noted, so that nothing grows.
    """
    core = make_core(clock)
    ann = worker(core)
    publish(core, 1)
    acknowledge(ann, *ann.peer.take())
    live(core, clock, 20)
    ann.leave()
    assert Database().flush(core) == {}
    assert core.journal.take_checkpoint() is None


def test_changes_are_small(core: Core, database: Database) -> None:
    """
    The first one has everything, the next ones what is different.
    """
    ann = worker(core)
    publish(core, 0)
    whole = database.flush(core)["ann"]
    (event,) = ann.peer.take()
    assert json.loads(whole) == {
        "gone": True,
        "sent": 1,
        "channels": {"topics/t": 0, "agents/ann": 0},
        "owed": {"1": [event["id"], 1]},
        "durable": True,
        "left": None,
    }
    acknowledge(ann, event)
    assert database.flush(core) == {"ann": b'{"settled":[1]}'}
    ann.say(type="unsubscribe", channel="topics/t")
    assert database.flush(core) == {"ann": b'{"channels":{"agents/ann":0}}'}
    ann.leave()
    assert database.flush(core) == {"ann": b'{"sent":0,"channels":{"agents/ann":1},"left":%d}' % WALL_MS}


def test_agent_that_does_not_acknowledge(clock: Clock, core: Core, database: Database) -> None:
    """
    Its subscriptions are written at once, and its place with the next checkpoint.
    """
    dashboard = joined(core, "topics/t", agent="dash", quiet=True)
    assert "dash" in database.flush(core)
    publish(core, 0)
    dashboard.peer.take()
    assert database.flush(core) == {}
    database.checkpoint(core)
    assert "dash" in database.flush(core)
    assert database.states()["dash"].sent == 1
    dashboard.leave()
    database.flush(core)
    publish(core, 1)

    new = restarted(clock, core, database)
    back = joined(new, quiet=True)
    assert texts(back.auth("dash")) == [("topics/t", 0), ("topics/t", 1)]


def test_subscriptions_outlast_deliveries(clock: Clock, core: Core, database: Database) -> None:
    """
    An agent that is not durable gets what it missed for five minutes; one that is, for a day.
    """
    for agent in ("ann", "dash"):
        client = joined(core, "topics/t", agent=agent, quiet=True)
        client.session.durable = agent == "ann"
        client.leave()
    database.flush(core)
    publish(core, 0)
    clock.advance(301)
    finish(core.hub.sweep())
    assert stats(core)["agents"] == {"connected": 0, "absent": 1, "remembered": 2}
    assert database.flush(core) == {}
    new = restarted(clock, core, database)
    assert database.flush(new) == {}
    for again in (core, new):
        for agent, gets in (("dash", []), ("ann", [("topics/t", 0)])):
            back = joined(again, quiet=True)
            answer, *replayed = back.auth(agent, id=1)
            assert answer["subscriptions"] == [f"agents/{agent}", "topics/t"]
            assert texts(replayed) == gets
            back.leave()


def test_agents_that_left_long_ago_are_gone(clock: Clock, core: Core, database: Database) -> None:
    worker(core).leave()
    database.flush(core)
    clock.advance(86_401)
    finish(core.hub.sweep())
    assert database.flush(core) == {"ann": b'{"gone":true}'}
    assert database.states() == {}
    database.checkpoint(core)
    assert (database.agents, database.rows) == ({}, [])
    worker(core)
    database.flush(core)
    assert database.states()["ann"].channels == {"agents/ann": 0, "topics/t": 0}


def test_agents_that_left_before_the_start(clock: Clock, core: Core, database: Database) -> None:
    """
    The time that the service was away counts; what is over is over.
    """
    worker(core).leave()
    database.flush(core)
    clock.advance(86_401)
    new = restarted(clock, core, database)
    assert stats(new)["agents"] == {"connected": 0, "absent": 0, "remembered": 0}
    assert database.flush(new) == {"ann": b'{"gone":true}'}


def test_connected_at_the_crash_counts_as_left_then(clock: Clock, core: Core, database: Database) -> None:
    worker(core)
    database.flush(core)
    clock.advance(86_401)
    new = restarted(clock, core, database)
    assert stats(new)["agents"]["absent"] == 1
    database.flush(new)
    assert database.states()["ann"].left == new.world.wall_ms()


def test_limits_hold_for_what_is_loaded(clock: Clock, core: Core, database: Database) -> None:
    """
    They take from all agents alike, and what is lost is not loaded again.
    """
    for number in range(4):
        client = worker(core, agent=f"ann{number}")
        publish(core, 0, 1, 2, 3)
        client.leave()
        clock.advance(1)
    database.flush(core)
    new = restarted(clock, core, database, max_agents=3, max_kept=6)
    assert stats(new)["agents"]["remembered"] == 3
    assert new.memory.kept <= 6
    assert new.counts.limits.max_agents.value == 1
    database.flush(new)
    states = database.states()
    assert set(states) == {"ann1", "ann2", "ann3"}
    assert sum(len(state.owed) for state in states.values()) == new.memory.kept


def test_states_of_other_times(clock: Clock, database: Database) -> None:
    """
    Channels that do not exist any more, and positions beyond the log, are left out or cut.
    """
    core = make_core(clock)
    publish(core, 0, 1)
    states = AgentStates()
    states.add_state(
        "ann",
        b'{"sent":7,"channels":{"topics/t":9,"other":1,"topics/u":0},"owed":{"1":["a",1],"9":["b",1],"0":["c",1]}}',
    )
    states.add_state("bob", b'{"left":%d}' % (WALL_MS * 2))
    finish(core.loading.load(states.states, []))
    absence = core.memory.absence("ann")
    assert absence is not None
    assert (absence.channels, set(absence.owed)) == ({"topics/t": 2, "topics/u": 2}, {1})
    assert core.memory.absence("bob") == ({}, {}, False, WALL_MS)


def test_agent_that_is_connected_before_the_load(clock: Clock, core: Core, database: Database) -> None:
    """
    It gets what was kept of it on its newest connection, as far as the limit allows.
    """
    ann = worker(core, "topics/t", "topics/u")
    publish(core, 0, 1)
    acknowledge(ann, ann.peer.take()[0])
    database.flush(core)
    publish(core, 2)

    log = core.log
    new = restarted(clock, core, Database(), max_subscriptions=2)
    new.hub.reset()
    assert new.log is log
    early = joined(new, agent="ann", quiet=True)
    database.load(new)
    assert got(early) == [1, 2]
    assert early.session.durable
    assert sorted(new.registry.channels(early.session)) == ["agents/ann", "topics/t"]
    assert database.flush(new)
    assert database.states()["ann"].channels == {"agents/ann": 0, "topics/t": 0}


def test_dashboard_that_is_connected_before_the_load(clock: Clock, core: Core, database: Database) -> None:
    joined(core, "topics/t", agent="dash", quiet=True)
    database.flush(core)
    publish(core, 0)
    new = restarted(clock, core, Database())
    new.hub.reset()
    early = joined(new, agent="dash", quiet=True)
    database.load(new)
    assert got(early) == [0]
    assert not early.session.durable


def test_several_connections(core: Core, database: Database) -> None:
    """
    The state has what all of them are subscribed to and owe, the sends of the one that was sent most, and the place of
    the one that is farthest behind.
    """
    first, second = worker(core), worker(core, "topics/t", "topics/u")
    publish(core, 0)
    database.flush(core)
    state = database.states()["ann"]
    assert state.channels == {"agents/ann": 0, "topics/t": 0, "topics/u": 0}
    assert [sends for _, sends in state.owed.values()] == [1]
    second.leave()
    database.flush(core)
    assert database.states()["ann"].channels == {"agents/ann": 0, "topics/t": 0}
    acknowledge(first, *first.peer.take())
    database.flush(core)
    assert database.states()["ann"].owed == {}


@pytest.mark.parametrize("crashes", [True, False])
def test_connection_that_is_behind_another_one(clock: Clock, core: Core, database: Database, *, crashes: bool) -> None:
    """
    An agent has one place in each channel.  If one of its connections has not been sent everything, that is its place
    until it ends: after a crash, what was acknowledged on another one beyond it comes again.
    """
    worker(core).leave()
    publish(core, 0)
    slow, heir = joined(core, quiet=True), joined(core, quiet=True)
    slow.peer = slow.session.peer = SlowPeer()
    slow.auth("ann", durable=True)
    told = heir.auth("ann")
    publish(core, 1)
    told += heir.peer.take()
    assert texts(told) == [("topics/t", 0), ("topics/t", 1)]
    acknowledge(heir, *(message for message in told if "event" in message))
    database.flush(core)
    assert database.states()["ann"].channels["topics/t"] == 0
    if crashes:
        core = restarted(clock, core, database)
    else:
        slow.leave()
        heir.leave()
    back = joined(core, quiet=True)
    assert texts(back.auth("ann")) == ([("topics/t", 0), ("topics/t", 1)] if crashes else [])


def test_heir_that_has_caught_up(clock: Clock, core: Core, database: Database) -> None:
    """
    What it has acknowledged does not come again.
    """
    core = make_core(clock, max_pending=1)
    database.load(core)
    slow, heir = worker(core), worker(core)
    publish(core, 0, 1)
    slow.leave()
    while messages := heir.peer.take():
        acknowledge(heir, *messages)
        if heir.peer.replaying is not None:
            heir.peer.read()
    database.flush(core)
    back = joined(restarted(clock, core, database), quiet=True)
    assert texts(back.auth("ann")) == []


def test_connections_that_wait(clock: Clock, core: Core, database: Database) -> None:
    """
    The place of an agent is that of the connection that is farthest behind, and in each channel that of those that are
    subscribed to it.
    """
    core = make_core(clock, max_pending=1)
    database.load(core)
    slow, fast = worker(core), worker(core, "topics/u")
    publish(core, 0, 1, 2)
    publish(core, 3, channel="topics/u")
    acknowledge(fast, *fast.peer.take())
    database.flush(core)
    state = database.states()["ann"]
    assert (state.sent, state.channels) == (1, {"agents/ann": 0, "topics/t": 0, "topics/u": 4})
    # what waits for one connection, and is owed by another one
    third = worker(core, agent="bob")
    assert slow.session.behind is not None
    third.leave()
    fresh = joined(core, quiet=True)
    fresh.auth("ann")
    database.flush(core)
    assert set(database.states()["ann"].owed) == {1}


def test_owed_events_that_wait(clock: Clock, core: Core, database: Database) -> None:
    """
    What an agent owes and has not been sent again is owed after the next crash, too.
    """
    ann = worker(core)
    publish(core, 0, 1)
    ann.leave()
    database.flush(core)
    new = restarted(clock, core, database, max_pending=1)
    back = joined(new, quiet=True)
    assert texts(back.auth("ann")) == [("topics/t", 0)]
    database.flush(new)
    assert [sends for _, sends in database.states()["ann"].owed.values()] == [2, 1]
    last = joined(restarted(clock, new, database), quiet=True)
    assert texts(last.auth("ann")) == [("topics/t", 0), ("topics/t", 1)]


def test_changes_that_could_not_be_written(core: Core, database: Database) -> None:
    """
    They come with the next ones, in one change for each agent; also if they were written although that seemed to fail.
    """
    for is_written in (False, True):
        ann = worker(core)
        database.flush(core)
        publish(core, 0, 1)
        finish(core.journal.collect())
        first = core.journal.take()
        assert first is not None
        if is_written:
            database.write(first)
        acknowledge(ann, ann.peer.take()[0])
        bob = worker(core, agent="bob")
        finish(core.journal.collect())
        core.journal.put_back(first)
        database.flush(core)
        states = database.states()
        assert [list(state.owed) for _, state in sorted(states.items())] == [[core.log.head], []]
        assert states["ann"].sent == core.log.head
        for client in (ann, bob):
            acknowledge(client, *client.peer.take())
            client.leave()
        core.memory.clear()


def test_long_outage_of_the_database(core: Core, database: Database) -> None:
    """
    What has to be written does not grow with the number of events.
    """
    ann = worker(core)
    database.flush(core)
    for _ in range(4):
        publish(core, *range(SETTLED_MAX // 2))
        finish(core.journal.collect())
        acknowledge(ann, *ann.peer.take())
        finish(core.journal.collect())
    changes = core.journal.take()
    assert changes is not None
    assert len(changes.agents[0][1]) < 8 * SETTLED_MAX
    database.write(changes)
    assert database.states()["ann"].owed == {}


def test_checkpoint(clock: Clock, core: Core, database: Database) -> None:
    """
    It has the whole states of what has changed, and rows that were written before it are not needed any more.
    """
    ann = worker(core)
    database.flush(core)
    publish(core, 0)
    ann.leave()
    worker(core, agent="bob")
    database.flush(core)
    before = database.states()
    database.checkpoint(core)
    assert (database.rows, set(database.agents)) == ([], {"ann", "bob"})
    assert database.states() == before
    finish(core.journal.checkpoint())
    assert core.journal.take_checkpoint() is None


def test_checkpoint_that_could_not_be_written(core: Core, database: Database) -> None:
    worker(core)
    database.flush(core)
    for _ in range(2):
        finish(core.journal.checkpoint())
        checkpoint = core.journal.take_checkpoint()
        assert checkpoint is not None
        assert [agent for agent, _ in checkpoint.agents] == ["ann"]
        core.journal.put_back_checkpoint(checkpoint)


def test_checkpoint_of_very_many_agents(core: Core, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Only a part of them is held at once, and the journal is needed until all have been written.
    """
    monkeypatch.setattr("dcm_ws.core.journal._CHECKPOINT_BYTES", 100)
    for number in range(3):
        worker(core, agent=f"ann{number}")
    database.flush(core)
    database.checkpoint(core)
    assert (len(database.rows), len(database.agents)) == (1, 2)
    database.checkpoint(core)
    database.checkpoint(core)
    assert (database.rows, len(database.agents)) == ([], 3)


def test_place_of_an_idle_agent(clock: Clock, database: Database) -> None:
    """
    It is written again before it is older than what the log keeps.
    """
    core = make_core(clock, max_events=100)
    database.load(core)
    worker(core)
    database.flush(core)
    for number in range(100):
        publish(core, number, channel="topics/u")
        if number % 10 == 0:
            database.checkpoint(core)
            database.flush(core)
    assert core.log.head - database.states()["ann"].sent <= 40


def test_reset_during_a_write(clock: Clock, database: Database) -> None:
    """
    What was to be written of the former log is not written of the new one.
    """
    core = make_core(clock, log=LateLog)
    assert isinstance(core.log, LateLog)
    database.load(core)
    worker(core)
    database.flush(core)
    worker(core, agent="bob")
    finish(core.journal.checkpoint())
    checkpoint = core.journal.take_checkpoint()
    finish(core.journal.collect())
    changes = core.journal.take()
    assert changes is not None
    assert checkpoint is not None
    core.log.renew("other", 0)
    core.journal.put_back(changes)
    core.journal.put_back_checkpoint(checkpoint)
    assert database.flush(core) == {}
    Database().load(core)
    assert database.flush(core) == {}
    finish(core.journal.checkpoint())
    assert core.journal.take_checkpoint() is None


# dead letters


def die(clock: Clock, core: Core, *data: Any) -> Client:
    ann = worker(core)
    publish(core, *data)
    live(core, clock, 20)
    ann.peer.take()
    return ann


def test_dead_letters_are_kept(clock: Clock, core: Core, database: Database) -> None:
    """
    All that there is of them is loaded, and the time for which they are kept goes on.
    """
    publisher = joined(core, quiet=True, agent="pub")
    ann = worker(core)
    publisher.say(**TASK, data={"a": [1]})
    live(core, clock, 20)
    ann.leave()
    publish(core, 2)
    database.flush(core)
    assert database.states()["ann"].owed == {}
    (letter,) = core.application_hub.dead_letters()
    clock.advance(86_400)

    new = restarted(clock, core, database)
    assert new.application_hub.dead_letters() == [letter]
    assert letter.sender == b',"from":"pub"'
    assert stats(new)["deadLetters"] == stats(core)["deadLetters"] | {"died": 0}
    clock.advance(6 * 86_400)
    finish(new.hub.sweep())
    assert new.application_hub.dead_letters() == []
    database.flush(new)
    assert database.dead == {}


def test_letters_that_do_not_live_to_be_written(clock: Clock, core: Core, database: Database) -> None:
    die(clock, core, 0)
    core.application_hub.purge()
    finish(core.journal.collect())
    changes = core.journal.take()
    assert changes is not None
    assert changes.letters == ([], [])


def test_letters_that_could_not_be_written(clock: Clock, core: Core, database: Database) -> None:
    """
    What has become of them since is written instead.
    """
    die(clock, core, 0, 1, 2)
    finish(core.journal.collect())
    first = core.journal.take()
    assert first is not None
    assert len(first.letters.kept) == 3
    zero, one, two = core.application_hub.dead_letters()
    core.redriving.purge_one("ann", zero.event_id)
    core.redriving.redrive_one("ann", one.event_id)
    core.journal.put_back(first)
    database.flush(core)
    assert {letter.event_id: bool(letter.redriven_at) for letter in database.dead.values()} == {
        one.event_id: True,
        two.event_id: False,
    }
    core.application_hub.purge()
    finish(core.journal.collect())
    second = core.journal.take()
    assert second is not None
    core.journal.put_back(second)
    core.journal.put_back(second)
    database.flush(core)
    assert database.dead == {}


def test_redriven_letter_after_a_crash(clock: Clock, core: Core, database: Database) -> None:
    """
    It comes with what its agent owes, once, and is kept until it is acknowledged.
    """
    ann = die(clock, core, 0)
    publish(core, 1)
    core.application_hub.redrive()
    ann.leave()
    database.flush(core)
    new = restarted(clock, core, database)
    back = joined(new, quiet=True)
    _, *replayed = back.auth("ann", id=1)
    assert texts(replayed) == [("topics/t", 0), ("topics/t", 1)]
    acknowledge(back, *replayed)
    assert new.application_hub.dead_letters() == []
    database.flush(new)
    assert database.dead == {}


def test_redriven_letter_of_an_agent_that_is_connected(clock: Clock, core: Core, database: Database) -> None:
    ann = die(clock, core, 0)
    core.application_hub.redrive()
    assert got(ann) == [0]
    database.flush(core)
    assert database.states()["ann"].owed == {}
    new = restarted(clock, core, Database())
    new.hub.reset()
    early = joined(new, agent="ann", quiet=True)
    database.load(new)
    assert got(early) == [0]


def test_one_letter(clock: Clock, core: Core) -> None:
    ann = die(clock, core, 0, 1)
    zero, one = (letter.event_id for letter in core.application_hub.dead_letters())
    assert core.redriving.redrive_one("ann", one) == Redriven(1, 1)
    assert got(ann) == [1]
    assert core.redriving.redrive_one("ann", one) == Redriven(0, 0)
    assert core.redriving.redrive_one("bob", one) is None
    assert core.redriving.purge_one("ann", zero)
    assert not core.redriving.purge_one("ann", zero)
    assert [letter.event_id for letter in core.application_hub.dead_letters()] == [one]


@pytest.mark.parametrize("alone", [True, False])
def test_late_ack(clock: Clock, core: Core, alone: bool) -> None:
    """
    An event that is acknowledged after it became a dead letter is one no more.
    """
    ann = die(clock, core, 0, 1)
    if not alone:
        worker(core)
    zero, one = (letter.event_id for letter in core.application_hub.dead_letters())
    # not by somebody else
    worker(core, agent="bob").say(type="ack", message_id=zero)
    joined(core, quiet=True).say(type="ack", message_id=zero)
    assert len(core.application_hub.dead_letters()) == 2
    before = core.counts.received.ack
    ann.say(type="ack", message_id=zero)
    assert [letter.event_id for letter in core.application_hub.dead_letters()] == [one]
    assert core.counts.received.ack == before
    ann.say(type="ack", message_id=zero)
    assert core.counts.received.ack == before + 1
    ann.say(type="ack", pos=core.log.head)
    assert len(core.application_hub.dead_letters()) == 1


def test_letters_that_somebody_has_changed(clock: Clock, core: Core, database: Database) -> None:
    die(clock, core, 0)
    (letter,) = core.application_hub.dead_letters()
    core.letters.load([letter._replace(event_id="another"), letter._replace(event_id="one", pos=7, redriven_at=5)])
    assert [one.event_id for one in core.application_hub.dead_letters()] == [letter.event_id, "one"]
    core.application_hub.purge()
    assert len(core.letters) == 0
