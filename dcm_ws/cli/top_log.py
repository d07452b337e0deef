"""
What C{dcm-ws top} shows of the log: where it is, and what it does in the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from dcm_ws.cli.terminal import harmless
from dcm_ws.cli.top_report import Part, number_at

COUNTS = (
    ("publishes waiting", "log.waiting"),
    ("publishes refused", "log.refused"),
    ("events numbered", "log.numbered"),
    ("numbering steps", "log.steps"),
    ("reads of the log", "log.reads"),
    ("partitions of the log", "log.partitions"),
    ("bytes of the inbox", "log.inboxBytes"),
)
"""
The rows of a log in the database, and the places of their numbers in C{/stats}.
"""

JOURNAL_COUNTS = (
    ("agents to be written", "journal.pending"),
    ("rows of the journal", "journal.rows"),
    ("flushes of the journal", "journal.flushes"),
    ("failed flushes", "journal.failures"),
)
"""
The same of the journal.
"""

MEANS = (
    ("mean lag, ms", "log.lagSeconds", "log.lagged"),
    ("mean numbering step, ms", "log.stepSeconds", "log.steps"),
)
"""
Rows of means, with the places of the sums, in seconds, and of the numbers.
"""


def is_durable(stats: Part) -> bool:
    """
    Whether the log is in the database.
    """
    log = stats.get("log")
    return isinstance(log, dict) and log.get("engine") == "postgres"


def headline(stats: Part) -> str:
    """
    Where the log is, and its state; empty if the service does not say so.
    """
    log = stats.get("log")
    if not isinstance(log, dict) or not isinstance(log.get("engine"), str):
        return ""
    return f"log {harmless(log['engine'])} {harmless(str(log.get('state', '')))}"


def trouble(stats: Part) -> str:
    """
    Why the log is not up, or why it is in memory; empty without a reason.
    """
    log = stats.get("log")
    if not isinstance(log, dict) or not isinstance(reason := log.get("reason"), str) or not reason:
        return ""
    state = "in memory" if log.get("engine") == "memory" else harmless(str(log.get("state")))
    return f"the log is {state}: {harmless(reason)}"


def ages(stats: Part, health: Part) -> Iterator[tuple[str, float]]:
    """
    How far back the log reaches, and how long ago the journal was written: labels and seconds.
    """
    try:
        now = datetime.fromisoformat(str(health.get("timestamp"))).timestamp()
    except (ValueError, OverflowError):
        return
    oldest, flush = number_at(stats, "log.oldest"), number_at(stats, "journal.age")
    if oldest is not None:
        yield "age of the oldest event", max(0.0, now - oldest / 1000)
    if flush is not None:
        yield "age of the last flush", flush


def means(stats: Part, before: Part | None) -> Iterator[tuple[str, float]]:
    """
    Means since the earlier report, or if there is none, or nothing since, from the start: labels and ms.
    """
    for label, total, number in MEANS:
        seconds, count = number_at(stats, total), number_at(stats, number)
        if seconds is None or count is None or count <= 0:
            continue
        seconds_before, count_before = number_at(before or {}, total), number_at(before or {}, number)
        if seconds_before is not None and count_before is not None and count_before < count:
            seconds, count = seconds - seconds_before, count - count_before
        yield label, seconds / count * 1000
