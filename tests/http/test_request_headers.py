"""
The parts of request headers.
"""

from __future__ import annotations

import pytest

from dcm_ws.http.request_headers import accepted_types, bearer_token, read_headers


@pytest.mark.parametrize(
    ("authorization", "token"),
    [
        ("", ""),
        ("Bearer", ""),
        ("Bearer ", ""),
        ("Bearer a.b", "a.b"),
        ("bearer  a.b ", "a.b"),
        ("BEARER a b", "a b"),
        ("Basic a.b", ""),
        (" Bearer a.b", ""),
        ("a.b", ""),
    ],
)
def test_bearer_token(authorization: str, token: str) -> None:
    """
    The scheme is compared without its case, and other schemes have no token.
    """
    assert bearer_token(authorization) == token


@pytest.mark.parametrize(
    ("accept", "types"),
    [
        ("Text/HTML", {"text/html": 1.0}),
        ("a/b;q=0.5, c/d ; level=1;q=0", {"a/b": 0.5, "c/d": 0.0}),
        ("a/b;q=x", {"a/b": 0.0}),
        ("a/b;q=0.5,a/b", {"a/b": 1.0}),
        ("a/b;q", {"a/b": 0.0}),
    ],
)
def test_accepted_types(accept: str, types: dict[str, float]) -> None:
    """
    Each type has its quality: 1 unless it is given, and 0 if that is not a number.
    """
    assert accepted_types(accept) == types


def test_headers_end_where_lines_do() -> None:
    """
    A byte at which Unicode ends a line does not begin a header.
    """
    headers = read_headers(b"GET / HTTP/1.1\r\nX-Forwarded-For: a\r\nx-forwarded-for: b\r\nY: \x85Z: c")

    assert headers == {"x-forwarded-for": "a, b", "y": "Z: c"}
