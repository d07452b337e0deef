"""
All clients together: joining, leaving, publishing, and the sweeps that look after them.

The hub does not know where events come from, nor what a socket is.  It reads no clock that it was not handed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import islice

from dcm_ws.core.agents import Absence, AgentMemory
from dcm_ws.core.counts import Count, Counts
from dcm_ws.core.delivery import DeliveryQueue, Tracked
from dcm_ws.core.grants import Grants
from dcm_ws.core.latest import LatestEvents
from dcm_ws.core.registry import ChannelRegistry
from dcm_ws.core.schedule import Schedule
from dcm_ws.core.session import Origin, Peer, Rules, Session, State
from dcm_ws.protocol.channels import (
    GLOBAL,
    METRICS,
    Channel,
    Channels,
    agent_channel,
    is_private,
    session_channel,
)
from dcm_ws.protocol.commands import Auth
from dcm_ws.protocol.errors import CloseCode, ErrorCode, ProtocolError
from dcm_ws.protocol.events import Publishable, traits_of
from dcm_ws.protocol.notifications import decode_notification
from dcm_ws.protocol.rawjson import check_data
from dcm_ws.protocol.replies import (
    authenticated_frame,
    connected_frame,
    event_frame,
    from_field,
    heartbeat_frames,
    mirror_frame,
    to_json,
)
from dcm_ws.protocol.tokens import Claims, check_scope, verify

CHANNELS_SHOWN = 1000
"""
Channels that C{channelStats} lists, at most, and agents that C{agentStats} lists.
"""

_NOBODY: frozenset[Session] = frozenset()
_GLOBAL = GLOBAL.name
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class World:
    """
    What the core cannot do for itself.

    @ivar now: monotonic seconds, for all that waits.
    @ivar wall_ms: ms since the epoch, for all that goes on the wire and into tokens.
    @ivar random: a random string of that many base-36 characters, from a cryptographic source.
    """

    now: Callable[[], float]
    wall_ms: Callable[[], int]
    random: Callable[[int], str]


class Hub:
    """
    @param server: the name and version that clients are told.

    @ivar channels: the channels that there can be.
    @ivar secrets: what tokens may be signed with.
    @ivar grants: the budgets that clients spend from.
    @ivar counts: where it counts.
    @ivar agents: how many connections each agent has that is connected now.
    @ivar observers: the clients that owe no acks and whose agents are not present by them.
    @ivar strangers: those of them that listen in production without having authenticated.
    @ivar resumed_at: since when silence counts: the end of the last pause of the service (monotonic seconds).
    @ivar admits_since: since when the time to authenticate counts (monotonic seconds).
    @ivar draining: the service is about to stop.
    """

    def __init__(
        self,
        world: World,
        *,
        server: str,
        secrets: Sequence[str],
        counts: Counts,
        rules: Rules,
        publishable: Publishable,
        deliveries: DeliveryQueue,
        memory: AgentMemory,
        max_connections: int,
        channels: Channels | None = None,
        latest: LatestEvents | None = None,
    ) -> None:
        self.now = world.now
        self.wall_ms = world.wall_ms
        self.rules = rules
        self.publishable = publishable
        self.channels = Channels() if channels is None else channels
        self.deliveries = deliveries
        self.memory = memory
        self.registry: ChannelRegistry[Session] = ChannelRegistry()
        self.counts = counts
        self._too_deep = counts.limits.max_depth.add
        self._limits_of: dict[CloseCode, Count] = {
            CloseCode.TOO_SLOW: counts.limits.max_send_buffer,
            CloseCode.TOO_MANY_MESSAGES: counts.limits.rate_limit_tenfold,
            CloseCode.PING_TIMEOUT: counts.limits.heartbeat_timeout,
            CloseCode.AUTHENTICATION_REQUIRED: counts.limits.auth_timeout,
        }
        self.draining = False
        self.sessions: set[Session] = set()
        self.observers: set[Session] = set()
        self.strangers: set[Session] = set()
        self._leaving: dict[Session, None] = {}
        self._random = world.random
        self._server = server
        self.secrets = secrets
        self._max_connections = max_connections
        self._latest = latest or LatestEvents()
        self.authenticated = 0
        self.grants = Grants(rules, self.now)
        self.agents: Counter[str] = Counter()
        shortest = min(rules.heartbeat_interval, rules.heartbeat_timeout)
        self.sweep_interval = min(rules.sweep_interval, shortest / 4, rules.auth_timeout / 4)
        self.resumed_at = self.admits_since = self._swept_at = world.now()
        self._checks: Schedule[Session] = Schedule(self.sweep_interval)
        self._seq = 0
        self._event_prefix = f"msg_{base36(world.wall_ms())}{world.random(12)}_"

    # joining and leaving

    def verify(self, token: str) -> Claims:
        """
        What a token says, if it is signed with one of the secrets, has not expired, and has a scope that is understood.

        @raise ProtocolError: C{TOKEN_INVALID} or C{TOKEN_EXPIRED}.
        """
        claims = self._read_token(token)
        check_scope(claims)
        return claims

    def _read_token(self, token: str) -> Claims:
        now_ms = self.wall_ms()
        for secret in self.secrets[:-1]:
            try:
                return verify(secret, token, now_ms)
            except ProtocolError as error:
                if error.code is not ErrorCode.TOKEN_INVALID:
                    raise
        return verify(self.secrets[-1], token, now_ms)

    def connect(self, peer: Peer, origin: Origin) -> Session | None:
        """
        A client has connected.  None where there is no room for it: it has been closed then.
        """
        if len(self.sessions) >= self._max_connections:
            self._disconnect_the_gone()
        if len(self.sessions) >= self._max_connections:
            self.counts.limits.max_connections.add()
            self.counts.closes[CloseCode.TRY_AGAIN_LATER] += 1
            peer.close(CloseCode.TRY_AGAIN_LATER)
            return None
        now_ms = self.wall_ms()
        client_id = f"ws_{base36(now_ms)}_{self._random(8)}"
        session = Session(self, peer, client_id, origin)
        self.grants.to_anonymous(session)
        self.sessions.add(session)
        if origin.observer:
            self.observers.add(session)
        self.counts.connections += 1
        self._checks.put(session, session.next_check())
        peer.send(connected_frame(client_id, self._server, now_ms))
        if not self.rules.production or self.rules.anonymous_listeners:
            self.registry.join(session, GLOBAL.name)
        if self.rules.production and self.rules.anonymous_listeners:
            self.strangers.add(session)
            self.observers.add(session)
        if origin.claims is not None:
            self._identify(session, origin.claims, Auth())
        return session

    def disconnect(self, session: Session) -> None:
        """
        A client is gone.  Nothing happens where it was known to be.
        """
        self._leaving.pop(session, None)
        if session.state is State.CLOSED:
            return
        agent = session.present
        self._settle_absence(session)
        self.grants.end(session)
        session.state = State.CLOSED
        self.registry.drop(session)
        self._checks.drop(session)
        self.sessions.discard(session)
        self.observers.discard(session)
        self.strangers.discard(session)
        if session.agent is not None:
            self.authenticated -= 1
        if agent is not None:
            self._end_presence(session, agent)

    def leave(self, session: Session) -> None:
        """
        A client is gone, with many others: it need be disconnected only before anybody authenticates, or is turned away
        for want of room.
        """
        self._leaving[session] = None

    def _disconnect_the_gone(self) -> None:
        while self._leaving:
            self.disconnect(next(iter(self._leaving)))

    def close(self, session: Session, code: CloseCode) -> None:
        """
        End a client's connection, with the reason why.
        """
        if session.state is not State.CLOSED:
            self.counts.closes[code] += 1
            if limit := self._limits_of.get(code):
                limit.add()
            self.disconnect(session)
            session.peer.close(code)

    def authenticate(self, session: Session, auth: Auth) -> None:
        """
        Obey an C{auth} command.

        @raise ProtocolError: C{TOKEN_REQUIRED}, C{TOKEN_INVALID}, C{TOKEN_EXPIRED} or C{AGENT_ID_REQUIRED}.
        """
        if auth.token is not None:
            claims = self.verify(auth.token)
        elif self.rules.production:
            raise ProtocolError(ErrorCode.TOKEN_REQUIRED, "A token is required to authenticate")
        elif auth.agent_id is not None:
            claims = Claims(auth.agent_id, None, 0)
        else:
            raise ProtocolError(ErrorCode.AGENT_ID_REQUIRED, "Missing token or agent_id")
        self._identify(session, claims, auth)

    def _identify(self, session: Session, claims: Claims, auth: Auth) -> None:
        # the agent may be one of those who left, and get what it left behind
        self._disconnect_the_gone()
        agent, former = claims.agent_id, session.agent
        was_present = session.present
        observer = session.observer if auth.observer is None else bool(auth.observer)
        present = None if observer else agent
        if former is None:
            self.authenticated += 1
            self.strangers.discard(session)
            if self.rules.production and not self.rules.anonymous_listeners:
                self.registry.join(session, GLOBAL.name)
        if was_present not in (None, present) or (observer and not session.observer):
            self._settle_absence(session)
        if former is not None and former != agent:
            self.registry.leave(session, agent_channel(former).name)
        if was_present is not None and was_present != present:
            self._end_presence(session, was_present)
        returning = present is not None and present != was_present
        if returning:
            self.agents[agent] += 1
        self._observe(session, observer)
        if agent != former:
            self.grants.to_agent(session, agent)
            session.peer.trust()
        session.state = State.AUTHENTICATED
        session.agent = agent
        session.operator = claims.operator
        session.sender = from_field(agent)
        self._give_own_channels(session, agent, claims.session_id or auth.session_id or session.origin.session_id)
        self._expect_expiry(session, claims.expires_at)
        if session.acknowledges:
            self.memory.acknowledged(agent)
        session.acknowledges = self.memory.acknowledges(agent)
        absence = self.memory.returned(agent) if returning else None
        if absence is not None:
            # what the limit leaves out would be left out every time, so it had better always be the same
            self._restore(session, sorted(absence.subscriptions))
        subscriptions = sorted(self.registry.channels(session))
        self.counts.sent.ack += 1
        session.peer.send(authenticated_frame(auth.id, subscriptions, self.wall_ms()))
        if absence is not None:
            self._catch_up(session, absence)
        if present is not None:
            self._tell_of_agent("agent.connected", session, agent)

    def _observe(self, session: Session, observer: bool) -> None:
        session.observer = observer
        if observer:
            self.observers.add(session)
        else:
            self.observers.discard(session)

    def _give_own_channels(self, session: Session, agent: str, dcm_session: str | None) -> None:
        """
        Subscribe a client to the channels of its agent and its session, which it gets beyond the limit.
        """
        former, session.dcm_session = session.dcm_session, dcm_session
        full = len(self.registry.channels(session)) >= self.rules.max_subscriptions
        if full and former not in (None, dcm_session):
            # or else one that names many sessions, one after the other, would collect their channels
            self.registry.leave(session, session_channel(former).name)
        self.registry.join(session, agent_channel(agent).name)
        if dcm_session is not None:
            self.registry.join(session, session_channel(dcm_session).name)

    def _restore(self, session: Session, channels: Iterable[str]) -> None:
        """
        Subscribe a client to what its agent left behind, as far as the limit lets it.
        """
        for channel in channels:
            mine = self.registry.channels(session)
            if channel not in mine and len(mine) >= self.rules.max_subscriptions:
                self.counts.limits.max_subscriptions.add()
                break
            self.registry.join(session, channel)

    def _expect_expiry(self, session: Session, expires_ms: int) -> None:
        """
        @param expires_ms: ms since the epoch; 0 for never.
        """
        session.expires_at, session.expires_ms = None, 0
        if self.rules.enforce_expiry and expires_ms:
            session.expires_ms = expires_ms
            session.expires_at = self.now() + (expires_ms - self.wall_ms()) / 1000
        self._checks.put(session, session.next_check())

    def _settle_absence(self, session: Session) -> None:
        """
        Keep for the agent that is present by this session, if there is one, what the connection leaves behind.
        """
        owed = self.deliveries.release(session)
        if session.replaying is not None:
            once = {event.id: event for event in (*owed, *session.replaying)}
            owed = sorted(once.values(), key=lambda event: event.seq)
            session.replaying = None
        if session.present is not None:
            subscriptions = frozenset(self.registry.channels(session))
            self.memory.left(session.present, Absence(subscriptions, owed, self._seq, session.acknowledges))

    def first_ack(self, session: Session) -> None:
        """
        A client that has never acknowledged anything does so now.
        """
        if not session.observer:
            session.acknowledges = True
            if session.agent is not None:
                self.memory.acknowledged(session.agent)

    def _catch_up(self, session: Session, absence: Absence) -> None:
        def events() -> Iterator[Tracked]:
            yield from absence.owed
            yield from missed

        missed = self.memory.missed(absence)
        session.replaying = remaining = events()

        def frames() -> Iterator[bytes]:
            for event in remaining:
                self.deliveries.forget(session, event.id)
                self.deliveries.sent(event, {session})
                self.counts.sent.again += len(event.frames)
                yield from event.frames
            # it may have authenticated as another agent since, and be catching up as that one
            if session.replaying is remaining:
                session.replaying = None

        session.peer.replay(frames())

    def _end_presence(self, session: Session, agent: str) -> None:
        self.agents[agent] -= 1
        if not self.agents[agent]:
            del self.agents[agent]
        self._tell_of_agent("agent.disconnected", session, agent)

    def _tell_of_agent(self, event: str, session: Session, agent: str) -> None:
        data = {
            "agent_id": agent,
            "client_id": session.client_id,
            "session_id": session.dcm_session,
        }
        self.announce(GLOBAL, event, data)

    # publishing

    def announce(self, channel: Channel, event: str, data: object) -> str:
        """
        Publish an event of the service's own.
        """
        return self._publish(self.counts.events.service, channel, event, to_json(data), self.wall_ms(), channel.name)

    def publish(self, channel: Channel, event: str, data: bytes, sender: bytes = b"") -> str:
        """
        Publish a client's event; returns its id.

        @param data: JSON, UTF-8.
        @param sender: who publishes it, made by L{from_field}; empty for a client that has not authenticated.
        """
        return self._publish(
            self.counts.events.client,
            channel,
            event,
            data,
            self.wall_ms(),
            channel.name,
            sender,
            mirror=self.rules.mirror_clients,
        )

    def notified(self, payload: str) -> str:
        """
        Publish what the database says; answers the event's id.

        @raise ProtocolError: the payload is not an event; it has been counted.
        """
        try:
            notification = decode_notification(payload)
            traits_of(notification.event)
            data = bytes(notification.data)
            check_data(data, self.rules.max_depth, self._too_deep)
        except ProtocolError:
            self.counts.events.bad_notifications += 1
            raise
        try:
            channel = self.channels.parse(notification.channel)
        except ProtocolError:
            channel = GLOBAL
        timestamp = notification.timestamp
        return self._publish(
            self.counts.events.database,
            channel,
            notification.event,
            data,
            self.wall_ms() if timestamp is None else timestamp,
            # by the name as it was given: one that fits no channel makes it an event of global
            notification.channel,
        )

    def _publish(
        self,
        counts: dict[str, int],
        channel: Channel,
        event: str,
        data: bytes,
        timestamp: int,
        named: str,
        sender: bytes = b"",
        *,
        mirror: bool = True,
    ) -> str:
        """
        @param counts: the events of the same source, by category.
        @param mirror: C{global} carries the event, too, if its channel is one of those whose events it carries.
        @param named: the channel's name as it was given; if that is private, strangers do not get the event.
        """
        self._seq = seq = self._seq + 1
        event_id = f"{self._event_prefix}{seq}"
        category, tracked, _ = traits_of(event)
        members = self.registry.members
        listeners = members(channel.name)
        mirrored = channel.mirrored and mirror
        everyone = members(_GLOBAL) if mirrored else _NOBODY
        if self.strangers and is_private(named):
            listeners, everyone = listeners - self.strangers, everyone - self.strangers
        logged = tracked and self.memory.absent > 0
        frame = mirror_ = b""
        if listeners or logged:
            frame = event_frame(event_id, channel.json, event, data, timestamp, sender)
        if everyone or (logged and mirrored):
            mirror_ = mirror_frame(event_id, channel.json, event, data, timestamp, sender)
        counts[category] += 1
        self.counts.events.audiences[len(listeners) + len(everyone)] += 1
        if tracked:
            self._deliver(seq, event_id, listeners, frame, everyone, mirror_)
            if logged:
                self.memory.published(seq, event_id, channel.name, frame, mirror_)
        elif (subject_of := self._latest.subject_of(event)) is not None:
            subject = f"{event} {subject_of(data)}"
            for session in listeners:
                session.peer.offer(f"{channel.name} {subject}", frame)
            for session in everyone:
                session.peer.offer(f"global {subject}", mirror_)
        else:
            for session in listeners:
                session.peer.send(frame)
            for session in everyone:
                session.peer.send(mirror_)
        return event_id

    def _deliver(
        self,
        seq: int,
        event_id: str,
        listeners: Set[Session],
        frame: bytes,
        everyone: Set[Session],
        mirror: bytes,
    ) -> None:
        both = listeners & everyone if listeners and everyone else _NOBODY
        for audience, frames in (
            (listeners - both if both else listeners, (frame,)),
            (both, (frame, mirror)),
            (everyone - both if both else everyone, (mirror,)),
        ):
            if audience:
                joined = b"".join(frames)
                for session in audience:
                    session.peer.send(joined)
                owing = audience - self.observers if self.observers else audience
                if owing:
                    self.deliveries.sent(Tracked(seq, event_id, frames), owing)

    # looking after them

    def sweep(self) -> Iterator[None]:
        """
        Look after the clients whose time has come, one a step.
        """
        self.memory.expire()
        self.grants.forget()
        now = self.now()
        self.paused(now - self._swept_at)
        self._swept_at = now
        due = self._checks.take(now)
        if not due:
            return
        heartbeat = heartbeat_frames(self.wall_ms())
        due.reverse()
        try:
            while due:
                session = due.pop()
                if session.state is State.CLOSED:
                    continue
                verdict = session.check(now, heartbeat)
                if isinstance(verdict, CloseCode):
                    self.close(session, verdict)
                else:
                    self._checks.put(session, verdict)
                yield
        finally:
            # one that cannot be looked after must not be the end of looking after the others
            for session in due:
                self._checks.put(session, now)

    def paused(self, seconds: float) -> None:
        """
        So long ago was the last sweep.  If that is long, the process has not been running: what clients have sent
        meanwhile may not have been read, and they did not get what the service should have sent.  Short delays, which a
        busy service may have all the time, count as time that passes.
        """
        if seconds <= 2 * self.sweep_interval:
            return
        # there is less time to authenticate than to be silent, and nobody is pinged before it ends
        self.admits_since = self.now()
        if seconds > self.rules.heartbeat_timeout / 10:
            self.resumed_at = self.now()
        # tokens expire by the wall clock, which has not waited
        if self.rules.enforce_expiry:
            for session in self.sessions:
                if session.expires_ms:
                    self._expect_expiry(session, session.expires_ms)

    def retry(self) -> Iterator[None]:
        """
        Send again, or give up, the deliveries that are due, one a step.
        """
        for client, frames in self.deliveries.late():
            if frames:
                assert isinstance(client, Session)
                self.counts.sent.again += len(frames)
                client.peer.send(b"".join(frames))
            yield

    def drain(self) -> None:
        """
        The service is about to stop: say so.
        """
        self.draining = True
        self.announce(GLOBAL, "system.info", {"component": "server", "state": "draining"})

    # counts

    @property
    def published(self) -> int:
        """
        Events published since the start.
        """
        return self._seq

    @property
    def metrics_wanted(self) -> bool:
        """
        Is anybody subscribed to C{metrics}?
        """
        return bool(self.registry.members(METRICS.name))

    def sizes(self, *, channels: bool) -> dict[str, object]:
        """
        The counts that C{/health} and C{/stats} share.

        @param channels: name the channels, too.
        """
        counts: dict[str, object] = {
            "connectedClients": len(self.sessions),
            "activeChannels": len(self.registry),
        }
        if channels:
            counts["channelStats"] = dict(self.registry.sizes(CHANNELS_SHOWN))
        counts["pendingDeliveries"] = self.deliveries.pending
        return counts

    def stats(self, *, channels: bool) -> dict[str, object]:
        """
        The counts behind C{/stats}, as of now.

        @param channels: name the channels and the agents, too.
        """
        named: dict[str, object] = {}
        if channels:
            named["agentStats"] = dict(islice(self.agents.items(), CHANNELS_SHOWN))
        counts = self.counts
        deliveries = counts.deliveries
        return self.sizes(channels=channels) | {
            **named,
            "failedDeliveries": deliveries.given_up,
            "authenticatedClients": self.authenticated,
            "observers": len(self.observers),
            "totalConnections": counts.connections,
            "events": {
                "client": sum(counts.events.client.values()),
                "database": sum(counts.events.database.values()),
                "badNotifications": counts.events.bad_notifications,
            },
            "deliveries": {
                "acked": deliveries.acked,
                "retried": deliveries.retried,
                "givenUp": deliveries.given_up,
                "neverAcknowledged": deliveries.never_acknowledged,
                "keptForAbsentAgents": self.memory.kept,
            },
            "agents": {
                "connected": len(self.agents),
                "absent": self.memory.absent,
                "remembered": len(self.memory),
            },
            "refusals": dict(counts.refusals),
            "closes": {str(int(code)): n for code, n in counts.closes.items()},
            "limits": counts.limits.report(),
        }


def base36(number: int) -> str:
    """
    A number that is not negative, in the digits C{0-9a-z}.
    """
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _BASE36[digit] + digits
    return digits or "0"
