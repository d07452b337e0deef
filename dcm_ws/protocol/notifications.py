"""
NOTIFY payloads, decoded to events (protocol, section 7).

Only C{event} is required.  Other fields may be invalid, and the payload is still an event: existing installations send
such payloads.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from dcm_ws.protocol.commands import NOT_JSON, NULL
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.rawjson import repair_surrogates

FIRST_MS = 100_000_000_000
"""
The first plausible time in milliseconds, in 1973: a smaller number is in seconds, and is ignored.
"""

END_MS = 253_402_300_800_000
"""
The end of the year 9999: Python knows no later time.
"""


class Notification(Struct, frozen=True, gc=False):
    """
    A NOTIFY payload.

    @ivar channel: not checked; empty if the payload names no channel.
    @ivar event: not checked.
    @ivar timestamp: ms since the epoch; None if the payload has no usable one.
    """

    event: str
    channel: str = ""
    data: Raw = NULL
    timestamp: Annotated[int, Meta(ge=FIRST_MS, lt=END_MS)] | None = None


class _Odd(Struct, frozen=True, gc=False):
    """
    A payload in which some field is invalid.
    """

    event: str
    channel: Raw = NULL
    data: Raw = NULL
    timestamp: Raw = NULL


_notifications = msgspec.json.Decoder(Notification)
_odd = msgspec.json.Decoder(_Odd)
_text = msgspec.json.Decoder(str)
_milliseconds = msgspec.json.Decoder(Annotated[float, Meta(ge=FIRST_MS, lt=END_MS)])


def decode_notification(payload: str) -> Notification:
    """
    Decode one NOTIFY payload.

    @raise ProtocolError: C{PARSE_ERROR}, or C{INVALID_MESSAGE} for one without a C{event}.
    """
    try:
        # nearly all payloads are valid
        return _notifications.decode(payload)
    except NOT_JSON:
        return _decode_other(payload)


def _decode_other(payload: str) -> Notification:
    try:
        try:
            return _decode(payload)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            return _decode(repair_surrogates(payload))
    except msgspec.ValidationError as error:
        raise ProtocolError(ErrorCode.INVALID_MESSAGE, str(error)) from None
    except NOT_JSON as error:
        raise ProtocolError(ErrorCode.PARSE_ERROR, f"not JSON: {type(error).__name__}") from None


def _decode(payload: str) -> Notification:
    try:
        return _notifications.decode(payload)
    except msgspec.ValidationError:
        odd = _odd.decode(payload)
    channel, timestamp = "", None
    with suppress(msgspec.DecodeError):
        channel = _text.decode(odd.channel)
    with suppress(msgspec.DecodeError):
        # a fraction of a millisecond, which SQL writes, is cut off
        timestamp = int(_milliseconds.decode(odd.timestamp))
    return Notification(odd.event, channel, odd.data, timestamp)
