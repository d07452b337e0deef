"""
Connections per address, counted over all workers.

Each worker counts its own in its region of the common memory, and reads those of the others: nobody waits for a lock.
"""

from __future__ import annotations

import threading
from functools import lru_cache

from dcm_ws.app.node_memory import SHARES, NodeMemory

_TRIES = 100
_KEYS = 4096


class Region:
    """
    The counts of one worker.  Only that worker writes them.

    The addresses are in a hash table with open addressing.  An entry whose count is 0 is taken out, and those after it
    move up; while they do, the word before the table is odd.
    """

    def __init__(self, words: memoryview[int], addresses: int) -> None:
        begin = 2 * SHARES + 1
        self.totals = words[:SHARES]
        self.reserved = words[SHARES : 2 * SHARES]
        self._moving = words[begin - 1 : begin]
        self._keys = words[begin : begin + addresses]
        self._counts = words[begin + addresses : begin + 2 * addresses]
        self._mask = addresses - 1
        self._room = addresses * 7 // 8
        self._used = 0

    def count(self, key: int) -> int:
        """
        How often C{key} is counted.
        """
        for _ in range(_TRIES):
            before = self._moving[0]
            found = self._find(key)
            if not before & 1 and before == self._moving[0]:
                break
        # of a worker that was stopped while it moved an entry: what is there
        return self._counts[found] if self._keys[found] == key else 0

    def add(self, key: int) -> None:
        """
        Add 1 to the count of C{key}.  Nothing happens if there is no room for another key.
        """
        found = self._find(key)
        if self._keys[found] == key:
            self._counts[found] += 1
        elif self._used < self._room:
            self._used += 1
            # who finds the key must find its count
            self._counts[found] = 1
            self._keys[found] = key

    def remove(self, key: int) -> None:
        """
        Count C{key} once less.
        """
        found = self._find(key)
        if self._keys[found] != key:
            return
        self._counts[found] -= 1
        if not self._counts[found]:
            self._used -= 1
            self._moving[0] += 1
            self._take_out(found)
            self._moving[0] += 1

    def _find(self, key: int) -> int:
        """
        The slot of a key, or the empty one where it would be.
        """
        keys, mask = self._keys, self._mask
        slot = key & mask
        for _ in range(mask):
            if keys[slot] in (key, 0):
                break
            slot = slot + 1 & mask
        return slot

    def _take_out(self, empty: int) -> None:
        keys, counts, mask = self._keys, self._counts, self._mask
        slot = empty
        while True:
            slot = slot + 1 & mask
            key = keys[slot]
            if not key:
                break
            # an entry may move to any slot from its first one on
            if (slot - key & mask) >= (slot - empty & mask):
                counts[empty] = counts[slot]
                keys[empty] = key
                empty = slot
        keys[empty] = 0


class Tally:
    """
    The connections of one kind, of which this worker and the others have some each.

    @param worker: this one, counted from 0.
    @param regions: those of all workers.
    @param share: the number of the kind.
    @param by_address: count them by address, too.
    """

    def __init__(self, memory: NodeMemory, worker: int, regions: list[Region], share: int, *, by_address: bool) -> None:
        plan, kind = memory.plan, str(share)
        # an address that connects once mostly does so again
        self._key = lru_cache(_KEYS)(lambda address: plan.hash_of(kind, address))
        self._own = regions[worker]
        self._others = regions[:worker] + regions[worker + 1 :]
        self._share = share
        self._by_address = by_address
        self._fence = threading.Lock()

    def elsewhere(self) -> int:
        """
        The connections that the other workers have.
        """
        share = self._share
        return sum(other.totals[share] for other in self._others)

    def reserve(self, address: str) -> tuple[int, int]:
        """
        Announce a connection of an address, until the next call of any method.

        @return: the connections that the other workers have or have announced: in all, and of this address.
        """
        share, key = self._share, self._key(address)
        self._own.reserved[share] = key
        with self._fence:
            # of two workers that announce the last one at the same time at least one sees the other: the processor
            # must not read on before what was written is visible to the others, and a lock keeps it from that
            pass
        all_others = of_address = 0
        for other in self._others:
            reserved = other.reserved[share]
            all_others += other.totals[share] + bool(reserved)
            if self._by_address:
                of_address += other.count(key) + (reserved == key)
        return all_others, of_address

    def cancel(self) -> None:
        """
        The connection that was announced is refused.
        """
        self._own.reserved[self._share] = 0

    def enter(self, address: str) -> None:
        """
        Count a connection from now on.
        """
        self._own.totals[self._share] += 1
        if self._by_address:
            self._own.add(self._key(address))
        self.cancel()

    def leave(self, address: str) -> None:
        """
        A connection that was counted is gone.
        """
        self.cancel()
        self._own.totals[self._share] -= 1
        if self._by_address:
            self._own.remove(self._key(address))
