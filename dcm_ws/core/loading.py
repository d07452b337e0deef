"""
What was kept of agents and dead letters in the database, back in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dcm_ws.core.agent_states import AgentState
from dcm_ws.core.agents import Absence, AgentMemory
from dcm_ws.core.clients import Clients
from dcm_ws.core.dead_letters import DeadLetters, Listed
from dcm_ws.core.journal import Journal
from dcm_ws.core.ports import Log, World
from dcm_ws.core.resumption import Resumption
from dcm_ws.core.tracked import Owed
from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.errors import ProtocolError


class Loading:
    """
    Loads what the database has, after the log has got its position.  From then on the journal notes what changes.

    @param keep_deliveries: seconds for which the deliveries of durable agents are kept from then on.
    """

    def __init__(
        self,
        world: World,
        *,
        channels: Channels,
        clients: Clients,
        memory: AgentMemory,
        letters: DeadLetters,
        resumption: Resumption,
        journal: Journal,
        log: Log,
        keep_deliveries: float,
    ) -> None:
        self._wall_ms = world.wall_ms
        self._parse_channel = channels.parse
        self._connections = clients.connections
        self._memory = memory
        self._letters = letters
        self._resumption = resumption
        self._journal = journal
        self._log = log
        self._keep_deliveries = keep_deliveries

    def load(self, states: Mapping[str, AgentState], letters: Sequence[Listed]) -> Iterator[None]:
        """
        Have all agents of C{states} as if they had left: those that were connected, now.  One agent a step.

        An agent that is connected already gets what was kept of it.

        @param states: what the database has.  The changes that they come from have to be written there as states
            before: checkpoints have only what changes from now on.
        @param letters: the dead letters, in the order of dying.
        """
        self._memory.keep_deliveries = self._keep_deliveries
        self._letters.load(letters)
        now_ms = self._wall_ms()
        left = {agent: now_ms if one.left is None else min(one.left, now_ms) for agent, one in states.items()}
        for agent in sorted(left, key=left.__getitem__):
            state = states[agent]
            self._journal.loaded(agent, state)
            absence = self._absence(state, left[agent])
            connections = self._connections.get(agent)
            if connections:
                self._resumption.give(next(reversed(connections)), absence)
            else:
                self._memory.load(agent, absence, (now_ms - left[agent]) / 1000)
            yield
        self._memory.loaded()
        self._journal.start()

    def take_over(self, agent: str, state: AgentState, places: Mapping[str, int]) -> None:
        """
        Have an agent of the cluster that this node has taken, as if it had left here: now if it was connected.

        @param state: what the database has.
        @param places: those of its channels in which it was sent more since, with the positions.
        """
        self._journal.loaded(agent, state)
        now_ms = self._wall_ms()
        left = now_ms if state.left is None else min(state.left, now_ms)
        absence = self._absence(state, left)
        absence = absence._replace(channels={**absence.channels, **places})
        self._memory.take_over(agent, absence, (now_ms - left) / 1000)

    def _absence(self, state: AgentState, left: int) -> Absence:
        head = self._log.head
        # positions beyond the end of the log, and channels that do not exist any more, are of other times
        places = {name: min(pos, head) for name, pos in state.places.items() if self._exists(name)}
        owed = {pos: Owed(*_sends(state, pos)) for pos in sorted(state.owed) if 0 < pos <= head}
        return Absence(places, owed, state.durable, left)

    def _exists(self, name: str) -> bool:
        try:
            return self._parse_channel(name).name == name
        except ProtocolError:
            return False


def _sends(state: AgentState, pos: int) -> tuple[str, int, int]:
    event_id, sends = state.owed[pos]
    return event_id, 0, sends
