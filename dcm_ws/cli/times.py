"""
Times on the command line, and as commands show them.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import click

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PERIOD = re.compile(r"(\d+(?:\.\d+)?)([smhd])", re.ASCII)
_MILLISECONDS = re.compile(r"\d{12,15}", re.ASCII)

TIME_RULE = (
    "30s, 10m, 2h or 7d before now, a date such as 2026-05-01T12:00 (local time, or with an offset), or ms since 1970"
)
"""
What C{--since} and C{--until} accept, for people.
"""


def period(text: str) -> float | None:
    """
    Read a period such as C{30s}, C{10m}, C{2h} or C{1.5d}; returns seconds, or None if it is none.
    """
    found = _PERIOD.fullmatch(text)
    return None if found is None else float(found[1]) * _SECONDS[found[2]]


def moment(text: str) -> int:
    """
    Read a point in time; returns ms since the epoch.

    @raise click.BadParameter: it is none.
    """
    if _MILLISECONDS.fullmatch(text):
        return int(text)
    try:
        seconds = period(text)
        if seconds is not None:
            when = datetime.now().astimezone() - timedelta(seconds=seconds)
        else:
            when = datetime.fromisoformat(text).astimezone()
        return int(when.timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(f"{text!r} is not a time: use {TIME_RULE}") from None


def shown(ms: int | None) -> str:
    """
    A point in time as tables show it, in local time; C{-} for None.
    """
    if ms is None:
        return "-"
    try:
        return datetime.fromtimestamp(ms / 1000).isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):
        return str(ms)
