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
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from heapq import merge
from operator import attrgetter

from msgspec import Struct

from dcm_ws.core.fairness import shorten
from dcm_ws.protocol.channels import GLOBAL, Channel
from dcm_ws.protocol.replies import event_frame, mirror_frame, to_json

_GLOBAL = GLOBAL.name
_OVERHEAD = 400
_EMPTY_MIN = 64
_CHANNELS_LOST_MAX = 10_000
_ROOM_EVENTS = 1000
_ROOM_BYTES = 1 << 20
_by_position = attrgetter("pos")
_is_kept = attrgetter("frame")


class Entry(Struct, gc=False):
    """
    One event in the log.

    The garbage collector does not track it: it refers to nothing that refers back, and a full collection that visits
    100,000 entries would stop the service for some 20 ms.

    @ivar pos: its position, from 1.
    @ivar channel: the channel that it was published to.
    @ivar frame: the event as the subscribers of that channel get it; empty once it has left the log.
    @ivar mirrored: the subscribers of C{global} get it, too.
    @ivar tracked: clients acknowledge it.
    @ivar publisher: who pays for its room: an agent, or what stands for a source such as the database.
    @ivar logged_at: monotonic seconds.
    """

    pos: int
    id: str
    channel: str
    frame: bytes
    mirrored: bool
    tracked: bool
    publisher: str
    logged_at: float

    @property
    def gone(self) -> bool:
        """
        It has left the log.
        """
        return not self.frame

    @property
    def mirror(self) -> bytes:
        """
        The event as the subscribers of C{global} get it; made each time, since few ask for it and it would take as much
        room as the frame.  Empty if it is not mirrored, or has left the log.
        """
        return mirror_frame(self.frame, self.id, to_json(self.channel)) if self.mirrored and self.frame else b""


