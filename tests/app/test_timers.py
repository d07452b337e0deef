from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent

from dcm_ws.app.timers import STEPS_A_TURN, Sliced, every


class Job:
    """
    A job of some steps that counts them.
    """

    def __init__(self, steps: int, fails_at: int = -1) -> None:
        self.steps = steps
        self.fails_at = fails_at
        self.begun = 0
        self.done = 0

    def __call__(self) -> Iterator[None]:
        self.begun += 1
        for number in range(self.steps):
            if number == self.fails_at:
                raise ValueError("no luck")
            self.done += 1
            yield


def test_every(clock: Clock) -> None:
    """
    A step is done at once and then at the interval, until the service stops.
    """
    calls: list[float] = []
    timer = every(5, "the test", lambda: calls.append(clock.seconds()), clock)
    timer.startService()
    clock.pump([5, 5])
    assert calls == [1000, 1005, 1010]
    timer.stopService()
    clock.advance(20)
    assert len(calls) == 3


def test_every_outlives_a_failure(clock: Clock, no_logged_failures: list[LogEvent]) -> None:
    """
    A step that fails is logged, and done again after the interval.
    """
    calls = []

    def step() -> None:
        calls.append(clock.seconds())
        if len(calls) == 2:
            raise ValueError("no luck")

    timer = every(1, "the test", step, clock)
    timer.startService()
    clock.pump([1, 1, 1])
    timer.stopService()
    assert len(calls) == 4
    assert [formatEvent(event) for event in no_logged_failures] == ["the test failed; it will run again"]
    no_logged_failures.clear()


@pytest.mark.parametrize(
    ("steps", "turns"),
    [
        (0, [0]),
        (1, [1]),
        (STEPS_A_TURN - 1, [255]),
        (STEPS_A_TURN, [256]),
        (STEPS_A_TURN * 2 + 10, [256, 512, 522]),
    ],
)
def test_sliced(clock: Clock, steps: int, turns: list[int]) -> None:
    """
    A long job does 256 steps in each turn of the reactor, which serves others in between.
    """
    job = Job(steps)
    sliced = Sliced("the test", job, clock)
    sliced.start()
    done = [job.done]

    def work_beside_it() -> None:
        done.append(job.done)
        if job.done < steps:
            clock.callLater(0, work_beside_it)

    if job.done < steps:
        clock.callLater(0, work_beside_it)
    clock.advance(0)
    assert done == turns
    assert job.begun == 1


def test_starting_while_running(clock: Clock) -> None:
    """
    A job that is running is not started again; when it has ended, it is.
    """
    job = Job(STEPS_A_TURN + 1)
    sliced = Sliced("the test", job, clock)
    sliced.start()
    sliced.start()
    assert (job.begun, job.done) == (1, 256)
    clock.advance(0)
    assert (job.begun, job.done) == (1, 257)
    assert not clock.getDelayedCalls()
    sliced.start()
    assert (job.begun, job.done) == (2, 257 + 256)


@pytest.mark.parametrize("fails_at", [0, 10, STEPS_A_TURN + 10])
def test_sliced_outlives_a_failure(clock: Clock, no_logged_failures: list[LogEvent], fails_at: int) -> None:
    """
    A job that fails is logged, and started again the next time.
    """
    job = Job(1000, fails_at)
    sliced = Sliced("the test", job, clock)
    sliced.start()
    clock.pump([0, 0, 0, 0])
    assert job.done == fails_at
    assert [formatEvent(event) for event in no_logged_failures] == ["the test failed; it will run again"]
    no_logged_failures.clear()
    job.fails_at = -1
    sliced.start()
    clock.pump([0, 0, 0, 0])
    assert job.done == fails_at + 1000
