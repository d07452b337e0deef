"""
Clients that have proved to be an agent, and become it: at once, or when this node has the agent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from msgspec import Raw

from dcm_ws.core.counts import Counts
from dcm_ws.core.identity import Identity
from dcm_ws.core.ownership import Ownership
from dcm_ws.core.ports import Log, Owners, World
from dcm_ws.core.session import Session, State
from dcm_ws.protocol.commands import Auth, Position
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
        log: Log,
        close: Callable[[Session, CloseCode], object],
        tidy: Callable[[], object],
    ) -> None:
        self._now = world.now
        self._wall_ms = world.wall_ms
        self._counts = counts
        self._owners = owners
        self._identity = identity
        self._ownership = ownership
        self._log = log
        self._close = close
        self._tidy = tidy

    def wait_for_key(self, session: Session, token: str, execute: Callable[[], object]) -> bool:
        """
        Have C{session} wait if the key of a token has to be fetched, and execute a request then.

        @return: whether it waits; otherwise the token can be verified now.
        """
        former = session.state

        def ready() -> None:
            self._tidy()
            if session.state is not State.WAITING:
                return
            session.state = former
            try:
                execute()
            except Exception:
                # as in _wait
                self._close(session, CloseCode.INTERNAL_ERROR)
                raise
            # mypy does not know that it may wait for its agent now
            if session.state.value != State.WAITING.value:
                session.peer.read_on()

        if not self._identity.awaits_key(token, ready, session.origin.address):
            return False
        session.state = State.WAITING
        session.peer.stop_reading()
        return True

    def identify(self, session: Session, claims: Claims, auth: Auth) -> None:
        """
        Make C{session} a connection of the agent that C{claims} name, whatever it was before.

        While this node has to take the agent, nothing that the client sends is read.
        """
        owners, become = self._owners, partial(self._become, session, claims, auth)
        if owners is None or self._identity.observes(session, auth):
            self.when_there(session, auth.resume, become, auth.id)
            return
        agent, began = claims.agent_id, self._now()

        def begin(go_on: Callable[[bool], object]) -> None:
            def ready(is_here: bool) -> None:
                if session.state is State.WAITING:
                    self._counts.owners.take_seconds.observe(self._now() - began)
                if is_here:
                    self._reach(auth.resume, arrive)
                else:
                    go_on(False)

            def arrive(is_there: bool) -> None:
                go_on(is_there)
                self._ownership.settle_in(agent)

            owners.take(agent, ready, lambda: session.state is State.WAITING)

        self._wait(session, begin, become, auth.id)

    def _become(self, session: Session, claims: Claims, auth: Auth) -> None:
        if self._identity.is_revoked(claims):
            # while it waited
            self._close(session, CloseCode.DISCONNECTED)
        else:
            self._identity.identify(session, claims, auth)

    def when_there(
        self, session: Session, position: Position | None, execute: Callable[[], object], request: Raw
    ) -> None:
        """
        Execute a request of C{session} when the log is here as far as the position from which it resumes.  Another node
        may have been further than this one is.
        """
        if position is None or position.pos <= self._log.head:
            # nearly always
            execute()
        else:
            self._wait(session, partial(self._reach, position), execute, request)

    def _reach(self, position: Position | None, ready: Callable[[bool], object]) -> None:
        if position is None or position.epoch != self._log.epoch:
            ready(True)
        else:
            self._log.reach(position.pos, ready)

    def _wait(
        self,
        session: Session,
        begin: Callable[[Callable[[bool], object]], object],
        execute: Callable[[], object],
        request: Raw,
    ) -> None:
        """
        Execute a request of C{session}, and read nothing of what it sends until then.

        @param begin: receives what is to be called then, now or later; with false if the request cannot be executed.
        """
        former, session.state = session.state, State.WAITING
        waits = False

        def go_on(is_there: bool) -> None:
            if waits:
                self._tidy()
            if session.state is not State.WAITING:
                return
            if not is_there:
                self._refuse(session, request)
                return
            session.state = former
            try:
                execute()
            except Exception:
                # a bug: nobody else would close a client that waits
                self._close(session, CloseCode.INTERNAL_ERROR)
                raise
            if waits:
                session.peer.read_on()

        begin(go_on)
        # mypy does not know that it may be another one now
        if session.state.value == State.WAITING.value:
            waits = True
            session.peer.stop_reading()

    def _refuse(self, session: Session, request: Raw) -> None:
        error = ProtocolError(
            ErrorCode.NOT_AVAILABLE,
            "The database cannot be reached, so it is not known what the agent is owed; reconnect after a delay",
            request,
        )
        self._counts.owners.refused += 1
        self._counts.refusals[error.code] += 1
        session.peer.send(refused_frame(error, self._wall_ms()))
        self._close(session, CloseCode.TRY_AGAIN_LATER)
