"""
Budgets that several processes of one service spend from together.

Each process takes a portion out of the pool, and spends that without asking again: a message costs no more than with a
budget of the process's own.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from dcm_ws.core.budgets import Allowance, Budget, Refusal

PORTION = 1 / 8
"""
Of what may be sent at once, the part that a process takes out of a pool in one go.
"""

_DRY_SECONDS = 0.05


class Drawn(NamedTuple):
    """
    What a process has got out of a pool.

    @ivar messages: that it may spend; 0 if the pool has less than one.
    @ivar bytes: that it may spend; 0 if the pool has less than one.
    @ivar messages_left: messages that are left in the pool; negative if more than there were have been spent.
    @ivar bytes_left: bytes that are left in the pool.
    """

    messages: float
    bytes: float
    messages_left: float
    bytes_left: float


def filled(allowance: Allowance, messages: float, size: float, passed: float) -> tuple[float, float]:
    """
    Return what a pool has after some time.

    @param messages: and C{size}: what it had.
    @param passed: seconds.
    """
    rate, burst, most = allowance
    return min(burst, messages + passed * (rate or burst)), min(most, size + passed * most)


def divided(allowance: Allowance, messages: float, size: float) -> Drawn:
    """
    Take a portion of what a pool has.

    @param messages: and C{size}: what it has.
    """
    some = min(messages, max(1.0, allowance.burst * PORTION)) if messages >= 1.0 else 0.0
    some_bytes = min(size, max(1.0, allowance.bytes * PORTION)) if size >= 1.0 else 0.0
    return Drawn(some, some_bytes, messages - some, size - some_bytes)


class Pool(Protocol):
    """
    What is left of the budgets of one kind, by name, for all processes.
    """

    def exchange(self, name: str, messages: float, size: float) -> Drawn:
        """
        Put back what a process has, and take a portion of what there is then.

        @param messages: and C{size}: what the process has; negative if it has spent more.
        """

    def put_back(self, name: str, messages: float, size: float) -> None:
        """
        Put back what a process has, and take nothing.
        """


class PooledBudget(Budget):
    """
    What a process has taken out of a pool, and not spent yet.

    @param pool: has the rest of it, under C{name}.
    """

    __slots__ = ("_dry_until", "_name", "_pool", "_refusal")

    def __init__(self, allowance: Allowance, now: float, pool: Pool, name: str) -> None:
        super().__init__(allowance, now)
        self._messages = self._bytes = 0.0
        self._pool = pool
        self._name = name
        self._dry_until = now
        self._refusal: Refusal | None = None

    def spend(self, now: float, size: int) -> Refusal | None:
        rate, _, most = self._allowance
        if (rate and self._messages < 1.0) or (most and size and self._bytes <= 0.0):
            refusal = self._draw(now, size)
            if refusal is not None:
                return refusal
        self._messages -= 1.0
        self._bytes -= size
        return None

    def overdraw(self, now: float, size: int) -> bool:
        most = self._allowance.bytes
        if most and self._bytes <= 0.0:
            self._draw(now, size)
        left = not most or self._bytes > 0.0
        self._bytes -= size
        return left

    def is_full(self, now: float) -> bool:
        # the pool keeps what is spent
        self._fill(now)
        return self.excess == 0.0

    def put_back(self) -> None:
        messages, size, self._messages, self._bytes = self._messages, self._bytes, 0.0, 0.0
        self._pool.put_back(self._name, messages, size)

    def _draw(self, now: float, size: int) -> Refusal | None:
        """
        Take a portion; return why that is not enough.
        """
        self._fill(now)
        if now < self._dry_until:
            # a flood of messages must not become one of questions
            return self._refusal
        allowance = self._allowance
        self._messages, self._bytes, messages, left = self._pool.exchange(self._name, self._messages, self._bytes)
        if allowance.rate and self._messages < 1.0:
            refusal = Refusal((1.0 - messages) / allowance.rate, allowance.rate, "messages")
        elif allowance.bytes and size and self._bytes <= 0.0:
            refusal = Refusal((1.0 - left) / allowance.bytes, allowance.bytes, "bytes")
        else:
            return None
        self._refusal = refusal
        self._dry_until = now + min(refusal.seconds, _DRY_SECONDS)
        return refusal

    def _fill(self, now: float) -> None:
        # the pool is filled by the time that passes; here only what was refused is forgotten
        passed, self._filled_at = now - self._filled_at, now
        if self.excess:
            self.excess = max(0.0, self.excess - passed * (self._allowance.rate or self._allowance.burst))
