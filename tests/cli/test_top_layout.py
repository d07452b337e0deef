"""
The screen of C{dcm-ws top}: what fits, and what keys change.
"""

from __future__ import annotations

from typing import Any

import pytest

from dcm_ws.cli.top_figures import Snapshot
from dcm_ws.cli.top_layout import layout, number
from dcm_ws.cli.top_report import Report
from dcm_ws.cli.top_view import View, keys_of

WHERE = "http://127.0.0.1:3849"


def report(**stats: Any) -> Report:
    """
    A report of a service with a log in its database.
    """
    figures = {
        "connectedClients": 12, "activeChannels": 9, "agents": {"connected": 6}, "pendingDeliveries": 0,
        "events": {"client": 1234, "database": 567_890_123}, "deliveries": {"acked": 900, "retried": 3},
        "log": {"engine": "postgres", "state": "up", "owed": 17, "events": 1234, "behind": 0, "gaps": 0},
        "deadLetters": {"kept": 1},
    }  # fmt: skip
    health = {"status": "healthy", "version": "2.0.0", "uptime_s": 7299, "database": {"state": "connected"}}
    return {"health": health, "stats": figures | stats}


AGENTS = {
    "agentStats": {f"agent-{number:02}": 1 for number in range(40)} | {"Ann": 2, "bob": 1},
    "agentLoads": {"bob": {"owed": 3, "dead": 0, "behind": 9}, "gone": {"owed": 12, "dead": 2, "behind": 0}},
}


def shown(snapshot: Snapshot, view: View | None = None, width: int = 80, height: int = 24) -> list[str]:
    """
    The lines, which fit.
    """
    lines = layout(snapshot, WHERE, view or View(), width, height)
    assert len(lines) <= height and all(line.cell_len <= width for line in lines), [line.plain for line in lines]
    return [line.plain.rstrip() for line in lines]


def names(lines: list[str]) -> list[str]:
    """
    The names in the list.
    """
    begin = next(at for at, line in enumerate(lines) if line.startswith("(n)ame"))
    return [line.split()[0] for line in lines[begin + 1 : -1] if line]


@pytest.mark.parametrize("width,rate", [(80, "+500,000/s"), (60, "+500k ")])
def test_usual_sizes(width: int, rate: str) -> None:
    """
    24 lines of 80 or 60 columns have the state, all key figures with rates, a list with all its columns, and the keys.
    """
    before = report(events={"client": 1034, "database": 566_890_123}, agentLoads={"bob": {"owed": 1}})
    lines = shown(Snapshot(report(**AGENTS), before, 2.0), width=width)
    assert len(lines) == 24
    assert lines[0].startswith("dcm-ws 2.0.0   healthy   up 02:01:39   database connected") and WHERE in lines[1]
    page = "\n".join(lines)
    for label in ("clients", "agents", "channels", "owed", "most behind", "dead letters", "events logged", "gaps"):
        assert f"\n{label} " in page or f"  {label} " in page, page
    words = " ".join(page.split())
    for text in ("client events 1,234 +100", f"database events 567.9M {rate}", "acknowledged 900", "redelivered 3"):
        assert text in words, page
    assert "[agents] channels figures" in words and "of 43" in words
    assert "(n)ame (o)wed▼ (r)ate (d)ead (b)ehind (c)onns" in words
    assert "gone 12 +6.0 2 0 0 bob 3 +1.0 0 9 1 agent-00 0 0 0 1" in words
    assert lines[-1] == "q quit   Tab channels   ↑↓ PgUp PgDn scroll   (letter) sort"


def test_wide_and_tall() -> None:
    """
    A larger terminal has the state in one line, three figures in each line, and all rows, with numbers near the names.
    """
    lines = shown(Snapshot(report(**AGENTS)), width=160, height=60)
    assert WHERE in lines[0] and lines[2].split()[::3] == ["clients", "events", "6"], lines[2]
    assert "43 in all" in lines[7] and len(names(lines)) == 43
    assert lines[9] == f"{'gone':<32}{12:>9}{2:>16}{0:>10}{0:>9}"


@pytest.mark.parametrize("width", [1, 2, 5, 12, 17, 29, 40, 79, 200])
@pytest.mark.parametrize("height", [1, 4, 5, 8, 13, 24, 70])
def test_any_size(width: int, height: int) -> None:
    """
    Nothing is wider or higher than the terminal, also with long texts, wide characters and large numbers.
    """
    odd = {
        "agentStats": {"\u6d4b\u8bd5" * 40: 10**17, "\x1b[31m" * 20: 3},
        "channelStats": {},
        "events": {"client": 10**17},
    }
    trouble = Snapshot(report(**odd), report(), 0.001, "no answer " * 30)
    for known in (trouble, Snapshot({"health": {}, "stats": {}})):
        view = View()
        for _ in range(3):
            lines = shown(known, view, width, height)
            view.press("tab")
            assert lines
    if width >= 12 and height >= 5:
        assert lines[-1].startswith("q quit")


