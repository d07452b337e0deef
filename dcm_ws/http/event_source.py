"""
What a browser's C{EventSource} gets in place of an error that will pass.

It gives up for good at every status other than 200 (WHATWG HTML, section 9.2.3), and does not show its page which one
it was.  So it gets a stream that ends at once, and that says when to come back.
"""

from __future__ import annotations

from http import HTTPStatus

from dcm_ws.http.encodings import RETRY_MS
from dcm_ws.http.heads import origin_form
from dcm_ws.http.request_headers import accepted_types
from dcm_ws.protocol.errors import ErrorCode
from dcm_ws.protocol.sse import comment, retry_field

TOO_MANY_CONNECTIONS = "TOO_MANY_CONNECTIONS"
"""
The code of a refusal: there is no room for another connection.
"""

PASSING = (ErrorCode.RATE_LIMITED, ErrorCode.NOT_AVAILABLE, TOO_MANY_CONNECTIONS)
"""
The codes of errors that will pass.
"""

AGAIN_MS = 3000
"""
How long a browser waits if the error does not say it.
"""

EVENT_STREAM = "text/event-stream"

_STREAMS = b"/v1/streams/"


def is_event_source(method: bytes, target: bytes, accept: str) -> bool:
    """
    Is a request for a stream that of an C{EventSource}?  Durable Streams clients do not send that C{Accept}.

    @param target: as in the request line.
    """
    path, _, query = origin_form(target).partition(b"?")
    return (
        method == b"GET"
        and path.startswith(_STREAMS)
        and b"live=long-poll" not in query
        and EVENT_STREAM in accepted_types(accept)
    )


def comes_back(code: str, reason: str, after_ms: int | None = None) -> bytes:
    """
    A stream that ends at once.

    @param code: and C{reason}: for those who look at it with C{curl}.
    """
    return comment(f"{code}: {reason}") + retry_field(AGAIN_MS if after_ms is None else max(RETRY_MS, after_ms))


def comes_back_response(code: str, reason: str) -> bytes:
    """
    The same as a whole response, after which the connection is closed.
    """
    body, status = comes_back(code, reason), HTTPStatus.OK
    # nothing in it is of use to a page, and which ones may call has not been looked at
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {EVENT_STREAM}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nAccess-Control-Allow-Origin: *\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
