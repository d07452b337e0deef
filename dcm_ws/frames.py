"""
WebSocket frames as the server sends them: final and unmasked (RFC 6455, section 5.2).

A frame is built once for all who get it, so the core deals in frames, not in payloads.
"""

from __future__ import annotations

_SHORT = 126
_MEDIUM = 1 << 16
_SHORT_HEADERS = tuple(bytes((0x81, length)) for length in range(_SHORT))


def text_frame(payload: bytes) -> bytes:
    """
    One text message in one frame.

    @param payload: UTF-8.
    """
    size = len(payload)
    if size < _SHORT:
        return _SHORT_HEADERS[size] + payload
    if size < _MEDIUM:
        return b"\x81\x7e" + size.to_bytes(2) + payload
    return b"\x81\x7f" + size.to_bytes(8) + payload


PING_FRAME = b"\x89\x00"
"""
A Ping control frame without a payload.
"""
