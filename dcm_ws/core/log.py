"""
The log in memory: every logged event once, in one order, under a position, for a while (protocol, section 10).

Readers find the events of their channels without looking at those of others: the log is indexed by channel, and an
event that is mirrored to C{global} is in that index as well.

When there is no room, the publisher who takes most of it loses its oldest events first, so that nobody can push out
what others wait for.  What was pushed out is remembered per channel: a reader learns of a gap exactly if events of its
own channels are gone.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from itertools import islice

from dcm_ws.core.entries import Draft, Entry, Page, Published
from dcm_ws.core.fairness import shorten
from dcm_ws.core.ports import Deliver, Later, LogReport, Reset
from dcm_ws.protocol.channels import GLOBAL
from dcm_ws.protocol.replies import event_frame

_GLOBAL = GLOBAL.name
_OVERHEAD = 400
_EMPTY_MIN = 64
_CHANNELS_LOST_MAX = 10_000
_ROOM_EVENTS = 1000
_ROOM_BYTES = 1 << 20
_LANE_PART = 16
_SLICE_SECONDS = 0.005


class MemoryLog:
    """
    The L{Log} of one process.  It answers everything at once, and refuses nothing.

    Another engine can keep its last events in it: then it gives them the positions that they have there, with
    L{start_at} and L{skip_to}.

    @param epoch: names this log: positions mean nothing in another one.
    @param now: monotonic seconds.
    @param keep: seconds for which an event is kept.
    @param max_events: events kept.
    @param max_bytes: bytes kept: of frames, and some hundred for each event.
    @param crowded: called with a publisher and the number of its events that have just left before their time.
    @param wall_ms: ms since the epoch, for the report; None if it need not know.

    @ivar is_known: true: the log begins with the process.
    @ivar head: the last position given; 0 before the first.
    @ivar bytes: bytes kept now.
    @ivar crowded: as the parameter.
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
        wall_ms: Callable[[], int] | None = None,
    ) -> None:
        self.epoch = epoch
        self.is_known = True
        self.head = 0
        self.bytes = 0
        self._now = now
        self._wall_ms = wall_ms
        self._deliver: Deliver = _nobody
        self._keep = keep
        self.crowded = crowded
        self._max_events = max_events
        self._max_bytes = max_bytes
        # what is kept, in the order of positions
        self._entries: dict[int, Entry] = {}
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
        return len(self._entries)

    @property
    def first(self) -> int:
        """
        The oldest position that is kept; the one after the head if none is.
        """
        return next(iter(self._entries), self.head + 1)

    def attach(self, deliver: Deliver, reset: Reset) -> None:
        """
        Have C{deliver} called with each event that gets a position.  This log never becomes another one by itself.
        """
        self._deliver = deliver

    def start_at(self, head: int) -> None:
        """
        Forget everything, and go on after C{head}: what is before counts as gone.
        """
        self.head = self._all_lost = head
        self.bytes = 0
        self._lost.clear()
        for kept in (self._entries, self._lanes, self._shares):
            kept.clear()

    def skip_to(self, pos: int) -> None:
        """
        Nobody gets an event at the next positions, up to C{pos}.
        """
        self.head = max(self.head, pos)

    def append(self, draft: Draft, published: Published) -> None:
        """
        Log an event under the next position, and deliver it.
        """
        self.head = pos = self.head + 1
        event_id, channel, publisher, mirrored = draft.id, draft.channel, draft.publisher, draft.mirrored
        name = channel.name
        frame = event_frame(event_id, channel.json, draft.event, draft.data, draft.timestamp, draft.sender, pos)
        size = len(frame) + len(name) + _OVERHEAD
        entries, lanes = self._entries, self._lanes
        if self.bytes + size > self._max_bytes or len(entries) >= self._max_events:
            self._make_room(size)
        self.bytes += size
        entries[pos] = Entry(pos, event_id, name, draft.named, frame, mirrored, draft.tracked, publisher, self._now())
        try:
            lanes[name].positions.append(pos)
        except KeyError:
            lanes[name] = _Lane(pos)
        if mirrored:
            try:
                lanes[_GLOBAL].positions.append(pos)
            except KeyError:
                lanes[_GLOBAL] = _Lane(pos)
        try:
            share = self._shares[publisher]
            share.positions.append(pos)
            share.bytes += size
        except KeyError:
            self._shares[publisher] = _Share(pos, size)
        self._deliver(draft, pos, frame)
        published.pos = pos

    def append_all(self, publishes: Sequence[tuple[Draft, Published]], later: Later) -> None:
        """
        Log events together, and deliver them, in several turns if that takes long.
        """
        self._append_some(deque(publishes), later)

    def _append_some(self, publishes: deque[tuple[Draft, Published]], later: Later) -> None:
        until = self._now() + _SLICE_SECONDS
        while publishes:
            draft, published = publishes.popleft()
            late = published.waiting
            self.append(draft, published)
            if late:
                published.answer(published.pos)
            if publishes and self._now() >= until:
                for _, published in publishes:
                    published.waiting = True
                later(partial(self._append_some, publishes, later))
                return

    def complete(self, after: int, channels: Mapping[str, int]) -> bool:
        """
        Are all events of these channels kept that a reader of L{page} would get?
        """
        return not self.lost_after(after, channels)

    def reach(self, pos: int, ready: Callable[[bool], object]) -> None:
        """
        See L{Log<dcm_ws.core.ports.Log>}.  No other node has more of this log.
        """
        ready(True)

    def page(self, after: int, channels: Mapping[str, int], most: int, ready: Callable[[Page | None], object]) -> None:
        """
        Read the next events of some channels, in the order of the log.  Costs what it returns, and the number of
        channels.

        @param after: the last position that the reader has.
        @param channels: by name, the position after which each is read.
        @param most: events, at most.
        @param ready: receives them at once.
        """
        entries, upto = self._read(after, channels, most)
        ready(Page(entries, upto, self.lost_after(after, channels)))

    def _read(self, after: int, channels: Mapping[str, int], most: int) -> tuple[list[Entry], int]:
        """
        The entries of a page, and the position up to which these are all.
        """
        lanes = [(lane, since) for name, since in channels.items() if (lane := self._lanes.get(name)) is not None]
        kept = self._entries
        # what so many lanes have: no less than the page, and not much more
        part = max(_LANE_PART, 2 * most // max(1, len(lanes)))
        while True:
            end = self.head
            # an event comes twice if both its channel and global are read
            found: set[int] = set()
            for lane, since in lanes:
                positions = lane.positions
                first = bisect_right(positions, max(after, since), lane.start)
                some = positions[first : first + part]
                found.update(some)
                if len(some) == part:
                    # beyond its last one there may be others that come first
                    end = min(end, some[-1])
            page = [kept[pos] for pos in sorted(found) if pos <= end and pos in kept]
            if len(page) > most:
                return page[:most], page[most - 1].pos
            if page or end == self.head:
                return page, end
            after = end

    def find(self, positions: Sequence[int], ready: Callable[[Mapping[int, Entry] | None], object]) -> None:
        """
        Read single events.

        @param ready: receives at once those of them that are in the log.
        """
        kept = self._entries
        ready({pos: kept[pos] for pos in positions if pos in kept})

    def look_up(self, event_id: str) -> Entry | None:
        """
        An event by its id; None if the log does not have it.  The latest are looked at first: 100,000 take 4 ms.
        """
        return next((entry for entry in reversed(self._entries.values()) if entry.id == event_id), None)

    def expire(self, most: int) -> bool:
        """
        Drop events that have been kept for long enough, C{most} at a time.  Returns if there may be more.
        """
        oldest = self._now() - self._keep
        expired = [entry for entry in islice(self._entries.values(), most) if entry.logged_at <= oldest]
        for entry in expired:
            # the oldest of all is the oldest of its publisher
            self._drop(self._shares[entry.publisher])
        return len(expired) == most

    def report(self) -> LogReport:
        """
        Return the state of the log.
        """
        oldest = next(iter(self._entries.values()), None)
        logged_ms = None
        if oldest is not None and self._wall_ms is not None:
            logged_ms = self._wall_ms() - round((self._now() - oldest.logged_at) * 1000)
        return {
            "engine": "memory",
            "state": "up",
            "reason": "",
            "epoch": self.epoch,
            "head": self.head,
            "first": self.first,
            "events": len(self),
            "bytes": self.bytes,
            "maxBytes": self._max_bytes,
            "waiting": 0,
            "waitingBytes": 0,
            "readsWaiting": 0,
            "inboxBytes": 0,
            "partitions": 0,
            "heldSince": None,
            "oldest": logged_ms,
            "keep": self._keep,
        }

    def _make_room(self, size: int) -> None:
        """
        Shorten the largest shares until there is room for one more event, and for some others, so that this is done
        seldom; but not for so many that it takes long.

        @param size: bytes of that event.
        """
        if self.bytes + size > self._max_bytes:
            room = size + min(self._max_bytes // 64, _ROOM_BYTES)
            self._shorten({name: share.bytes for name, share in self._shares.items()}, self._max_bytes - room, int)
        if len(self) >= self._max_events:
            room = 1 + min(self._max_events // 64, _ROOM_EVENTS)
            shares = {name: len(share) for name, share in self._shares.items()}
            self._shorten(shares, self._max_events - room, bool)

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
            if self.crowded is not None:
                self.crowded(publisher, number)

    def _drop(self, share: _Share) -> int:
        """
        Forget the oldest entry of a publisher; return the bytes that it took.
        """
        pos = share.positions[share.start]
        entry = self._entries.pop(pos)
        size = len(entry.frame) + len(entry.channel) + _OVERHEAD
        self.bytes -= size
        share.bytes -= size
        if share.drop(pos, self._entries):
            del self._shares[entry.publisher]
        # a page that still has the entry must not keep its bytes in memory
        entry.frame = b""
        for name in (entry.channel, _GLOBAL) if entry.mirrored else (entry.channel,):
            lane = self._lanes[name]
            if lane.drop(pos, self._entries):
                del self._lanes[name]
                self._remember_lost(name, lane.lost)
        return size

    def _remember_lost(self, channel: str, pos: int) -> None:
        self._lost[channel] = max(pos, self._lost.get(channel, 0))
        self._lost.move_to_end(channel)
        if len(self._lost) > _CHANNELS_LOST_MAX:
            _, lost = self._lost.popitem(last=False)
            self._all_lost = max(lost, self._all_lost)

    def lost_after(self, after: int, channels: Mapping[str, int]) -> int:
        """
        The last position of what a reader of L{page} would get and is gone; 0 if nothing is.
        """
        lost = ((self._lost_of(name), since) for name, since in channels.items())
        return max((pos for pos, since in lost if pos > max(after, since)), default=0)

    def _lost_of(self, channel: str) -> int:
        lane = self._lanes.get(channel)
        return max(lane.lost if lane else 0, self._lost.get(channel, 0), self._all_lost)


def _nobody(draft: Draft, pos: int, frame: bytes) -> None:
    pass


class _Lane:
    """
    The positions of the events that the subscribers of one channel get, in their order.

    They are numbers in an array, and not references to the entries: what looks for one, or drops some, touches only the
    array and not objects all over the memory, and the garbage collector has nothing to visit.

    @ivar start: where the first one is that has not gone.
    @ivar gone: how many have gone after that one.
    @ivar lost: the last position that has gone.
    """

    __slots__ = ("gone", "lost", "positions", "start")

    def __init__(self, pos: int) -> None:
        self.positions = array("Q", (pos,))
        self.start = 0
        self.gone = 0
        self.lost = 0

    def __len__(self) -> int:
        return len(self.positions) - self.start - self.gone

    def drop(self, pos: int, kept: Container[int]) -> bool:
        """
        C{pos} has gone.  Returns if it was the only one.

        @param kept: the positions that have not gone.
        """
        positions, start = self.positions, self.start
        if pos > self.lost:
            self.lost = pos
        if positions[start] != pos:
            self.gone += 1
            if self.gone > _EMPTY_MIN + len(positions) // 2:
                self.positions = array("Q", [one for one in positions[start:] if one in kept])
                self.start = self.gone = 0
            return False
        start += 1
        while self.gone and positions[start] not in kept:
            self.gone -= 1
            start += 1
        if start == len(positions):
            return True
        if start > _EMPTY_MIN + len(positions) // 2:
            del positions[:start]
            start = 0
        self.start = start
        return False


class _Share(_Lane):
    """
    What one publisher has in the log; its oldest events go first.

    @ivar bytes: of its events.
    """

    __slots__ = ("bytes",)

    def __init__(self, pos: int, size: int) -> None:
        super().__init__(pos)
        self.bytes = size
