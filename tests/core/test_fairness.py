"""
What is taken from whom if a shared budget is full.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dcm_ws.core.fairness import fair_level, shorten


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=30), st.integers(0, 10_000))
def test_fair_level(weights: list[int], total: int) -> None:
    """
    What is kept fits, nobody below the level loses anything, and a higher level would not fit.
    """
    level = fair_level(weights, total)
    assert sum(min(weight, level) for weight in weights) <= max(total, 0)
    if sum(weights) > total:
        assert sum(min(weight, level + 1) for weight in weights) > total


def test_level_where_nothing_is_too_much() -> None:
    assert fair_level([3, 4], 7) == 7
    assert fair_level([], 0) == 0


def cut(shares: dict[str, list[int]], total: int) -> dict[str, list[int]]:
    """
    The things that are left of each share, given their weights, the oldest first.
    """
    left = {name: list(things) for name, things in shares.items()}
    shorten({name: sum(things) for name, things in shares.items()}, total, lambda name: left[name].pop(0))
    return left


_shares = st.dictionaries(st.sampled_from("abcdefgh"), st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1)


@given(_shares, st.integers(0, 200))
def test_shorten(shares: dict[str, list[int]], total: int) -> None:
    """
    What is left fits; little more is dropped than has to be, of those who have most, and their oldest.
    """
    left = cut(shares, total)
    before, after = sum(map(sum, shares.values())), sum(map(sum, left.values()))
    level = fair_level(map(sum, shares.values()), total)
    assert after <= max(total, 0)
    if before <= total:
        assert left == shares
    for name, things in shares.items():
        kept = left[name]
        assert kept == things[len(things) - len(kept) :]
        if sum(things) <= level:
            assert kept == things
        # a thing is dropped only while there is more than the level
        assert kept == things or sum(kept) + things[len(things) - len(kept) - 1] > level


def test_many_small_shares_do_not_lose_everything() -> None:
    """
    Regression: with more shares than there is room for things, each of them lost its only one.
    """
    left = cut({f"a{number}": [100] for number in range(1000)}, 99_000)
    assert [len(things) for things in left.values()] == [0] * 10 + [1] * 990


def test_largest_shares_are_cut_first_and_no_more_than_needed() -> None:
    left = cut({"small": [1], "large": [1] * 9, "larger": [1] * 10}, 14)
    assert {name: len(things) for name, things in left.items()} == {"small": 1, "large": 7, "larger": 6}
