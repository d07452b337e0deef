"""
The WebSocket paths, and what all pages have in common.
"""

from __future__ import annotations

import json

import pytest

from tests.http.service import Service


@pytest.mark.parametrize(
    ("accept", "redirected"),
    [
        ("text/html", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("TEXT/HTML ; q=0.5", True),
        ("application/json;q=0.4, text/html;q=0.5", True),
        ("application/json;q=x, text/html", True),
        ("text/html;level=1;q=0.7", True),
        ("", False),
        ("*/*", False),
        ("text/*", False),
        ("application/json", False),
        ("application/json, text/html", False),
        ("text/html;q=0", False),
        ("text/html;q=nonsense", False),
        ("text/html;q", False),
        ("text/html;q=0.5, application/json;q=0.6", False),
        (";;;,,,q=", False),
    ],
)
def test_person_or_program(service: Service, accept: str, redirected: bool) -> None:
    """
    Clients that prefer HTML to JSON are redirected to the live page; all others receive the answer to use WebSocket.
    """
    for path in ("/", "/ws", "/ws?agent_id=a"):
        status, headers, _ = service.get(path, Accept=accept)
        assert status == (302 if redirected else 426)
        assert headers["Vary"] == "Accept"
        assert headers.get("Location") == ("live" if redirected else None)


@pytest.mark.parametrize("path", ["/", "/ws", "/health", "/stats", "/nothing"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_answer_is_json(service: Service, path: str, method: str) -> None:
    """
    Every response is JSON, and must neither be cached nor taken for another type.
    """
    _, headers, body = service.get(path, method)
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert isinstance(json.loads(body), dict)
