"""
A response that goes on: the events of a channel, as they come, for one client (server-sent events).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from dcm_ws.core.counts import Counts
from dcm_ws.core.hub import Hub
from dcm_ws.core.readers import Batch, Place, Readers
from dcm_ws.core.session import Session
from dcm_ws.http.encodings import Encoding
from dcm_ws.http.pacing import Pacing
from dcm_ws.http.sending import Sending
from dcm_ws.http.shares import Share
from dcm_ws.http.transport import is_plain_tcp, read_at_most, unacknowledged
from dcm_ws.protocol.errors import CloseCode

BATCH_MESSAGES = 100
"""
Messages of one event, at most, for a client that catches up.
"""

BATCH_BYTES = 64 << 10
"""
Bytes of messages after which there are no more in such an event.
"""

IGNORED_BYTES = 4 << 10
"""
Bytes that a client may send after its request, although nobody reads them.
"""

_READ_AT_ONCE = 4 << 10


class EventStreams:
    """
    All event streams of the service.

    @param send_buffer: bytes that may wait for a client to read them.
    @param share: counts them, together with WebSockets.
    @param chance: returns that many random base-36 characters.
    """

    def __init__(
        self,
        hub: Hub,
        readers: Readers,
        counts: Counts,
        *,
        pacing: Pacing,
        share: Share,
        send_buffer: int,
        chance: Callable[[int], str],
    ) -> None:
        self.hub = hub
        self.readers = readers
        self.counts = counts
        self.pacing = pacing
        self.share = share
        self.send_buffer = send_buffer
        self.chance = chance
        self._open: set[EventStream] = set()

    def __len__(self) -> int:
        return len(self._open)

    def __bool__(self) -> bool:
        return True

    def opened(self, stream: EventStream) -> None:
        """
        A stream begins to count.
        """
        self._open.add(stream)
        self.share.enter(stream.address)

    def lost(self, stream: EventStream) -> None:
        """
        The transport of a stream is closed.
        """
        if stream in self._open:
            self._open.remove(stream)
            self.share.leave(stream.address)
        self.pacing.forget(stream)

    def abort(self) -> None:
        """
        Drop all streams that are still open.
        """
        for stream in list(self._open):
            stream.drop()


class EventStream(Sending, Protocol):
    """
    The L{Peer<dcm_ws.core.ports.Peer>} of a reader that stays, and its connection, from the response head on.

    @param encoding: makes events of messages.
    @param place: where the reader begins.
    @param address: that of the client.
    """

    _direct = False
    _ignored = 0

    def __init__(self, streams: EventStreams, session: Session, encoding: Encoding, place: Place, address: str) -> None:
        super().__init__()
        self._streams = streams
        self._session: Session | None = session
        self._encoding = encoding
        self._place = place
        self._pacing = streams.pacing
        self._send_buffer = streams.send_buffer
        self._limits = streams.counts.limits
        self._sent = streams.counts.sent
        self._is_closed = False
        self.address = address

    # the connection

    def begin(self, head: bytes) -> None:
        """
        The connection is this stream's now.

        @param head: the head of the response.
        """
        read_at_most(self.transport, _READ_AT_ONCE)
        self._direct = is_plain_tcp(self.transport)
        self._streams.opened(self)
        greeting = head + self._encoding.greeting
        if self._replay is None:
            greeting += self._encoding.place(self._streams.readers.next_of(self._place, []), up_to_date=True)
        super().send(greeting)

    def dataReceived(self, data: bytes) -> None:
        """
        Ignore what the client sends: the response says that the connection ends with it.
        """
        self._ignored += len(data)
        if self._ignored > IGNORED_BYTES and self._session is not None:
            self._limits.max_ignored.add()
            self._streams.hub.close(self._session, CloseCode.TOO_BIG)
            self.drop()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._direct = False
        self._is_closed = True
        self.discard_queue()
        self.discard_waiting()
        session, self._session = self._session, None
        hub = self._streams.hub
        if session is not None and not self._pacing.releases.do(lambda: hub.disconnect(session)):
            hub.leave(session)
        self._streams.lost(self)

    def drop(self) -> None:
        """
        Drop the connection.
        """
        self.transport.abortConnection()

    # the Peer of the session

    def send(self, frame: bytes) -> None:
        behind = self._replay is not None
        event = self._encoding.encode(frame, up_to_date=False) if behind else self._encoding.of_frame(frame)
        if event:
            super().send(event)

    def offer(self, name: str, frame: bytes) -> None:
        """
        Events of which only the latest matters are not logged.
        """

    def replay(self, frames: Iterator[bytes | None]) -> None:
        batches = self._streams.readers.batches(frames, self._place, most=BATCH_MESSAGES, most_bytes=BATCH_BYTES)
        super().replay(self._events(batches))

    def _events(self, batches: Iterator[Batch | bool | None]) -> Iterator[bytes | None]:
        for batch in batches:
            if batch is None:
                # its offset is not good any more, and it learns that when it comes back with it
                self._pacing.later(self._end)
                return
            yield (None if batch else b"") if isinstance(batch, bool) else self._encoding.of_batch(batch)

    def _end(self) -> None:
        if self._session is not None:
            self._streams.hub.close(self._session, CloseCode.RESTART)

    def has_unread(self) -> bool:
        """
        True if the far end has acknowledged all that it was sent: it says nothing by itself.
        """
        return not unacknowledged(self.transport)

    def close(self, code: CloseCode) -> None:
        if self._is_closed:
            return
        if code is CloseCode.TOO_SLOW:
            self.discard_queue()
        self.discard_waiting()
        if code is not CloseCode.TOO_SLOW:
            super().send(self._encoding.farewell(int(self._streams.chance(4), 36)))
        self.finish_writing()
        self._direct = False
        self._is_closed = True
        self.transport.loseConnection()
        self._pacing.abort_later(self.transport)

    def too_slow(self) -> None:
        if self._session is not None:
            self._streams.hub.close(self._session, CloseCode.TOO_SLOW)

    def write_slowly(self, data: bytes) -> bool:
        if self._is_closed:
            return True
        self.transport.write(data)
        return False

    def trust(self) -> None: ...

    def stop_reading(self) -> None: ...

    def read_on(self) -> None: ...
