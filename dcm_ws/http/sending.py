"""
What is sent to a client: a queue that is written once per turn of the reactor, and what waits until the client reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dcm_ws.core.counts import LimitCounts, Sent
from dcm_ws.http.pacing import Pacing
from dcm_ws.http.transport import join_last_writes, send_now, unsent

_FLUSH_AT = 64 << 10
_REPLAY_CHUNK = 256 << 10
_PART_BYTES = 64 << 10
_PART_FRAMES = 128
_LATEST_MAX = 1000
_PIECES = 4


class Sending:
    """
    The sending half of a connection: a WebSocket, or an HTTP response that goes on.

    It is a base class of the connection and not an object of its own: the connection is the peer of a session, and to
    hand each event on to another object would take one call more per event and client, and 130 bytes per connection.
    """

    transport: Any
    #: bytes may go to the socket at once: plain TCP, nothing to be done to them before, and open
    _direct: bool
    #: these are shared by all connections of a kind, as attributes of the class
    _pacing: Pacing
    _send_buffer: int
    _limits: LimitCounts
    _sent: Sent

    _replay: Iterator[bytes | None] | None = None
    #: by subject, in the order in which they came
    _latest: dict[str, bytes] | None = None
    _latest_size = 0
    #: writes that the transport holds one by one, because it waits for the far end
    _pieces = 0

    def __init__(self) -> None:
        super().__init__()
        self._outgoing: list[bytes] = []
        self._queued = 0

    def too_slow(self) -> None:
        """
        More is waiting than the client may leave unread.
        """
        raise NotImplementedError

    def write_slowly(self, data: bytes) -> bool:
        """
        Write what may not go to the socket at once; return True if nothing is left waiting.
        """
        raise NotImplementedError

    # the Peer of a session

    def send(self, frame: bytes) -> None:
        outgoing = self._outgoing
        if not outgoing:
            self._pacing.touch(self)
        outgoing.append(frame)
        self._queued += len(frame)
        if self._queued > _FLUSH_AT:
            self._write_queue()

    def offer(self, name: str, frame: bytes) -> None:
        waiting = self._queued + unsent(self.transport)
        if self._latest is None:
            if waiting <= self._send_buffer // 4:
                self.send(frame)
                return
            self._latest = {}
            self._latest_size = 0
            self._pacing.look_after(self)
        self._limits.shed.add()
        latest = self._latest
        self._latest_size += len(frame) - len(latest.pop(name, b""))
        latest[name] = frame
        room = self._send_buffer - waiting
        while latest and (self._latest_size > room or len(latest) > _LATEST_MAX):
            self._latest_size -= len(latest.pop(next(iter(latest))))
            self._limits.latest_dropped.add()

    def replay(self, frames: Iterator[bytes | None]) -> None:
        self._write_queue()
        self._replay = frames
        self._pacing.look_after(self)
        self._pacing.go_on(self)

    def go_on(self) -> None:
        self._pacing.go_on(self)

    def has_unsent(self) -> bool:
        if self._queued > self._chunk:
            # the socket may take it
            self._write_queue()
        return self._queued + unsent(self.transport) > self._chunk

    # writing

    def flush(self) -> None:
        """
        Write what is queued, and check that not too much is waiting.
        """
        outgoing = self._outgoing
        if len(outgoing) == 1 and self._direct:
            # nearly every flush at low rates, without further calls
            data = outgoing.pop()
            self._queued = 0
            self._sent.bytes += len(data)
            sent = send_now(self.transport, data)
            if sent == len(data):
                return
            self._write_rest(data, sent)
        elif self._write_queue():
            return
        if unsent(self.transport) > self._send_buffer:
            self.too_slow()

    def _write_queue(self) -> bool:
        """
        Write what is queued; return True if nothing is left waiting.
        """
        outgoing = self._outgoing
        if not outgoing:
            # what was written before in this turn may be waiting
            return not unsent(self.transport)
        data = b"".join(outgoing) if len(outgoing) > 1 else outgoing[0]
        outgoing.clear()
        self._queued = 0
        return self._write(data)

    def _write(self, data: bytes) -> bool:
        """
        Write whole frames; return True if nothing is left waiting.
        """
        self._sent.bytes += len(data)
        if self._direct:
            sent = send_now(self.transport, data)
            if sent == len(data):
                return True
            self._write_rest(data, sent)
            return False
        return self.write_slowly(data)

    def _write_rest(self, data: bytes, sent: int) -> None:
        """
        Give the transport what L{send_now} has left.
        """
        if sent < 0:
            self._keep_together()
        else:
            data = data[sent:]
        self.transport.write(data)

    def _keep_together(self) -> None:
        """
        Join the writes that wait in the transport, some at a time.  Many objects of some kilobytes, between others that
        come and go, would leave holes of a sixth of their size in the heap (docs/decisions/0014).
        """
        self._pieces += 1
        if self._pieces == _PIECES:
            self._pieces = 0
            join_last_writes(self.transport, _PIECES)

    def discard_queue(self) -> None:
        """
        Discard what is queued.
        """
        self._outgoing.clear()
        self._queued = 0

    def finish_writing(self) -> None:
        self._write_queue()

    def discard_waiting(self) -> None:
        """
        Discard what waits until the client has read the rest.
        """
        self._replay = self._latest = None

    # clients that are behind

    def _refill(self) -> bool:
        """
        Write the next part of the replay; return True if there may be more at once.
        """
        self._write_queue()
        part: list[bytes] = []
        size, most = 0, min(_PART_BYTES, self._chunk)
        more = True
        assert self._replay is not None
        for frame in self._replay:
            if not frame:
                more = frame is None
                break
            part.append(frame)
            size += len(frame)
            if size >= most or len(part) == _PART_FRAMES:
                break
        else:
            self._replay = None
        if part:
            self._write(b"".join(part))
        return more

    @property
    def _chunk(self) -> int:
        """
        Bytes of a replay, and of what is sent again, that wait for the client to read them: well below what may wait in
        all.
        """
        return min(_REPLAY_CHUNK, self._send_buffer // 8)

    @property
    def behind(self) -> bool:
        """
        Does something wait until the client has read the rest?
        """
        return self._replay is not None or self._latest is not None

    def catch_up(self) -> None:
        """
        Send the next part of what waits until the client has read the rest.
        """
        if not self.behind:
            return
        if unsent(self.transport) > self._chunk:
            return
        if self._replay is not None:
            if self._refill():
                self._pacing.go_on(self)
            return
        latest = self._latest or {}
        # all at once might be too much to wait
        while latest and self._queued + unsent(self.transport) <= self._chunk:
            frame = latest.pop(next(iter(latest)))
            self._latest_size -= len(frame)
            self.send(frame)
            self._write_queue()
        if not latest:
            self._latest = None
        self._write_queue()
