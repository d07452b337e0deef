"""
When items are due: one timer for any number of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from math import ceil
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Schedule(Generic[T]):
    """
    A timing wheel: items in slots by due time.  Putting and dropping take the same time for any number of items, and
    taking what is due takes time in proportion to it.

    @param resolution: the width of a slot, in seconds; an item comes due up to that much late, never early.
    """

    def __init__(self, resolution: float) -> None:
        self._resolution = resolution
        self._slots: dict[int, set[T]] = {}
        self._slot_of: dict[T, int] = {}
        #: the first slot that has not been taken yet
        self._next: int | None = None

    def __len__(self) -> int:
        return len(self._slot_of)

    def __iter__(self) -> Iterator[T]:
        """
        Iterate over all items, in no order.
        """
        return iter(self._slot_of)

    @property
    def next_due(self) -> float | None:
        """
        When the next item is due; None without items.  Takes time in proportion to the slots that are in use.
        """
        return min(self._slots) * self._resolution if self._slots else None

    def put(self, item: T, due: float) -> None:
        """
        Make C{item} due at C{due}, and at no other time.
        """
        self.drop(item)
        slot = ceil(due / self._resolution)
        if self._next is not None:
            slot = max(slot, self._next)
        self._slots.setdefault(slot, set()).add(item)
        self._slot_of[item] = slot

    def clear(self) -> None:
        """
        Forget all items.
        """
        self._slots.clear()
        self._slot_of.clear()

    def drop(self, item: T) -> None:
        """
        Forget C{item}, if it is there.
        """
        slot = self._slot_of.pop(item, None)
        if slot is not None:
            items = self._slots[slot]
            items.remove(item)
            if not items:
                del self._slots[slot]

    def take(self, now: float) -> list[T]:
        """
        Remove and return what is due, the earliest first.
        """
        last = int(now / self._resolution)
        taken: list[T] = []
        first = min([last + 1, *self._slots]) if self._next is None else self._next
        slots: Iterable[int] = range(first, last + 1)
        if last - first > len(self._slots):
            # nobody has looked for long: do not walk through all the time that has passed
            slots = sorted(slot for slot in self._slots if slot <= last)
        for slot in slots:
            items = self._slots.pop(slot, ())
            taken += items
            for item in items:
                del self._slot_of[item]
        self._next = max(first, last + 1)
        return taken
