"""
Replies and events as WebSocket frames (protocol, sections 2 and 3).

An event's C{data} is never parsed into objects: it travels as the JSON text that the publisher sent.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from dcm_ws.protocol.commands import NULL
from dcm_ws.protocol.errors import ProtocolError
from dcm_ws.protocol.frames import PING_FRAME, text_frame

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
    Success of a request that had an id.
    """
    return text_frame(b'{"type":"ack","id":%b,"success":true,"timestamp":%d}' % (request, now_ms))


def published_frame(request: Raw, event_id: str, now_ms: int) -> bytes:
    """
    Success of a C{publish}, with the id of the event.
    """
    return text_frame(
        b'{"type":"ack","id":%b,"success":true,"message_id":"%b","timestamp":%d}' % (request, event_id.encode(), now_ms)
    )


def authenticated_frame(request: Raw, subscriptions: Sequence[str], now_ms: int) -> bytes:
    """
    Success of an C{auth}, with the channels that the client is subscribed to now.
    """
    return text_frame(
        b'{"type":"ack","id":%b,"success":true,"subscriptions":%b,"timestamp":%d}'
        % (request or NULL, _encode(subscriptions), now_ms)
    )


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


def heartbeat_frames(now_ms: int) -> bytes:
    """
    The server's own ping, for the application and for its WebSocket library: two frames.
    """
    # the Ping comes first: some clients return a text message and do not read a Ping after it
    return PING_FRAME + text_frame(b'{"type":"ping","timestamp":%d}' % now_ms)


def from_field(agent: str) -> bytes:
    """
    The field of an event's frame that names the agent who published it.
    """
    return b',"from":' + _encode(agent)


def event_frame(event_id: str, channel: bytes, event: str, data: bytes, timestamp: int, sender: bytes = b"") -> bytes:
    """
    An event as the subscribers of its channel receive it.

    @param event_id: made by the service: needs no escaping.
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
    An event as the subscribers of C{global} receive it, if it was published to another channel.

    @param origin: the name of that channel as JSON.
    """
    return text_frame(
        b'{"id":"%b","channel":"global","event":"%b","data":%b,"timestamp":%d%b,"origin":%b}'
        % (event_id.encode(), event.encode(), data, timestamp, sender, origin)
    )


def to_json(value: object) -> bytes:
    """
    Return any value as compact JSON.
    """
    return _encode(value)
