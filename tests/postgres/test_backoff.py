"""
How long to wait before the database is connected to again.
"""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dcm_ws.postgres.backoff import BACKOFF_FIRST, BACKOFF_LAST, LASTING, Backoff, backoff


@pytest.fixture
def waits(clock: Clock) -> Backoff:
    return Backoff(clock.seconds, lambda: 1.0)


def test_each_wait_is_twice_as_long_up_to_the_longest(waits: Backoff) -> None:
    assert [waits.next() for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, BACKOFF_LAST]
    assert [waits.next() for _ in range(100)] == [BACKOFF_LAST] * 100


def test_half_of_a_wait_is_random() -> None:
    assert backoff(2, 0.0) == 0.2
    assert backoff(2, 0.5) == pytest.approx(0.3)
    assert backoff(0, 0.0) == BACKOFF_FIRST
    assert backoff(1000, 0.0) == BACKOFF_LAST / 2


def test_begins_again_after_a_connection_that_lasted(waits: Backoff, clock: Clock) -> None:
    for _ in range(8):
        waits.next()
    waits.connected()
    clock.advance(LASTING)
    assert [waits.next(), waits.next()] == [0.1, 0.2]


def test_a_connection_that_is_lost_at_once(waits: Backoff, clock: Clock) -> None:
    """
    The database is there again, and goes away again: the next wait is short, but there are no ten attempts a second.
    """
    waits.connected()
    assert waits.next() == 0.1
    for _ in range(8):
        waits.next()
    for _ in range(3):
        waits.connected()
        clock.advance(LASTING - 0.1)
        assert waits.next() == 0.8
    assert [waits.next(), waits.next()] == [1.6, 3.2]
    for wait in [0.8] * 20:
        waits.connected()
        assert waits.next() == wait
