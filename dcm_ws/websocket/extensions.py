"""
The WebSocket extensions that a handshake offers (RFC 6455, section 9.1; RFC 7692, sections 5 and 7.1).

A server declines an offer that it does not know or does not support, and opens the WebSocket without it.  Autobahn
rejects the handshake instead, so it receives only the offers that it can accept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from websockets.exceptions import InvalidHeader
from websockets.headers import parse_extension

NAME = "permessage-deflate"

# with the lines that continue it (RFC 9112, section 5.2)
_header = re.compile(rb"\r?\nsec-websocket-extensions[ \t]*:([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)", re.IGNORECASE)
_space = re.compile(r"[ \t\r\n]+")
_window_bits = re.compile(r"[89]|1[0-5]")
# zlib cannot compress with a window of 256 bytes
_TOO_SMALL = "8"


def settle_offers(head: bytes, compression: bool) -> bytes:
    """
    Return a request head with only the offers that can be accepted: in one header, or without that header.

    @param head: the request line and the headers.
    @param compression: accept C{permessage-deflate}.
    """
    # most clients offer nothing
    if b"sec-websocket-extensions" not in head.lower():
        return head
    headers = _header.findall(head)
    if not headers:
        return head
    rest = _header.sub(b"", head)
    offers = acceptable(b",".join(headers).decode("iso-8859-1")) if compression else []
    if not offers:
        return rest
    line, separator, others = rest.partition(b"\r\n")
    return line + b"\r\nSec-WebSocket-Extensions: " + ", ".join(offers).encode() + separator + others


def acceptable(header: str) -> list[str]:
    """
    Return the offers of C{permessage-deflate} that can be accepted, in their order; none if the header is malformed.
    """
    try:
        offers = parse_extension(_space.sub(" ", header).strip(" "))
    except InvalidHeader:
        return []
    return [
        "; ".join((NAME, *settled))
        for name, parameters in offers
        if name.lower() == NAME and (settled := _settled(parameters)) is not None
    ]


def _settled(parameters: Sequence[tuple[str, str | None]]) -> list[str] | None:
    """
    Return the parameters of an offer as Autobahn reads them; None if it must be declined (RFC 7692, section 7.1).
    """
    given = {name.lower(): value for name, value in parameters}
    if len(given) < len(parameters):
        return None
    settled: list[str] = []
    for name, value in given.items():
        match name:
            case "client_no_context_takeover" | "server_no_context_takeover" if value is None:
                settled.append(name)
            case "client_max_window_bits" if value is None or _window_bits.fullmatch(value):
                # a hint: messages in any window can be inflated
                settled.append(name)
            case "server_max_window_bits" if value and value != _TOO_SMALL and _window_bits.fullmatch(value):
                settled.append(f"{name}={value}")
            case _:
                return None
    return settled
