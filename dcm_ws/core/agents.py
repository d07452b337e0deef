"""
What the service remembers of agents that are away: their subscriptions for a day, and for some minutes what they miss
(protocol, sections 4 and 5).

What absent agents miss is held once for all of them, in one log of the recent tracked events.  An agent that returns
receives the part of it that its subscriptions match.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from dcm_ws.core.counts import Counts
from dcm_ws.core.delivery import Tracked
from dcm_ws.protocol.channels import GLOBAL


class Absence(NamedTuple):
    """
    What an agent left behind.

    @ivar subscriptions: what its last connection was subscribed to.
    @ivar owed: what it had been sent and not acknowledged, oldest first.
    @ivar since: the last event that was published before it left.
    @ivar acknowledges: it has acknowledged something, on this connection or before.
    """

    subscriptions: frozenset[str]
    owed: Sequence[Tracked]
    since: int
    acknowledges: bool = False

    @property
    def size(self) -> int:
        """
        Bytes of the frames in C{owed}.
        """
        return sum(event.size for event in self.owed)


class _Recent(NamedTuple):
    seq: int
    id: str
    at: float
    channel: str
    frame: bytes
    mirror: bytes


class AgentMemory:
    """
    Remembers agents that are away, and logs the tracked events that they miss.

    @param now: monotonic seconds.
    @param counts: receives its counts.
    @param keep_deliveries: how long an absent agent's deliveries are kept, in seconds.
    @param keep_subscriptions: how long its subscriptions are, in seconds.
    @param max_agents: maximum agents remembered; beyond it the agent that was away longest is forgotten.
    @param max_kept: maximum deliveries kept, in all; beyond it those of the agent that left first are given up.
    @param max_events: maximum events in the log.
    @param max_bytes: maximum bytes of frames in the log, and as many again in the deliveries kept.

    @ivar kept: deliveries kept now.
    """

    def __init__(
        self,
        now: Callable[[], float],
        counts: Counts,
        *,
        max_agents: int,
        max_kept: int,
        max_events: int,
        max_bytes: int,
        keep_deliveries: float = 300.0,
        keep_subscriptions: float = 86_400.0,
    ) -> None:
        self._now = now
        self._counts = counts
        self._keep_deliveries = keep_deliveries
        self._keep_subscriptions = keep_subscriptions
        self._max_agents = max_agents
        self._max_kept = max_kept
        self._max_events = max_events
        self._max_bytes = max_bytes
        # both in the order of leaving, so that what ends first is in front
        self._subscriptions: OrderedDict[str, tuple[float, frozenset[str]]] = OrderedDict()
        self._absences: OrderedDict[str, tuple[float, Absence]] = OrderedDict()
        # agents that have acknowledged something, and until when that is remembered
        self._acknowledging: OrderedDict[str, float] = OrderedDict()
        self._log: deque[_Recent] = deque()
        self._log_bytes = 0
        self._kept_bytes = 0
        self.kept = 0

    def __len__(self) -> int:
        """
        How many agents' subscriptions are remembered.
        """
        return len(self._subscriptions)

    @property
    def absent(self) -> int:
        """
        How many agents have left within the last minutes, and not returned.
        """
        return len(self._absences)

    def acknowledged(self, agent: str) -> None:
        """
        C{agent} has acknowledged something.  Remembered as long as subscriptions, and of as many agents.
        """
        self._acknowledging[agent] = self._now() + self._keep_subscriptions
        self._acknowledging.move_to_end(agent)
        if len(self._acknowledging) > self._max_agents:
            self._acknowledging.popitem(last=False)

    def acknowledges(self, agent: str) -> bool:
        """
        True if it is remembered that C{agent} has acknowledged something.
        """
        return self._acknowledging.get(agent, 0.0) > self._now()

    def left(self, agent: str, absence: Absence) -> None:
        """
        A connection of C{agent} has ended.
        """
        now = self._now()
        if absence.acknowledges:
            self.acknowledged(agent)
        self._subscriptions[agent] = (
            now + self._keep_subscriptions,
            absence.subscriptions,
        )
        self._subscriptions.move_to_end(agent)
        if len(self._subscriptions) > self._max_agents:
            longest, _ = self._subscriptions.popitem(last=False)
            self._counts.limits.max_agents.add()
            self._give_up(longest)
        if earlier := self._take(agent):
            absence = _joined(earlier, absence)
        self._absences[agent] = (now + self._keep_deliveries, absence)
        self.kept += len(absence.owed)
        self._kept_bytes += absence.size
        while self.kept > self._max_kept or self._kept_bytes > self._max_bytes:
            oldest = next(iter(self._absences))
            self._counts.limits.max_kept.add(len(self._absences[oldest][1].owed))
            self._give_up(oldest)

    def returned(self, agent: str) -> Absence | None:
        """
        C{agent} is back: what is remembered of it.  Its subscriptions stay remembered.
        """
        self.expire()
        absence = self._take(agent)
        remembered = self._subscriptions.get(agent)
        if remembered is None:
            return None
        if absence is None:
            return Absence(remembered[1], (), -1)
        return absence._replace(subscriptions=remembered[1])

    def published(self, seq: int, event_id: str, channel: str, frame: bytes, mirror: bytes) -> None:
        """
        A tracked event was published: log it, if an agent is away.

        @param frame: the event as the subscribers of C{channel} receive it.
        @param mirror: as the subscribers of C{global} receive it; empty if they do not receive it.
        """
        if not self._absences:
            return
        self._log.append(_Recent(seq, event_id, self._now(), channel, frame, mirror))
        self._log_bytes += len(frame) + len(mirror)
        while len(self._log) > self._max_events or self._log_bytes > self._max_bytes:
            self._forget_oldest()
            self._counts.limits.max_recent_events.add()

    def missed(self, absence: Absence) -> Iterator[Tracked]:
        """
        What was published since C{absence} began, as far as its subscriptions match, the oldest first.
        """
        if absence.since < 0:
            return iter(())
        since = list(takewhile(lambda event: event.seq > absence.since, reversed(self._log)))
        return _matching(reversed(since), absence.subscriptions)

    def expire(self) -> None:
        """
        Forget what has expired.  The cost is that of what there is to forget.
        """
        now = self._now()
        while self._subscriptions:
            agent, (until, _) = next(iter(self._subscriptions.items()))
            if until > now:
                break
            del self._subscriptions[agent]
        while self._acknowledging:
            agent, forget_at = next(iter(self._acknowledging.items()))
            if forget_at > now:
                break
            del self._acknowledging[agent]
        while self._absences:
            agent, (until, _) = next(iter(self._absences.items()))
            if until > now:
                break
            self._give_up(agent)
        oldest = now - self._keep_deliveries
        while self._log and (not self._absences or self._log[0].at < oldest):
            self._forget_oldest()

    def _take(self, agent: str) -> Absence | None:
        entry = self._absences.pop(agent, None)
        if entry is None:
            return None
        self.kept -= len(entry[1].owed)
        self._kept_bytes -= entry[1].size
        return entry[1]

    def _give_up(self, agent: str) -> None:
        if absence := self._take(agent):
            if absence.acknowledges:
                self._counts.deliveries.given_up += len(absence.owed)
            else:
                self._counts.deliveries.never_acknowledged += len(absence.owed)

    def _forget_oldest(self) -> None:
        event = self._log.popleft()
        self._log_bytes -= len(event.frame) + len(event.mirror)


def _matching(events: Iterable[_Recent], subscriptions: frozenset[str]) -> Iterator[Tracked]:
    everything = GLOBAL.name in subscriptions
    for event in events:
        frames: tuple[bytes, ...] = (event.frame,) if event.channel in subscriptions else ()
        if everything and event.mirror:
            frames += (event.mirror,)
        if frames:
            yield Tracked(event.seq, event.id, frames)


def _joined(earlier: Absence, later: Absence) -> Absence:
    """
    Two connections of one agent ended: it owes what either of them did, and was here until the later one left.
    """
    owed = {event.id: event for event in (*earlier.owed, *later.owed)}
    return later._replace(
        owed=sorted(owed.values(), key=lambda event: event.seq),
        acknowledges=earlier.acknowledges or later.acknowledges,
    )
