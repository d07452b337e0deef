"""
Cursors of live reads, which keep caches from returning the same response again and again (Durable Streams 1.0, section
10.1).
"""

from __future__ import annotations

from collections.abc import Callable

_EPOCH_MS = 1_728_432_000_000
_INTERVAL_MS = 20_000
_JITTER = 180
_DIGITS = 12


def next_cursor(now_ms: int, given: str, chance: Callable[[int], str]) -> int:
    """
    Return the cursor of a response: the number of the present interval of 20 s since 9 October 2024, or a number
    beyond the client's own cursor, if that is not in the past.

    @param now_ms: ms since the epoch.
    @param given: the client's cursor; what is not a number does not count.
    @param chance: returns that many random base-36 characters.
    """
    present = present_cursor(now_ms)
    if not (given.isascii() and given.isdigit() and len(given) <= _DIGITS) or int(given) < present:
        return present
    # up to an hour beyond
    return int(given) + 1 + int(chance(4), 36) % _JITTER


def present_cursor(now_ms: int) -> int:
    """
    The number of the present interval.
    """
    return max(0, now_ms - _EPOCH_MS) // _INTERVAL_MS
