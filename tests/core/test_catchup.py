from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.behind import EARLY_ACKS_MOST
from dcm_ws.core.session import Origin
from tests.core.clients import TASK, joined, only, stats, texts
from tests.core.living import finish, live
from tests.fakes import Client, make_core

NOTE: dict[str, Any] = {"type": "publish", "channel": "topics/t", "event": "session.created"}


def data(messages: list[dict[str, Any]]) -> list[tuple[int, str, Any]]:
    """
    The position, the channel and the data of each logged event.
    """
    return [(m["pos"], m["channel"], m["data"]) for m in messages if "data" in m and "pos" in m]


def published(core: Core, *values: object, channel: str = "topics/t") -> None:
    publisher = joined(core, quiet=True)
    for value in values:
        publisher.say(**NOTE | {"channel": channel}, data=value)
    publisher.leave()


def resume(client: Client, pos: int, *channels: str, epoch: str = "epoch") -> list[dict[str, Any]]:
    return client.say(type="resume", epoch=epoch, pos=pos, channels=list(channels), id=7)


def slow(core: Core, *channels: str, **fields: Any) -> Client:
    """
    A client that reads nothing of a replay until the test says so.
    """
    client = joined(core, *channels, quiet=True)
    client.peer.replay = lambda frames: setattr(client.peer, "replaying", frames)  # type: ignore[method-assign]
    return client


def test_positions_are_dense_and_of_logged_events_only(core: Core) -> None:
    """
    Events that soon mean nothing are not logged, and have no position.
    """
    client = joined(core, "topics/t", agent="ann", quiet=True)
    client.say(**NOTE | {"event": "agent.heartbeat"})
    told = [only(client.say(**NOTE | {"event": name})) for name in ("task.created", "system.info", "session.ended")]

    assert [message.get("pos") for message in told] == [1, None, 2]


def test_operators_take_events_out_of_the_log(clock: Clock) -> None:
    """
    Tracked events are logged whatever the operator says.
    """
    core = make_core(clock, ephemeral=("session.*", "task.created"))
    client = joined(core, "topics/t", quiet=True)

    assert [client.say(**NOTE | {"event": name})[0].get("pos") for name in ("session.ended", "task.created")] == [
        None,
        1,
    ]


def test_ack_of_a_publish_has_the_position(core: Core) -> None:
    """
    It says that the event is in the log; an event that is not logged has none.
    """
    client = joined(core, quiet=True)

    assert only(client.say(**NOTE, id=1))["pos"] == 1
    assert "pos" not in only(client.say(**NOTE | {"event": "system.info"}, id=1))


def test_nothing_is_accepted_while_the_service_stops(core: Core) -> None:
    """
    The log ends with the service, so it must not promise anything any more.
    """
    client = joined(core, "topics/t")
    core.hub.drain()
    client.peer.take()

    refused = only(client.say(**TASK, id=4))
    assert (refused["success"], refused["code"], refused["id"]) == (False, "NOT_AVAILABLE", 4)


def test_resume_gives_what_was_missed_and_goes_on(core: Core) -> None:
    """
    Nothing is missing, twice or out of order.
    """
    published(core, 1, 2, 3)
    published(core, "elsewhere", channel="topics/u")
    client = joined(core, quiet=True)

    ack, *rest = resume(client, 1, "topics/t")
    assert ack == {
        "type": "ack",
        "id": 7,
        "success": True,
        "resumed": True,
        "epoch": "epoch",
        "pos": 4,
        "subscriptions": ["topics/t"],
        "timestamp": ack["timestamp"],
    }
    assert data(rest) == [(2, "topics/t", 2), (3, "topics/t", 3)]
    published(core, 5)
    assert data(client.peer.take()) == [(5, "topics/t", 5)]


