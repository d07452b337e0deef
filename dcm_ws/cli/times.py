"""
Times on the command line, and as commands show them.
"""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta

import click

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_PERIOD = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", re.ASCII)
_MILLISECONDS = re.compile(r"\d{12,15}", re.ASCII)

TIME_RULE = (
    "30s, 10m, 2h or 7d before now, a date such as 2026-05-01T12:00 (local time, or with an offset), or ms since 1970"
)
"""
What C{--since} and C{--until} accept, for people.
"""


def moment(text: str) -> int:
    """
    Read a point in time; returns ms since the epoch.

    @raise click.BadParameter: it is none.
    """
    if _MILLISECONDS.fullmatch(text):
        return int(text)
    try:
        if period := _PERIOD.fullmatch(text):
            when = datetime.now().astimezone() - timedelta(**{_UNITS[period[2]]: float(period[1])})
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


def now_ms() -> int:
    """
    The time now, in ms since the epoch.
    """
    return time.time_ns() // 1_000_000
