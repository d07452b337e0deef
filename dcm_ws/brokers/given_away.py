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
    Keeps them, each with the number that the agent had here.
    """

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}
        self._to_nobody: set[str] = set()

    def clear(self) -> None:
        """
        The log has become another one.
        """
        self._claims.clear()
        self._to_nobody.clear()

    def to_node(self, agent: str, gen: int, state: AgentState) -> None:
        """
        An agent was given to another node, which may not take it after all.
        """
        self._claims[agent] = Claim(agent, gen, Raw(encode(state)))

    def to_nobody(self, agent: str, gen: int, state: AgentState | None) -> None:
        """
        An agent was given back: whoever takes it next finds its state in the database.

        @param state: None if nothing is kept of it.
        """
        self._claims[agent] = Claim(agent, gen, Raw(EMPTY if state is None else encode(state)))
        self._to_nobody.add(agent)

    def forget(self, agent: str) -> None:
        """
        The agent is here again.
        """
        self._claims.pop(agent, None)
        self._to_nobody.discard(agent)

    def newest(self, agent: str, gen: int) -> Raw | None:
        """
        The state of an agent that nobody else has taken since; None if the database may have a newer one.

        @param gen: the number that it has in the database; or had, if this node has just taken it.
        """
        claim = self._claims.get(agent)
        return None if claim is None or claim.gen != gen else claim.state

    def answer(self, agent: str, gen: int | None) -> bytes:
        """
        Several nodes may want an agent at the same time, of which one gets it: all are told the same.

        @param gen: the number of the agent that is asked for; None for any.
        """
        claim = self._claims.get(agent)
        if claim is None or gen not in (None, claim.gen):
            return UNKNOWN
        return same_answer(bytes(claim.state))

    def unwritten(self) -> tuple[list[Claim], list[Claim]]:
        """
        What the database does not have: of agents that were given to nodes, and of those that were given back.
        """
        claims = self._claims.values()
        return (
            [claim for claim in claims if claim.agent not in self._to_nobody],
            [claim for claim in claims if claim.agent in self._to_nobody],
        )

    def written(self, claim: Claim) -> None:
        """
        The database has this now.
        """
        if self._claims.get(claim.agent) is claim:
            self.forget(claim.agent)
