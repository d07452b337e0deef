"""
The last states of agents that this node had, until the database has them.
"""

from __future__ import annotations

from msgspec import Raw

from dcm_ws.brokers.handovers import EMPTY, UNKNOWN, same_answer
from dcm_ws.core.agent_states import AgentState, encode
from dcm_ws.postgres.agent_owners import Claim


class GivenAway:
    """
    Keeps them, each with the number that the agent had here.  They were given to another node, which may not take them
    after all, or to nobody.
    """

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}

    def clear(self) -> None:
        """
        The log has become another one.
        """
        self._claims.clear()

    def add(self, agent: str, gen: int, state: AgentState | None, last: tuple[int, str]) -> None:
        """
        An agent was given away.

        @param state: None if nothing is kept of it.
        @param last: the position and the id of the last event that was delivered here.
        """
        self._claims[agent] = Claim(agent, gen, Raw(EMPTY if state is None else encode(state)), *last)

    def forget(self, agent: str) -> None:
        """
        The agent is here again.
        """
        self._claims.pop(agent, None)

    def newest(self, agent: str, gen: int) -> Raw | None:
        """
        The state of an agent that nobody else has taken since; None if the database may have a newer one.

        @param gen: the number that it has in the database; or had, if this node has just taken it.
        """
        claim = self._claims.get(agent)
        return None if claim is None or claim.gen != gen else claim.state

    def answer(self, agent: str, gen: int) -> bytes:
        """
        Several nodes may want an agent at the same time, of which one gets it: all get the same answer.

        @param gen: the number of the agent that is asked for.
        """
        claim = self._claims.get(agent)
        if claim is None or claim.gen != gen:
            return UNKNOWN
        return same_answer(claim)

    def unwritten(self) -> list[Claim]:
        """
        What the database does not have.
        """
        return list(self._claims.values())

    def written(self, claim: Claim) -> None:
        """
        The database has this now.
        """
        if self._claims.get(claim.agent) is claim:
            self.forget(claim.agent)
