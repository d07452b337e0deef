"""
Clients that refuse an event for now, to get it again later.
"""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.counts import Counts
from tests.core.clients import TASK, joined, stats
from tests.core.living import finish, live, make_queue
from tests.core.test_delivery import Reader, event, late
from tests.fakes import Client, make_core


def worker_with_task(core: Core, **task: object) -> tuple[Client, str]:
    """
    An agent that has been sent a task, and the id of that.
    """
    worker = joined(core, "topics/t", agent="ann", quiet=True)
    published = joined(core, quiet=True).say(**TASK, id=1, **task)
    worker.peer.take()
    return worker, published[-1]["message_id"]


def ids(client: Client) -> list[str]:
    return [message["id"] for message in client.peer.take() if "event" in message]


@pytest.mark.parametrize(("delay", "quiet"), [(2_000, 1), (60_000, 59), (3_600_000, 3_599)])
def test_refused_event_comes_again_after_the_delay(clock: Clock, core: Core, delay: int, quiet: int) -> None:
    """
    Not before, and not after the time for an ack.
    """
    worker, event_id = worker_with_task(core)
    clock.advance(0.5)
    assert worker.say(type="nack", message_id=event_id, delay_ms=delay) == []
    clock.advance(quiet)
    finish(core.retrying.sweep())
    assert ids(worker) == []
    clock.advance(1)
    finish(core.retrying.sweep())

    assert ids(worker) == [event_id]
    assert (stats(core)["deliveries"]["nacked"], stats(core)["deliveries"]["retried"]) == (1, 1)
    worker.say(type="ack", message_id=event_id)
    clock.advance(60)
    finish(core.retrying.sweep())
    assert (ids(worker), core.deliveries.pending, core.deliveries.held) == ([], 0, 0)


def test_refused_event_is_sent_as_often_as_any_other(clock: Clock, core: Core) -> None:
    """
    Three sends in all: after the third a nack gives the event up at once, whatever its delay.
    """
    worker, event_id = worker_with_task(core)
    for _ in range(2):
        worker.say(type="nack", message_id=event_id)
        live(core, clock, 1)
        assert ids(worker) == [event_id]
    worker.say(type="nack", message_id=event_id, delay_ms=3_600_000)
    live(core, clock, 1)

    assert (ids(worker), core.deliveries.pending, stats(core)["failedDeliveries"]) == ([], 0, 1)


def test_event_is_refused_once_for_each_send(clock: Clock, core: Core) -> None:
    """
    A client cannot put an event off again and again, and cannot refuse what it does not owe.
    """
    worker, event_id = worker_with_task(core)
    worker.say(type="nack", message_id=event_id, delay_ms=3_000)
    for name in (event_id, "msg_unknown", ""):
        assert worker.say(type="nack", message_id=name, delay_ms=3_600_000, id=1) == []
    live(core, clock, 3)

    assert ids(worker) == [event_id]
    assert (core.counts.received.nack, core.counts.deliveries.nacked) == (3, 1)


def test_refused_event_may_be_acknowledged_before_it_comes_again(clock: Clock, core: Core) -> None:
    """
    The ack settles it, and releases its memory at once.
    """
    worker, event_id = worker_with_task(core)
    worker.say(type="nack", message_id=event_id, delay_ms=3_600_000)
    worker.say(type="ack", message_id=event_id)

    assert (core.deliveries.pending, core.deliveries.held) == (0, 0)
    live(core, clock, 10)
    assert ids(worker) == []


def test_refused_event_is_owed_by_the_agent(clock: Clock, core: Core) -> None:
    """
    If its connection ends, the agent gets it when it returns, whatever the delay.
    """
    worker, event_id = worker_with_task(core)
    worker.say(type="nack", message_id=event_id, delay_ms=3_600_000)
    worker.leave()
    again = Client(core)

    # on its channel and on global, to which it is subscribed anew
    events = [message for message in again.auth("ann") if "event" in message and "pos" in message]
    assert [(one["id"], one["channel"]) for one in events] == [(event_id, "topics/t"), (event_id, "global")]


