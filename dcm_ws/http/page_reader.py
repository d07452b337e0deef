"""
A reader that gets one page of a stream: what the log has, or, in a long poll, what is published while it waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from dcm_ws.core.readers import Batch, Message, Place, Readers
from dcm_ws.http.turns import Turns
from dcm_ws.protocol.errors import CloseCode
from dcm_ws.protocol.replies import logged_event

PAGE_MESSAGES = 1000
"""
Messages of a page, at most.
"""

PAGE_BYTES = 256 << 10
"""
Bytes of messages after which a page ends.
"""

_LOOK_AGAIN = 0.05


class PageReader:
    """
    The L{Peer<dcm_ws.core.ports.Peer>} of the session of such a reader.

    @param clock: runs what has to wait.
    @param turns: spreads the responses over the reactor's turns, if many readers wait for the same event.
    @param place: where it begins.
    @param waits: it is a long poll.
    @param ended: called once, unless L{stop} is called before, with what it has got; with None if events were lost
        before they could be read, or nothing could be read in time.
    """

    def __init__(
        self,
        clock: Any,
        turns: Turns,
        readers: Readers,
        place: Place,
        *,
        waits: bool,
        ended: Callable[[Batch | None], object],
    ) -> None:
        self._clock = clock
        self._turns = turns
        self._readers = readers
        self._place = place
        self._waits = waits
        self._ended: Callable[[Batch | None], object] | None = ended
        self._batches: Iterator[Batch | bool | None] | None = None
        self._timer: Any = None
        self._later: Any = None
        self._messages: list[Message] = []
        self._size = 0
        self._waited = False

    def begin(self, seconds: float) -> None:
        """
        Read, or wait.

        @param seconds: time in which it ends, with what it has then.
        """
        self._timer = self._clock.callLater(seconds, self._time_is_up)
        if self._batches is None:
            self._at_end(Batch([], self._readers.next_of(self._place, []), True))
        else:
            self._read()

    def stop(self) -> None:
        """
        Nobody waits for the page any more.
        """
        self._ended = self._batches = None
        for call in (self._timer, self._later):
            if call is not None and call.active():
                call.cancel()

    # what the log has

    def replay(self, frames: Iterator[bytes | None]) -> None:
        self._batches = self._readers.batches(frames, self._place, most=PAGE_MESSAGES, most_bytes=PAGE_BYTES)

    def go_on(self) -> None:
        self._read_later(0)

    def _read_later(self, seconds: float) -> None:
        if self._later is not None and self._later.active():
            self._later.cancel()
        self._later = self._clock.callLater(seconds, self._read)

    def _read(self) -> None:
        batches = self._batches
        if batches is None:
            return
        batch = next(batches)
        if isinstance(batch, bool):
            self._read_later(0 if batch else _LOOK_AGAIN)
        elif batch is not None and batch.is_last:
            self._batches = None
            self._at_end(batch)
        else:
            self._end(batch)

    def _at_end(self, batch: Batch) -> None:
        if batch.messages or not self._waits:
            self._end(batch)
        else:
            self._waited = True

    # what is published while it waits

    def send(self, frame: bytes) -> None:
        pos, json = logged_event(frame)
        if not pos or self._ended is None or self._size >= PAGE_BYTES:
            return
        if not self._messages:
            self._clock.callLater(0, self._take_turn)
        self._messages.append(Message(pos, json))
        self._size += len(json)

    def _take_turn(self) -> None:
        self._turns.do(self._answer)

    def _answer(self) -> None:
        if self._messages:
            is_last = self._size < PAGE_BYTES
            place = self._readers.next_of(self._place, self._messages) if is_last else None
            last = self._place.offset._replace(pos=self._messages[-1].pos)
            self._end(Batch(self._messages, place or last, is_last))

    # how it ends

    def _time_is_up(self) -> None:
        if self._waited:
            self._end(Batch([], self._readers.next_of(self._place, []), True))
        else:
            self._end(None)

    def _end(self, batch: Batch | None) -> None:
        ended = self._ended
        self.stop()
        if ended is not None:
            ended(batch)

    def close(self, code: CloseCode) -> None:
        # not before this call returns
        self._clock.callLater(0, self._time_is_up)

    # what it does not need

    def offer(self, name: str, frame: bytes) -> None:
        """
        Events of which only the latest matters are not logged.
        """

    def has_unsent(self) -> bool:
        return False

    def has_unread(self) -> bool:
        """
        True: it need not say that it lives, since it ends by itself.
        """
        return True

    def trust(self) -> None: ...

    def stop_reading(self) -> None: ...

    def read_on(self) -> None: ...
