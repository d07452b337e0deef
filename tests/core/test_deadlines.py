"""
What is over after some time.
"""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.deadlines import RESOLUTION, Deadlines


class Over(list[str]):
    """
    The items whose time is over, and the deadlines that say so.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.deadlines: Deadlines[str] = Deadlines(clock.callLater, clock.seconds, self.append)


@pytest.fixture
def over(clock: Clock) -> Over:
    return Over(clock)


def test_one_timer(over: Over, clock: Clock) -> None:
    """
    However many items there are, there is one timer, for the one that is due next.
    """
    for item, seconds in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        over.deadlines.put(item, seconds)
        assert len(clock.getDelayedCalls()) == 1
    assert len(over.deadlines) == 3
    clock.advance(0.99)
    assert over == []
    clock.advance(0.01)
    assert (over, len(clock.getDelayedCalls())) == (["a"], 1)
    clock.pump([1.0, 1.0])
    assert (over, clock.getDelayedCalls()) == (["a", "b", "c"], [])


def test_it_is_never_early(over: Over, clock: Clock) -> None:
    over.deadlines.put("a", RESOLUTION / 3)
    clock.advance(RESOLUTION / 4)
    assert over == []
    clock.advance(RESOLUTION)
    assert over == ["a"]


def test_dropped(over: Over, clock: Clock) -> None:
    over.deadlines.put("a", 1.0)
    over.deadlines.put("b", 1.0)
    over.deadlines.drop("a")
    over.deadlines.drop("nobody")
    clock.advance(1.0)
    assert over == ["b"]


def test_put_again(over: Over, clock: Clock) -> None:
    """
    The last time that an item was given counts.
    """
    over.deadlines.put("a", 1.0)
    over.deadlines.put("a", 2.0)
    clock.advance(1.5)
    assert over == []
    clock.advance(0.5)
    assert over == ["a"]


def test_cleared(over: Over, clock: Clock) -> None:
    over.deadlines.put("a", 1.0)
    over.deadlines.clear()
    assert len(over.deadlines) == 0
    clock.advance(1.0)
    assert (over, clock.getDelayedCalls()) == ([], [])


def test_changes_while_items_are_over(clock: Clock) -> None:
    """
    What is over at the same time as another item may be dropped, or be given more time, by the call for that one.
    """
    over: list[str] = []

    def call(item: str) -> None:
        over.append(item)
        others = {"a", "b", "c"} - {item}
        dropped, later = sorted(others)
        if len(over) == 1:
            deadlines.drop(dropped)
            deadlines.put(later, 1.0)
            assert len(deadlines) == 1

    deadlines: Deadlines[str] = Deadlines(clock.callLater, clock.seconds, call)
    for item in "abc":
        deadlines.put(item, 1.0)
    clock.advance(1.0)
    assert len(over) == 1
    clock.advance(1.0)
    assert len(over) == 2


def test_cleared_while_items_are_over(clock: Clock) -> None:
    over: list[str] = []

    def call(item: str) -> None:
        over.append(item)
        deadlines.clear()

    deadlines: Deadlines[str] = Deadlines(clock.callLater, clock.seconds, call)
    for item in "abc":
        deadlines.put(item, 1.0)
    clock.pump([1.0, 1.0])
    assert len(over) == 1


def test_a_call_fails(clock: Clock) -> None:
    """
    The other items are kept, and follow soon.
    """
    over: list[str] = []

    def call(item: str) -> None:
        over.append(item)
        if len(over) == 1:
            raise ValueError(item)

    deadlines: Deadlines[str] = Deadlines(clock.callLater, clock.seconds, call)
    for item in "abc":
        deadlines.put(item, 1.0)
    with pytest.raises(ValueError, match=r"[abc]"):
        clock.advance(1.0)
    assert len(over) == 1
    clock.advance(RESOLUTION)
    assert sorted(over) == ["a", "b", "c"]


def test_a_clock_that_stood_still(clock: Clock) -> None:
    """
    If the process was stopped, the clock of the reactor is ahead of that of the service, whose time counts.
    """
    over: list[str] = []
    stopped = 0.0
    deadlines: Deadlines[str] = Deadlines(clock.callLater, lambda: clock.seconds() - stopped, over.append)
    deadlines.put("a", 1.0)
    stopped = 5.0
    clock.advance(5.5)
    assert over == []
    clock.advance(0.5)
    assert over == ["a"]
