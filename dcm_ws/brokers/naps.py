"""
Waits for something to happen, or for some time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred


class Naps:
    """
    The waiting of one coroutine, which others may wake.

    @param now: monotonic seconds.
    @param runs: returns if there is anything to wait for; nothing waits when there is not.

    @ivar runs: returns if there is anything to wait for.
    @ivar woken: somebody has woken it since it last slept; it does not sleep then.
    """

    def __init__(self, reactor: Any, now: Callable[[], float], runs: Callable[[], bool]) -> None:
        self._reactor = reactor
        self._now = now
        self.runs = runs
        self._nap: Deferred[None] | None = None
        self._timer: Any = None
        self._waking = False
        self._until = 0.0
        self.woken = False

    def wake(self) -> None:
        """
        Something may have happened.
        """
        self.woken = True
        nap, self._nap = self._nap, None
        if nap is not None:
            if self._timer.active():
                self._timer.cancel()
            nap.callback(None)

    def wake_soon(self) -> None:
        """
        Wake it in the next turn of the reactor, with what else happens in this one.
        """
        self.woken = True
        if self._nap is not None and not self._waking:
            self._waking = True
            self._reactor.callLater(0, self._wake_now)

    def _wake_now(self) -> None:
        self._waking = False
        self.wake()

    def hurry(self) -> None:
        """
        There is a reason not to rest any longer.
        """
        self._until = 0.0
        self.wake()

    async def sleep(self, seconds: float) -> None:
        """
        Until something happens, and so many seconds at most.
        """
        if self.woken or not self.runs():
            self.woken = False
            return
        nap: Deferred[None] = Deferred()
        self._nap = nap
        self._timer = self._reactor.callLater(seconds, self.wake)
        await nap
        self.woken = False

    async def rest(self, seconds: float) -> None:
        """
        So many seconds, whatever happens; unless there is a reason to hurry.
        """
        self._until = self._now() + seconds
        while self.runs() and (left := self._until - self._now()) > 0:
            await self.sleep(left)
