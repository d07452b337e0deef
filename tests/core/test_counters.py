"""
What counts how often, of whom, and how large.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dcm_ws.core.counters import LOSERS_MAX, Histogram, SharedCount


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 5))))
def test_histogram(values: list[tuple[float, int]]) -> None:
    """
    Each value is in the bucket whose bound is the first that is not below it.
    """
    histogram = Histogram((1, 5, 10))
    for value, times in values:
        histogram.observe(value, times)
    many = [value for value, times in values for _ in range(times)]
    assert histogram.counts == [
        sum(value <= 1 for value in many),
        sum(1 < value <= 5 for value in many),
        sum(5 < value <= 10 for value in many),
        sum(value > 10 for value in many),
    ]
    assert abs(histogram.sum - sum(many)) <= 1e-6 * (1 + sum(many))


def test_losers_are_limited_in_number() -> None:
    """
    What those beyond the limit lose counts, and their names are not kept.
    """
    count = SharedCount()
    for number in range(LOSERS_MAX + 5):
        count.add_of(f"agent-{number}", 2)
    count.add_of("agent-0")
    count.add(7)
    assert count.value == 2 * (LOSERS_MAX + 5) + 1 + 7
    losers = count.take_losers()
    assert (len(losers), losers["agent-0"], losers["agent-1"]) == (LOSERS_MAX, 3, 2)
    assert count.take_losers() == {}
