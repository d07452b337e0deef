"""
What counts: how often something has happened, of whom, and how large it was.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


class Histogram:
    """
    Counts values by their size.

    @param bounds: the largest value of each bucket except the last, which has none.
    @param values: how often each value has been observed already.

    @ivar counts: of each bucket by itself.
    @ivar sum: of all values.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float], values: Mapping[int, int] | None = None) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        for value, times in (values or {}).items():
            self.observe(value, times)

    def observe(self, value: float, times: int = 1) -> None:
        """
        Count C{value}, so many times.
        """
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


@dataclass(slots=True)
class Count:
    """
    How often one thing has happened: an object, so that it can be handed to the part that notices it.
    """

    value: int = 0

    def add(self, times: int = 1) -> None:
        """
        It has happened, so many times.
        """
        self.value += times


LOSERS_MAX = 100
"""
Names that a L{SharedCount} keeps, at most.
"""


@dataclass(slots=True)
class SharedCount(Count):
    """
    How often something was taken from a share of a budget that is full, and whose shares these were lately.

    @ivar losers: how much was taken from each since L{take_losers}; of the first L{LOSERS_MAX} that lost something.
    """

    losers: dict[str, int] = field(default_factory=dict)

    def add_of(self, name: str, times: int = 1) -> None:
        """
        Something was taken from the share of C{name}, so many times.

        @param name: an agent, or what begins with a space and stands for another publisher or client.
        """
        self.value += times
        losers = self.losers
        if name in losers or len(losers) < LOSERS_MAX:
            losers[name] = losers.get(name, 0) + times

    def take_losers(self) -> dict[str, int]:
        """
        Return who has lost how much since the last call.
        """
        losers, self.losers = self.losers, {}
        return losers
