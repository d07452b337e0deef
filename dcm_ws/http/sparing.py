"""
Results that are reused if they are asked for too often.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_KEYS = 8


class LastResults(Generic[K, V]):
    """
    The last results of a function that is called a limited number of times a second.

    @param now: monotonic seconds.
    @param most: calls at once, and in each second.
    """

    def __init__(self, now: Callable[[], float], most: float) -> None:
        self._now = now
        self._most = most
        self._left = most
        self._filled_at = now()
        self._results: dict[K, V] = {}

    def must_do(self, key: K) -> bool:
        """
        Must the last result for C{key} be reused?  If not, a call is charged.
        """
        now = self._now()
        self._left = min(self._most, self._left + (now - self._filled_at) * self._most)
        self._filled_at = now
        if self._left < 1.0 and key in self._results:
            return True
        self._left = max(0.0, self._left - 1.0)
        return False

    def __getitem__(self, key: K) -> V:
        return self._results[key]

    def keep(self, key: K, result: V) -> V:
        """
        Keep a result for later calls, and return it.
        """
        if len(self._results) >= _KEYS:
            self._results.clear()
        self._results[key] = result
        return result


class Sparing(Generic[K, V]):
    """
    A function that is called a limited number of times a second.  Beyond that, its last result is returned.

    @param make: the function; it returns what depends on its argument and on the time.
    @param now: monotonic seconds.
    @param most: calls at once, and in each second.
    """

    def __init__(self, make: Callable[[K], V], now: Callable[[], float], most: float = 10.0) -> None:
        self._make = make
        self._last: LastResults[K, V] = LastResults(now, most)

    def __call__(self, key: K) -> V:
        last = self._last
        return last[key] if last.must_do(key) else last.keep(key, self._make(key))
