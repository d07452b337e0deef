"""
The wire: bytes to commands, and replies and events to frames (protocol, sections 2 and 3).

A command that exists is a valid one.  An event's C{data} is never parsed into objects: it travels as the JSON text that
the publisher sent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Annotated, NoReturn

import msgspec
from msgspec import Meta, Raw, Struct

from dcm_ws.channels import IDENTIFIER
from dcm_ws.errors import ErrorCode, ProtocolError
from dcm_ws.frames import PING_FRAME, text_frame

TOKEN_MAX = 4096
"""
Characters in a token, at most.
"""

RequestId = Annotated[str, Meta(min_length=1, max_length=128)] | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Identifier = Annotated[str, Meta(pattern=f"^{IDENTIFIER}\\Z")]
Timestamp = int | float | None

# JavaScript's clock cannot tell later times than this.
_LAST_MS = 8_640_000_000_000_000
Milliseconds = Annotated[int, Meta(ge=0, le=_LAST_MS)] | Annotated[float, Meta(ge=0, le=_LAST_MS)]
"""
A moment: milliseconds since the epoch, as JavaScript may write it.
"""

_NULL = Raw(b"null")


class Subscribe(Struct, tag="subscribe", frozen=True, gc=False):
    channel: str
    id: RequestId | None = None
    timestamp: Timestamp = None


class Unsubscribe(Struct, tag="unsubscribe", frozen=True, gc=False):
    channel: str
    id: RequestId | None = None
    timestamp: Timestamp = None


class Publish(Struct, tag="publish", frozen=True, gc=False):
    channel: str
    event: str
    data: Raw = _NULL
    id: RequestId | None = None
    timestamp: Timestamp = None


class Auth(Struct, tag="auth", frozen=True, gc=False):
    token: Annotated[str, Meta(max_length=TOKEN_MAX)] | None = None
    agent_id: Identifier | None = None
    session_id: Identifier | None = None
    id: RequestId | None = None
    timestamp: Timestamp = None
    observer: bool | None = None


class Ping(Struct, tag="ping", frozen=True, gc=False):
    id: RequestId | None = None
    timestamp: Timestamp = None


class Pong(Struct, tag="pong", frozen=True, gc=False):
    id: RequestId | None = None
    timestamp: Timestamp = None


class Ack(Struct, tag="ack", frozen=True, gc=False):
    message_id: Annotated[str, Meta(max_length=128)]
    id: RequestId | None = None
    timestamp: Timestamp = None


Command = Subscribe | Unsubscribe | Publish | Auth | Ping | Pong | Ack


class Notification(Struct, frozen=True, gc=False):
    """
    What the database says: a NOTIFY payload (protocol, section 7).
    """

    channel: str
    event: str
    data: Raw = _NULL
    #: milliseconds since the epoch
    timestamp: Milliseconds | None = None


_commands: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
_notifications = msgspec.json.Decoder(Notification)
_fields = msgspec.json.Decoder(dict[str, Raw])
_request_id = msgspec.json.Decoder(RequestId)
_text = msgspec.json.Decoder(str)
_TYPES = frozenset({"subscribe", "unsubscribe", "publish", "auth", "ping", "pong", "ack"})

_NOT_JSON = (msgspec.DecodeError, UnicodeError, RecursionError, ValueError)


def decode_command(message: str | bytes) -> Command:
    """
    Read one client message.

    @raise ProtocolError: C{PARSE_ERROR}, C{UNKNOWN_MESSAGE_TYPE} or C{INVALID_MESSAGE}.
    """
    try:
        # Raw values are not checked to be UTF-8, so bytes are decoded first.
        text = message if isinstance(message, str) else message.decode()
        try:
            return _commands.decode(text)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            text = _mend_surrogates(text)
            return _commands.decode(text)
    except msgspec.ValidationError as error:
        _refuse(text, error)
    except _NOT_JSON:
        raise ProtocolError(ErrorCode.PARSE_ERROR, "Failed to parse message") from None


def decode_notification(payload: str) -> Notification:
    """
    Read one NOTIFY payload.

    @raise ProtocolError: C{PARSE_ERROR} or C{INVALID_MESSAGE}.
    """
    try:
        try:
            return _notifications.decode(payload)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            return _notifications.decode(_mend_surrogates(payload))
    except msgspec.ValidationError as error:
        raise ProtocolError(ErrorCode.INVALID_MESSAGE, str(error)) from None
    except _NOT_JSON as error:
        raise ProtocolError(ErrorCode.PARSE_ERROR, f"not JSON: {type(error).__name__}") from None


# a pair is whole, and so is any other escape; what is left over of D800 to DFFF is half of a pair
_escape = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


def _mend_surrogates(text: str) -> str:
    """
    JSON may name half a character: JavaScript, having cut a string in the middle of an emoji, writes C{"\\ud83d"}.
    UTF-8 has no such thing and msgspec refuses it; as browsers do, read it as U+FFFD.

    @raise ValueError: that was not what was wrong with it.
    """
    mended = _escape.sub(lambda escape: "\\ufffd" if escape[1] else escape[0], text)
    if mended == text:
        raise ValueError("it has no half of a character")
    return mended


def _refuse(text: str, error: msgspec.ValidationError) -> NoReturn:
    try:
        fields = _decode_fields(text)
    except msgspec.ValidationError:
        raise ProtocolError(ErrorCode.PARSE_ERROR, "Failed to parse message: not a JSON object") from None
    except _NOT_JSON:
        # the wrong field stood before what is no JSON
        raise ProtocolError(ErrorCode.PARSE_ERROR, "Failed to parse message") from None
    request: str | int | None = None
    kind = ""
    # an id that cannot be one is not echoed, and a type that is no string is an unknown one
    with suppress(msgspec.DecodeError):
        request = _request_id.decode(fields.get("id", b""))
    with suppress(msgspec.DecodeError):
        kind = _text.decode(fields.get("type", b""))
    if kind not in _TYPES:
        shown = f": {kind[:64]}" if kind else ""
        raise ProtocolError(ErrorCode.UNKNOWN_MESSAGE_TYPE, f"Unknown message type{shown}", request) from None
    raise ProtocolError(ErrorCode.INVALID_MESSAGE, f"Invalid {kind} message: {error}", request) from None


def _decode_fields(text: str) -> dict[str, Raw]:
    try:
        return _fields.decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return _fields.decode(_mend_surrogates(text))


_string = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def is_nested_deeper(data: bytes, depth: int) -> bool:
    """
    Has JSON more than C{depth} arrays and objects inside one another?

    @param data: valid JSON.
    """
    if data.count(b"[") + data.count(b"{") <= depth:
        return False
    brackets = _string.sub(b"", data).translate(_BRACKETS, _NO_BRACKETS)
    if not brackets:
        return False
    # the innermost are the most in most data, and go at once: one level less to look at
    rest = brackets.replace(b"[]", b"")
    # "[" is 91 and "]" is 93
    return 1 + max(accumulate(map((92).__sub__, rest)), default=0) > depth


class _About(Struct, frozen=True):
    agent_id: str


_about = msgspec.json.Decoder(_About)


def agent_of(data: bytes) -> str:
    """
    The agent that an event's data is about; empty where it names none.
    """
    try:
        return _about.decode(data).agent_id
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""


_encode = msgspec.json.encode


def connected_frame(client_id: str, server: str, now_ms: int) -> bytes:
    """
    The first frame of every connection.
    """
    return text_frame(
        b'{"type":"connected","client_id":"%b","timestamp":%d,"authenticated":false,"server":%b}'
        % (client_id.encode(), now_ms, _encode(server))
    )


def done_frame(request: str | int | None, now_ms: int) -> bytes:
    """
    Success, for a request that had an id.
    """
    return text_frame(b'{"type":"ack","id":%b,"success":true,"timestamp":%d}' % (_encode(request), now_ms))


def published_frame(request: str | int, event_id: str, now_ms: int) -> bytes:
    """
    Success of a C{publish}, with the id that the event got.
    """
    return text_frame(
        b'{"type":"ack","id":%b,"success":true,"message_id":"%b","timestamp":%d}'
        % (_encode(request), event_id.encode(), now_ms)
    )


def authenticated_frame(request: str | int | None, subscriptions: Sequence[str], now_ms: int) -> bytes:
    """
    Success of an C{auth}, with all that the client is now subscribed to.
    """
    return text_frame(
        b'{"type":"ack","id":%b,"success":true,"subscriptions":%b,"timestamp":%d}'
        % (_encode(request), _encode(subscriptions), now_ms)
    )


def refused_frame(error: ProtocolError, now_ms: int) -> bytes:
    """
    Failure: as an C{ack} where the request had an id, else as an error.
    """
    code, reason = _encode(error.code), _encode(error.reason)
    if error.retry_after_ms is not None:
        code += b',"retry_after_ms":%d' % error.retry_after_ms
    if error.request is None:
        return text_frame(b'{"error":%b,"code":%b,"timestamp":%d}' % (reason, code, now_ms))
    return text_frame(
        b'{"type":"ack","id":%b,"success":false,"error":%b,"code":%b,"timestamp":%d}'
        % (_encode(error.request), reason, code, now_ms)
    )


def pong_frame(now_ms: int) -> bytes:
    """
    The answer to a client's C{ping}.
    """
    return text_frame(b'{"type":"pong","timestamp":%d}' % now_ms)


def heartbeat_frames(now_ms: int) -> bytes:
    """
    The server's own ping, for the application and for the WebSocket library beneath it: two frames.
    """
    return text_frame(b'{"type":"ping","timestamp":%d}' % now_ms) + PING_FRAME


def from_field(agent: str) -> bytes:
    """
    The field of an event's frame that names the agent who published it.
    """
    return b',"from":' + _encode(agent)


def origin_field(channel: str) -> bytes:
    """
    The field of a frame on C{global} that names the channel to which the event was published.
    """
    return b',"origin":' + _encode(channel)


def event_frame(event_id: str, channel: str, event: str, data: bytes, timestamp: int, more: bytes = b"") -> bytes:
    """
    An event as the subscribers of one channel get it.

    @param event_id: made by the hub: needs no escaping.
    @param channel: fits its grammar, as C{event} does its own: neither needs escaping.
    @param data: JSON, UTF-8.
    @param timestamp: ms since the epoch.
    @param more: L{from_field}, L{origin_field} or both.
    """
    return text_frame(
        b'{"id":"%b","channel":"%b","event":"%b","data":%b,"timestamp":%d%b}'
        % (event_id.encode(), channel.encode(), event.encode(), data, timestamp, more)
    )


def to_json(value: object) -> bytes:
    """
    Any value of ours as compact JSON.
    """
    return _encode(value)