def test_resume_without_an_id_and_with_nothing_missed(core: Core) -> None:
    """
    It is answered even without an id.
    """
    client = joined(core, quiet=True)

    ack = only(client.say(type="resume", epoch="epoch", pos=0, channels=["topics/t"]))
    assert (ack["id"], ack["resumed"], ack["subscriptions"]) == (None, True, ["topics/t"])
    assert stats(core)["log"]["replays"] == 0


def test_resume_of_a_channel_that_is_subscribed_already(core: Core) -> None:
    """
    What the client has got since it subscribed does not come again.
    """
    published(core, 1, 2)
    client = joined(core)
    published(core, 3)
    assert data(client.peer.take()) == [(3, "global", 3)]

    assert data(resume(client, 1, "global", "topics/t")) == [(2, "topics/t", 2), (2, "global", 2), (3, "topics/t", 3)]


@pytest.mark.parametrize(
    ("epoch", "pos", "reason", "first"),
    [("other", 1, "epoch", 1), ("epoch", 9, "ahead", 1), ("epoch", 0, "expired", 3)],
)
def test_gap(clock: Clock, epoch: str, pos: int, reason: str, first: int) -> None:
    """
    A client that cannot go on where it was is told so, and is subscribed and live.
    """
    core = make_core(clock, keep=100.0)
    published(core, 1, 2)
    if reason == "expired":
        clock.advance(101)
        live(core, clock, 1)
        published(core, 3)
    client = joined(core, quiet=True)

    ack = only(resume(client, pos, "topics/t", epoch=epoch))
    assert (ack["success"], ack["resumed"], ack["gap"]) == (True, False, {"reason": reason, "first": first})
    published(core, 4)
    assert [value for _, _, value in data(client.peer.take())] == [4]
    assert stats(core)["log"]["gaps"] == 1


@pytest.mark.parametrize(
    ("channels", "code"),
    [
        (["no/such"], "INVALID_CHANNEL"),
        (["agents/bob"], "NOT_AUTHORIZED"),
        (["topics/1", "topics/2"], "TOO"),
        # more than the limit are not even read
        (["topics/1", "no/such"], "TOO"),
    ],
)
def test_resume_is_refused_as_a_whole(clock: Clock, channels: list[str], code: str) -> None:
    """
    Either all channels or none of them.
    """
    client = joined(make_core(clock, max_subscriptions=1), quiet=True)

    refused = only(resume(client, 0, *channels))
    assert refused["id"] == 7 and refused["code"].startswith(code)
    assert not client.core.registry.channels(client.session)


def test_unauthenticated_clients_do_not_resume(clock: Clock) -> None:
    """
    In production a client authenticates first.
    """
    client = Client(make_core(clock, production=True))
    client.peer.take()

    assert only(resume(client, 0, "global"))["code"] == "NOT_AUTHORIZED"


def test_channel_that_is_left_and_joined_again_has_only_new_events(core: Core) -> None:
    """
    A client that unsubscribes while it catches up, and subscribes again, gets nothing from before that.
    """
    for number in range(3):
        published(core, number)
        published(core, number, channel="topics/u")
    client = slow(core)
    resume(client, 0, "topics/t", "topics/u")
    published(core, "left")
    client.say(type="unsubscribe", channel="topics/t")
    client.say(type="subscribe", channel="topics/t")
    published(core, "new")
    client.peer.read()
    assert [value for _, channel, value in data(client.peer.take()) if channel == "topics/t"] == ["new"]


def test_auth_resumes_in_the_same_pass(core: Core) -> None:
    """
    What the agent missed and what it asks for come together, each once.
    """
    joined(core, "topics/t", agent="ann", quiet=True).leave()
    publisher = joined(core, quiet=True)
    publisher.say(**NOTE, data=1)
    publisher.say(**TASK, data=2)
    publisher.say(**NOTE | {"channel": "topics/u"}, data=3)
    client = joined(core, quiet=True)

    ack, *rest = client.auth("ann", resume={"epoch": "epoch", "pos": 1, "channels": ["topics/u"]})
    assert ack["resumed"] is True
    assert data(rest) == [(2, "topics/t", 2), (3, "topics/u", 3)]


