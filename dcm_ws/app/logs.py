"""
The format of the log: lines for people, or JSON for programs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import IO, Any, cast

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
)
from zope.interface import provider

SHOWN = 200
"""
Characters of a text that L{shown} keeps.
"""

_PLAIN = (str, int, float, bool, type(None))


_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 0x0A} | {
    # the next line of a message must not look like a line of the log
    0x0A: "\n\t",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def shown(text: str) -> str:
    """
    Untrusted text for a log line: quoted, in ASCII, L{SHOWN} characters at most.
    """
    return ascii(text if len(text) <= SHOWN else text[:SHOWN] + "…")


class Seldom:
    """
    Limits a line that may be due often to one in an interval.

    @param now: monotonic seconds.
    @param interval: seconds.
    """

    def __init__(self, now: Callable[[], float], interval: float = 60.0) -> None:
        self._now = now
        self._interval = interval
        self._due = now()
        self._held = 0

    def held_back(self) -> int | None:
        """
        The number of lines that were not logged since the last one; None if this one is not logged either.
        """
        if self._now() < self._due:
            self._held += 1
            return None
        self._due = self._now() + self._interval
        held, self._held = self._held, 0
        return held


def make_observer(out: IO[Any], level: str, format: str, worker: int | None = None) -> ILogObserver:
    """
    Make an observer that writes events to C{out}.

    @param level: the name of the lowest level that is written.
    @param format: C{text} or C{json}.
    @param worker: the number of the worker that logs; None if there are no workers.
    """
    line = json_line if format == "json" else text_line
    observer = FileLogObserver(out, line if worker is None else partial(line, worker=worker))
    lowest = LogLevel.levelWithName(level)
    shown = {level for level in LogLevel.iterconstants() if level >= lowest}

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event.get("log_level") in shown:
            observer(event)

    return cast(ILogObserver, observe)


def missing_line(count: int, format: str) -> str:
    """
    The line that replaces lines that were dropped because they could not be written, or not fast enough.

    @param format: C{text} or C{json}.
    """
    event: LogEvent = {
        "log_time": datetime.now(UTC).timestamp(),
        "log_level": LogLevel.warn,
        "log_namespace": "dcm_ws.logs",
        "log_format": "{count} lines of the log were dropped here: they could not be written",
        "count": count,
    }
    return json_line(event) if format == "json" else text_line(event)


def text_line(event: LogEvent, worker: int | None = None) -> str:
    """
    A log event as a line for people: time (UTC), level, logger and message; the traceback of a failure follows.

    @param worker: its number comes before the message.
    """
    template = event.get("log_format")
    try:
        # formatEvent() takes ten times as long, and what it does in addition is rarely needed
        message = template.format_map(event) if isinstance(template, str) else formatEvent(event)
    except (KeyError, AttributeError, ValueError, IndexError):
        message = formatEvent(event)
    if not message.isprintable():
        # a terminal executes control characters
        message = message.translate(_ESCAPES)
    if worker is not None:
        message = f"worker {worker}: {message}"
    name = event.get("log_namespace", "-")
    line = f"{_second(int(event['log_time']))} {event['log_level'].name:<8} [{name}] {message}\n"
    failure = event.get("log_failure")
    return line if failure is None else f"{line}{failure.getTraceback()}"


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def json_line(event: LogEvent, worker: int | None = None) -> str:
    """
    A log event as one line of JSON: C{time}, C{level}, C{logger}, C{message}, and the event's own plain fields.

    @param worker: the field C{worker}.
    """
    line: dict[str, object] = {
        "time": datetime.fromtimestamp(event["log_time"], UTC).isoformat(),
        "level": event["log_level"].name,
        "logger": event.get("log_namespace", ""),
        "message": formatEvent(event),
    }
    if worker is not None:
        line["worker"] = worker
    for name, value in event.items():
        if not name.startswith("log_") and isinstance(value, _PLAIN):
            line.setdefault(name, value)
    failure = event.get("log_failure")
    if failure is not None:
        line["traceback"] = failure.getTraceback()
    return json.dumps(line) + "\n"
