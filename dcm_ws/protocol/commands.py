"""
Client messages, decoded from bytes to commands (protocol, section 2).

A command that exists is a valid one.  The C{data} of a publish is never parsed into objects: it is kept as the JSON
text that the client sent.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Literal, NoReturn

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import force_setattr

from dcm_ws.protocol.channels import IDENTIFIER_RULE, is_identifier
from dcm_ws.protocol.errors import NO_REQUEST, ErrorCode, ProtocolError
from dcm_ws.protocol.rawjson import has_huge_number, repair_surrogates

TOKEN_MAX = 4096
"""
Characters in a token, at most.
"""

REQUEST_MAX = 128
"""
Characters in the id of a request, at most.
"""

KEY_MAX = 128
"""
Characters in the key of a publish, at most.
"""

EPOCH_MAX = 64
"""
Characters in an epoch, at most.
"""

POSITION_MAX = 2**53 - 1
"""
The last position that every client can read exactly.
"""

DELAY_MAX = 3_600_000
"""
Milliseconds after which an event is sent again at the latest, if a client asks for that.
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
    # an empty one counts as absent
    key: Annotated[str, Meta(max_length=KEY_MAX)] | None = None


class Position(Struct, frozen=True, gc=False):
    """
    What a client has of the log: everything in its channels up to C{pos}.
    """

    epoch: Annotated[str, Meta(max_length=EPOCH_MAX)]
    pos: Annotated[int, Meta(ge=0, le=POSITION_MAX)]
    named: list[str] | Literal[""] | None = msgspec.field(default=None, name="channels")

    @property
    def channels(self) -> list[str]:
        """
        The names of the channels; they have not been checked.
        """
        return self.named or []


class Resume(Position, tag="resume", frozen=True, gc=False, kw_only=True):
    id: Raw = NO_REQUEST


class Auth(Struct, tag="auth", frozen=True, gc=False):
    token: Annotated[str, Meta(max_length=TOKEN_MAX)] | None = None
    agent_id: str | None = None
    session_id: str | None = None
    id: Raw = NO_REQUEST
    observer: bool | Literal[""] | None = None
    asked: Position | Literal[""] | None = msgspec.field(default=None, name="resume")
    durable: bool | Literal[""] | None = None

    def __post_init__(self) -> None:
        check_identifiers(self, "agent_id", "session_id")
        if not self.token:
            force_setattr(self, "token", None)
        for name in ("observer", "durable"):
            if getattr(self, name) == "":
                force_setattr(self, name, None)

    @property
    def resume(self) -> Position | None:
        """
        What the client has, and resumes.
        """
        return self.asked or None


class Ping(Struct, tag="ping", frozen=True, gc=False):
    id: Raw = NO_REQUEST


class Pong(Struct, tag="pong", frozen=True, gc=False):
    id: Raw = NO_REQUEST


class Ack(Struct, tag="ack", frozen=True, gc=False):
    """
    An ack of one message, as nearly all are.
    """

    message_id: Annotated[str, Meta(max_length=128)]
    id: Raw = NO_REQUEST
    pos: Literal[""] | None = None


class AckUpTo(Struct, tag="ack", frozen=True, gc=False):
    """
    An ack of everything up to a position.

    It is decoded in a second attempt: a check of L{Ack} that one of two fields is there would take a seventh of the
    time of an ack.
    """

    pos: Annotated[int, Meta(ge=0, le=POSITION_MAX)]
    id: Raw = NO_REQUEST
    message_id: Literal[""] | None = None


class Nack(Struct, tag="nack", frozen=True, gc=False):
    message_id: Annotated[str, Meta(max_length=128)]
    delay_ms: Annotated[int, Meta(ge=0, le=DELAY_MAX)] | Literal[""] | None = 0
    id: Raw = NO_REQUEST

    def __post_init__(self) -> None:
        if not self.delay_ms:
            force_setattr(self, "delay_ms", 0)


_Decoded = Subscribe | Unsubscribe | Publish | Auth | Resume | Ping | Pong | Ack | Nack
Command = _Decoded | AckUpTo


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
_commands: msgspec.json.Decoder[_Decoded] = msgspec.json.Decoder(_Decoded)
_acks_up_to = msgspec.json.Decoder(AckUpTo)
_fields = msgspec.json.Decoder(dict[str, Raw])
_text = msgspec.json.Decoder(str)
_QUOTE = ord('"')
_TYPES = frozenset({"subscribe", "unsubscribe", "publish", "auth", "resume", "ping", "pong", "ack", "nack"})

NOT_JSON = (msgspec.DecodeError, UnicodeError, RecursionError, ValueError)
"""
What msgspec raises for a text that is not JSON, and L{repair_surrogates} for one that it cannot repair.
"""


def decode_command(message: str | bytes) -> Command:
    """
    Decode one client message.

    @raise ProtocolError: C{PARSE_ERROR}, C{UNKNOWN_MESSAGE_TYPE} or C{INVALID_MESSAGE}.
    """
    command: Command
    try:
        # Raw values are not checked to be UTF-8, so bytes are decoded first.
        text = message if isinstance(message, str) else message.decode()
        try:
            command = _commands.decode(text)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            text = repair_surrogates(text)
            command = _commands.decode(text)
    except msgspec.ValidationError as error:
        try:
            command = _acks_up_to.decode(text)
        except NOT_JSON:
            _refuse(text, str(error))
    except NOT_JSON:
        raise ProtocolError(ErrorCode.PARSE_ERROR, "Failed to parse message") from None
    if command.id:
        request = bytes(command.id)
        # nearly all ids are short strings
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
    Return the id of a request that is not decoded; empty if it has none, or is invalid.
    """
    try:
        return Raw(_request_of(bytes(_requests.decode(message).id or NULL)))
    except NOT_JSON:
        return NO_REQUEST


def _request_of(text: bytes) -> bytes:
    """
    Return the id of a request as its JSON text, which is how it is echoed.  Empty for an empty text and for C{null},
    which count as absent.

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
    @raise ProtocolError: says what is wrong with a message that has a wrong field, or a syntax error after it.
    """
    try:
        fields = _decode_fields(text)
    except msgspec.ValidationError:
        raise ProtocolError(ErrorCode.PARSE_ERROR, "Failed to parse message: not a JSON object") from None
    except NOT_JSON:
        # the wrong field comes before the syntax error
        raise ProtocolError(ErrorCode.PARSE_ERROR, "Failed to parse message") from None
    request, kind = NO_REQUEST, ""
    # an invalid id is not echoed, and a type that is not a string is unknown
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
        return _fields.decode(repair_surrogates(text))
