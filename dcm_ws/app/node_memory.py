"""
Memory that the workers of one supervisor have in common: the supervisor makes it, and the workers inherit it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import msgspec

WAYS = 8
"""
Slots of a table of budgets among which a name has one.
"""

SHARES = 8
"""
Kinds of connections that are counted, at most.
"""

_WORD = 8
_LOCK_SECONDS = 0.002
_STUCK_SECONDS = 0.1


class Plan(msgspec.Struct, frozen=True):
    """
    What is where in the memory.

    @ivar workers: that have a region each, for what they count.
    @ivar addresses: slots of a worker for addresses; a power of 2.
    @ivar budgets: sets of L{WAYS} slots for the budgets of one kind; a power of 2.
    @ivar key: of the hashes that stand for names, so that nobody can choose names with the same hash.
    """

    workers: int
    addresses: int
    budgets: int
    key: bytes

    @property
    def region(self) -> int:
        """
        Words of the region of a worker: what each kind of connections has in all, and has reserved, a number that is
        odd while entries are moved, and the keys and counts of the addresses.
        """
        return 2 * SHARES + 1 + 2 * self.addresses

    @property
    def budget_slots(self) -> int:
        """
        Slots for the budgets of one kind.
        """
        return self.budgets * WAYS

    @property
    def size(self) -> int:
        """
        Bytes in all: the regions, and for the budgets of agents and addresses a key and three numbers each.
        """
        return _WORD * (self.workers * self.region + 2 * 4 * self.budget_slots)

    def hash_of(self, *name: str) -> int:
        """
        What stands for a name; never 0.
        """
        text = "\0".join(name).encode("utf-8", "surrogatepass")
        return int.from_bytes(blake2b(text, digest_size=_WORD, key=self.key).digest(), "little") or 1


def plan_for(workers: int, max_connections: int) -> Plan:
    """
    Plan the memory for a service.

    @param max_connections: that it may have.
    """
    power = 1 << max(10, (4 * max_connections - 1).bit_length())
    return Plan(workers, addresses=power, budgets=power // WAYS, key=os.urandom(16))


def make_memory(plan: Plan) -> int:
    """
    Make the memory, all zeros; return its file descriptor.
    """
    descriptor = os.memfd_create("dcm-ws workers")
    os.ftruncate(descriptor, plan.size)
    return descriptor


class NodeMemory:
    """
    The memory, as one process sees it.

    @param descriptor: of the memory.
    """

    def __init__(self, descriptor: int, plan: Plan) -> None:
        self.plan = plan
        self._descriptor = descriptor
        self._all = memoryview(mmap.mmap(descriptor, plan.size))
        self._stuck_until = 0.0

    def region(self, worker: int) -> memoryview[int]:
        """
        The region of a worker, in words.

        @param worker: counted from 0.
        """
        size = _WORD * self.plan.region
        return self._all[worker * size : (worker + 1) * size].cast("Q")

    def budgets(self, kind: int) -> tuple[memoryview[int], memoryview[float]]:
        """
        The keys of the budgets of a kind, and their numbers, three for each.

        @param kind: 0 or 1.
        """
        slots, begin = self.plan.budget_slots, _WORD * self.plan.workers * self.plan.region
        begin += kind * 4 * _WORD * slots
        middle = begin + _WORD * slots
        return self._all[begin:middle].cast("Q"), self._all[middle : middle + 3 * _WORD * slots].cast("d")

    def clear(self, worker: int) -> None:
        """
        Forget what a worker has counted, which has ended.
        """
        region = self.region(worker).cast("B")
        region[:] = bytes(len(region))

    @contextmanager
    def locked(self, kind: int) -> Iterator[bool]:
        """
        Keep other processes from the budgets of a kind for some microseconds.  Yields False if that is not possible:
        a process that was stopped may hold the lock.  A process that ends gives it up.
        """
        taken = self._lock(kind)
        try:
            yield taken
        finally:
            if taken:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, kind)

    def _lock(self, kind: int) -> bool:
        deadline = 0.0
        while True:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, kind)
            except OSError:
                now = time.monotonic()
                if now < self._stuck_until:
                    return False
                deadline = deadline or now + _LOCK_SECONDS
                if now > deadline:
                    self._stuck_until = now + _STUCK_SECONDS
                    return False
                os.sched_yield()
            else:
                return True
