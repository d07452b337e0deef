"""
Packets of the bus as texts of notifications, which have no bytes and a maximum length.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator

from dcm_ws.brokers.bus_parcels import Parcel, pack

_TEXT, _BASE64 = "t", "b"
_FRAME_MOST = 8
"""
Characters that a packet takes in addition to its own: which kind it is, its length, and a colon.
"""


def write_payloads(parcels: Iterable[Parcel], most: int) -> Iterator[tuple[str, str]]:
    """
    Make texts of parcels, in their order, each with the name of the node that it is for.  Small ones that follow each
    other share a text.

    @param most: characters of a text.
    """
    target, texts, length = "", list[str](), 0
    for parcel in parcels:
        for text in _texts(parcel, most):
            if texts and (parcel.target != target or length + len(text) > most):
                yield target, "".join(texts)
                texts, length = [], 0
            target = parcel.target
            texts.append(text)
            length += len(text)
    if texts:
        yield target, "".join(texts)


def read_payload(payload: str, broken: Callable[[], object]) -> Iterator[bytes]:
    """
    The packets of a text.

    @param broken: called if the rest of the text is not good.
    """
    position = 0
    while position < len(payload):
        colon = payload.find(":", position, position + _FRAME_MOST)
        digits = payload[position + 1 : colon]
        end = colon + 1 + int(digits) if colon > 0 and digits.isdecimal() else 0
        if not position < end <= len(payload):
            broken()
            return
        text = payload[colon + 1 : end]
        try:
            yield text.encode("ascii") if payload[position] == _TEXT else base64.b64decode(text, validate=True)
        except (UnicodeEncodeError, binascii.Error):
            broken()
        position = end


def _texts(parcel: Parcel, most: int) -> Iterator[str]:
    message = parcel.message
    # a text of PostgreSQL has no NUL, and the encoding of a database may lack any character beyond ASCII
    if message.isascii() and b"\0" not in message:
        for packet in pack(parcel, most - _FRAME_MOST):
            yield f"{_TEXT}{len(packet)}:{packet.decode()}"
    else:
        for packet in pack(parcel, (most - _FRAME_MOST) // 4 * 3 - 3):
            text = base64.b64encode(packet).decode()
            yield f"{_BASE64}{len(text)}:{text}"