def test_what_is_owed_and_resumed_comes_once(core: Core) -> None:
    """
    The agent may ask for what it gets anyway.
    """
    first = joined(core, "topics/t", agent="ann", quiet=True)
    joined(core, quiet=True).say(**TASK, data=1)
    first.leave()
    client = joined(core, quiet=True)

    told = client.auth("ann", resume={"epoch": "epoch", "pos": 0, "channels": ["topics/t"]})
    assert data(told) == [(1, "topics/t", 1)]


def test_auth_that_may_not_resume_changes_nothing(core: Core) -> None:
    """
    It is refused before anything is done.
    """
    client = joined(core)

    refused = only(client.auth("ann", id=1, resume={"epoch": "epoch", "pos": 1, "channels": ["no/such"]}))
    assert refused["code"] == "INVALID_CHANNEL"
    assert client.session.agent is None


def test_new_events_wait_in_the_log(clock: Clock, core: Core) -> None:
    """
    Those of a client that catches up come behind what it has missed; ephemeral ones and replies come at once.
    """
    published(core, 1, 2)
    client = slow(core)
    ack = only(resume(client, 0, "topics/t"))
    assert ack["pos"] == 2
    published(core, 3)
    core.router.notified('{"channel":"topics/t","event":"system.info","data":"now"}')
    assert [message["data"] for message in client.peer.take()] == ["now"]
    client.peer.read(1)
    assert only(client.say(type="subscribe", channel="topics/u", id=1)[1:])["pos"] == 1
    live(core, clock, 30)
    assert [m["pos"] for m in client.peer.take() if m["type"] == "ping"] == [1]
    published(core, 4, channel="topics/u")
    client.peer.read()

    assert data(client.peer.take()) == [(2, "topics/t", 2), (3, "topics/t", 3), (4, "topics/u", 4)]
    assert client.session.behind is None
    assert not core.clients.behind


def test_resume_twice(core: Core) -> None:
    """
    What has been sent of the first one does not come again with the second.
    """
    published(core, 1, 2, 3)
    published(core, 4, 5, channel="topics/u")
    client = slow(core)
    resume(client, 0, "topics/t")
    client.peer.read(2)
    assert data(client.peer.take()) == [(1, "topics/t", 1), (2, "topics/t", 2)]
    resume(client, 0, "topics/u")
    client.peer.read()

    assert data(client.peer.take()) == [(3, "topics/t", 3), (4, "topics/u", 4), (5, "topics/u", 5)]


def test_channels_that_are_left_meanwhile(core: Core) -> None:
    """
    A client that unsubscribes while it catches up gets nothing more of that channel.
    """
    published(core, 1, 2)
    client = slow(core)
    resume(client, 0, "topics/t")
    client.peer.read(1)
    assert data(client.say(type="unsubscribe", channel="topics/t")) == [(1, "topics/t", 1)]
    client.peer.read()

    assert client.peer.take() == []


def test_log_is_truncated_under_a_client(clock: Clock) -> None:
    """
    It is told of the gap, and goes on behind it.
    """
    core = make_core(clock, keep=100.0)
    published(core, 1)
    clock.advance(60)
    published(core, 2)
    client = slow(core)
    resume(client, 0, "topics/t")
    clock.advance(50)
    finish(core.hub.sweep())
    client.peer.read()

    gap, event = (message for message in client.peer.take() if message.get("type") != "ping")
    assert gap == {"type": "gap", "reason": "expired", "first": 2, "epoch": "epoch", "pos": 2}
    assert data([event]) == [(2, "topics/t", 2)]


