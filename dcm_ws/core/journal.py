"""
What the database has to learn of agents and dead letters: which of them have changed since it was last told, and how
(protocol, section 10).

The memory of the service is what holds while it runs.  After a crash, each agent gets what was published after its
place in the database, and what it owes there.  So what is there may be older than what is true, and never newer: a
place may be lower, and more may be owed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dcm_ws.core.agent_states import (
    AgentState,
    Change,
    Sends,
    decode_change,
    difference,
    encode,
    merge,
    whole,
)
from dcm_ws.core.agents import AgentMemory
from dcm_ws.core.catchup import CatchUp
from dcm_ws.core.changed import Changed
from dcm_ws.core.clients import Clients
from dcm_ws.core.dead_letters import DeadLetters, LetterChanges
from dcm_ws.core.ports import Log
from dcm_ws.core.session import Session

SETTLED_MAX = 1000
"""
Positions that a change may say are not owed any more; beyond it, it has the whole state of the agent.
"""

_CHECKPOINT_BYTES = 16 << 20
# things looked at that take as long as one other step
_A_STEP = 64


class Changes(NamedTuple):
    """
    What is to be written with one step, all of it or nothing.

    @ivar agents: each with its change, as JSON.
    @ivar letters: dead letters.
    @ivar generation: stands for the log that all of this is of.
    """

    agents: list[tuple[str, bytes]]
    letters: LetterChanges
    generation: int


class Checkpoint(NamedTuple):
    """
    The whole states of agents that have changed.

    @ivar agents: each with its state, as JSON.
    @ivar gone: the agents of which nothing is kept any more.
    @ivar complete: all that have changed are here: the changes that were written before the checkpoint began are not
        needed any more.
    @ivar generation: as in L{Changes}.
    """

    agents: list[tuple[str, bytes]]
    gone: list[str]
    complete: bool
    generation: int


class UnwrittenError(Exception):
    """
    A checkpoint was begun, or went on, while changes were not written.
    """


class Journal:
    """
    Knows what was written, and returns what has to be written.  It writes nothing itself.

    It begins when L{Loading<dcm_ws.core.loading.Loading>} has loaded what is in the database; before that, there is
    nothing to write.
    """

    def __init__(
        self,
        *,
        changed: Changed,
        clients: Clients,
        memory: AgentMemory,
        letters: DeadLetters,
        catch_up: CatchUp,
        log: Log,
    ) -> None:
        self._changed = changed
        self._connections = clients.connections
        self._elsewhere = clients.elsewhere
        self._memory = memory
        self._letters = letters
        self._catch_up = catch_up
        self._log = log
        # what the database has, or will have when all that was taken has been written
        self._written: dict[str, AgentState] = {}
        self._to_do: dict[str, None] = {}
        # those that have been sent something and may get it again
        self._later: set[str] = set()
        self._pending: dict[str, bytes] = {}
        self._unsaved: dict[str, None] = {}
        # what is being written
        self._taken: Changes | None = None
        self._checkpoint: Checkpoint | None = None
        self._generation = 0

    def clear(self) -> None:
        """
        Forget everything, and stop: the log has become another one.
        """
        self._generation += 1
        self._changed.stop()
        for kept in (self._written, self._to_do, self._later, self._pending, self._unsaved):
            kept.clear()
        self._taken = self._checkpoint = None

    def loaded(self, agent: str, state: AgentState) -> None:
        """
        The database has this.
        """
        self._written[agent] = state

    def start(self) -> None:
        """
        Everything is loaded: what is different has to be written from now on.
        """
        self._changed.start()
        for agent in (*self._written, *self._connections):
            self._changed.agent(agent)

    # the changes

    @property
    def pending(self) -> int:
        """
        How many agents have changes that are not written yet, as far as is known: those that have changed, or were sent
        or have acknowledged something, since L{collect}, and those of which changes were found, or are being written.
        """
        clients, changed = self._changed.look()
        agents = {*changed, *self._to_do, *self._pending}
        for client in clients:
            assert isinstance(client, Session)
            if client.durable and client.present is not None:
                agents.add(client.present)
        if self._taken is not None:
            agents.update(agent for agent, _ in self._taken.agents)
        return len(agents)

    def collect(self) -> Iterator[None]:
        """
        Find out what has changed, one agent a step.
        """
        clients, agents = self._changed.take()
        self._to_do.update(dict.fromkeys(agents))
        for number, client in enumerate(clients):
            assert isinstance(client, Session)
            agent = client.present
            if agent is None:
                continue
            if client.durable:
                self._to_do[agent] = None
            else:
                # it is owed nothing for long: its place in the database may be a little older
                self._later.add(agent)
            if not number % _A_STEP:
                yield
        while self._to_do:
            agent = next(iter(self._to_do))
            size = self._look(agent)
            del self._to_do[agent]
            # one that owes very many acks takes as long as others together
            yield from (None,) * (1 + size // _A_STEP)

    def take(self) -> Changes | None:
        """
        What L{collect} has found, and the dead letters; None if that is nothing.  What is taken has to be given to
        L{written} or L{put_back} before the next call.
        """
        assert self._taken is None
        letters = self._letters.changes()
        if not (self._pending or letters.kept or letters.dropped):
            return None
        pending, self._pending = self._pending, {}
        self._taken = Changes(list(pending.items()), letters, self._generation)
        return self._taken

    def written(self, changes: Changes) -> None:
        """
        C{changes} are in the database.
        """
        if changes is self._taken:
            self._taken = None

    def put_back(self, changes: Changes, agents: Iterable[tuple[str, bytes]] | None = None) -> None:
        """
        C{changes} could not be written, as far as is known: they come with the next ones.

        @param agents: those of the agents in it that are still this node's; None for all.
        """
        if changes.generation != self._generation:
            return
        self.written(changes)
        for agent, data in changes.agents if agents is None else agents:
            then = self._pending.get(agent)
            self._pending[agent] = data if then is None else self._merged(agent, data, decode_change(then))
        self._letters.put_back(changes.letters)

    # the states

    def checkpoint(self) -> Iterator[None]:
        """
        Put together the states of the agents that have changed since the last checkpoint, one a step.

        All that L{collect} has found must be written, now and at each step: an agent does not owe any more what has
        become a dead letter, and the state must not say so before the letter is in the database.

        @raise UnwrittenError: something is not written, here or at a step.
        """
        self._demand_written()
        return self._put_together()

    def _demand_written(self) -> None:
        if self._pending or self._taken is not None:
            raise UnwrittenError("a checkpoint needs all changes that were found to be written")

    def _put_together(self) -> Iterator[None]:
        self._to_do.update(dict.fromkeys(self._later))
        self._later.clear()
        head = self._log.head
        old = head - (head - self._log.first) // 4
        for number, agent in enumerate(list(self._connections)):
            written = self._written.get(agent)
            if written is not None and written.sent < old:
                # its place must not fall out of the log while nothing is sent to it
                self._to_do[agent] = None
            if not number % _A_STEP:
                yield
        agents: list[tuple[str, bytes]] = []
        gone: list[str] = []
        size = 0
        while self._unsaved and size < _CHECKPOINT_BYTES:
            self._demand_written()
            agent = next(iter(self._unsaved))
            del self._unsaved[agent]
            state = self._written.get(agent)
            if state is None:
                gone.append(agent)
            else:
                agents.append((agent, encode(state)))
                size += len(agents[-1][1])
            self._checkpoint = Checkpoint(agents, gone, not self._unsaved, self._generation)
            yield

    def take_checkpoint(self) -> Checkpoint | None:
        """
        What L{checkpoint} has put together; None if nothing has changed.
        """
        checkpoint, self._checkpoint = self._checkpoint, None
        return checkpoint

    def put_back_checkpoint(self, checkpoint: Checkpoint) -> None:
        """
        C{checkpoint} could not be written.
        """
        if checkpoint.generation == self._generation:
            self._unsaved.update(dict.fromkeys([agent for agent, _ in checkpoint.agents] + checkpoint.gone))

    # one agent

    def release(self, agent: str) -> AgentState | None:
        """
        Another node writes what becomes of an agent from now on; return its state.  None if nothing is kept of it.
        """
        state = self.state_of(agent) or self._written.get(agent)
        for kept in (self._written, self._to_do, self._pending, self._unsaved):
            kept.pop(agent, None)
        self._later.discard(agent)
        return state

    def _look(self, agent: str) -> int:
        """
        Note what has changed of an agent; return how much it owes.
        """
        if agent in self._elsewhere:
            return 0
        written, state = self._written.get(agent), self.state_of(agent)
        if state is None:
            if written is None or self._memory.remembers(agent):
                # its deliveries have expired, which its state says by itself
                return 0
            change: Change | None = Change(gone=True)
            del self._written[agent]
        else:
            change = whole(state) if written is None else difference(written, state)
            self._written[agent] = state
        if change is not None:
            then = self._pending.get(agent)
            self._pending[agent] = encode(change) if then is None else self._merged(agent, then, change)
            self._unsaved[agent] = None
        return 0 if state is None else len(state.owed)

    def _merged(self, agent: str, first: bytes, then: Change) -> bytes:
        change, state = merge(decode_change(first), then), self._written.get(agent)
        if len(change.settled) > SETTLED_MAX and state is not None:
            # nothing may grow while the database is away
            change = whole(state)
        return encode(change)

    def state_of(self, agent: str) -> AgentState | None:
        """
        What holds of an agent now; None if nothing is kept of it.
        """
        connections = self._connections.get(agent)
        if connections:
            return self._state_of_all(agent, connections)
        absence = self._memory.absence(agent)
        if absence is None:
            return None
        owed = {pos: (one.id, one.sends + one.earlier) for pos, one in absence.owed.items()}
        return AgentState(0, dict(absence.channels), owed, absence.durable, absence.left)

    def _state_of_all(self, agent: str, connections: Iterable[Session]) -> AgentState:
        """
        The state of an agent by all of its connections: what one has to get or to acknowledge is the agent's.
        """
        sent = self._log.head
        places: dict[str, int] = {}
        owed: dict[int, Sends] = {}
        durable = False
        for session in connections:
            upto, channels = self._catch_up.places(session)
            sent = min(sent, upto)
            for name, place in channels.items():
                places[name] = min(place, places.get(name, place))
            for delivery in session.owed.values():
                event = delivery.event
                _owe(owed, event.seq, event.id, delivery.sends + event.earlier)
            if session.behind is not None:
                for pos, one in session.behind.owed.items():
                    _owe(owed, pos, one.id, one.sends + one.earlier)
            durable = durable or session.durable
        for pos in self._letters.redriven_of(agent):
            # it is owed as long as it is a dead letter
            owed.pop(pos, None)
        channels = {name: place if place > sent else 0 for name, place in places.items()}
        return AgentState(sent, channels, owed, durable, None)


def _owe(owed: dict[int, Sends], pos: int, event_id: str, sends: int) -> None:
    former = owed.get(pos)
    if former is None or former[1] < sends:
        owed[pos] = event_id, sends
