"""
Readers of the stream of a channel over HTTP: sessions that get its logged events from a place on, and nothing else
(docs/http-streams.md).

A reader is an observer that is subscribed to one channel, and catches up like any client that resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from dcm_ws.core.catchup import CatchUp
from dcm_ws.core.clients import Clients
from dcm_ws.core.counts import Counts
from dcm_ws.core.liveness import Liveness
from dcm_ws.core.ports import Log
from dcm_ws.core.registry import ChannelRegistry
from dcm_ws.core.rights import demand_right_to_listen
from dcm_ws.core.session import Session
from dcm_ws.protocol.channels import Channel
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.offsets import BEGINNING, NOW, Offset
from dcm_ws.protocol.replies import logged_event

_STEP = 1024


class GapError(Exception):
    """
    The log does not have, or not any more, what comes after an offset.

    @ivar reason: as in L{Gap<dcm_ws.protocol.replies.Gap>}.
    @ivar oldest: from here on the log has everything.
    """

    def __init__(self, reason: str, oldest: Offset) -> None:
        super().__init__(reason, oldest)
        self.reason = reason
        self.oldest = oldest


class FullError(Exception):
    """
    There is no room for another reader that stays.
    """


def not_available() -> ProtocolError:
    """
    The refusal of a reader that has to come again.
    """
    error = ProtocolError(ErrorCode.NOT_AVAILABLE, "The log cannot be read now; try again")
    error.retry_after_ms = 1000
    return error


class Message(NamedTuple):
    """
    An event of a stream.

    @ivar json: the event as a subscriber of the channel gets it.
    """

    pos: int
    json: bytes


class Batch(NamedTuple):
    """
    What a reader gets next.

    @ivar messages: may be empty.
    @ivar next: the place behind them.
    @ivar is_last: there is nothing more at the moment.
    """

    messages: list[Message]
    next: Offset
    is_last: bool


class Place(NamedTuple):
    """
    Where a reader begins.

    @ivar is_exact: it was not asked for by its position, but as the beginning or the end of the log.
    """

    offset: Offset
    is_exact: bool


class Readers:
    """
    Lets readers in, and makes batches of what they get.

    @param has_room: returns if there is room for another connection.
    """

    def __init__(
        self,
        counts: Counts,
        *,
        clients: Clients,
        registry: ChannelRegistry[Session],
        log: Log,
        liveness: Liveness,
        catch_up: CatchUp,
        has_room: Callable[[], bool],
    ) -> None:
        self._counts = counts
        self._clients = clients
        self._registry = registry
        self._log = log
        self._liveness = liveness
        self._catch_up = catch_up
        self._has_room = has_room

    @property
    def tail(self) -> Offset:
        """
        The place behind everything that is in the log.

        @raise ProtocolError: C{NOT_AVAILABLE}: it is not known yet which log there is.
        """
        if not self._log.is_known:
            raise not_available()
        return Offset(self._log.epoch, self._log.head)

    def is_ahead(self, offset: Offset) -> bool:
        """
        Is an offset beyond what this node has of the log?  Another node may have been further.
        """
        return offset.pos > self._log.head and offset.epoch == self._log.epoch

    def reach(self, offset: Offset, ready: Callable[[bool], object]) -> None:
        """
        Wait until the log is here as far as such an offset, or it is known that it is not that long.

        @param ready: called once, within about a second, and maybe before this returns; with false if the log could not
            be read so far.
        """
        self._log.reach(offset.pos, ready)

    def find(self, session: Session, channel: Channel, offset: Offset) -> Place:
        """
        Find the place at which C{session} begins to read.

        @raise ProtocolError: it may not read this channel, or the log is not available.
        @raise GapError: the log does not have what comes after C{offset}.
        """
        demand_right_to_listen(session, channel)
        tail, log = self.tail, self._log
        if offset is NOW:
            return Place(tail, True)
        if offset is BEGINNING:
            return Place(self._oldest(channel, 0), True)
        gap = self._catch_up.gap(offset.epoch, offset.pos, {channel.name: offset.pos})
        if gap is None:
            return Place(offset, False)
        if gap.reason == "ahead":
            raise GapError(gap.reason, tail)
        raise GapError(gap.reason, self._oldest(channel, offset.pos if offset.epoch == log.epoch else 0))

    def _oldest(self, channel: Channel, after: int) -> Offset:
        return Offset(self._log.epoch, max(after, self._log.lost_after(after, {channel.name: after})))

    def enter(self, session: Session, channel: Channel, place: Place, *, stays: bool) -> None:
        """
        Subscribe C{session} to C{channel} from C{place} on.  Its peer gets what the log has as a replay, if there is
        anything, and then the frames of new events.

        @param stays: it is a connection that lasts: it counts for the limit, and is checked like a WebSocket's.
        @raise FullError: there are too many of these.
        """
        if stays and not self._has_room():
            self._counts.limits.max_connections.add()
            raise FullError
        clients = self._clients
        clients.sessions.add(session)
        clients.observers.add(session)
        if session.is_stranger:
            clients.strangers.add(session)
        if session.agent is not None:
            clients.authenticated += 1
        self._registry.join(session, channel.name)
        if stays:
            self._counts.connections += 1
            self._liveness.watch(session)
            self._liveness.expect_expiry(session, session.expires_ms)
        if place.offset.pos < self._log.head:
            self._catch_up.begin(session, resumed={channel.name: place.offset.pos})

    def batches(
        self, frames: Iterator[bytes | None], place: Place, *, most: int, most_bytes: int
    ) -> Iterator[Batch | bool | None]:
        """
        Make batches of a replay, until there is nothing more at the moment.  In between it yields True if others should
        have their turn, and False if nothing has been read yet.

        @param frames: as in L{Peer.replay<dcm_ws.core.ports.Peer.replay>}.
        @param place: where the replay begins.
        @param most: messages of a batch.
        @param most_bytes: bytes after which there are no more in a batch.
        @return: it ends with None if events were lost before they could be read.
        """
        epoch = place.offset.epoch
        messages: list[Message] = []
        size = 0
        for frame in frames:
            if not frame:
                if messages:
                    yield Batch(messages, place.offset, False)
                    messages, size = [], 0
                yield frame is None
                continue
            pos, json = logged_event(frame)
            if not pos:
                # a gap: nothing else is in a replay
                yield None
                return
            messages.append(Message(pos, json))
            size += len(json)
            # unless more follows, it is the place of the last batch
            place = Place(Offset(epoch, pos), False)
            if size >= most_bytes or len(messages) == most:
                yield Batch(messages, place.offset, False)
                messages, size = [], 0
        yield Batch(messages, self.next_of(place, messages), True)

    def next_of(self, place: Place, messages: list[Message]) -> Offset:
        """
        The place of a reader that has everything that is in the log.

        Readers of one channel that have the same messages are usually at the same place, so that caches need not ask
        for each of them; but it goes on with the log, in steps, so that it is not too old in a channel with few events.

        @param place: where it began.
        @param messages: what it has got since.
        """
        epoch, head = place.offset.epoch, self._log.head
        if not messages and place.is_exact:
            return Offset(epoch, head)
        last = messages[-1].pos if messages else place.offset.pos
        return Offset(epoch, max(last, head - head % _STEP))
