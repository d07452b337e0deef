"""
What clients may subscribe to (protocol, section 5), and how they are refused.
"""

from __future__ import annotations

from msgspec import Raw

from dcm_ws.core.rules import Rules
from dcm_ws.core.session import Session, State
from dcm_ws.protocol.channels import Channel, is_private
from dcm_ws.protocol.errors import NO_REQUEST, ErrorCode, ProtocolError

# to look up the member of an enumeration takes as long as a call
_AUTHENTICATED = State.AUTHENTICATED


def demand_right_to_listen(session: Session, channel: Channel, request: Raw = NO_REQUEST) -> None:
    """
    Check that C{session} may subscribe to C{channel}.

    @raise ProtocolError: C{NOT_AUTHORIZED}: the channel is private, and not the client's.
    """
    if session.state is _AUTHENTICATED:
        return
    if channel.agent is None:
        if session.is_stranger and is_private(channel.name):
            raise not_authenticated(request)
    elif session.is_stranger or channel.agent != session.origin.agent_id:
        raise ProtocolError(ErrorCode.NOT_AUTHORIZED, "Not authorized to subscribe to this agent channel", request)


def demand_operator(session: Session, rules: Rules, request: Raw = NO_REQUEST) -> None:
    """
    Check that C{session} may act as an operator: with an operator's token, and in development with or without any.

    @raise ProtocolError: C{NOT_AUTHORIZED}.
    """
    if rules.production and not session.operator:
        raise ProtocolError(ErrorCode.NOT_AUTHORIZED, "Not authorized: this takes an operator's token", request)


def not_authenticated(request: Raw = NO_REQUEST) -> ProtocolError:
    """
    The refusal of what takes an authenticated client.
    """
    return ProtocolError(ErrorCode.NOT_AUTHORIZED, "Not authorized: authenticate first", request)


def too_many_subscriptions(most: int, request: Raw = NO_REQUEST) -> ProtocolError:
    """
    The refusal of a channel that would be one too many.

    @param most: subscriptions that a client may have.
    """
    return ProtocolError(
        ErrorCode.TOO_MANY_SUBSCRIPTIONS,
        f"Too many subscriptions: the limit is {most}; unsubscribe from some",
        request,
    )
