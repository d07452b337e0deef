"""
The budgets of agents and addresses, over all workers.
"""

from __future__ import annotations

from collections.abc import Callable

from dcm_ws.app.node_memory import WAYS, NodeMemory
from dcm_ws.core.budgets import Allowance
from dcm_ws.core.pooled import Drawn, divided, filled

KINDS = ("agents", "addresses")
"""
The kinds of budgets.
"""


class NodePool:
    """
    What is left of the budgets of one kind.

    A name has one of L{WAYS} slots.  If all of them are taken, the one that nobody has used for longest is given up: it
    is full again in most cases.

    @param kind: one of L{KINDS}.
    @param now: monotonic seconds, the same for all processes.
    """

    def __init__(self, memory: NodeMemory, kind: str, allowance: Allowance, now: Callable[[], float]) -> None:
        self._memory = memory
        self._kind = KINDS.index(kind)
        self._keys, self._levels = memory.budgets(self._kind)
        self._mask = memory.plan.budgets - 1
        self._allowance = allowance
        self._now = now

    def exchange(self, name: str, messages: float, size: float) -> Drawn:
        with self._memory.locked(self._kind) as locked:
            if not locked:
                # rather some messages too many than agents that have to wait for a process that was stopped
                return divided(self._allowance, self._allowance.burst, self._allowance.bytes)
            at, left, bytes_left = self._level(name, messages, size)
            drawn = divided(self._allowance, left, bytes_left)
            self._levels[at], self._levels[at + 1] = drawn.messages_left, drawn.bytes_left
            return drawn

    def put_back(self, name: str, messages: float, size: float) -> None:
        with self._memory.locked(self._kind) as locked:
            if locked:
                at, self._levels[at], self._levels[at + 1] = self._level(name, messages, size)

    def _level(self, name: str, messages: float, size: float) -> tuple[int, float, float]:
        """
        What a budget has now, together with what is put back, and where it is.
        """
        allowance, levels, now = self._allowance, self._levels, self._now()
        slot, known = self._slot(self._memory.plan.hash_of(name))
        at = 3 * slot
        if known:
            left, bytes_left, since = levels[at : at + 3]
        else:
            left, bytes_left, since = allowance.burst, allowance.bytes, now
        levels[at + 2] = now
        return at, *filled(allowance, left + messages, bytes_left + size, max(0.0, now - since))

    def _slot(self, key: int) -> tuple[int, bool]:
        """
        The slot of a key, and whether it was there already.
        """
        first = (key & self._mask) * WAYS
        keys = self._keys[first : first + WAYS].tolist()
        if key in keys:
            return first + keys.index(key), True
        if 0 in keys:
            slot = first + keys.index(0)
        else:
            used = self._levels[3 * first + 2 : 3 * (first + WAYS) : 3].tolist()
            slot = first + used.index(min(used))
        self._keys[slot] = key
        return slot, False
