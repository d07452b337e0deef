"""
For how long clients wait for their agents.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.brokers.waiters import TAKE_LONGEST, TAKE_SECONDS, Take, Waiters


class Room:
    """
    Clients that wait, and what they were told: is their agent here?
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.waiters = Waiters(clock, clock.seconds)
        self.told: list[bool] = []

    def add(self, take: Take) -> None:
        self.waiters.add(take, self.told.append, lambda: True)

    def pass_time(self, seconds: float, *, answers: bool = False) -> None:
        """
        @param answers: the database answers all the time.
        """
        for _ in range(round(seconds * 10)):
            if answers:
                self.waiters.answered_at = self.clock.seconds()
            self.clock.advance(0.1)


@pytest.fixture
def room(clock: Clock) -> Room:
    return Room(clock)


def test_the_database_does_not_answer(room: Room) -> None:
    take = Take()
    room.add(take)
    room.pass_time(TAKE_SECONDS - 0.1)
    assert room.told == [] and take.has_clients
    room.pass_time(0.2)
    assert room.told == [False] and not take.has_clients


def test_the_database_has_much_to_do(room: Room) -> None:
    """
    While it answers, clients wait for longer, but not indefinitely.
    """
    room.add(Take())
    room.pass_time(TAKE_LONGEST - 0.1, answers=True)
    assert room.told == []
    room.pass_time(0.2, answers=True)
    assert room.told == [False]


def test_the_database_stops_answering(room: Room) -> None:
    """
    Clients wait for a second after its last answer.
    """
    room.add(Take())
    room.pass_time(2.0, answers=True)
    room.pass_time(TAKE_SECONDS - 0.2)
    assert room.told == []
    room.pass_time(0.3)
    assert room.told == [False]


def test_all_are_told(room: Room, clock: Clock, no_logged_failures: list[Any]) -> None:
    """
    One that fails does not keep the others from learning that their agent is here, and nobody is told twice.
    """
    take = Take()
    room.add(take)
    room.waiters.add(take, lambda is_here: 1 / 0, lambda: True)
    room.add(take)
    room.waiters.answer_all(take, is_here=True)
    assert room.told == [True, True]
    assert len(no_logged_failures) == 1
    no_logged_failures.clear()
    room.pass_time(TAKE_LONGEST)
    assert room.told == [True, True]


def test_one_timer_for_all(room: Room, clock: Clock) -> None:
    for _ in range(1000):
        room.add(Take())
    assert len(clock.getDelayedCalls()) == 1
    room.waiters.clear()
    room.pass_time(TAKE_LONGEST)
    assert room.told == [] and clock.getDelayedCalls() == []
