"""
What the service remembers of agents that are away: their subscriptions, and for some time what they miss (protocol,
sections 4 and 5).

What absent agents miss is in the log, and not held for each of them.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Set
from itertools import chain, islice
from typing import NamedTuple, TypeVar

from dcm_ws.core.changed import Changed
from dcm_ws.core.counts import Counts
from dcm_ws.core.fairness import shorten
from dcm_ws.core.tracked import Owed

KEEP_DELIVERIES = 300.0
"""
Seconds for which the deliveries of an absent agent are kept that is not durable.
"""

NOTHING_MISSED = 1 << 62
"""
In place of a position: the channel is subscribed to, and nothing is replayed.
"""

_OVERHEAD = 500
_CHANNEL_OVERHEAD = 200
"""
Bytes that an agent, and each of its channels, takes in addition to its name.
"""


class Absence(NamedTuple):
    """
    What an agent left behind.

    @ivar channels: what its last connection was subscribed to, with the position in each after which it has missed
        what was published.
    @ivar owed: what it had been sent and not acknowledged, by position, oldest first.
    @ivar durable: it has acknowledged something, on this connection or before, or has said that it will.
    @ivar left: when that connection ended, in ms since the epoch.
    """

    channels: Mapping[str, int]
    owed: Mapping[int, Owed]
    durable: bool = False
    left: int = 0


class _Remembered(NamedTuple):
    """
    The subscriptions of an agent.

    @ivar durable: as in L{Absence}.
    @ivar until: how long they are remembered (monotonic seconds).
    @ivar connection: the connection of the agent that had them.
    @ivar size: bytes that count as taken by them.
    """

    until: float
    channels: frozenset[str]
    connection: str
    durable: bool
    size: int


# each with the time until which it is kept (monotonic seconds)
_Absences = OrderedDict[str, tuple[float, Absence]]
_Kept = TypeVar("_Kept")


class AgentMemory:
    """
    Remembers agents that are away.

    @param now: monotonic seconds.
    @param counts: receives its counts.
    @param changed: receives the agents that are forgotten, or lose something.
    @param keep_deliveries: how long the deliveries of an absent agent that is durable are kept, in seconds.
    @param keep_subscriptions: how long the subscriptions of an absent agent are kept at least, in seconds; they are
        kept no shorter than the deliveries.
    @param max_agents: maximum agents remembered; beyond it an agent of the connection that was most of them is
        forgotten, and if none was several, the one that was away longest.
    @param max_agent_bytes: maximum bytes of the subscriptions remembered; beyond it, agents of the connections that
        were subscribed to most are forgotten.
    @param max_kept: maximum deliveries kept, in all; beyond it the agents that have most lose their oldest.  Their
        events are in the log.

    @ivar keep_deliveries: the parameter; it may be changed.
    @ivar kept: deliveries kept now.
    """

    def __init__(
        self,
        now: Callable[[], float],
        counts: Counts,
        changed: Changed,
        *,
        max_agents: int,
        max_agent_bytes: int,
        max_kept: int,
        keep_deliveries: float = KEEP_DELIVERIES,
        keep_subscriptions: float = 86_400.0,
    ) -> None:
        self._now = now
        self._counts = counts
        self._changed = changed
        self.keep_deliveries = keep_deliveries
        self._keep_subscriptions = keep_subscriptions
        self._max_agents = max_agents
        self._max_agent_bytes = max_agent_bytes
        self._max_kept = max_kept
        # these are in the order of leaving, so that what ends first is in front
        self._subscriptions: OrderedDict[str, _Remembered] = OrderedDict()
        # the agents that were each one connection, the first one first, and the connections that were several
        self._agents_of: dict[str, dict[str, None]] = {}
        self._several: set[str] = set()
        # of those that are durable, and of the others, which are kept for different times
        self._absences: tuple[_Absences, _Absences] = OrderedDict(), OrderedDict()
        self._subscription_bytes = 0
        self.kept = 0

    def __len__(self) -> int:
        """
        How many agents' subscriptions are remembered.
        """
        return len(self._subscriptions)

    @property
    def absent(self) -> int:
        """
        How many agents are away whose deliveries are kept.
        """
        return sum(map(len, self._absences))

    def clear(self) -> None:
        """
        Forget all agents.
        """
        for kept in (self._subscriptions, self._agents_of, self._several, *self._absences):
            kept.clear()
        self._subscription_bytes = self.kept = 0

    def is_durable(self, agent: str) -> bool:
        """
        True if it is remembered that C{agent} is durable: as long as its subscriptions are.
        """
        remembered = self._subscriptions.get(agent)
        return remembered is not None and remembered.durable and remembered.until > self._now()

    def kept_of(self, most: int) -> Iterator[tuple[str, int]]:
        """
        How many deliveries are kept for each absent agent, of C{most} agents at the most.
        """
        for agent, (_, absence) in islice(chain(*(kept.items() for kept in self._absences)), most):
            yield agent, len(absence.owed)

    def away(self) -> Iterator[str]:
        """
        The absent agents whose deliveries are kept.
        """
        return chain(*self._absences)

    def absence(self, agent: str) -> Absence | None:
        """
        What an agent left behind whose deliveries are kept.
        """
        for kept in self._absences:
            if agent in kept:
                return kept[agent][1]
        return None

    def remembers(self, agent: str) -> bool:
        """
        Are the subscriptions of an agent remembered?
        """
        return agent in self._subscriptions

    def left(self, agent: str, absence: Absence, connection: str = "") -> None:
        """
        The last connection of C{agent} has ended.

        @param connection: names it; empty if that does not matter.
        """
        self._keep(agent, absence, self._now() + self._keep_of(absence))
        self.remember(agent, frozenset(absence.channels), connection, durable=absence.durable)
        if self.kept > self._max_kept:
            self._shorten()

    def load(self, agent: str, absence: Absence, ago: float) -> None:
        """
        C{agent} left some time ago, as the database says.  L{loaded} has to be called after the last one.

        @param ago: seconds.
        """
        now = self._now() - ago
        if now + self._keep_of(absence) > self._now():
            self._keep(agent, absence, now + self._keep_of(absence))
        # each has a connection of its own: nobody knows any more which of them were one
        self.remember(agent, frozenset(absence.channels), f" loaded {agent}", durable=absence.durable, ago=ago)

    def loaded(self) -> None:
        """
        All have been loaded.
        """
        for kept in self._absences:
            _sort(kept, lambda one: one[0])
        _sort(self._subscriptions, lambda one: one.until)
        self.expire()
        if self.kept > self._max_kept:
            self._shorten()

    def take_over(self, agent: str, absence: Absence, ago: float) -> None:
        """
        Another node, or the database, had this of C{agent}, which is about to return.

        @param ago: seconds since it left.
        """
        if ago < self._keep_of(absence):
            # as if it had just left, so that those that have left earlier stay in front
            self.left(agent, absence, f" taken {agent}")
        elif ago < self._keep_subscriptions:
            self.remember(agent, frozenset(absence.channels), f" taken {agent}", durable=absence.durable)

    def settle(self, agent: str, event_id: str, pos: int) -> list[int]:
        """
        C{agent}, which is away, has acknowledged something at another node.

        @param event_id: empty if it has acknowledged everything up to C{pos}.
        @return: the positions of what was owed and is not any more.
        """
        settled: list[int] = []
        for kept in self._absences:
            entry = kept.get(agent)
            if entry is not None:
                until, absence = entry
                owed = {at: one for at, one in absence.owed.items() if (one.id != event_id if event_id else at > pos)}
                self.kept -= len(absence.owed) - len(owed)
                settled += absence.owed.keys() - owed.keys()
                channels = {name: max(place, pos) for name, place in absence.channels.items()}
                kept[agent] = until, absence._replace(owed=owed, channels=channels)
        return settled

    def release(self, agent: str) -> None:
        """
        Another node has C{agent} now: forget it, which is no loss.
        """
        self._take(agent)
        if agent in self._subscriptions:
            self._forget(agent)

    def _keep_of(self, absence: Absence) -> float:
        return self.keep_deliveries if absence.durable else min(KEEP_DELIVERIES, self.keep_deliveries)

    def _keep(self, agent: str, absence: Absence, until: float) -> None:
        self._take(agent)
        self._absences[not absence.durable][agent] = (until, absence)
        self.kept += len(absence.owed)

    def remember(
        self,
        agent: str,
        subscriptions: frozenset[str],
        connection: str = "",
        *,
        durable: bool = False,
        ago: float = 0.0,
    ) -> None:
        """
        Remember what a connection of C{agent} that has ended was subscribed to.

        @param durable: as in L{Absence}.
        @param ago: seconds since then.
        """
        if agent in self._subscriptions:
            self._forget(agent)
        until = self._now() - ago + max(self._keep_subscriptions, self.keep_deliveries)
        size = _OVERHEAD + sum(map(_size_of, subscriptions))
        self._subscriptions[agent] = _Remembered(until, subscriptions, connection, durable, size)
        self._subscription_bytes += size
        agents = self._agents_of.setdefault(connection, {})
        agents[agent] = None
        if connection and len(agents) > 1:
            self._several.add(connection)
        if len(self._subscriptions) > self._max_agents:
            most = max(self._several, key=lambda name: len(self._agents_of[name]), default=None)
            loser = next(iter(self._subscriptions if most is None else self._agents_of[most]))
            self._forget(loser)
            self._counts.limits.max_agents.add_of(loser)
            self._give_up(loser)
        if self._subscription_bytes > self._max_agent_bytes:
            self._forget_largest()

    def add(self, agent: str, channels: Set[str], *, durable: bool) -> None:
        """
        Remember some more subscriptions of C{agent}.

        @param durable: as in L{Absence}.
        """
        remembered = self._subscriptions.get(agent)
        known = frozenset[str]() if remembered is None else remembered.channels
        self.remember(agent, known | channels, f" taken {agent}", durable=durable)

    def _forget_largest(self) -> None:
        """
        Forget agents of the connections with the largest subscriptions until there is room for some more, so that this
        is done seldom.
        """
        sizes: defaultdict[str, int] = defaultdict(int)
        for one in self._subscriptions.values():
            sizes[one.connection] += one.size
        shorten(sizes, self._max_agent_bytes - self._max_agent_bytes // 64, self._forget_oldest)

    def _forget_oldest(self, connection: str) -> int:
        loser = next(iter(self._agents_of[connection]))
        size = self._forget(loser)
        self._counts.limits.max_agent_bytes.add_of(loser)
        self._give_up(loser)
        return size

    def _forget(self, agent: str) -> int:
        """
        Forget the subscriptions of C{agent}, and return the bytes that they took.
        """
        _, _, connection, _, size = self._subscriptions.pop(agent)
        self._changed.agent(agent)
        self._subscription_bytes -= size
        agents = self._agents_of[connection]
        del agents[agent]
        if len(agents) < 2:
            self._several.discard(connection)
        if not agents:
            del self._agents_of[connection]
        return size

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
            return Absence(dict.fromkeys(remembered.channels, NOTHING_MISSED), {})
        return absence

    def expire(self) -> None:
        """
        Forget what has expired.  The cost is that of what there is to forget.
        """
        now = self._now()
        while self._subscriptions:
            agent, remembered = next(iter(self._subscriptions.items()))
            if remembered.until > now:
                break
            self._forget(agent)
        for kept in self._absences:
            while kept:
                agent, (until, _) = next(iter(kept.items()))
                if until > now:
                    break
                self._give_up(agent)

    def _take(self, agent: str) -> Absence | None:
        for kept in self._absences:
            entry = kept.pop(agent, None)
            if entry is not None:
                self.kept -= len(entry[1].owed)
                return entry[1]
        return None

    def _give_up(self, agent: str) -> None:
        if absence := self._take(agent):
            self._count_lost(absence, len(absence.owed))

    def _shorten(self) -> None:
        """
        Give up the oldest deliveries of those agents that have most, until there is room for some more, so that this is
        done seldom.
        """
        numbers: defaultdict[str, int] = defaultdict(int)

        def drop(agent: str) -> int:
            numbers[agent] += 1
            return 1

        weights = {agent: len(absence.owed) for kept in self._absences for agent, (_, absence) in kept.items()}
        shorten(weights, self._max_kept - self._max_kept // 64, drop)
        for agent, lost in numbers.items():
            (kept,) = (one for one in self._absences if agent in one)
            until, absence = kept[agent]
            self._changed.agent(agent)
            self._counts.limits.max_kept.add_of(agent, lost)
            self.kept -= lost
            self._count_lost(absence, lost)
            rest = dict(islice(absence.owed.items(), lost, None))
            kept[agent] = (until, absence._replace(owed=rest))

    def _count_lost(self, absence: Absence, lost: int) -> None:
        if absence.durable:
            self._counts.deliveries.given_up += lost
        else:
            self._counts.deliveries.never_acknowledged += lost


def _sort(kept: OrderedDict[str, _Kept], until: Callable[[_Kept], float]) -> None:
    items = sorted(kept.items(), key=lambda item: until(item[1]))
    kept.clear()
    kept.update(items)


def _size_of(channel: str) -> int:
    return _CHANNEL_OVERHEAD + len(channel) * (1 if channel.isascii() else 4)
