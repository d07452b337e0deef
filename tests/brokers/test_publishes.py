"""
Publishes that wait for the log.
"""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dcm_ws.brokers.log_rows import LogRows, Row
from dcm_ws.brokers.publishes import Publishes
from dcm_ws.core.counts import Counts
from dcm_ws.core.entries import Draft, Published
from dcm_ws.core.publish_queue import PATIENCE, PublishQueue
from dcm_ws.protocol.channels import Channels

ROWS = LogRows(Channels())


def draft(event_id: str) -> Draft:
    made = ROWS.draft(Row(0, event_id, "topics/t", "task.created", "1", 0, None, publisher="ann"))
    assert made is not None
    return made


class Log:
    """
    A log that has room for two publishes.
    """

    def __init__(self, clock: Clock) -> None:
        self.counts = Counts()
        queue = PublishQueue(clock.seconds, self.counts.limits.max_log_waiting.add_of, max_events=2, max_bytes=1000)
        self.publishes = Publishes(queue, self.counts.engine, later=clock.callLater, now=clock.seconds)

    def publish(self, event_id: str) -> Published:
        published = Published(event_id)
        self.publishes.put(((draft(event_id), published),))
        return published

    @property
    def refused(self) -> int:
        return self.counts.engine.refused.value


@pytest.fixture
def log(clock: Clock) -> Log:
    return Log(clock)


def test_event_that_is_logged(log: Log, clock: Clock) -> None:
    """
    A publisher is answered once, when its event is in the log; nobody here waits for events of others.
    """
    published = log.publish("one")
    answers: list[int | None] = []
    published.then(lambda: answers.append(published.pos))
    assert (published.waiting, len(log.publishes), log.publishes.weight) == (True, 1, 500)
    (waiting,) = log.publishes.take(10, 1000)
    assert (waiting.draft.id, len(log.publishes)) == ("one", 0)
    log.publishes.logged("of others", 6)
    assert answers == []
    log.publishes.logged("one", 7)
    log.publishes.logged("one", 7)
    log.publishes.refuse(waiting)
    clock.advance(PATIENCE)
    assert (answers, published.duplicate, log.refused) == ([7], False, 0)
    assert not clock.getDelayedCalls()


def test_event_that_was_published_before(log: Log) -> None:
    """
    Who uses a key again gets the id and the position of the first event.
    """
    published = log.publish("two")
    log.publishes.take(10, 1000)
    log.publishes.again("two", 3, "one")
    log.publishes.again("of others", 4, "one")
    assert (published.id, published.pos, published.duplicate, published.waiting) == ("one", 3, True, False)


@pytest.mark.parametrize("is_taken", [False, True])
def test_event_that_takes_too_long(log: Log, clock: Clock, is_taken: bool) -> None:
    """
    A publisher is answered after a second, also if a step may have logged its event; what the step says then comes too
    late.  Each publisher has a second of its own.
    """
    first = log.publish("one")
    clock.advance(PATIENCE / 2)
    second = log.publish("two")
    if is_taken:
        log.publishes.take(10, 1000)
    clock.advance(PATIENCE / 2)
    assert (first.waiting, first.pos, second.waiting) == (False, None, True)
    log.publishes.logged("one", 7)
    log.publishes.again("one", 7, "zero")
    assert (first.id, first.pos, log.refused) == ("one", None, 1)
    clock.advance(PATIENCE / 2)
    assert (second.waiting, second.pos, log.refused) == (False, None, 2)
    assert log.publishes.take(10, 1000) == []
    assert not clock.getDelayedCalls()


def test_no_room(log: Log) -> None:
    """
    A publish for which there is no room is refused at once, and does not wait.
    """
    log.publish("one")
    log.publish("two")
    third = log.publish("three")
    assert (third.waiting, third.pos, log.refused) == (False, None, 1)
    assert [waiting.draft.id for waiting in log.publishes.take(10, 1000)] == ["one", "two"]


def test_event_that_is_refused(log: Log) -> None:
    """
    What the database does not take is answered at once.
    """
    published = log.publish("one")
    (waiting,) = log.publishes.take(10, 1000)
    log.publishes.refuse(waiting)
    assert (published.waiting, published.pos, log.refused) == (False, None, 1)


def test_withdrawn(log: Log) -> None:
    """
    What is withdrawn is not taken by a step, and not answered by one.
    """
    published = log.publish("one")
    assert [waiting.published for waiting in log.publishes.withdraw()] == [published]
    log.publishes.logged("one", 7)
    assert (published.waiting, log.publishes.take(10, 1000)) == (True, [])
