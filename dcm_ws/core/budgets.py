"""
How many messages and bytes agents and addresses may send.

A budget belongs to an agent, and all its connections spend from it.  A client that has not authenticated has a budget
of its own, and also spends from that of its address.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

FRAGMENT = 1024
"""
Bytes that a fragment of a message counts as, at least: reading an empty one costs as much.
"""

TENFOLD = 9.0
"""
Bursts that may be refused, after the one that was allowed, before the client is closed.
"""

BURST = 100.0
"""
Messages at once, unless said otherwise.
"""


class Allowance(NamedTuple):
    """
    What may be sent.

    @ivar rate: messages a second; 0 for no limit.
    @ivar burst: messages at once.
    @ivar bytes: bytes a second, and at once; 0 for no limit.
    """

    rate: float = 0.0
    burst: float = BURST
    bytes: float = 0.0

    @property
    def is_limited(self) -> bool:
        """
        True if anything is limited.
        """
        return self.rate > 0.0 or self.bytes > 0.0

    def times(self, factor: float) -> Allowance:
        """
        The allowance of C{factor} clients together.
        """
        return Allowance(self.rate * factor, self.burst * factor, self.bytes * factor)


class Refusal(NamedTuple):
    """
    Why a message is not allowed.

    @ivar seconds: to wait before the next message is allowed.
    @ivar most: what is allowed a second.
    @ivar unit: C{messages} or C{bytes}.
    """

    seconds: float
    most: float
    unit: str


class Budget:
    """
    What is left of an allowance.

    A message is allowed while there is at least one message and one byte left; its bytes may overdraw the budget, and
    what comes next has to wait until that is made up for.

    @ivar excess: what was refused lately, in messages.
    @ivar holders: sessions that spend from it.
    """

    __slots__ = ("_allowance", "_bytes", "_filled_at", "_messages", "excess", "holders")

    def __init__(self, allowance: Allowance, now: float) -> None:
        self._allowance = allowance
        self._messages = allowance.burst
        self._bytes = allowance.bytes
        self._filled_at = now
        self.excess = 0.0
        self.holders = 0

    def spend(self, now: float, size: int) -> Refusal | None:
        """
        Take one message; nothing is taken if it is refused.

        @param now: monotonic seconds.
        @param size: its bytes that have not been taken yet.
        """
        allowance = self._allowance
        self._fill(now)
        if allowance.rate and self._messages < 1.0:
            return Refusal((1.0 - self._messages) / allowance.rate, allowance.rate, "messages")
        if allowance.bytes and size and self._bytes <= 0.0:
            return Refusal((1.0 - self._bytes) / allowance.bytes, allowance.bytes, "bytes")
        self._messages -= 1.0
        self._bytes -= size
        return None

    def give_back(self, size: int) -> None:
        """
        The message that was just taken costs nothing.
        """
        self._messages += 1.0
        self._bytes += size

    def overdraw(self, now: float, size: int) -> bool:
        """
        Take C{size} bytes of a message that is not complete yet.  False if none were left.
        """
        self._fill(now)
        left = not self._allowance.bytes or self._bytes > 0.0
        self._bytes -= size
        return left

    def put_back(self) -> None:
        """
        Nobody spends from it any more for now.
        """

    def charge(self, messages: float) -> None:
        """
        Take so many messages more for the one that was just taken, also if there are not as many left.
        """
        self._messages -= messages

    def refused(self, size: int) -> bool:
        """
        Count C{size} bytes that were refused.  True if too much has been refused lately.
        """
        allowance = self._allowance
        share = size / allowance.bytes if allowance.bytes else 0.0
        self.excess += max(1.0, share * allowance.burst)
        return self.excess >= TENFOLD * allowance.burst

    def is_full(self, now: float) -> bool:
        """
        True if it is the same as a new budget.
        """
        self._fill(now)
        allowance = self._allowance
        bytes_full = not allowance.bytes or self._bytes >= allowance.bytes
        return self.excess == 0.0 and self._messages >= allowance.burst and bytes_full

    def _fill(self, now: float) -> None:
        # called for each message: min() and max() would take a third of its time
        rate, burst, most = self._allowance
        passed = now - self._filled_at
        self._filled_at = now
        # without a limit of messages the excess is forgotten as if there were one
        earned = passed * (rate or burst)
        self._messages += earned
        if self._messages > burst:
            self._messages = burst
        if most:
            self._bytes += passed * most
            if self._bytes > most:
                self._bytes = most
        if self.excess:
            self.excess = max(0.0, self.excess - earned)


class Budgets:
    """
    The budgets of all agents, or of all addresses, by name.

    A budget without holders is kept until it is full again, so that a client gains nothing by reconnecting.

    @param now: monotonic seconds.
    @param max_idle: maximum budgets kept without holders; beyond it the oldest is dropped.
    @param make: makes a budget, given its name and the time; None for budgets that belong to this process only.
    """

    def __init__(
        self,
        allowance: Allowance,
        now: Callable[[], float],
        max_idle: int = 10_000,
        make: Callable[[str, float], Budget] | None = None,
    ) -> None:
        self._now = now
        self._max_idle = max_idle
        self._make = (lambda name, at: Budget(allowance, at)) if make is None else make
        self._held: dict[str, Budget] = {}
        self._idle: dict[str, Budget] = {}

    def __len__(self) -> int:
        return len(self._held) + len(self._idle)

    def hold(self, name: str) -> Budget:
        """
        Return the budget of that name, to be released later.
        """
        budget = self._held.get(name) or self._idle.pop(name, None) or self._make(name, self._now())
        self._held[name] = budget
        budget.holders += 1
        return budget

    def release(self, name: str) -> None:
        """
        A holder of the budget is gone.
        """
        budget = self._held[name]
        budget.holders -= 1
        if budget.holders:
            return
        del self._held[name]
        budget.put_back()
        self._idle[name] = budget
        self.forget()

    def forget(self) -> None:
        """
        Drop the oldest budgets without holders, as long as they are full again or there are too many.
        """
        now = self._now()
        while self._idle:
            name, budget = next(iter(self._idle.items()))
            if len(self._idle) <= self._max_idle and not budget.is_full(now):
                break
            del self._idle[name]
