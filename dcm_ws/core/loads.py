"""
What agents still have to get and to acknowledge, and how far clients are behind, for C{/stats}.
"""

from __future__ import annotations

from itertools import islice
from typing import TypedDict

from dcm_ws.core.agents import AgentMemory
from dcm_ws.core.clients import Clients
from dcm_ws.core.dead_letters import DeadLetters
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.ports import Log


class Load(TypedDict):
    """
    What an agent has to acknowledge, or has not.

    @ivar inFlight: deliveries that were sent to its connections and await an ack.
    @ivar owed: these, and what it was sent before, and is sent again.
    @ivar behind: events of the log that its slowest connection has not passed yet.
    @ivar dead: its dead letters.
    """

    inFlight: int
    owed: int
    behind: int
    dead: int


class Loads:
    """
    Computes the loads of agents when it is asked: nothing is counted for them.
    """

    def __init__(
        self, *, clients: Clients, deliveries: DeliveryQueue, memory: AgentMemory, letters: DeadLetters, log: Log
    ) -> None:
        self._behind = clients.behind
        self._deliveries = deliveries
        self._memory = memory
        self._letters = letters
        self._log = log
        self._connections = clients.connections

    @property
    def owed(self) -> int:
        """
        Deliveries that all clients and absent agents have to acknowledge.
        """
        waiting = sum(len(client.behind.owed) for client in self._behind if client.behind is not None)
        return self._deliveries.pending + waiting + self._memory.kept

    @property
    def behind(self) -> int:
        """
        How many events of the log the slowest client has not passed yet.
        """
        head = self._log.head
        return max((head - client.behind.after for client in self._behind if client.behind is not None), default=0)

    def of_agents(self, most: int) -> dict[str, Load]:
        """
        The agents that have something to acknowledge, are behind or have dead letters: of C{most} connected
        ones, C{most} absent ones, and C{most} with dead letters.
        """
        head, loads = self._log.head, dict[str, Load]()
        for agent, sessions in islice(self._connections.items(), most):
            in_flight = waiting = behind = 0
            for session in sessions:
                in_flight += len(session.owed)
                if session.behind is not None:
                    waiting += len(session.behind.owed)
                    behind = max(behind, head - session.behind.after)
            if in_flight or waiting or behind:
                loads[agent] = {"inFlight": in_flight, "owed": in_flight + waiting, "behind": behind, "dead": 0}
        for agent, kept in self._memory.kept_of(most):
            if kept:
                loads[agent] = {"inFlight": 0, "owed": kept, "behind": 0, "dead": 0}
        for agent, dead in self._letters.by_agent(most):
            load = loads.setdefault(agent, {"inFlight": 0, "owed": 0, "behind": 0, "dead": 0})
            load["dead"] = dead
        return loads
