"""
Who clients are: tokens, and what an authenticated client is entitled to (protocol, section 5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dcm_ws.core.catchup import CatchUp
from dcm_ws.core.changed import Changed
from dcm_ws.core.clients import Clients
from dcm_ws.core.entitlement import Entitlement, Rights
from dcm_ws.core.grants import Grants
from dcm_ws.core.key_ring import KeyRing
from dcm_ws.core.liveness import Liveness
from dcm_ws.core.ports import World
from dcm_ws.core.presence import Presence
from dcm_ws.core.registry import ChannelRegistry
from dcm_ws.core.resumption import Resumption
from dcm_ws.core.revocations import Revocations
from dcm_ws.core.rules import Rules
from dcm_ws.core.session import Session, State
from dcm_ws.protocol.channels import GLOBAL, agent_channel, session_channel
from dcm_ws.protocol.commands import Auth
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.replies import from_field
from dcm_ws.protocol.tokens import Claims
from dcm_ws.protocol.web_tokens import Audience, verify_any_token


class Identity:
    """
    Verifies tokens, and makes clients the agents that they have proved to be.

    @param audience: what JSON Web Tokens have to be for.

    @ivar secrets: what tokens may be signed with.
    @ivar keys: the keys that may have signed JSON Web Tokens.
    """

    def __init__(
        self,
        world: World,
        rules: Rules,
        secrets: Sequence[str],
        audience: Audience,
        *,
        keys: KeyRing,
        revocations: Revocations,
        entitlement: Entitlement,
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
        self.secrets = secrets
        self._audience = audience
        self.keys = keys
        self._revocations = revocations
        self._entitlement = entitlement
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
        Return the claims of a token that is signed with one of the secrets or keys, has not expired, was not revoked,
        and has a valid scope.

        @raise ProtocolError: C{TOKEN_INVALID} or C{TOKEN_EXPIRED}.
        """
        claims = verify_any_token(token, self.secrets, self.keys.keys, self._wall_ms(), self._audience)
        self._revocations.check(claims)
        return claims

    def is_revoked(self, claims: Claims) -> bool:
        """
        Has the token that claims this been revoked since it was verified?
        """
        return claims.by_token and self._revocations.refuses(claims)

    def awaits_key(self, token: str, ready: Callable[[], object], address: str) -> bool:
        """
        See L{KeyRing.await_key<dcm_ws.core.key_ring.KeyRing.await_key>}.  To be asked before L{verify}.
        """
        return self.keys.await_key(token, ready, address)

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

    def rights(self, session: Session, claims: Claims, auth: Auth) -> Rights:
        """
        The rights that C{session} has as a connection of the agent that C{claims} name.
        """
        return self._entitlement.of_agent(claims, _dcm_session(session, claims, auth))

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
        rights = self.rights(session, claims, auth)
        present = None if observer else agent
        known = frozenset(self._registry.channels(session) if present == was_present else ())
        if former is None:
            self._clients.authenticated += 1
            if session in self._clients.strangers:
                self._clients.strangers.remove(session)
                # while it only listened it was not sent private events, and owed no acks
                self._registry.begin_anew(session)
            if self._rules.production and not self._rules.anonymous_listeners and rights.may_read(GLOBAL.name):
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
        self._clients.entitle(session, rights)
        session.sender = from_field(agent)
        session.issued_ms = claims.issued_at
        self._changed.agent(present)
        has_lost = self._leave_forbidden(session)
        self._give_own_channels(session, agent, _dcm_session(session, claims, auth))
        self._liveness.expect_expiry(session, claims.expires_at)
        self._resumption.take_over(session, agent, says_durable=bool(auth.durable))
        absence = self._resumption.restore(session, agent) if returning else None
        self._resumption.resume(session, auth.resume, absence, auth.id, known=known)
        if has_lost and former is not None:
            session.peer.send(self._catch_up.gap_of_rights())
        if present is not None:
            self._presence.announce(session, agent)

    def _observe(self, session: Session, observer: bool) -> None:
        session.observer = observer
        if observer:
            self._clients.observers.add(session)
        else:
            self._clients.observers.discard(session)

    def _leave_forbidden(self, session: Session) -> bool:
        """
        Unsubscribe a client from what its rights do not allow any more.  Returns if there was anything.
        """
        rights = session.rights
        if rights.reads_everything:
            return False
        forbidden = [name for name in self._registry.channels(session) if not rights.may_read(name)]
        for name in forbidden:
            self._catch_up.leave(session, name)
        return bool(forbidden)

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
            channel = session_channel(dcm_session).name
            # the client may have named the session of somebody else
            if session.rights.may_read(channel):
                self._registry.join(session, channel)


def _dcm_session(session: Session, claims: Claims, auth: Auth) -> str | None:
    """
    The DCM session of a client that authenticates.
    """
    return claims.session_id or auth.session_id or session.origin.session_id
