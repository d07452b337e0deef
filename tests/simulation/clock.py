"""
Time that passes from one thing that happens to the next, and the processes that it passes for.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from time import process_time
from typing import Any

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.task import Clock
from twisted.python.failure import Failure


class Call:
    """
    Something that is going to happen; what C{callLater} of a reactor returns.

    @ivar process: to which it happens; None if that is the world.
    """

    __slots__ = ("arguments", "cancelled", "due", "function", "process")

    def __init__(
        self, due: float, function: Callable[..., object], arguments: tuple[Any, ...], process: Process | None
    ) -> None:
        self.due = due
        self.function: Callable[..., object] | None = function
        self.arguments = arguments
        self.process = process
        self.cancelled = False

    def active(self) -> bool:
        return self.function is not None

    def cancel(self) -> None:
        if self.function is None:
            raise AlreadyCancelled if self.cancelled else AlreadyCalled
        self.function, self.cancelled = None, True

    def run(self) -> None:
        function, self.function = self.function, None
        if function is not None:
            function(*self.arguments)


class SimClock(Clock):
    """
    A clock on which any number of things may wait; each call costs the logarithm of that.

    @ivar passed: how many things have happened.
    @ivar failures: of what should not have failed.
    """

    def __init__(self, now: float) -> None:
        super().__init__()
        self.rightNow = now
        self._heap: list[tuple[float, int, Call]] = []
        self._numbers = count()
        self.passed = 0
        self.failures: list[Failure] = []

    def callLater(self, delay: float, function: Callable[..., object], *arguments: Any) -> Call:  # type: ignore[override]
        return self.put(delay, function, arguments, None)

    def put(
        self, delay: float, function: Callable[..., object], arguments: tuple[Any, ...], process: Process | None
    ) -> Call:
        call = Call(self.rightNow + delay, function, arguments, process)
        heapq.heappush(self._heap, (call.due, next(self._numbers), call))
        return call

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)

    def run(self, seconds: float) -> None:
        """
        Let time pass.
        """
        end, heap = self.rightNow + seconds, self._heap
        while heap and heap[0][0] <= end:
            due, _, call = heapq.heappop(heap)
            if call.function is None:
                continue
            self.rightNow = due
            self.passed += 1
            if call.process is None:
                call.run()
            else:
                call.process.happen(call)
        self.rightNow = end


class Process(Clock):
    """
    The clock of a process, which may be frozen, and ends.

    @ivar cpu: seconds of processor time that its code has taken.
    """

    def __init__(self, clock: SimClock) -> None:
        super().__init__()
        self._clock = clock
        self._stalled: list[Call] | None = None
        self._runs = False
        self.is_alive = True
        self.cpu = 0.0

    @property
    def is_frozen(self) -> bool:
        return self._stalled is not None

    def seconds(self) -> float:
        # that of a process that is stopped goes on
        return self._clock.rightNow

    def callLater(self, delay: float, function: Callable[..., object], *arguments: Any) -> Call:  # type: ignore[override]
        return self._clock.put(delay, function, arguments, self)

    def do(self, function: Callable[..., object], *arguments: Any) -> None:
        """
        Something comes from outside: it happens now, unless the process is frozen, or has ended.
        """
        if self._runs:
            function(*arguments)
        else:
            self.happen(Call(self._clock.rightNow, function, arguments, self))

    def happen(self, call: Call) -> None:
        if not self.is_alive:
            return
        if self._stalled is not None:
            self._stalled.append(call)
            return
        began, self._runs = process_time(), True
        try:
            call.run()
        finally:
            self._runs = False
            self.cpu += process_time() - began

    def freeze(self) -> None:
        if self._stalled is None:
            self._stalled = []

    def thaw(self) -> None:
        """
        All that should have happened meanwhile happens now, in its order.
        """
        stalled, self._stalled = self._stalled or [], None
        for call in stalled:
            self.happen(call)

    def end(self) -> None:
        self.is_alive = False
