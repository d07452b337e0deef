"""
The timestamps of events, as others write them.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcm_ws.client.moments import LAST_MS, moment_of


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (1706000000000, 1706000000000),
        (1706000000000.9, 1706000000000),
        (1706000000, 1706000000000),
        (1706000000.5, 1706000000500),
        (99_999_999_999, 99_999_999_999_000),
        (100_000_000_000, 100_000_000_000),
        (LAST_MS, LAST_MS),
        ("1706000000000", 1706000000000),
        ("1706000000", 1706000000000),
        ("2024-01-23T08:53:20Z", 1706000000000),
        (" 2024-01-23T08:53:20.250Z ", 1706000000250),
        ("2024-01-23T08:53:20.123456789+00:00", 1706000000123),
        ("2024-01-23 08:53:20", 1706000000000),
        ("2024-01-23T10:53:20+02:00", 1706000000000),
        ("20240123T085320Z", 1706000000000),
        ("2024-01-23", 1705968000000),
    ],
)
def test_moments(value: object, moment: int) -> None:
    """
    Milliseconds, seconds and ISO 8601 text.
    """
    assert moment_of(value) == moment


@pytest.mark.parametrize(
    "value",
    [
        *[None, True, False, [], {}, "", "now", "today 10:00", "nan", "inf", "1e400", "0000-00-00", "1970-01-01"],
        *[0, -1, -1706000000000, LAST_MS + 1, 10**400, math.nan, math.inf, -math.inf, "10000-01-01T00:00:00Z"],
        *["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"],
    ],
)
def test_no_moments(value: object) -> None:
    """
    Nothing else is a time.
    """
    assert moment_of(value) is None


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes().map(str))
def test_any_value(value: object) -> None:
    """
    Whatever comes is a usable time or none, and never an error.
    """
    moment = moment_of(value)
    assert moment is None or 0 < moment <= LAST_MS
