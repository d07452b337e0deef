"""
The tables of agents, as a node of a cluster uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from dcm_ws.brokers.agent_pages import to_listed
from dcm_ws.core.dead_letters import Listed
from dcm_ws.postgres import agent_owners
from dcm_ws.postgres.agent_owners import Asked, Claim, Flushed, Gen, Got, Left, NodeLease, Seen, Wanted
from dcm_ws.postgres.agent_rows import LetterKey, StoredLetter
from dcm_ws.postgres.connection import Address, DatabaseConnection, DatabaseUnavailableError
from dcm_ws.postgres.kept_connection import KeptConnection
from dcm_ws.postgres.statements import statement

_SETTINGS = statement("agents/connection")


class AgentTables(Protocol):
    """
    What a node reads and writes; each method is described in L{dcm_ws.postgres.agent_owners}.
    """

    async def look(self, wanted: Collection[Wanted]) -> list[Seen]: ...

    async def take(self, claims: Collection[Claim]) -> dict[str, Got]: ...

    async def letters_of(self, agents: Collection[str]) -> list[Listed]: ...

    async def owners_of(self, agents: Collection[str]) -> dict[str, int]: ...

    async def lost_of(self, gens: Collection[Gen]) -> dict[str, int | None]: ...

    async def flush(
        self, changes: str | None, buried: Collection[StoredLetter], dropped: Collection[LetterKey]
    ) -> Flushed: ...

    async def note(self, pages: Sequence[tuple[int, int, bytes]]) -> None: ...

    async def save(self, states: Collection[Claim], gone: Collection[Gen], upto: int) -> None: ...

    async def give_back(self, states: Collection[Claim]) -> None: ...

    async def own_requests(self, most: int) -> list[Asked]: ...

    async def own_done(self, done: Collection[LetterKey]) -> None: ...

    async def other_requests(self, most: int, now_ms: int) -> bool: ...

    async def left(self) -> Left: ...

    async def fold(self, states: Collection[Claim], rows: Sequence[int]) -> None: ...

    async def expire(self, now_ms: int, *, keep: float, keep_letters: float, most: int) -> bool: ...

    def close(self) -> None:
        """
        Give up what is under way; the next call connects again.
        """


class PostgresAgents:
    """
    The tables in PostgreSQL, over a connection of its own.

    @param address: returns where the database is.
    @param name: the name of the connection in C{pg_stat_activity}.
    @param lease: returns the right of this node to write; None while it has none.
    """

    def __init__(self, reactor: Any, address: Address, name: str, lease: Callable[[], NodeLease | None]) -> None:
        self._connection = KeptConnection(reactor, address, name, settings=_SETTINGS, writable=True)
        self._lease = lease

    async def _get(self) -> tuple[DatabaseConnection, NodeLease]:
        connection, lease = await self._connection.get(), self._lease()
        if lease is None:
            raise DatabaseUnavailableError("this node is not registered yet")
        return connection, lease

    async def look(self, wanted: Collection[Wanted]) -> list[Seen]:
        return await agent_owners.look(*await self._get(), wanted)

    async def take(self, claims: Collection[Claim]) -> dict[str, Got]:
        return await agent_owners.take(*await self._get(), claims)

    async def letters_of(self, agents: Collection[str]) -> list[Listed]:
        return [to_listed(one) for one in await agent_owners.letters_of(await self._connection.get(), agents)]

    async def owners_of(self, agents: Collection[str]) -> dict[str, int]:
        return await agent_owners.owners_of(await self._connection.get(), agents)

    async def lost_of(self, gens: Collection[Gen]) -> dict[str, int | None]:
        return await agent_owners.lost_of(await self._connection.get(), gens)

    async def flush(
        self, changes: str | None, buried: Collection[StoredLetter], dropped: Collection[LetterKey]
    ) -> Flushed:
        return await agent_owners.flush(*await self._get(), changes, buried, dropped)

    async def note(self, pages: Sequence[tuple[int, int, bytes]]) -> None:
        await agent_owners.note(*await self._get(), pages)

    async def save(self, states: Collection[Claim], gone: Collection[Gen], upto: int) -> None:
        await agent_owners.save(*await self._get(), states, gone, upto)

    async def give_back(self, states: Collection[Claim]) -> None:
        await agent_owners.give_back(*await self._get(), states)

    async def own_requests(self, most: int) -> list[Asked]:
        return await agent_owners.own_requests(*await self._get(), most)

    async def own_done(self, done: Collection[LetterKey]) -> None:
        await agent_owners.own_done(*await self._get(), done)

    async def other_requests(self, most: int, now_ms: int) -> bool:
        return await agent_owners.other_requests(*await self._get(), most, now_ms)

    async def left(self) -> Left:
        return await agent_owners.left(await self._connection.get())

    async def fold(self, states: Collection[Claim], rows: Sequence[int]) -> None:
        await agent_owners.fold(*await self._get(), states, rows)

    async def expire(self, now_ms: int, *, keep: float, keep_letters: float, most: int) -> bool:
        return await agent_owners.expire(*await self._get(), now_ms, keep=keep, keep_letters=keep_letters, most=most)

    def close(self) -> None:
        self._connection.close()
