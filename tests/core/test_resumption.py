"""
Agents that come back in odd ways.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.session import Origin
from tests.core.clients import TASK, away, joined, joined_again, stats, texts
from tests.core.living import events, live
from tests.fakes import Client, RecordingPeer, make_core


def test_replayed_event_is_not_acknowledged_by_that(clock: Clock) -> None:
    """
    An event that a returning agent heard live before it authenticated counts as acknowledged when it says so, and once.
    """
    core = make_core(clock)
    first = Client(core)
    first.auth("lara")
    first.leave()
    second = Client(core)
    event_id = Client(core).say(type="publish", channel="global", event="task.created", id=1)[-1]["message_id"]
    second.auth("lara")

    assert core.counts.deliveries.acked == 0
    second.say(type="ack", message_id=event_id)
    assert core.counts.deliveries.acked == 1
    assert list(second.session.owed) == []


def test_event_is_kept_once(clock: Clock) -> None:
    """
    An event that is owed and still to be replayed when the connection ends is kept once.
    """
    core = make_core(clock)
    first = Client(core)
    first.auth("lara")
    first.leave()
    second = Client(core)
    Client(core).say(type="publish", channel="global", event="task.created")
    second.peer.replay = lambda frames: None  # type: ignore[method-assign]  # it reads nothing
    second.auth("lara")
    second.leave()

    assert core.memory.kept == 1


def test_authenticating_again_and_again_stays_within_the_limit(clock: Clock) -> None:
    """
    However many agents and sessions a client names one after the other, it has the channels of the last ones, and two
    channels beyond the limit at the most.
    """
    core = make_core(clock, max_subscriptions=3)
    client = Client(core)
    for channel in ("topics/a", "topics/b"):
        client.say(type="subscribe", channel=channel)
    for n in range(50):
        session = f"s{n}" if n % 3 else None
        client.auth("lara" if n % 2 else "tom", session_id=session)
        own = {f"agents/{client.session.agent}"} | ({f"sessions/{session}"} if session else set())
        assert set(core.registry.channels(client.session)) == {"global", "topics/a", "topics/b"} | own


def test_former_sessions_stay_below_the_limit(clock: Clock) -> None:
    """
    A client that names another session keeps the channel of the first, as long as there is room.
    """
    client = Client(make_core(clock, max_subscriptions=4))
    for session in ("a", "b", "c"):
        answer = client.auth("lara", session_id=session)[0]
    assert answer["subscriptions"] == ["agents/lara", "global", "sessions/a", "sessions/c"]


# subscriptions that come back


def test_subscriptions_come_back(core: Core) -> None:
    """
    An agent that reconnects gets the subscriptions of its last connection, and their events.
    """
    joined(core, "topics/t", "sessions/s", "agents/bob", "metrics", agent="ann").leave()
    client = Client(core)
    client.peer.take()

    ack = client.auth("ann")[0]
    assert ack["subscriptions"] == ["agents/ann", "agents/bob", "global", "metrics", "sessions/s", "topics/t"]
    assert events(client.say(**TASK), "task") == [("topics/t", "task.created"), ("global", "task.created")]


def test_left_channels_do_not_come_back(core: Core) -> None:
    """
    What an agent left, it left; also after it had come back once.
    """
    joined(core, "topics/t", "topics/u", agent="ann").leave()
    client = joined(core, agent="ann")
    client.say(type="unsubscribe", channel="topics/t")
    client.leave()

    assert Client(core).auth("ann")[-2]["subscriptions"] == ["agents/ann", "global", "topics/u"]


def test_anonymous_clients_are_not_remembered(core: Core) -> None:
    """
    What a client had that never authenticated is gone with it.
    """
    client = Client(core, Origin("ann"))
    client.say(type="subscribe", channel="topics/t")
    client.leave()

    assert Client(core).auth("ann")[-2]["subscriptions"] == ["agents/ann", "global"]


def test_subscriptions_are_each_agents_own(core: Core) -> None:
    """
    One agent does not get another's.
    """
    joined(core, "topics/t", agent="ann").leave()

    assert Client(core).auth("bob")[-2]["subscriptions"] == ["agents/bob", "global"]


@pytest.mark.parametrize(("away", "back"), [(86_399, True), (86_400, False)])
def test_subscriptions_come_back_within_a_day(clock: Clock, core: Core, away: int, back: bool) -> None:
    """
    Restored subscriptions are kept for 24 h.
    """
    joined(core, "topics/t", agent="ann").leave()
    clock.advance(away)

    assert ("topics/t" in Client(core).auth("ann")[-2]["subscriptions"]) is back


def test_subscriptions_of_so_many_agents_are_remembered(clock: Clock) -> None:
    """
    Past the limit the longest unseen agent's are forgotten.
    """
    core = make_core(clock, max_agents=2)
    for agent in ("ann", "bob", "cid"):
        joined(core, "topics/t", agent=agent).leave()

    assert stats(core)["agents"] == {"connected": 0, "absent": 2, "remembered": 2}
    assert "topics/t" not in Client(core).auth("ann")[-2]["subscriptions"]
    assert "topics/t" in Client(core).auth("cid")[-2]["subscriptions"]


def test_replaced_agent_is_remembered(core: Core) -> None:
    """
    An agent that another one replaced on its connection gets back what it had there.
    """
    client = joined(core, "topics/t", agent="ann")
    client.auth("bob")

    assert "topics/t" in Client(core).auth("ann")[-2]["subscriptions"]


# at-least-once delivery


def test_pending_deliveries_wait_for_their_agent(clock: Clock, core: Core) -> None:
    """
    What an agent owed an ack for when its connection ended is sent again when it reconnects, and tracked again.
    """
    client = joined(core, "topics/t", agent="ann")
    first = client.say(**TASK, data=1)
    (acknowledged, _) = client.say(**TASK, data=2)
    client.say(type="ack", message_id=acknowledged["id"])
    client.leave()
    assert stats(core)["pendingDeliveries"] == 0
    assert stats(core)["deliveries"]["keptForAbsentAgents"] == 1
    live(core, clock, 299)
    again = Client(core)
    again.peer.take()

    ack, *replayed, connected = again.auth("ann")
    assert ack["type"] == "ack"
    assert replayed == first
    assert connected["event"] == "agent.connected"
    assert stats(core)["pendingDeliveries"] == 1
    assert stats(core)["deliveries"]["keptForAbsentAgents"] == 0
    live(core, clock, 5)
    assert again.peer.take() == first


def test_pending_deliveries_wait_for_five_minutes(clock: Clock, core: Core) -> None:
    """
    After 5 minutes they are given up and counted.
    """
    client = joined(core, "topics/t", agent="ann")
    client.say(**TASK)
    client.leave()
    live(core, clock, 300)
    assert stats(core)["deliveries"]["neverAcknowledged"] == 1
    again = Client(core)
    again.peer.take()

    assert texts(again.auth("ann")) == []
    assert "topics/t" in again.say(type="auth", agent_id="ann")[0]["subscriptions"]


def test_pending_deliveries_of_anonymous_clients_are_dropped(clock: Clock, core: Core) -> None:
    """
    Who never authenticated leaves nothing behind, and no failure either.
    """
    client = Client(core, Origin("ann"))
    client.say(**TASK)
    client.leave()

    assert stats(core)["pendingDeliveries"] == stats(core)["failedDeliveries"] == 0
    assert stats(core)["deliveries"]["keptForAbsentAgents"] == 0
    assert texts(Client(core).auth("ann")) == []


def test_missed_events_are_replayed_in_order(core: Core) -> None:
    """
    What was published to an agent's channels while it was away comes after what it owed, in the order of publishing.
    """
    client = joined(core, "topics/t", agent="ann")
    client.say(**TASK, data=1)
    client.leave()
    publisher = joined(core, quiet=True)
    for number, channel in ((2, "topics/t"), (3, "topics/u"), (4, "global"), (5, "metrics"), (6, "agents/ann")):
        publisher.say(type="publish", channel=channel, event="task.created", data=number)
    publisher.say(type="publish", channel="topics/t", event="system.info", data=7)
    again = Client(core)
    again.peer.take()

    assert texts(again.auth("ann")) == [
        ("topics/t", 1),
        ("global", 1),
        ("topics/t", 2),
        ("global", 2),
        ("global", 3),
        ("global", 4),
        ("agents/ann", 6),
        ("global", 6),
    ]
    assert stats(core)["pendingDeliveries"] == 5


def test_missed_events_have_the_id_that_others_saw(core: Core) -> None:
    """
    A replayed event is the very event that was published.
    """
    joined(core, "topics/t", agent="ann").leave()
    watcher = joined(core)
    (seen,) = watcher.say(**TASK, data={"n": 1})
    again = Client(core)
    again.peer.take()

    specific, mirror = again.auth("ann")[1:3]
    assert mirror == specific | {"channel": "global", "origin": "topics/t"} == seen
    assert specific["channel"] == "topics/t"


def test_agent_with_another_connection_is_not_told_twice(core: Core) -> None:
    """
    An event that an agent's other connection received while one was away is sent once to the connection that returns.
    """
    joined(core, "topics/t", agent="ann", quiet=True).leave()
    joined(core, quiet=True).say(**TASK, data=1)
    client = joined(core, quiet=True)
    (event,) = [message for message in client.auth("ann") if "data" in message]
    client.say(type="ack", message_id=event["id"])

    assert texts(joined_again(core, "ann")) == []


def test_missed_events_may_be_acknowledged(clock: Clock, core: Core) -> None:
    """
    A replayed event that is acknowledged does not come again, neither to this connection nor to the next.
    """
    joined(core, "topics/t", agent="ann").leave()
    joined(core, quiet=True).say(**TASK)
    again = Client(core)
    missed = again.auth("ann")[2]
    again.say(type="ack", message_id=missed["id"])
    live(core, clock, 20)
    assert texts(again.peer.take()) == []
    again.leave()

    assert texts(joined_again(core, "ann")) == []


class SlowPeer(RecordingPeer):
    """
    Reads a replay only when told to, and remembers all that it was given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.replays: list[Any] = []

    def replay(self, frames: Any) -> None:
        self.replaying = frames
        self.replays.append(frames)


