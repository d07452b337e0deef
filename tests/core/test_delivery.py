from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock

from dcm_ws.core import delivery
from dcm_ws.core.counts import Counts
from dcm_ws.core.delivery import CROWDED, DeliveryQueue
from dcm_ws.core.tracked import Delivery, Recipient, Tracked
from tests.core.living import make_queue


class Reader:
    """
    A client, as far as deliveries go.
    """

    def __init__(self) -> None:
        self.owed: dict[str, Delivery] = {}
        self.durable = False
        self.is_silent = True
        self.owes_in_order = True
        self.number = 0
        self.heard_at = 0.0
        self.name = f"client-{id(self)}"
        self.has_unsent = False


def event(number: int) -> Tracked:
    return Tracked(number, f"msg_{number}", (b"frame %d" % number,))


def late(queue: DeliveryQueue) -> Iterator[tuple[Recipient, tuple[bytes, ...]]]:
    """
    The clients and the frames of what is due.
    """
    return ((one.client, one.frames) for one in queue.late() if one is not None)


@pytest.fixture(autouse=True)
def only_frames_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Limits in these tests are small, and in frames.
    """
    monkeypatch.setattr(delivery, "PAIR_BYTES", 0)


@pytest.fixture
def queue(clock: Clock, counts: Counts) -> DeliveryQueue:
    return make_queue(clock, counts)


def test_frame_goes_out_three_times(clock: Clock, queue: DeliveryQueue, counts: Counts) -> None:
    """
    A frame nobody acknowledges is resent twice, 5 s apart, and then given up.
    """
    ann = Reader()
    queue.sent(event(1), {ann})
    heard = []
    for _ in range(20):
        clock.advance(1)
        heard += [(clock.seconds() - 1000, client, frames) for client, frames in late(queue)]

    assert heard == [(5, ann, (b"frame 1",)), (10, ann, (b"frame 1",)), (15, ann, ())]
    assert (queue.pending, counts.deliveries.retried, counts.deliveries.acked) == (0, 2, 0)
    assert ann.owed == {}


def test_acknowledged_frame_stays_out(clock: Clock, queue: DeliveryQueue, counts: Counts) -> None:
    """
    After its ack an event is not sent again; the ack counts once.
    """
    ann = Reader()
    queue.sent(event(1), {ann})

    assert queue.ack(ann, "msg_1")
    assert not queue.ack(ann, "msg_1")
    clock.advance(60)
    assert list(late(queue)) == []
    assert (queue.pending, counts.deliveries.acked, counts.deliveries.never_acknowledged) == (0, 1, 0)


def test_ack_of_the_second_send_counts(clock: Clock, queue: DeliveryQueue) -> None:
    """
    Which send an ack answers makes no difference.
    """
    ann = Reader()
    queue.sent(event(1), {ann})
    clock.advance(5)
    assert len(list(late(queue))) == 1

    assert queue.ack(ann, "msg_1")
    clock.advance(60)
    assert list(late(queue)) == []


@pytest.mark.parametrize("event_id", ["msg_2", "", "msg_1 "])
def test_unknown_acks_change_nothing(queue: DeliveryQueue, event_id: str) -> None:
    """
    An ack of what is not owed settles nothing.
    """
    ann = Reader()
    queue.sent(event(1), {ann})

    assert not queue.ack(ann, event_id)
    assert queue.pending == 1


def test_client_that_has_not_read_what_it_was_sent_gets_nothing_again(
    clock: Clock, queue: DeliveryQueue, counts: Counts
) -> None:
    """
    It cannot have acknowledged what waits for it: nothing is added, counted or given up until it reads.
    """
    ann, bob = Reader(), Reader()
    queue.sent(event(1), {ann, bob})
    ann.has_unsent = True
    for sends in (2, 3, 3):
        clock.advance(5)
        gets: tuple[bytes, ...] = () if counts.deliveries.retried == 2 else (b"frame 1",)
        assert [one for one in late(queue) if one[0] is not ann] == [(bob, gets)]
        assert ann.owed["msg_1"].sends == 1
        assert counts.deliveries.retried == min(sends - 1, 2)
    ann.has_unsent = False
    for frames in ((b"frame 1",), (b"frame 1",)):
        clock.advance(5)
        assert list(late(queue)) == [(ann, frames)]
    ann.has_unsent = True
    clock.advance(5)
    assert list(late(queue)) == []
    ann.has_unsent = False
    clock.advance(5)
    assert list(late(queue)) == [(ann, ())]
    assert (ann.owed, queue.pending, queue.held) == ({}, 0, 0)


def test_each_client_owes_its_own_ack(clock: Clock, queue: DeliveryQueue) -> None:
    """
    One client's ack is not another's.
    """
    ann, bob = Reader(), Reader()
    queue.sent(event(1), {ann, bob})
    assert queue.pending == 2
    queue.ack(ann, "msg_1")
    clock.advance(5)

    assert list(late(queue)) == [(bob, (b"frame 1",))]
    assert queue.pending == 1


def test_nothing_is_late_before_its_time(clock: Clock, queue: DeliveryQueue) -> None:
    """
    Each delivery has 5 s of its own.
    """
    ann = Reader()
    queue.sent(event(1), {ann})
    clock.advance(3)
    queue.sent(event(2), {ann})
    clock.advance(1.9)
    assert list(late(queue)) == []
    clock.advance(0.1)
    assert [frames for _, frames in late(queue)] == [(b"frame 1",)]
    clock.advance(3)

    assert [frames for _, frames in late(queue)] == [(b"frame 2",)]


def test_oldest_is_given_up_past_the_limit(clock: Clock, counts: Counts) -> None:
    """
    A client that acknowledges nothing loses its oldest delivery, not its newest, and nobody else's.
    """
    queue = make_queue(clock, counts, max_pending=3)
    ann, bob = Reader(), Reader()
    for number in range(1, 6):
        queue.sent(event(number), {ann})
    queue.sent(event(6), {ann, bob})

    assert list(ann.owed) == ["msg_4", "msg_5", "msg_6"]
    assert list(bob.owed) == ["msg_6"]
    assert (queue.pending, counts.deliveries.never_acknowledged, counts.limits.max_pending.value) == (4, 3, 3)


def test_resending_does_not_make_a_delivery_younger(clock: Clock) -> None:
    """
    The oldest delivery is the one that was published first, however often it was sent.
    """
    queue = make_queue(clock, max_pending=2)
    ann = Reader()
    queue.sent(event(1), {ann})
    clock.advance(4)
    queue.sent(event(2), {ann})
    clock.advance(1)
    list(late(queue))
    queue.sent(event(3), {ann})

    assert list(ann.owed) == ["msg_2", "msg_3"]


def test_released_client_is_sent_nothing_more(clock: Clock, queue: DeliveryQueue) -> None:
    """
    Releasing a client returns what it still owed, the oldest first; other clients still receive theirs.
    """
    ann, bob = Reader(), Reader()
    queue.sent(event(1), {ann, bob})
    queue.sent(event(2), {ann})

    assert queue.release(ann) == [event(1)._replace(sends=1), event(2)._replace(sends=1)]
    assert queue.release(ann) == []
    assert queue.pending == 1
    clock.advance(5)
    assert list(late(queue)) == [(bob, (b"frame 1",))]


@pytest.mark.parametrize("leave", [False, True])
def test_acks_between_two_steps_of_a_retry(clock: Clock, queue: DeliveryQueue, leave: bool) -> None:
    """
    A client that acknowledges or leaves while a retry is under way does not spoil the others'.
    """
    readers = {Reader() for _ in range(3)}
    queue.sent(event(1), set(readers))
    clock.advance(5)
    steps = late(queue)
    first, _ = next(steps)
    if leave:
        assert queue.release(first) == [event(1)._replace(sends=2)]
    else:
        assert queue.ack(first, "msg_1")
    others = readers - {first}

    assert dict(steps) == dict.fromkeys(others, (b"frame 1",))
    clock.advance(5)
    assert dict(late(queue)) == dict.fromkeys(others, (b"frame 1",))
    assert queue.pending == 2
    last = others.pop()
    assert queue.ack(last, "msg_1")
    clock.advance(5)
    assert dict(late(queue)) == dict.fromkeys(others, ())
    assert queue.pending == 0
    assert all(reader.owed == {} for reader in readers)


@pytest.mark.parametrize("leave", [False, True])
def test_acks_before_their_step_of_a_retry(clock: Clock, queue: DeliveryQueue, leave: bool) -> None:
    """
    A client that acknowledges or leaves just before its turn in a retry is not sent the frame again.
    """
    readers = {Reader() for _ in range(3)}
    queue.sent(event(1), set(readers))
    clock.advance(5)
    steps = late(queue)
    first, _ = next(steps)
    for other in readers - {first}:
        assert queue.release(other) if leave else queue.ack(other, "msg_1")

    assert list(steps) == []
    assert queue.pending == 1
    assert list(first.owed) == ["msg_1"]


def test_acks_between_two_steps_of_giving_up(clock: Clock, queue: DeliveryQueue, counts: Counts) -> None:
    """
    An ack that comes while others' deliveries are given up still counts.
    """
    readers = {Reader() for _ in range(3)}
    queue.sent(event(1), set(readers))
    for _ in range(2):
        clock.advance(5)
        assert len(list(late(queue))) == 3
    clock.advance(5)
    steps = late(queue)
    first, frames = next(steps)
    for other in readers - {first}:
        assert queue.ack(other, "msg_1")

    assert frames == ()
    assert list(steps) == []
    assert (queue.pending, counts.deliveries.acked) == (0, 2)


def test_events_sent_during_a_retry_wait_their_turn(clock: Clock, queue: DeliveryQueue) -> None:
    """
    What is published while a retry is under way is not late yet.
    """
    ann = Reader()
    queue.sent(event(1), {ann})
    clock.advance(5)
    steps = late(queue)
    next(steps)
    queue.sent(event(2), {ann})

    assert list(steps) == []
    clock.advance(5)
    assert [frames for _, frames in late(queue)] == [(b"frame 1",), (b"frame 2",)]


def test_frames_are_let_go_with_their_last_ack(clock: Clock, queue: DeliveryQueue) -> None:
    """
    The memory of an event's frames is free when all who got it have it, not only when it would have been late.
    """
    ann, bob = Reader(), Reader()
    queue.sent(event(1), {ann, bob})
    delivery = ann.owed["msg_1"]
    queue.ack(ann, "msg_1")
    assert delivery.event == event(1)
    queue.release(bob)

    assert delivery.event.frames == ()


def test_audience_is_copied(queue: DeliveryQueue) -> None:
    """
    Who subscribes or leaves after an event does not change who got it.
    """
    ann, bob = Reader(), Reader()
    audience = {ann}
    queue.sent(event(1), audience)
    audience.add(bob)
    audience.discard(ann)

    assert queue.pending == 1
    assert list(ann.owed) == ["msg_1"]
    assert bob.owed == {}


# memory


def big(number: int) -> Tracked:
    return Tracked(number, f"msg_{number}", (b"x" * 6, b"y" * 4))


def test_bytes_are_held_while_somebody_owes_an_ack(clock: Clock, counts: Counts) -> None:
    """
    An event's frames are held once for all who got it, until the last of them has it.
    """
    queue = make_queue(clock, counts)
    ann, bob = Reader(), Reader()
    queue.sent(big(1), {ann, bob})
    queue.sent(big(2), {ann})
    assert queue.held == 20
    clock.advance(5)
    list(late(queue))
    assert queue.held == 20
    queue.ack(ann, "msg_1")
    assert queue.held == 20
    queue.ack(bob, "msg_1")
    assert queue.held == 10
    for _ in range(2):
        clock.advance(5)
        list(late(queue))

    assert (queue.held, queue.pending) == (0, 0)


def test_too_many_bytes_crowd_out_what_is_due_first(clock: Clock, counts: Counts) -> None:
    """
    Past the limit of memory the deliveries that would be late first are given up, for all who owe them.
    """
    queue = make_queue(clock, counts, max_bytes=25)
    ann, bob = Reader(), Reader()
    queue.sent(big(1), {ann, bob})
    queue.sent(big(2), {ann})
    assert counts.limits.max_pending_bytes.value == 0
    queue.sent(big(3), {bob})

    assert (list(ann.owed), list(bob.owed)) == (["msg_2"], ["msg_3"])
    assert (queue.held, queue.pending, counts.deliveries.never_acknowledged, counts.limits.max_pending_bytes.value) == (
        20,
        2,
        2,
        2,
    )


def test_event_that_is_too_big_by_itself_is_sent_once(clock: Clock, counts: Counts) -> None:
    """
    What does not fit at all is not tracked.
    """
    queue = make_queue(clock, counts, max_bytes=5)
    ann = Reader()
    queue.sent(big(1), {ann})

    assert (queue.held, queue.pending, counts.deliveries.never_acknowledged) == (0, 0, 1)
    assert ann.owed == {}


def test_crowding_out_during_a_retry(clock: Clock, counts: Counts) -> None:
    """
    Whoever is crowded out between two steps of a retry, the others' deliveries come to their end.
    """
    queue = make_queue(clock, counts, max_bytes=25)
    ann, bob = Reader(), Reader()
    queue.sent(big(1), {ann, bob})
    clock.advance(5)
    steps = late(queue)
    next(steps)
    queue.sent(big(2), {ann})
    assert (
        counts.limits.max_pending_bytes.value == 0
    )  # the first one's bytes count once, though it is in two places now
    queue.sent(big(3), {ann})
    assert counts.limits.max_pending_bytes.value == 1
    list(steps)
    for _ in range(3):
        clock.advance(5)
        list(late(queue))

    assert ann.owed == bob.owed == {}
    assert (queue.held, queue.pending, counts.deliveries.never_acknowledged, counts.limits.max_pending_bytes.value) == (
        0,
        0,
        1,
        1,
    )


def test_retry_makes_no_room_for_bytes_that_are_held(clock: Clock, counts: Counts) -> None:
    """
    A retry of an event that several clients owe an ack for crowds out nobody: its bytes are counted already.
    """
    queue = make_queue(clock, counts, max_bytes=20)
    ann, bob, cid = Reader(), Reader(), Reader()
    queue.sent(big(1), {ann, bob})
    clock.advance(1)
    queue.sent(big(2), {cid})
    clock.advance(4)
    assert len(list(late(queue))) == 2

    assert (list(ann.owed), list(bob.owed), list(cid.owed)) == (["msg_1"], ["msg_1"], ["msg_2"])
    assert (queue.held, queue.pending, counts.limits.max_pending_bytes.value) == (20, 3, 0)


@pytest.mark.parametrize(("most", "crowded_out"), [(21, 0), (20, 0), (19, 1)])
def test_bytes_held_may_reach_the_limit(clock: Clock, most: int, crowded_out: int, counts: Counts) -> None:
    """
    Exactly as many bytes as the limit are held; with one more the delivery that is due first is given up.
    """
    queue = make_queue(clock, counts, max_bytes=most)
    ann = Reader()
    queue.sent(big(1), {ann})
    queue.sent(big(2), {ann})

    assert counts.limits.max_pending_bytes.value == crowded_out
    assert queue.held == 20 - 10 * crowded_out
    assert "msg_2" in ann.owed


def test_acknowledged_deliveries_leave_no_memory(clock: Clock, queue: DeliveryQueue) -> None:
    """
    What was acknowledged is released at once, and not when it would have been due; what was not is still due, in order.
    """
    ann, bob = Reader(), Reader()
    slow = [1, 8_000, 16_000]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(20_000):
            queue.sent(event(number), {ann, bob})
            queue.ack(ann, f"msg_{number}")
            if number not in slow:
                queue.ack(bob, f"msg_{number}")
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 400_000
    assert (queue.pending, queue.held) == (3, sum(event(number).size for number in slow))
    clock.advance(5)
    assert [frames for _, frames in late(queue)] == [event(number).frames for number in slow]


def test_acks_while_late_deliveries_are_sent(clock: Clock, queue: DeliveryQueue) -> None:
    """
    Acks between two steps of a pass over what is late neither lose nor repeat anything.
    """
    ann = Reader()
    for number in range(5000):
        queue.sent(event(number), {ann})
    clock.advance(5)
    passed = []
    for _, frames in late(queue):
        passed.append(frames)
        if len(passed) == 10:
            for number in range(10, 4990):
                queue.ack(ann, f"msg_{number}")
    assert passed == [event(number).frames for number in (*range(10), *range(4990, 5000))]
    assert queue.pending == 20


def test_who_holds_most_loses_first(clock: Clock, counts: Counts) -> None:
    """
    A client that owes very much does not have others' deliveries given up.
    """
    queue = make_queue(clock, counts, max_bytes=60)
    ann, mallory = Reader(), Reader()
    queue.sent(Tracked(1, "msg_1", (b"x" * 10,)), {ann})
    for number in range(2, 9):
        queue.sent(Tracked(number, f"msg_{number}", (b"x" * 10,)), {mallory})

    assert list(ann.owed) == ["msg_1"]
    assert (list(mallory.owed)[-1], counts.limits.max_pending_bytes.value) == ("msg_8", 2)


def durable() -> Reader:
    reader = Reader()
    reader.durable, reader.is_silent = True, False
    return reader


def test_sends_before_count(clock: Clock, queue: DeliveryQueue) -> None:
    """
    What was sent to the agent before, on another connection, is sent so many times less; at least once.
    """
    ann, bob = Reader(), Reader()
    queue.sent(event(1)._replace(sends=2, earlier=4), {ann})
    queue.sent(event(2)._replace(sends=7), {bob})
    clock.advance(5)

    assert [(one.client, one.frames, one.deliveries) for one in queue.late() if one] == [(ann, (), 7), (bob, (), 8)]


def test_who_holds_most_gets_no_more(clock: Clock, counts: Counts) -> None:
    """
    A client that acknowledges loses nothing when all clients hold too much: it has to get no more for now.
    """
    queue = make_queue(clock, counts, max_bytes=640)
    ann, mallory = durable(), durable()
    queue.sent(Tracked(1, "msg_1", (b"x" * 10,)), {ann})
    for number in range(2, 66):
        queue.sent(Tracked(number, f"msg_{number}", (b"x" * 10,)), {mallory})

    assert (len(ann.owed), len(mallory.owed), queue.full) == (1, 64, {mallory: CROWDED})
    assert (counts.limits.max_pending_bytes.take_losers(), counts.limits.max_pending_bytes.value) == (
        {mallory.name: 1},
        1,
    )


def test_who_holds_most_is_looked_for_again_when_there_is_much_more(clock: Clock, counts: Counts) -> None:
    """
    To look for it costs as much as there is in flight; so it is not done for each event, until there was room again.
    """
    queue = make_queue(clock, counts, max_bytes=640)
    ann = durable()
    for number in range(66):
        queue.sent(Tracked(number, f"msg_{number}", (b"x" * 10,)), {ann})
    assert counts.limits.max_pending_bytes.value == 1
    queue.sent(Tracked(66, "msg_66", (b"x" * 10,)), {ann})
    assert counts.limits.max_pending_bytes.value == 2
    queue.ack_all(ann, 10)
    for number in range(70, 80):
        queue.sent(Tracked(number, f"msg_{number}", (b"x" * 10,)), {ann})
    assert counts.limits.max_pending_bytes.value == 3


def test_many_small_events_of_many_clients_count(clock: Clock, counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Regression: only the frames counted, which all clients share, and not what is kept for each client.
    """
    monkeypatch.undo()
    queue = make_queue(clock, counts, max_bytes=100_000)
    crowd = {durable() for _ in range(100)}
    victim = durable()
    queue.sent(event(0), {victim})
    number = 0
    while not queue.full:
        number += 1
        queue.sent(event(number), crowd)
    assert queue.full == dict.fromkeys(crowd, CROWDED)
    assert queue.held < 1000 < 100_000 < queue.used < 107_000
    # the one that never acknowledges loses what is too much, and the others nothing
    silent = Reader()
    for number in range(2000, 4000):
        queue.sent(event(number), {silent})
    assert len(silent.owed) < 2000
    assert all(len(client.owed) == len(next(iter(crowd)).owed) for client in crowd)
    assert len(victim.owed) == 1


def test_no_more_is_lost_than_is_too_much(clock: Clock, counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A client that never acknowledges loses its oldest small events, until about a 64th of the limit is free.
    """
    monkeypatch.undo()
    queue, silent = make_queue(clock, counts, max_bytes=10_000), Reader()
    used = []
    for number in range(500):
        queue.sent(event(number), {silent})
        used.append(queue.used)
    # each takes more than 64 bytes, so it is full by then
    full = used[200:]
    assert min(full) > 9_700
    assert max(full) <= 10_000
    assert list(silent.owed)[-1] == "msg_499"


def test_memory_of_a_delivery_of_a_client(clock: Clock, counts: Counts) -> None:
    """
    It is what the limit counts.
    """
    queue = make_queue(clock, counts, max_bytes=1 << 30)
    crowd = {Reader() for _ in range(100)}
    tracemalloc.start()
    try:
        for number in range(1000):
            queue.sent(event(number), crowd)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 32 < size / queue.pending < 80
