"""
The arguments of the tools: their types and limits, and their descriptions for the model.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

TIMEOUT_MAX = 600
"""
Seconds that C{wait_for_event} waits at most.
"""

LIMIT_MAX = 100
"""
Events in one result.
"""

Channel = Annotated[
    str, Meta(description="global, agents/NAME, sessions/ID or topics/NAME", min_length=1, max_length=256)
]
Channels = Annotated[list[Channel], Meta(description="Only events of these channels.", max_length=20)]
Patterns = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=64)]],
    Meta(description="Only events whose name matches one of these patterns, such as task.*", max_length=20),
]
Names = Annotated[
    list[Annotated[str, Meta(max_length=128)]],
    Meta(description="Only events that these agents published.", max_length=20),
]
Position = Annotated[
    str, Meta(description="position of an event, EPOCH.POS", pattern=r"^[^\s.]{1,64}\.\d{1,15}$", max_length=80)
]
Key = Annotated[
    str,
    Meta(
        description="Makes a repeated call safe: with the same key, one event is published within 10 minutes.",
        min_length=1,
        max_length=128,
    ),
]
# without its types, some clients would take it for a string
Json = dict[str, Any] | list[Any] | str | float | int | bool | None
Limit = Annotated[int, Meta(description="At most so many events.", ge=1, le=LIMIT_MAX)]
MessageId = Annotated[str, Meta(description="id of an event, msg_…", min_length=1, max_length=128)]
TaskId = Annotated[str, Meta(description="task_id of the task", min_length=1, max_length=200)]
EventName = Annotated[str, Meta(description="such as task.created or message.new", min_length=1, max_length=64)]
AgentName = Annotated[str, Meta(description="name of the agent", min_length=1, max_length=128)]
Text = Annotated[str, Meta(description="the text", max_length=500_000)]
MoreFields = Annotated[dict[str, Any] | None, Meta(description="more fields, for programs")]
AnyJson = Annotated[Json, Meta(description="any JSON value")]
Answered = Annotated[str, Meta(description="id of the event to reply to", min_length=1, max_length=128)]
WaitFrom = Annotated[
    Position | None,
    Meta(description="First look in the log for events after this position, also if they were shown before."),
]
Timeout = Annotated[float, Meta(description="0 returns at once.", ge=0, le=TIMEOUT_MAX)]
ReadChannels = Annotated[
    list[Channel], Meta(description="Default: the channels that you are subscribed to.", max_length=20)
]
ReadFrom = Annotated[
    Position | None, Meta(description="The first events after this position. Default: the latest events.")
]
AgentLimit = Annotated[int, Meta(description="At most so many agents.", ge=1, le=1_000)]
MessageIds = Annotated[list[MessageId], Meta(min_length=1, max_length=1_000)]
TaskChannel = Annotated[str, Meta(description="the channel of the task's event", min_length=1, max_length=256)]
TaskPosition = Annotated[
    Position, Meta(description="position of the event that announced the task; all agents must use the same")
]
Failed = Annotated[bool, Meta(description="true publishes task.failed")]


class Arguments(msgspec.Struct, forbid_unknown_fields=True):
    """
    The arguments of a tool.
    """


class Publish(Arguments):
    channel: Channel
    event: EventName
    data: AnyJson = None
    key: Key | None = None


class SendMessage(Arguments):
    to: AgentName
    content: Text
    data: MoreFields = None
    key: Key | None = None


class Reply(Arguments):
    message_id: Answered
    content: Text
    key: Key | None = None


class WaitForEvent(Arguments):
    channels: Channels = []
    events: Patterns = []
    senders: Names = []
    since: WaitFrom = None
    timeout_seconds: Timeout = 30
    limit: Limit = 10


class RecentEvents(Arguments):
    channels: ReadChannels = []
    events: Patterns = []
    senders: Names = []
    since: ReadFrom = None
    limit: Limit = 20


class ListAgents(Arguments):
    limit: AgentLimit = 100


class Ack(Arguments):
    message_ids: MessageIds


class Subscribe(Arguments):
    channel: Channel


class Unsubscribe(Arguments):
    channel: Channel


class ClaimTask(Arguments):
    channel: TaskChannel
    task_id: TaskId
    position: TaskPosition


class CompleteTask(Arguments):
    channel: TaskChannel
    task_id: TaskId
    result: AnyJson = None
    failed: Failed = False


DESCRIPTIONS: dict[str, tuple[type[Arguments], str]] = {
    "publish": (Publish, "Publish an event to a channel. Returns its id and position."),
    "send_message": (
        SendMessage,
        "Send a message to another agent. An agent that is away gets it when it comes back.",
    ),
    "reply": (Reply, "Reply to the agent that published an event which you were shown."),
    "wait_for_event": (
        WaitForEvent,
        "Return the events that you have not been shown yet, the oldest first; if there are none, wait for one.",
    ),
    "recent_events": (
        RecentEvents,
        "Look into the log: the latest events, or those after a position, whether you have been shown them or not.",
    ),
    "list_agents": (ListAgents, "The agents that are connected now."),
    "ack": (Ack, "Mark waiting events as read without being shown them."),
    "subscribe": (Subscribe, "Receive the events of a channel from now on."),
    "unsubscribe": (Unsubscribe, "Receive no more events of a channel."),
    "claim_task": (
        ClaimTask,
        "Claim a task before you work on it. Of all agents that claim it, exactly one gets claimed: true.",
    ),
    "complete_task": (CompleteTask, "Publish that a task is completed or has failed."),
}
"""
The tools by name: their arguments, and a description for the model.
"""


READ_ONLY = frozenset({"wait_for_event", "recent_events", "list_agents"})
"""
The tools that publish nothing and change no subscription.
"""


class InvalidArgumentsError(ValueError):
    """
    The model passed arguments that the tool does not accept; the text says why.
    """


def read(name: str, arguments: dict[str, Any]) -> Arguments:
    """
    @param name: one of L{DESCRIPTIONS}.
    @raise InvalidArgumentsError: they are invalid.
    """
    try:
        return msgspec.convert(arguments, DESCRIPTIONS[name][0])
    except msgspec.ValidationError as error:
        raise InvalidArgumentsError(f"invalid arguments for {name}: {error}") from None


def schema(name: str) -> dict[str, Any]:
    """
    The JSON schema of a tool's arguments.
    """
    kind = DESCRIPTIONS[name][0]
    (_,), components = msgspec.json.schema_components([kind])
    described: dict[str, Any] = components[kind.__name__]
    described.pop("title", None)
    described.pop("description", None)
    return described
