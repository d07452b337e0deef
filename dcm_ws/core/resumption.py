"""
What the connection of an agent leaves behind when it ends, and what the agent's next connection receives (protocol,
sections 4 and 5).
"""

from __future__ import annotations

from collections.abc import Iterator

from dcm_ws.core.agents import Absence, AgentMemory
from dcm_ws.core.counts import Counts
from dcm_ws.core.delivery import DeliveryQueue, Tracked
from dcm_ws.core.registry import ChannelRegistry
from dcm_ws.core.router import Router
from dcm_ws.core.rules import Rules
from dcm_ws.core.session import Session


class Resumption:
    """
    Moves subscriptions and deliveries from connections to the memory of their agents, and back.
    """

    def __init__(
        self,
        rules: Rules,
        counts: Counts,
        *,
        registry: ChannelRegistry[Session],
        deliveries: DeliveryQueue,
        memory: AgentMemory,
        router: Router,
    ) -> None:
        self._max_subscriptions = rules.max_subscriptions
        self._limits = counts.limits
        self._sent = counts.sent
        self._registry = registry
        self._deliveries = deliveries
        self._memory = memory
        self._router = router

    def keep(self, session: Session) -> None:
        """
        Keep what C{session} leaves behind for the agent that is present by it, if there is one.
        """
        owed = self._deliveries.release(session)
        if session.replaying is not None:
            once = {event.id: event for event in (*owed, *session.replaying)}
            owed = sorted(once.values(), key=lambda event: event.seq)
            session.replaying = None
        if session.present is not None:
            subscriptions = frozenset(self._registry.channels(session))
            absence = Absence(subscriptions, owed, self._router.published, session.acknowledges)
            self._memory.left(session.present, absence)

    def first_ack(self, session: Session) -> None:
        """
        C{session}, which has never acknowledged anything, does so now.
        """
        if not session.observer:
            session.acknowledges = True
            if session.agent is not None:
                self._memory.acknowledged(session.agent)

    def take_over(self, session: Session, agent: str) -> None:
        """
        C{session} has authenticated as C{agent}: whether the one acknowledges, so does the other.
        """
        if session.acknowledges:
            self._memory.acknowledged(agent)
        session.acknowledges = self._memory.acknowledges(agent)

    def restore(self, session: Session, agent: str) -> Absence | None:
        """
        C{agent} is present by C{session}, and was not before: subscribe it to what the agent left behind, as far as
        the limit allows.

        @return: what else there is for it; None if nothing is known of the agent.
        """
        absence = self._memory.returned(agent)
        if absence is None:
            return None
        # in order: what the limit leaves out should be the same every time
        for channel in sorted(absence.subscriptions):
            mine = self._registry.channels(session)
            if channel not in mine and len(mine) >= self._max_subscriptions:
                self._limits.max_subscriptions.add()
                break
            self._registry.join(session, channel)
        return absence

    def replay(self, session: Session, absence: Absence) -> None:
        """
        Send what the agent of C{session} owed, and what it missed, as fast as the client reads.
        """

        def events() -> Iterator[Tracked]:
            yield from absence.owed
            yield from missed

        missed = self._memory.missed(absence)
        session.replaying = remaining = events()

        def frames() -> Iterator[bytes]:
            for event in remaining:
                self._deliveries.forget(session, event.id)
                self._deliveries.sent(event, {session})
                self._sent.again += len(event.frames)
                yield from event.frames
            # it may have authenticated as another agent since, and be receiving that one's replay
            if session.replaying is remaining:
                session.replaying = None

        session.peer.replay(frames())