def test_trouble() -> None:
    """
    Why there is no newer report, and why the log is not up, take at most two lines each.
    """
    log = {"engine": "postgres", "state": "standby", "reason": "no schema " * 50}
    lines = shown(Snapshot(report(log=log), trouble="nothing listens " * 10), width=60)
    assert lines[2].startswith("nothing listens") and lines[3].endswith("…")
    assert lines[4].startswith("the log is standby: no schema") and lines[5].endswith("…") and lines[6] == ""


def test_sorting() -> None:
    """
    The letter of a column sorts by it, numbers from the largest; again the other way round; a third time as usual.
    Equal rows are sorted by name.
    """
    view, known = View(), Snapshot(report(**AGENTS))
    assert names(shown(known, view))[:3] == ["gone", "bob", "agent-00"]
    for key, first in (
        ("n", ["agent-00", "agent-01", "agent-02"]),
        ("n", ["gone", "bob", "Ann"]),
        ("n", ["gone", "bob", "agent-00"]),
        ("c", ["Ann", "agent-00", "agent-01"]),
        ("c", ["gone", "agent-00", "agent-01"]),
        ("b", ["bob", "agent-00", "agent-01"]),
        ("x", ["bob", "agent-00", "agent-01"]),
        ("d", ["gone", "agent-00", "agent-01"]),
        # it is usual to sort by what is owed
        ("o", ["gone", "bob", "agent-00"]),
        ("o", ["agent-00", "agent-01", "agent-02"]),
        ("o", ["gone", "bob", "agent-00"]),
    ):
        view.press(key)
        assert names(shown(known, view))[:3] == first, key


def test_lists() -> None:
    """
    Tab goes round the lists, and each remembers its order.
    """
    view = View()
    known = Snapshot(report(channelStats={"global": 2, "topics/a": 5, "odd": "x"}, agentStats={}))
    assert "No agents." in shown(known, view)
    view.press("tab")
    view.press("n")
    assert names(shown(known, view)) == ["global", "topics/a"]
    view.press("tab")
    lines = shown(known, view)
    assert "[figures]" in "".join(lines) and "Tab agents" in lines[-1] and names(lines)[:2] == ["clients", "agents"]
    view.press("w")
    assert "no(w)▼" in "".join(shown(known, view))
    for _ in range(2):
        view.press("back tab")
    assert view.kind.name == "agents"
    view.press("tab")
    assert "(n)ame▲" in "".join(shown(known, view))


def test_names_are_not_shown() -> None:
    """
    If the service shows no names, the list says what to do.
    """
    view = View()
    for _ in range(2):
        assert any(line.startswith("Names are shown only with a token") for line in shown(Snapshot(report()), view))
        view.press("tab")


def test_scrolling() -> None:
    """
    The arrows scroll by a row, and the page keys by what is shown; neither goes beyond the ends, and a smaller list
    stays visible.
    """
    view, known = View(), Snapshot(report(**AGENTS))

    def place() -> str:
        return next(line.split()[-3] for line in shown(known, view) if line.startswith("[agents]"))

    assert place() == "1-11"
    for key, expected in (
        ("up", "1-11"),
        ("down", "2-12"),
        ("page down", "13-23"),
        ("up", "12-22"),
        ("end", "33-43"),
        ("down", "33-43"),
        ("page up", "22-32"),
        ("home", "1-11"),
        ("end", "33-43"),
    ):
        view.press(key)
        assert place() == expected, key
    known = Snapshot(report(agentStats={"ann": 1}))
    assert names(shown(known, view)) == ["ann"]


def test_keys() -> None:
    """
    Keys that a terminal sends as several characters are known by their names, also if they come in parts.
    """
    assert keys_of(b"nq\t\x1b[A\x1bOB\x1b[5~\x1b[1~\x1bOF\x1b[Z") == (
        ["n", "q", "tab", "up", "down", "page up", "home", "end", "back tab"],
        b"",
    )
    assert keys_of(b"n\x1b[") == (["n"], b"\x1b[")
    assert keys_of(b"\x1b[6~") == (["page down"], b"")
    # Escape by itself, keys without a meaning, and what is not text
    assert keys_of(b"\x1b") == ([], b"\x1b")
    assert keys_of(b"\x1bq\x1b[1;5C\xff")[0] == ["\x1b", "q", "\x1b[1;5C", "\xff"]


@pytest.mark.parametrize(
    "value,width,expected",
    [
        (999_999, 7, "999,999"),
        (999_999, 6, "1.0M"),
        (12_345, 5, "12.3k"),
        (-12_345, 6, "-12.3k"),
        (10**17, 6, "100.0P"),
        (0, 1, "0"),
    ],
)
def test_number(value: float, width: int, expected: str) -> None:
    """
    A number that does not fit is rounded.
    """
    assert number(value, width) == expected
