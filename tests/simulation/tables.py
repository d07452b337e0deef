"""
The tables of agents as nodes of a simulated cluster see them: each statement takes some time, and is atomic.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dcm_ws.brokers.agent_pages import to_listed
from dcm_ws.core.dead_letters import Listed
from dcm_ws.postgres.agent_owners import (
    Asked,
    Claim,
    FencedError,
    Flushed,
    Found,
    Gen,
    Got,
    Left,
    Seen,
    Wanted,
)
from dcm_ws.postgres.agent_rows import LetterKey, StoredLetter
from dcm_ws.postgres.connection import DatabaseUnavailableError

FENCE_SECONDS = 10.0


@dataclass
class Row:
    state: str
    node: int | None
    gen: int


@dataclass
class Database:
    """
    What all nodes have in common.

    @ivar nodes: those that are registered, each with the time at which it was last seen; without those that are fenced.
    @ivar statements: how often each was executed.
    @ivar is_away: no statement is answered.
    """

    clock: Clock
    random: Random
    delay: tuple[float, float] = (0.0005, 0.003)
    nodes: dict[int, float] = field(default_factory=dict)
    agents: dict[str, Row] = field(default_factory=dict)
    journal: dict[int, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    dead: dict[tuple[str, str], StoredLetter] = field(default_factory=dict)
    requests: dict[tuple[str, str], str] = field(default_factory=dict)
    statements: Counter[str] = field(default_factory=Counter)
    is_away: bool = False
    registered: int = 0
    rows: int = 0

    def register(self) -> int:
        """
        A node begins.
        """
        self.registered += 1
        self.nodes[self.registered] = self.clock.seconds()
        return self.registered

    def leader(self) -> int | None:
        """
        The node that has been there for longest.
        """
        return min(self.nodes, default=None)

    def fence(self) -> None:
        """
        What the leader does with nodes that it has not seen for long.
        """
        now = self.clock.seconds()
        self.nodes = {node: seen for node, seen in self.nodes.items() if now - seen < FENCE_SECONDS}

    def lives(self, node: int | None) -> bool:
        return node in self.nodes


class Tables:
    """
    The tables, as one node reads and writes them.
    """

    def __init__(self, database: Database, node: int) -> None:
        self.database = database
        self.node = node
        self.is_cut = False

    async def _trip(self, name: str) -> Database:
        """
        On the way to the database.
        """
        database = self.database
        database.statements[name] += 1
        await self._wait()
        if self.is_cut or database.is_away:
            raise DatabaseUnavailableError("it is away")
        if self.node not in database.nodes:
            raise FencedError
        return database

    async def _wait(self) -> None:
        done: Deferred[None] = Deferred()
        self.database.clock.callLater(self.database.random.uniform(*self.database.delay), done.callback, None)
        await done

    def close(self) -> None:
        pass

    async def look(self, wanted: Collection[Wanted]) -> list[Seen]:
        database = await self._trip("look")
        seen: list[Seen] = []
        for one in sorted(wanted, key=lambda one: one.agent):
            seen.append(self._look(database, one))
        await self._wait()
        return seen

    def _look(self, database: Database, one: Wanted) -> Seen:
        agent = one.agent
        letters = any(key[0] == agent for key in database.dead)
        row = database.agents.get(agent)
        if row is None:
            database.agents[agent] = Row("{}", self.node, 1)
            return Seen(agent, Found.TAKEN, 1, None, "{}", [], letters)
        if row.node == self.node and row.gen == one.gen:
            return Seen(agent, Found.KEPT, row.gen, row.node, "", [], letters)
        if row.node != self.node and database.lives(row.node) and not one.forced:
            return Seen(agent, Found.OWNED, row.gen, row.node, "", [], letters)
        changes = [
            json.dumps(changes[agent])
            for node, changes in database.journal.values()
            if changes.get(agent, {}).get("gen") == row.gen
        ]
        owner = row.node
        if changes:
            return Seen(agent, Found.STALE, row.gen, owner, row.state, changes, letters)
        row.node, row.gen = self.node, row.gen + 1
        return Seen(agent, Found.TAKEN, row.gen, owner, row.state, [], letters)

    async def take(self, claims: Collection[Claim]) -> dict[str, Got]:
        database = await self._trip("take")
        got: dict[str, Got] = {}
        for one in claims:
            row = database.agents[one.agent]
            if row.gen == one.gen:
                row.state, row.node, row.gen = bytes(one.state).decode(), self.node, row.gen + 1
                got[one.agent] = Got(row.gen, any(key[0] == one.agent for key in database.dead))
        await self._wait()
        return got

    async def letters_of(self, agents: Collection[str]) -> list[Listed]:
        database = await self._trip("letters_of")
        letters = [to_listed(letter) for (agent, _), letter in database.dead.items() if agent in agents]
        return sorted(letters, key=lambda letter: letter.died_at)

    async def owners_of(self, agents: Collection[str]) -> dict[str, int]:
        database = await self._trip("owners_of")
        rows = {agent: database.agents.get(agent) for agent in agents}
        return {agent: row.node for agent, row in rows.items() if row and row.node and database.lives(row.node)}

    async def flush(
        self, changes: str | None, buried: Collection[StoredLetter], dropped: Collection[LetterKey]
    ) -> Flushed:
        database = await self._trip("flush")
        for letter in buried:
            database.dead[letter.agent, letter.event_id] = letter
        for key in dropped:
            database.dead.pop((key.agent, key.event_id), None)
        number, lost = None, {}
        if changes is not None:
            by_agent = json.loads(changes)
            number = database.rows = database.rows + 1
            database.journal[number] = self.node, by_agent
            for agent, change in by_agent.items():
                row = database.agents.get(agent)
                if row is not None and row.gen != change["gen"]:
                    lost[agent] = row.node
        await self._wait()
        return Flushed(number, lost)

    async def save(self, states: Collection[Claim], gone: Collection[Gen], upto: int) -> None:
        database = await self._trip("save")
        for one in states:
            row = database.agents.setdefault(one.agent, Row("{}", self.node, one.gen))
            if (row.gen, row.node) == (one.gen, self.node):
                row.state = bytes(one.state).decode()
        for left in gone:
            row = database.agents[left.agent]
            if (row.gen, row.node) == (left.gen, self.node):
                del database.agents[left.agent]
        for number, (node, _) in list(database.journal.items()):
            if node == self.node and number <= upto:
                del database.journal[number]

    async def give_back(self, states: Collection[Claim]) -> None:
        database = await self._trip("give_back")
        for one in states:
            row = database.agents[one.agent]
            if (row.gen, row.node) == (one.gen, self.node):
                row.state, row.node, row.gen = bytes(one.state).decode(), None, row.gen + 1
        await self._wait()

    async def own_requests(self, most: int) -> list[Asked]:
        database = await self._trip("own_requests")
        return [
            Asked(database.dead[key], request)
            for key, request in database.requests.items()
            if key in database.dead and key[0] in database.agents and database.agents[key[0]].node == self.node
        ]

    async def own_done(self, done: Collection[LetterKey]) -> None:
        database = await self._trip("own_done")
        for key in done:
            database.requests.pop((key.agent, key.event_id), None)

    async def other_requests(self, most: int, now_ms: int) -> bool:
        await self._trip("other_requests")
        return False

    async def left(self) -> Left:
        database = await self._trip("left")
        rows = [
            (number, json.dumps(changes))
            for number, (node, changes) in database.journal.items()
            if not database.lives(node)
        ][:10]
        agents = {agent for _, changes in rows for agent in json.loads(changes)}
        return Left(
            rows,
            {
                agent: (database.agents[agent].state, database.agents[agent].gen)
                for agent in agents
                if agent in database.agents and not database.lives(database.agents[agent].node)
            },
        )

    async def fold(self, states: Collection[Claim], rows: Sequence[int]) -> None:
        database = await self._trip("fold")
        for one in states:
            row = database.agents.setdefault(one.agent, Row("{}", None, one.gen))
            if row.gen == one.gen:
                row.state = bytes(one.state).decode()
        for number in rows:
            database.journal.pop(number, None)

    async def expire(self, now_ms: int, *, keep: float, keep_letters: float, most: int) -> bool:
        await self._trip("expire")
        return False
