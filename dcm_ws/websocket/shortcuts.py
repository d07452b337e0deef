"""
Short cuts for what clients send most: a handshake without options, and a short message in one frame.

Reading these directly costs a fraction of what Autobahn takes.  Each function here returns None for anything else,
valid or not.  Autobahn reads that from its beginning, so that errors are found and reported in one place.  The tests
compare both readings.
"""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha1
from typing import NamedTuple

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover - where no wheel fits, websockets has the same in Python
    from websockets.utils import apply_mask

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT = 0x81
_EXTENDED = 126
_LONGEST = (1 << 16) - 1

# ports above 64999 are left to Autobahn, which compares them with 65535
_host = re.compile(r"[A-Za-z0-9.-]+(?::(?:[0-5]?[0-9]{1,4}|6[0-4][0-9]{3}))?")
_key = re.compile(r"[A-Za-z0-9+/]{22}==")
_name = re.compile(r"[a-z0-9-]+")
_target = re.compile(r"/[!-\"$-~]*")
# headers that Autobahn evaluates, and may reject
_NOT_PLAIN = frozenset({"origin", "sec-websocket-protocol", "sec-websocket-extensions", "content-length"})


class UpgradeRequest(NamedTuple):
    """
    A request to open a WebSocket.

    @ivar target: the path and the query.
    @ivar headers: by lower-case name.
    """

    target: str
    headers: dict[str, str]

    def response(self, server: str) -> bytes:
        """
        Return the response that opens the WebSocket (RFC 6455, section 4.2.2).

        @param server: the value of the C{Server} header.
        """
        accept = b64encode(sha1(self.headers["sec-websocket-key"].encode() + _GUID).digest())
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nServer: %b\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % (server.encode(), accept)
        )


def plain_handshake(head: bytes) -> UpgradeRequest | None:
    """
    Read a request head (RFC 6455, section 4.2.1), or return None if anything in it is unusual.

    @param head: without the empty line at its end.
    """
    try:
        request, *lines = head.decode("ascii").split("\r\n")
    except UnicodeDecodeError:
        return None
    method, _, rest = request.partition(" ")
    target, _, version = rest.partition(" ")
    if method != "GET" or version != "HTTP/1.1" or not _target.fullmatch(target):
        return None
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or name in headers or name in _NOT_PLAIN or not _name.fullmatch(name) or not value.isprintable():
            return None
        headers[name] = value.strip()
    get = headers.get
    if (
        get("upgrade", "").lower() != "websocket"
        or get("connection", "").lower() not in ("upgrade", "keep-alive, upgrade")
        or get("sec-websocket-version") != "13"
        or not _key.fullmatch(get("sec-websocket-key", ""))
        or not _host.fullmatch(get("host", ""))
    ):
        return None
    return UpgradeRequest(target, headers)


def short_message(data: bytes, start: int, longest: int) -> tuple[str, int] | None:
    """
    Read a message that comes in one frame: text, final, masked, below 64 KiB, and complete (RFC 6455, section 5.2).

    @param start: the index in C{data} at which the frame begins.
    @param longest: the limit for a message, in bytes.
    @return: the message, and the index at which the next frame begins; None for any other frame.
    """
    size = len(data)
    if size - start < 6 or data[start] != _TEXT:
        return None
    length, body = data[start + 1] - 0x80, start + 6
    if length >= _EXTENDED:
        body = start + 8
        if length > _EXTENDED or size < body:
            return None
        length = int.from_bytes(data[start + 2 : start + 4])
        if length < _EXTENDED:
            return None
    end = body + length
    if length < 0 or length > longest or end > size:
        return None
    payload, mask = data[body:end], data[body - 4 : body]
    if mask != b"\0\0\0\0":
        payload = apply_mask(payload, mask)
    try:
        return payload.decode(), end
    except UnicodeDecodeError:
        return None


def frame_size(head: bytes) -> int:
    """
    Return the size of the frame that begins with C{head}, in bytes.  If C{head} is too short to know it, return the
    number of bytes that it takes to know more.
    """
    if len(head) < 2:
        return 2
    length, size = head[1] & 0x7F, 2 + (head[1] >> 7) * 4
    extended = {126: 2, 127: 8}.get(length, 0)
    if len(head) < 2 + extended:
        return 2 + extended
    if extended:
        length = int.from_bytes(head[2 : 2 + extended])
    return size + extended + length
