"""
Errors as HTTP responses, with one JSON body for all of them (docs/protocol.md, section 8).
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from dcm_ws.protocol.replies import to_json

TOO_LARGE = "TOO_LARGE"
"""
The code of an error: a body, or an event in it, is too large.
"""


def error_body(status: HTTPStatus, reason: str, now_ms: int, code: str = "", **more: object) -> bytes:
    """
    The body of an error.

    @param reason: for people.
    @param now_ms: ms since the epoch.
    @param code: for programs; the name of the status if it is empty.
    @param more: further fields.
    """
    return to_json({"error": reason, "code": code or status.name, "timestamp": now_ms, **more})


def error_response(
    status: HTTPStatus, reason: str, now_ms: int, code: str = "", headers: Mapping[str, str] | None = None
) -> bytes:
    """
    A whole response with an error, after which the connection is closed.  The parameters are those of L{error_body}.

    @param headers: in addition to those that each error has.
    """
    body = error_body(status, reason, now_ms, code)
    fields = {
        **(headers or {}),
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n{lines}\r\n".encode() + body
