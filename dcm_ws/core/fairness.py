"""
What is taken from whom if a budget that many share has no room left: who has most of it loses first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import TypeVar

T = TypeVar("T")


def shorten(weights: Mapping[T, int], total: int, drop: Callable[[T], int]) -> None:
    """
    Drop things until all shares together weigh no more than C{total}: none loses more than what it has more than a
    fair share, except for the rest of its last thing.

    @param weights: of each share, the one that loses first among equals in front.
    @param drop: drops the oldest thing of a share, and returns its weight.
    """
    excess = sum(weights.values()) - total
    level = fair_level(weights.values(), total)
    for name, weight in sorted(weights.items(), key=itemgetter(1), reverse=True):
        # the level is rounded down, and things have sizes: without the excess, many small shares would all lose one
        while weight > level and excess > 0:
            dropped = drop(name)
            weight -= dropped
            excess -= dropped


def fair_level(weights: Iterable[int], total: int) -> int:
    """
    The most that each may keep so that all together keep C{total}: who has less than that loses nothing.
    """
    ordered = sorted(weights, reverse=True)
    rest = sum(ordered)
    if rest <= total:
        return rest
    for number, weight in enumerate(ordered, 1):
        rest -= weight
        level = (total - rest) // number
        if number == len(ordered) or level >= ordered[number]:
            return level
    raise AssertionError  # pragma: no cover - there is a weight, or the rest would be no more than the total
