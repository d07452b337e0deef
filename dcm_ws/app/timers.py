"""
Periodic work that continues after a failure, and does not block the reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from twisted.application.internet import TimerService
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

STEPS_A_TURN = 256
"""
Steps of a sliced job in one turn of the reactor: with a write each, they take a few milliseconds.
"""

_log = Logger(namespace="dcm_ws.timers")


def every(seconds: float, name: str, step: Callable[[], object], clock: IReactorTime) -> TimerService:
    """
    Make a service that calls C{step} every C{seconds}, also after a failure.
    """

    def attempt() -> None:
        try:
            step()
        except Exception:
            _log.failure("{name} failed; it will run again", name=name)

    timer = TimerService(seconds, attempt)
    timer.clock = clock
    return timer


class Sliced:
    """
    A job of many small steps, of which some are done in each turn of the reactor.

    @param job: begins the job; each step of the iterator is a step of the job.
    """

    def __init__(self, name: str, job: Callable[[], Iterator[None]], clock: IReactorTime) -> None:
        self._name = name
        self._job = job
        self._clock = clock
        self._steps: Iterator[None] | None = None

    def start(self) -> None:
        """
        Begin the job, unless it is running.
        """
        if self._steps is None:
            self._steps = self._job()
            self._slice()

    def _slice(self) -> None:
        steps = self._steps
        assert steps is not None
        try:
            taken = sum(1 for _ in islice(steps, STEPS_A_TURN))
        except Exception:
            _log.failure("{name} failed; it will run again", name=self._name)
            taken = 0
        if taken == STEPS_A_TURN:
            self._clock.callLater(0, self._slice)
        else:
            self._steps = None
