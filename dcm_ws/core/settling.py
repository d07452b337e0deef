"""
What clients acknowledge and refuse: it holds for all connections of their agent (protocol, sections 4 and 10).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dcm_ws.core.agents import AgentMemory
from dcm_ws.core.catchup import CatchUp
from dcm_ws.core.changed import Changed
from dcm_ws.core.clients import Clients
from dcm_ws.core.counters import Count
from dcm_ws.core.dead_letters import DeadLetters
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.ledger import Ledger
from dcm_ws.core.other_nodes import OtherNodes
from dcm_ws.core.resumption import Resumption
from dcm_ws.core.session import Session
from dcm_ws.protocol.commands import Ack, AckUpTo, Nack


class Settling:
    """
    Settles deliveries, at all connections of an agent together.

    @param now: monotonic seconds.
    @param early_acks: counts those that had to be forgotten.
    """

    def __init__(
        self,
        now: Callable[[], float],
        *,
        deliveries: DeliveryQueue,
        memory: AgentMemory,
        clients: Clients,
        letters: DeadLetters,
        catch_up: CatchUp,
        changed: Changed,
        resumption: Resumption,
        other_nodes: OtherNodes,
        ledger: Ledger,
        early_acks: Count,
    ) -> None:
        self._now = now
        self._early_acks = early_acks
        self._ledger = ledger
        self._deliveries = deliveries
        self._memory = memory
        self._clients = clients
        self._shared = clients.shared
        self._elsewhere = clients.elsewhere
        self._letters = letters
        self._catch_up = catch_up
        self._changed = changed
        self._resumption = resumption
        self._other_nodes = other_nodes

    def settle(self, session: Session, ack: Ack | AckUpTo) -> bool:
        """
        C{session} has acknowledged something, which settles it for all connections of its agent.  False if none of them
        owed an ack for it.
        """
        message_id = ack.message_id
        is_alone = session.behind is None and session.agent not in self._shared and not self._letters.redriven
        if is_alone and message_id is not None:
            # nearly all acks
            return self._deliveries.ack(session, message_id) or self._is_late(session.present, message_id)
        if (ack.pos or 0) > self._catch_up.head:
            # of another epoch: it would settle what is still to come
            return False
        agent = session.present
        sessions = [session]
        if agent is not None:
            sessions += self._clients.others(session, agent)
        settled = False
        for one in sessions:
            settled = self._settle(one, ack, session.heard_at, came_here=one is session) or settled
        if agent is not None:
            if self._letters.redriven:
                self._settle_redriven(agent, sessions, ack)
            if settled:
                self._changed.agent(agent)
            elif message_id is not None:
                settled = self._is_late(agent, message_id)
            if agent in self._elsewhere or agent in self._clients.abroad:
                self._other_nodes.acknowledged(agent, message_id, ack.pos or None)
        return settled

    def acknowledge(self, agent: str, ack: Ack | AckUpTo) -> None:
        """
        A connection of C{agent} at another node has acknowledged something.  If the agent is that node's, this settles
        it for the connections here, and nothing else.
        """
        sessions = list(self._clients.connections.get(agent, ()))
        now = self._now()
        settled = [self._settle(one, ack, now, came_here=False) for one in sessions]
        self._settle_redriven(agent, sessions, ack)
        if ack.message_id is not None and not any(settled):
            self._is_late(agent, ack.message_id)
        if not sessions:
            for pos in self._memory.settle(agent, ack.message_id or "", ack.pos or 0):
                self._ledger.note(agent, pos, "acknowledged")
        self._changed.agent(agent)

    def _is_late(self, agent: str | None, event_id: str) -> bool:
        """
        Is the event a dead letter that its agent has acknowledged after all?  Then it is one no more.
        """
        letter = None if agent is None else self._letters.get(agent, event_id)
        if letter is None:
            return False
        self._ledger.note(letter.agent, letter.event.seq, "acknowledged")
        self._letters.drop(letter)
        return True

    def _settle(self, session: Session, ack: Ack | AckUpTo, at: float, *, came_here: bool) -> bool:
        """
        @param at: when the ack arrived (monotonic seconds).
        @param came_here: it came on this connection, and not on another one of the agent.
        """
        pos, event_id, behind = ack.pos or 0, ack.message_id, session.behind
        if behind is not None:
            settled = behind.settle(event_id, pos)
            if session.present is not None:
                for one in settled:
                    self._ledger.note(session.present, one, "acknowledged")
            if ack.pos is not None:
                # it may have got further without owing anything
                self._changed.agent(session.present)
            if event_id is not None and not (came_here or settled or event_id in session.owed):
                # it has not been sent here yet
                self._early_acks.value += not behind.acknowledged_elsewhere(event_id)
        if event_id is not None:
            return self._deliveries.ack(session, event_id, at)
        return self._deliveries.ack_all(session, pos, at)

    def _settle_redriven(self, agent: str, sessions: Sequence[Session], ack: Ack | AckUpTo) -> None:
        """
        What was redriven and is acknowledged need not be kept any more.
        """
        for pos, letter in self._letters.redriven_of(agent).items():
            if ack.message_id is not None:
                settled = letter.event.id == ack.message_id
            else:
                waits = any(one.behind is not None and pos in one.behind.owed for one in sessions)
                settled = pos <= (ack.pos or 0) and not waits
            if settled:
                self._ledger.note(agent, pos, "acknowledged")
                self._letters.drop(letter)

    def refuse(self, session: Session, nack: Nack) -> bool:
        """
        C{session} wants an event to be sent again, to the connection of its agent that owes an ack for it.  False if
        none does.
        """
        sessions = [session]
        if session.present is not None:
            sessions += self._clients.others(session, session.present)
        delay = (nack.delay_ms or 0) / 1000
        if not any(self._deliveries.nack(one, nack.message_id, delay) for one in sessions):
            return False
        if not session.durable:
            # who refuses an event would have acknowledged it
            self._resumption.make_durable(session)
        return True
