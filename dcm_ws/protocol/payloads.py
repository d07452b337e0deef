"""
The data of the events of the catalogue, field by field: what the service, its triggers and its commands send.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple


class Kind(Enum):
    """
    What a field may be, as JSON.
    """

    TEXT = auto()
    TEXT_OR_NULL = auto()
    INTEGER = auto()
    NUMBER = auto()
    TEXTS = auto()
    TRUE = auto()
    ANY = auto()


class Field(NamedTuple):
    """
    A field of the data.

    @ivar sources: what sends it: C{row} (the triggers of C{init-db}), C{run}, C{hook} or C{mcp} (the commands of these
        names), or C{service}.
    @ivar words: for C{Kind.TEXT}: all values that it may have; empty if it may have any.
    """

    name: str
    kind: Kind
    sources: tuple[str, ...]
    meaning: str
    words: tuple[str, ...] = ()


class Payload(NamedTuple):
    """
    The data of some events.

    @ivar name: the name of its type.
    @ivar exact: all fields are always there, and there are no others; otherwise each may be missing, and publishers may
        send others.
    """

    name: str
    meaning: str
    fields: tuple[Field, ...]
    exact: bool = False


_ROW, _RUN, _HOOK, _MCP, _SERVICE = ("row",), ("run",), ("hook",), ("mcp",), ("service",)
_TEXT, _TEXT_OR_NULL, _INTEGER, _NUMBER = Kind.TEXT, Kind.TEXT_OR_NULL, Kind.INTEGER, Kind.NUMBER

_CUT = (
    Field("omitted", Kind.TEXTS, _ROW, "columns that were left out, because they have more than 500 bytes"),
    Field("truncated", Kind.TRUE, _ROW, "the row was too large: only its ids and its `status` were sent"),
)
_TIMES = (
    Field("created_at", _TEXT, _ROW, "ISO 8601"),
    Field("completed_at", _TEXT_OR_NULL, _ROW, "ISO 8601"),
)
_AT = Field("at", _INTEGER, (*_RUN, *_HOOK), "when it happened, in milliseconds since the epoch")
_NAME_OF_RUN = Field("name", _TEXT, _RUN, "the name of the command")
_ENDED = (
    Field("exit_status", _INTEGER, _RUN, "exit status of the command"),
    Field("duration_s", _NUMBER, _RUN, "seconds that the command ran"),
    Field("last_lines", Kind.TEXTS, _RUN, "the end of its output"),
    Field("signal", _TEXT, _RUN, "the signal that ended it"),
)
_COULD_NOT_RUN = Field("error", _TEXT, _RUN, "why the command could not be run")
_OF_HOOKS = (
    Field("hook", _TEXT, _HOOK, "the name of the hook"),
    Field("session_id", _TEXT, _HOOK, "the session of the coding agent"),
    Field("project", _TEXT, _HOOK, "the name of its folder"),
)
_SUBAGENT = Field("subagent_id", _TEXT, _HOOK, "the subagent that it concerns")
_SAID_LAST = Field("last_assistant_message", Kind.ANY, _HOOK, "with `--full`")

TASK = Payload(
    "TaskData",
    "Data of `task.*`.",
    (
        Field("id", _TEXT, (*_ROW, *_RUN), "the task"),
        Field("request_id", _TEXT_OR_NULL, _ROW, "the request that it belongs to"),
        Field("name", _TEXT_OR_NULL, (*_ROW, *_RUN), "what it is called"),
        Field("wave_number", _INTEGER, _ROW, "its place among the waves of the request"),
        Field("status", _TEXT, (*_ROW, *_MCP), "`pending`, `running`, `completed`, `failed`, or another one"),
        *_TIMES,
        *_CUT,
        _AT,
        Field("agent_id", _TEXT, _RUN, "the agent that runs it"),
        *_ENDED,
        _COULD_NOT_RUN,
        Field("task_id", _TEXT, _MCP, "the task that was claimed or ended"),
        Field("result", Kind.ANY, _MCP, "what came of it"),
    ),
)
SUBTASK = Payload(
    "SubtaskData",
    "Data of `subtask.*`.",
    (
        Field("id", _TEXT, (*_ROW, *_RUN, *_HOOK), "the subtask"),
        Field("task_list_id", _TEXT_OR_NULL, (*_ROW, *_RUN), "the task that it belongs to"),
        Field("agent_type", _TEXT_OR_NULL, (*_ROW, *_HOOK), "the kind of agent that does it"),
        Field("agent_id", _TEXT_OR_NULL, (*_ROW, *_RUN, *_HOOK), "the agent that does it"),
        Field("description", _TEXT_OR_NULL, _ROW, "what is to be done"),
        Field("status", _TEXT, _ROW, "`pending`, `running`, `completed`, `failed`, or another one"),
        *_TIMES,
        Field("result", Kind.ANY, _ROW, "what came of it"),
        *_CUT,
        _NAME_OF_RUN,
        _AT,
        *_ENDED,
        _COULD_NOT_RUN,
        *_OF_HOOKS,
        _SAID_LAST,
    ),
)
MESSAGE = Payload(
    "MessageData",
    "Data of `message.*`.",
    (
        Field("id", _TEXT, _ROW, "the message"),
        Field("from_agent_id", _TEXT_OR_NULL, _ROW, "who sent it"),
        Field("to_agent_id", _TEXT_OR_NULL, _ROW, "who is to read it"),
        Field("topic", _TEXT_OR_NULL, _ROW, "its topic"),
        Field("payload", Kind.ANY, _ROW, "its contents"),
        Field("priority", _INTEGER, _ROW, "its priority"),
        Field("created_at", _TEXT, _ROW, "ISO 8601"),
        Field("expires_at", _TEXT_OR_NULL, _ROW, "ISO 8601"),
        *_CUT,
        Field("content", _TEXT, _MCP, "the text"),
        Field("reply_to", _TEXT, _MCP, "the `id` of the event that it answers"),
    ),
)
PRESENCE = Payload(
    "PresenceData",
    "Data of `agent.connected` and `agent.disconnected`.",
    (
        Field("agent_id", _TEXT, _SERVICE, "the agent"),
        Field("client_id", _TEXT, _SERVICE, "its connection"),
        Field("session_id", _TEXT_OR_NULL, _SERVICE, "its DCM session; null if none is known"),
    ),
    exact=True,
)
AGENT = Payload(
    "AgentData",
    "Data of `agent.heartbeat`, `agent.blocked` and `agent.unblocked`.",
    (
        Field("agent_id", _TEXT, (*_RUN, *_HOOK), "the agent"),
        _AT,
        Field("id", _TEXT, _RUN, "the task that is being run"),
        Field("task_list_id", _TEXT, _RUN, "the task that the subtask belongs to"),
        _NAME_OF_RUN,
        Field("elapsed_s", _NUMBER, _RUN, "seconds since the command was started"),
        *_OF_HOOKS,
        _SUBAGENT,
        Field("tool_name", _TEXT, _HOOK, "the tool that is used"),
        Field("tool_use_id", _TEXT, _HOOK, "which use of it"),
        Field("error", _TEXT, _HOOK, "why the tool failed"),
        Field("message", _TEXT, _HOOK, "what the agent waits for"),
        Field("notification_type", _TEXT, _HOOK, "the kind of notification"),
        Field("prompt", Kind.ANY, _HOOK, "with `--full`"),
        Field("tool_input", Kind.ANY, _HOOK, "with `--full`"),
        Field("tool_response", Kind.ANY, _HOOK, "with `--full`"),
        _SAID_LAST,
    ),
)
SESSION = Payload(
    "SessionData",
    "Data of `session.*`.",
    (
        Field("id", _TEXT, _ROW, "the session"),
        Field("started_at", _TEXT, _ROW, "ISO 8601"),
        Field("ended_at", _TEXT_OR_NULL, _ROW, "ISO 8601"),
        *_CUT,
        *_OF_HOOKS,
        _AT,
        Field("agent_id", _TEXT, _HOOK, "the agent"),
        _SUBAGENT,
        Field("source", _TEXT, _HOOK, "how it began"),
        Field("model", _TEXT, _HOOK, "the language model"),
        Field("reason", _TEXT, _HOOK, "why it ended"),
    ),
)
METRICS = Payload(
    "MetricData",
    "Data of `metric.update`.",
    (
        Field("active_sessions", _INTEGER, _SERVICE, "sessions that go on"),
        Field("active_agents", _INTEGER, _SERVICE, "agents with a running subtask"),
        Field("pending_tasks", _INTEGER, _SERVICE, "tasks that wait"),
        Field("running_tasks", _INTEGER, _SERVICE, "tasks that run"),
        Field("completed_tasks_last_hour", _INTEGER, _SERVICE, "tasks that were completed in the last hour"),
        Field("avg_task_duration_ms", _NUMBER, _SERVICE, "mean duration of tasks"),
        Field("messages_last_hour", _INTEGER, _SERVICE, "messages of the last hour"),
        Field("actions_per_minute", _NUMBER, _SERVICE, "actions per minute, over 5 minutes"),
        Field("timestamp", _INTEGER, _SERVICE, "when they were read, in milliseconds since the epoch"),
    ),
    exact=True,
)
SYSTEM = Payload(
    "SystemData",
    "Data of `system.*`.",
    (
        Field("component", _TEXT, _SERVICE, "what it is about", ("database", "server")),
        Field("state", _TEXT, _SERVICE, "what has become of it", ("up", "down", "draining")),
    ),
)
