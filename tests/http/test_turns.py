"""
Work spread over the turns of the reactor.
"""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dcm_ws.http.turns import Turns


class TurnClock(Clock):
    """
    A reactor whose turns take a second.
    """

    def callLater(self, delay: float, *call: object, **arguments: object) -> object:  # type: ignore[override]
        return super().callLater(max(delay, 1), *call, **arguments)  # type: ignore[arg-type]


def test_turns() -> None:
    """
    A limited number of jobs is done in a turn, in order; the others wait, and new jobs wait behind them.
    """
    clock, done = TurnClock(), []
    turns = Turns(clock, 3)
    at_once = [turns.do(lambda number=number: done.append(number)) for number in range(8)]  # type: ignore[misc]
    assert at_once == [True] * 3 + [False] * 5
    assert (done, len(turns)) == ([0, 1, 2], 5)
    clock.advance(1)
    assert done == [0, 1, 2, 3, 4, 5]
    assert not turns.do(lambda: done.append(8))
    clock.advance(1)
    assert done == list(range(9))
    clock.advance(1)
    assert turns.do(lambda: done.append(9))
    assert done == list(range(10))
    clock.advance(2)
    assert clock.getDelayedCalls() == []


def test_turns_after_a_job_that_fails() -> None:
    """
    If a job fails, those behind it are still done.
    """
    clock, done = TurnClock(), []
    turns = Turns(clock, 2)
    for number in range(2):
        turns.do(lambda number=number: done.append(number))  # type: ignore[misc]
    turns.do(lambda: 1 / 0)
    turns.do(lambda: done.append(3))
    with pytest.raises(ZeroDivisionError):
        clock.advance(1)
    clock.advance(1)
    assert (done, len(turns)) == ([0, 1, 3], 0)
