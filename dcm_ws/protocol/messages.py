"""
The wire: bytes to commands, and replies and events to frames (protocol, sections 2 and 3).

A command that exists is a valid one.  An event's C{data} is never parsed into objects: it travels as the JSON text that
the publisher sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Literal, NoReturn

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import force_setattr

from dcm_ws.protocol.channels import IDENTIFIER_RULE, is_identifier
from dcm_ws.protocol.errors import NO_REQUEST, ErrorCode, ProtocolError
from dcm_ws.protocol.frames import PING_FRAME, text_frame
from dcm_ws.protocol.rawjson import has_huge_number, mend_surrogates

TOKEN_MAX = 4096
"""
Characters in a token, at most.
"""

REQUEST_MAX = 128
"""
Characters in the id of a request, at most.
"""

NULL = Raw(b"null")


class Subscribe(Struct, tag="subscribe", frozen=True, gc=False):
    channel: str
    id: Raw = NO_REQUEST


class Unsubscribe(Struct, tag="unsubscribe", frozen=True, gc=False):
    channel: str
    id: Raw = NO_REQUEST


class Publish(Struct, tag="publish", frozen=True, gc=False):
    channel: str
    event: str
    data: Raw = NULL
    id: Raw = NO_REQUEST


class Auth(Struct, tag="auth", frozen=True, gc=False):
    token: Annotated[str, Meta(max_length=TOKEN_MAX)] | None = None
    agent_id: str | None = None
    session_id: str | None = None
    id: Raw = NO_REQUEST
    observer: bool | Literal[""] | None = None

    def __post_init__(self) -> None:
        check_identifiers(self, "agent_id", "session_id")
        if not self.token:
            force_setattr(self, "token", None)
        if self.observer == "":
            force_setattr(self, "observer", None)


class Ping(Struct, tag="ping", frozen=True, gc=False):
    id: Raw = NO_REQUEST


class Pong(Struct, tag="pong", frozen=True, gc=False):
    id: Raw = NO_REQUEST


class Ack(Struct, tag="ack", frozen=True, gc=False):
    message_id: Annotated[str, Meta(max_length=128)]
    id: Raw = NO_REQUEST


Command = Subscribe | Unsubscribe | Publish | Auth | Ping | Pong | Ack


def check_identifiers(struct: Struct, *names: str) -> None:
    """
    Check the fields of C{struct} that hold an identifier or None.  An empty text counts as absent.

    @raise ValueError: one does not fit the grammar; the text names it.
    """
    for name in names:
        text = getattr(struct, name)
        if not text:
            force_setattr(struct, name, None)
        elif not is_identifier(text):
            raise ValueError(f"`{name}` must be {IDENTIFIER_RULE}")


class _Request(Struct, frozen=True, gc=False):
    id: Raw = NO_REQUEST


_requests = msgspec.json.Decoder(_Request)
_commands: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
_fields = msgspec.json.Decoder(dict[str, Raw])
_text = msgspec.json.Decoder(str)
_QUOTE = ord('"')
_TYPES = frozenset({"subscribe", "unsubscribe", "publish", "auth", "ping", "pong", "ack"})

NOT_JSON = (msgspec.DecodeError, UnicodeError, RecursionError, ValueError)
"""
What msgspec raises for a text that is not JSON, and L{mend_surrogates} for one that it cannot mend.
"""


def decode_command(message: str | bytes) -> Command:
    """
    Read one client message.

    @raise ProtocolError: C{PARSE_ERROR}, C{UNKNOWN_MESSAGE_TYPE} or C{INVALID_MESSAGE}.
    """
    try:
        # Raw values are not checked to be UTF-8, so bytes are decoded first.
        text = message if isinstance(message, str) else message.decode()
        try:
            command = _commands.decode(text)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            text = mend_surrogates(text)
            command = _commands.decode(text)
    except msgspec.ValidationError as error:
        _refuse(text, str(error))
    except NOT_JSON:
        raise ProtocolError(ErrorCode.PARSE_ERROR, "Failed to parse message") from None
    if command.id:
        request = bytes(command.id)
        # nearly all are short texts
        if request[0] != _QUOTE or not 2 < len(request) <= REQUEST_MAX:
            try:
                request = _request_of(request)
            except ValueError as error:
                _refuse(text, str(error))
            if not request:
                force_setattr(command, "id", NO_REQUEST)
    return command


def request_of(message: str | bytes) -> Raw:
    """
    The correlation id of a message that is not read any further; empty if it has none, or is invalid.
    """
    try:
        return Raw(_request_of(bytes(_requests.decode(message).id or NULL)))
    except NOT_JSON:
        return NO_REQUEST


def _request_of(text: bytes) -> bytes:
    """
    The id of a request as its JSON text, which is how it is echoed.  Empty for an empty text and for C{null}, which
    count as absent.

    @raise ValueError: it is an object, an array, too long, or a number that clients cannot read.
    """
    is_text = text[0] == _QUOTE
    # a character takes one byte or more
    if len(text) > REQUEST_MAX and len(_text.decode(text) if is_text else text) > REQUEST_MAX:
        raise ValueError(f"`id` must have {REQUEST_MAX} characters at most")
    if text in (b'""', b"null"):
        return b""
    if text[0] in b"[{":
        raise ValueError("`id` must be a string, a number or a boolean")
    if not is_text and has_huge_number(text):
        raise ValueError("`id` must not be beyond the range of a 64-bit float")
    return text


def _refuse(text: str, reason: str) -> NoReturn:
    """
    @raise ProtocolError: what is wrong with a message that has a wrong field, or is not JSON behind it.
    """
    try:
        fields = _decode_fields(text)
    except msgspec.ValidationError:
        raise ProtocolError(ErrorCode.PARSE_ERROR, "Failed to parse message: not a JSON object") from None
    except NOT_JSON:
        # the wrong field stood before what is no JSON
        raise ProtocolError(ErrorCode.PARSE_ERROR, "Failed to parse message") from None
    request, kind = NO_REQUEST, ""
    # an id that cannot be one is not echoed, and a type that is no string is an unknown one
    with suppress(ValueError):
        request = Raw(_request_of(bytes(fields.get("id", NULL))))
    with suppress(msgspec.DecodeError):
        kind = _text.decode(fields.get("type", b""))
    if kind not in _TYPES:
        shown = f": {kind[:64]}" if kind else ""
        raise ProtocolError(ErrorCode.UNKNOWN_MESSAGE_TYPE, f"Unknown message type{shown}", request) from None
    raise ProtocolError(ErrorCode.INVALID_MESSAGE, f"Invalid {kind} message: {reason}", request) from None


def _decode_fields(text: str) -> dict[str, Raw]:
    try:
        return _fields.decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return _fields.decode(mend_surrogates(text))


_encode = msgspec.json.encode


def connected_frame(client_id: str, server: str, now_ms: int) -> bytes:
    """
    The first frame of every connection.
    """
    return text_frame(
        b'{"type":"connected","client_id":"%b","timestamp":%d,"authenticated":false,"server":%b}'
        % (client_id.encode(), now_ms, _encode(server))
    )


def done_frame(request: Raw, now_ms: int) -> bytes:
    """
    Success, for a request that had an id.
    """
    return text_frame(b'{"type":"ack","id":%b,"success":true,"timestamp":%d}' % (request, now_ms))


def published_frame(request: Raw, event_id: str, now_ms: int) -> bytes:
    """
    Success of a C{publish}, with the id that the event got.
    """
    return text_frame(
        b'{"type":"ack","id":%b,"success":true,"message_id":"%b","timestamp":%d}' % (request, event_id.encode(), now_ms)
    )


def authenticated_frame(request: Raw, subscriptions: Sequence[str], now_ms: int) -> bytes:
    """
    Success of an C{auth}, with all that the client is now subscribed to.
    """
    return text_frame(
        b'{"type":"ack","id":%b,"success":true,"subscriptions":%b,"timestamp":%d}'
        % (request or NULL, _encode(subscriptions), now_ms)
    )


def refused_frame(error: ProtocolError, now_ms: int) -> bytes:
    """
    Failure: as an C{ack} where the request had an id, else as an error.
    """
    code, reason = _encode(error.code), _encode(error.reason)
    if error.retry_after_ms is not None:
        code += b',"retry_after_ms":%d' % error.retry_after_ms
    if not error.request:
        return text_frame(b'{"error":%b,"code":%b,"timestamp":%d}' % (reason, code, now_ms))
    return text_frame(
        b'{"type":"ack","id":%b,"success":false,"error":%b,"code":%b,"timestamp":%d}'
        % (error.request, reason, code, now_ms)
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
    # some clients return a text message and leave a Ping behind it unread
    return PING_FRAME + text_frame(b'{"type":"ping","timestamp":%d}' % now_ms)


def from_field(agent: str) -> bytes:
    """
    The field of an event's frame that names the agent who published it.
    """
    return b',"from":' + _encode(agent)


def event_frame(event_id: str, channel: bytes, event: str, data: bytes, timestamp: int, sender: bytes = b"") -> bytes:
    """
    An event as the subscribers of one channel get it.

    @param event_id: made by the hub: needs no escaping.
    @param channel: its name as JSON.
    @param event: fits its grammar: needs no escaping.
    @param data: JSON, UTF-8.
    @param timestamp: ms since the epoch.
    @param sender: what L{from_field} makes, or empty.
    """
    return text_frame(
        b'{"id":"%b","channel":%b,"event":"%b","data":%b,"timestamp":%d%b}'
        % (event_id.encode(), channel, event.encode(), data, timestamp, sender)
    )


def mirror_frame(event_id: str, origin: bytes, event: str, data: bytes, timestamp: int, sender: bytes = b"") -> bytes:
    """
    An event as the subscribers of C{global} get it, if it was published to another channel.

    @param origin: the name of that channel as JSON.
    """
    return text_frame(
        b'{"id":"%b","channel":"global","event":"%b","data":%b,"timestamp":%d%b,"origin":%b}'
        % (event_id.encode(), event.encode(), data, timestamp, sender, origin)
    )


def to_json(value: object) -> bytes:
    """
    Any value of ours as compact JSON.
    """
    return _encode(value)
