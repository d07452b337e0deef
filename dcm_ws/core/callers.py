"""
The clients of HTTP calls: sessions with the rights and the budgets of WebSocket clients, which last for one request
(protocol, section 12).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from dcm_ws.core.charges import Charges
from dcm_ws.core.clients import Clients
from dcm_ws.core.counts import Counts
from dcm_ws.core.entitlement import Entitlement
from dcm_ws.core.grants import Grants
from dcm_ws.core.identity import Identity
from dcm_ws.core.ports import Peer, World
from dcm_ws.core.router import Router
from dcm_ws.core.rules import Rules
from dcm_ws.core.session import Origin, Session, State
from dcm_ws.protocol.errors import CloseCode, ErrorCode, ProtocolError
from dcm_ws.protocol.replies import from_field


class Callers:
    """
    Admits callers.  A caller is an observer: no agent is present by it, and it owes no acks.
    """

    def __init__(
        self,
        world: World,
        rules: Rules,
        counts: Counts,
        *,
        clients: Clients,
        identity: Identity,
        entitlement: Entitlement,
        grants: Grants,
        router: Router,
    ) -> None:
        self._now = world.now
        self._rules = rules
        self._counts = counts
        self._clients = clients
        self._identity = identity
        self._entitlement = entitlement
        self._grants = grants
        self._router = router
        # there is no connection to close: a caller that goes on gets the same refusal again
        self._charges = Charges(world.now, counts, _keep_open)

    def admit(self, token: str | None, agent_id: str | None, address: str, peer: Peer | None = None) -> Session:
        """
        Return a session for a caller, to be released later.

        @param token: None without one.
        @param agent_id: who a caller without a token says it is; in development it may listen to that agent's channel.
        @param address: what the limits per address count it by; empty if it has no address.
        @param peer: receives events, if the caller subscribes to any; None if it does not.
        @raise ProtocolError: C{TOKEN_REQUIRED}, C{TOKEN_INVALID} or C{TOKEN_EXPIRED}.
        """
        claims = None if token is None else self._identity.verify(token)
        rules = self._rules
        if claims is None and rules.production and not rules.anonymous_listeners:
            raise ProtocolError(ErrorCode.TOKEN_REQUIRED, "A token is required")
        session = Session(
            _NOBODY if peer is None else peer,
            # an address has its own keys of publishes, whatever the connection
            f"http {address}",
            Origin(agent_id, None, claims, True, address),
            State.STRANGER if rules.production else State.ANONYMOUS,
            now=self._now(),
            published=self._router.published,
        )
        if claims is None:
            self._grants.to_address(session)
            self._clients.entitle(session, self._entitlement.of_anonymous(agent_id, None))
            return session
        self._grants.to_agent(session, claims.agent_id)
        session.state = State.AUTHENTICATED
        session.agent = claims.agent_id
        session.dcm_session = claims.session_id
        self._clients.entitle(session, self._entitlement.of_agent(claims, None))
        session.sender = from_field(claims.agent_id)
        session.issued_ms = claims.issued_at
        if rules.enforce_expiry:
            session.expires_ms = claims.expires_at
        return session

    def knows(self, token: str) -> bool:
        """
        Return whether a token is valid.
        """
        try:
            return bool(self._identity.verify(token))
        except ProtocolError:
            return False

    def charge(self, session: Session, size: int) -> None:
        """
        Charge a request to the caller's budgets.

        @param size: bytes of its body.
        @raise ProtocolError: C{RATE_LIMITED}; nothing may be done for the request.
        """
        if not session.budgets:
            return
        refusal = self._charges.message(session, size)
        if refusal is not None:
            self._charges.refused(session, refusal.unit, size)
            error = ProtocolError(ErrorCode.RATE_LIMITED, f"Rate limit: {refusal.most:g} {refusal.unit} a second")
            error.retry_after_ms = ceil(refusal.seconds * 1000)
            raise error

    def charge_more(self, session: Session, messages: int) -> None:
        """
        Charge messages beyond the first of a request that was charged, such as the other events of a batch.
        """
        for budget in session.budgets:
            budget.charge(messages)

    def refused(self, error: ProtocolError) -> None:
        """
        Count a refusal.
        """
        self._counts.refusals[error.code] += 1

    def release(self, session: Session) -> None:
        """
        The request is done, or the caller is gone.
        """
        self._grants.end(session)
        self._clients.disentitle(session)
        session.state = State.CLOSED


class _Nobody:
    """
    The far end of a caller that does not subscribe to anything.
    """

    def send(self, frame: bytes) -> None: ...

    def offer(self, name: str, frame: bytes) -> None: ...

    def replay(self, frames: Iterator[bytes | None]) -> None: ...

    def go_on(self) -> None: ...

    def has_unsent(self) -> bool:
        return False

    def has_unread(self) -> bool:
        return False

    def close(self, code: CloseCode) -> None: ...

    def trust(self) -> None: ...

    def stop_reading(self) -> None: ...

    def read_on(self) -> None: ...


_NOBODY = _Nobody()


def _keep_open(session: Session, code: CloseCode) -> None:
    pass
