"""
The log in memory: every logged event once, in one order, under a position, for a while (protocol, section 10).

Readers find the events of their channels without looking at those of others: the log is indexed by channel, and an
event that is mirrored to C{global} is in that index as well.

When there is no room, the publisher who takes most of it loses its oldest events first, so that nobody can push out
what others wait for.  What was pushed out is remembered per channel: a reader learns of a gap exactly if events of its
own channels are gone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from heapq import merge
from operator import attrgetter
from typing import NamedTuple

from dcm_ws.core.fairness import fair_level
from dcm_ws.protocol.channels import GLOBAL

_GLOBAL = GLOBAL.name
_OVERHEAD = 400
_EMPTY_MIN = 64
_CHANNELS_LOST_MAX = 10_000
_by_position = attrgetter("pos")


class Entry:
    """
    One event in the log.

    @ivar pos: its position, from 1.
    @ivar channel: the name of the channel that it was published to.
    @ivar frame: the event as the subscribers of that channel get it; empty once it has left the log.
    @ivar mirror: as the subscribers of C{global} get it; empty if it is not mirrored.
    @ivar tracked: clients acknowledge it.
    @ivar publisher: who pays for its room: an agent, or what stands for a source such as the database.
    @ivar logged_at: monotonic seconds.
    """

    __slots__ = ("channel", "frame", "gone", "id", "logged_at", "mirror", "pos", "publisher", "size", "tracked")

    def __init__(
        self,
        pos: int,
        event_id: str,
        channel: str,
        frame: bytes,
        mirror: bytes,
        tracked: bool,
        publisher: str,
        logged_at: float,
    ) -> None:
        self.pos = pos
        self.id = event_id
        self.channel = channel
        self.frame = frame
        self.mirror = mirror
        self.tracked = tracked
        self.publisher = publisher
        self.logged_at = logged_at
        self.size = len(frame) + len(mirror) + len(channel) + _OVERHEAD
        self.gone = False


Encode = Callable[[int], tuple[bytes, bytes]]
"""
Makes the frame of an event, and the one for C{global} or nothing, given its position.
"""


class Read(NamedTuple):
    """
    @ivar frames: what a reader of certain channels gets of the entry.
    """

    entry: Entry
    frames: tuple[bytes, ...]


class MemoryLog:
    """
    @param epoch: names this log: positions mean nothing in another one.
    @param now: monotonic seconds.
    @param keep: seconds for which an event is kept.
    @param max_events: events kept.
    @param max_bytes: bytes kept: of frames, and some hundred for each event.
    @param crowded: called with the publisher of each event that leaves before its time.

    @ivar head: the last position given; 0 before the first.
    @ivar bytes: bytes kept now.
    @ivar crowded_out: events that left before their time, since the start.
    """

    def __init__(
        self,
        epoch: str,
        now: Callable[[], float],
        *,
        keep: float,
        max_events: int,
        max_bytes: int,
        crowded: Callable[[str], object] | None = None,
    ) -> None:
        self.epoch = epoch
        self.head = 0
        self.bytes = 0
        self.crowded_out = 0
        self._now = now
        self._keep = keep
        self._crowded = crowded
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._kept = 0
        # some of them are gone
        self._order: deque[Entry] = deque()
        self._lanes: dict[str, _Lane] = {}
        self._shares: dict[str, _Share] = {}
        # the last position lost by channels that have nothing left, in the order of losing
        self._lost: OrderedDict[str, int] = OrderedDict()
        # the same for those beyond the limit
        self._all_lost = 0

    def __len__(self) -> int:
        """
        How many events are kept.
        """
        return self._kept

    @property
    def first(self) -> int:
        """
        The oldest position that is kept; the one after the head if none is.
        """
        self._skip_gone()
        return self._order[0].pos if self._order else self.head + 1

    def append(self, event_id: str, channel: str, tracked: bool, publisher: str, encode: Encode) -> Entry:
        """
        Log an event under the next position.

        @param encode: makes its frame, and the one for C{global}, given the position.
        """
        self.head = pos = self.head + 1
        frame, mirror = encode(pos)
        entry = Entry(pos, event_id, channel, frame, mirror, tracked, publisher, self._now())
        self.bytes += entry.size
        self._kept += 1
        self._order.append(entry)
        lanes, shares = self._lanes, self._shares
        for name in (channel, _GLOBAL) if mirror else (channel,):
            lane = lanes.get(name)
            if lane is None:
                lane = lanes[name] = _Lane()
            lane.entries.append(entry)
        share = shares.get(publisher)
        if share is None:
            share = shares[publisher] = _Share()
        share.entries.append(entry)
        share.bytes += entry.size
        if self.bytes > self._max_bytes or self._kept > self._max_events:
            self._make_room()
        return entry

    def complete(self, after: int, channels: Mapping[str, int]) -> bool:
        """
        Are all events of these channels kept that a reader of L{page} would get?
        """
        return all(self._lost_of(name) <= max(after, since) for name, since in channels.items())

    def page(self, after: int, channels: Mapping[str, int], most: int) -> list[Read]:
        """
        The next events of some channels, in the order of the log.  Costs what it returns, and the number of channels.

        @param after: the last position that the reader has.
        @param channels: by name, the position after which each is read.
        @param most: events, at most.
        """
        lanes = [
            _marked(lane.after(max(after, since)), name == _GLOBAL)
            for name, since in channels.items()
            if (lane := self._lanes.get(name)) is not None and lane.entries[-1].pos > max(after, since)
        ]
        found: list[Read] = []
        # by position, and the channel's own frame before the one for global: entries are never compared
        for _, mirrored, entry in lanes[0] if len(lanes) == 1 else merge(*lanes):
            frame = entry.mirror if mirrored and entry.mirror else entry.frame
            if found and found[-1].entry is entry:
                found[-1] = Read(entry, (*found[-1].frames, frame))
            elif len(found) == most:
                break
            else:
                found.append(Read(entry, (frame,)))
        return found

    def expire(self, most: int) -> bool:
        """
        Drop events that have been kept for long enough, C{most} at a time.  Returns if there may be more.
        """
        oldest = self._now() - self._keep
        for _ in range(most):
            self._skip_gone()
            if not self._order or self._order[0].logged_at > oldest:
                return False
            self._drop(self._order.popleft())
        return True

    def _skip_gone(self) -> None:
        while self._order and self._order[0].gone:
            self._order.popleft()

    def _make_room(self) -> None:
        """
        Shorten the largest shares until there is room for some more, so that this is done seldom.
        """
        self._shorten(self._max_bytes * 63 // 64, attrgetter("bytes"))
        self._shorten(self._max_events * 63 // 64, len)
        if len(self._order) > 2 * self._kept + _EMPTY_MIN:
            self._order = deque(entry for entry in self._order if not entry.gone)

    def _shorten(self, total: int, weight: Callable[[_Share], int]) -> None:
        level = fair_level(map(weight, self._shares.values()), total)
        for share in [share for share in self._shares.values() if weight(share) > level]:
            while weight(share) > level:
                entry = share.entries[0]
                self._drop(entry)
                self.crowded_out += 1
                if self._crowded is not None:
                    self._crowded(entry.publisher)

    def _drop(self, entry: Entry) -> None:
        """
        Forget an entry: the oldest of its publisher, as it is whenever the oldest of all is.
        """
        self.bytes -= entry.size
        self._kept -= 1
        share = self._shares[entry.publisher]
        share.entries.popleft()
        share.bytes -= entry.size
        if not share.entries:
            del self._shares[entry.publisher]
        entry.gone = True
        for name in (entry.channel, _GLOBAL) if entry.mirror else (entry.channel,):
            lane = self._lanes[name]
            lane.gone += 1
            lane.lost = max(lane.lost, entry.pos)
            if lane.gone == len(lane.entries):
                del self._lanes[name]
                self._remember_lost(name, lane.lost)
            elif lane.gone > _EMPTY_MIN + len(lane.entries) // 2:
                lane.compact()
        # whoever still holds the entry must not hold its bytes
        entry.frame = entry.mirror = b""

    def _remember_lost(self, channel: str, pos: int) -> None:
        self._lost[channel] = max(pos, self._lost.get(channel, 0))
        self._lost.move_to_end(channel)
        if len(self._lost) > _CHANNELS_LOST_MAX:
            _, lost = self._lost.popitem(last=False)
            self._all_lost = max(lost, self._all_lost)

    def _lost_of(self, channel: str) -> int:
        lane = self._lanes.get(channel)
        return max(lane.lost if lane else 0, self._lost.get(channel, 0), self._all_lost)


class _Lane:
    """
    The entries that the subscribers of one channel get, in the order of their positions.

    Entries that are gone stay in the list until they are half of it.

    @ivar gone: how many of them are gone.
    @ivar lost: the last position that is gone.
    """

    __slots__ = ("entries", "gone", "lost")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.gone = 0
        self.lost = 0

    def after(self, pos: int) -> Iterator[Entry]:
        """
        Those beyond a position.
        """
        entries = self.entries
        for index in range(bisect_right(entries, pos, key=_by_position), len(entries)):
            if not entries[index].gone:
                yield entries[index]

    def compact(self) -> None:
        self.entries = [entry for entry in self.entries if not entry.gone]
        self.gone = 0


class _Share:
    """
    What one publisher has in the log.

    @ivar bytes: of its entries.
    """

    __slots__ = ("bytes", "entries")

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self.entries)


def _marked(entries: Iterator[Entry], mirrored: bool) -> Iterator[tuple[int, bool, Entry]]:
    return ((entry.pos, mirrored, entry) for entry in entries)
