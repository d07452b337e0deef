"""
Where every event enters, and its way to the subscribers.
"""

from __future__ import annotations

from collections.abc import Set
from functools import lru_cache

from msgspec import Raw

from dcm_ws.core.casting import TOPIC, cast_of, draft_of
from dcm_ws.core.catchup import CatchUp
from dcm_ws.core.clients import Clients
from dcm_ws.core.counts import Counts
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.entries import Draft, Published
from dcm_ws.core.ids import event_prefix
from dcm_ws.core.latest import LatestEvents, Subject
from dcm_ws.core.ledger import Ledger
from dcm_ws.core.ports import Bus, Log, World
from dcm_ws.core.registry import ChannelRegistry
from dcm_ws.core.rules import Rules
from dcm_ws.core.session import Session
from dcm_ws.core.tracked import Tracked
from dcm_ws.protocol.channels import GLOBAL, Channel, Channels, is_private
from dcm_ws.protocol.errors import NO_REQUEST, ErrorCode, ProtocolError
from dcm_ws.protocol.events import Ephemeral, traits_of
from dcm_ws.protocol.notifications import decode_notification
from dcm_ws.protocol.rawjson import check_data
from dcm_ws.protocol.replies import event_frame, mirror_frame, to_json

_NOBODY: frozenset[Session] = frozenset()
_GLOBAL = GLOBAL.name
_KINDS_MAX = 4096

# what the name of an event implies: its category, if it is tracked, if it is logged, and what reads its subject if only
# the latest of each subject matters
_Kind = tuple[str, bool, bool, Subject | None]

# names that no agent can have: they begin with a space
ANONYMOUS = " anonymous"
"""
The publisher that all clients together are that have not authenticated.
"""

DATABASE = " database"
"""
The publisher of all events that are published in the database.
"""

SERVICE = " service"
"""
The publisher of the events of the service, and of the application that embeds it.
"""