def test_page_is_truncated_under_a_client(clock: Clock) -> None:
    """
    The same for what has been read in the log already.
    """
    core = make_core(clock, keep=100.0)
    published(core, 1, 2)
    client = slow(core)
    resume(client, 0, "topics/t")
    client.peer.read(1)
    clock.advance(101)
    finish(core.hub.sweep())
    client.peer.take()
    client.peer.read()

    assert [message["type"] for message in client.peer.take()] == ["gap"]


def test_log_is_truncated_again_after_a_gap_was_told(clock: Clock) -> None:
    """
    What leaves the log after a client was told of a gap, and before it got it, is told as another gap.
    """
    core = make_core(clock, keep=100.0)
    published(core, 1)
    clock.advance(60)
    published(core, 2)
    client = slow(core)
    resume(client, 0, "topics/t")
    for seconds in (50, 60):
        clock.advance(seconds)
        finish(core.hub.sweep())
        client.peer.read(1)

    gaps = [message for message in client.peer.take() if message.get("type") == "gap"]
    assert [gap["first"] for gap in gaps] == [2, 3]


def test_many_old_events_leave_the_log_in_slices(clock: Clock) -> None:
    """
    The sweep stops between them, so that clients are served.
    """
    core = make_core(clock, keep=100.0)
    published(core, *range(600))
    clock.advance(101)

    assert finish(core.hub.sweep()) >= 2
    assert stats(core)["log"]["events"] == 0


def test_no_more_is_in_flight_than_may_be(clock: Clock) -> None:
    """
    The rest waits in the log until acks make room; nothing is given up.
    """
    core = make_core(clock, max_pending=4)
    client = joined(core, "topics/t", agent="ann", quiet=True)
    publisher = joined(core, quiet=True)
    for number in range(8):
        publisher.say(**TASK, data=number)
    told = client.peer.take()
    assert texts(told) == [("topics/t", number) for number in range(4)]
    client.say(type="ack", message_id=told[0]["id"])
    client.peer.read()
    assert texts(client.peer.take()) == [("topics/t", 4)]
    client.say(type="ack", pos=5)
    client.peer.read()

    assert texts(client.peer.take()) == [("topics/t", 5), ("topics/t", 6), ("topics/t", 7)]
    assert stats(core)["deliveries"]["acked"] == 5
    assert stats(core)["failedDeliveries"] == 0


def test_silent_client_is_not_kept_waiting(clock: Clock) -> None:
    """
    One that has had time to acknowledge something, and has not, gets everything; its oldest deliveries are given up.
    """
    core = make_core(clock, max_pending=2)
    client = joined(core, "topics/t", quiet=True)
    publisher = joined(core, quiet=True)
    publisher.say(**TASK, data=1)
    live(core, clock, 16)
    client.peer.take()
    for number in range(2, 6):
        publisher.say(**TASK, data=number)

    assert texts(client.peer.take()) == [("topics/t", number) for number in range(2, 6)]
    publisher.say(**TASK | {"channel": "topics/u"}, data=6)
    assert texts(resume(client, 0, "topics/u")) == [("topics/u", 6)]


def test_new_connection_takes_over_at_once(core: Core) -> None:
    """
    The other one may be dead without anybody knowing.  An ack on either settles both.
    """
    dead = joined(core, "topics/t", agent="ann", quiet=True)
    publisher = joined(core, quiet=True)
    publisher.say(**TASK, data=1)
    publisher.say(**TASK, data=2)
    client = joined(core, quiet=True)
    told = [message for message in client.auth("ann") if "data" in message]
    assert texts(told) == [("topics/t", 1), ("topics/t", 2)]
    assert stats(core)["log"]["takeovers"] == 1
    client.say(type="ack", message_id=told[0]["id"])
    assert len(dead.session.owed) == 1
    client.say(type="ack", pos=2)
    dead.leave()

    assert stats(core)["pendingDeliveries"] == 0
    assert stats(core)["deliveries"]["keptForAbsentAgents"] == 0


