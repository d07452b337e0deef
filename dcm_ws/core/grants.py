"""
Which budgets clients spend from: an agent with all its connections from one budget; a client that has not authenticated
from a budget of its own, and from that of its address.
"""

from __future__ import annotations

from collections.abc import Callable

from dcm_ws.core.budgets import BURST, Allowance, Budget, Budgets
from dcm_ws.core.pooled import Pool, PooledBudget
from dcm_ws.core.rules import Rules
from dcm_ws.core.session import Session

CLIENTS_OF_AN_ADDRESS = 10
"""
The clients of one address that have not authenticated may send as much together as this many of them.
"""

STRANGERS_OF_AN_ADDRESS = 20
"""
The same in production, where each may send little, and where all clients of a proxy may have one address.
"""


class Grants:
    """
    Gives clients their budgets.

    @param now: monotonic seconds.
    @param pool: returns the pool of the budgets of a kind, C{agents} or C{addresses}, that this process shares with
        others; None if it shares none.

    @ivar agents: the budgets of the agents.
    @ivar addresses: those of the addresses.
    """

    def __init__(
        self, rules: Rules, now: Callable[[], float], pool: Callable[[str, Allowance], Pool] | None = None
    ) -> None:
        self._now = now
        self._agent = Allowance(rules.rate_limit, rules.rate_burst, rules.rate_bytes)
        self._anonymous = self._agent
        if rules.production:
            self._anonymous = Allowance(
                rules.stranger_rate,
                max(1.0, 5 * rules.stranger_rate) if rules.stranger_rate else BURST,
                rules.stranger_bytes,
            )
        together = self._anonymous.times(STRANGERS_OF_AN_ADDRESS if rules.production else CLIENTS_OF_AN_ADDRESS)
        self.agents = _budgets("agents", self._agent, now, pool)
        self.addresses = _budgets("addresses", together, now, pool)

    def to_anonymous(self, session: Session) -> None:
        """
        A client has connected.
        """
        address = session.origin.address
        if self._anonymous.is_limited:
            own = Budget(self._anonymous, self._now())
            session.budgets = (own, self.addresses.hold(address)) if address else (own,)

    def to_address(self, session: Session) -> None:
        """
        A caller over HTTP, which lasts for one request, has not authenticated: it spends from its address only.
        """
        address = session.origin.address
        if self._anonymous.is_limited and address:
            session.budgets = (self.addresses.hold(address),)

    def to_agent(self, session: Session, agent: str) -> None:
        """
        A client becomes C{agent}; C{session.agent} is still the former agent.
        """
        self.end(session)
        session.budgets = (self.agents.hold(agent),) if self._agent.is_limited else ()

    def end(self, session: Session) -> None:
        """
        A client is gone, or becomes another agent.
        """
        if not session.budgets:
            return
        if session.agent is not None:
            self.agents.release(session.agent)
        elif session.origin.address:
            self.addresses.release(session.origin.address)
        session.budgets = ()

    def forget(self) -> None:
        """
        Drop the budgets that are not needed any more.
        """
        self.agents.forget()
        self.addresses.forget()


def _budgets(
    kind: str, allowance: Allowance, now: Callable[[], float], pool: Callable[[str, Allowance], Pool] | None
) -> Budgets:
    if pool is None:
        return Budgets(allowance, now)
    shared = pool(kind, allowance)
    return Budgets(allowance, now, make=lambda name, at: PooledBudget(allowance, at, shared, name))
