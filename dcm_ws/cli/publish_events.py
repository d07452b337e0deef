"""
Events to publish, read from arguments and from lines of JSON, and checked before anything is sent.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dcm_ws.cli.lines import LINE_MAX
from dcm_ws.cli.options import check_channel
from dcm_ws.cli.terminal import harmless
from dcm_ws.protocol.commands import KEY_MAX
from dcm_ws.protocol.errors import ProtocolError
from dcm_ws.protocol.events import EVENT_RULE, is_event


class EventToPublish(msgspec.Struct, forbid_unknown_fields=True):
    """
    An event to publish.

    @ivar key: the same agent publishes an event with the same key once within 10 minutes.
    """

    channel: str
    event: str
    data: Any = None
    key: str | None = None


class InvalidEventError(ValueError):
    """
    The event cannot be published; the text says why.
    """


_decoder = msgspec.json.Decoder(EventToPublish)


def from_arguments(channel: str, event: str, data: str | bytes, key: str | None = None) -> EventToPublish:
    """
    @param data: JSON; blank for null.
    @raise InvalidEventError: the channel, the event or the key is invalid, or C{data} is not JSON.
    """
    try:
        # a text that is not UTF-8 is not JSON either
        encoded = data.encode() if isinstance(data, str) else data
        value = msgspec.json.decode(encoded) if encoded.strip() else None
    except (ValueError, RecursionError) as error:
        text = harmless(str(error))
        raise InvalidEventError(f"DATA is not JSON ({text}); a string needs quotes of its own: '\"text\"'") from None
    return _checked(EventToPublish(channel, event, value, key))


def from_line(text: bytes) -> EventToPublish:
    """
    @raise InvalidEventError: the line is not an event.
    """
    if len(text) > LINE_MAX:
        raise InvalidEventError(f"longer than {LINE_MAX} bytes")
    try:
        event = _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidEventError(harmless(str(error))) from None
    return _checked(event)


def _checked(event: EventToPublish) -> EventToPublish:
    try:
        check_channel(event.channel)
    except ProtocolError as error:
        raise InvalidEventError(harmless(error.reason)) from None
    if not is_event(event.event):
        raise InvalidEventError(f"{harmless(event.event)!r} is not an event name: use {EVENT_RULE}")
    if event.key is not None and not 1 <= len(event.key) <= KEY_MAX:
        raise InvalidEventError(f"a key must have 1 to {KEY_MAX} characters, not {len(event.key)}")
    return event
