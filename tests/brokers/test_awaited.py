"""
What waits until the log was read as far as another node has read it.
"""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dcm_ws.brokers.awaited import AWAIT_SECONDS, Awaited
from dcm_ws.core.deadlines import RESOLUTION


class Reader:
    """
    A node that has read some of the log.
    """

    def __init__(self, clock: Clock) -> None:
        self.head = 5
        self.answers: list[bool] = []
        self.awaited = Awaited(clock.callLater, clock.seconds, lambda: self.head)


@pytest.fixture
def reader(clock: Clock) -> Reader:
    return Reader(clock)


def test_it_is_read(reader: Reader, clock: Clock) -> None:
    reader.awaited.add(7, reader.answers.append)
    reader.head = 6
    reader.awaited.read()
    assert (reader.answers, len(reader.awaited)) == ([], 1)
    reader.head = 7
    reader.awaited.read()
    assert (reader.answers, len(reader.awaited)) == ([True], 0)
    clock.advance(AWAIT_SECONDS)
    assert reader.answers == [True]


@pytest.mark.parametrize(("looks", "is_all"), [(0, False), (1, False), (2, True)])
def test_it_does_not_come(reader: Reader, clock: Clock, looks: int, is_all: bool) -> None:
    """
    If the log was looked at meanwhile, it does not have that; the first look may have begun before.
    """
    reader.awaited.looked()
    reader.awaited.add(7, reader.answers.append)
    for _ in range(looks):
        reader.awaited.looked()
    clock.advance(AWAIT_SECONDS)
    assert reader.answers == [is_all]
    reader.head = 7
    reader.awaited.read()
    assert reader.answers == [is_all]


def test_one_timer_for_all(reader: Reader, clock: Clock) -> None:
    """
    If a node is killed, the clients of all its agents may wait.
    """
    for number in range(1000):
        reader.awaited.add(7, reader.answers.append)
        clock.advance(number / 1_000_000)
    assert len(clock.getDelayedCalls()) == 1
    clock.pump([AWAIT_SECONDS, RESOLUTION])
    assert reader.answers == [False] * 1000
    assert clock.getDelayedCalls() == []
    assert len(reader.awaited) == 0


def test_reading_while_much_waits(reader: Reader) -> None:
    """
    What waits for positions beyond what was read is not looked at.
    """
    positions: list[int] = []

    class Position(int):
        def __le__(self, other: int) -> bool:
            positions.append(self)
            return int(self) <= other

    for pos in range(10, 1010):
        reader.awaited.add(Position(pos), reader.answers.append)
    reader.head = 12
    reader.awaited.read()
    assert reader.answers == [True] * 3
    assert len(positions) < 100
