"""
What a program in Python that is type-checked may write, and what it may not: checked by mypy, not run.

Each C{type: ignore} is an error that mypy has to find: it warns of one that is not needed (C{warn_unused_ignores}).
"""

from __future__ import annotations

from typing import assert_type

from dcm_ws.client import DCMClient as TwistedClient
from dcm_ws.client import Event, Gap
from dcm_ws.client.aio import DCMClient
from dcm_ws.client.catalogue import (
    AgentData,
    MetricData,
    PresenceData,
    SystemData,
    TaskData,
    is_event,
)


def save(event: Event[TaskData]) -> None:
    assert_type(event.data, TaskData)
    assert_type(event.data.get("id"), str | None)
    assert_type(event.data.get("completed_at"), str | None)
    assert_type(event.data["last_lines"], list[str])
    event.data["titel"]  # type: ignore[typeddict-item]
    event.data["id"] + 1  # type: ignore[operator]
    event.data.get("id").upper()  # type: ignore[union-attr]
    print(event.data.version)  # type: ignore[attr-defined]


async def save_later(event: Event[TaskData]) -> None:
    save(event)


def anything(event: Event) -> None:
    print(event.data["any"].thing)


async def program(client: DCMClient, service: TwistedClient) -> None:
    client.on("task.*", save)
    client.on("task.*", save_later, channel="topics/x")
    client.on("pipeline.*", anything)
    service.on("task.created", save)
    client.on("task.*", len)  # type: ignore[arg-type]
    async for event in client.events("task.*"):
        anything(event)
        save(event)
        if is_event(event, "task.completed"):
            assert_type(event, Event[TaskData])
    async for item in client.events(gaps=True):
        if not isinstance(item, Gap) and is_event(item, "metric.update"):
            assert_type(item.data, MetricData)
            assert_type(item.data["active_agents"], int)
            item.data["active_agent"]  # type: ignore[typeddict-item]


def by_name(event: Event) -> None:
    if is_event(event, "agent.connected"):
        assert_type(event.data, PresenceData)
        event.data["session_id"].upper()  # type: ignore[union-attr]
    elif is_event(event, "agent.*"):
        assert_type(event.data, PresenceData | AgentData)
        print(event.data["agent_id"])
    elif is_event(event, "system.error"):
        assert_type(event.data, SystemData)
        if event.data["state"] == "dwon":  # type: ignore[comparison-overlap]
            pass
    elif is_event(event, "task.creatd"):  # type: ignore[call-overload]
        pass
    save(Event("msg_1", "global", "metric.update", metrics(), 0, {}))  # type: ignore[arg-type]


def metrics() -> MetricData:
    return {"active_agents": 1}  # type: ignore[typeddict-item]
