"""
What a NATS server sends, read from bytes (client protocol of NATS 2).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

_LINE_MOST = 1 << 20
"""
Bytes of a line, at most; that of INFO has the addresses of all servers.
"""

_PAYLOAD_MOST = 64 << 20
"""
Bytes of a message, at most: the most that a server can be set to.
"""


class NatsProtocolError(Exception):
    """
    The server has sent something that cannot be read.
    """


class Message(NamedTuple):
    """
    A message.

    @ivar sid: of the subscription that it came for.
    @ivar reply: where an answer is to be sent; empty if nowhere.
    @ivar headers: with the line of their version; empty if it has none.
    """

    subject: bytes
    sid: bytes
    reply: bytes
    headers: bytes
    payload: bytes


class Reading:
    """
    Reads what comes in pieces of any size.

    @param message: called with each message.
    @param info: called with what the server says of itself.
    @param ping: called when the server wants a PONG.
    @param pong: called when the server has answered a PING.
    @param error: called with what the server complains of.
    """

    def __init__(
        self,
        *,
        message: Callable[[Message], object],
        info: Callable[[dict[str, Any]], object],
        ping: Callable[[], object],
        pong: Callable[[], object],
        error: Callable[[str], object],
    ) -> None:
        self._message = message
        self._info = info
        self._ping = ping
        self._pong = pong
        self._error = error
        self._chunks: list[bytes] = []
        self._size = 0
        self._needed = 0
        self.stopped = False

    def feed(self, data: bytes) -> None:
        """
        Read the next bytes.

        @raise NatsProtocolError: they are not of the protocol.
        """
        if self._chunks:
            # a large message is joined once, when all of it is there
            self._chunks.append(data)
            self._size += len(data)
            if self._size < self._needed:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
        position = self._read(data)
        rest = len(data) - position
        if rest and not self.stopped:
            self._chunks.append(data[position:])
        self._size = rest

    def _read(self, data: bytes) -> int:
        """
        Read what is complete, and return where the rest begins.
        """
        position, end = 0, len(data)
        self._needed = 0
        while not self.stopped:
            line_end = data.find(b"\r\n", position)
            if line_end < 0:
                if end - position > _LINE_MOST:
                    raise NatsProtocolError("a line is too long")
                break
            first = data[position]
            if first == 77 or first == 72:  # MSG or HMSG
                fields = data[position:line_end].split()
                headers, size = self._sizes(fields, 4 if first == 77 else 5)
                start = line_end + 2
                stop = start + size
                if stop + 2 > end:
                    self._needed = stop + 2 - position
                    break
                if data[stop : stop + 2] != b"\r\n":
                    raise NatsProtocolError("a message does not end where it should")
                reply = fields[3] if len(fields) == (5 if first == 77 else 6) else b""
                middle = start + headers
                self._message(Message(fields[1], fields[2], reply, data[start:middle], data[middle:stop]))
                position = stop + 2
            else:
                self._line(data[position:line_end])
                position = line_end + 2
        return position

    def _sizes(self, fields: list[bytes], least: int) -> tuple[int, int]:
        """
        The bytes of the headers of a message, and of all of it.
        """
        has_headers = least == 5
        if fields[0] != (b"HMSG" if has_headers else b"MSG") or len(fields) not in (least, least + 1):
            raise NatsProtocolError("the line of a message is invalid")
        try:
            headers, size = int(fields[-2]) if has_headers else 0, int(fields[-1])
        except ValueError:
            raise NatsProtocolError("the line of a message has no size") from None
        if not 0 <= headers <= size <= _PAYLOAD_MOST:
            raise NatsProtocolError("the size of a message is invalid")
        return headers, size

    def _line(self, line: bytes) -> None:
        operation, _, rest = line.partition(b" ")
        match operation.upper():
            case b"PING":
                self._ping()
            case b"PONG":
                self._pong()
            case b"+OK" | b"":
                pass
            case b"-ERR":
                self._error(rest.decode("utf-8", "replace").strip().strip("'"))
            case b"INFO":
                self._info(_object(rest))
            case _:
                raise NatsProtocolError("an operation is unknown")


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise NatsProtocolError("INFO is not a JSON object")
    return value
