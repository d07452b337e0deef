"""
WebSocket frames as the server sends them: final and unmasked (RFC 6455, section 5.2).

A frame is built once for all clients that receive it, so the core handles frames, not payloads.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from struct import Struct

_SHORT = 126
_MEDIUM = 1 << 16
_TEXT, _BINARY, _PONG = 0x81, 0x82, 0x8A
_COMPRESSED = 0x40
_SHORT_HEADERS = tuple(bytes((_TEXT, length)) for length in range(_SHORT))
_WORTH_COMPRESSING = 128
# first byte, 126, and the length in two bytes
_medium_header = Struct("!BBH").pack


def text_frame(payload: bytes) -> bytes:
    """
    One text message in one frame.

    @param payload: UTF-8.
    """
    size = len(payload)
    if size < _SHORT:
        return _SHORT_HEADERS[size] + payload
    if size < _MEDIUM:
        return _medium_header(_TEXT, 126, size) + payload
    return _header(_TEXT, size) + payload


def header_size(frame: bytes) -> int:
    """
    Bytes of a frame that come before its payload.

    @param frame: made by L{text_frame}.
    """
    length = frame[1]
    return 2 if length < _SHORT else 4 if length == _SHORT else 10


def binary_frame(payload: bytes) -> bytes:
    """
    One binary message in one frame.
    """
    return _header(_BINARY, len(payload)) + payload


def pong_control_frame(payload: bytes) -> bytes:
    """
    The Pong that replies to a Ping control frame.

    @param payload: that of the Ping, at most 125 bytes.
    """
    return bytes((_PONG, len(payload))) + payload


def compressed(frames: bytes, window_bits: int) -> bytes:
    """
    The same frames for a connection with C{permessage-deflate}, each message compressed by itself (RFC 7692, section
    7.2.1); short ones, and control frames, stay as they are.

    @param frames: whole frames, made here.
    @param window_bits: 9 to 15, as was negotiated.
    """
    pieces, start = [], 0
    while start < len(frames):
        first, size, body = frames[start], frames[start + 1], start + 2
        if size >= _SHORT:
            body += 2 if size == _SHORT else 8
            size = int.from_bytes(frames[start + 2 : body])
        end = body + size
        if size < _WORTH_COMPRESSING:
            pieces.append(frames[start:end])
        else:
            deflate = zlib.compressobj(level=6, wbits=-window_bits)
            # the flush ends with 00 00 FF FF, which the receiver puts back
            payload = (deflate.compress(frames[body:end]) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
            pieces.append(_header(first | _COMPRESSED, len(payload)) + payload)
        start = end
    return b"".join(pieces)


class RecentlyCompressed:
    """
    Compresses frames, and remembers the last results: what is sent to many connections is compressed once.

    @param most: entries that are remembered.
    @param most_bytes: of them, before and after; the last one is remembered even if it has more.
    """

    def __init__(self, most: int = 16, most_bytes: int = 8 << 20) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._known: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    def __call__(self, frames: bytes, window_bits: int) -> bytes:
        """
        As L{compressed}.
        """
        key = frames, window_bits
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        smaller = self._known[key] = compressed(frames, window_bits)
        self.bytes += len(frames) + len(smaller)
        while len(self._known) > 1 and (len(self._known) > self._most or self.bytes > self._most_bytes):
            (old, _), gone = self._known.popitem(last=False)
            self.bytes -= len(old) + len(gone)
        return smaller


def _header(first: int, size: int) -> bytes:
    if size < _SHORT:
        return bytes((first, size))
    if size < _MEDIUM:
        return _medium_header(first, 126, size)
    return bytes((first, 127)) + size.to_bytes(8)


PING_FRAME = b"\x89\x00"
"""
A Ping control frame without a payload.
"""
