"""
The settings of a coding agent, with and without the hooks that C{dcm-ws init-hooks} installs.
"""

from __future__ import annotations

import copy
import json
import re
from typing import Any

DEFAULT_EVENTS = (
    "SessionStart",
    "SessionEnd",
    "UserPromptSubmit",
    "PostToolUse",
    "SubagentStart",
    "SubagentStop",
    "Notification",
)
"""
The hooks that are installed without C{--event}.
"""

TIMEOUT = 5
"""
Seconds after which the coding agent ends a hook.
"""

_OURS = re.compile(r"""(?:^|[\s/'"])dcm-ws['"]?\s+hook(?:\s|$)""")
_INDENT = re.compile(r"^\s*[{\[][ \t]*\r?\n([ \t]+)\S")


class SettingsFormatError(ValueError):
    """
    The settings are not what a coding agent writes; the text says why.
    """


def parsed(text: str) -> dict[str, Any]:
    """
    Read settings; an empty text has none.

    @raise SettingsFormatError: they cannot be read without losing something.
    """
    if not text.strip():
        return {}
    try:
        settings = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise SettingsFormatError(f"it is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise SettingsFormatError("it is not a JSON object")
    hooks = settings.get("hooks", {})
    if not isinstance(hooks, dict) or not all(isinstance(groups, list) for groups in hooks.values()):
        raise SettingsFormatError("its `hooks` are not an object with lists")
    return settings


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("an object has a key twice")
    return fields


def without_ours(settings: dict[str, Any]) -> dict[str, Any]:
    """
    The settings without the hooks that this program has installed; what gets empty by that is removed.
    """
    result = copy.deepcopy(settings)
    hooks = result.get("hooks", {})
    for event, groups in list(hooks.items()):
        left = [group for group in groups if not _strip(group)]
        if left or not groups:
            hooks[event] = left
        else:
            del hooks[event]
    if not hooks and settings.get("hooks"):
        del result["hooks"]
    return result


def _strip(group: Any) -> bool:
    """
    Remove our hooks from a group; returns whether it was only for them.
    """
    hooks = group.get("hooks") if isinstance(group, dict) else None
    if not isinstance(hooks, list):
        return False
    kept = [hook for hook in hooks if not _is_ours(hook)]
    only_ours = bool(hooks) and not kept
    group["hooks"] = kept
    return only_ours


def _is_ours(hook: Any) -> bool:
    command = hook.get("command") if isinstance(hook, dict) else None
    return isinstance(command, str) and _OURS.search(command) is not None


def with_ours(settings: dict[str, Any], command: str, events: tuple[str, ...]) -> dict[str, Any]:
    """
    The settings with our hooks, in place of those that were installed before.

    @param command: what the coding agent runs.
    @param events: the names of the hooks.
    """
    result = without_ours(settings)
    hooks = result.setdefault("hooks", {})
    for event in events:
        hook = {"type": "command", "command": command, "timeout": TIMEOUT}
        hooks.setdefault(event, []).append({"hooks": [hook]})
    return result


def written(settings: dict[str, Any], before: str) -> str:
    """
    The settings as text, indented and ended as before.
    """
    found = _INDENT.match(before.removeprefix("\ufeff"))
    indent = found[1] if found else "  "
    text = json.dumps(settings, ensure_ascii=False, indent=indent) + "\n"
    if before and not before.endswith("\n"):
        text = text.removesuffix("\n")
    if "\r\n" in before:
        text = text.replace("\n", "\r\n")
    return text