def slow(core: Core, agent: str) -> Client:
    """
    A client of an agent that is back, and has read nothing of its replay.
    """
    client = joined(core, quiet=True)
    client.peer = client.session.peer = SlowPeer()
    client.auth(agent)
    return client


def test_replay_is_as_fast_as_it_is_read(clock: Clock, core: Core) -> None:
    """
    What has not been sent yet is not awaiting an ack, and is not sent again for want of one.
    """
    away(core, "ann", 10)
    client = slow(core, "ann")
    assert stats(core)["pendingDeliveries"] == 0
    client.peer.read(3)
    assert texts(client.peer.take()) == [("topics/t", number) for number in range(3)]
    assert stats(core)["pendingDeliveries"] == 3
    live(core, clock, 5)
    assert texts(client.peer.take()) == [("topics/t", number) for number in range(3)]
    client.peer.read()

    assert texts(client.peer.take()) == [("topics/t", number) for number in range(3, 10)]
    assert stats(core)["pendingDeliveries"] == 10
    assert client.session.behind is None


def test_what_was_not_replayed_is_kept_again(clock: Clock, core: Core) -> None:
    """
    A connection that ends during the replay leaves the rest, and what it did not acknowledge, to the next one.
    """
    away(core, "ann", 10)
    client = slow(core, "ann")
    client.peer.read(4)
    for event in client.peer.take()[-3:]:
        client.say(type="ack", message_id=event["id"])
    client.leave()
    client.peer.read()
    assert texts(client.peer.take()) == []
    assert stats(core)["deliveries"]["keptForAbsentAgents"] == 1
    assert stats(core)["pendingDeliveries"] == 0
    joined(core, quiet=True).say(**TASK, data="later")

    expected = [0, *range(4, 10), "later"]
    assert texts(joined_again(core, "ann")) == [("topics/t", data) for data in expected]