def test_ack_beyond_the_log(core: Core) -> None:
    """
    A position that the log does not have yet is of another epoch, and confirms nothing: not what was sent, and not what
    is still to come.
    """
    client = joined(core, "topics/t", agent="ann", quiet=True)
    joined(core, quiet=True).say(**TASK, data=1)
    client.say(type="ack", pos=2)
    assert len(client.session.owed) == 1
    client.say(type="ack", pos=1)
    assert not client.session.owed


def test_take_over_includes_what_the_other_has_not_been_sent(core: Core) -> None:
    """
    What the other connection owes and is still being sent is owed by the agent.
    """
    first = joined(core, "topics/t", agent="ann", quiet=True)
    joined(core, quiet=True).say(**TASK, data=1)
    first.leave()
    second = slow(core)
    second.auth("ann")
    third = joined(core, quiet=True)
    told = [message for message in third.auth("ann") if "data" in message]
    assert texts(told) == [("topics/t", 1)]
    third.say(type="ack", message_id=told[0]["id"])
    second.peer.read()

    assert texts(second.peer.take()) == []


def test_ack_of_what_another_connection_has_not_been_sent_yet(core: Core) -> None:
    """
    A connection that catches up gets new events later than the others.  It owes no ack for one that another connection
    of its agent has acknowledged meanwhile, and leaves it to nobody.
    """
    first = joined(core, "topics/t", agent="ann", quiet=True)
    joined(core, quiet=True).say(**TASK, data=1)
    first.leave()
    behind = slow(core)
    behind.auth("ann")
    quick = joined(core, "topics/t", agent="ann", quiet=True)
    quick.say(type="ack", pos=1)
    joined(core, quiet=True).say(**TASK, data=2)
    (told,) = (message for message in quick.peer.take() if "data" in message)
    quick.say(type="ack", message_id=told["id"])
    behind.peer.read()

    assert texts(behind.peer.take())[-1:] == [("topics/t", 2)]
    assert not behind.session.owed
    behind.leave()
    quick.leave()
    assert texts([one for one in joined(core, quiet=True).auth("ann") if "data" in one]) == []


def test_acks_of_what_is_still_to_come_have_a_limit(core: Core) -> None:
    """
    Beyond it, the connection that catches up owes acks for the oldest.
    """
    first = joined(core, "topics/t", agent="ann", quiet=True)
    joined(core, quiet=True).say(**TASK, data=0)
    first.leave()
    behind = slow(core)
    behind.auth("ann")
    quick = joined(core, "topics/t", agent="ann", quiet=True)
    quick.say(type="ack", pos=1)
    publisher = joined(core, quiet=True)
    for number in range(EARLY_ACKS_MOST + 2):
        publisher.say(**TASK, data=number)
    for message in [one for one in quick.peer.take() if "data" in one]:
        quick.say(type="ack", message_id=message["id"])
    behind.peer.read()

    assert [one.event.seq for one in behind.session.owed.values()] == [2, 3]
    assert stats(core)["limits"]["earlyAcks"] == 2


def test_heir_gets_what_a_connection_leaves(core: Core) -> None:
    """
    What it owed goes to the connection that the agent has, if that does not owe it too.
    """
    heir = joined(core, "topics/both", agent="ann", quiet=True)
    other = joined(core, "topics/t", "topics/both", agent="ann", quiet=True)
    publisher = joined(core, quiet=True)
    publisher.say(**TASK, data=1)
    publisher.say(**TASK | {"channel": "topics/both"}, data=2)
    heir.peer.take()
    other.leave()

    assert texts(heir.peer.take()) == [("topics/t", 1)]
    assert stats(core)["pendingDeliveries"] == 2
    heir.say(type="ack", pos=2)
    assert stats(core)["pendingDeliveries"] == 0


