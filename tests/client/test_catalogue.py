"""
The types of events for programs in Python.  tests/client/usage.py shows what mypy makes of them.
"""

from __future__ import annotations

from typing import get_args

import pytest

from dcm_ws.client import Event, catalogue
from dcm_ws.client.catalogue import is_event
from dcm_ws.protocol.catalogue import EVENTS


@pytest.mark.parametrize(
    "name,pattern,matches",
    [
        ("task.created", "task.created", True),
        ("task.created", "task.*", True),
        ("subtask.created", "task.*", False),
        ("task.created", "task.failed", False),
        ("agent.connected", "agent.*", True),
    ],
)
def test_is_event(name: str, pattern: str, matches: bool) -> None:
    """
    An event is recognised by its name, or by the beginning of it.
    """
    event = Event("msg_1", "global", name, {"id": "t1"}, 1, {})
    assert is_event(event, pattern) is matches  # type: ignore[call-overload]


def test_every_event_has_a_type() -> None:
    """
    Each event of the catalogue is in the list of one type.
    """
    lists = ("Task", "Subtask", "Message", "Presence", "Agent", "Session", "Metric", "System")
    names = [name for one in lists for name in get_args(getattr(catalogue, f"{one}Event"))]
    assert sorted(name for name in names if not name.endswith("*")) == sorted(entry.name for entry in EVENTS)
    assert [name for name in names if name.endswith("*")] == [
        "task.*",
        "subtask.*",
        "message.*",
        "session.*",
        "metric.*",
        "system.*",
    ]
