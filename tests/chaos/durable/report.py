"""
What a run was like, in lines of text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from tests.chaos.durable.history import History
from tests.chaos.durable.judge import Verdict

_SHOWN = 3
_BEFORE, _AFTER = 8.0, 3.0
_LINES = 40
_DETAIL = re.compile(r"msg_\w+|'[^']*'|[0-9.]+|\b(agent|client|follower|sql)-\w\b")


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
    alike: Counter[str] = Counter()
    for at, wrong in verdict.wrongs:
        kind = _DETAIL.sub("", wrong)[:80]
        alike[kind] += 1
        if alike[kind] <= _SHOWN:
            yield f"  {wrong}"
            if at:
                yield from around(history, at)
                yield from _visits(history, wrong.partition(":")[0], at)
    yield from (f"  {count} like this: {kind}" for kind, count in alike.items() if count > _SHOWN)
    if verdict.wrongs:
        yield "the last lines of the service's log:"
        yield from (f"  {line[:300]}" for line in log.splitlines()[-_LINES:])


def around(history: History, at: float) -> Iterator[str]:
    """
    What was done shortly before and after a moment.
    """
    for one in history.incidents:
        if one.began - _AFTER < at < one.ended + _BEFORE:
            yield f"      {one.began - at:+.2f} to {one.ended - at:+.2f} s: {one.what}"


def _visits(history: History, name: str, at: float) -> Iterator[str]:
    """
    The connections that an agent had then.
    """
    agent = history.agents.get(name)
    for one in agent.visits if agent is not None else ():
        ended = "" if one.ended is None else f"{one.ended - at:+.2f} s"
        if one.began < at + _AFTER and (one.ended is None or one.ended > at - _BEFORE):
            answered = "" if one.authenticated is None else f", answered {one.authenticated - at:+.2f} s at {one.pos}"
            connection = f"connection {one.number} ({one.client}) to {one.node}"
            yield f"      {one.began - at:+.2f} to {ended}: {connection}{answered}"
