"""
What is in the log is delivered in its order, in slices.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent

from dcm_ws.brokers.log_delivery import FAR, LogDelivery
from dcm_ws.brokers.log_rows import LogRows, Row
from dcm_ws.core.entries import Draft
from dcm_ws.core.log import MemoryLog
from dcm_ws.protocol.channels import Channels


def row(pos: int, event: str = "task.created") -> Row:
    return Row(pos, f"msg_{pos}", "topics/t", event, str(pos), 0, None, publisher="ann")


class Log:
    """
    The log of which 10 events were read, when a service begins.

    @ivar seconds: how long each delivery takes.
    @ivar delivered: the positions of what was delivered.
    @ivar logged: these positions with the ids, as their publishers hear of them.
    @ivar heads: where the head was each time that some were delivered.
    @ivar dones: how often all were.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.seconds = 0.0
        self.delivered: list[int] = []
        self.logged: list[tuple[str, int]] = []
        self.heads: list[int] = []
        self.dones = 0
        self.tail = MemoryLog("epoch", clock.seconds, keep=3600, max_events=100_000, max_bytes=64 << 20)
        self.tail.attach(self._deliver, lambda: None)
        self.rows = LogRows(Channels())
        self.delivery = LogDelivery(
            self.tail,
            self.rows,
            later=clock.callLater,
            now=clock.seconds,
            logged=lambda event_id, pos: self.logged.append((event_id, pos)),
            advanced=lambda: self.heads.append(self.tail.head),
            done=self._done,
        )
        self.delivery.start_at(10, (10, "msg_10"))

    def read(self, positions: Iterable[int], head: int = 0) -> None:
        self.delivery.read([row(pos) for pos in positions], head)

    def place(self, positions: Iterable[int], own: Iterable[int] = ()) -> None:
        published = [(pos, draft) for pos in own if (draft := self.rows.draft(row(pos)))]
        self.delivery.place([row(pos) for pos in positions], published)

    def _deliver(self, draft: Draft, pos: int, frame: bytes) -> None:
        if draft.event == "task.failed":
            raise RuntimeError("broken")
        self._clock.rightNow += self.seconds
        self.delivered.append(pos)

    def _done(self) -> None:
        self.dones += 1


@pytest.fixture
def log(clock: Clock) -> Log:
    return Log(clock)


def test_what_a_step_has_placed(log: Log) -> None:
    """
    What others published comes before what was published here, in the same turn.
    """
    log.place((11, 12), (13,))
    assert log.delivered == [11, 12, 13]
    assert log.logged == [("msg_11", 11), ("msg_12", 12), ("msg_13", 13)]
    assert (log.heads, log.delivery.fetched, log.delivery.last) == ([13], 13, (13, "msg_13"))
    assert (log.delivery.has_waiting, log.dones) == (False, 0)


@pytest.mark.parametrize("positions", [(), (12,), (10, 11)])
def test_what_is_not_next(log: Log, positions: tuple[int, ...]) -> None:
    """
    What does not follow on what is here has to be read in the log, with what is missing.
    """
    log.place(positions)
    assert (log.delivered, log.delivery.fetched) == ([], 10)


def test_slices(log: Log, clock: Clock) -> None:
    """
    Each turn delivers for 5 ms; in the end the reader is told that it may go on.
    """
    log.seconds = 0.001
    log.read(range(11, 51))
    assert log.delivered == list(range(11, 27))
    assert (log.delivery.fetched, log.tail.head, log.delivery.has_waiting) == (50, 26, True)
    log.place((51,))
    assert log.tail.head == 26
    clock.advance(0)
    assert log.delivered == list(range(11, 52))
    assert (log.heads, log.delivery.has_waiting, log.dones) == ([26, 42, 51], False, 1)
    assert not clock.getDelayedCalls()


def test_what_is_far_is_read_again(log: Log, clock: Clock) -> None:
    """
    If very much waits to be delivered, more of it is not kept.
    """
    log.seconds = 1.0
    log.read(range(11, 11 + FAR + 17))
    log.place((11 + FAR + 17,))
    assert log.delivery.fetched == 10 + FAR + 17
    clock.advance(0)
    log.place((11 + FAR + 17,))
    assert log.delivery.fetched == 11 + FAR + 17


def test_gaps(log: Log) -> None:
    """
    The head moves over what somebody has deleted, or written and is no event.
    """
    log.delivery.read([row(12), row(13, "no event"), row(15)], 20)
    assert (log.delivered, log.tail.head) == ([12, 15], 15)
    log.read((), 20)
    assert (log.delivered, log.tail.head) == ([12, 15], 20)
    assert (log.delivery.fetched, log.delivery.last) == (20, (15, "msg_15"))


def test_event_that_breaks(log: Log, no_logged_failures: list[LogEvent]) -> None:
    """
    An event that cannot be delivered holds up no other.
    """
    log.delivery.read([row(11), row(12, "task.failed"), row(13)], 13)
    assert (log.delivered, log.tail.head) == ([11, 13], 13)
    (failure,) = no_logged_failures
    assert formatEvent(failure) == "an event could not be delivered"
    no_logged_failures.clear()


def test_starting_elsewhere(log: Log, clock: Clock) -> None:
    """
    If the log is another one, what waits is not delivered any more, and the next turn goes on with the other one.
    """
    log.seconds = 0.001
    log.read(range(11, 51))
    log.delivery.start_at(3, (3, "msg_other"))
    assert (log.delivery.has_waiting, log.tail.head, log.delivery.last) == (False, 3, (3, "msg_other"))
    log.read((4,))
    assert (log.tail.head, log.delivery.fetched) == (3, 4)
    clock.advance(0)
    assert log.delivered == [*range(11, 27), 4]
    assert (log.tail.head, log.delivery.last, log.dones) == (4, (4, "msg_4"), 1)
