"""
Checks what clients may do (protocol, sections 5 and 11), and makes the refusals.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from dcm_ws.core.entitlement import Rights
from dcm_ws.core.session import Session, State
from dcm_ws.core.tracked import Tracked
from dcm_ws.protocol.channels import Channel, is_private
from dcm_ws.protocol.errors import NO_REQUEST, ErrorCode, ProtocolError
from dcm_ws.protocol.events import traits_of
from dcm_ws.protocol.frames import header_size

# to look up the member of an enumeration takes as long as a call
_AUTHENTICATED = State.AUTHENTICATED


class _Event(msgspec.Struct):
    channel: str
    origin: str = ""


_decode = msgspec.json.Decoder(_Event).decode


def demand_right_to_listen(session: Session, channel: Channel, request: Raw = NO_REQUEST) -> None:
    """
    Check that C{session} may subscribe to C{channel}.

    @raise ProtocolError: C{NOT_AUTHORIZED}.
    """
    if session.state is _AUTHENTICATED:
        demand_right_to_read(session.rights, channel, request)
    elif channel.agent is None:
        if not session.rights.may_read(channel.name):
            raise not_authenticated(request) if session.is_stranger else _not_private_to_it(channel, request)
    elif session.is_stranger or channel.agent != session.origin.agent_id:
        raise _not_private_to_it(channel, request)


def demand_right_to_read(rights: Rights, channel: Channel, request: Raw = NO_REQUEST) -> None:
    """
    Check that a client with these rights, which has authenticated, may subscribe to C{channel}.

    @raise ProtocolError: C{NOT_AUTHORIZED}.
    """
    if rights.may_read(channel.name):
        return
    if is_private(channel.name):
        raise _not_private_to_it(channel, request)
    raise ProtocolError(
        ErrorCode.NOT_AUTHORIZED, "Not authorized to subscribe to this channel: the token's scope has no such", request
    )


def not_allowed_to_publish(rights: Rights, event: str, request: Raw) -> ProtocolError:
    """
    The refusal of a client with these rights, which has authenticated, to publish C{event} to some channel.
    """
    if not rights.reserved and traits_of(event).reserved:
        reason = f"Not authorized: publishing {event} takes an operator's token"
    else:
        reason = f"Not authorized to publish {event} to this channel: the token's scope has no such"
    return ProtocolError(ErrorCode.NOT_AUTHORIZED, reason, request)


def may_receive(rights: Rights, event: Tracked) -> bool:
    """
    May a client with these rights be sent an event that it, or another client of its agent, was sent before?
    """
    if rights.reads_everything:
        return True
    for frame in event.frames:
        head = _decode(frame[header_size(frame) :])
        source = head.origin or head.channel
        if rights.may_read(source) or (rights.may_read(head.channel) and not (rights.strict and is_private(source))):
            return True
    return False


def demand_operator(session: Session, request: Raw = NO_REQUEST) -> None:
    """
    Check that C{session} may act as an operator: with an operator's token, and in development also without a scope.

    @raise ProtocolError: C{NOT_AUTHORIZED}.
    """
    if not session.rights.operator:
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


def _not_private_to_it(channel: Channel, request: Raw) -> ProtocolError:
    kind = "session" if channel.agent is None else "agent"
    return ProtocolError(ErrorCode.NOT_AUTHORIZED, f"Not authorized to subscribe to this {kind} channel", request)
