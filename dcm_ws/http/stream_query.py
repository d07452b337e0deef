"""
What a request for a stream asks for (docs/http-streams.md).
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from twisted.web.server import Request

from dcm_ws.http.event_source import EVENT_STREAM
from dcm_ws.http.request_headers import accepted_types, header
from dcm_ws.protocol.channels import Channel, Channels
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.offsets import BEGINNING, NOW, Offset, parse_offset


class Mode(Enum):
    """
    How a stream is read.
    """

    #: what the log has
    PAGE = ""
    LONG_POLL = "long-poll"
    #: as server-sent events, for a Durable Streams client
    EVENTS = "sse"
    #: as server-sent events, one for each message, for a plain C{EventSource}
    MESSAGES = "messages"

    @property
    def is_stream(self) -> bool:
        """
        Does the response go on?
        """
        return self in (Mode.EVENTS, Mode.MESSAGES)


class StreamQuery(NamedTuple):
    """
    @ivar cursor: as the client sent it; may be empty.
    @ivar is_browser: it is an C{EventSource}, which gives up at an error, and whose page does not see what it was.
    """

    channel: Channel
    mode: Mode
    offset: Offset
    cursor: str
    is_browser: bool


def read_query(request: Request, channels: Channels) -> StreamQuery:
    """
    Read a request.

    @raise ProtocolError: C{INVALID_CHANNEL} or C{INVALID_MESSAGE}.
    """
    try:
        name = b"/".join(request.postpath or ()).decode()
    except UnicodeDecodeError:
        raise ProtocolError(ErrorCode.INVALID_CHANNEL, "The name of a channel is UTF-8") from None
    channel = channels.parse(name)
    live = _one(request, b"live")
    if live not in (None, "long-poll", "sse"):
        raise _invalid("Malformed live: use long-poll or sse")
    mode = Mode(live or "")
    accepts = EVENT_STREAM in accepted_types(header(request, "Accept"))
    if mode is Mode.PAGE and accepts:
        mode = Mode.MESSAGES
    is_browser = accepts and mode.is_stream
    cursor = _one(request, b"cursor") or ""
    last = header(request, "Last-Event-ID") if mode.is_stream else ""
    given = _one(request, b"offset")
    if last:
        # the URL has the offset of the first connection
        return StreamQuery(channel, mode, parse_offset(last), cursor, is_browser)
    if given is None:
        if mode in (Mode.LONG_POLL, Mode.EVENTS):
            raise _invalid("Missing offset: use -1, now, or the Stream-Next-Offset of a response")
        offset = BEGINNING if mode is Mode.PAGE else NOW
    else:
        offset = parse_offset(given)
    return StreamQuery(channel, mode, offset, cursor, is_browser)


def _one(request: Request, name: bytes) -> str | None:
    values = request.args.get(name, [])
    if len(values) > 1:
        raise _invalid(f"There may be one {name.decode()}")
    # what is not ASCII is in no value
    return values[0].decode("iso-8859-1") if values else None


def _invalid(reason: str) -> ProtocolError:
    return ProtocolError(ErrorCode.INVALID_MESSAGE, reason)