def test_what_was_not_replayed_waits_five_minutes_anew(clock: Clock, core: Core) -> None:
    """
    The time begins when the last connection ended.
    """
    away(core, "ann", 2)
    live(core, clock, 200)
    slow(core, "ann").leave()
    live(core, clock, 200)

    assert texts(joined_again(core, "ann")) == [("topics/t", 0), ("topics/t", 1)]


def test_order_survives_a_connection_that_ends_during_the_replay(core: Core) -> None:
    """
    What came live, during a replay that was not finished, stands after what was still to be replayed.
    """
    away(core, "ann", 3)
    client = slow(core, "ann")
    client.peer.read(1)
    joined(core, quiet=True).say(**TASK, data=3)
    client.leave()

    assert texts(joined_again(core, "ann")) == [("topics/t", number) for number in range(4)]


def test_acknowledged_events_are_not_missed(core: Core) -> None:
    """
    What an agent heard before it left is not told again, though another agent was away and missed it.
    """
    joined(core, "topics/t", agent="bob").leave()
    client = joined(core, "topics/t", agent="ann", quiet=True)
    (event,) = client.say(**TASK)
    client.say(type="ack", message_id=event["id"])
    client.leave()

    assert texts(joined_again(core, "ann")) == []


def test_missed_events_are_settled_by_an_ack_up_to_a_position(core: Core) -> None:
    """
    Regression: a service that was killed does not know what it has sent in its last second; it sent that again although
    the agent had come back and acknowledged everything up to a position beyond.
    """
    away(core, "ann", 4)
    client = slow(core, "ann")
    assert isinstance(client.peer, SlowPeer)
    (replay,) = client.peer.replays
    assert b'"data":0' in next(replay)
    client.say(type="ack", pos=3)
    client.peer.read(100)

    assert texts(client.peer.take()) == [("topics/t", 3)]
    client.say(type="ack", pos=4)
    client.leave()
    assert texts(joined_again(core, "ann")) == []


