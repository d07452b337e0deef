"""
Where every event enters, and its way to the subscribers.
"""

from __future__ import annotations

from collections.abc import Set
from functools import lru_cache

from dcm_ws.core.catchup import CatchUp
from dcm_ws.core.clients import Clients
from dcm_ws.core.counts import Counts
from dcm_ws.core.delivery import DeliveryQueue, Tracked
from dcm_ws.core.ids import event_prefix
from dcm_ws.core.keys import Published
from dcm_ws.core.latest import LatestEvents, Subject
from dcm_ws.core.log import MemoryLog
from dcm_ws.core.ports import World
from dcm_ws.core.registry import ChannelRegistry
from dcm_ws.core.rules import Rules
from dcm_ws.core.session import Session
from dcm_ws.protocol.channels import GLOBAL, Channel, Channels, is_private
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
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

_DATABASE = " database"
SERVICE = " service"
"""
The publisher of the events of the service, and of the application that embeds it.
"""


class Router:
    """
    Publishes events: numbers, encodes and logs them, and gives them to the subscribers of their channels and of
    C{global}.

    @ivar draining: the service stops, and accepts no events of clients any more.
    @ivar published: events published since the start.
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
        log: MemoryLog,
        ephemeral: Ephemeral,
        catch_up: CatchUp,
    ) -> None:
        self._wall_ms = world.wall_ms
        self._prefix = event_prefix(world)
        self._mirror_clients = rules.mirror_clients
        self._max_depth = rules.max_depth
        self._too_deep = counts.limits.max_depth.add
        self._counts = counts.events
        self._channels = channels
        self._observers = clients.observers
        self._strangers = clients.strangers
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
        self.draining = False
        self.published = 0

    def announce(self, channel: Channel, event: str, data: object) -> str:
        """
        Publish an event of the service's own; return its id.
        """
        data, now_ms = to_json(data), self._wall_ms()
        return self._publish(self._counts.service, channel, event, data, now_ms, channel.name, SERVICE).id

    def publish(
        self, channel: Channel, event: str, data: bytes, sender: bytes = b"", publisher: str | None = None
    ) -> Published:
        """
        Publish a client's event.

        @param data: JSON, UTF-8.
        @param sender: who publishes it, made by L{from_field}; empty for a client that has not authenticated.
        @param publisher: the agent, who pays for the event's room in the log; None without one.
        @raise ProtocolError: C{NOT_AVAILABLE}: the event would be in no log when the service is gone.
        """
        if self.draining:
            raise ProtocolError(ErrorCode.NOT_AVAILABLE, "The server is about to stop; publish again after a reconnect")
        counts, mirror = self._counts.client, self._mirror_clients
        return self._publish(
            counts, channel, event, data, self._wall_ms(), channel.name, publisher or ANONYMOUS, sender, mirror
        )

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
        return self._publish(
            self._counts.database,
            channel,
            notification.event,
            data,
            self._wall_ms() if timestamp is None else timestamp,
            # the name as it was given: one that fits no channel makes it an event of global
            notification.channel,
            _DATABASE,
        ).id

    def _publish(
        self,
        counts: dict[str, int],
        channel: Channel,
        event: str,
        data: bytes,
        timestamp: int,
        named: str,
        publisher: str,
        sender: bytes = b"",
        mirror: bool = True,
    ) -> Published:
        """
        @param counts: the events of the same source, by category.
        @param named: the channel's name as it was given; if that is private, strangers do not receive the event.
        @param mirror: C{global} carries the event, too, if it carries the events of its channel.
        """
        self.published = seq = self.published + 1
        event_id = f"{self._prefix}{seq}"
        category, tracked, logged, subject_of = self._kind_of(event)
        members = self._members
        listeners = members(channel.name)
        mirrored = channel.mirrored and mirror
        everyone = members(_GLOBAL) if mirrored else _NOBODY
        if self._strangers and is_private(named):
            listeners, everyone = listeners - self._strangers, everyone - self._strangers
        frame = b""
        pos = 0
        if logged:
            entry = self._log.append(event_id, channel, event, data, timestamp, sender, mirrored, tracked, publisher)
            pos, frame = entry.pos, entry.frame
            if self._behind:
                # they get it from the log, in its order
                listeners, everyone = listeners - self._behind, everyone - self._behind
        elif listeners or everyone:
            frame = event_frame(event_id, channel.json, event, data, timestamp, sender)
        copy = mirror_frame(frame, event_id, channel.json) if everyone else b""
        counts[category] += 1
        self._counts.audiences[len(listeners) + len(everyone)] += 1
        if tracked:
            self._deliver(pos, event_id, listeners, frame, everyone, copy)
        elif subject_of is not None:
            subject = f"{event} {subject_of(data)}"
            for session in listeners:
                session.peer.offer(f"{channel.name} {subject}", frame)
            for session in everyone:
                session.peer.offer(f"global {subject}", copy)
        else:
            for session in listeners:
                session.peer.send(frame)
            for session in everyone:
                session.peer.send(copy)
        return Published(event_id, pos)

    def _deliver(
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
