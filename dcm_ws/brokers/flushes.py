"""
Writes something in the database again and again, and a last time when the service stops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from dcm_ws.core.counts import JournalCounts
from dcm_ws.postgres.agent_rows import LostRightError
from dcm_ws.postgres.connection import DatabaseError, one_line
from dcm_ws.postgres.listener import backoff

_log = Logger(namespace="dcm_ws.agents")

FLUSH_SECONDS = 1.0
"""
Seconds between two flushes.
"""

CHECKPOINT_TICKS = 60
"""
Flushes between two checkpoints, each of which shortens the journal.
"""

STOP_SECONDS = 2.0
"""
Seconds that the last flush may take when the service stops.
"""

_STEPS_A_TURN = 256


class Flushes(Service):
    """
    Writes what agents are owed, whenever it is told to: one flush at a time, and after a failure with a delay.

    @param now: monotonic seconds.
    @param wall_ms: ms since the epoch.
    @param random: returns a number from 0 to 1.
    """

    def __init__(
        self,
        reactor: Any,
        counts: JournalCounts,
        *,
        now: Callable[[], float],
        wall_ms: Callable[[], int],
        random: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._counts = counts
        self._now = now
        self._wall_ms = wall_ms
        self._random = random
        self._working: Deferred[None] | None = None
        self._ticks = 0
        self._attempt = 0
        self._not_before = 0.0
        self._flushed_at: int | None = None

    # what a subclass does

    def _may_write(self) -> bool:
        """
        Is there anything to write, and the right to do it?
        """
        raise NotImplementedError

    async def _flush(self) -> None:
        """
        Write what has changed.
        """
        raise NotImplementedError

    async def _checkpoint(self) -> None:
        """
        Write whole states, and shorten the journal.
        """
        raise NotImplementedError

    def _lost_right(self) -> None:
        """
        Nothing was written, because this process may not write any more.
        """
        raise NotImplementedError

    def _close(self) -> None:
        """
        Close the connections.
        """
        raise NotImplementedError

    # when it does it

    @property
    def is_working(self) -> bool:
        """
        True while something is written.
        """
        return self._working is not None

    def tick(self) -> None:
        """
        Write what has changed, unless the last flush is not finished, or the database is away.
        """
        if self.running and self._working is None and self._now() >= self._not_before:
            self._start()

    def _start(self) -> None:
        if self._may_write():
            self._working = Deferred.fromCoroutine(self._work())
            self._working.addBoth(self._done)

    def _done(self, _: object) -> None:
        self._working = None

    def stopService(self) -> Deferred[None]:
        """
        Write what has changed a last time, within L{STOP_SECONDS}.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        limit = self._reactor.callLater(STOP_SECONDS, self._close)
        while self._working is not None:
            await self._until_done()
        if limit.active() and self._attempt == 0:
            self._start()
            await self._until_done()
        if limit.active():
            limit.cancel()
        self._close()

    async def _until_done(self) -> None:
        if self._working is not None:
            done: Deferred[None] = Deferred()
            self._working.addBoth(lambda _: done.callback(None))
            await done

    async def _work(self) -> None:
        began = self._now()
        try:
            await self._flush()
            self._counts.flushes += 1
            self._counts.flush_seconds.observe(self._now() - began)
            self._flushed_at = self._wall_ms()
            self._ticks += 1
            if self._ticks % CHECKPOINT_TICKS == 0:
                await self._checkpoint()
        except LostRightError:
            self._lost_right()
        except DatabaseError as error:
            self._fail(one_line(error))
        except Exception as error:
            _log.failure("what agents are owed could not be written")
            self._fail(type(error).__name__)
        else:
            if self._attempt:
                _log.info("what agents are owed is written again")
            self._attempt = 0

    def _fail(self, reason: str) -> None:
        self._counts.failures += 1
        if self._attempt == 0:
            _log.warn("what agents are owed cannot be written now: {reason}", reason=reason)
        self._not_before = self._now() + backoff(self._attempt, self._random())
        self._attempt += 1
        self._close()

    async def _in_turns(self, steps: Iterator[None]) -> None:
        """
        Take steps, some of them in each turn of the reactor.
        """
        while take_some(steps):
            await deferLater(self._reactor, 0)


def take_some(steps: Iterator[None]) -> bool:
    """
    Take some steps; returns if there may be more.
    """
    return sum(1 for _ in islice(steps, _STEPS_A_TURN)) == _STEPS_A_TURN
