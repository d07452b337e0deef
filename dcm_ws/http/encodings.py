"""
Messages of streams as server-sent events, encoded once for all readers of the same kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from weakref import WeakValueDictionary

from dcm_ws.core.readers import Batch
from dcm_ws.protocol.cursors import present_cursor
from dcm_ws.protocol.frames import PING_FRAME
from dcm_ws.protocol.offsets import Offset
from dcm_ws.protocol.replies import logged_event
from dcm_ws.protocol.sse import (
    HEARTBEAT,
    LAST_CHUNK,
    chunk,
    control_event,
    data_event,
    message_event,
    place_event,
    retry_field,
)

RETRY_MS = 1000
"""
How long a browser waits before it reconnects, if nothing else is said.
"""

_RESTART_MS = 3000

_heartbeat_place = re.compile(rb'"epoch":"([^"]*)","pos":([0-9]+)\}')


class Encoding:
    """
    Makes events of messages, and remembers the last one: an event goes to all readers of a channel in one loop.

    @param epoch: of the log.
    @param plain: for an C{EventSource} that reads messages, and not for a Durable Streams client.
    @param chunked: the response has C{Transfer-Encoding: chunked}.
    @param cursor: the smallest cursor that the readers may get.
    @param wall_ms: ms since the epoch.

    @ivar greeting: what a stream begins with.
    """

    __slots__ = ("__weakref__", "_chunked", "_cursor", "_epoch", "_event", "_frame", "_plain", "_wall_ms", "greeting")

    def __init__(self, epoch: str, *, plain: bool, chunked: bool, cursor: int = 0, wall_ms: Callable[[], int]) -> None:
        self._epoch = epoch
        self._plain = plain
        self._chunked = chunked
        self._cursor = cursor
        self._wall_ms = wall_ms
        self._frame = self._event = b""
        self.greeting = self._framed(retry_field(RETRY_MS))

    def of_frame(self, frame: bytes) -> bytes:
        """
        What a reader that has everything gets of a frame of its session; nothing if that is not a logged event, nor a
        heartbeat.
        """
        if frame is not self._frame:
            self._frame, self._event = frame, self.encode(frame, up_to_date=True)
        return self._event

    def encode(self, frame: bytes, *, up_to_date: bool) -> bytes:
        """
        The same for any reader.

        @param up_to_date: it has everything.
        """
        pos, json = logged_event(frame)
        if pos:
            offset = str(Offset(self._epoch, pos))
            if self._plain:
                return self._framed(message_event(json, offset))
            return self._framed(data_event((json,), offset) + self._control(offset, up_to_date=up_to_date))
        if frame.startswith(PING_FRAME):
            found = _heartbeat_place.search(frame)
            if found is not None:
                place = Offset(found.group(1).decode(), int(found.group(2)))
                return self._framed(HEARTBEAT + self._place(str(place), up_to_date=up_to_date))
        return b""

    def of_batch(self, batch: Batch) -> bytes:
        """
        What a reader that catches up gets.
        """
        offset = str(batch.next)
        if self._plain:
            events = [message_event(json, str(Offset(self._epoch, pos))) for pos, json in batch.messages]
            return self._framed(b"".join(events) + place_event(offset))
        events = [data_event((json for _, json in batch.messages), offset)] if batch.messages else []
        return self._framed(b"".join(events) + self._control(offset, up_to_date=batch.is_last))

    def place(self, offset: Offset, *, up_to_date: bool) -> bytes:
        """
        How far a reader is.
        """
        return self._framed(self._place(str(offset), up_to_date=up_to_date))

    def _place(self, offset: str, *, up_to_date: bool) -> bytes:
        return place_event(offset) if self._plain else self._control(offset, up_to_date=up_to_date)

    def _control(self, offset: str, *, up_to_date: bool) -> bytes:
        return control_event(offset, max(self._cursor, present_cursor(self._wall_ms())), up_to_date=up_to_date)

    def before(self, event: bytes) -> bytes:
        """
        An event that comes before all others.
        """
        return self._framed(event)

    def farewell(self, chance: int) -> bytes:
        """
        What a stream ends with.  Its readers come back at different times.

        @param chance: any number.
        """
        end = self._framed(retry_field(RETRY_MS // 2 + chance % _RESTART_MS))
        return end + LAST_CHUNK if self._chunked else end

    def _framed(self, events: bytes) -> bytes:
        return chunk(events) if self._chunked else events


class Encodings:
    """
    The encodings that are in use.
    """

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self._wall_ms = wall_ms
        self._known: WeakValueDictionary[tuple[str, bool, bool, int], Encoding] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, epoch: str, *, plain: bool, chunked: bool, cursor: int) -> Encoding:
        """
        The encoding for a reader, the same for all readers of a kind.

        @param cursor: the smallest one that the reader may get; if it is not beyond the present one, it does not count.
        """
        if plain or cursor <= present_cursor(self._wall_ms()):
            cursor = 0
        key = epoch, plain, chunked, cursor
        encoding = self._known.get(key)
        if encoding is None:
            encoding = self._known[key] = Encoding(
                epoch, plain=plain, chunked=chunked, cursor=cursor, wall_ms=self._wall_ms
            )
        return encoding
