"""
Errors as HTTP responses.
"""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest

from dcm_ws.http.refusals import error_body, error_response


@pytest.mark.parametrize(("code", "named"), [("", "NOT_FOUND"), ("NO_SUCH_THING", "NO_SUCH_THING")])
def test_body(code: str, named: str) -> None:
    """
    The body names the reason, the code, which is the name of the status unless another is given, and the time.
    """
    body = error_body(HTTPStatus.NOT_FOUND, "It is »gone«", 1_706_000_000_000, code)
    assert json.loads(body) == {"error": "It is »gone«", "code": named, "timestamp": 1_706_000_000_000}


def test_response() -> None:
    """
    A response has the length of its body in bytes, ends the connection, and has the headers that it is given.
    """
    response = error_response(HTTPStatus.FORBIDDEN, "»No«", 1, "X", {"Upgrade": "websocket"})
    head, _, body = response.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    assert status == "HTTP/1.1 403 Forbidden"
    assert dict(line.split(": ") for line in lines) == {
        "Upgrade": "websocket",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    assert body == error_body(HTTPStatus.FORBIDDEN, "»No«", 1, "X")
