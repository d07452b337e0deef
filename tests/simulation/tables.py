"""
The tables of agents as nodes of a simulated cluster see them: each statement takes some time, and is atomic.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

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
from tests.simulation.database import AgentRow, Database, Link

_FOLDED_AT_ONCE = 500


class Tables:
    """
    The tables, as one node reads and writes them.

    @param lease: returns the number under which the node is registered; None if it is not.
    """

    def __init__(self, database: Database, link: Link, lease: Callable[[], int | None]) -> None:
        self.database = database
        self._link = link
        self._lease = lease

    async def _write(self, name: str, execute: Callable[[int], Any], rows: int = 0) -> Any:
        """
        Execute a statement with the right of this node to write.
        """
        node = self._lease()
        if node is None:
            raise DatabaseUnavailableError("this node is not registered yet")

        def guarded() -> Any:
            if node not in self.database.nodes:
                raise FencedError
            self.database.rows[name] += rows
            return execute(node)

        return await self._link.ask(name, guarded)

    def close(self) -> None:
        pass

    async def look(self, wanted: Collection[Wanted]) -> list[Seen]:
        def execute(node: int) -> list[Seen]:
            return [self._look(node, one) for one in sorted(wanted, key=lambda one: one.agent)]

        seen: list[Seen] = await self._write("look", execute, len(wanted))
        return seen

    def _look(self, node: int, one: Wanted) -> Seen:
        agent, database = one.agent, self.database
        letters = bool(database.dead.get(agent))
        row = database.agents.get(agent)
        if row is None:
            database.agents[agent] = AgentRow("{}", node, 1)
            return Seen(agent, Found.TAKEN, 1, None, "{}", [], letters)
        if row.node == node and row.gen == one.gen:
            return Seen(agent, Found.KEPT, row.gen, row.node, "", [], letters)
        if row.node != node and database.lives(row.node) and not one.forced:
            return Seen(agent, Found.OWNED, row.gen, row.node, "", [], letters)
        owner = row.node
        # only the node that had it can have written changes with its number
        changes = [
            json.dumps(changes[agent]).encode()
            for changes in database.journal.get(owner or 0, {}).values()
            if changes.get(agent, {}).get("gen") == row.gen
        ]
        if changes:
            return Seen(agent, Found.STALE, row.gen, owner, row.state, changes, letters)
        row.node, row.gen = node, row.gen + 1
        return Seen(agent, Found.TAKEN, row.gen, owner, row.state, [], letters)

    async def take(self, claims: Collection[Claim]) -> dict[str, Got]:
        def execute(node: int) -> dict[str, Got]:
            got: dict[str, Got] = {}
            for one in claims:
                row = self.database.agents.get(one.agent)
                if row is not None and row.gen == one.gen:
                    row.state, row.node, row.gen = bytes(one.state).decode(), node, row.gen + 1
                    got[one.agent] = Got(row.gen, bool(self.database.dead.get(one.agent)))
            return got

        taken: dict[str, Got] = await self._write("take", execute, len(claims))
        return taken

    async def letters_of(self, agents: Collection[str]) -> list[Listed]:
        def execute() -> list[StoredLetter]:
            return [letter for agent in agents for letter in self.database.dead.get(agent, {}).values()]

        letters = [to_listed(letter) for letter in await self._link.ask("letters_of", execute)]
        return sorted(letters, key=lambda letter: letter.died_at)

    async def owners_of(self, agents: Collection[str]) -> dict[str, int]:
        def execute() -> dict[str, int]:
            database = self.database
            rows = {agent: database.agents.get(agent) for agent in agents}
            return {agent: row.node for agent, row in rows.items() if row and row.node and database.lives(row.node)}

        owners: dict[str, int] = await self._link.ask("owners_of", execute)
        return owners

    async def lost_of(self, gens: Collection[Gen]) -> dict[str, int | None]:
        def execute() -> dict[str, int | None]:
            database = self.database
            rows = {one.agent: row for one in gens if (row := database.agents.get(one.agent)) and row.gen != one.gen}
            return {agent: row.node for agent, row in rows.items()}

        lost: dict[str, int | None] = await self._link.ask("lost_of", execute)
        return lost

    async def flush(
        self, changes: str | None, buried: Collection[StoredLetter], dropped: Collection[LetterKey]
    ) -> Flushed:
        by_agent: dict[str, Any] = {} if changes is None else json.loads(changes)

        def execute(node: int) -> Flushed:
            database = self.database
            for letter in buried:
                database.dead[letter.agent][letter.event_id] = letter
            for key in dropped:
                database.dead[key.agent].pop(key.event_id, None)
            if changes is None:
                return Flushed(None, {})
            lost: dict[str, int | None] = {}
            number = database.journal_rows = database.journal_rows + 1
            database.journal[node][number] = by_agent
            for agent, change in by_agent.items():
                row = database.agents.get(agent)
                if row is not None and row.gen != change["gen"]:
                    lost[agent] = row.node
            return Flushed(number, lost)

        flushed: Flushed = await self._write("flush", execute, len(by_agent) + len(buried) + len(dropped))
        return flushed

    async def note(self, pages: Sequence[tuple[int, int, bytes]]) -> None:
        await self._write("note", lambda _: None, len(pages))

    async def save(self, states: Collection[Claim], gone: Collection[Gen], upto: int) -> None:
        def execute(node: int) -> None:
            database = self.database
            for one in states:
                row = database.agents.setdefault(one.agent, AgentRow("{}", node, one.gen))
                if (row.gen, row.node) == (one.gen, node):
                    row.state = bytes(one.state).decode()
            for left in gone:
                kept = database.agents.get(left.agent)
                if kept is not None and (kept.gen, kept.node) == (left.gen, node):
                    del database.agents[left.agent]
            rows = database.journal[node]
            for number in [number for number in rows if number <= upto]:
                del rows[number]

        await self._write("save", execute, len(states) + len(gone))

    async def give_back(self, states: Collection[Claim]) -> None:
        def execute(node: int) -> None:
            for one in states:
                row = self.database.agents.get(one.agent)
                if row is not None and (row.gen, row.node) == (one.gen, node):
                    row.state, row.node, row.gen = bytes(one.state).decode(), None, row.gen + 1

        await self._write("give_back", execute, len(states))

    async def own_requests(self, most: int) -> list[Asked]:
        def execute() -> list[Asked]:
            database, node = self.database, self._lease()
            found: list[Asked] = []
            for (agent, event_id), request in database.requests.items():
                letter, row = database.dead[agent].get(event_id), database.agents.get(agent)
                if letter is not None and row is not None and row.node == node:
                    found.append(Asked(letter, request))
            return found

        asked: list[Asked] = await self._link.ask("own_requests", execute)
        return asked

    async def own_done(self, done: Collection[LetterKey]) -> None:
        def execute(node: int) -> None:
            for key in done:
                self.database.requests.pop((key.agent, key.event_id), None)

        await self._write("own_done", execute, len(done))

    async def other_requests(self, most: int, now_ms: int) -> bool:
        return bool(await self._write("other_requests", lambda _: False))

    async def left(self) -> Left:
        def execute() -> Left:
            database = self.database
            rows = [
                (number, json.dumps(changes))
                for node, numbered in database.journal.items()
                if not database.lives(node)
                for number, changes in numbered.items()
            ]
            rows = sorted(rows)[:_FOLDED_AT_ONCE]
            agents = {agent for _, changes in rows for agent in json.loads(changes)}
            found = {agent: database.agents[agent] for agent in agents if agent in database.agents}
            database.rows["left"] += len(rows)
            return Left(
                rows, {agent: (row.state, row.gen) for agent, row in found.items() if not database.lives(row.node)}
            )

        left: Left = await self._link.ask("left", execute)
        return left

    async def fold(self, states: Collection[Claim], rows: Sequence[int]) -> None:
        def execute(node: int) -> None:
            database = self.database
            for one in states:
                row = database.agents.setdefault(one.agent, AgentRow("{}", None, one.gen))
                if row.gen == one.gen:
                    row.state = bytes(one.state).decode()
            for numbered in database.journal.values():
                for number in rows:
                    numbered.pop(number, None)

        await self._write("fold", execute, len(states))

    async def expire(self, now_ms: int, *, keep: float, keep_letters: float, most: int) -> bool:
        return bool(await self._write("expire", lambda _: False))
