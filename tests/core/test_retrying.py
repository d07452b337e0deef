"""
What clients have not acknowledged in time is sent again, and given up in the end.
"""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.protocol.channels import GLOBAL
from dcm_ws.protocol.events import CATALOGUE, is_tracked
from tests.core.clients import TASK, joined, stats, texts
from tests.core.living import events, finish, live


def test_unacknowledged_event_comes_three_times(clock: Clock, core: Core) -> None:
    """
    A tracked event that nobody acknowledges comes again after 5 s and after 10 s, the same frame, and is given up.
    """
    client = joined(core)
    first = client.say(**TASK)
    heard = {}
    for second in range(1, 31):
        live(core, clock, 1)
        if again := [message for message in client.peer.take() if "event" in message]:
            heard[second] = again

    assert heard == {5: first, 10: first}
    assert stats(core)["deliveries"]["neverAcknowledged"] == 1
    assert stats(core)["deliveries"]["retried"] == 2
    assert stats(core)["pendingDeliveries"] == 0


def test_client_that_does_not_read_holds_up_no_other(clock: Clock, core: Core) -> None:
    """
    What a client has to read before it gets an event again does not keep other clients waiting for theirs.
    """
    slow, other = joined(core, "topics/a", quiet=True), joined(core, "topics/b", quiet=True)
    slow.peer.unsent = True
    for channel in ("topics/a", "topics/b"):
        other.say(**(TASK | {"channel": channel}))
    live(core, clock, 5)
    assert [message["channel"] for message in other.peer.take() if "event" in message] == ["topics/b"]
    assert [message["channel"] for message in slow.peer.take() if "event" in message] == ["topics/a"]


def test_acknowledged_event_comes_once(clock: Clock, core: Core) -> None:
    """
    After its ack an event does not come again.
    """
    client = joined(core)
    (event,) = client.say(**TASK)
    live(core, clock, 4)
    assert client.say(type="ack", message_id=event["id"]) == []
    live(core, clock, 20)

    assert events(client.peer.take()) == []
    assert stats(core)["pendingDeliveries"] == stats(core)["failedDeliveries"] == 0
    assert stats(core)["deliveries"]["acked"] == 1


@pytest.mark.parametrize("event", sorted(event for event in CATALOGUE if not is_tracked(event)))
def test_other_events_come_once(clock: Clock, core: Core, event: str) -> None:
    """
    What is not a task, a subtask or a message need not be acknowledged.
    """
    client = joined(core)
    client.say(type="publish", channel="topics/t", event=event)
    live(core, clock, 20)

    assert events(client.peer.take()) == []
    assert stats(core)["pendingDeliveries"] == 0


def test_both_frames_are_one_delivery(clock: Clock, core: Core) -> None:
    """
    Who is subscribed to the channel and to C{global} gets both frames again, in their order; one ack settles both.
    """
    client = joined(core, "topics/t")
    first = client.say(**TASK)
    assert stats(core)["pendingDeliveries"] == 1
    live(core, clock, 5)
    assert client.peer.take() == first
    client.say(type="ack", message_id=first[0]["id"])
    assert stats(core)["pendingDeliveries"] == 0
    live(core, clock, 20)

    assert events(client.peer.take()) == []


def test_ack_is_ones_own(clock: Clock, core: Core) -> None:
    """
    One subscriber's ack does not settle another's delivery.
    """
    ann, bob = joined(core), joined(core)
    (event,) = ann.say(**TASK)
    bob.peer.take()
    ann.say(type="ack", message_id=event["id"])
    live(core, clock, 5)

    assert events(ann.peer.take()) == []
    assert bob.peer.take() == [event]


def test_leaving_a_channel_does_not_settle_its_deliveries(clock: Clock, core: Core) -> None:
    """
    An event that was sent must be acknowledged, also after the channel was left.
    """
    client = joined(core)
    (event,) = client.say(**TASK)
    client.say(type="unsubscribe", channel="global")
    live(core, clock, 5)

    assert client.peer.take() == [event]


def test_ten_thousand_deliveries_may_be_pending(clock: Clock, core: Core) -> None:
    """
    Past 10,000 the rest waits in the log.  A client that has had time to acknowledge something and has not gets it all
    the same, and its oldest deliveries are given up.
    """
    client = joined(core)
    for number in range(10_003):
        core.router.publish(GLOBAL, "task.created", b"%d" % number)

    assert len(client.peer.take()) == stats(core)["pendingDeliveries"] == 10_000
    live(core, clock, 15)
    client.peer.take()
    client.peer.read()
    assert [message["data"] for message in client.peer.take()] == list(range(10_000, 10_003))
    assert stats(core)["deliveries"]["neverAcknowledged"] == 10_000
    for number in range(10_000):
        core.router.publish(GLOBAL, "task.created", b"%d" % number)

    assert len(client.peer.take()) == stats(core)["pendingDeliveries"] == 10_000
    assert stats(core)["limits"]["maxPending"] == 3


def test_client_that_has_to_read_is_sent_nothing_again(clock: Clock, core: Core) -> None:
    """
    What it has not acknowledged comes again when it has read what it was sent.
    """
    client = joined(core)
    core.router.publish(GLOBAL, "task.created", b"1")
    client.peer.take()
    client.peer.unsent = True
    clock.advance(5)
    assert finish(core.retrying.sweep()) == 1
    assert client.peer.take() == []
    client.peer.unsent = False
    clock.advance(5)
    finish(core.retrying.sweep())

    assert texts(client.peer.take()) == [("global", 1)]


def test_client_that_leaves_during_a_retry(clock: Clock, core: Core) -> None:
    """
    Clients may come, go and acknowledge between two steps of a retry; all others get their frames.
    """
    clients = [joined(core) for _ in range(4)]
    core.router.publish(GLOBAL, "task.created", b"1")
    for client in clients:
        client.peer.take()
    clock.advance(5)
    job = core.retrying.sweep()
    next(job)
    (served,) = [client for client in clients if client.peer.frames]
    served.leave()
    clients.remove(served)
    finish(job)
    assert [texts(client.peer.take()) for client in clients] == [[("global", 1)]] * 3
    clock.advance(5)
    finish(core.retrying.sweep())

    assert [texts(client.peer.take()) for client in clients] == [[("global", 1)]] * 3
    assert stats(core)["pendingDeliveries"] == 3