def test_second_connection_is_not_told_what_others_missed(core: Core) -> None:
    """
    A connected agent missed nothing, even if other agents are away.
    """
    for agent in ("bob", "ann"):
        joined(core, "topics/t", agent=agent, quiet=True).leave()
    joined(core, quiet=True).say(**TASK)
    client = joined(core, quiet=True)
    (event,) = [message for message in client.auth("ann") if "data" in message]
    client.say(type="ack", message_id=event["id"])

    assert texts(joined_again(core, "ann")) == []


def test_replaced_agent_keeps_what_was_not_replayed(core: Core) -> None:
    """
    An agent that another one replaces in the midst of its replay loses nothing, nor does the other.
    """
    away(core, "ann", 3)
    away(core, "bob", 2)
    client = slow(core, "ann")
    assert isinstance(client.peer, SlowPeer)
    client.peer.read(1)
    client.auth("bob")
    (replay,) = client.peer.replays
    assert next(replay)
    client.leave()
    assert list(replay) == []

    assert texts(joined_again(core, "bob")) == [("topics/t", 0), ("topics/t", 1)]
    assert [data for _, data in texts(joined_again(core, "ann"))] == [0, 1, 2, 0, 1]


def test_event_that_came_live_and_is_replayed_is_owed_once(core: Core) -> None:
    """
    Who heard an event on C{global} before it authenticated owes one ack for it after the replay.
    """
    joined(core, "topics/t", agent="ann").leave()
    client = joined(core)
    client.say(**TASK, data=1)
    assert stats(core)["pendingDeliveries"] == 1

    assert texts(client.auth("ann")) == [("topics/t", 1), ("global", 1)]
    assert stats(core)["pendingDeliveries"] == 1
    assert stats(core)["failedDeliveries"] == stats(core)["deliveries"]["neverAcknowledged"] == 0


def test_replay_is_limited_as_all_deliveries_are(clock: Clock) -> None:
    """
    An agent that missed more than it may owe gets the rest when it has acknowledged enough.
    """
    core = make_core(clock, max_pending=5)
    away(core, "ann", 8)

    client = joined(core, quiet=True)
    told = [message for message in client.auth("ann") if "data" in message]
    assert texts(told) == [("topics/t", number) for number in range(5)]
    client.say(type="ack", message_id=told[0]["id"])
    client.peer.read()
    assert client.peer.take() == []
    client.say(type="ack", message_id=told[1]["id"])
    client.peer.read()

    assert texts(client.peer.take()) == [("topics/t", 5), ("topics/t", 6)]
    client.say(type="ack", pos=told[-1]["pos"])
    client.peer.read()
    assert texts(client.peer.take()) == [("topics/t", 7)]
    assert stats(core)["pendingDeliveries"] == 3
    assert stats(core)["failedDeliveries"] == stats(core)["deliveries"]["neverAcknowledged"] == 0


def test_restored_subscriptions_are_limited_too(clock: Clock) -> None:
    """
    An agent that comes back to a client that has much already is given no more than the limit, always the same.
    """
    core = make_core(clock, max_subscriptions=4)
    joined(core, "topics/b", "topics/c", agent="ann").leave()
    for _ in range(2):
        client = joined(core, "topics/a")
        assert client.auth("ann")[0]["subscriptions"] == ["agents/ann", "global", "topics/a", "topics/b"]

    assert stats(core)["limits"]["maxSubscriptions"] == 2
