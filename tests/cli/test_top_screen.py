"""
The figures that C{dcm-ws top} shows.
"""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from twisted.internet.task import Clock

from dcm_ws.cli import top_figures, top_log, top_screen
from dcm_ws.cli.top_figures import Snapshot
from dcm_ws.cli.top_report import Report, number_at
from tests.fakes import make_core, make_report

NOW = "2026-11-26T04:00:00.000Z"
NOW_MS = 1_795_665_600_000


def test_figures_are_in_the_report(clock: Clock) -> None:
    """
    Every figure that is shown, and every part that names problems, is in C{/stats}.
    """
    journal = {"lastFlush": 1000, "pending": 0, "rows": 0}
    stats = dict(make_report(make_core(clock), journal=lambda: journal).stats(True))
    means = [(label, place) for label, *places in top_log.MEANS for place in places]
    shown = (
        *(*top_figures.COUNTS, *top_figures.KEY_COUNTS, *top_log.COUNTS, *top_log.JOURNAL_COUNTS),
        *(*means, ("", "journal.age")),
    )
    missing = [place for _, place in shown if number_at(stats, place) is None]
    missing += [part for part, _ in top_figures.PROBLEMS if part not in stats]
    assert missing == []


def report(log: dict[str, Any], journal: dict[str, Any] | None = None) -> Report:
    """
    A report of a service with such a log.
    """
    stats = {"log": {"engine": "postgres", "state": "up", "reason": "", **log}}
    if journal is not None:
        stats["journal"] = journal
    return {"health": {"status": "healthy", "timestamp": NOW}, "stats": stats}


def shown(now: Report) -> list[str]:
    """
    The lines that C{top --once} prints, with single blanks.
    """
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(top_screen.screen(now, "http://127.0.0.1:3849"))
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def known(now: Report, before: Report | None = None) -> dict[str, tuple[str, float | None]]:
    """
    The figures by their labels: what is shown, and the change per second.
    """
    return {one.label: (one.shown, one.rate) for one in top_figures.figures(Snapshot(now, before, 2.0))}


def test_log_in_the_database() -> None:
    """
    What the engine does is shown with rates, the times as means since the last report, and moments as ages.
    """
    log = {"refused": 1, "steps": 100, "stepSeconds": 1.0, "lagged": 10, "lagSeconds": 100.0, "waiting": 0}
    later = {"refused": 5, "steps": 110, "stepSeconds": 1.02, "lagged": 14, "lagSeconds": 100.01, "waiting": 3}
    age = {"oldest": NOW_MS - 90_061_000}
    now = report(later | age, {"pending": 4, "rows": 57, "flushes": 60, "failures": 0, "age": 2.9})
    figures = known(now, report(log))
    expected = {
        "publishes waiting": ("3", 1.5),
        "publishes refused": ("5", 2.0),
        "numbering steps": ("110", 5.0),
        "agents to be written": ("4", None),
        "rows of the journal": ("57", None),
        "age of the oldest event": ("1 d 01:01:01", None),
        "age of the last flush": ("00:00:02", None),
        "mean lag, ms": ("2.5", None),
        "mean numbering step, ms": ("2.0", None),
    }
    assert figures == figures | expected
    lines = shown(now)
    assert "log postgres up" in lines[0]
    assert any(line.startswith("numbering steps 110") for line in lines), lines


def test_means_without_anything_new() -> None:
    """
    If nothing has come since the last report, or if there is none, the means are those since the start.
    """
    now = report({"lagged": 4, "lagSeconds": 0.01, "steps": 0, "stepSeconds": 0})
    for before in (None, now, report({"lagged": 9, "lagSeconds": 0.5})):
        figures = known(now, before)
        assert figures["mean lag, ms"] == ("2.5", None)
        assert "mean numbering step, ms" not in figures


def test_log_in_memory() -> None:
    """
    A log in memory has no rows of the database's.
    """
    lines = shown(report({"engine": "memory", "waiting": 0, "oldest": NOW_MS}))
    assert "log memory up" in lines[0]
    assert any(line.startswith("age of the oldest event 00:00:00") for line in lines)
    assert not any("waiting" in line or "log is" in line for line in lines)


@pytest.mark.parametrize(
    ("engine", "state", "said"),
    [
        ("memory", "up", "the log is in memory: no schema"),
        ("postgres", "standby", "the log is standby: no schema"),
    ],
)
def test_reason(engine: str, state: str, said: str) -> None:
    """
    Why the log is not up, or why it is in memory, is shown below the first line.
    """
    assert said in shown(report({"engine": engine, "state": state, "reason": "no schema"}))
    # a service that says no more
    odd: Report = {"health": {"timestamp": "yesterday"}, "stats": {"log": {"reason": "\x1b", "oldest": 1}}}
    assert any(r"\x1b" in line for line in shown(odd))
