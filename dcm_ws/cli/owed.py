"""
What agents are owed, read in the database: their states, and what waits for them in the log.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from dcm_ws.cli.durable_log import transaction
from dcm_ws.cli.terminal import say
from dcm_ws.core.agent_states import AgentState, AgentStates
from dcm_ws.postgres.statements import statement
from dcm_ws.protocol.events import TRACKED

WAITING_MAX = 10_000
"""
Events that are counted of each channel of an agent.
"""


class Event(NamedTuple):
    """
    An event in the log.

    @ivar at: ms since the epoch.
    """

    event: str
    channel: str
    at: int


class Agent(NamedTuple):
    """
    What an agent is owed.

    @ivar waiting: how many events have not been sent to it yet.
    @ivar oldest: when the oldest event was published that it was sent and has not acknowledged, or has not been sent,
        in ms since the epoch; None if there is none, or if it has left the log.
    @ivar dead: how many dead letters it has.
    """

    name: str
    state: AgentState
    waiting: int
    oldest: int | None
    dead: int

    def fields(self) -> dict[str, object]:
        """
        The agent as C{--json} prints it.
        """
        return {
            "agent": self.name,
            "connected": self.state.left is None,
            "left": self.state.left,
            "durable": self.state.durable,
            "owed": len(self.state.owed),
            "waiting": self.waiting,
            "oldest": self.oldest,
            "dead": self.dead,
            "sent": self.state.sent,
            "channels": {name: place_of(self.state, name) for name in sorted(self.state.channels)},
        }


def place_of(state: AgentState, channel: str) -> int:
    """
    The position after which an agent has not been sent everything in a channel.
    """
    return max(state.sent, state.channels[channel])


class Owed:
    """
    Reads what agents are owed.

    @ivar is_live: a service uses the durable log now.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        # a checkpoint moves what agents are owed from the journal to the states, which must not happen between queries
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        self.is_live = False

    def states(self, agent: str | None) -> dict[str, AgentState]:
        """
        Read the states of all agents, or of one.
        """
        states = AgentStates()
        with transaction(self._connection) as cursor:
            cursor.execute(statement("agents/has_leader"))
            (self.is_live,) = cursor.fetchone()
            cursor.execute(statement("agents/states_of"), {"agent": agent})
            for name, state, gen in cursor:
                states.add_state(name, state, gen)
            cursor.execute(statement("agents/changes_of"), {"agent": agent})
            for (changes,) in cursor:
                states.add_changes(changes)
        for error in states.errors:
            say(error)
        return states.states

    def agents(self, states: Mapping[str, AgentState]) -> list[Agent]:
        """
        Read what else there is of agents.
        """
        places = [
            {"agent": name, "channel": channel, "after": place_of(state, channel)}
            for name, state in states.items()
            for channel in state.channels
        ]
        with transaction(self._connection) as cursor:
            parameters = {"places": json.dumps(places), "tracked": list(TRACKED), "most": WAITING_MAX}
            cursor.execute(statement("agents/waiting"), parameters)
            waiting = {name: (number, oldest) for name, number, oldest in cursor}
            cursor.execute(statement("agents/letters_of"), {"agents": list(states)})
            dead = dict(cursor)
        events = self.events(min(state.owed) for state in states.values() if state.owed)
        agents = []
        for name, state in states.items():
            number, oldest = waiting.get(name, (0, None))
            if state.owed and (event := events.get(min(state.owed))):
                oldest = event.at if oldest is None else min(event.at, oldest)
            agents.append(Agent(name, state, number, oldest, dead.get(name, 0)))
        return agents

    def events(self, positions: Iterable[int]) -> dict[int, Event]:
        """
        Read events of the log by position; those that have left it are not there.
        """
        with transaction(self._connection) as cursor:
            cursor.execute(statement("agents/events_at"), {"positions": list(positions)})
            return {pos: Event(*event) for pos, *event in cursor}


def by_number_owed(states: Mapping[str, AgentState]) -> Sequence[str]:
    """
    The names of agents, those in front that have not acknowledged most.
    """
    return sorted(states, key=lambda name: (-len(states[name].owed), name))
