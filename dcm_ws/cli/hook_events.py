"""
Converts the hooks of a coding agent to events.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import click

from dcm_ws.cli.options import check_channels

TEXT_MAX = 500
"""
Characters of a text in an event; the rest is cut off.
"""

FULL_MAX = 8_000
"""
Characters of JSON of each field that only C{--full} sends; what is longer is sent as its beginning, a text.
"""

_TOOL = ("tool_name", "tool_use_id")
_WAITING = (None, "permission_prompt", "idle_prompt", "elicitation_dialog")


@dataclass(frozen=True, slots=True)
class _Kind:
    """
    The event for a kind of hook, and which fields of the hook it has.

    @ivar fields: what is sent of its input.
    @ivar full: what is sent in addition with C{--full}.
    """

    event: str
    fields: tuple[str, ...] = ()
    full: tuple[str, ...] = ()


KINDS = {
    "SessionStart": _Kind("session.created", ("source", "model")),
    "SessionEnd": _Kind("session.ended", ("reason",)),
    "UserPromptSubmit": _Kind("agent.unblocked", (), ("prompt",)),
    "PreToolUse": _Kind("agent.heartbeat", _TOOL, ("tool_input",)),
    "PostToolUse": _Kind("agent.heartbeat", _TOOL, ("tool_input", "tool_response")),
    "PostToolUseFailure": _Kind("agent.heartbeat", (*_TOOL, "error"), ("tool_input",)),
    "SubagentStart": _Kind("subtask.running", ("agent_type",)),
    "SubagentStop": _Kind("subtask.completed", ("agent_type",), ("last_assistant_message",)),
    "Notification": _Kind("agent.blocked", ("message", "notification_type")),
    "Stop": _Kind("agent.blocked", (), ("last_assistant_message",)),
}
"""
The hooks that become events, by their C{hook_event_name}.
"""

USELESS_LATER = ("agent.heartbeat",)
"""
Events that are of no use when they are sent late.
"""


def event_of(
    hook: dict[str, Any], *, agent: str | None, channel: str | None, full: bool, now_ms: int, key: str
) -> dict[str, Any] | None:
    """
    The event for a hook, as C{POST /v1/publish} takes it; None if there is none.

    @param hook: what the coding agent writes on standard input.
    @param agent: who publishes; None if that is not known.
    @param channel: None for the channel of the session.
    @param full: also send inputs and results of tools, and messages.
    @param key: the event is published once with this key.
    """
    name = hook.get("hook_event_name")
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None or _is_no_event(hook):
        return None
    session = hook.get("session_id")
    data: dict[str, Any] = {"hook": name, "at": now_ms}
    if agent is not None:
        data["agent_id"] = agent
    if isinstance(session, str):
        data["session_id"] = session[:TEXT_MAX]
    if isinstance(hook.get("cwd"), str):
        # its parents say more of the machine than others need
        data["project"] = _cut(PurePath(hook["cwd"]).name)
    if isinstance(hook.get("agent_id"), str):
        data["id" if kind.event.startswith("subtask.") else "subagent_id"] = _cut(hook["agent_id"])
    data |= {name: _cut(hook[name]) for name in kind.fields if isinstance(hook.get(name), str)}
    if full:
        data |= {name: _shortened(hook[name]) for name in kind.full if name in hook}
    if name == "Stop":
        data["message"] = "waiting for a prompt"
    return {"channel": channel or _channel_of(session), "event": kind.event, "data": data, "key": key}


def _is_no_event(hook: dict[str, Any]) -> bool:
    """
    Whether there is no event for it: a session goes on after its context was compacted, and most notifications need no
    answer.
    """
    match hook["hook_event_name"]:
        case "SessionStart":
            return hook.get("source") == "compact"
        case "Notification":
            return hook.get("notification_type") not in _WAITING
    return False


def _channel_of(session: object) -> str:
    channel = f"sessions/{session}"
    try:
        check_channels((channel,))
    except click.UsageError:
        return "global"
    return channel if isinstance(session, str) else "global"


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MAX else text[:TEXT_MAX] + "…"


def _shortened(value: object) -> object:
    text = json.dumps(value, ensure_ascii=False)
    return value if len(text) <= FULL_MAX else text[:FULL_MAX] + "…"
