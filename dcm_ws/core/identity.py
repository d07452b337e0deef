"""
Who clients are: tokens, and what an authenticated client is entitled to (protocol, section 5).
"""

from __future__ import annotations

from collections.abc import Sequence

from dcm_ws.core.catchup import CatchUp
from dcm_ws.core.changed import Changed
from dcm_ws.core.clients import Clients
from dcm_ws.core.counts import Counts
from dcm_ws.core.grants import Grants
from dcm_ws.core.liveness import Liveness
from dcm_ws.core.ports import World
from dcm_ws.core.presence import Presence
from dcm_ws.core.registry import ChannelRegistry
from dcm_ws.core.resumption import Resumption
from dcm_ws.core.rules import Rules
from dcm_ws.core.session import Session, State
from dcm_ws.protocol.channels import GLOBAL, agent_channel, session_channel
from dcm_ws.protocol.commands import Auth
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.replies import from_field
from dcm_ws.protocol.tokens import Claims, check_scope, verify


class Identity:
    """
    Verifies tokens, and makes clients the agents that they have proved to be.

    @ivar secrets: what tokens may be signed with.
    """

    def __init__(
        self,
        world: World,
        rules: Rules,
        counts: Counts,
        secrets: Sequence[str],
        *,
        clients: Clients,
        registry: ChannelRegistry[Session],
        grants: Grants,
        liveness: Liveness,
        presence: Presence,
        resumption: Resumption,
        catch_up: CatchUp,
        changed: Changed,
    ) -> None:
        self._wall_ms = world.wall_ms
        self._rules = rules
        self._sent = counts.sent
        self.secrets = secrets
        self._clients = clients
        self._registry = registry
        self._grants = grants
        self._liveness = liveness
        self._presence = presence
        self._resumption = resumption
        self._catch_up = catch_up
        self._changed = changed

    def verify(self, token: str) -> Claims:
        """
        Return the claims of a token that is signed with one of the secrets, has not expired, and has a scope that is
        supported.

        @raise ProtocolError: C{TOKEN_INVALID} or C{TOKEN_EXPIRED}.
        """
        claims = self._read_token(token)
        check_scope(claims)
        return claims

    def _read_token(self, token: str) -> Claims:
        now_ms = self._wall_ms()
        for secret in self.secrets[:-1]:
            try:
                return verify(secret, token, now_ms)
            except ProtocolError as error:
                if error.code is not ErrorCode.TOKEN_INVALID:
                    raise
        return verify(self.secrets[-1], token, now_ms)

    def claims(self, auth: Auth) -> Claims:
        """
        Return what an C{auth} command claims, and proves as far as it has to.

        @raise ProtocolError: C{TOKEN_REQUIRED}, C{TOKEN_INVALID}, C{TOKEN_EXPIRED} or C{AGENT_ID_REQUIRED}.
        """
        if auth.token is not None:
            return self.verify(auth.token)
        if self._rules.production:
            raise ProtocolError(ErrorCode.TOKEN_REQUIRED, "A token is required to authenticate")
        if auth.agent_id is not None:
            return Claims(auth.agent_id, None, 0)
        raise ProtocolError(ErrorCode.AGENT_ID_REQUIRED, "Missing token or agent_id")

    @staticmethod
    def observes(session: Session, auth: Auth) -> bool:
        """
        Is C{session} an observer after an C{auth} command?
        """
        return session.observer if auth.observer is None else bool(auth.observer)

    def identify(self, session: Session, claims: Claims, auth: Auth) -> None:
        """
        Make C{session} a connection of the agent that C{claims} name, whatever it was before.
        """
        agent, former = claims.agent_id, session.agent
        was_present = session.present
        observer = self.observes(session, auth)
        present = None if observer else agent
        known = frozenset(self._registry.channels(session) if present == was_present else ())
        if former is None:
            self._clients.authenticated += 1
            if session in self._clients.strangers:
                self._clients.strangers.remove(session)
                # while it only listened it was not sent private events, and owed no acks
                self._registry.begin_anew(session)
            if self._rules.production and not self._rules.anonymous_listeners:
                self._registry.join(session, GLOBAL.name)
        if was_present not in (None, present) or (observer and not session.observer):
            self._resumption.keep(session, stays=True)
        if former is not None and former != agent:
            self._catch_up.leave(session, agent_channel(former).name)
        if was_present is not None and was_present != present:
            self._presence.end(session, was_present)
        returning = present is not None and present != was_present
        if returning:
            self._presence.begin(session, agent)
        self._observe(session, observer)
        if agent != former:
            self._grants.to_agent(session, agent)
            session.peer.trust()
        session.state = State.AUTHENTICATED
        session.agent = agent
        session.operator = claims.operator
        session.sender = from_field(agent)
        self._changed.agent(present)
        self._give_own_channels(session, agent, claims.session_id or auth.session_id or session.origin.session_id)
        self._liveness.expect_expiry(session, claims.expires_at)
        self._resumption.take_over(session, agent, says_durable=bool(auth.durable))
        absence = self._resumption.restore(session, agent) if returning else None
        self._resumption.resume(session, auth.resume, absence, auth.id, known=known)
        if present is not None:
            self._presence.announce(session, agent)

    def _observe(self, session: Session, observer: bool) -> None:
        session.observer = observer
        if observer:
            self._clients.observers.add(session)
        else:
            self._clients.observers.discard(session)

    def _give_own_channels(self, session: Session, agent: str, dcm_session: str | None) -> None:
        """
        Subscribe a client to the channels of its agent and its DCM session, also beyond the limit.
        """
        former, session.dcm_session = session.dcm_session, dcm_session
        full = len(self._registry.channels(session)) >= self._rules.max_subscriptions
        if full and former not in (None, dcm_session):
            # or else a client that names many sessions, one after the other, would collect their channels
            self._catch_up.leave(session, session_channel(former).name)
        self._registry.join(session, agent_channel(agent).name)
        if dcm_session is not None:
            self._registry.join(session, session_channel(dcm_session).name)
