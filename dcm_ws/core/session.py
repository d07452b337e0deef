"""
One client: who it is, what it may do, and how its commands are obeyed (protocol, sections 2, 5 and 6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from math import ceil
from typing import TYPE_CHECKING, NamedTuple, Protocol, assert_never

from msgspec import Raw

from dcm_ws.core.budgets import FRAGMENT, Budget
from dcm_ws.core.counts import SAMPLED, Counts
from dcm_ws.protocol.channels import Channel, Channels, is_private
from dcm_ws.protocol.commands import (
    Ack,
    Auth,
    Command,
    Ping,
    Pong,
    Publish,
    Subscribe,
    Unsubscribe,
    decode_command,
    request_of,
)
from dcm_ws.protocol.errors import CloseCode, ErrorCode, ProtocolError
from dcm_ws.protocol.events import Publishable, shortened, traits_of
from dcm_ws.protocol.rawjson import check_data
from dcm_ws.protocol.replies import done_frame, pong_frame, published_frame, refused_frame
from dcm_ws.protocol.tokens import Claims

if TYPE_CHECKING:
    from dcm_ws.core.delivery import Delivery, DeliveryQueue, Tracked
    from dcm_ws.core.registry import ChannelRegistry


_ANSWER_MAX = 512
_PONGS = 100


class Peer(Protocol):
    """
    The far end of a socket.  None of its methods calls back into the session or the hub before it returns.
    """

    def send(self, frame: bytes) -> None:
        """
        Queue one or more whole WebSocket frames.  A peer that has been closed ignores it.
        """

    def offer(self, name: str, frame: bytes) -> None:
        """
        Send an event of which only the latest matters: if the far end is far behind, it gets the last one of that
        C{name}, once it has caught up.
        """

    def replay(self, frames: Iterator[bytes]) -> None:
        """
        Send C{frames} after all that was sent before and before all that is sent from now on, taking them one by one
        as fast as the far end reads.
        """

    def has_unread(self) -> bool:
        """
        Has the far end sent something that has not been read yet?
        """

    def close(self, code: CloseCode) -> None:
        """
        Send what is queued and a close frame, and end the connection.
        """

    def trust(self) -> None:
        """
        The client has authenticated: it may send messages of full length.
        """


class Origin(NamedTuple):
    """
    Who a client says it is while it connects.

    @ivar agent_id: claimed in the query; proves nothing.
    @ivar session_id: claimed in the query.
    @ivar claims: those of a good token, where one was given.
    @ivar observer: it asks to get events and to owe nothing for them.
    @ivar address: what it is counted by in limits per address; empty if it has no address.
    """

    agent_id: str | None = None
    session_id: str | None = None
    claims: Claims | None = None
    observer: bool = False
    address: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """
    What holds for every client.  All times in seconds.

    @ivar mirror_clients: C{global} carries what clients publish, and not only what the database does.
    @ivar anonymous_listeners: in production a client that has not authenticated may listen to public channels.
    @ivar sweep_interval: between two looks at the clients, at most.
    @ivar rate_limit: messages a second; 0 for no limit.
    @ivar rate_burst: messages at once, if that has not been used up.
    @ivar rate_bytes: bytes of messages a second; 0 for no limit.
    @ivar stranger_rate: messages a second, and five times as many at once, of a client that has
        to authenticate and has not; 0 for no limit.
    @ivar stranger_bytes: bytes a second of such a client; 0 for no limit.
    @ivar max_depth: arrays and objects inside one another in the data of an event.
    """

    production: bool = False
    mirror_clients: bool = True
    anonymous_listeners: bool = False
    enforce_expiry: bool = False
    auth_timeout: float = 10.0
    heartbeat_interval: float = 30.0
    heartbeat_timeout: float = 60.0
    sweep_interval: float = 1.0
    max_subscriptions: int = 1000
    rate_limit: float = 0.0
    rate_burst: float = 100.0
    rate_bytes: float = 0.0
    stranger_rate: float = 0.0
    stranger_bytes: float = 0.0
    max_depth: int = 100

    @property
    def ping_interval(self) -> float:
        """
        Seconds between two pings.  A client must have been pinged before its time is up.
        """
        if self.heartbeat_interval < self.heartbeat_timeout:
            return self.heartbeat_interval
        return self.heartbeat_timeout / 2


class House(Protocol):
    """
    What a session needs of the hub it belongs to.
    """

    rules: Rules
    channels: Channels
    publishable: Publishable
    registry: ChannelRegistry[Session]
    counts: Counts
    deliveries: DeliveryQueue
    #: monotonic seconds
    now: Callable[[], float]
    #: since when silence counts: the end of the service's last pause (monotonic seconds)
    resumed_at: float
    #: since when the time to authenticate counts (monotonic seconds)
    admits_since: float
    #: ms since the epoch
    wall_ms: Callable[[], int]

    def publish(self, channel: Channel, event: str, data: bytes, sender: bytes) -> str: ...

    def authenticate(self, session: Session, auth: Auth) -> None: ...

    @property
    def published(self) -> int: ...

    def first_ack(self, session: Session) -> None: ...

    def close(self, session: Session, code: CloseCode) -> None: ...


class State(Enum):
    ANONYMOUS = "anonymous"
    AUTHENTICATED = "authenticated"
    CLOSED = "closed"


# to look up the member of an enumeration takes as long as a call
_ANONYMOUS, _AUTHENTICATED, _CLOSED = State


class Session:
    """
    What the service knows of one client.

    @ivar budgets: what its messages are charged to; nothing if there is no limit.
    @ivar agent: the agent that it authenticated as.
    @ivar acknowledges: it, or its agent before, has acknowledged something: what it does not acknowledge is a failure.
    @ivar operator: its token is an operator's.
    @ivar sender: the field that names its agent in the events that it publishes; empty until it authenticates.
    @ivar observer: it gets events and owes nothing; its agent is not present by it.
    @ivar heard_at: when anything at all last came from it (monotonic seconds).
    @ivar owed: its deliveries that await an ack.
    @ivar replaying: what it missed while it was away and has not been sent yet.
    @ivar expires_at: when its token expires (monotonic seconds); None without an expiry, or if expiry is not enforced.
    @ivar expires_ms: the same in ms since the epoch; 0 without an expiry, or if expiry is not enforced.
    """

    __slots__ = (
        "_acks",
        "_excused_at",
        "_house",
        "_ping_at",
        "_pinged_at",
        "_pongs",
        "acknowledges",
        "agent",
        "budgets",
        "client_id",
        "dcm_session",
        "expires_at",
        "expires_ms",
        "heard_at",
        "joined_at",
        "observer",
        "operator",
        "origin",
        "owed",
        "peer",
        "replaying",
        "sender",
        "state",
    )

    def __init__(self, house: House, peer: Peer, client_id: str, origin: Origin) -> None:
        now = house.now()
        self._house = house
        self.peer = peer
        self.client_id = client_id
        self.origin = origin
        self.state = _ANONYMOUS
        self.agent: str | None = None
        self.dcm_session: str | None = None
        self.observer = origin.observer
        # acks that it need not have sent, counted on from the events before its time
        self._acks = house.published
        self.operator = False
        self.sender = b""
        self.acknowledges = False
        self.owed: dict[str, Delivery] = {}
        self.replaying: Iterator[Tracked] | None = None
        self.expires_at: float | None = None
        self.expires_ms = 0
        self.joined_at = self.heard_at = now
        self._ping_at = now + house.rules.ping_interval
        self._pinged_at = self._excused_at = float("-inf")
        self._pongs = _PONGS
        self.budgets: tuple[Budget, ...] = ()

    @property
    def is_stranger(self) -> bool:
        """
        Does it have to authenticate, and has not done so?
        """
        return self.state is _ANONYMOUS and self._house.rules.production

    @property
    def present(self) -> str | None:
        """
        The agent that is connected by this client; None for observers and clients that have not authenticated.
        """
        return None if self.observer else self.agent

    def receive(self, message: str | bytes, size: int | None = None) -> None:
        """
        Execute one client message, or say why not.  What still comes after the close is ignored.

        @param size: its bytes that have not been charged yet; None for all.
        """
        if self.state is _CLOSED:
            return
        if size is None:
            size = len(message)
        try:
            if self.budgets and not self._pay(message, size):
                return
            try:
                command = decode_command(message)
            except ProtocolError:
                self._house.counts.received.invalid += 1
                raise
            self._obey(command, size)
        except ProtocolError as error:
            counts = self._house.counts
            counts.refusals[error.code] += 1
            if error.request:
                counts.sent.ack += 1
            else:
                counts.sent.error += 1
            self.peer.send(refused_frame(error, self._house.wall_ms()))

    def check(self, now: float, heartbeat: bytes) -> CloseCode | float:
        """
        Look after this client: ping it when it is time.

        @param now: monotonic seconds.
        @param heartbeat: the frames of a ping.
        @return: why it must be closed, or else when to look again.
        """
        rules = self._house.rules
        silent_since = self._silent_since()
        if now >= silent_since + rules.heartbeat_timeout:
            if self._pinged_at >= silent_since and not self.peer.has_unread():
                return CloseCode.PING_TIMEOUT
            # it was not asked, or has answered and nobody has read that yet
            self._excused_at = self._ping_at = now
        if now >= self._deadline():
            return CloseCode.AUTHENTICATION_REQUIRED
        if now >= self._ping_at:
            self._house.counts.sent.ping += 1
            self.peer.send(heartbeat)
            self._pinged_at = now
            self._ping_at = now + rules.ping_interval
            self._pongs = min(_PONGS, self._pongs + 1)
        return self.next_check()

    def next_check(self) -> float:
        """
        When to look after this client next (monotonic seconds).
        """
        silent_at = self._silent_since() + self._house.rules.heartbeat_timeout
        return min(self._ping_at, silent_at, self._deadline())

    def _silent_since(self) -> float:
        """
        From when on its silence counts: nobody could be heard while the service was not running.
        """
        return max(self.heard_at, self._house.resumed_at, self._excused_at)

    def _deadline(self) -> float:
        rules = self._house.rules
        if self.is_stranger and not rules.anonymous_listeners:
            return max(self.joined_at, self._house.admits_since) + rules.auth_timeout
        return float("inf") if self.expires_at is None else self.expires_at

    def _obey(self, command: Command, size: int) -> None:
        if isinstance(command, Ack):
            if self._settles_event(command):
                self._give_back(size)
            else:
                # those that settle a delivery are counted there, and come by the thousand
                self._house.counts.received.ack += 1
            return
        if isinstance(command, Pong):
            self._house.counts.received.pong += 1
            if self._answers_ping():
                self._give_back(size)
            return
        match command:
            case Ping():
                self._house.counts.received.ping += 1
                self.peer.send(pong_frame(self._house.wall_ms()))
            case Publish():
                self._publish(command)
            case Subscribe():
                self._subscribe(command)
            case Unsubscribe():
                self._unsubscribe(command)
            case Auth():
                self._house.counts.received.auth += 1
                try:
                    self._house.authenticate(self, command)
                except ProtocolError as error:
                    error.request = command.id
                    raise
            case _:  # pragma: no cover - mypy proves that nothing comes here
                assert_never(command)

    def _publish(self, command: Publish) -> None:
        counts = self._house.counts
        counts.received.publish += 1
        if self.is_stranger:
            raise _not_authenticated(command.id)
        channel = self._channel(command)
        event = command.event
        if event not in self._house.publishable:
            raise ProtocolError(ErrorCode.INVALID_EVENT, f"Invalid event type: {shortened(event)}", command.id)
        if self._house.rules.production and not self.operator and traits_of(event).reserved:
            raise ProtocolError(
                ErrorCode.NOT_AUTHORIZED, f"Not authorized: publishing {event} takes an operator's token", command.id
            )
        data = bytes(command.data)
        try:
            check_data(data, self._house.rules.max_depth, counts.limits.max_depth.add)
        except ProtocolError as error:
            raise ProtocolError(error.code, f"Invalid publish message: {error.reason}", command.id) from None
        if counts.received.publish % SAMPLED == 1:
            began = self._house.now()
            event_id = self._house.publish(channel, event, data, self.sender)
            counts.publish_seconds.observe(self._house.now() - began)
        else:
            event_id = self._house.publish(channel, event, data, self.sender)
        if command.id:
            self._answer(published_frame(command.id, event_id, self._house.wall_ms()))

    def _subscribe(self, command: Subscribe) -> None:
        self._house.counts.received.subscribe += 1
        self._demand_right_to_listen(command.id)
        channel = self._channel(command)
        if self.is_stranger and channel.agent is None and is_private(channel.name):
            raise _not_authenticated(command.id)
        if not self._may_listen(channel):
            raise ProtocolError(
                ErrorCode.NOT_AUTHORIZED,
                "Not authorized to subscribe to this agent channel",
                command.id,
            )
        registry = self._house.registry
        mine = registry.channels(self)
        if channel.name not in mine:
            most = self._house.rules.max_subscriptions
            if len(mine) >= most:
                self._house.counts.limits.max_subscriptions.add()
                raise ProtocolError(
                    ErrorCode.TOO_MANY_SUBSCRIPTIONS,
                    f"Too many subscriptions: the limit is {most}; unsubscribe from some",
                    command.id,
                )
            registry.join(self, channel.name)
        self._done(command.id)

    def _unsubscribe(self, command: Unsubscribe) -> None:
        self._house.counts.received.unsubscribe += 1
        self._demand_right_to_listen(command.id)
        self._house.registry.leave(self, self._channel(command).name)
        self._done(command.id)

    def _channel(self, command: Subscribe | Unsubscribe | Publish) -> Channel:
        try:
            return self._house.channels.parse(command.channel)
        except ProtocolError as error:
            error.request = command.id
            raise

    def _pay(self, message: str | bytes, size: int) -> bool:
        """
        Charge a message before it is read.  False if it was over the limit, and has been dealt with although it was.

        @raise ProtocolError: C{RATE_LIMITED}.  The client is closed, too, if it was refused ten times what it may send.
        """
        now = self._house.now()
        for budget in self.budgets:
            refusal = budget.spend(now, size)
            if refusal is not None:
                break
        else:
            return True
        if size <= _ANSWER_MAX and self._is_answer(message):
            return False
        error = ProtocolError(
            ErrorCode.RATE_LIMITED,
            f"Rate limit: {refusal.most:g} {refusal.unit} a second",
            request_of(message),
        )
        error.retry_after_ms = ceil(refusal.seconds * 1000)
        self._refused(refusal.unit, size)
        raise error

    def _demand_right_to_listen(self, request: Raw) -> None:
        if self.is_stranger and not self._house.rules.anonymous_listeners:
            raise _not_authenticated(request)

    def _refused(self, unit: str, size: int) -> None:
        counts = self._house.counts
        if self.is_stranger:
            counts.limits.stranger_rate.add()
        elif unit == "bytes":
            counts.limits.rate_bytes.add()
        else:
            counts.limits.rate_limit.add()
        counts.received.limited += 1
        if self.budgets[0].refused(size):
            self._house.close(self, CloseCode.TOO_MANY_MESSAGES)

    def _is_answer(self, message: str | bytes) -> bool:
        """
        Does C{message} answer what the server sent?  It is executed then.
        """
        if not self.owed and not self._pongs and not self._may_acknowledge:
            return False
        try:
            command = decode_command(message)
        except ProtocolError:
            return False
        return self._settles(command)

    def _settles(self, command: Command) -> bool:
        """
        Does C{command} answer what the server sent: an event, or one of the last pings?  The event is settled then.
        """
        if isinstance(command, Ack):
            return self._settles_event(command)
        return isinstance(command, Pong) and self._answers_ping()

    def _settles_event(self, ack: Ack) -> bool:
        if not self.acknowledges:
            self._house.first_ack(self)
        return self._house.deliveries.ack(self, ack.message_id) or self._spare_ack()

    def _answers_ping(self) -> bool:
        if not self._pongs:
            return False
        self._pongs -= 1
        return True

    def _give_back(self, size: int) -> None:
        """
        A message that the server asked for costs nothing.
        """
        for budget in self.budgets:
            budget.give_back(size)

    def _spare_ack(self) -> bool:
        """
        Take an ack that a client sends and does not owe.  Libraries acknowledge what they get, also for observers: as
        many acks as there were events.
        """
        if not self._may_acknowledge:
            return False
        self._acks += 1
        return True

    @property
    def _may_acknowledge(self) -> bool:
        owes_nothing = self._house.rules.anonymous_listeners if self.is_stranger else self.observer
        return owes_nothing and self._acks < self._house.published

    def control(self, size: int) -> bool:
        """
        Charge a WebSocket control frame as a message.  False if it is over the limit and has to be ignored.

        @param size: bytes of its payload.
        """
        now = self._house.now()
        for budget in self.budgets:
            refusal = budget.spend(now, size)
            if refusal is not None:
                self._refused(refusal.unit, size)
                return False
        return True

    def fragment(self, size: int) -> None:
        """
        Charge a part of a message when it begins; the message itself is charged when it is complete.

        @param size: bytes of its payload.
        """
        now, size = self._house.now(), max(size, FRAGMENT)
        for budget in self.budgets:
            if not budget.overdraw(now, size):
                self._refused("bytes", size)
                break

    def _may_listen(self, channel: Channel) -> bool:
        if channel.agent is None or self.state is _AUTHENTICATED:
            return True
        return channel.agent == self.origin.agent_id and not self.is_stranger

    def _done(self, request: Raw) -> None:
        if request:
            self._answer(done_frame(request, self._house.wall_ms()))

    def _answer(self, frame: bytes) -> None:
        self._house.counts.sent.ack += 1
        self.peer.send(frame)


def _not_authenticated(request: Raw) -> ProtocolError:
    return ProtocolError(ErrorCode.NOT_AUTHORIZED, "Not authorized: authenticate first", request)
