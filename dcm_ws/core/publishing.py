"""
What clients publish, over WebSockets and over HTTP (protocol, sections 2, 10 and 12).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from msgspec import Raw, Struct

from dcm_ws.core.counts import SAMPLED, Counts
from dcm_ws.core.entries import Published
from dcm_ws.core.keys import PublishKeys
from dcm_ws.core.ports import Later, Log, World
from dcm_ws.core.rights import not_allowed_to_publish, not_authenticated
from dcm_ws.core.router import Router
from dcm_ws.core.rules import Rules
from dcm_ws.core.session import Session
from dcm_ws.core.together import Together
from dcm_ws.protocol.channels import Channel, Channels
from dcm_ws.protocol.errors import NO_REQUEST, ErrorCode, ProtocolError
from dcm_ws.protocol.events import Publishable, shortened
from dcm_ws.protocol.rawjson import check_data


class Checked(Struct, frozen=True, gc=False):
    """
    An event that its publisher may publish.

    @ivar data: JSON, UTF-8.
    @ivar key: under which it is published; empty without one.
    """

    channel: Channel
    event: str
    data: bytes
    key: str


class Publishing:
    """
    Publishes events for sessions, if they may and the events are valid.
    """

    def __init__(
        self,
        world: World,
        rules: Rules,
        counts: Counts,
        *,
        channels: Channels,
        publishable: Publishable,
        keys: PublishKeys,
        router: Router,
        log: Log,
    ) -> None:
        self._now = world.now
        self._max_depth = rules.max_depth
        self._received = counts.received
        self._too_deep = counts.limits.max_depth.add
        self._seconds = counts.publish_seconds
        self._parse_channel = channels.parse
        self._publishable = publishable
        self._keys = keys
        self._router = router
        self._log = log

    def publish(
        self,
        session: Session,
        channel: str,
        event: str,
        data: bytes | Raw,
        key: str | None = None,
        request: Raw = NO_REQUEST,
    ) -> Published:
        """
        Publish an event.  The parameters are those of L{check}, and so is what is raised.

        @return: what the log answers; it may still be waiting for that.
        @raise ProtocolError: C{NOT_AVAILABLE}: the log does not take the event.
        """
        received, data = self._received, bytes(data)
        parsed = self._checked_channel(session, channel, event, data, request)
        is_sample = received.publish % SAMPLED == 1
        began = self._now() if is_sample else 0.0
        try:
            if key:
                published = self._publish_once(session, Checked(parsed, event, data, key), self._router.publish)
            else:
                # what nearly all events are: no call more than it takes
                published = self._router.publish(parsed, event, data, session.sender, session.agent)
        except ProtocolError as error:
            error.request = request
            raise
        if is_sample:
            self._seconds.observe(self._now() - began)
        return published

    def check(
        self,
        session: Session,
        channel: str,
        event: str,
        data: bytes | Raw,
        key: str | None = None,
        request: Raw = NO_REQUEST,
    ) -> Checked:
        """
        Check an event, and the right of C{session} to publish it; publish nothing.

        @param channel: its name, which has not been checked.
        @param data: JSON, UTF-8.
        @param key: at most C{KEY_MAX} characters; an empty one counts as absent.
        @param request: the id of the request.
        @raise ProtocolError: C{NOT_AUTHORIZED}, C{INVALID_CHANNEL}, C{INVALID_EVENT} or C{INVALID_MESSAGE}.
        """
        data = bytes(data)
        return Checked(self._checked_channel(session, channel, event, data, request), event, data, key or "")

    def _checked_channel(self, session: Session, channel: str, event: str, data: bytes, request: Raw) -> Channel:
        """
        L{check}, and return the channel.
        """
        self._received.publish += 1
        if session.is_stranger:
            raise not_authenticated(request)
        try:
            parsed = self._parse_channel(channel)
        except ProtocolError as error:
            error.request = request
            raise
        if event not in self._publishable:
            raise ProtocolError(ErrorCode.INVALID_EVENT, f"Invalid event type: {shortened(event)}", request)
        if not session.rights.may_publish(parsed, event):
            raise not_allowed_to_publish(session.rights, event, request)
        try:
            check_data(data, self._max_depth, self._too_deep)
        except ProtocolError as error:
            raise ProtocolError(error.code, f"Invalid publish message: {error.reason}", request) from None
        return parsed

    def publish_all(self, session: Session, events: Sequence[Checked], later: Later) -> list[Published]:
        """
        Publish events that L{check} has allowed for C{session}: all of them, or none, apart from those that were
        published before with the same key.

        @param later: used if their delivery takes more than one turn.
        @return: what the log answers for each; they may still be waiting.
        @raise ProtocolError: C{NOT_AVAILABLE}: the service is about to stop.
        """
        self._router.demand_open()
        together = Together(self._router, self._log, later)
        published = [self._publish_once(session, checked, together.add) for checked in events]
        together.publish()
        return published

    def _publish_once(self, session: Session, checked: Checked, publish: Callable[..., Published]) -> Published:
        """
        @param publish: receives what L{Router.publish} receives.
        """
        channel, event, data = checked.channel, checked.event, checked.data
        if not checked.key:
            return publish(channel, event, data, session.sender, session.agent)
        # clients without an agent must not learn of each other's keys
        return self._keys.once(
            session.name, checked.key, partial(publish, channel, event, data, session.sender, session.agent)
        )
