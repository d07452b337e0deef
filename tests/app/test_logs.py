from __future__ import annotations

import ast
import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure

from dcm_ws.app.logs import SHOWN, Seldom, json_line, make_observer, shown, text_line

NOON = datetime(2026, 1, 2, 12, 0, 0, 500_000, UTC).timestamp()


def event(**fields: Any) -> LogEvent:
    """
    A log event of noon.
    """
    return {
        "log_time": NOON,
        "log_level": LogLevel.info,
        "log_namespace": "dcm_ws.test",
        "log_format": "{client} left",
        "client": "ws_1",
        **fields,
    }


def failure() -> Failure:
    try:
        raise ValueError("no luck")
    except ValueError:
        return Failure()


def test_json_line() -> None:
    """
    A JSON line has the time, the level, the logger, the message, and the event's own fields.
    """
    line = json_line(event(seconds=1.5, count=3, ok=True, nothing=None))
    assert json.loads(line) == {
        "time": "2026-01-02T12:00:00.500000+00:00",
        "level": "info",
        "logger": "dcm_ws.test",
        "message": "ws_1 left",
        "client": "ws_1",
        "seconds": 1.5,
        "count": 3,
        "ok": True,
        "nothing": None,
    }


@pytest.mark.parametrize("text", ["a\nb", 'say "no"', "é😀", "\x00\x1b[31m", "{}"])
def test_json_stays_one_line(text: str) -> None:
    """
    Whatever a message contains, its JSON is one line of ASCII, and parses back.
    """
    line = json_line(event(client=text))
    assert line.isascii()
    assert line.count("\n") == 1
    assert json.loads(line)["message"] == f"{text} left"


def test_json_leaves_objects_out() -> None:
    """
    Fields that are not plain values are left out, since their text is unknown.
    """
    line = json.loads(json_line(event(peer=object(), names=["a"], log_source=object())))
    assert line.keys() == {"time", "level", "logger", "message", "client"}


def test_json_own_fields_win() -> None:
    """
    A field of an event cannot replace the level or the time.
    """
    line = json.loads(json_line(event(level="none", time=0, message="x")))
    assert (line["level"], line["message"]) == ("info", "ws_1 left")
    assert line["time"].startswith("2026-01-02T")


def test_json_failure() -> None:
    """
    A failure comes with its traceback, in the same line.
    """
    line = json_line(event(log_level=LogLevel.critical, log_failure=failure()))
    assert line.count("\n") == 1
    assert json.loads(line)["traceback"].endswith("ValueError: no luck\n")


def test_text_line() -> None:
    """
    A line for people has the time in UTC, the level, the logger, and the message.
    """
    assert text_line(event()) == "2026-01-02T12:00:00Z info     [dcm_ws.test] ws_1 left\n"


def test_text_failure() -> None:
    """
    A failure's traceback follows the line.
    """
    lines = text_line(event(log_level=LogLevel.critical, log_failure=failure())).splitlines()
    assert lines[0] == "2026-01-02T12:00:00Z critical [dcm_ws.test] ws_1 left"
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "builtins.ValueError: no luck"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"log_format": "{seconds:.1f} s", "seconds": 1.23}, "1.2 s"),
        ({"log_format": "{call()}", "call": lambda: "called"}, "called"),
        ({"log_format": "{client!r}"}, "'ws_1'"),
        ({"log_format": "100 %"}, "100 %"),
        ({"log_format": None, "log_text": "from twisted.python.log"}, ""),
    ],
)
def test_text_formats(fields: dict[str, Any], message: str) -> None:
    """
    Messages are formatted as Twisted formats them.
    """
    assert text_line(event(**fields)) == f"2026-01-02T12:00:00Z info     [dcm_ws.test] {message}\n"


@pytest.mark.parametrize(
    "fields", [{"log_format": "{missing}"}, {"log_format": "{client.missing}"}, {"log_format": "{"}]
)
def test_bad_formats(fields: dict[str, Any]) -> None:
    """
    A message that cannot be formatted is reported in the log, in either format.
    """
    assert "Unable to format" in text_line(event(**fields))
    assert "Unable to format" in json.loads(json_line(event(**fields)))["message"]


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warn", "error", "critical"]),
        ("info", ["info", "warn", "error", "critical"]),
        ("warn", ["warn", "error", "critical"]),
        ("error", ["error", "critical"]),
        ("critical", ["critical"]),
    ],
)
def test_levels(level: str, format: str, shown: list[str]) -> None:
    """
    Events below the level are not written.
    """
    out = io.StringIO()
    log = Logger(namespace="test", observer=LogPublisher(make_observer(out, level, format)))
    for name in ("debug", "info", "warn", "error", "critical"):
        log.emit(LogLevel.levelWithName(name), "it is {name}", name=name)
    lines = out.getvalue().splitlines()
    assert len(lines) == len(shown)
    for line, name in zip(lines, shown, strict=True):
        assert f"it is {name}" in line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\rb\x00\x7f\x9b", "a\\x0db\\x00\\x7f\\x9b"),
        ("a\nb", "a\n\tb"),
        ("a\u2028b\x85c", "a\\u2028b\\x85c"),
        ("équipe 😀", "équipe 😀"),
    ],
)
def test_text_has_no_control_characters(text: str, line: str) -> None:
    """
    A message can neither move the cursor of a terminal nor look like another line of the log.
    """
    assert text_line(event(client=text)).endswith(f"] {line} left\n")


@pytest.mark.parametrize("text", ["", "https://a.com", "\x1b[31m", "a\nb", "é", "x" * 10_000])
def test_what_strangers_send_is_quoted(text: str) -> None:
    """
    Untrusted text in a log line is short, in ASCII and quoted.
    """
    quoted = shown(text)
    assert quoted.isascii() and quoted.isprintable()
    assert len(quoted) <= SHOWN + 8
    assert len(text) > SHOWN or ast.literal_eval(quoted) == text


def test_seldom(clock: Clock) -> None:
    """
    A line is logged at once, then once a minute with the number of those held back.
    """
    seldom = Seldom(clock.seconds)
    assert [seldom.held_back() for _ in range(4)] == [0, None, None, None]
    clock.advance(59)
    assert seldom.held_back() is None
    clock.advance(1)
    assert [seldom.held_back() for _ in range(2)] == [4, None]
    clock.advance(600)
    assert seldom.held_back() == 1