class MemoryLog:
    """
    @param epoch: names this log: positions mean nothing in another one.
    @param now: monotonic seconds.
    @param keep: seconds for which an event is kept.
    @param max_events: events kept.
    @param max_bytes: bytes kept: of frames, and some hundred for each event.
    @param crowded: called with a publisher and the number of its events that have just left before their time.

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
        crowded: Callable[[str, int], object] | None = None,
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
        self._dropped = 0
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
        return self.head - self._dropped

    @property
    def first(self) -> int:
        """
        The oldest position that is kept; the one after the head if none is.
        """
        self._skip_gone()
        return self._order[0].pos if self._order else self.head + 1

    def append(
        self,
        event_id: str,
        channel: Channel,
        event: str,
        data: bytes,
        timestamp: int,
        sender: bytes,
        mirrored: bool,
        tracked: bool,
        publisher: str,
    ) -> Entry:
        """
        Log an event under the next position.

        @param event_id: and what comes after it up to C{sender}: as in L{event_frame}.
        @param mirrored: as in L{Entry}, as is what comes after it.
        """
        self.head = pos = self.head + 1
        name = channel.name
        frame = event_frame(event_id, channel.json, event, data, timestamp, sender, pos)
        entry = Entry(pos, event_id, name, frame, mirrored, tracked, publisher, self._now())
        size = len(frame) + len(name) + _OVERHEAD
        if self.bytes + size > self._max_bytes or pos - self._dropped > self._max_events:
            self._make_room(size)
        self.bytes += size
        self._order.append(entry)
        lanes = self._lanes
        try:
            lanes[name].entries.append(entry)
        except KeyError:
            lanes[name] = _Lane(entry)
        if mirrored:
            try:
                lanes[_GLOBAL].entries.append(entry)
            except KeyError:
                lanes[_GLOBAL] = _Lane(entry)
        try:
            share = self._shares[publisher]
            share.entries.append(entry)
            share.bytes += size
        except KeyError:
            self._shares[publisher] = _Share(entry, size)
        return entry

    def complete(self, after: int, channels: Mapping[str, int]) -> bool:
        """
        Are all events of these channels kept that a reader of L{page} would get?
        """
        return all(self._lost_of(name) <= max(after, since) for name, since in channels.items())

    def page(self, after: int, channels: Mapping[str, int], most: int) -> list[Entry]:
        """
        The next events of some channels, in the order of the log.  Costs what it returns, and the number of channels.

        @param after: the last position that the reader has.
        @param channels: by name, the position after which each is read.
        @param most: events, at most.
        """
        lanes = [
            lane.after(start)
            for name, since in channels.items()
            if (lane := self._lanes.get(name)) is not None and lane.entries[-1].pos > (start := max(after, since))
        ]
        found: list[Entry] = []
        last = None
        for entry in lanes[0] if len(lanes) == 1 else merge(*lanes, key=_by_position):
            # an event comes twice if both its channel and global are read
            if entry is not last:
                if len(found) == most:
                    break
                found.append(entry)
                last = entry
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
            # the oldest of all is the oldest of its publisher
            self._drop(self._shares[self._order.popleft().publisher])
        return True

    def _skip_gone(self) -> None:
        order = self._order
        while order and not order[0].frame:
            order.popleft()

    def _make_room(self, size: int) -> None:
        """
        Shorten the largest shares until there is room for one more event, and for some others, so that this is done
        seldom; but not for so many that it takes long.

        @param size: bytes of that event.
        """
        if self.bytes + size > self._max_bytes:
            room = size + min(self._max_bytes // 64, _ROOM_BYTES)
            self._shorten({name: share.bytes for name, share in self._shares.items()}, self._max_bytes - room, int)
        if len(self) > self._max_events:
            room = 1 + min(self._max_events // 64, _ROOM_EVENTS)
            shares = {name: len(share.entries) for name, share in self._shares.items()}
            self._shorten(shares, self._max_events - room, bool)
        self._skip_gone()
        if len(self._order) > 2 * len(self) + _EMPTY_MIN:
            self._order = deque(filter(_is_kept, self._order))

    def _shorten(self, weights: Mapping[str, int], total: int, weight: Callable[[int], int]) -> None:
        """
        @param weights: what each publisher has.
        @param weight: of an event of so many bytes.
        """
        lost: defaultdict[str, int] = defaultdict(int)

        def drop(publisher: str) -> int:
            lost[publisher] += 1
            return weight(self._drop(self._shares[publisher]))

        shorten(weights, max(total, 0), drop)
        for publisher, number in lost.items():
            self.crowded_out += number
            if self._crowded is not None:
                self._crowded(publisher, number)

    def _drop(self, share: _Share) -> int:
        """
        Forget the oldest entry of a publisher; return the bytes that it took.
        """
        entry = share.entries.popleft()
        size = len(entry.frame) + len(entry.channel) + _OVERHEAD
        self.bytes -= size
        self._dropped += 1
        share.bytes -= size
        if not share.entries:
            del self._shares[entry.publisher]
        # whoever still holds the entry must not hold its bytes
        entry.frame = b""
        self._drop_from(entry.channel, entry.pos)
        if entry.mirrored:
            self._drop_from(_GLOBAL, entry.pos)
        return size

    def _drop_from(self, channel: str, pos: int) -> None:
        lane = self._lanes[channel]
        lane.gone += 1
        if pos > lane.lost:
            lane.lost = pos
        if lane.gone == len(lane.entries):
            del self._lanes[channel]
            self._remember_lost(channel, lane.lost)
        elif lane.gone > _EMPTY_MIN + len(lane.entries) // 2:
            lane.compact()

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

    def __init__(self, entry: Entry) -> None:
        self.entries = [entry]
        self.gone = 0
        self.lost = 0

    def after(self, pos: int) -> Iterator[Entry]:
        """
        Those beyond a position.
        """
        entries = self.entries
        for index in range(bisect_right(entries, pos, key=_by_position), len(entries)):
            entry = entries[index]
            if entry.frame:
                yield entry

    def compact(self) -> None:
        self.entries = list(filter(_is_kept, self.entries))
        self.gone = 0


class _Share:
    """
    What one publisher has in the log.

    @ivar bytes: of its entries.
    """

    __slots__ = ("bytes", "entries")

    def __init__(self, entry: Entry, size: int) -> None:
        self.entries = deque((entry,))
        self.bytes = size
