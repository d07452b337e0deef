"""
The database that the nodes of a simulated cluster have in common: who is there, who leads, the log and its inbox; and
the way to it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from dcm_ws.brokers.log_rows import Row
from dcm_ws.brokers.postgres_log import Found
from dcm_ws.core.entries import Draft
from dcm_ws.postgres.agent_rows import StoredLetter
from dcm_ws.postgres.connection import DatabaseUnavailableError
from dcm_ws.protocol.channels import GLOBAL
from tests.simulation.clock import Process, SimClock

UNSEEN_SECONDS = 10.0
SESSION_SECONDS = 5.0
"""
Seconds after which the database ends the session of a process that says nothing.
"""


class AgentRow:
    """
    A row of the table of agents.
    """

    __slots__ = ("gen", "node", "state")

    def __init__(self, state: str, node: int | None, gen: int) -> None:
        self.state = state
        self.node = node
        self.gen = gen


class Look(NamedTuple):
    """
    What a node reads of the log.

    @ivar leads: it leads from now on.
    @ivar first: the oldest position that is kept.
    """

    leads: bool
    first: int
    head: int
    rows: list[Row]


class Database:
    """
    What all nodes have in common.

    @param keep: seconds for which events are kept.

    @ivar nodes: those that are registered, each with the time at which it was last seen; without those that are fenced.
    @ivar statements: how often each was executed; and C{rows}: how many rows they read and wrote.
    @ivar is_away: no statement is answered.
    @ivar delay: the shortest and the longest time that a statement takes to the database, and its answer back.
    @ivar silences: seconds after which a process that does not reach it may notice that.
    @ivar log: all events that there ever were, from position 1.
    """

    def __init__(self, clock: SimClock, random: Random, keep: float = 86_400.0) -> None:
        self.clock = clock
        self.random = random
        self.keep = keep
        self.is_away = False
        self.delay = (0.0005, 0.003)
        self.silences: tuple[float, ...] = (0.002, 0.5, 3.0)
        self.nodes: dict[int, float] = {}
        self.statements: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.registered = 0
        self.leader: Link | None = None
        self.links: dict[Link, None] = {}
        self.log: list[Row] = []
        self._logged_at: list[float] = []
        self.first = 1
        self.inbox: list[Draft] = []
        self._by_channel: defaultdict[str, list[int]] = defaultdict(list)
        self.agents: dict[str, AgentRow] = {}
        # by node and number, the changes of each agent
        self.journal: defaultdict[int, dict[int, dict[str, Any]]] = defaultdict(dict)
        self.journal_rows = 0
        # by agent and id
        self.dead: defaultdict[str, dict[str, StoredLetter]] = defaultdict(dict)
        self.requests: dict[tuple[str, str], str] = {}

    # nodes

    def register(self) -> int:
        self.registered += 1
        self.nodes[self.registered] = self.clock.seconds()
        return self.registered

    def lives(self, node: int | None) -> bool:
        return node in self.nodes

    def beat(self, node: int) -> int:
        if node not in self.nodes:
            return 0
        self.nodes[node] = self.clock.seconds()
        return len(self.nodes)

    def fence(self, node: int) -> list[int]:
        """
        What the leader does with nodes that it has not seen for long; returns which they were.
        """
        since = self.clock.seconds() - UNSEEN_SECONDS
        unseen = [other for other, seen in self.nodes.items() if seen < since and other != node]
        for other in unseen:
            del self.nodes[other]
        return unseen

    # the log

    @property
    def head(self) -> int:
        return len(self.log)

    def look(self, link: Link, after: int, most: int) -> Look:
        """
        One look of a node that does not lead.
        """
        if self.leader is None:
            self.leader = link
        return self._read(link, after, most)

    def _read(self, link: Link, after: int, most: int) -> Look:
        rows = self.log[max(after, self.first - 1) :][:most]
        self.rows["log"] += len(rows)
        return Look(self.leader is link, self.first, self.head, rows)

    def put(self, drafts: Sequence[Draft]) -> None:
        """
        What a node that does not lead publishes.
        """
        self.rows["inbox"] += len(drafts)
        self.inbox += drafts
        leader = self.leader
        if leader is not None and drafts:
            leader.notify()

    def number(self, link: Link, drafts: Sequence[Draft], after: int, most: int) -> Look:
        """
        A step of the leader.
        """
        inbox, self.inbox = self.inbox, []
        now = self.clock.seconds()
        for draft in (*inbox, *drafts):
            pos = len(self.log) + 1
            channel = draft.channel.name
            row = Row(
                pos,
                draft.id,
                channel,
                draft.event,
                draft.data.decode(),
                draft.timestamp,
                draft.sender.decode() or None,
                draft.named,
                draft.publisher,
                draft.mirrored,
            )
            self.log.append(row)
            self._logged_at.append(now)
            self._by_channel[channel].append(pos)
            self.rows["numbered"] += 1
        if inbox or drafts:
            for other in self.links:
                if other is not link:
                    other.notify()
        while self.first <= len(self.log) and self._logged_at[self.first - 1] < now - self.keep:
            self.first += 1
        return self._read(link, after, most)

    def page(self, lanes: Mapping[str, int], head: int, most: int) -> Found:
        """
        The next events of some channels.
        """
        found: set[int] = set()
        for name, after in lanes.items():
            after = max(after, self.first - 1)
            if name == GLOBAL.name:
                found.update(row.pos for row in self.log[after:head] if row.mirrored or row.channel == name)
            else:
                positions = self._by_channel[name]
                found.update(positions[bisect_right(positions, after) :])
        rows = [self.log[pos - 1] for pos in sorted(found) if pos <= head]
        self.rows["page"] += len(rows[:most])
        return Found(rows[:most], len(rows) <= most)

    def find(self, positions: Sequence[int]) -> Found:
        self.rows["find"] += len(positions)
        return Found([self.log[pos - 1] for pos in positions if self.first <= pos <= self.head], True)

    def numbers_of(self, channel: str) -> list[tuple[int, int]]:
        """
        Position and number of each event that was ever logged on a channel.
        """
        return [(pos, int(self.log[pos - 1].data)) for pos in self._by_channel.get(channel, ())]


class Link:
    """
    The way of one process to the database.

    @ivar woken: called when the database notifies the process that the log has grown, or may.
    """

    def __init__(self, database: Database, process: Process) -> None:
        self.database = database
        self.process = process
        self.is_up = True
        self.woken: Callable[[], object] = _nothing
        database.links[self] = None

    async def ask(self, name: str, execute: Callable[[], Any]) -> Any:
        """
        Have a statement executed, and wait for its answer.  Either of them may be lost on its way.

        @raise DatabaseUnavailableError: whatever became of the statement.
        """
        database = self.database
        database.statements[name] += 1
        await self._travel(database.clock)
        if not self._reaches:
            await self._fail()
        error, answer = None, None
        try:
            answer = execute()
        except Exception as raised:
            error = raised
        await self._travel(self.process)
        if not self._reaches:
            await self._fail()
        if error is not None:
            raise error
        return answer

    @property
    def _reaches(self) -> bool:
        return self.is_up and not self.database.is_away

    async def _travel(self, clock: Process | SimClock) -> None:
        arrived: Deferred[None] = Deferred()
        clock.callLater(self.database.random.uniform(*self.database.delay), arrived.callback, None)
        await arrived

    async def _fail(self) -> None:
        failed: Deferred[None] = Deferred()
        # the connection breaks, or nothing is heard
        self.process.callLater(self.database.random.choice(self.database.silences), failed.callback, None)
        await failed
        raise DatabaseUnavailableError("it is away")

    def notify(self) -> None:
        if self._reaches:
            self.process.callLater(self.database.random.uniform(*self.database.delay), self.woken)

    def cut(self) -> None:
        self.is_up = False
        self.silent()

    def heal(self) -> None:
        self.is_up = True

    def silent(self) -> None:
        """
        The process says nothing from now on, until it can: the database ends its session after a while.
        """
        self.database.clock.callLater(SESSION_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if not self._reaches or self.process.is_frozen:
            self.end()

    def end(self) -> None:
        """
        The session ends, and what it locks is free.
        """
        if self.database.leader is self:
            self.database.leader = None

    def leave(self) -> None:
        """
        The process has ended.
        """
        self.end()
        del self.database.links[self]


def _nothing() -> None:
    pass
