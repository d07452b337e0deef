"""
Clients that have proved to be an agent, and become it: at once, or when this node has the agent.
"""

from __future__ import annotations

from collections.abc import Callable

from dcm_ws.core.counts import Counts
from dcm_ws.core.identity import Identity
from dcm_ws.core.ownership import Ownership
from dcm_ws.core.ports import Owners, World
from dcm_ws.core.session import Session, State
from dcm_ws.protocol.commands import Auth
from dcm_ws.protocol.errors import CloseCode, ErrorCode, ProtocolError
from dcm_ws.protocol.replies import refused_frame
from dcm_ws.protocol.tokens import Claims


class Arrivals:
    """
    Lets clients wait until this node has their agents.

    @param owners: None if there are no other nodes: nobody waits then.
    @param close: ends a client's connection.
    @param tidy: disconnects those clients whose connections are known to be lost.
    """

    def __init__(
        self,
        world: World,
        counts: Counts,
        *,
        owners: Owners | None,
        identity: Identity,
        ownership: Ownership,
        close: Callable[[Session, CloseCode], object],
        tidy: Callable[[], object],
    ) -> None:
        self._now = world.now
        self._wall_ms = world.wall_ms
        self._counts = counts
        self._owners = owners
        self._identity = identity
        self._ownership = ownership
        self._close = close
        self._tidy = tidy

    def identify(self, session: Session, claims: Claims, auth: Auth) -> None:
        """
        Make C{session} a connection of the agent that C{claims} name, whatever it was before.

        While this node has to take the agent, nothing that the client sends is read.
        """
        owners = self._owners
        if owners is None or self._identity.observes(session, auth):
            self._identity.identify(session, claims, auth)
            return
        agent, began = claims.agent_id, self._now()
        session.state = State.WAITING
        waits = False

        def ready(is_here: bool) -> None:
            if waits:
                self._tidy()
            if session.state is State.WAITING:
                self._counts.owners.take_seconds.observe(self._now() - began)
                if not is_here:
                    self._refuse(session, auth)
                    return
                try:
                    self._identity.identify(session, claims, auth)
                except Exception:
                    # a bug: nobody else would close a client that waits
                    self._close(session, CloseCode.INTERNAL_ERROR)
                    raise
                if waits:
                    session.peer.read_on()
            if is_here:
                self._ownership.settle_in(agent)

        owners.take(agent, ready)
        # mypy does not know that it may be called before
        if session.state.value == State.WAITING.value:
            waits = True
            session.peer.stop_reading()

    def _refuse(self, session: Session, auth: Auth) -> None:
        error = ProtocolError(
            ErrorCode.NOT_AVAILABLE,
            "The database cannot be reached, so it is not known what the agent is owed; reconnect after a delay",
            auth.id,
        )
        self._counts.owners.refused += 1
        self._counts.refusals[error.code] += 1
        session.peer.send(refused_frame(error, self._wall_ms()))
        self._close(session, CloseCode.TRY_AGAIN_LATER)
