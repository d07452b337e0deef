"""
What a run was like, in lines of text.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.durable.history import History
from tests.chaos.durable.judge import Verdict

_SHOWN = 15
_AROUND = 3.0
_LINES = 40


def report(history: History, verdict: Verdict, log: str) -> Iterator[str]:
    """
    The counts, and what is wrong with what happened around it.
    """
    for what, count in sorted(verdict.counts.items()):
        if count:
            yield f"{count:8d} {what}"
    if history.restores:
        yield f"{len(history.log):8d} epochs"
    yield f"{len(verdict.wrongs)} promises broken"
    for at, wrong in verdict.wrongs[:_SHOWN]:
        yield f"  {wrong}"
        if at:
            yield from around(history, at)
    if len(verdict.wrongs) > _SHOWN:
        yield f"  and {len(verdict.wrongs) - _SHOWN} more"
    if verdict.wrongs:
        yield "the last lines of the service's log:"
        yield from (f"  {line[:300]}" for line in log.splitlines()[-_LINES:])


def around(history: History, at: float) -> Iterator[str]:
    """
    What was done shortly before and after a moment.
    """
    for one in history.incidents:
        if one.began - _AROUND < at < one.ended + _AROUND:
            yield f"      {one.began - at:+.2f} to {one.ended - at:+.2f} s: {one.what}"
