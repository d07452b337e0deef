"""
What a client may read, publish and do (protocol, section 11).
"""

from __future__ import annotations

from typing import NamedTuple

from dcm_ws.core.rules import Rules
from dcm_ws.protocol.channels import Channel, agent_channel, is_private, session_channel
from dcm_ws.protocol.events import traits_of
from dcm_ws.protocol.scopes import Scope
from dcm_ws.protocol.tokens import Claims


class Rights(NamedTuple):
    """
    What a client may do.  Most clients have one of the few values that L{Entitlement} makes in advance.

    @ivar scope: what its token lists; None for all that the other fields allow.
    @ivar own: the channels of its own agent and DCM session, as far as they need to be known.
    @ivar strict: private channels are only for those whose own they are, and by scope.
    @ivar reserved: it may publish reserved events.
    @ivar operator: it may do what operators do.
    """

    scope: Scope | None = None
    own: frozenset[str] = frozenset()
    strict: bool = False
    reserved: bool = True
    operator: bool = True

    @property
    def reads_everything(self) -> bool:
        """
        True if it may read all channels.
        """
        return self.operator if self.scope is not None else not self.strict

    def may_read(self, channel: str) -> bool:
        """
        May it read what is published to the channel of that name?  Names that only look private count as private.
        """
        if channel in self.own:
            return True
        if self.scope is not None:
            return self.scope.may_subscribe(channel)
        return not (self.strict and is_private(channel))

    def may_publish(self, channel: Channel, event: str) -> bool:
        """
        May it publish that event there?
        """
        if not self.reserved and traits_of(event).reserved:
            return False
        return self.scope is None or self.scope.may_publish(channel.name, event)


ALL = Rights()
"""
The rights of all clients in development, unless they have a token with a scope, or private channels are strict.
"""

_STRANGER = Rights(strict=True, reserved=False, operator=False)


class Entitlement:
    """
    Knows the rights of clients.
    """

    def __init__(self, rules: Rules) -> None:
        self._strict = rules.strict_private
        self._production = rules.production
        self._plain = Rights(reserved=False, operator=False) if rules.production else ALL

    def of_anonymous(self, agent: str | None, dcm_session: str | None) -> Rights:
        """
        The rights of a client that has not authenticated.

        @param agent: and C{dcm_session}: who it says it is, which counts in development only.
        """
        if self._production:
            return _STRANGER
        return Rights(None, _own(agent, dcm_session), strict=True) if self._strict else ALL

    def of_agent(self, claims: Claims, dcm_session: str | None) -> Rights:
        """
        The rights of a client that has authenticated.

        @param dcm_session: the one that it says it is for, which counts if no token is needed.
        """
        scope = claims.scope
        if scope is None and not self._strict:
            return self._plain
        # or else everybody could read the channel of any session by naming it
        own = _own(claims.agent_id, claims.session_id if claims.by_token else dcm_session)
        operator = scope.operator if scope is not None else not self._production
        return Rights(scope, own, self._strict, reserved=operator or not self._production, operator=operator)


def _own(agent: str | None, dcm_session: str | None) -> frozenset[str]:
    names = []
    if agent is not None:
        names.append(agent_channel(agent).name)
    if dcm_session is not None:
        names.append(session_channel(dcm_session).name)
    return frozenset(names)
