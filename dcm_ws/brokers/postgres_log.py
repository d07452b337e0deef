"""
The log in PostgreSQL, as the core sees it (protocol, section 10).

What clients publish waits for the next numbering step, which the L{Numberer} runs.  What the step has put into the log
is delivered in the order of positions.  The last events are kept in memory as well, so readers near the head are
answered at once; all others are answered from the database.

Where a database has no log, the same memory is the whole log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol

from dcm_ws.brokers.awaited import Awaited
from dcm_ws.brokers.log_delivery import LogDelivery
from dcm_ws.brokers.log_rows import LogRows, Row
from dcm_ws.brokers.publishes import Publishes
from dcm_ws.core.counts import EngineCounts
from dcm_ws.core.entries import Draft, Entry, Page, Published
from dcm_ws.core.log import MemoryLog
from dcm_ws.core.ports import Deliver, Later, LogReport
from dcm_ws.core.publish_queue import PublishQueue
from dcm_ws.postgres.log_place import LogPlace
from dcm_ws.postgres.upkeep import Kept


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
    @ivar publishes: what clients have published here, and the log has not answered yet.
    @ivar delivery: delivers what is in the log.
    @ivar wake: called when something waits to be logged, or all that was here has been delivered.
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
        self._counts = counts
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
        self._kept = Kept()
        self._shares = shares
        self._awaited = Awaited(later, now, lambda: self.head)
        self.publishes = Publishes(queue, counts, later=later, now=now)
        self.delivery = LogDelivery(
            tail,
            rows,
            later=later,
            now=now,
            logged=self.publishes.logged,
            advanced=self._awaited.read,
            done=lambda: self.wake(),
        )

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
        elif self.publishes.put(((draft, published),)):
            self.wake()

    def append_all(self, publishes: Sequence[tuple[Draft, Published]], later: Later) -> None:
        """
        Log events together with the next numbering step.
        """
        if self.in_memory:
            self._tail.append_all(publishes, later)
        elif self.publishes.put(publishes):
            self.wake()

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
            "waiting": len(self.publishes),
            "waitingBytes": self.publishes.weight,
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
        for waiting in self.publishes.withdraw():
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
        self.delivery.start_at(place.head, place.last)
        self.first = first
        self._reset()
        self.is_open = True

    def lose(self) -> None:
        """
        Events were dropped from the log before they were read here: go on after them, and have all clients resume, so
        that those that miss something get a gap.
        """
        self.delivery.start_at(self.first - 1, (0, ""))
        self._reset()

    def kept(self, kept: Kept) -> None:
        """
        What is in the database now.
        """
        self.first, self.bytes, self._kept = kept.first, kept.bytes, kept

    def looked(self) -> None:
        """
        The database has said what is in the log.
        """
        self._awaited.looked()


def _nothing() -> None:
    pass
