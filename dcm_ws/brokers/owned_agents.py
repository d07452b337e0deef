"""
Keeps what the agents of one node of a cluster are owed in the database.

A node takes an agent when the agent authenticates there, and writes what changes of it once a second, as long as it has
it.  The leader also looks after the agents that no node has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dcm_ws.brokers.acks import Acks
from dcm_ws.brokers.agent_pages import add_journal, parts_of, to_listed
from dcm_ws.brokers.agent_tables import AgentTables
from dcm_ws.brokers.flushes import Flushes
from dcm_ws.brokers.merges import Merges
from dcm_ws.brokers.releases import Releases
from dcm_ws.brokers.takes import Takes
from dcm_ws.core.agent_states import AgentStates, encode, stamped
from dcm_ws.core.counts import Counts
from dcm_ws.core.journal import Changes, Checkpoint, Journal
from dcm_ws.core.ledger import Ledger
from dcm_ws.core.ledger_pages import LedgerPage
from dcm_ws.core.loading import Loading
from dcm_ws.core.ownership import Ownership
from dcm_ws.core.ports import Bus
from dcm_ws.core.redriving import Redriving
from dcm_ws.postgres.agent_owners import Asked, Claim, Gen
from dcm_ws.postgres.agent_rows import PAGE_BYTES, PAGE_ROWS, LetterKey

_log = Logger(namespace="dcm_ws.owners")

REQUESTS_AT_ONCE = 1000
"""
Requests of operators that are executed with one flush.
"""

GIVE_BACK_SECONDS = 0.05
"""
Seconds within which agents that are to be given back are collected, to be written together.
"""

_FOLDS_A_FLUSH = 16
_EXPIRED_AT_ONCE = 1000
_LOOK_FLUSHES = 10
_CHECKED_AT_ONCE = 1000


class Keep(NamedTuple):
    """
    How long the leader keeps what is of agents that no node has, in seconds.
    """

    agents: float = 86_400.0
    letters: float = 7 * 86_400.0


class OwnedAgents(Flushes):
    """
    The L{Owners<dcm_ws.core.ports.Owners>} of a node, and the journal of its agents.

    @param takes: the tables, on a connection that is only used to take agents: clients wait for it.
    @param tables: the same tables, on a connection of its own.
    @param leads: returns if this node is the leader.
    @param reach: as in L{Log<dcm_ws.core.ports.Log>}.
    @param last: returns the position and the id of the last event that was delivered here.
    @param fenced: called when this node may not write any more.
    """

    def __init__(
        self,
        reactor: Any,
        takes: AgentTables,
        tables: AgentTables,
        bus: Bus,
        counts: Counts,
        *,
        leads: Callable[[], bool],
        reach: Callable[[int, Callable[[bool], object]], object],
        last: Callable[[], tuple[int, str]],
        fenced: Callable[[], object],
        now: Callable[[], float],
        wall_ms: Callable[[], int],
        random: Callable[[], float],
        keep: Keep = Keep(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__(reactor, counts.journal, now=now, wall_ms=wall_ms, random=random)
        self._tables = tables
        self._leads = leads
        self._fenced = fenced
        self._keep = keep
        self.releases = Releases(bus, last)
        self.takes = Takes(reactor, takes, bus, counts.owners, self.releases, now=now, reach=reach, fenced=fenced)
        self.merges = Merges(tables, bus, self.takes, self.releases)
        self.acks = Acks(reactor, bus, self.releases)
        self._ownership: Ownership
        self._redriving: Redriving
        self._is_open = False
        self._flushes = 0
        self._unchecked: list[str] = []
        self._to_give_back: dict[str, None] = {}
        self._hurry: Any = None

    def attach(self, *, journal: Journal, ledger: Ledger, ownership: Ownership, redriving: Redriving) -> None:
        """
        Called once, before anything else.

        @param journal: knows what has to be written.
        @param ledger: knows what has happened to events, which is written with that.
        @param ownership: receives agents, and gives them away.
        @param redriving: executes what operators want to be done with dead letters.
        """
        self._journal = journal
        self._ledger = ledger
        self._ownership = ownership
        self._redriving = redriving
        self.takes.attach(ownership)
        self.merges.attach(ownership)
        self.acks.attach(ownership)

    def open(self, loading: Loading) -> None:
        """
        The log is there, or has become another one: from now on this node may take agents.
        """
        self.takes.clear()
        self.merges.clear()
        self._to_give_back.clear()
        self._unchecked = []
        self._last = self._covered = 0
        for _ in loading.load({}, ()):
            pass
        self._is_open = True

    def take(self, agent: str, ready: Callable[[bool], object], waits: Callable[[], bool]) -> None:
        """
        See L{Owners<dcm_ws.core.ports.Owners>}, here and for the other methods.
        """
        self.takes.take(agent, ready, waits)

    def adopt(self, agents: Sequence[str]) -> None:
        self.takes.adopt(agents)

    def offer(self, agent: str) -> None:
        self.releases.offer(agent)

    def give_back(self, agent: str) -> None:
        if agent in self.releases.gens and self.running:
            self._to_give_back[agent] = None
            if self._hurry is None:
                self._hurry = self._reactor.callLater(GIVE_BACK_SECONDS, self._hurry_up)

    def _hurry_up(self) -> None:
        self._hurry = None
        self.tick()
        if self._to_give_back and self.running:
            # another flush is under way
            self._hurry = self._reactor.callLater(GIVE_BACK_SECONDS, self._hurry_up)

    def acknowledged(self, agent: str, event_id: str, pos: int) -> None:
        self.acks.add(agent, event_id, pos)

    def merge(self, agent: str, places: Mapping[str, int], *, stays: bool = False) -> None:
        self.merges.add(agent, places, stays=stays)

    # the flushes

    def _is_loaded(self) -> bool:
        return self._is_open

    def _close(self) -> None:
        self._tables.close()

    def _lost_right(self) -> None:
        self._fenced()

    def stopService(self) -> Deferred[None]:
        self.takes.stop()
        if self._hurry is not None:
            # the last flush does it
            self._hurry.cancel()
            self._hurry = None
        return super().stopService()

    async def _flush(self) -> None:
        await self._in_turns(self._journal.collect())
        redriven = await self._execute()
        # before what has changed is taken, so that their dead letters are written first
        self._give_agents_back()
        changes = self._journal.take()
        if changes is not None:
            await self._write(changes)
        if redriven:
            await self._tables.own_done(redriven)
        await self._save_given()
        await self.merges.send()
        self._flushes += 1
        if self._flushes % _LOOK_FLUSHES == 0:
            # what nodes offer, or ask for, may have been lost on its way
            self._ownership.adopt_all()
            await self._check()
        if self._leads():
            await self._look_after_others()

    async def _check(self) -> None:
        """
        Find out about some agents if other nodes have taken them.  This is for those of which nothing is written.
        """
        gens = self.releases.gens
        if not self._unchecked:
            self._unchecked = list(gens)
        page, self._unchecked = self._unchecked[:_CHECKED_AT_ONCE], self._unchecked[_CHECKED_AT_ONCE:]
        known = {agent: gens[agent] for agent in page if agent in gens}
        if known:
            self._forget(await self._tables.lost_of([Gen(*one) for one in known.items()]), known)

    def _forget(self, lost: Mapping[str, int | None], known: Mapping[str, int]) -> None:
        """
        @param lost: the agents that have been taken, and the nodes that have them.
        @param known: the numbers that they had here when that was asked.
        """
        for agent, node in lost.items():
            if self.releases.gens.get(agent) == known.get(agent):
                self.releases.forget(agent, node)

    async def _execute(self) -> list[LetterKey]:
        """
        Do what operators want to be done with dead letters; returns those that were to be redriven.
        """
        wanted = await self._tables.own_requests(REQUESTS_AT_ONCE)
        await self._in_turns(self._execute_each(wanted))
        return [LetterKey(one.letter.agent, one.letter.event_id) for one in wanted if one.request == "redrive"]

    def _execute_each(self, wanted: Sequence[Asked]) -> Iterator[None]:
        for one in wanted:
            agent, event_id = one.letter.agent, one.letter.event_id
            if agent in self.releases.gens:
                self._ownership.learn(to_listed(one.letter))
                if one.request == "redrive":
                    self._redriving.redrive_one(agent, event_id)
                else:
                    self._redriving.purge_one(agent, event_id)
            yield

    async def _write(self, changes: Changes) -> None:
        gens = self.releases.gens
        known = {agent: gens[agent] for agent, _ in changes.agents if agent in gens}
        agents = [(agent, stamped(data, known[agent])) for agent, data in changes.agents if agent in known]
        try:
            for part, buried, dropped in parts_of(changes._replace(agents=agents)):
                flushed = await self._tables.flush(part, buried, dropped)
                self._wrote(flushed.number)
                self._forget(flushed.lost, known)
        except BaseException:
            still = [(agent, data) for agent, data in changes.agents if gens.get(agent) == known.get(agent, -1)]
            self._journal.put_back(changes, still)
            raise
        self._journal.written(changes)

    async def _write_pages(self, pages: list[LedgerPage]) -> None:
        await self._tables.note(pages)

    async def _save_given(self) -> None:
        """
        Write the last states of agents that were given away, and give them up if no other node has taken them.
        """
        given = self.releases.given
        unwritten = given.unwritten()
        for page in _pages(unwritten):
            # not with the number that they had here, with which the journal has older changes
            await self._tables.give_back(page)
        for claim in unwritten:
            given.written(claim)

    def _give_agents_back(self) -> None:
        for agent in self._to_give_back:
            if not self._ownership.is_connected(agent):
                self.releases.give_back(agent)
        self._to_give_back.clear()

    async def _save(self, checkpoint: Checkpoint, upto: int) -> None:
        gens = self.releases.gens
        states = [Claim(agent, gens[agent], Raw(state)) for agent, state in checkpoint.agents if agent in gens]
        # who comes back now begins again
        gone = [Gen(agent, gens.pop(agent)) for agent in checkpoint.gone if agent in gens]
        pages = _pages(states) or [[]]
        for page in pages[:-1]:
            await self._tables.save(page, (), 0)
        await self._tables.save(pages[-1], gone, upto if checkpoint.complete else 0)

    # agents that no node has

    async def _look_after_others(self) -> None:
        for _ in range(_FOLDS_A_FLUSH):
            if not await self._fold():
                break
        await self._tables.other_requests(REQUESTS_AT_ONCE, self._wall_ms())
        keep = self._keep
        await self._tables.expire(self._wall_ms(), keep=keep.agents, keep_letters=keep.letters, most=_EXPIRED_AT_ONCE)

    async def _fold(self) -> bool:
        """
        Put a part of the journals that were left behind into the states of their agents.  False if there is none.
        """
        left = await self._tables.left()
        if not left.rows:
            return False
        states = AgentStates()
        for agent, (state, gen) in left.states.items():
            states.add_state(agent, state, gen)
        await self._in_turns(add_journal(states, left.rows))
        for error in states.errors:
            _log.warn("{error}; it is left out", error=error)
        folded: list[Claim] = []
        # a service without a cluster may have agents only in its journal
        for agent in sorted(left.states.keys() | states.states.keys()):
            one = states.states.get(agent)
            folded.append(Claim(agent, states.gens.get(agent, 0), Raw(b"{}" if one is None else encode(one))))
        pages = _pages(folded) or [[]]
        for page in pages[:-1]:
            await self._tables.fold(page, ())
        await self._tables.fold(pages[-1], [seq for seq, _ in left.rows])
        return True


def _pages(claims: Sequence[Claim]) -> list[list[Claim]]:
    """
    Split what is written into parts of limited size.
    """
    pages: list[list[Claim]] = []
    size = 0
    for claim in claims:
        if not pages or size >= PAGE_BYTES or len(pages[-1]) >= PAGE_ROWS:
            pages.append([])
            size = 0
        pages[-1].append(claim)
        size += len(claim.state)
    return pages
