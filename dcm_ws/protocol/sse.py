"""
Server-sent events: the text of an event stream (WHATWG HTML, section 9.2).

There are two kinds of streams.  A Durable Streams client reads C{data} events, each with an array of messages, and
C{control} events, which say how far it is.  A plain C{EventSource} reads one message an event.  The events of both have
ids, so that a browser that reconnects says where it was.
"""

from __future__ import annotations

from collections.abc import Iterable

HEARTBEAT = b": heartbeat\n"
"""
A comment, which clients ignore.
"""


def data_event(messages: Iterable[bytes], offset: str) -> bytes:
    """
    Messages for a Durable Streams client.

    @param messages: JSON, UTF-8.
    @param offset: the place behind them.
    """
    return b"event: data\ndata:[%b]\nid:%b\n\n" % (one_line(b",".join(messages)), offset.encode())


def control_event(offset: str, cursor: int, *, up_to_date: bool) -> bytes:
    """
    How far a Durable Streams client is.
    """
    end = b',"upToDate":true}' if up_to_date else b"}"
    place = offset.encode()
    return b'event: control\ndata:{"streamNextOffset":"%b","streamCursor":"%d"%b\nid:%b\n\n' % (
        place,
        cursor,
        end,
        place,
    )


def message_event(message: bytes, offset: str) -> bytes:
    """
    A message for a plain C{EventSource}.

    @param message: JSON, UTF-8.
    @param offset: the place behind it.
    """
    return b"data:%b\nid:%b\n\n" % (one_line(message), offset.encode())


def place_event(offset: str) -> bytes:
    """
    How far a plain C{EventSource} is: it remembers the id, and its page sees no event.
    """
    return b"id:%b\n\n" % offset.encode()


def gap_event(reason: str, offset: str) -> bytes:
    """
    A plain C{EventSource} does not receive some events.

    @param reason: as in L{Gap<dcm_ws.protocol.replies.Gap>}.
    @param offset: the place from which it does.
    """
    return b'event: gap\ndata:{"reason":"%b","offset":"%b"}\nid:%b\n\n' % (
        reason.encode(),
        offset.encode(),
        offset.encode(),
    )


def comment(text: str) -> bytes:
    """
    A line that clients ignore.

    @param text: one line.
    """
    return b": %b\n" % text.encode()


def retry_field(ms: int) -> bytes:
    """
    How long a client waits before it reconnects.
    """
    return b"retry:%d\n\n" % ms


def one_line(json: bytes) -> bytes:
    """
    The same JSON without line breaks, which end a field.  Inside of strings JSON has none.
    """
    if b"\n" in json or b"\r" in json:
        return json.replace(b"\r", b" ").replace(b"\n", b" ")
    return json


def chunk(data: bytes) -> bytes:
    """
    A chunk of a response with C{Transfer-Encoding: chunked} (RFC 9112, section 7.1).
    """
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
"""
Ends such a response.
"""
