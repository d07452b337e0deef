"""
Replies and events as WebSocket frames (protocol, sections 2 and 3).

An event's C{data} is never parsed into objects: it travels as the JSON text that the publisher sent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec import Raw

from dcm_ws.protocol.commands import NULL
from dcm_ws.protocol.errors import ProtocolError
from dcm_ws.protocol.frames import PING_FRAME, header_size, text_frame

_encode = msgspec.json.encode
_BEFORE_CHANNEL = len('{"id":"","channel":')
_POSITION = b',"pos":'
# what a mirrored event has behind it; in the strings of JSON there is no bare quotation mark
_position = re.compile(rb',"pos":([0-9]+)(?:,"origin":"(?:[^"\\]|\\.)*")?\}', re.DOTALL)


class Gap(NamedTuple):
    """
    Events of a client's channels that it does not get.

    @ivar reason: C{epoch}: its positions are those of another log; C{expired}: they are not kept any more; C{ahead}: it
        is beyond the end of the log.
    @ivar first: the oldest position that is kept.
    """

    reason: str
    first: int


def place_fields(epoch: str, pos: int) -> bytes:
    """
    The fields of a frame that tell how far a client is: it has been sent everything up to C{pos}.

    @param epoch: made by the service: needs no escaping.
    """
    return b',"epoch":"%b","pos":%d' % (epoch.encode(), pos)


def connected_frame(client_id: str, server: str, now_ms: int, place: bytes = b"") -> bytes:
    """
    The first frame of every connection.

    @param place: made by L{place_fields}.
    """
    return text_frame(
        b'{"type":"connected","client_id":"%b","timestamp":%d,"authenticated":false,"server":%b%b}'
        % (client_id.encode(), now_ms, _encode(server), place)
    )


def done_frame(request: Raw, now_ms: int, place: bytes = b"") -> bytes:
    """
    Success of a request that had an id.

    @param place: made by L{place_fields}, or empty.
    """
    return text_frame(b'{"type":"ack","id":%b,"success":true,"timestamp":%d%b}' % (request, now_ms, place))


def published_frame(request: Raw, event_id: str, now_ms: int, pos: int = 0, *, duplicate: bool = False) -> bytes:
    """
    Success of a C{publish}, with the id of the event.

    @param pos: the event's position; 0 if it is not logged.
    @param duplicate: the event was published before, with the same key.
    """
    place = b',"pos":%d' % pos if pos else b""
    if duplicate:
        place += b',"duplicate":true'
    return text_frame(
        b'{"type":"ack","id":%b,"success":true,"message_id":"%b","timestamp":%d%b}'
        % (request, event_id.encode(), now_ms, place)
    )


def authenticated_frame(
    request: Raw,
    subscriptions: Sequence[str],
    now_ms: int,
    place: bytes = b"",
    *,
    resumed: bool = False,
    gap: Gap | None = None,
) -> bytes:
    """
    Success of an C{auth} or a C{resume}, with the channels that the client is subscribed to now.

    @param place: made by L{place_fields}.
    @param resumed: what the client has missed follows.
    @param gap: why it does not, although the client has asked for it.
    """
    if gap is not None:
        place = b',"resumed":false,"gap":%b%b' % (_encode(gap._asdict()), place)
    elif resumed:
        place = b',"resumed":true' + place
    return text_frame(
        b'{"type":"ack","id":%b,"success":true,"subscriptions":%b,"timestamp":%d%b}'
        % (request or NULL, _encode(subscriptions), now_ms, place)
    )


def gap_frame(gap: Gap, place: bytes) -> bytes:
    """
    Events of a client's channels have left the log before they were sent to it.
    """
    return text_frame(b'{"type":"gap","reason":%b,"first":%d%b}' % (_encode(gap.reason), gap.first, place))


def refused_frame(error: ProtocolError, now_ms: int) -> bytes:
    """
    Failure: an C{ack} if the request had an id, else an error.
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
    The reply to a client's C{ping}.
    """
    return text_frame(b'{"type":"pong","timestamp":%d}' % now_ms)


def heartbeat_frames(now_ms: int, place: bytes = b"") -> bytes:
    """
    The server's own ping, for the application and for its WebSocket library: two frames.

    @param place: made by L{place_fields}.
    """
    # the Ping comes first: some clients return a text message and do not read a Ping after it
    return PING_FRAME + text_frame(b'{"type":"ping","timestamp":%d%b}' % (now_ms, place))


def from_field(agent: str) -> bytes:
    """
    The field of an event's frame that names the agent who published it.
    """
    return b',"from":' + _encode(agent)


def event_frame(
    event_id: str, channel: bytes, event: str, data: bytes, timestamp: int, sender: bytes = b"", pos: int = 0
) -> bytes:
    """
    An event as the subscribers of its channel receive it.

    @param event_id: made by the service: needs no escaping.
    @param channel: its name as JSON.
    @param event: fits its grammar: needs no escaping.
    @param data: JSON, UTF-8.
    @param timestamp: ms since the epoch.
    @param sender: made by L{from_field}, or empty.
    @param pos: its position; 0 if it is not logged.
    """
    if pos:
        return text_frame(
            b'{"id":"%b","channel":%b,"event":"%b","data":%b,"timestamp":%d%b,"pos":%d}'
            % (event_id.encode(), channel, event.encode(), data, timestamp, sender, pos)
        )
    return text_frame(
        b'{"id":"%b","channel":%b,"event":"%b","data":%b,"timestamp":%d%b}'
        % (event_id.encode(), channel, event.encode(), data, timestamp, sender)
    )


def mirror_frame(frame: bytes, event_id: str, origin: bytes) -> bytes:
    """
    An event as the subscribers of C{global} receive it, if it was published to another channel.

    @param frame: made by L{event_frame}, with that C{event_id}.
    @param origin: the name of the other channel as JSON.
    """
    # up to the name of the channel, and what comes after it
    start = header_size(frame)
    name = start + len(event_id) + _BEFORE_CHANNEL
    return text_frame(b'%b"global"%b,"origin":%b}' % (frame[start:name], frame[name + len(origin) : -1], origin))


def logged_event(frame: bytes) -> tuple[int, bytes]:
    """
    The position and the JSON of an event.

    @param frame: any frame.  For one that is not that of a logged event, the position is 0.
    """
    payload = frame[header_size(frame) :]
    if payload.startswith(b'{"id":'):
        found = _position.fullmatch(payload, max(0, payload.rfind(_POSITION)))
        if found is not None:
            return int(found.group(1)), payload
    return 0, payload


def to_json(value: object) -> bytes:
    """
    Return any value as compact JSON.
    """
    return _encode(value)
