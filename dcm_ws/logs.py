"""
How the log looks: lines for people, or JSON for machines.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import IO, Any, cast

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
)
from zope.interface import provider

_PLAIN = (str, int, float, bool, type(None))


def make_observer(out: IO[Any], level: str, format: str) -> ILogObserver:
    """
    @param level: the name of the lowest level that is shown.
    @param format: C{text} or C{json}.
    """
    observer = FileLogObserver(out, json_line if format == "json" else text_line)
    lowest = LogLevel.levelWithName(level)
    shown = {level for level in LogLevel.iterconstants() if level >= lowest}

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event.get("log_level") in shown:
            observer(event)

    return cast(ILogObserver, observe)


def text_line(event: LogEvent) -> str:
    """
    A log event as a line for people: time (UTC), level, what logs, and the message; a failure's traceback below it.
    """
    template = event.get("log_format")
    try:
        # what twisted.logger makes of it beyond this costs ten times as much, and is seldom needed
        message = template.format_map(event) if isinstance(template, str) else formatEvent(event)
    except (KeyError, AttributeError, ValueError, IndexError):
        message = formatEvent(event)
    name = event.get("log_namespace", "-")
    line = f"{_second(int(event['log_time']))} {event['log_level'].name:<8} [{name}] {message}\n"
    failure = event.get("log_failure")
    return line if failure is None else f"{line}{failure.getTraceback()}"


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def json_line(event: LogEvent) -> str:
    """
    A log event as one line of JSON: C{time}, C{level}, C{logger}, C{message}, and the event's own plain fields.
    """
    line: dict[str, object] = {
        "time": datetime.fromtimestamp(event["log_time"], UTC).isoformat(),
        "level": event["log_level"].name,
        "logger": event.get("log_namespace", ""),
        "message": formatEvent(event),
    }
    for name, value in event.items():
        if not name.startswith("log_") and isinstance(value, _PLAIN):
            line.setdefault(name, value)
    failure = event.get("log_failure")
    if failure is not None:
        line["traceback"] = failure.getTraceback()
    return json.dumps(line) + "\n"