def test_nack_on_another_connection_of_the_agent(clock: Clock, core: Core) -> None:
    """
    The connection that owes an ack for the event gets it again.
    """
    worker, event_id = worker_with_task(core)
    other = joined(core, quiet=True)
    other.session.peer.replay = lambda frames: None  # type: ignore[method-assign]  # it reads nothing
    other.auth("ann")
    other.say(type="nack", message_id=event_id)
    live(core, clock, 1)

    assert ids(worker) == [event_id]


def test_nack_of_an_anonymous_client(clock: Clock, client: Client) -> None:
    """
    In development it is sent the event again as any other client is.
    """
    first = client.say(**TASK)
    client.say(type="nack", message_id=first[0]["id"])
    live(client.core, clock, 1)

    assert client.peer.take() == first


def test_nacks_are_charged(clock: Clock) -> None:
    """
    A nack costs what any message costs, also if the event is owed; an ack of an owed event is free.
    """
    core = make_core(clock, rate_limit=1.0, rate_burst=3.0)
    worker, event_id = worker_with_task(core)
    # two messages were needed to get there, and one is left
    clock.advance(0.1)
    answers = [answer for n in range(4) for answer in worker.say(type="nack", message_id=event_id, id=n)]

    assert [answer["code"] for answer in answers] == ["RATE_LIMITED"] * len(answers)
    assert len(answers) >= 3


def test_agent_that_refuses_acknowledges(clock: Clock, core: Core) -> None:
    """
    A client that refuses its first event is one that would have acknowledged it.
    """
    worker, event_id = worker_with_task(core)
    worker.say(type="nack", message_id="msg_unknown")
    assert not worker.session.durable
    worker.say(type="nack", message_id=event_id)

    assert worker.session.durable
    worker.leave()
    assert core.memory.is_durable("ann")


def test_one_of_many_refuses(clock: Clock, counts: Counts) -> None:
    """
    The others are not affected, and each time that it was refused the event counts as held once more.
    """
    queue = make_queue(clock, counts)
    ann, bob = Reader(), Reader()
    queue.sent(event(1), {ann, bob})
    queue.sent(event(2), {ann})
    assert queue.nack(ann, "msg_1", 30)
    assert (queue.pending, queue.held, list(ann.owed)) == (3, 21, ["msg_1", "msg_2"])
    clock.advance(5)
    assert [(client, frames) for client, frames in late(queue)] == [(bob, (b"frame 1",)), (ann, (b"frame 2",))]
    queue.ack(bob, "msg_1")
    queue.ack(ann, "msg_2")
    clock.advance(26)
    assert list(late(queue)) == [(ann, (b"frame 1",))]
    queue.ack(ann, "msg_1")

    assert (queue.pending, queue.held) == (0, 0)


def test_refused_events_count_as_held(clock: Clock, counts: Counts) -> None:
    """
    They are what a client loses if too much is held.
    """
    queue = make_queue(clock, counts, max_bytes=20)
    ann = Reader()
    queue.sent(event(1), {ann})
    queue.nack(ann, "msg_1", 30)
    queue.sent(event(2), {ann})
    queue.sent(event(3), {ann})

    assert "msg_1" not in ann.owed
    assert queue.held <= 20


def test_refusing_while_late_deliveries_are_sent(clock: Clock, counts: Counts) -> None:
    """
    A client that refuses the event between two steps of a retry gets it again in its own time.
    """
    queue = make_queue(clock, counts)
    readers = [Reader() for _ in range(4)]
    queue.sent(event(1), set(readers))
    clock.advance(5)
    steps = late(queue)
    next(steps)
    next(steps)
    for reader in readers:
        assert queue.nack(reader, "msg_1", 1)

    assert list(steps) == []
    clock.advance(1.25)
    assert {client for client, _ in late(queue)} == set(readers)
    for reader in readers:
        queue.ack(reader, "msg_1")
    assert (queue.pending, queue.held) == (0, 0)
