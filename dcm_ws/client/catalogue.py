"""
The names of the events of the catalogue, and types of their data, for programs that are type-checked::

    async for event in client.events("task.*"):
        if is_event(event, "task.completed"):
            print(event.data.get("id"))

C{python -m dcm_ws.app.documentation} makes this module of the tables in C{dcm_ws/protocol}: do not change it here.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Literal, TypedDict, TypeGuard, overload

from dcm_ws.client.events import Event


class TaskData(TypedDict, total=False):
    """
    Data of C{task.*}.
    """

    id: str
    request_id: str | None
    name: str | None
    wave_number: int
    status: str
    created_at: str
    completed_at: str | None
    omitted: list[str]
    truncated: Literal[True]
    at: int
    agent_id: str
    exit_status: int
    duration_s: float
    last_lines: list[str]
    signal: str
    error: str
    task_id: str
    result: Any


class SubtaskData(TypedDict, total=False):
    """
    Data of C{subtask.*}.
    """

    id: str
    task_list_id: str | None
    agent_type: str | None
    agent_id: str | None
    description: str | None
    status: str
    created_at: str
    completed_at: str | None
    result: Any
    omitted: list[str]
    truncated: Literal[True]
    name: str
    at: int
    exit_status: int
    duration_s: float
    last_lines: list[str]
    signal: str
    error: str
    hook: str
    session_id: str
    project: str
    last_assistant_message: Any


class MessageData(TypedDict, total=False):
    """
    Data of C{message.*}.
    """

    id: str
    from_agent_id: str | None
    to_agent_id: str | None
    topic: str | None
    payload: Any
    priority: int
    created_at: str
    expires_at: str | None
    omitted: list[str]
    truncated: Literal[True]
    content: str
    reply_to: str


class PresenceData(TypedDict):
    """
    Data of C{agent.connected} and C{agent.disconnected}.
    """

    agent_id: str
    client_id: str
    session_id: str | None


class AgentData(TypedDict, total=False):
    """
    Data of C{agent.heartbeat}, C{agent.blocked} and C{agent.unblocked}.
    """

    agent_id: str
    at: int
    id: str
    task_list_id: str
    name: str
    elapsed_s: float
    hook: str
    session_id: str
    project: str
    subagent_id: str
    tool_name: str
    tool_use_id: str
    error: str
    message: str
    notification_type: str
    prompt: Any
    tool_input: Any
    tool_response: Any
    last_assistant_message: Any


class SessionData(TypedDict, total=False):
    """
    Data of C{session.*}.
    """

    id: str
    started_at: str
    ended_at: str | None
    omitted: list[str]
    truncated: Literal[True]
    hook: str
    session_id: str
    project: str
    at: int
    agent_id: str
    subagent_id: str
    source: str
    model: str
    reason: str


class MetricData(TypedDict):
    """
    Data of C{metric.update}.
    """

    active_sessions: int
    active_agents: int
    pending_tasks: int
    running_tasks: int
    completed_tasks_last_hour: int
    avg_task_duration_ms: float
    messages_last_hour: int
    actions_per_minute: float
    timestamp: int


class SystemData(TypedDict, total=False):
    """
    Data of C{system.*}.
    """

    component: Literal["database", "server"]
    state: Literal["up", "down", "draining"]


TaskEvent = Literal[
    "task.created",
    "task.updated",
    "task.completed",
    "task.failed",
    "task.*",
]


SubtaskEvent = Literal[
    "subtask.created",
    "subtask.updated",
    "subtask.running",
    "subtask.completed",
    "subtask.failed",
    "subtask.*",
]


MessageEvent = Literal[
    "message.new",
    "message.read",
    "message.expired",
    "message.*",
]


PresenceEvent = Literal[
    "agent.connected",
    "agent.disconnected",
]


AgentEvent = Literal[
    "agent.heartbeat",
    "agent.blocked",
    "agent.unblocked",
]


SessionEvent = Literal[
    "session.created",
    "session.ended",
    "session.*",
]


MetricEvent = Literal[
    "metric.update",
    "metric.*",
]


SystemEvent = Literal[
    "system.error",
    "system.info",
    "system.*",
]


@overload
def is_event(event: Event, pattern: TaskEvent) -> TypeGuard[Event[TaskData]]: ...


@overload
def is_event(event: Event, pattern: SubtaskEvent) -> TypeGuard[Event[SubtaskData]]: ...


@overload
def is_event(event: Event, pattern: MessageEvent) -> TypeGuard[Event[MessageData]]: ...


@overload
def is_event(event: Event, pattern: PresenceEvent) -> TypeGuard[Event[PresenceData]]: ...


@overload
def is_event(event: Event, pattern: AgentEvent) -> TypeGuard[Event[AgentData]]: ...


@overload
def is_event(event: Event, pattern: SessionEvent) -> TypeGuard[Event[SessionData]]: ...


@overload
def is_event(event: Event, pattern: MetricEvent) -> TypeGuard[Event[MetricData]]: ...


@overload
def is_event(event: Event, pattern: SystemEvent) -> TypeGuard[Event[SystemData]]: ...


@overload
def is_event(event: Event, pattern: Literal["agent.*"]) -> TypeGuard[Event[PresenceData | AgentData]]: ...


def is_event(event: Event, pattern: str) -> bool:
    """
    True if the name of the event matches C{pattern}.  A type checker then knows its data.

    @param pattern: a name of the catalogue, or C{task.*} for all events of a family.
    """
    return fnmatchcase(event.event, pattern)