def test_heir_that_catches_up(core: Core) -> None:
    """
    What it is about to get anyway comes once.
    """
    joined(core, "topics/t", agent="ann", quiet=True).leave()
    joined(core, quiet=True).say(**TASK, data=1)
    gone = joined(core, quiet=True)
    assert texts(gone.auth("ann")) == [("topics/t", 1)]
    heir = slow(core)
    heir.auth("ann")
    gone.leave()
    heir.peer.read()

    assert texts(heir.peer.take()) == [("topics/t", 1)]


def test_observers_owe_nothing_for_what_they_resume(core: Core) -> None:
    """
    They are sent it once.
    """
    joined(core, quiet=True).say(**TASK, data=1)
    client = Client(core, Origin(observer=True))
    client.peer.take()

    assert texts(resume(client, 0, "topics/t")) == [("topics/t", 1)]
    assert stats(core)["pendingDeliveries"] == 0


def test_last_redelivery_goes_to_the_newest_connection_too(clock: Clock, core: Core) -> None:
    """
    An event that was sent only to a connection that is dead reaches the agent on another one, and is given up there if
    nobody acknowledges it.
    """
    dead = joined(core, "topics/t", agent="ann", quiet=True)
    newest = joined(core, agent="ann", quiet=True)
    newest.say(type="ack", message_id="msg_of_before")
    joined(core, quiet=True).say(type="publish", channel="topics/t", event="task.created")
    live(core, clock, 9)
    assert (len(dead.peer.take()), newest.peer.take()) == (2, [])
    live(core, clock, 1)
    (event,) = newest.peer.take()
    assert (event["channel"], len(dead.peer.take())) == ("topics/t", 1)
    live(core, clock, 5)
    # both have given it up, and that is one failure
    assert (stats(core)["pendingDeliveries"], stats(core)["failedDeliveries"]) == (0, 1)
    assert newest.peer.take() == dead.peer.take() == []


def test_ack_of_positions_that_came_out_of_order(core: Core) -> None:
    """
    An ack up to a position also settles older events that came after newer ones, because another connection left them.
    """
    first, second = joined(core, "topics/t", agent="ann", quiet=True), joined(core, "topics/u", agent="ann", quiet=True)
    publisher = joined(core, quiet=True)
    for channel in ("topics/t", "topics/u"):
        publisher.say(type="publish", channel=channel, event="task.created")
    first.leave()
    assert [event["pos"] for event in second.peer.take() if "pos" in event] == [2, 1]
    second.say(type="ack", pos=1)
    assert stats(core)["pendingDeliveries"] == 1
    second.say(type="ack", pos=2)
    assert stats(core)["pendingDeliveries"] == 0
    assert second.session.owes_in_order


def test_unknown_positions_are_no_acks(core: Core) -> None:
    """
    A client that owes nothing settles nothing.
    """
    client = joined(core, quiet=True)

    assert client.say(type="ack", pos=3) == []
    assert stats(core)["deliveries"]["acked"] == 0
    assert core.counts.received.ack == 1


def test_channels_that_a_client_has_left_take_no_memory(core: Core) -> None:
    """
    Regression: a client that never got to the end of the log, and resumed one channel after the other, collected them.
    """
    published(core, 1, 2, 3)
    client = slow(core)
    for number in range(50):
        resume(client, 0, f"topics/{number}")
        client.say(type="unsubscribe", channel=f"topics/{number}")
    resume(client, 0, "topics/t")

    behind = client.session.behind
    assert behind is not None
    assert behind.resumed == {"topics/t": 0}


def test_events_that_are_not_for_the_client_do_not_stop_the_others(core: Core) -> None:
    """
    An agent misses tracked events only; a replay that finds none in a page of the log lets others have their turn.
    """
    joined(core, "topics/t", agent="ann", quiet=True).leave()
    published(core, *range(300))
    client = Client(core)
    client.peer.replay = lambda frames: setattr(client.peer, "replaying", frames)  # type: ignore[method-assign]
    client.auth("ann")

    assert client.peer.replaying is not None
    assert list(client.peer.replaying) == [None, None]
    assert client.session.behind is None
