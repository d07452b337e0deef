from __future__ import annotations

import random

from dcm_ws.core.schedule import Schedule


def test_item_comes_due_once() -> None:
    """
    An item is taken at its time, not before, and not again.
    """
    schedule: Schedule[str] = Schedule(1.0)
    schedule.put("ping", 10.0)

    assert len(schedule) == 1
    assert schedule.take(9.99) == []
    assert schedule.take(10.0) == ["ping"]
    assert schedule.take(11.0) == []
    assert len(schedule) == 0


def test_item_is_never_early_and_at_most_a_slot_late() -> None:
    """
    Between two slots the later one counts.
    """
    schedule: Schedule[str] = Schedule(0.25)
    schedule.put("ping", 10.1)

    assert schedule.take(10.1) == []
    assert schedule.take(10.25) == ["ping"]


def test_the_earliest_comes_first() -> None:
    """
    What is due is taken in the order of its times.
    """
    schedule: Schedule[int] = Schedule(1.0)
    for due in (30, 10, 20):
        schedule.put(due, due)

    assert schedule.take(25) == [10, 20]
    assert schedule.take(35) == [30]


def test_putting_again_moves() -> None:
    """
    An item has one time, the last it was given.
    """
    schedule: Schedule[str] = Schedule(1.0)
    schedule.put("ping", 10.0)
    schedule.put("ping", 20.0)

    assert schedule.take(15.0) == []
    assert schedule.take(20.0) == ["ping"]


def test_dropped_item_never_comes() -> None:
    """
    A client that left is not looked after; others due at the same time are.
    """
    schedule: Schedule[str] = Schedule(1.0)
    schedule.put("ann", 10.0)
    schedule.put("bob", 10.0)
    schedule.drop("ann")
    schedule.drop("ann")

    assert schedule.take(10.0) == ["bob"]


def test_what_is_overdue_already_comes_next() -> None:
    """
    An item put in with a time that has passed comes with the next slot.
    """
    schedule: Schedule[str] = Schedule(1.0)
    assert schedule.take(100.0) == []
    schedule.put("late", 50.0)

    assert schedule.take(100.5) == []
    assert schedule.take(101.0) == ["late"]


def test_a_clock_that_stands_still_takes_nothing_twice() -> None:
    """
    Asking again at once, or at an earlier time, gives nothing.
    """
    schedule: Schedule[str] = Schedule(1.0)
    schedule.put("one", 10.0)
    assert schedule.take(10.0) == ["one"]
    schedule.put("two", 10.0)

    assert schedule.take(10.0) == []
    assert schedule.take(5.0) == []
    assert schedule.take(11.0) == ["two"]


def test_thousands_of_items_come_each_at_its_time() -> None:
    """
    However the items were put, moved and dropped, each comes due within a slot after its time.
    """
    chance = random.Random(20)
    schedule: Schedule[int] = Schedule(0.5)
    due: dict[int, float] = {}
    for _ in range(5000):
        item = chance.randrange(1000)
        if chance.random() < 0.2:
            schedule.drop(item)
            due.pop(item, None)
        else:
            due[item] = chance.uniform(10.0, 100.0)
            schedule.put(item, due[item])
    assert len(schedule) == len(due)

    for half_seconds in range(20, 203):
        now = half_seconds / 2
        for item in schedule.take(now):
            assert now - 0.5 < due.pop(item) <= now
    assert not due


def test_a_first_look_that_finds_nothing_delays_nothing() -> None:
    """
    Whoever is put in after a look that came before everything was due still comes at its own time.
    """
    schedule: Schedule[str] = Schedule(1.0)
    schedule.put("late", 30.0)
    assert schedule.take(1.0) == []
    schedule.put("early", 11.0)

    assert schedule.take(11.0) == ["early"]
    assert schedule.take(30.0) == ["late"]


def test_next_due() -> None:
    """
    Whoever waits for the next item knows for how long.
    """
    schedule: Schedule[str] = Schedule(0.25)
    assert schedule.next_due is None
    schedule.put("late", 7.0)
    schedule.put("ping", 5.1)
    assert schedule.next_due == 5.25
    assert schedule.take(5.25) == ["ping"]
    assert schedule.next_due == 7.0


def test_empty_for_long() -> None:
    """
    If nothing was due for very long, the time that has passed costs nothing.
    """
    schedule: Schedule[str] = Schedule(2.0**-30)
    schedule.put("ping", 1.0)
    assert schedule.take(1.0) == ["ping"]
    assert schedule.take(1.5) == []
    schedule.put("pong", 1_000_000.0)
    assert schedule.take(1_000_000.0) == ["pong"]
