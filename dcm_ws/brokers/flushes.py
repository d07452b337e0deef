"""
Writes what agents are owed into the database again and again, and a last time when the service stops.
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
from dcm_ws.core.journal import Checkpoint, Journal
from dcm_ws.core.ledger import Ledger
from dcm_ws.core.ledger_pages import LedgerPage
from dcm_ws.core.ports import JournalReport
from dcm_ws.postgres.agent_rows import LostRightError
from dcm_ws.postgres.backoff import backoff
from dcm_ws.postgres.connection import DatabaseError, one_line

_log = Logger(namespace="dcm_ws.agents")

FLUSH_SECONDS = 1.0
"""
Seconds between two flushes.
"""

CHECKPOINT_TICKS = 60
"""
Flushes between two checkpoints, each of which shortens the journal.
"""

STOP_SECONDS = 5.0
"""
Seconds that the last flush may take when the service stops.
"""

LEDGER_BYTES = 1 << 20
"""
Bytes of the ledger that are written with one statement.
"""

_STEPS_A_TURN = 256


class Flushes(Service):
    """
    Writes what agents are owed whenever L{tick} is called, one flush at a time.  After each failure it waits longer
    before the next flush.

    @param now: monotonic seconds.
    @param wall_ms: ms since the epoch.
    @param random: returns a number from 0 to 1.
    """

    #: set by a subclass: knows what has to be written
    _journal: Journal
    #: set by a subclass: knows what has happened to events
    _ledger: Ledger

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
        # the number of the last row of the journal, and of the last one that a checkpoint covers
        self._last = 0
        self._covered = 0

    # what a subclass does

    def _is_loaded(self) -> bool:
        """
        Is there a journal?
        """
        raise NotImplementedError

    def _may_write(self) -> bool:
        """
        Is there a journal, and the right to write it?
        """
        return self._is_loaded()

    async def _flush(self) -> None:
        """
        Write what has changed.
        """
        raise NotImplementedError

    async def _save(self, checkpoint: Checkpoint, upto: int) -> None:
        """
        Write whole states and, if the checkpoint is complete, shorten the journal up to a row.
        """
        raise NotImplementedError

    async def _write_pages(self, pages: list[LedgerPage]) -> None:
        """
        Write pages of the ledger.
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

    def hurry(self) -> None:
        """
        The database can be reached again: do not wait longer because it could not.
        """
        self._not_before = 0.0

    def stopService(self) -> Deferred[None]:
        """
        Write what has changed a last time, within L{STOP_SECONDS}, also if that failed just before.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        limit = self._reactor.callLater(STOP_SECONDS, self._close)
        while self._working is not None:
            await self._until_done()
        if limit.active():
            self._start()
            await self._until_done()
        if limit.active():
            limit.cancel()
        self._close()
        if self._is_loaded() and (unsaved := self._journal.pending):
            _log.warn(
                "what {n} agents are owed could not be saved: they may get events again that they have acknowledged",
                n=unsaved,
            )

    async def _until_done(self) -> None:
        if self._working is not None:
            done: Deferred[None] = Deferred()
            self._working.addBoth(lambda _: done.callback(None))
            await done

    def report(self) -> JournalReport | None:
        """
        The state of the journal; None if there is none.
        """
        if not self._is_loaded():
            return None
        return {"lastFlush": self._flushed_at, "pending": self._journal.pending, "rows": self._last - self._covered}

    def _wrote(self, number: int | None) -> None:
        """
        A row of the journal was written, if it has a number.
        """
        if number is not None:
            self._covered = self._covered or number - 1
            self._last = number

    async def _checkpoint(self) -> None:
        upto = self._last
        complete = False
        while not complete:
            await self._in_turns(self._journal.checkpoint())
            checkpoint = self._journal.take_checkpoint()
            if checkpoint is None:
                return
            complete = checkpoint.complete
            saved = False
            try:
                await self._save(checkpoint, upto)
                saved = True
            finally:
                if not saved:
                    self._journal.put_back_checkpoint(checkpoint)
        self._covered = upto

    async def _work(self) -> None:
        began = self._now()
        try:
            await self._flush()
            await self._write_ledger()
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

    async def _write_ledger(self) -> None:
        while pages := self._ledger.take(LEDGER_BYTES):
            try:
                await self._write_pages(pages)
            except BaseException:
                self._ledger.put_back(pages)
                raise
            self._ledger.written(pages)

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
