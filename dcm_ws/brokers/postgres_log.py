"""
The log in PostgreSQL, as the core sees it (protocol, section 10).

What clients publish waits in a queue for the next numbering step, which the L{Numberer} runs.  What the step has put
into the log is delivered here, a few milliseconds in each turn of the reactor, in the order of positions.  The last
events are kept in memory as well, so readers near the head are answered at once; all others are answered from the
database.

Where a database has no log, the same memory is the whole log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol

from twisted.logger import Logger

from dcm_ws.brokers.awaited import Awaited
from dcm_ws.brokers.log_rows import LogRows, Row
from dcm_ws.core.counts import EngineCounts
from dcm_ws.core.entries import Draft, Entry, Page, Published
from dcm_ws.core.log import MemoryLog
from dcm_ws.core.ports import Deliver, Later, LogReport
from dcm_ws.core.publish_queue import PublishQueue, Waiting
from dcm_ws.postgres.log_place import LogPlace
from dcm_ws.postgres.upkeep import Kept

_log = Logger(namespace="dcm_ws.log")

_SLICE_SECONDS = 0.005
_SLICE_CHECK = 16
_FAR = 2000
"""
Events that may wait to be delivered; beyond that, they are read again from the log when they are due.
"""


class LogState(Enum):
    """
    What the log does.
    """

    CONNECTING = "connecting"
    UP = "up"
    #: a node of a cluster, of which another one numbers the events
    FOLLOWING = "following"
    #: another process numbers the events, and this one waits until that ends
    STANDBY = "standby"
    DOWN = "down"


class Found(NamedTuple):
    """
    What was read in the database.

    @ivar is_all: there is nothing more up to the end that was asked for.
    """

    rows: list[Row]
    is_all: bool


class Reader(Protocol):
    """
    Reads the log in the database.
    """

    @property
    def waiting(self) -> int:
        """
        How many reads have no answer yet.
        """

    def page(self, lanes: Mapping[str, int], head: int, most: int, ready: Callable[[Found | None], object]) -> None:
        """
        Read the next events of some channels, each after its own position, up to C{head}.
        """

    def find(self, positions: Sequence[int], ready: Callable[[Found | None], object]) -> None:
        """
        Read single events.
        """


class PostgresLog:
    """
    The L{Log<dcm_ws.core.ports.Log>} in PostgreSQL.

    @param tail: keeps the last events in memory; its epoch and limits are those of the log if the database has none.
    @param later: calls something after so many seconds, in a turn of its own; returns what can be cancelled.
    @param now: monotonic seconds.
    @param keep: seconds for which an event is kept.
    @param max_bytes: bytes of the log in the database.
    @param crowded: as in L{MemoryLog}, for a log in memory.
    @param shares: other nodes read the log, too, and may be further.

    @ivar reader: reads the log in the database.
    @ivar wake: called when something waits to be logged.
    @ivar fetched: the last position of which the event is here; what is beyond has to be read in the log.
    @ivar in_memory: the database has no log, and this one is in memory.
    """

    reader: Reader

    def __init__(
        self,
        tail: MemoryLog,
        rows: LogRows,
        queue: PublishQueue,
        counts: EngineCounts,
        *,
        later: Callable[..., Any],
        now: Callable[[], float],
        keep: float,
        max_bytes: int,
        crowded: Callable[[str, int], object],
        shares: bool = False,
    ) -> None:
        self.epoch = tail.epoch
        self.first = 1
        self.bytes = 0
        self._tail = tail
        self._rows = rows
        self._queue = queue
        self._counts = counts
        self._later = later
        self._now = now
        self._keep = keep
        self._max_bytes = max_bytes
        self._crowded = crowded
        self._reset: Callable[[], object] = _nothing
        self.wake: Callable[[], object] = _nothing
        self.in_memory = False
        self.is_open = False
        self._state = LogState.CONNECTING
        self._reason = ""
        self.fetched = 0
        # events that have positions and are not delivered yet
        self._placed: deque[tuple[int, Draft | None]] = deque()
        self._delivering = False
        # what has been given to the numberer and may be in the log
        self._sent: dict[str, Published] = {}
        self._timing = False
        self.last: tuple[int, str] = (0, "")
        self._kept = Kept()
        self._shares = shares
        self._awaited = Awaited(later, now, lambda: self.head)

    # what the core asks

    @property
    def is_known(self) -> bool:
        """
        False until the log of the database was found, or it was found to have none.
        """
        return self.is_open or self.in_memory

    @property
    def head(self) -> int:
        """
        The position of the last event that was delivered here.
        """
        return self._tail.head

    def __len__(self) -> int:
        """
        How many events are kept.
        """
        return len(self._tail) if self.in_memory else max(0, self.head - self.first + 1)

    def attach(self, deliver: Deliver, reset: Callable[[], object]) -> None:
        """
        Have C{deliver} called with each event, and C{reset} when positions of before are not good any more.
        """
        self._tail.attach(deliver, reset)
        self._reset = reset

    def append(self, draft: Draft, published: Published) -> None:
        """
        Log an event with the next numbering step.
        """
        if self.in_memory:
            self._tail.append(draft, published)
        else:
            self._put(((draft, published),))

    def append_all(self, publishes: Sequence[tuple[Draft, Published]], later: Later) -> None:
        """
        Log events together with the next numbering step.
        """
        if self.in_memory:
            self._tail.append_all(publishes, later)
        else:
            self._put(publishes)

    def _put(self, publishes: Sequence[tuple[Draft, Published]]) -> None:
        if self._queue.put_all(publishes):
            for _, published in publishes:
                published.waiting = True
            self._watch()
            self.wake()
            return
        for draft, published in publishes:
            self._counts.refused.add_of(draft.publisher)
            published.pos = None

    def complete(self, after: int, channels: Mapping[str, int]) -> bool:
        """
        Are all events of these channels kept?
        """
        return not self.lost_after(after, channels)

    def lost_after(self, after: int, channels: Mapping[str, int]) -> int:
        """
        The last position of the events of these channels that may be gone; 0 if none is.
        """
        if self.in_memory:
            return self._tail.lost_after(after, channels)
        lost = self.first - 1
        return lost if any(max(after, since) < lost for since in channels.values()) else 0

    def reach(self, pos: int, ready: Callable[[bool], object]) -> None:
        """
        Wait until the head is at a position.
        """
        if self._shares and pos > self.head:
            self._awaited.add(pos, ready)
            self.wake()
        else:
            ready(True)

    def page(self, after: int, channels: Mapping[str, int], most: int, ready: Callable[[Page | None], object]) -> None:
        """
        Read the next events of some channels: at once if they are in memory.
        """
        if self.in_memory or self._tail.complete(after, channels):
            self._tail.page(after, channels, most, ready)
            return
        head, first, epoch = self.head, self.first, self.epoch
        lanes = {name: max(after, since) for name, since in channels.items() if since < head}
        if not lanes or after >= head:
            ready(Page([], head, 0))
            return
        lost = first - 1 if any(since < first - 1 for since in lanes.values()) else 0
        self._counts.reads += 1

        def take(found: Found | None) -> None:
            if found is None or epoch != self.epoch:
                ready(None)
                return
            ready(Page(self._entries(found.rows), head if found.is_all else found.rows[-1].pos, lost))

        self.reader.page(lanes, head, most, take)

    def find(self, positions: Sequence[int], ready: Callable[[Mapping[int, Entry] | None], object]) -> None:
        """
        Read single events: at once if they are in memory.
        """
        found: dict[int, Entry] = {}
        self._tail.find(positions, lambda kept: found.update(kept or {}))
        missing = [pos for pos in positions if pos not in found and self.first <= pos <= self.head]
        if self.in_memory or not missing:
            ready(found)
            return
        self._counts.reads += 1

        def take(read: Found | None) -> None:
            if read is None:
                ready(None)
                return
            found.update({entry.pos: entry for entry in self._entries(read.rows)})
            ready(found)

        self.reader.find(missing, take)

    def look_up(self, event_id: str) -> Entry | None:
        """
        An event by its id, if it is in memory.
        """
        return self._tail.look_up(event_id)

    def _entries(self, rows: Sequence[Row]) -> list[Entry]:
        now = self._now()
        return [entry for row in rows if (entry := self._rows.entry(row, now)) is not None]

    def expire(self, most: int) -> bool:
        """
        Drop events from memory that have been kept for long enough.  The database is the numberer's.
        """
        return self._tail.expire(most)

    def report(self) -> LogReport:
        """
        The state of the log.
        """
        report: LogReport = {**self._tail.report(), "reason": self._reason}
        if self.in_memory:
            return report
        return {
            **report,
            "engine": "postgres",
            "state": self._state.value,
            "first": self.first,
            "events": len(self),
            "bytes": self.bytes,
            "maxBytes": self._max_bytes,
            "waiting": len(self._queue),
            "waitingBytes": self._queue.weight,
            "readsWaiting": self.reader.waiting,
            "inboxBytes": self._kept.inbox,
            "partitions": self._kept.partitions,
            "oldest": self._kept.oldest,
            "keep": self._keep,
            "heldSince": self._kept.held_since,
        }

    # what the numberer says

    def use_memory(self, reason: str) -> None:
        """
        The database has no log that can be used: this one is in memory.
        """
        self.in_memory = True
        self._reason = reason
        # from now on it is a loss
        self._tail.crowded = self._crowded
        for waiting in self._queue.take(len(self._queue), 1 << 62):
            published = waiting.published
            placed = Published(waiting.draft.id)
            self._tail.append(waiting.draft, placed)
            published.answer(placed.pos)

    @property
    def state(self) -> LogState:
        """
        What the log does.
        """
        return self._state

    def change_to(self, state: LogState, reason: str = "") -> None:
        """
        The state of the log has changed.
        """
        self._state, self._reason = state, reason

    def open(self, place: LogPlace, first: int) -> None:
        """
        The log was found, or is another one than before: go on from its end.

        @param first: its oldest position.
        """
        self.epoch = self._tail.epoch = place.epoch
        self._placed.clear()
        self._tail.start_at(place.head)
        self.fetched = place.head
        self.first = first
        self.last = place.last
        self._reset()
        self.is_open = True

    def lose(self) -> None:
        """
        Events were dropped from the log before they were read here: go on after them, and have all clients resume, so
        that those that miss something get a gap.
        """
        self._placed.clear()
        self._tail.start_at(self.first - 1)
        self.fetched = self.first - 1
        self.last = (0, "")
        self._reset()

    def kept(self, kept: Kept) -> None:
        """
        What is in the database now.
        """
        self.first, self.bytes, self._kept = kept.first, kept.bytes, kept

    def take(self, most: int, most_bytes: int) -> list[Waiting]:
        """
        What is to be logged with the next step.
        """
        batch = self._queue.take(most, most_bytes)
        for waiting in batch:
            self._sent[waiting.draft.id] = waiting.published
        return batch

    @property
    def has_waiting(self) -> bool:
        """
        True if something is to be logged.
        """
        return bool(len(self._queue))

    @property
    def is_delivering(self) -> bool:
        """
        True if events that have positions wait to be delivered.
        """
        return bool(self._placed)

    def looked(self) -> None:
        """
        The database has said what is in the log.
        """
        self._awaited.looked()

    def place(self, rows: Sequence[Row], published: Sequence[tuple[int, Draft]]) -> None:
        """
        A step has given positions to events of others, and after them to those that were published here.
        """
        events = [*((row.pos, self._rows.draft(row)) for row in rows), *published]
        if not events or events[0][0] != self.fetched + 1 or len(self._placed) > _FAR:
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

    def again(self, event_id: str, pos: int, first_id: str) -> None:
        """
        An event was not logged, because one was published before with the same key.

        @param pos: that one's position.
        @param first_id: its id.
        """
        published = self._sent.pop(event_id, None)
        if published is not None and published.waiting:
            published.id, published.duplicate = first_id, True
            published.answer(pos)

    def refuse(self, waiting: Waiting) -> None:
        """
        An event cannot be logged.
        """
        self._sent.pop(waiting.draft.id, None)
        if waiting.published.waiting:
            self._counts.refused.add_of(waiting.draft.publisher)
            waiting.published.answer(None)

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
        if self._awaited:
            self._awaited.read()
        if placed:
            self._later(0, self._deliver_on)

    def _deliver_on(self) -> None:
        self._deliver()
        if not self._delivering:
            # the numberer may have to read on; it looks by itself if it has not waited for this
            self.wake()

    def _deliver_one(self, pos: int, draft: Draft | None) -> None:
        # what is missing before it was deleted by somebody
        self._tail.skip_to(pos - 1)
        if draft is None:
            return
        self._tail.append(draft, Published(draft.id))
        self.last = (pos, draft.id)
        published = self._sent.pop(draft.id, None)
        if published is not None and published.waiting:
            published.answer(pos)

    def _watch(self) -> None:
        """
        See to it that what waits is answered in time.
        """
        if not self._timing:
            deadline = self._queue.next_deadline()
            if deadline is not None:
                self._timing = True
                self._later(max(0.01, deadline - self._now()), self._time_is_over)

    def _time_is_over(self) -> None:
        self._timing = False
        for waiting in self._queue.expire():
            self.refuse(waiting)
        self._watch()


def _nothing() -> None:
    pass
