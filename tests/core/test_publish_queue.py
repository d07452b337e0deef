"""
Publishes that wait for the log.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dcm_ws.core.entries import Draft, Published
from dcm_ws.core.publish_queue import PATIENCE, PublishQueue
from dcm_ws.protocol.channels import parse_channel

CHANNEL = parse_channel("topics/a")


class Waiters:
    """
    A queue, and what was put into it.

    @ivar time: monotonic seconds.
    @ivar refused: the publishers of what there was no room for.
    @ivar queued: the sizes of what waits, by id.
    """

    def __init__(self, *, max_events: int = 10, max_bytes: int = 1000) -> None:
        self.time = 0.0
        self.refused: list[str] = []
        self.queue = PublishQueue(lambda: self.time, self.refused.append, max_events=max_events, max_bytes=max_bytes)
        self.published: dict[str, Published] = {}
        self.queued: dict[str, int] = {}

    def put(self, publisher: str, name: str, size: int = 1) -> bool:
        """
        C{publisher} publishes an event with an id of its own.
        """
        draft = Draft(name, CHANNEL, "task.created", b"1" * size, 1, b"", CHANNEL.name, "task", True, True, publisher)
        published = self.published[name] = Published(name)
        if not self.queue.put(draft, published):
            return False
        published.waiting = True
        self.queued[name] = max(size, 90)
        return True

    def put_all(self, publisher: str, *names: str) -> bool:
        """
        C{publisher} publishes events together.
        """
        publishes = []
        for name in names:
            draft = Draft(name, CHANNEL, "task.created", b"1", 1, b"", CHANNEL.name, "task", True, True, publisher)
            self.published[name] = Published(name)
            publishes.append((draft, self.published[name]))
        if not self.queue.put_all(publishes):
            return False
        for name in names:
            self.published[name].waiting = True
            self.queued[name] = 100
        return True

    def take(self, most: int = 100, most_bytes: int = 1_000_000) -> list[str]:
        """
        The ids of the next batch.
        """
        names = [waiting.draft.id for waiting in self.queue.take(most, most_bytes)]
        for name in names:
            self.queued.pop(name)
        return names

    def expire(self) -> list[str]:
        """
        The ids of what is over, which is answered.
        """
        over = [waiting.published for waiting in self.queue.expire()]
        for published in over:
            published.answer(None)
            self.queued.pop(published.id, None)
        return [published.id for published in over]


def test_batch_takes_from_all_publishers_in_turn() -> None:
    """
    Who publishes much does not delay the others; what each publishes stays in order.
    """
    waiters = Waiters()
    for name in ("a1", "a2", "a3", "b1", "c1", "c2"):
        assert waiters.put(name[0], name)
    assert waiters.take(most=4) == ["a1", "b1", "c1", "a2"]
    assert waiters.take() == ["c2", "a3"]
    assert waiters.take() == []
    assert len(waiters.queue) == waiters.queue.weight == 0


def test_batch_is_limited_in_bytes() -> None:
    """
    A batch has no more bytes than it may have, but always one event.
    """
    waiters = Waiters()
    for name, size in (("a1", 300), ("a2", 200), ("a3", 101)):
        assert waiters.put("a", name, size)
    assert waiters.take(most_bytes=100) == ["a1"]
    assert waiters.take(most_bytes=300) == ["a2"]
    assert waiters.take(most_bytes=300) == ["a3"]


def test_no_room_for_the_one_that_has_most() -> None:
    """
    Beyond the limit, the publisher that has most is refused, and the others are not.
    """
    waiters = Waiters(max_events=4, max_bytes=400)
    for name in ("a1", "a2", "a3", "b1"):
        assert waiters.put(name[0], name)
    assert not waiters.put("a", "a4")
    assert waiters.refused == ["a"]
    assert waiters.put("b", "b2")
    assert waiters.refused == ["a", "a"]
    assert waiters.expire() == ["a3"]
    assert waiters.take() == ["a1", "b1", "a2", "b2"]


def test_room_in_bytes() -> None:
    """
    The limit holds for bytes as well: one large event makes room for itself where others have more.
    """
    waiters = Waiters(max_events=10, max_bytes=1000)
    assert waiters.put("a", "a1", 500)
    assert waiters.put("a", "a2", 450)
    assert waiters.put("b", "b1", 300)
    assert waiters.queue.weight == 800
    assert waiters.expire() == ["a2"]
    assert not waiters.put("c", "c1", 1001)
    assert waiters.refused == ["a", "c"]


def test_nobody_waits_longer_than_a_second() -> None:
    """
    What waits in the queue for too long is not logged any more; what was taken is answered, too, since nobody knows
    what becomes of it.
    """
    waiters = Waiters()
    assert waiters.queue.next_deadline() is None
    waiters.put("a", "a1")
    waiters.time = 0.4
    waiters.put("a", "a2")
    waiters.put("b", "b1")
    assert waiters.queue.next_deadline() == PATIENCE
    assert waiters.take(most=1) == ["a1"]
    waiters.time = PATIENCE
    assert waiters.expire() == ["a1"]
    assert waiters.queue.next_deadline() == 0.4 + PATIENCE
    waiters.published["b1"].answer(7)
    waiters.time = 0.4 + PATIENCE
    assert waiters.expire() == ["a2"]
    assert waiters.queue.next_deadline() is None
    # the one that was answered has been taken by somebody, so it is still counted here
    assert waiters.take() == ["b1"]


def test_answers_before_the_deadline() -> None:
    """
    What was answered in time is not answered again.
    """
    waiters = Waiters()
    for name in ("a1", "a2"):
        waiters.put("a", name)
    assert waiters.take() == ["a1", "a2"]
    waiters.published["a1"].answer(1)
    assert waiters.queue.next_deadline() == PATIENCE
    waiters.time = 2.0
    assert waiters.expire() == ["a2"]


def test_who_made_room_is_answered_soon() -> None:
    """
    The deadline is now if somebody has had to make room.
    """
    waiters = Waiters(max_events=2, max_bytes=200)
    for name in ("a1", "a2", "b1"):
        assert waiters.put(name[0], name)
    assert waiters.queue.next_deadline() == waiters.time
    waiters.published["a2"].answer(None)
    assert waiters.expire() == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 300), st.booleans()), max_size=60))
def test_room_and_shares(course: list[tuple[str, int, bool]]) -> None:
    """
    Whatever is published: there is never more than the limit, who has less than a third of it is never refused, and
    what each publisher gets through comes in its order.
    """
    waiters = Waiters(max_events=10, max_bytes=900)
    taken: list[str] = []
    for number, (publisher, size, takes) in enumerate(course):
        waiters.expire()
        mine = sum(size for name, size in waiters.queued.items() if name[0] == publisher)
        accepted = waiters.put(publisher, f"{publisher}{number:03}", size)
        assert accepted or mine + max(size, 90) > 300
        assert waiters.queue.weight <= 900
        assert len(waiters.queue) <= 10
        if takes:
            taken += waiters.take(most=2)
    taken += waiters.take()
    for publisher in "abc":
        mine_taken = [name for name in taken if name[0] == publisher]
        assert mine_taken == sorted(mine_taken)


def test_events_that_belong_together() -> None:
    """
    Events that were published together are taken together, also if that makes a batch shorter, or longer than others.
    """
    waiters = Waiters()
    waiters.put("a", "a1")
    waiters.put_all("b", "b1", "b2", "b3")
    waiters.put("a", "a2")
    assert waiters.take(most=3) == ["a1"]
    assert waiters.take(most=2) == ["b1", "b2", "b3"]
    assert waiters.take() == ["a2"]
    waiters.put("a", "a3")
    waiters.put_all("b", "b4", "b5")
    assert waiters.take(most_bytes=2) == ["a3"]
    assert waiters.take(most_bytes=2) == ["b4", "b5"]
    assert len(waiters.queue) == waiters.queue.weight == 0


def test_no_room_for_all() -> None:
    """
    Events that belong together get into the queue together, or not at all.
    """
    waiters = Waiters()
    assert not waiters.put_all("a", *map(str, range(11)))
    assert waiters.refused == ["a"]
    assert len(waiters.queue) == waiters.queue.weight == 0
    assert waiters.put_all("a", *map(str, range(10)))


def test_lost_together() -> None:
    """
    If there is no room, and over time, events that belong together are given up together.
    """
    waiters = Waiters()
    waiters.put("a", "a1")
    waiters.put_all("a", "a2", "a3")
    waiters.put_all("a", "a4", "a5", "a6")
    for number in range(4):
        assert waiters.put("b", f"b{number}")
    assert waiters.put("b", "b4")
    assert waiters.refused == ["a"]
    assert sorted(waiters.expire()) == ["a4", "a5", "a6"]
    assert waiters.take(most=1) == ["a1"]
    waiters.time = PATIENCE
    assert waiters.expire()[:3] == ["a1", "a2", "a3"]
