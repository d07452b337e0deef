"""
Changes an input while it stays JSON.  The decoder is C, of whose branches the fuzzer sees nothing: left to itself it
would hardly get past the syntax.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

_NAMES = (
    *("type", "id", "timestamp", "channel", "event", "data", "token", "agent_id", "session_id", "message_id"),
    *("epoch", "pos", "channels", "resume", "observer", "durable", "delay_ms", "key"),
    *("issued_at", "expires_at", "", "é", "\ud83d"),
)
_TEXTS = (
    *("subscribe", "unsubscribe", "publish", "auth", "ping", "pong", "ack", "nack", "resume"),
    *("global", "metrics", "agents/a", "sessions/s", "topics/a/b", "topics//", "projects", "agents/", "topics/a\n"),
    *("task.created", "pipeline.done", "metric.update", "task.", ".", "Task.Created", "task.created\n"),
    *("", "a", "a" * 65, "a" * 128, "a" * 129, "\0", "\x7f", "\u2028", "é", "\U0001f600", "\ud83d", "\ude00\ud83d"),
)
_WALL = 1_706_000_000_000
_NUMBERS = (
    *(0, -1, 1, 0.5, -0.0, 1e308, 5e-324, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**30),
    *(_WALL, _WALL - 1, _WALL + 3_600_000, _WALL + 0.5, 8_640_000_000_000_000, 8_640_000_000_000_001),
)
_OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"a": None})


def mutate(data: bytes, max_size: int, seed: int, blindly: Callable[[bytes, int], bytes]) -> bytes:
    """
    Another input like C{data}, at most C{max_size} long.

    @param blindly: changes bytes without knowing what they mean; it does so half of the time.
    """
    random = Random(seed)
    mark = data[:1] if data[:1] == b"\0" else b""
    try:
        value = json.loads(data[len(mark) :])
    except (ValueError, RecursionError):
        return blindly(data, max_size)
    if random.random() < 0.5:
        return blindly(data, max_size)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        value = _changed(value, random)
    text = json.dumps(value, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    if random.random() < 0.1:
        mark = b"" if mark else b"\0"
    if random.random() < 0.05 and text.endswith(b"}"):
        text = _deepened(text, random.choice((100, 500, 990, 1010, 1500)))
    changed = mark + text
    return changed if len(changed) <= max_size else blindly(data, max_size)


def _deepened(text: bytes, depth: int) -> bytes:
    """
    An object with one more field, which is deeper than most stacks.
    """
    comma = b"" if text == b"{}" else b","
    return b'%b%b"x":%b%b}' % (text[:-1], comma, b"[" * depth, b"]" * depth)


def _changed(value: Any, random: Random) -> Any:
    if isinstance(value, dict) and (value or random.random() < 0.5) and random.random() < 0.9:
        return _changed_object(value, random)
    if isinstance(value, list) and value and random.random() < 0.8:
        place = random.randrange(len(value))
        return [*value[:place], _changed(value[place], random), *value[place + 1 :]]
    if isinstance(value, str) and value and random.random() < 0.5:
        place = random.randrange(len(value) + 1)
        return value[:place] + random.choice(("", ".", "/", "a", "\\", "\n", "\ud800", "é")) + value[place + 1 :]
    return random.choice(random.choice((_TEXTS, _NUMBERS, _OTHERS)))


def _changed_object(value: dict[str, Any], random: Random) -> dict[str, Any]:
    fields = list(value.items())
    match random.randrange(4):
        case 0 if fields:
            fields.pop(random.randrange(len(fields)))
        case 1:
            fields.insert(random.randrange(len(fields) + 1), (random.choice(_NAMES), _changed(None, random)))
        case 2:
            random.shuffle(fields)
        case _ if fields:
            place = random.randrange(len(fields))
            name, old = fields[place]
            fields[place] = (name, _changed(old, random))
    return dict(fields)
