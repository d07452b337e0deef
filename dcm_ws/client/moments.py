"""
The timestamps of events, which programs write in several formats.
"""

from __future__ import annotations

from datetime import UTC, datetime

LAST_MS = 253_402_300_799_999
"""
The end of the year 9999, the last that dates have in Python.
"""

_SECONDS_BELOW = 1e11
"""
Numbers below this count as seconds.  As milliseconds they would be before March 1973.
"""


def moment_of(value: object) -> int | None:
    """
    Milliseconds since the epoch, from milliseconds, seconds (a number below 1e11) or ISO 8601 text.  Text without an
    offset is UTC.

    @return: None for anything else, and for times before 1970 or after 9999.
    """
    if isinstance(value, str):
        value = _read(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # also false for NaN
    if not 0 < value <= LAST_MS:
        return None
    return int(value * 1000 if value < _SECONDS_BELOW else value) or None


def _read(text: str) -> float | None:
    """
    The number in a text, or milliseconds if it is a time in ISO 8601; None for anything else.
    """
    try:
        return float(text)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
        ms = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000
    except (ValueError, OverflowError):
        return None
    # a smaller number would be taken for seconds
    return ms if ms >= _SECONDS_BELOW else None
