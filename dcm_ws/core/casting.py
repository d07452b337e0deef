"""
Events that are not logged, on their way to the other nodes of a cluster.
"""

from __future__ import annotations

import msgspec

from dcm_ws.core.entries import Draft
from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.errors import ProtocolError
from dcm_ws.protocol.events import traits_of

TOPIC = "event"


class _Header(msgspec.Struct, array_like=True, frozen=True, gc=False):
    # newer versions may say more behind that

    id: str
    channel: str
    event: str
    timestamp: int
    sender: str
    named: str
    mirrored: bool
    publisher: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Header).decode


def cast_of(draft: Draft) -> bytes:
    """
    The message that carries an event: a line that describes it, and its data.
    """
    header = _Header(
        draft.id,
        draft.channel.name,
        draft.event,
        draft.timestamp,
        draft.sender.decode(),
        draft.named,
        draft.mirrored,
        draft.publisher,
    )
    return _encode(header) + b"\n" + draft.data


def draft_of(message: bytes, channels: Channels) -> Draft | None:
    """
    The event in a message; None if it cannot be read, or is not known here: the other node may be of another version,
    or have channels of its own.
    """
    header, _, data = message.partition(b"\n")
    try:
        head = _decode(header)
        channel = channels.parse(head.channel)
        category, tracked, _ = traits_of(head.event)
    except (msgspec.DecodeError, ProtocolError):
        return None
    return Draft(
        head.id,
        channel,
        head.event,
        data,
        head.timestamp,
        head.sender.encode(),
        head.named,
        category,
        tracked,
        head.mirrored,
        head.publisher,
    )
