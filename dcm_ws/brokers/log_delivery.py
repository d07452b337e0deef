"""
Delivers what is in the log in PostgreSQL, in the order of positions and a few milliseconds in each turn of the reactor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.logger import Logger

from dcm_ws.brokers.log_rows import LogRows, Row
from dcm_ws.core.entries import Draft, Published
from dcm_ws.core.log import MemoryLog

_log = Logger(namespace="dcm_ws.log")

_SLICE_SECONDS = 0.005
_SLICE_CHECK = 16
FAR = 2000
"""
Events that may wait to be delivered; beyond that, they are read again from the log when they are due.
"""


class LogDelivery:
    """
    Events of the log on their way from the database to C{tail}, which delivers them.

    @param rows: makes events of rows.
    @param later: calls something after so many seconds, in a turn of its own.
    @param now: monotonic seconds.
    @param logged: called with the id and the position of each event that was delivered.
    @param advanced: called when some were delivered.
    @param done: called when all were delivered, if that took more than one turn.

    @ivar fetched: the last position of which the event is here; what is beyond has to be read in the log.
    @ivar last: the position and the id of the event that was delivered last.
    """

    def __init__(
        self,
        tail: MemoryLog,
        rows: LogRows,
        *,
        later: Callable[..., Any],
        now: Callable[[], float],
        logged: Callable[[str, int], object],
        advanced: Callable[[], object],
        done: Callable[[], object],
    ) -> None:
        self._tail = tail
        self._rows = rows
        self._later = later
        self._now = now
        self._logged = logged
        self._advanced = advanced
        self._done = done
        # None instead of an event that is not delivered
        self._placed: deque[tuple[int, Draft | None]] = deque()
        self._delivering = False
        self.fetched = 0
        self.last: tuple[int, str] = (0, "")

    @property
    def has_waiting(self) -> bool:
        """
        True if events that are here wait to be delivered.
        """
        return bool(self._placed)

    def start_at(self, head: int, last: tuple[int, str]) -> None:
        """
        Go on after C{head}, and forget what waits.

        @param last: as the attribute of this name; 0 and nothing if it is not known.
        """
        self._placed.clear()
        self._tail.start_at(head)
        self.fetched = head
        self.last = last

    def place(self, rows: Sequence[Row], published: Sequence[tuple[int, Draft]]) -> None:
        """
        A step has given positions to events of others, and after them to those that were published here.
        """
        events = [*((row.pos, self._rows.draft(row)) for row in rows), *published]
        if not events or events[0][0] != self.fetched + 1 or len(self._placed) > FAR:
            # there are others before them, and these have to be read with those
            return
        self._placed.extend(events)
        self.fetched = events[-1][0]
        if not self._delivering:
            self._deliver()

    def read(self, rows: Sequence[Row], head: int) -> None:
        """
        These events are the next ones in the log.

        @param head: there is nothing beyond that.
        """
        for row in rows:
            self._placed.append((row.pos, self._rows.draft(row)))
            self.fetched = row.pos
        if not rows:
            self._placed.append((head, None))
            self.fetched = head
        if not self._delivering:
            self._deliver()

    def _deliver(self) -> None:
        placed, tail = self._placed, self._tail
        until, count = self._now() + _SLICE_SECONDS, 0
        while placed:
            pos, draft = placed.popleft()
            try:
                self._deliver_one(pos, draft)
            except Exception:
                _log.failure("an event could not be delivered")
            if tail.head < pos:
                tail.skip_to(pos)
            count += 1
            if count % _SLICE_CHECK == 0 and self._now() >= until:
                break
        self._delivering = bool(placed)
        self._advanced()
        if placed:
            self._later(0, self._deliver_on)

    def _deliver_on(self) -> None:
        self._deliver()
        if not self._delivering:
            # the numberer may have to read on; it looks by itself if it has not waited for this
            self._done()

    def _deliver_one(self, pos: int, draft: Draft | None) -> None:
        # what is missing before it was deleted by somebody
        self._tail.skip_to(pos - 1)
        if draft is None:
            return
        self._tail.append(draft, Published(draft.id))
        self.last = (pos, draft.id)
        self._logged(draft.id, pos)