class Router:
    """
    Publishes events: numbers, encodes and logs them, and gives them to the subscribers of their channels and of
    C{global}.

    @ivar draining: the service stops, and accepts no events of clients any more.
    @ivar published: events delivered since the start.
    """

    def __init__(
        self,
        world: World,
        rules: Rules,
        counts: Counts,
        *,
        channels: Channels,
        latest: LatestEvents,
        clients: Clients,
        registry: ChannelRegistry[Session],
        deliveries: DeliveryQueue,
        log: Log,
        ephemeral: Ephemeral,
        catch_up: CatchUp,
        ledger: Ledger,
        bus: Bus | None = None,
    ) -> None:
        self._wall_ms = world.wall_ms
        self._prefix = event_prefix(world)
        self._mirror_clients = rules.mirror_clients
        self._max_depth = rules.max_depth
        self._too_deep = counts.limits.max_depth.add
        self._counts = counts.events
        # by publisher; all others are clients
        self._client_counts = counts.events.client
        self._sources = {DATABASE: counts.events.database, SERVICE: counts.events.service}
        self._channels = channels
        self._observers = clients.observers
        self._strangers = clients.strangers
        self._private = clients.private_readers
        self._members = registry.members
        self._deliveries = deliveries
        self._log = log

        def kind_of(event: str) -> _Kind:
            category, tracked, _ = traits_of(event)
            subject_of = None if tracked else latest.subject_of(event)
            return category, tracked, subject_of is None and not ephemeral.includes(event), subject_of

        # events have few names, of 64 characters at most
        self._kind_of = lru_cache(maxsize=_KINDS_MAX)(kind_of)
        self._behind = clients.behind
        self._catch_up = catch_up
        self._ledger = ledger
        self._now = world.now
        self._bus = bus
        if bus is not None:
            bus.attach(TOPIC, self._heard)
        self.draining = False
        self.published = 0
        self._number = 0

    def announce(self, channel: Channel, event: str, data: object, *, everywhere: bool = False) -> str:
        """
        Publish an event of the service's own; return its id.

        @param everywhere: also to the clients of other nodes; a logged event is that always.
        """
        data, now_ms = to_json(data), self._wall_ms()
        made = self._draft(channel, event, data, now_ms, channel.name, SERVICE)
        return self._publish(*made, everywhere=everywhere).id

    def publish(
        self,
        channel: Channel,
        event: str,
        data: bytes,
        sender: bytes = b"",
        publisher: str | None = None,
        key: str = "",
    ) -> Published:
        """
        Publish a client's event.

        @param data: JSON, UTF-8.
        @param sender: who publishes it, made by L{from_field}; empty for a client that has not authenticated.
        @param publisher: the agent, who pays for the event's room in the log; None without one.
        @param key: as in L{Draft}.
        @return: what the log answers; it may still be waiting for that.
        @raise ProtocolError: C{NOT_AVAILABLE}: the log refuses the event at once, or it would be in no log when the
            service is gone.
        """
        if self.draining:
            raise _about_to_stop()
        draft, logged, subject_of = self._draft(
            channel,
            event,
            data,
            self._wall_ms(),
            channel.name,
            publisher or ANONYMOUS,
            sender,
            self._mirror_clients,
            key,
        )
        published = self._publish(draft, logged, subject_of)
        if published.pos is None:
            raise not_logged()
        return published

    def demand_open(self) -> None:
        """
        Check that events of clients are accepted.

        @raise ProtocolError: C{NOT_AVAILABLE}.
        """
        if self.draining:
            raise _about_to_stop()

    def draft(
        self, channel: Channel, event: str, data: bytes, sender: bytes, publisher: str | None, key: str = ""
    ) -> tuple[Draft, bool]:
        """
        Make a client's event, and publish nothing yet.  The parameters are those of L{publish}.

        @return: the event, and if it is to be logged.
        """
        publisher, mirror = publisher or ANONYMOUS, self._mirror_clients
        draft, logged, _ = self._draft(
            channel, event, data, self._wall_ms(), channel.name, publisher, sender, mirror, key
        )
        return draft, logged

    def publish_unlogged(self, draft: Draft) -> None:
        """
        Publish an event that is not to be logged, made by L{draft}.
        """
        if self._bus is not None:
            self._bus.cast(TOPIC, cast_of(draft))
        self.deliver(draft, 0, b"", self._kind_of(draft.event)[3])

    def notified(self, payload: str) -> str:
        """
        Publish an event that the database notifies; return its id.

        @raise ProtocolError: the payload is not an event; it has been counted.
        """
        try:
            notification = decode_notification(payload)
            traits_of(notification.event)
            data = bytes(notification.data)
            check_data(data, self._max_depth, self._too_deep)
        except ProtocolError:
            self._counts.bad_notifications += 1
            raise
        try:
            channel = self._channels.parse(notification.channel)
        except ProtocolError:
            channel = GLOBAL
        timestamp = notification.timestamp
        made = self._draft(
            channel,
            notification.event,
            data,
            self._wall_ms() if timestamp is None else timestamp,
            # the name as it was given: one that fits no channel makes it an event of global
            notification.channel,
            DATABASE,
        )
        # one node of a cluster does it for all
        return self._publish(*made).id

    def _publish(self, draft: Draft, logged: bool, subject_of: Subject | None, *, everywhere: bool = True) -> Published:
        """
        Publish an event.  The parameters are what L{_draft} returns.

        @param everywhere: the clients of other nodes get it, too, if it is not logged.
        """
        published = Published(draft.id)
        if logged:
            self._log.append(draft, published)
        else:
            if everywhere and self._bus is not None:
                self._bus.cast(TOPIC, cast_of(draft))
            self.deliver(draft, 0, b"", subject_of)
        return published

    def _draft(
        self,
        channel: Channel,
        event: str,
        data: bytes,
        timestamp: int,
        named: str,
        publisher: str,
        sender: bytes = b"",
        mirror: bool = True,
        key: str = "",
    ) -> tuple[Draft, bool, Subject | None]:
        """
        Make an event.

        @param named: and C{sender}: as in L{Draft}.
        @param mirror: C{global} carries the event, too, if it carries the events of its channel.
        @param key: as in L{Draft}.
        @return: the event, if it is to be logged, and what reads its subject, if only the latest of each matters.
        """
        self._number = number = self._number + 1
        category, tracked, logged, subject_of = self._kind_of(event)
        mirrored = channel.mirrored and mirror
        event_id = f"{self._prefix}{number}"
        draft = Draft(
            event_id, channel, event, data, timestamp, sender, named, category, tracked, mirrored, publisher, key
        )
        return draft, logged, subject_of

    def _heard(self, node: str, message: bytes) -> None:
        """
        Another node has published an event that is not logged.
        """
        draft = draft_of(message, self._channels)
        if draft is not None:
            self.deliver(draft, 0, b"", self._kind_of(draft.event)[3])

    def deliver(self, draft: Draft, pos: int, frame: bytes, subject_of: Subject | None = None) -> None:
        """
        Give an event to the subscribers of its channel and of C{global}.

        @param pos: its position; 0 if it is not logged.
        @param frame: for the subscribers of its channel; empty if it is not logged: it may not be needed.
        @param subject_of: reads its subject, if only the latest event of each matters.
        """
        self.published += 1
        event_id, channel = draft.id, draft.channel
        members = self._members
        listeners = members(channel.name)
        everyone = members(_GLOBAL) if draft.mirrored else _NOBODY
        if self._private is not None:
            if is_private(draft.named):
                everyone = self._private.among(everyone, draft.named)
                if channel is GLOBAL:
                    listeners = self._private.among(listeners, draft.named)
        elif self._strangers and is_private(draft.named):
            listeners, everyone = listeners - self._strangers, everyone - self._strangers
        if pos:
            if self._behind:
                # they get it from the log, in its order
                listeners, everyone = listeners - self._behind, everyone - self._behind
        elif listeners or everyone:
            frame = event_frame(event_id, channel.json, draft.event, draft.data, draft.timestamp, draft.sender)
        copy = mirror_frame(frame, event_id, channel.json) if everyone else b""
        self._sources.get(draft.publisher, self._client_counts)[draft.category] += 1
        self._counts.audiences[len(listeners) + len(everyone)] += 1
        if draft.tracked:
            self._deliver_tracked(pos, event_id, listeners, frame, everyone, copy)
        elif subject_of is not None:
            subject = f"{draft.event} {subject_of(draft.data)}"
            for session in listeners:
                session.peer.offer(f"{channel.name} {subject}", frame)
            for session in everyone:
                session.peer.offer(f"global {subject}", copy)
        else:
            for session in listeners:
                session.peer.send(frame)
            for session in everyone:
                session.peer.send(copy)
            if pos and (listeners or everyone):
                now = self._now()
                if listeners:
                    self._ledger.sent(pos, listeners, now)
                if everyone:
                    self._ledger.sent(pos, everyone, now)

    def _deliver_tracked(
        self,
        pos: int,
        event_id: str,
        listeners: Set[Session],
        frame: bytes,
        everyone: Set[Session],
        copy: bytes,
    ) -> None:
        both = listeners & everyone if listeners and everyone else _NOBODY
        for audience, frames in (
            (listeners - both if both else listeners, (frame,)),
            (both, (frame, copy)),
            (everyone - both if both else everyone, (copy,)),
        ):
            if audience:
                joined = b"".join(frames)
                for session in audience:
                    session.peer.send(joined)
                owing = audience - self._observers if self._observers else audience
                if owing:
                    self._deliveries.sent(Tracked(pos, event_id, frames), owing)
        if self._deliveries.full:
            self._catch_up.wait()


def _about_to_stop() -> ProtocolError:
    return ProtocolError(ErrorCode.NOT_AVAILABLE, "The server is about to stop; publish again after a reconnect")


def not_logged(request: Raw = NO_REQUEST) -> ProtocolError:
    """
    The refusal of an event that the log could not take.
    """
    return ProtocolError(
        ErrorCode.NOT_AVAILABLE, "The log cannot be written: the event was not published; publish it again", request
    )
