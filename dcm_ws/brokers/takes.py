"""
Takes agents of a cluster for clients that authenticate.

All that wait are looked up with one statement.  Who has an agent is in its row.  If another node has it, that node is
asked for its state over the bus; without an answer, the agent is taken with what the database has of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dcm_ws.brokers.agent_tables import AgentTables
from dcm_ws.brokers.handovers import KEPT, TOPIC, Question, folded, read_answer, read_state
from dcm_ws.brokers.releases import Releases
from dcm_ws.brokers.waiters import Take, Waiters
from dcm_ws.core.agent_states import encode
from dcm_ws.core.counts import OwnerCounts
from dcm_ws.core.dead_letters import Listed
from dcm_ws.core.deadlines import Deadlines
from dcm_ws.core.ownership import Ownership
from dcm_ws.core.ports import Bus, OwnersReport
from dcm_ws.postgres.agent_owners import Claim, FencedError, Found, Seen, Wanted
from dcm_ws.postgres.connection import DatabaseError, one_line

_log = Logger(namespace="dcm_ws.owners")

RELEASE_SECONDS = 0.2
"""
Seconds that another node has to give an agent away.
"""

_BATCH = 1000
_RETRY_SECONDS = 0.1
_ADOPT_SECONDS = 2.0


class Takes:
    """
    The agents that this node is about to have.

    @param releases: those that it has.
    @param reach: as in L{Log<dcm_ws.core.ports.Log>}.
    @param fenced: called when this node may not write any more.
    """

    def __init__(
        self,
        reactor: Any,
        tables: AgentTables,
        bus: Bus,
        counts: OwnerCounts,
        releases: Releases,
        *,
        now: Callable[[], float],
        reach: Callable[[int, Callable[[bool], object]], object],
        fenced: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._tables = tables
        self._bus = bus
        self._counts = counts
        self._now = now
        self._reach = reach
        self._fenced = fenced
        self._ownership: Ownership
        self._releases = releases
        self._takes: dict[str, Take] = {}
        self._wanted: dict[str, Take] = {}
        self._claims: dict[str, Claim] = {}
        self._working: Deferred[None] | None = None
        self._waiters = Waiters(reactor, now)
        self._sleepers: Deadlines[str] = Deadlines(reactor.callLater, now, self._wake)
        self._failing = False
        self._runs = True

    def attach(self, ownership: Ownership) -> None:
        """
        Called once, before anything else.
        """
        self._ownership = ownership
        self._releases.attach(ownership, self._takes.get)

    def report(self) -> OwnersReport:
        """
        How many agents are here, and are being taken.
        """
        return {"owned": len(self._releases.gens), "awaited": len(self._takes)}

    def clear(self) -> None:
        """
        The log has become another one: this node has no agents, and nobody waits for any.
        """
        self._releases.clear()
        self._forget_all()

    def stop(self) -> None:
        """
        Take no more agents; what this node has it has until the last flush.
        """
        self._runs = False
        self._forget_all()
        self._tables.close()

    def _forget_all(self) -> None:
        for kept in (self._takes, self._wanted, self._claims, self._waiters, self._sleepers):
            kept.clear()

    def take(self, agent: str, ready: Callable[[bool], object], waits: Callable[[], bool]) -> None:
        """
        See L{Owners<dcm_ws.core.ports.Owners>}.
        """
        take = self._takes.get(agent)
        if take is None:
            self._takes[agent] = self._wanted[agent] = take = Take()
            self._start()
        self._waiters.add(take, ready, waits)
        self._wake(agent)

    def _wake(self, agent: str) -> None:
        self._sleepers.drop(agent)
        take = self._takes.get(agent)
        if take is not None and take.sleeps:
            take.sleeps = False
            if take.has_clients or self._ownership.is_connected(agent):
                self._wanted[agent] = take
                self._start()
            else:
                self._drop(agent, take)

    def adopt(self, agents: Collection[str]) -> None:
        """
        See L{Owners<dcm_ws.core.ports.Owners>}.
        """
        for agent in agents:
            if agent not in self._takes:
                self._takes[agent] = self._wanted[agent] = Take(adopts=True)
        self._start()

    # the database

    def _start(self, delay: float = 0.0) -> None:
        if self._working is None and self._runs:
            self._working = Deferred()
            self._reactor.callLater(delay, self._begin)

    def _begin(self) -> None:
        Deferred.fromCoroutine(self._work()).addBoth(self._ended)

    def _ended(self, _: object) -> None:
        working, self._working = self._working, None
        if working is not None:
            working.callback(None)
        if self._wanted or self._claims:
            self._start(_RETRY_SECONDS if self._failing else 0.0)

    async def _work(self) -> None:
        """
        Do what there is to do, as long as there is something.
        """
        doing: dict[str, Take] = {}
        try:
            while self._runs and (self._wanted or self._claims):
                claims = {agent: self._claims.pop(agent) for agent in list(self._claims)[:_BATCH]}
                doing = {agent: self._takes[agent] for agent in claims if agent in self._takes}
                if claims:
                    await self._claim(claims)
                    self._waiters.answered_at = self._now()
                doing = self._next()
                if doing:
                    await self._look(doing)
                    self._waiters.answered_at = self._now()
                doing = {}
                self._failing = False
        except FencedError:
            self._again(doing)
            self._fenced()
            self._failing = True
        except Exception as error:
            self._again(doing)
            self._tables.close()
            if not isinstance(error, DatabaseError):
                _log.failure("agents could not be taken")
            elif not self._failing:
                _log.warn("agents cannot be taken now: {reason}", reason=one_line(error))
            self._failing = True

    def _next(self) -> dict[str, Take]:
        """
        The agents to look for, without those for which nobody waits any more.
        """
        wanted = {agent: self._wanted.pop(agent) for agent in list(self._wanted)[:_BATCH]}
        for agent, take in wanted.items():
            if not take.is_wanted:
                self._drop(agent, take)
        return {agent: take for agent, take in wanted.items() if take.is_wanted}

    def _again(self, takes: Mapping[str, Take]) -> None:
        """
        Look for agents again, as far as somebody still waits for them.
        """
        for agent, take in takes.items():
            if self._takes.get(agent) is not take:
                continue
            if take.is_wanted:
                self._wanted[agent] = take
            else:
                self._drop(agent, take)

    def _drop(self, agent: str, take: Take) -> None:
        """
        Nobody waits for an agent any more.
        """
        del self._takes[agent]
        self._waiters.answer_all(take, is_here=False)
        self._reply(take)
        if take.unanswered:
            # the question may still arrive, and the agent may be given away for nothing: this arrives after it
            self._releases.orphan(agent)

    async def _look(self, takes: Mapping[str, Take]) -> None:
        wanted = [Wanted(agent, self._releases.gens.get(agent), take.forced) for agent, take in takes.items()]
        seen = {one.agent: one for one in await self._tables.look(wanted)}
        letters = await self._letters_of(
            [one.agent for one in seen.values() if one.letters and one.found is Found.TAKEN]
        )
        for agent, take in takes.items():
            if self._takes.get(agent) is not take:
                # the log has become another one
                continue
            one = seen.get(agent)
            if one is None:
                # another node has seen it for the first time, too
                self._wanted[agent] = take
            else:
                self._sort(take, one, letters.get(agent, []))

    def _sort(self, take: Take, one: Seen, letters: list[Listed]) -> None:
        agent = one.agent
        if one.found is Found.KEPT:
            if agent in self._releases.gens:
                self._done(agent, take)
            else:
                # it was given away since
                self._wanted[agent] = take
            return
        self._releases.forget(agent, one.owner)
        given = self._releases.given.newest(agent, one.gen - (one.found is Found.TAKEN))
        if one.found is Found.OWNED and not take.is_wanted:
            # its client has gone: it may be at that node now
            self._drop(agent, take)
        elif one.found is not Found.OWNED and given is not None:
            # it was given away, and the other node could not take it; the database does not have its last state yet
            self._claims[agent] = Claim(agent, one.gen, given)
        elif one.found is Found.TAKEN:
            self._taken(agent, take, one.gen, one.state.encode(), letters)
        elif one.found is Found.STALE:
            self._claims[agent] = Claim(agent, one.gen, Raw(folded(one)))
        elif one.gen == take.refused:
            # a backup was restored, and the node that has it does not know it yet: what the database has is good
            self._force(take, agent)
        else:
            self._ask(take, one)

    def _force(self, take: Take, agent: str) -> None:
        self._counts.forced += 1
        take.forced = True
        self._wanted[agent] = take

    def _ask(self, take: Take, one: Seen) -> None:
        agent = one.agent

        def ready(answer: bytes | None) -> None:
            if self._takes.get(agent) is not take:
                return
            given = read_answer(answer)
            take.unanswered = take.unanswered or answer is None
            if answer == KEPT:
                # a client may have come meanwhile
                take.adopts = False
                self._again({agent: take})
            elif answer is None and not take.is_wanted:
                self._drop(agent, take)
            elif answer is None and not take.has_clients:
                # it may be alive, and have clients of the agent; if it is dead, the leader fences it
                take.sleeps = True
                self._sleepers.put(agent, _ADOPT_SECONDS)
            elif given is None:
                self._force(take, agent)
            else:
                take.letters = given.letters
                self._claims[agent] = Claim(agent, one.gen, Raw(encode(given.state)), given.pos, given.event_id)
            self._start()

        self._counts.asked += 1
        question = Question(agent, one.gen, idle=not take.has_clients)
        self._bus.ask(str(one.owner), TOPIC, encode(question), RELEASE_SECONDS, ready)

    async def _claim(self, claims: Mapping[str, Claim]) -> None:
        got = await self._tables.take(claims.values())
        letters = await self._letters_of([agent for agent, one in got.items() if one.letters])
        for agent, claim in claims.items():
            take = self._takes.get(agent)
            if take is None:
                continue
            one = got.get(agent)
            if one is None:
                # another node was faster, or that state is not of this log
                take.forced = False
                take.refused = claim.gen
                take.letters = []
                self._wanted[agent] = take
            else:
                known = {letter.event_id: letter for letter in (*letters.get(agent, ()), *take.letters)}
                self._taken(agent, take, one.gen, bytes(claim.state), list(known.values()))

    async def _letters_of(self, agents: Collection[str]) -> dict[str, list[Listed]]:
        letters: dict[str, list[Listed]] = {}
        if agents:
            for letter in await self._tables.letters_of(agents):
                letters.setdefault(letter.agent, []).append(letter)
        return letters

    def _taken(self, agent: str, take: Take, gen: int, state: bytes, letters: list[Listed]) -> None:
        """
        This node has an agent, of which another one may have been sent more of the log than was read here.
        """
        known = read_state(agent, state)

        def ready(is_there: bool) -> None:
            if self._takes.get(agent) is not take:
                return
            if known is not None and not is_there:
                self._releases.given.add(agent, gen, known, self._releases.last())
                self._leave_it(agent, take)
                return
            self._releases.gens[agent] = gen
            self._releases.given.forget(agent)
            self._ownership.take_over(agent, known, letters)
            self._done(agent, take)

        self._reach(0 if known is None else known.upto, ready)

    def _leave_it(self, agent: str, take: Take) -> None:
        """
        The log cannot be read here.  Offer the agent to the other nodes if it has no connection here; otherwise take it
        again.
        """
        self._drop(agent, take)
        if not self._ownership.is_connected(agent):
            self._releases.orphan(agent)
        elif agent not in self._takes:
            # by a connection that does not come again
            self._takes[agent] = self._wanted[agent] = Take(adopts=True)
            self._start()

    def _done(self, agent: str, take: Take) -> None:
        del self._takes[agent]
        if take.waiting:
            self._waiters.answer_all(take, is_here=True)
        else:
            self._ownership.settle_in(agent)
        if not self._ownership.is_connected(agent):
            # its client has gone meanwhile: if it is connected to another node, it is better there
            self._releases.offer(agent)
        self._reply(take)

    def _reply(self, take: Take) -> None:
        for asked, node, answer in take.wanted_by:
            answer(self._releases.reply(asked, node))
