"""
The cursors of live reads.
"""

from __future__ import annotations

import pytest

from dcm_ws.protocol.cursors import next_cursor, present_cursor

NOW_MS = 1_728_432_000_000 + 1000 * 20_000 + 19_999


def chance(length: int) -> str:
    assert length == 4
    return "000a"


def test_cursor_is_the_number_of_the_interval() -> None:
    """
    Without a cursor, or with one of the past, a client gets the number of the present 20 seconds.
    """
    assert next_cursor(NOW_MS, "", chance) == 1000
    assert next_cursor(NOW_MS + 1, "", chance) == 1001
    assert next_cursor(NOW_MS, "999", chance) == 1000
    assert present_cursor(0) == 0


@pytest.mark.parametrize(("given", "cursor"), [("1000", 1011), ("1500", 1511), ("999999999999", 1_000_000_000_010)])
def test_cursor_never_goes_back(given: str, cursor: int) -> None:
    """
    A client whose cursor is not in the past gets one that is greater.
    """
    assert next_cursor(NOW_MS, given, chance) == cursor


@pytest.mark.parametrize("jitter", ["0000", "zzzz", "00b4", "4zz0"])
def test_jitter_is_at_most_an_hour(jitter: str) -> None:
    """
    The cursor is greater by up to 180 intervals.
    """
    assert 1001 <= next_cursor(NOW_MS, "1000", lambda length: jitter) <= 1180


@pytest.mark.parametrize(
    "given", ["abc", "-5", "1e9", "1" * 13, "\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT NINE}" * 6]
)
def test_what_is_not_a_number_does_not_count(given: str) -> None:
    """
    A cursor that the service has not made is as good as none.
    """
    assert next_cursor(NOW_MS, given, chance) == 1000
