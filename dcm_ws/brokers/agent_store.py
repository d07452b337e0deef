"""
Keeps what agents are owed in the database: reads it when this service becomes the leader, and writes what changes, once
a second.

While the service runs, its memory is what holds.  If the database is away, the changes of an agent are merged until
they can be written, so nothing is lost and nothing grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from twisted.logger import Logger

from dcm_ws.brokers.agent_pages import add_journal, json_objects, parts_of, to_listed
from dcm_ws.brokers.flushes import Flushes, take_some
from dcm_ws.core.agent_states import AgentState, AgentStates, encode
from dcm_ws.core.counts import JournalCounts
from dcm_ws.core.dead_letters import Listed
from dcm_ws.core.journal import Checkpoint, Journal
from dcm_ws.core.ledger import Ledger
from dcm_ws.core.ledger_pages import LedgerPage
from dcm_ws.core.loading import Loading
from dcm_ws.core.redriving import Redriving
from dcm_ws.postgres import agent_rows
from dcm_ws.postgres.agent_rows import Lease, LetterKey, Request
from dcm_ws.postgres.connection import Address, DatabaseConnection
from dcm_ws.postgres.kept_connection import KeptConnection
from dcm_ws.postgres.statements import statement

_log = Logger(namespace="dcm_ws.agents")

REQUESTS_AT_ONCE = 1000
"""
Requests of operators that are executed with one flush.
"""

_SETTINGS = statement("agents/connection")


class Stored(NamedTuple):
    """
    What was read in the database.

    @ivar letters: in the order of dying.
    """

    lease: Lease
    states: dict[str, AgentState]
    letters: list[Listed]


class AgentStore(Flushes):
    """
    Reads and writes what agents are owed, on a connection of its own.

    @param address: returns where the database is.
    @param journal: knows what has to be written.
    @param ledger: knows what has happened to events, which is written with that.
    @param loading: receives what was read.
    @param redriving: executes what operators want to be done with dead letters.
    @param leads: returns if this service is the leader.
    @param now: monotonic seconds.
    @param wall_ms: ms since the epoch.
    @param random: returns a number from 0 to 1.
    """

    def __init__(
        self,
        reactor: Any,
        address: Address,
        counts: JournalCounts,
        *,
        journal: Journal,
        ledger: Ledger,
        loading: Loading,
        redriving: Redriving,
        leads: Callable[[], bool],
        now: Callable[[], float],
        wall_ms: Callable[[], int],
        random: Callable[[], float],
    ) -> None:
        super().__init__(reactor, counts, now=now, wall_ms=wall_ms, random=random)
        self._journal = journal
        self._ledger = ledger
        self._loading = loading
        self._redriving = redriving
        self._leads = leads
        self._connection = KeptConnection(reactor, address, "dcm-ws agents", settings=_SETTINGS, writable=True)
        # what was claimed last, and what may be written with: not before everything is loaded
        self._claimed: Lease | None = None
        self._lease: Lease | None = None
        # what the flush that is under way writes with
        self._used: Lease | None = None
        self._steps: Iterator[None] | None = None
        # requests to redrive letters that only the database has
        self._not_loaded = 0

    # what the engine calls

    async def read(self, session: DatabaseConnection) -> Stored:
        """
        Read everything, and become the only one that writes it.

        @param session: a connection that has the leader's lock.
        """
        lease = await agent_rows.claim(session)
        states = AgentStates()
        async for page in agent_rows.states(session):
            for agent, state, gen in page:
                states.add_state(agent, state, gen)
        before, last = dict(states.states), 0
        async for rows in agent_rows.journal(session):
            await self._in_turns(add_journal(states, rows))
            last = rows[-1][0]
        letters = [to_listed(letter) async for letters in agent_rows.letters(session) for letter in letters]
        letters.sort(key=lambda letter: (letter.died_at, letter.agent, letter.pos))
        for error in states.errors:
            _log.warn("{error}; it is left out", error=error)
        if last:
            # the journal begins again, because the next checkpoints have only what changes from now on
            changed: list[tuple[str, bytes]] = []
            await self._in_turns(_encode_changed(before, states.states, changed))
            gone = list(before.keys() - states.states.keys())
            await _save_pages(session, lease, Checkpoint(changed, gone, True, 0), last)
        if states.gens:
            # nodes of a cluster had them
            await agent_rows.disown(session, lease)
        return Stored(lease, states.states, letters)

    async def is_current(self, session: DatabaseConnection) -> bool:
        """
        Has nobody else been the leader since L{read}?

        @param session: a connection that has the leader's lock.
        """
        return self._claimed is not None and await agent_rows.holds(session, self._claimed)

    def apply(self, stored: Stored) -> None:
        """
        Load what was read, in this turn of the reactor and in the next ones.
        """
        self._claimed, self._lease = stored.lease, None
        self._last = self._covered = 0
        self._steps = self._loading.load(stored.states, stored.letters)
        self._load(stored.lease, self._steps)

    def _load(self, lease: Lease, steps: Iterator[None]) -> None:
        if steps is not self._steps:
            # the log has become another one, and something else was read
            return
        if take_some(steps):
            self._reactor.callLater(0, self._load, lease, steps)
        else:
            self._steps = None
            self._lease = lease

    # the flushes

    def _is_loaded(self) -> bool:
        return self._lease is not None

    def _may_write(self) -> bool:
        return self._is_loaded() and self._leads()

    def _close(self) -> None:
        self._connection.close()

    def _lost_right(self) -> None:
        # until the engine has read what the new leader wrote
        if self._lease is self._used:
            self._lease = None
        _log.warn("another service has become the leader: what agents are owed is not written here any more")

    async def _flush(self) -> None:
        lease = self._used = self._lease
        assert lease is not None
        await self._in_turns(self._journal.collect())
        connection = await self._connection.get()
        redriven = await self._execute(connection, lease)
        await self._write(connection, lease)
        if redriven:
            await agent_rows.redriven(connection, lease, redriven)

    async def _execute(self, connection: DatabaseConnection, lease: Lease) -> list[LetterKey]:
        """
        Do what operators want to be done with dead letters; returns those that have been redriven.
        """
        wanted = await agent_rows.requests(connection, REQUESTS_AT_ONCE + self._not_loaded)
        redriven: list[LetterKey] = []
        purged: list[LetterKey] = []
        await self._in_turns(self._execute_each(wanted, redriven, purged))
        if purged:
            await agent_rows.write(connection, lease, None, dropped=purged)
        # what was not loaded waits for the next start, and the other requests behind it are found nevertheless
        self._not_loaded = sum(one.request == "redrive" for one in wanted) - len(redriven)
        return redriven

    def _execute_each(
        self, wanted: Sequence[Request], redriven: list[LetterKey], purged: list[LetterKey]
    ) -> Iterator[None]:
        """
        @param redriven: receives those that were redriven, now or before.
        @param purged: receives those to be purged that only the database has.
        """
        for one in wanted:
            key = LetterKey(one.agent, one.event_id)
            if one.request == "redrive":
                if self._redriving.redrive_one(one.agent, one.event_id) is not None:
                    redriven.append(key)
            elif not self._redriving.purge_one(one.agent, one.event_id):
                purged.append(key)
            yield

    async def _write(self, connection: DatabaseConnection, lease: Lease) -> None:
        changes = self._journal.take()
        if changes is None:
            return
        try:
            for part, buried, dropped in parts_of(changes):
                number = await agent_rows.write(connection, lease, part, buried, dropped)
                self._wrote(number)
        except BaseException:
            self._journal.put_back(changes)
            raise
        self._journal.written(changes)

    async def _write_pages(self, pages: list[LedgerPage]) -> None:
        assert self._used is not None
        await agent_rows.note(await self._connection.get(), self._used, pages)

    async def _save(self, checkpoint: Checkpoint, upto: int) -> None:
        lease = self._used
        assert lease is not None
        await _save_pages(await self._connection.get(), lease, checkpoint, upto)


def _encode_changed(
    before: Mapping[str, AgentState], now: Mapping[str, AgentState], changed: list[tuple[str, bytes]]
) -> Iterator[None]:
    """
    Encode the states that are not those of before.

    @param changed: receives them.
    """
    for name, state in now.items():
        if before.get(name) is not state:
            changed.append((name, encode(state)))
            yield


async def _save_pages(connection: DatabaseConnection, lease: Lease, checkpoint: Checkpoint, upto: int) -> None:
    """
    Write a checkpoint in parts of limited size; the journal is only shortened after the last one.
    """
    pages = json_objects(checkpoint.agents) or ["{}"]
    for page in pages[:-1]:
        await agent_rows.checkpoint(connection, lease, page, (), 0)
    last = upto if checkpoint.complete else 0
    await agent_rows.checkpoint(connection, lease, pages[-1], checkpoint.gone, last)
