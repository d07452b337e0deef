"""
Events of which only the latest matters.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcm_ws.core.latest import LatestEvents


def subject(latest: LatestEvents, event: str, data: object) -> str | None:
    reader = latest.subject_of(event)
    return None if reader is None else reader(json.dumps(data).encode())


def test_built_in() -> None:
    """
    Metrics and heartbeats have one subject for each agent, and of all other events each matters.
    """
    latest = LatestEvents()
    assert subject(latest, "metric.update", {"a": 1}) == ""
    assert subject(latest, "agent.heartbeat", {"agent_id": "ann"}) == "ann"
    assert subject(latest, "agent.heartbeat", 5) == ""
    for event in ("task.created", "agent.connected", "capacity.update", "metric.updated", "orchestrator.heartbeat"):
        assert subject(latest, event, {}) is None


def test_fields() -> None:
    """
    The value of the field tells apart, whatever it is, and what does not have it is one subject.
    """
    latest = LatestEvents(["capacity.update:project_id", "orchestrator.heartbeat", "sensor.*:id", "build:progress:"])
    values = ["a", "b", "", 1, 1.5, None, [1], {"x": 1}, "x" * 1000, "y" * 1000, True]
    subjects = [subject(latest, "capacity.update", {"n": 1, "project_id": value}) for value in values]
    assert len(set(subjects)) == len(values)
    assert all(found and len(found) <= 128 for found in subjects)
    assert subject(latest, "capacity.update", {"project_id": "a", "n": 2}) == subjects[0]
    others: tuple[Any, ...] = ({}, [], 5, "project_id", None, {"projectid": 1})
    for data in others:
        assert subject(latest, "capacity.update", data) == ""
    assert subject(latest, "orchestrator.heartbeat", {"id": 1}) == ""
    assert subject(latest, "sensor.a.b", {"id": 1}) == subject(latest, "sensor.c", {"id": 1}) == "1"
    assert subject(latest, "sensor", {}) is None
    assert subject(latest, "build:progress", {}) == ""
    assert subject(latest, "build", {}) is None
    assert subject(latest, "metric.update", {}) == ""


@pytest.mark.parametrize(
    "data", [b'{"f":' + b"[" * 200_000 + b"]" * 200_000 + b"}", b'{"f":"\\ud83d"}', b'{"f":"\xff"}', b"{"]
)
def test_data_that_cannot_be_read(data: bytes) -> None:
    """
    Data that is nested too deeply to be read, or is not UTF-8, has a subject, too.
    """
    reader = LatestEvents(["a.b:f"]).subject_of("a.b")
    assert reader is not None
    assert len(reader(data)) <= 128


@given(st.binary(max_size=60))
def test_any_data(data: bytes) -> None:
    """
    Whatever the data is, telling what it is about does not fail.
    """
    reader = LatestEvents(["a.b:f"]).subject_of("a.b")
    assert reader is not None
    assert len(reader(b'{"f":' + data + b"}")) <= 128


@pytest.mark.parametrize(
    "pattern",
    ["task.created", "task.*", "subtask.running:id", "message.*:agent", "task.x", "task.:x"],
)
def test_tracked_events_are_refused(pattern: str) -> None:
    """
    Of events that must be acknowledged each matters.
    """
    with pytest.raises(ValueError, match="tracked"):
        LatestEvents([pattern])


@pytest.mark.parametrize("pattern", ["", "*", ":field", "a b", "a*", "*:f", "a.**", "x" * 65, "é"])
def test_bad_patterns_are_refused(pattern: str) -> None:
    """
    What no event could be called is a mistake.
    """
    with pytest.raises(ValueError, match="PATTERN"):
        LatestEvents([pattern])
