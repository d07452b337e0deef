"""
Takes agents of a cluster for clients that authenticate, and gives them to other nodes.

All that wait are looked up with one statement.  Who has an agent is in its row.  If another node has it, that node is
asked for its state over the bus; without an answer, the agent is taken with what the database has of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dcm_ws.brokers.agent_tables import AgentTables
from dcm_ws.brokers.given_away import GivenAway
from dcm_ws.brokers.handovers import KEPT, UNKNOWN, Question, answer_of, folded, read_answer, read_question, read_state
from dcm_ws.core.agent_states import encode
from dcm_ws.core.counts import OwnerCounts
from dcm_ws.core.dead_letters import Listed
from dcm_ws.core.deadlines import Deadlines
from dcm_ws.core.ownership import Ownership
from dcm_ws.core.ports import AnswerLater, Bus, OwnersReport
from dcm_ws.postgres.agent_owners import Claim, FencedError, Found, Seen, Wanted
from dcm_ws.postgres.connection import DatabaseError, one_line

_log = Logger(namespace="dcm_ws.owners")

TAKE_SECONDS = 1.0
"""
Seconds that a client waits for its agent while the database does not answer.
"""

TAKE_LONGEST = 5.0
"""
Seconds that it waits in any case: if another node was killed, hundreds of agents may come at once.
"""

RELEASE_SECONDS = 0.2
"""
Seconds that another node has to give an agent away.
"""

TOPIC = "release"
ORPHANS = "orphan"

_BATCH = 1000
_RETRY_SECONDS = 0.1
_ADOPT_SECONDS = 2.0


@dataclass(slots=True, eq=False)
class _Waiter:
    """
    Someone who waits for an agent: the parameters of L{Takes.take}.

    @ivar since: monotonic seconds.
    """

    take: _Take
    since: float
    ready: Callable[[bool], object]
    waits: Callable[[], bool]


@dataclass(slots=True)
class _Take:
    """
    An agent that clients wait for, or that has connections here.

    @ivar forced: the node that has it has not answered.
    @ivar letters: what that node says of its dead letters, beyond what the database has.
    @ivar adopts: it is taken although nobody waits, unless the node that has it has a client of it.
    @ivar sleeps: nobody waits yet, and the node that has it did not answer.
    @ivar wanted_by: other nodes that have asked for it meanwhile.
    """

    waiting: list[_Waiter] = field(default_factory=list)
    forced: bool = False
    adopts: bool = False
    sleeps: bool = False
    letters: list[Listed] = field(default_factory=list)
    wanted_by: list[tuple[str, Callable[[bytes], object]]] = field(default_factory=list)

    @property
    def has_clients(self) -> bool:
        return any(one.waits() for one in self.waiting)

    @property
    def is_wanted(self) -> bool:
        return self.adopts or self.has_clients


class Takes:
    """
    The agents that this node has, and those that it is about to have.

    @param reach: as in L{Log<dcm_ws.core.ports.Log>}.
    @param fenced: called when this node may not write any more.

    @ivar gens: the agents that this node has, and how often they have been taken.
    @ivar given: those that it had.
    """

    def __init__(
        self,
        reactor: Any,
        tables: AgentTables,
        bus: Bus,
        counts: OwnerCounts,
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
        self.gens: dict[str, int] = {}
        self.given = GivenAway()
        self._takes: dict[str, _Take] = {}
        self._wanted: dict[str, _Take] = {}
        self._claims: dict[str, Claim] = {}
        self._working: Deferred[None] | None = None
        self._deadlines: Deadlines[_Waiter] = Deadlines(reactor.callLater, now, self._expire)
        self._sleepers: Deadlines[str] = Deadlines(reactor.callLater, now, self._wake)
        self._failing = False
        self._answered_at = -TAKE_SECONDS
        self._runs = True
        bus.attach(TOPIC, self._heard)
        bus.attach(ORPHANS, self._offered)

    def attach(self, ownership: Ownership) -> None:
        """
        Called once, before anything else.
        """
        self._ownership = ownership

    def report(self) -> OwnersReport:
        """
        How many agents are here, and are being taken.
        """
        return {"owned": len(self.gens), "awaited": len(self._takes)}

    def clear(self) -> None:
        """
        The log has become another one: this node has no agents, and nobody waits for any.
        """
        self.given.clear()
        self.gens.clear()
        self._forget_all()

    def stop(self) -> None:
        """
        Take no more agents; what this node has it has until the last flush.
        """
        self._runs = False
        self._forget_all()
        self._tables.close()

    def _forget_all(self) -> None:
        for kept in (self._takes, self._wanted, self._claims, self._deadlines, self._sleepers):
            kept.clear()

    def take(self, agent: str, ready: Callable[[bool], object], waits: Callable[[], bool]) -> None:
        """
        See L{Owners<dcm_ws.core.ports.Owners>}.
        """
        take = self._takes.get(agent)
        if take is None:
            self._takes[agent] = self._wanted[agent] = take = _Take()
            self._start()
        waiter = _Waiter(take, self._now(), ready, waits)
        take.waiting.append(waiter)
        self._deadlines.put(waiter, TAKE_SECONDS)
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
        See L{Owners<dcm_ws.core.ports.Owners>}, here and for L{offer}.
        """
        for agent in agents:
            if agent not in self._takes:
                self._takes[agent] = self._wanted[agent] = _Take(adopts=True)
        self._start()

    def offer(self, agent: str) -> None:
        if agent in self.gens:
            self._bus.cast(ORPHANS, agent.encode())

    def _expire(self, waiter: _Waiter) -> None:
        now, since = self._now(), waiter.since
        until = min(max(since, self._answered_at) + TAKE_SECONDS, since + TAKE_LONGEST)
        if until > now:
            self._deadlines.put(waiter, until - now)
        else:
            waiter.take.waiting.remove(waiter)
            self._answer([waiter], is_here=False)

    def _answer_all(self, take: _Take, *, is_here: bool) -> None:
        waiting, take.waiting = take.waiting, []
        for one in waiting:
            self._deadlines.drop(one)
        self._answer(waiting, is_here=is_here)

    def _answer(self, waiting: Iterable[_Waiter], *, is_here: bool) -> None:
        for one in waiting:
            try:
                one.ready(is_here)
            except Exception:
                _log.failure("a client could not be told that its agent is here")

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
        doing: dict[str, _Take] = {}
        try:
            while self._runs and (self._wanted or self._claims):
                claims = {agent: self._claims.pop(agent) for agent in list(self._claims)[:_BATCH]}
                doing = {agent: self._takes[agent] for agent in claims if agent in self._takes}
                if claims:
                    await self._claim(claims)
                    self._answered_at = self._now()
                doing = self._next()
                if doing:
                    await self._look(doing)
                    self._answered_at = self._now()
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

    def _next(self) -> dict[str, _Take]:
        """
        The agents to look for, without those for which nobody waits any more.
        """
        wanted = {agent: self._wanted.pop(agent) for agent in list(self._wanted)[:_BATCH]}
        for agent, take in wanted.items():
            if not take.is_wanted:
                self._drop(agent, take)
        return {agent: take for agent, take in wanted.items() if take.is_wanted}

    def _again(self, takes: Mapping[str, _Take]) -> None:
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

    def _drop(self, agent: str, take: _Take) -> None:
        """
        Nobody waits for an agent any more.
        """
        del self._takes[agent]
        self._answer_all(take, is_here=False)
        for _, answer in take.wanted_by:
            answer(self.given.answer(agent, None))

    async def _look(self, takes: Mapping[str, _Take]) -> None:
        wanted = [Wanted(agent, self.gens.get(agent), take.forced) for agent, take in takes.items()]
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

    def _sort(self, take: _Take, one: Seen, letters: list[Listed]) -> None:
        agent = one.agent
        if one.found is Found.KEPT:
            if agent in self.gens:
                self._done(agent, take)
            else:
                # it was given away since
                self._wanted[agent] = take
            return
        self.forget(agent, one.owner)
        given = self.given.newest(agent, one.gen - (one.found is Found.TAKEN))
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
        else:
            self._ask(take, one)

    def _ask(self, take: _Take, one: Seen) -> None:
        agent = one.agent

        def ready(answer: bytes | None) -> None:
            if self._takes.get(agent) is not take:
                return
            given = read_answer(answer)
            if answer == KEPT:
                # a client may have come meanwhile
                take.adopts = False
                self._again({agent: take})
            elif answer is None and not take.has_clients:
                # it may be alive, and have clients of the agent; if it is dead, the leader fences it
                take.sleeps = True
                self._sleepers.put(agent, _ADOPT_SECONDS)
            elif given is None:
                self._counts.forced += 1
                take.forced = True
                self._wanted[agent] = take
            else:
                take.letters = given.letters
                self._claims[agent] = Claim(agent, one.gen, Raw(encode(given.state)))
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
                # another node was faster
                take.forced = False
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

    def _taken(self, agent: str, take: _Take, gen: int, state: bytes, letters: list[Listed]) -> None:
        """
        This node has an agent, of which another one may have been sent more of the log than was read here.
        """
        known = read_state(agent, state)

        def ready(is_there: bool) -> None:
            if self._takes.get(agent) is not take:
                return
            if known is not None and not is_there:
                self.given.add(agent, gen, known)
                self._leave_it(agent, take)
                return
            self.gens[agent] = gen
            self.given.forget(agent)
            self._ownership.take_over(agent, known, letters)
            self._done(agent, take)

        self._reach(0 if known is None else known.upto, ready)

    def _leave_it(self, agent: str, take: _Take) -> None:
        """
        The log cannot be read here.  Offer the agent to the other nodes if it has no connection here; otherwise take it
        again.
        """
        self._drop(agent, take)
        if not self._ownership.is_connected(agent):
            self.offer(agent)
        elif agent not in self._takes:
            # by a connection that does not come again
            self._takes[agent] = self._wanted[agent] = _Take(adopts=True)
            self._start()

    def _done(self, agent: str, take: _Take) -> None:
        del self._takes[agent]
        if take.waiting:
            self._answer_all(take, is_here=True)
        else:
            self._ownership.settle_in(agent)
        if not self._ownership.is_connected(agent):
            # its client has gone meanwhile: if it is connected to another node, it is better there
            self.offer(agent)
        for node, answer in take.wanted_by:
            answer(self._give(agent, node))

    # other nodes

    def forget(self, agent: str, node: int | None) -> None:
        """
        Another node has, or had, an agent that this node seems to have.
        """
        if self.gens.pop(agent, None) is not None:
            self._ownership.lose(agent, str(node))

    def give_back(self, agent: str) -> None:
        """
        This node is about to stop: prepare the state of an agent for the node that takes it next.
        """
        gen = self.gens.pop(agent, None)
        if gen is not None:
            self.given.add(agent, gen, self._ownership.give_back(agent))

    def _offered(self, node: str, message: bytes) -> None:
        self._ownership.offered(message.decode(errors="replace"))

    def _heard(self, node: str, message: bytes) -> bytes | AnswerLater | None:
        asked = read_question(message)
        if asked is None:
            return UNKNOWN
        agent, take = asked.agent, self._takes.get(asked.agent)
        if self.gens.get(agent) == asked.gen:
            is_used = self._ownership.is_connected(agent) or take is not None
            return KEPT if asked.idle and is_used else self._give(agent, node)
        if take is not None and agent not in self.gens:
            return partial(self._give_later, take, node)
        return self.given.answer(agent, asked.gen)

    def _give_later(self, take: _Take, node: str, answer: Callable[[bytes], object]) -> None:
        take.wanted_by.append((node, answer))

    def _give(self, agent: str, node: str) -> bytes:
        gen = self.gens.pop(agent, None)
        if gen is None:
            return self.given.answer(agent, None)
        given = self._ownership.release(agent, node)
        if given.state is not None:
            self.given.add(agent, gen, given.state)
        return answer_of(given)
