"""
What a model may pass to the tools.
"""

from __future__ import annotations

from typing import Any

import pytest

from dcm_ws.mcp.arguments import DESCRIPTIONS, InvalidArgumentsError, WaitForEvent, read, schema
from dcm_ws.mcp.resources import channel_of, uri_of

_VALID: dict[str, Any] = {"message_ids": ["msg_1"], "position": "e.1"}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_schemas_are_strict(name: str) -> None:
    """
    Each tool has an object schema that allows nothing else, and a short description.
    """
    described = schema(name)
    assert (described["type"], described["additionalProperties"]) == ("object", False)
    assert set(described["required"]) <= described["properties"].keys()
    assert 20 < len(DESCRIPTIONS[name][1]) < 120
    with pytest.raises(InvalidArgumentsError, match="unknown field `other`"):
        read(name, {key: _VALID.get(key, "x") for key in described["required"]} | {"other": 1})


@pytest.mark.parametrize(
    "name, arguments, text",
    [
        ("publish", {"channel": "global"}, "missing required field `event`"),
        ("publish", {"channel": "global", "event": 1}, r"Expected `str`, got `int` - at `\$.event`"),
        ("publish", {"channel": "global", "event": "e" * 65}, "length <= 64"),
        ("publish", {"channel": "global", "event": "e", "key": ""}, "length >= 1"),
        ("send_message", {"to": "a", "content": "x" * 500_001}, "length <= 500000"),
        ("wait_for_event", {"timeout_seconds": 601}, "<= 600"),
        ("wait_for_event", {"timeout_seconds": -1}, ">= 0"),
        ("wait_for_event", {"limit": 0}, ">= 1"),
        ("wait_for_event", {"limit": "5"}, "Expected `int`"),
        ("recent_events", {"since": "7"}, "matching regex"),
        ("ack", {"message_ids": []}, "length >= 1"),
        ("complete_task", {"channel": "global", "task_id": "1", "failed": "no"}, "Expected `bool`"),
    ],
)
def test_invalid(name: str, arguments: dict[str, Any], text: str) -> None:
    """
    Invalid arguments are refused with a text that names the field.
    """
    with pytest.raises(InvalidArgumentsError, match=text) as caught:
        read(name, arguments)
    assert str(caught.value).startswith(f"invalid arguments for {name}: ")


def test_defaults() -> None:
    """
    Without arguments, wait_for_event waits half a minute for anything.
    """
    assert read("wait_for_event", {}) == WaitForEvent([], [], [], None, 30, 10)


@pytest.mark.parametrize("channel", ["global", "agents/a/b", "topics/é ?#%&", "topics/a%2fb"])
def test_uris(channel: str) -> None:
    """
    Each channel has a URI, from which its name can be read again.
    """
    assert uri_of(channel).isascii() and " " not in uri_of(channel)
    assert channel_of(uri_of(channel)) == channel


@pytest.mark.parametrize(
    "uri", ["dcm://channels/", "dcm://channels/agents/", "dcm://x/global", "global", "", "file:///etc/passwd"]
)
def test_other_uris(uri: str) -> None:
    """
    Other URIs are no resources.
    """
    assert channel_of(uri) is None
