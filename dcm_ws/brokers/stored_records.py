"""
What operators see of agents and dead letters in a cluster: no node has all of them in memory, but the database has.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock

from dcm_ws.brokers.agent_pages import to_listed
from dcm_ws.core.agent_records import AgentRecord, Choice
from dcm_ws.core.agent_states import AgentStates
from dcm_ws.core.dead_letters import Listed
from dcm_ws.postgres.agent_rows import StoredLetter
from dcm_ws.postgres.connection import Address, DatabaseError, deadline
from dcm_ws.postgres.kept_connection import KeptConnection
from dcm_ws.postgres.statements import statement
from dcm_ws.protocol.errors import ErrorCode, ProtocolError

T = TypeVar("T")

WAITING_MAX = 100
"""
Questions that may wait for the database.
"""

_SECONDS = 10.0
_RECORDS = statement("agents/records")
_LIST = statement(
    "agents/list",
    data="data",
    chosen=statement("agents/chosen"),
    unless="(%(dead)s is false or (redriven_at is null and request is distinct from 'purge'))"
    " and (%(died_at)s::bigint is null or (died_at, agent, pos) > (%(died_at)s, %(behind)s, %(pos)s))",
)
_REQUEST = statement("agents/request")


class StoredRecords(Service):
    """
    Reads the records, one query at a time on a connection of its own.  They are up to a second old.

    @param address: returns where the database is.
    """

    def __init__(self, reactor: Any, address: Address) -> None:
        self._connection = KeptConnection(
            reactor,
            address,
            "dcm-ws operators",
            runs=lambda: bool(self.running),
            settings=statement("agents/connection"),
            writable=True,
        )
        self._turn = DeferredLock()

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        self._connection.close()
        return None

    def agents(self, after: str, most: int) -> Deferred[list[AgentRecord]]:
        """
        The next agents by name.
        """
        return self._ask(self._records({"agent": None, "after": after, "most": most}))

    def agent(self, name: str) -> Deferred[AgentRecord | None]:
        """
        One agent; None if nothing is known of it.
        """
        return self._ask(self._record(name))

    def letters(self, choice: Choice) -> Deferred[list[Listed]]:
        """
        The chosen dead letters, in their order.
        """
        return self._ask(self._letters(choice, dead=False))

    def redrive(self, choice: Choice) -> Deferred[int]:
        """
        Have the chosen dead letters sent again, but for those that were redriven before; return how many there were.
        The nodes that have their agents see to it within a second or two.
        """
        return self._ask(self._redrive(choice))

    def _ask(self, question: Coroutine[Any, Any, T]) -> Deferred[T]:
        if len(self._turn.waiting) >= WAITING_MAX:
            question.close()
            raise ProtocolError(ErrorCode.NOT_AVAILABLE, "Too many questions wait for the database; try again")
        return self._turn.run(Deferred.fromCoroutine, question)

    async def _query(self, sql: str, parameters: dict[str, object]) -> Sequence[tuple[Any, ...]]:
        """
        @raise ProtocolError: C{NOT_AVAILABLE}: the database cannot be asked.
        """
        try:
            connection = await self._connection.get()
            with deadline(connection, _SECONDS):
                rows: Sequence[tuple[Any, ...]] = await connection.runQuery(sql, parameters)
        except DatabaseError:
            self._connection.close()
            raise ProtocolError(ErrorCode.NOT_AVAILABLE, "The database cannot be asked now; try again") from None
        return rows

    async def _records(self, parameters: dict[str, object]) -> list[AgentRecord]:
        records = []
        for name, state, gen, changes, dead in await self._query(_RECORDS, parameters):
            states = AgentStates()
            if state is not None:
                states.add_state(name, state, gen)
            for change in changes:
                states.add_change(name, change)
            found = states.states.get(name)
            if found is not None or dead:
                records.append(AgentRecord(name, found, dead))
        return records

    async def _record(self, name: str) -> AgentRecord | None:
        records = await self._records({"agent": name, "after": "", "most": 1})
        return records[0] if records else None

    async def _letters(self, choice: Choice, *, dead: bool) -> list[Listed]:
        died_at, behind, pos = choice.after or (None, "", 0)
        parameters: dict[str, object] = {
            "agent": choice.agent,
            "event_ids": list(choice.event_ids) or None,
            "reasons": list(choice.reasons) or None,
            "since": choice.since,
            "until": choice.until,
            "most": choice.most,
            "dead": dead,
            "died_at": died_at,
            "behind": behind,
            "pos": pos,
        }
        return [_listed(row) for row in await self._query(_LIST, parameters)]

    async def _redrive(self, choice: Choice) -> int:
        letters = await self._letters(choice, dead=True)
        keys = {"agents": [one.agent for one in letters], "event_ids": [one.event_id for one in letters]}
        # a statement without rows is not a query for txpostgres
        await self._query(
            f"with asked as ({_REQUEST} returning 1) select count(*) from asked", keys | {"request": "redrive"}
        )
        return len(letters)


def _listed(row: Sequence[Any]) -> Listed:
    agent, event_id, pos, channel, event, data, at, deliveries, reason, died_at, redriven_at, _ = row
    return to_listed(
        StoredLetter(agent, event_id, pos, channel, event, data, at, None, deliveries, reason, died_at, redriven_at)
    )
