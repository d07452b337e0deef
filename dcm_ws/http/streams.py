"""
C{GET /v1/streams/CHANNEL}: the log of a channel as a stream of JSON messages, with the read path of Durable Streams 1.0
(docs/http-streams.md).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.web.server import NOT_DONE_YET, Request

from dcm_ws.core.hub import Hub
from dcm_ws.core.readers import Batch, FullError, GapError, Place, Readers, not_available
from dcm_ws.core.session import Session, State
from dcm_ws.http.admission import RefusedError
from dcm_ws.http.api import ApiPage, Gate
from dcm_ws.http.encodings import Encodings
from dcm_ws.http.event_source import EVENT_STREAM, PASSING, TOO_MANY_CONNECTIONS, comes_back, is_event_source
from dcm_ws.http.event_stream import EventStream, EventStreams
from dcm_ws.http.page_reader import PageReader
from dcm_ws.http.refusals import error_body
from dcm_ws.http.stream_query import Mode, StreamQuery, read_query
from dcm_ws.http.turns import Turns
from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.cursors import next_cursor
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.offsets import NOW
from dcm_ws.protocol.sse import gap_event

PAGES_A_TURN = 32
"""
Long polls that are answered in one turn of the reactor.
"""

_READ_SECONDS = 20.0
_COLUMNS = "Authorization, Origin, Accept"


class StreamParts(NamedTuple):
    """
    What the page reads streams with.

    @ivar polls: the long polls that wait.
    @ivar long_poll: seconds that a long poll waits.
    @ivar chance: returns that many random base-36 characters.
    """

    channels: Channels
    readers: Readers
    hub: Hub
    streams: EventStreams
    polls: set[PageReader]
    clock: Any
    chance: Callable[[int], str]
    long_poll: float


class StreamPage(ApiPage):
    """
    The streams of all channels, each below this page under its name.
    """

    isLeaf = True

    def __init__(self, wall_ms: Callable[[], int], gate: Gate, parts: StreamParts) -> None:
        super().__init__(wall_ms, gate)
        self._parts = parts
        self._readers = parts.readers
        self._encodings = Encodings(wall_ms)
        self._turns = Turns(parts.clock, PAGES_A_TURN)

    def answer_call(self, request: Request, session: Session) -> bytes | int | Deferred[bytes | int]:
        request.setHeader("Vary", _COLUMNS)
        request.setHeader("X-Content-Type-Options", "nosniff")
        request.setHeader("Cross-Origin-Resource-Policy", "same-origin")
        try:
            query = read_query(request, self._parts.channels)
        except ProtocolError as error:
            if error.code is ErrorCode.INVALID_CHANNEL:
                raise RefusedError(HTTPStatus.NOT_FOUND, error.code, error.reason) from None
            raise
        if not self._readers.is_ahead(query.offset):
            return self._answer(request, session, query, True)
        there: Deferred[bool] = Deferred()
        self._readers.reach(query.offset, there.callback)
        return there.addCallback(partial(self._answer, request, session, query))

    def _answer(self, request: Request, session: Session, query: StreamQuery, is_there: bool) -> bytes | int:
        """
        @param is_there: the log is here as far as the offset, or it is not that long.
        """
        if session.state is State.CLOSED:
            # the client is gone
            return NOT_DONE_YET
        try:
            if not is_there:
                raise not_available()
            if request.method == b"HEAD":
                # an offset does not matter: it says where the stream ends
                return self._describe(request, self._readers.find(session, query.channel, NOW))
            place = self._readers.find(session, query.channel, query.offset)
        except GapError as gap:
            if query.is_browser:
                return self._stream(request, session, query, Place(gap.oldest, True), gap)
            return self._gone(request, gap)
        if query.mode.is_stream:
            return self._stream(request, session, query, place)
        return self._page(request, session, query, place)

    def release(self, session: Session) -> None:
        peer = session.peer
        if isinstance(peer, PageReader):
            peer.stop()
            self._parts.polls.discard(peer)
            self._parts.hub.disconnect(session)
        elif not isinstance(peer, EventStream):
            super().release(session)

    def _describe(self, request: Request, place: Place) -> int:
        request.setHeader("Content-Type", "application/json")
        request.setHeader("Cache-Control", "no-store")
        request.setHeader("Stream-Next-Offset", str(place.offset))
        # without a Content-Length, which would have to be that of GET
        request.finish()
        return NOT_DONE_YET

    def refuse(self, request: Request, error: ProtocolError | RefusedError) -> bytes:
        accept = b",".join(request.requestHeaders.getRawHeaders(b"Accept", [])).decode("iso-8859-1")
        if error.code not in PASSING or not is_event_source(request.method, request.uri, accept):
            return super().refuse(request, error)
        request.setHeader("Content-Type", EVENT_STREAM)
        request.setHeader("Cache-Control", "no-store")
        if isinstance(error, RefusedError):
            return comes_back(error.code, error.reason)
        self.gate.callers.refused(error)
        return comes_back(error.code, error.reason, error.retry_after_ms)

    def _gone(self, request: Request, gap: GapError) -> bytes:
        """
        The log does not have what comes after the offset.
        """
        status, oldest = HTTPStatus.GONE, str(gap.oldest)
        request.setResponseCode(status.value, status.phrase.encode())
        request.setHeader("Stream-Next-Offset", oldest)
        reason = f"The log does not have what follows this offset ({gap.reason}); the oldest offset is {oldest}"
        return self._as_json(
            request, error_body(status, reason, self.wall_ms(), gap={"reason": gap.reason, "oldest": oldest})
        )

    def _enter(
        self, session: Session, query: StreamQuery, place: Place, peer: PageReader | EventStream, *, stays: bool
    ) -> None:
        """
        Make the caller a reader.

        @param peer: the far end of its session from now on.
        """
        caller, session.peer = session.peer, peer
        try:
            self._readers.enter(session, query.channel, place, stays=stays)
        except FullError:
            session.peer = caller
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE, TOO_MANY_CONNECTIONS, "Too many connections; try again later"
            ) from None

    # pages and long polls

    def _page(self, request: Request, session: Session, query: StreamQuery, place: Place) -> bytes | int:
        is_poll = query.mode is Mode.LONG_POLL
        if query.offset is NOW and not is_poll:
            return self._answer_page(request, session, query, Batch([], place.offset, True))
        reader = PageReader(
            self._parts.clock,
            self._turns,
            self._readers,
            place,
            waits=is_poll,
            ended=partial(self._ended, request, session, query),
        )
        self._enter(session, query, place, reader, stays=is_poll)
        if is_poll:
            self._parts.polls.add(reader)
        reader.begin(self._parts.long_poll if is_poll else _READ_SECONDS)
        return NOT_DONE_YET

    def _ended(self, request: Request, session: Session, query: StreamQuery, batch: Batch | None) -> None:
        self._parts.hub.disconnect(session)
        if batch is None:
            body = self._unread(request, session, query)
        else:
            body = self._answer_page(request, session, query, batch)
        if request.code not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            request.setHeader("Content-Length", str(len(body)))
        request.write(body)
        request.finish()

    def _unread(self, request: Request, session: Session, query: StreamQuery) -> bytes:
        """
        Events were lost before they could be read, or could not be read in time.
        """
        try:
            self._readers.find(session, query.channel, query.offset)
        except GapError as gap:
            return self._gone(request, gap)
        except ProtocolError as refusal:
            return self.refuse(request, refusal)
        return self.refuse(request, not_available())

    def _answer_page(self, request: Request, session: Session, query: StreamQuery, batch: Batch) -> bytes:
        is_poll = query.mode is Mode.LONG_POLL
        request.setHeader("Stream-Next-Offset", str(batch.next))
        if batch.is_last:
            request.setHeader("Stream-Up-To-Date", "true")
        if is_poll:
            cursor = next_cursor(self.wall_ms(), query.cursor, self._parts.chance)
            request.setHeader("Stream-Cursor", str(cursor))
            if not batch.messages:
                request.setHeader("Cache-Control", "no-store")
                request.setResponseCode(HTTPStatus.NO_CONTENT, b"No Content")
                return b""
        request.setHeader("Content-Type", "application/json")
        if query.offset is NOW:
            request.setHeader("Cache-Control", "no-store")
        else:
            request.setHeader("Cache-Control", _cache_control(session, batch, is_poll=is_poll))
            start = query.offset.pos if query.offset.epoch else -1
            if request.setETag(f'"{batch.next.epoch}:{start}:{batch.next.pos}"'.encode()) is not None:
                return b""
        return b"[" + b",".join(json for _, json in batch.messages) + b"]"

    # event streams

    def _stream(
        self, request: Request, session: Session, query: StreamQuery, place: Place, gap: GapError | None = None
    ) -> int:
        parts = self._parts
        channel: Any = request.channel
        address = self.gate.address(request)
        if parts.streams.share.refuses(address):
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                TOO_MANY_CONNECTIONS,
                f"Too many connections from your address: the limit is {parts.streams.share.per_address}",
            )
        chunked = request.clientproto == b"HTTP/1.1"
        encoding = self._encodings.get(
            place.offset.epoch,
            plain=query.mode is Mode.MESSAGES,
            chunked=chunked,
            cursor=next_cursor(self.wall_ms(), query.cursor, parts.chance) if query.cursor else 0,
        )
        stream = EventStream(parts.streams, session, encoding, place, address)
        self._enter(session, query, place, stream, stays=True)
        head = _stream_head(request, chunked=chunked)
        if gap is not None:
            head += encoding.before(gap_event(gap.reason, str(gap.oldest)))
        channel.give_away(stream)
        stream.begin(head)
        return NOT_DONE_YET


def _cache_control(session: Session, batch: Batch, *, is_poll: bool) -> str:
    """
    A page that is not the last one never changes; others do, and a cache has to ask.
    """
    claims = session.origin.agent_id is not None or session.agent is not None
    scope = "private" if claims else "public"
    if batch.is_last and not is_poll:
        return f"{scope}, no-cache"
    return f"{scope}, max-age=60, stale-while-revalidate=300"


def _stream_head(request: Request, *, chunked: bool) -> bytes:
    request.setHeader("Content-Type", EVENT_STREAM)
    request.setHeader("Cache-Control", "no-cache, no-transform")
    # nginx would hold back what it has read until its buffer is full
    request.setHeader("X-Accel-Buffering", "no")
    request.setHeader("Connection", "close")
    if chunked:
        request.setHeader("Transfer-Encoding", "chunked")
    lines = [b"HTTP/1.1 200 OK"]
    for name, values in request.responseHeaders.getAllRawHeaders():
        lines += [name + b": " + value for value in values]
    return b"\r\n".join(lines) + b"\r\n\r\n"
