"""
What becomes of an event that a client does not acknowledge in the end (protocol, sections 4 and 10).
"""

from __future__ import annotations

from dcm_ws.core.changed import Changed
from dcm_ws.core.clients import Clients
from dcm_ws.core.counts import Counts
from dcm_ws.core.dead_letters import DeadLetters, Reason
from dcm_ws.core.ledger import Ledger
from dcm_ws.core.session import Session
from dcm_ws.core.tracked import Tracked


class GivingUp:
    """
    Makes dead letters of what durable agents do not acknowledge, and counts what is given up.
    """

    def __init__(
        self, counts: Counts, *, clients: Clients, letters: DeadLetters, changed: Changed, ledger: Ledger
    ) -> None:
        self._counts = counts.deliveries
        self._changed = changed
        self._clients = clients
        self._letters = letters
        self._ledger = ledger

    def give_up(self, session: Session, event: Tracked, deliveries: int, reason: Reason) -> None:
        """
        The event is not sent to C{session} any more.  Nothing else happens if another connection of its agent still
        owes an ack for it: one that is dead must not bury what the agent can get on another one.

        @param deliveries: how often it was sent.
        """
        agent = session.present
        if agent is not None and any(_owes(other, event) for other in self._clients.others(session, agent)):
            return
        there = None if agent is None else self._clients.elsewhere.get(agent)
        if agent is not None and there is not None:
            self._clients.elsewhere[agent] = there._replace(given_up=min(event.seq, there.given_up))
        elif agent is not None and session.durable:
            self._letters.bury(agent, event, deliveries, reason)
            self._ledger.note(agent, event.seq, "dead", reason)
        self.count(session)

    def count(self, session: Session) -> None:
        """
        An event that C{session} owed an ack for is not sent any more.
        """
        self._changed.agent(session.present)
        if session.durable:
            self._counts.given_up += 1
        else:
            self._counts.never_acknowledged += 1


def _owes(session: Session, event: Tracked) -> bool:
    return event.id in session.owed or (session.behind is not None and event.seq in session.behind.owed)
