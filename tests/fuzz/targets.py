"""
What is fuzzed: three places where bytes of a stranger's choice come in, each as a function of those bytes
that tells in a word what became of them.

C{ProtocolError} is the right answer to bad input.  Anything else that escapes is a crash, and so is an answer that
breaks a promise: the assertions here.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress

import msgspec
from twisted.internet.task import Clock

from dcm_ws.core.session import Origin
from dcm_ws.protocol.channels import is_identifier, parse_channel
from dcm_ws.protocol.commands import Command, Publish, decode_command
from dcm_ws.protocol.errors import NO_REQUEST, ErrorCode, ProtocolError
from dcm_ws.protocol.events import is_event
from dcm_ws.protocol.notifications import END_MS, FIRST_MS
from dcm_ws.protocol.rawjson import has_huge_number, is_nested_deeper
from dcm_ws.protocol.replies import done_frame, event_frame, refused_frame
from dcm_ws.protocol.tokens import Claims, verify
from tests.fakes import SECRET, WALL_MS, RecordingPeer, make_core, split_frames
from tests.fuzz.oracle import CannotTellError, depth_of, fields, has_infinity, message_of, same, value_of

_TYPES = ("subscribe", "unsubscribe", "publish", "auth", "ping", "pong", "ack", "nack", "resume")
_DEEP = 3
_EVENT_FIELDS = {"id", "channel", "event", "data", "timestamp"}


def commands(data: bytes) -> str:
    """
    One client message.  A first byte of 0 stands for a text frame, which comes decoded; without it, it is a binary one.
    """
    message: str | bytes = data
    if data[:1] == b"\0":
        try:
            message = data[1:].decode()
        except UnicodeDecodeError:
            return "no text"  # the WebSocket layer ends such a connection
    try:
        command = decode_command(message)
    except ProtocolError as refusal:
        with suppress(CannotTellError):
            _check_refusal(message, refusal)
        return str(refusal)
    said = {name: value for name, value in msgspec.structs.asdict(command).items() if value != NO_REQUEST}
    again = msgspec.json.encode({"type": type(command).__struct_config__.tag, **said})
    assert decode_command(again) == command, "it changed on being read again"
    with suppress(CannotTellError):
        _check_command(message, command)
    return type(command).__name__


def _check_refusal(message: str | bytes, refusal: ProtocolError) -> None:
    answer = message_of(refused_frame(refusal, WALL_MS))
    assert answer["code"] == refusal.code
    given = fields(message)
    kind = None if given is None else given.get("type")
    known = isinstance(kind, str) and kind in _TYPES
    match refusal.code:
        case ErrorCode.PARSE_ERROR:
            assert given is None, "a JSON object was called none"
        case ErrorCode.UNKNOWN_MESSAGE_TYPE:
            assert given is not None and not known, "a known type was called unknown"
        case ErrorCode.INVALID_MESSAGE:
            assert given is not None and known, "what has no known type was called invalid"
        case code:
            raise AssertionError(code)
    if refusal.request:
        assert given is not None and same(given["id"], answer["id"])


def _check_command(message: str | bytes, command: Command) -> None:
    given = fields(message)
    assert given is not None, "accepted what is no JSON object"
    assert given["type"] == type(command).__struct_config__.tag
    if command.id:
        assert same(message_of(done_frame(command.id, WALL_MS))["id"], given["id"])
    else:
        assert given.get("id") in (None, "")
    if isinstance(command, Publish):
        data = bytes(command.data)
        assert same(value_of(data.decode()), given.get("data"))
        assert is_nested_deeper(data, _DEEP) == (depth_of(given.get("data")) > _DEEP)
        assert has_huge_number(data) == has_infinity(given.get("data"))
        shown = message_of(event_frame("msg_1", b'"global"', "task.created", data, WALL_MS))
        assert same(shown["data"], given.get("data")), "its data changed on the way"
        assert shown.keys() == _EVENT_FIELDS


def tokens(data: bytes) -> str:
    """
    One token.  A first byte of 0 stands for a token as it comes; without it, the bytes are a payload to be signed.
    """
    if data[:1] == b"\0":
        token, payload = data[1:].decode("utf-8", "surrogateescape"), None
    else:
        signature = hmac.new(SECRET.encode(), data, hashlib.sha256).hexdigest()
        token, payload = f"{urlsafe_b64encode(data).decode().rstrip('=')}.{signature}", data
    try:
        claims = verify(SECRET, token, WALL_MS)
    except ProtocolError as refusal:
        assert refusal.code in (ErrorCode.TOKEN_INVALID, ErrorCode.TOKEN_EXPIRED)
        if refusal.code is ErrorCode.TOKEN_EXPIRED and payload is not None:
            with suppress(CannotTellError):
                given = fields(payload)
                assert given is not None and given["expires_at"] < WALL_MS, "a good token was called expired"
        return str(refusal)
    assert len(token) <= 4096
    assert is_identifier(claims.agent_id)
    assert claims.session_id is None or is_identifier(claims.session_id)
    assert type(claims.expires_at) is int and claims.expires_at >= WALL_MS
    if payload is not None:
        with suppress(CannotTellError):
            _check_claims(payload, claims)
    return f"good {'without' if claims.session_id is None else 'with'} a session"


def _check_claims(payload: bytes, claims: Claims) -> None:
    given = fields(payload)
    assert given is not None, "accepted what is no JSON object"
    assert given["agent_id"] == claims.agent_id
    assert (given.get("session_id") or None) == claims.session_id
    assert int(given["expires_at"]) == claims.expires_at


def notifications(data: bytes) -> str:
    """
    One NOTIFY payload.  Bytes that are no UTF-8 come as they do from a database without an encoding.
    """
    payload = data.decode("utf-8", "surrogateescape")
    refused = _core.counts.events.bad_notifications
    try:
        event_id = _core.router.notified(payload)
    except ProtocolError as refusal:
        assert _core.counts.events.bad_notifications == refused + 1
        assert not _peer.frames
        return str(refusal)
    sent = [text.decode() for _, text in split_frames(b"".join(_peer.frames))]
    _peer.frames.clear()
    owed = _core.deliveries.ack(_session, event_id)
    assert _core.deliveries.pending == 0
    with suppress(CannotTellError):
        _check_event(payload, event_id, sent, owed)
    return f"{'tracked' if owed else 'untracked'}, {len(sent)} sent"


def _check_event(payload: str, event_id: str, sent: list[str], owed: bool) -> None:
    given = fields(payload)
    assert given is not None, "accepted what is no JSON object"
    name, channel = given["event"], _shown_on(given.get("channel"))
    assert is_event(name)
    assert len(sent) == (channel != "metrics"), "global carries all but metrics"
    assert owed == (name.partition(".")[0] in ("task", "subtask", "message") and channel != "metrics")
    for text in sent:
        event = value_of(text)
        # the mirror says where the event comes from, if that is elsewhere
        more = {"origin"} if channel != "global" else set()
        assert event.keys() == _EVENT_FIELDS | more | ({"pos"} if _is_logged(name) else set())
        assert event.get("pos", _core.log.head) == _core.log.head
        assert event.get("origin", "global") == channel
        assert (event["id"], event["channel"], event["event"]) == (event_id, "global", name)
        assert same(event["data"], given.get("data")), "its data changed on the way"
        assert type(event["timestamp"]) is int and FIRST_MS <= event["timestamp"] < END_MS


def _is_logged(event: str) -> bool:
    latest = ("agent.heartbeat", "agent.connected", "agent.disconnected")
    return event not in latest and event.partition(".")[0] not in ("metric", "system")


def _shown_on(channel: object) -> str:
    try:
        return parse_channel(channel).name if isinstance(channel, str) else "global"
    except ProtocolError:
        return "global"


TARGETS: dict[str, Callable[[bytes], str]] = {
    "commands": commands,
    "tokens": tokens,
    "notifications": notifications,
}

_clock = Clock()
_clock.advance(1000)
_core = make_core(_clock)
_peer = RecordingPeer()
_client = _core.hub.connect(_peer, Origin())
assert _client is not None
_session = _client
_peer.frames.clear()
