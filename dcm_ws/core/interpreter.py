"""
How the commands of clients are executed (protocol, sections 2, 4 and 5).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil
from typing import assert_never

from msgspec import Raw

from dcm_ws.core.budgets import Refusal
from dcm_ws.core.catchup import CatchUp
from dcm_ws.core.changed import Changed
from dcm_ws.core.charges import Charges
from dcm_ws.core.counts import Counts
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.entries import Published
from dcm_ws.core.ports import World
from dcm_ws.core.publishing import Publishing
from dcm_ws.core.registry import ChannelRegistry
from dcm_ws.core.resumption import Resumption
from dcm_ws.core.rights import demand_right_to_listen, not_authenticated, too_many_subscriptions
from dcm_ws.core.router import Router, not_logged
from dcm_ws.core.rules import Rules
from dcm_ws.core.session import Session, State
from dcm_ws.core.settling import Settling
from dcm_ws.protocol.channels import Channel, Channels
from dcm_ws.protocol.commands import (
    Ack,
    AckUpTo,
    Auth,
    Command,
    Nack,
    Ping,
    Pong,
    Position,
    Publish,
    Resume,
    Subscribe,
    Unsubscribe,
    decode_command,
    request_of,
)
from dcm_ws.protocol.errors import CloseCode, ErrorCode, ProtocolError
from dcm_ws.protocol.replies import done_frame, pong_frame, published_frame, refused_frame

_EXPECTED_MAX = 512
# to look up the member of an enumeration takes as long as a call
_AUTHENTICATED, _CLOSED = State.AUTHENTICATED, State.CLOSED
_ACKS = (Ack, AckUpTo)


class Interpreter:
    """
    Executes the messages of all clients.

    @param close: ends a client's connection.
    @param authenticate: executes C{auth} commands.
    @param resume: executes C{resume} commands that are allowed.
    """

    def __init__(
        self,
        world: World,
        rules: Rules,
        counts: Counts,
        *,
        channels: Channels,
        publishing: Publishing,
        registry: ChannelRegistry[Session],
        deliveries: DeliveryQueue,
        router: Router,
        resumption: Resumption,
        settling: Settling,
        catch_up: CatchUp,
        charges: Charges,
        changed: Changed,
        close: Callable[[Session, CloseCode], object],
        authenticate: Callable[[Session, Auth], None],
        resume: Callable[[Session, Position, Raw], None],
    ) -> None:
        self._wall_ms = world.wall_ms
        self._rules = rules
        self._counts = counts
        self._received = counts.received
        self._sent = counts.sent
        self._parse_channel = channels.parse
        self._publishing = publishing
        self._registry = registry
        self._deliveries = deliveries
        self._router = router
        self._resumption = resumption
        self._settling = settling
        self._catch_up = catch_up
        self._charges = charges
        self._changed = changed
        self._close = close
        self._authenticate = authenticate
        self._resume_there = resume

    def receive(self, session: Session, message: str | bytes, size: int | None = None) -> None:
        """
        Execute one message of a client, or tell the client why not.  What still comes after the close is ignored.

        @param size: its bytes that have not been charged yet; None for all.
        """
        if session.state is _CLOSED:
            return
        if size is None:
            size = len(message)
        try:
            if session.budgets:
                refusal = self._charges.message(session, size)
                if refusal is not None:
                    self._over_limit(session, message, size, refusal)
                    return
            try:
                command = decode_command(message)
            except ProtocolError:
                self._received.invalid += 1
                raise
            self._execute(session, command, size)
        except ProtocolError as error:
            self._refuse(session, error)

    def _refuse(self, session: Session, error: ProtocolError) -> None:
        self._counts.refusals[error.code] += 1
        if error.request:
            self._sent.ack += 1
        else:
            self._sent.error += 1
        session.peer.send(refused_frame(error, self._wall_ms()))

    def _execute(self, session: Session, command: Command, size: int) -> None:
        if isinstance(command, _ACKS):
            if self._settles_event(session, command):
                session.give_back(size)
            else:
                # those that settle a delivery are counted there, and come by the thousand
                self._received.ack += 1
            return
        if isinstance(command, Pong):
            self._received.pong += 1
            if _is_expected_pong(session):
                session.give_back(size)
            return
        match command:
            case Ping():
                self._received.ping += 1
                session.peer.send(pong_frame(self._wall_ms()))
            case Publish():
                self._publish(session, command)
            case Subscribe():
                self._subscribe(session, command)
            case Unsubscribe():
                self._unsubscribe(session, command)
            case Auth():
                self._received.auth += 1
                if command.resume is not None and not self._catch_up.knows_log:
                    self._close(session, CloseCode.RESTART)
                    return
                if command.resume is not None and session.agent is not None:
                    # the first one on a connection is charged with the connection
                    self._charge_resume(session, command.resume)
                try:
                    self._authenticate(session, command)
                except ProtocolError as error:
                    error.request = command.id
                    raise
            case Resume():
                self._resume(session, command)
            case Nack():
                if not self._settling.refuse(session, command):
                    self._received.nack += 1
            case _:  # pragma: no cover - mypy proves that nothing comes here
                assert_never(command)

    # publish

    def _publish(self, session: Session, command: Publish) -> None:
        published = self._publishing.publish(
            session, command.channel, command.event, command.data, command.key, command.id
        )
        if published.waiting:
            published.then(partial(self._answered, session, command.id, published))
        elif command.id:
            self._sent.ack += 1
            session.peer.send(self._published_frame(command.id, published))

    def _answered(self, session: Session, request: Raw, published: Published) -> None:
        """
        The log has answered a publish of C{session}, which may be closed by now.
        """
        if session.state is _CLOSED:
            return
        if published.pos is None:
            self._refuse(session, not_logged(request))
        elif request:
            self._sent.ack += 1
            session.peer.send(self._published_frame(request, published))

    def _published_frame(self, request: Raw, published: Published) -> bytes:
        return published_frame(
            request, published.id, self._wall_ms(), published.pos or 0, duplicate=published.duplicate
        )

    # subscribe and unsubscribe

    def _subscribe(self, session: Session, command: Subscribe) -> None:
        self._received.subscribe += 1
        self._demand_right_to_listen(session, command.id)
        channel = self._channel(command)
        demand_right_to_listen(session, channel, command.id)
        mine = self._registry.channels(session)
        if channel.name not in mine:
            most = self._rules.max_subscriptions
            if len(mine) >= most:
                self._counts.limits.max_subscriptions.add()
                raise too_many_subscriptions(most, command.id)
            self._registry.join(session, channel.name)
            self._changed.agent(session.present)
            self._done(session, command.id, self._catch_up.place(session))
            self._resumption.subscribed(session, channel.name)
        else:
            self._done(session, command.id, self._catch_up.place(session))

    def _resume(self, session: Session, command: Resume) -> None:
        self._received.resume += 1
        if not self._catch_up.knows_log:
            # it would be told of a gap that it does not have
            self._close(session, CloseCode.RESTART)
            return
        self._demand_right_to_listen(session, command.id)
        self._charge_resume(session, command)
        try:
            self._resumption.check(session, command)
        except ProtocolError as error:
            error.request = command.id
            raise
        self._resume_there(session, command, command.id)

    def _charge_resume(self, session: Session, position: Position) -> None:
        if session.budgets:
            self._charges.resume(session, max(len(self._registry.channels(session)), len(position.channels)))

    def _unsubscribe(self, session: Session, command: Unsubscribe) -> None:
        self._received.unsubscribe += 1
        self._demand_right_to_listen(session, command.id)
        self._catch_up.leave(session, self._channel(command).name)
        self._done(session, command.id)

    def _channel(self, command: Subscribe | Unsubscribe) -> Channel:
        try:
            return self._parse_channel(command.channel)
        except ProtocolError as error:
            error.request = command.id
            raise

    def _demand_right_to_listen(self, session: Session, request: Raw) -> None:
        if session.is_stranger and not self._rules.anonymous_listeners:
            raise not_authenticated(request)

    def _done(self, session: Session, request: Raw, place: bytes = b"") -> None:
        if request:
            self._sent.ack += 1
            session.peer.send(done_frame(request, self._wall_ms(), place))

    # what the server asked for

    def _over_limit(self, session: Session, message: str | bytes, size: int, refusal: Refusal) -> None:
        """
        Refuse a message that is over the rate limit, unless the server asked for it: then it is executed.

        @raise ProtocolError: C{RATE_LIMITED}.  The client may be closed, too.
        """
        if size <= _EXPECTED_MAX and self._is_expected(session, message):
            return
        error = ProtocolError(
            ErrorCode.RATE_LIMITED, f"Rate limit: {refusal.most:g} {refusal.unit} a second", request_of(message)
        )
        error.retry_after_ms = ceil(refusal.seconds * 1000)
        self._charges.refused(session, refusal.unit, size)
        raise error

    def _is_expected(self, session: Session, message: str | bytes) -> bool:
        """
        Is C{message} the ack of an event, or the pong of a ping?  The event is settled then.
        """
        if not session.owed and not session.pongs and not self._may_acknowledge(session):
            return False
        try:
            command = decode_command(message)
        except ProtocolError:
            return False
        if isinstance(command, _ACKS):
            return self._settles_event(session, command)
        return isinstance(command, Pong) and _is_expected_pong(session)

    def _settles_event(self, session: Session, ack: Ack | AckUpTo) -> bool:
        if not session.durable:
            self._resumption.make_durable(session)
        return self._settling.settle(session, ack) or self._is_spare_ack(session)

    def _is_spare_ack(self, session: Session) -> bool:
        """
        Accept an ack that a client sends and does not owe.  Libraries acknowledge what they receive, also for
        observers: as many acks as there were events.
        """
        if not self._may_acknowledge(session):
            return False
        session.acks += 1
        return True

    def _may_acknowledge(self, session: Session) -> bool:
        owes_nothing = self._rules.anonymous_listeners if session.is_stranger else session.observer
        return owes_nothing and session.acks < self._router.published


def _is_expected_pong(session: Session) -> bool:
    if not session.pongs:
        return False
    session.pongs -= 1
    return True
