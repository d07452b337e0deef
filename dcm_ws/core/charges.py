"""
What clients send, charged to their budgets (protocol, section 6).
"""

from __future__ import annotations

from collections.abc import Callable

from dcm_ws.core.budgets import FRAGMENT, Refusal
from dcm_ws.core.counts import Counts
from dcm_ws.core.session import Session
from dcm_ws.protocol.errors import CloseCode

RESUME = 10.0
"""
Messages that a C{resume} counts as, beyond its own: a short one may be answered with 256 KiB of events.
"""

RESUMED_FOR_ONE = 20
"""
Channels that make it count as one message more.
"""


class Charges:
    """
    Charges messages, control frames and fragments.  A client is closed if ten times what it may send is refused.

    @param now: monotonic seconds.
    @param close: ends a client's connection.
    """

    def __init__(self, now: Callable[[], float], counts: Counts, close: Callable[[Session, CloseCode], object]) -> None:
        self._now = now
        self._limits = counts.limits
        self._received = counts.received
        self._close = close

    def message(self, session: Session, size: int) -> Refusal | None:
        """
        Charge a message before it is read.

        @param size: its bytes that have not been charged yet.
        @return: why it is over the limit; the caller has to say so, and to call L{refused}.
        """
        now = self._now()
        for budget in session.budgets:
            refusal = budget.spend(now, size)
            if refusal is not None:
                return refusal
        return None

    def resume(self, session: Session, channels: int) -> None:
        """
        Charge a C{resume}, beyond its message, for what it makes the server read and send.

        @param channels: those of the client, or those that it names, if they are more.
        """
        for budget in session.budgets:
            budget.charge(RESUME + channels / RESUMED_FOR_ONE)

    def control(self, session: Session, size: int) -> bool:
        """
        Charge a WebSocket control frame as a message.  False if it is over the limit and has to be ignored.

        @param size: bytes of its payload.
        """
        refusal = self.message(session, size)
        if refusal is not None:
            self.refused(session, refusal.unit, size)
        return refusal is None

    def fragment(self, session: Session, size: int) -> None:
        """
        Charge a part of a message when it begins; the message itself is charged when it is complete.

        @param size: bytes of its payload.
        """
        now, size = self._now(), max(size, FRAGMENT)
        for budget in session.budgets:
            if not budget.overdraw(now, size):
                self.refused(session, "bytes", size)
                break

    def refused(self, session: Session, unit: str, size: int) -> None:
        """
        Count a refusal, and close the client if there were too many of late.

        @param unit: as in L{Refusal}.
        """
        if session.is_stranger:
            self._limits.stranger_rate.add()
        elif unit == "bytes":
            self._limits.rate_bytes.add()
        else:
            self._limits.rate_limit.add()
        self._received.limited += 1
        if session.budgets[0].refused(size):
            self._close(session, CloseCode.TOO_MANY_MESSAGES)
