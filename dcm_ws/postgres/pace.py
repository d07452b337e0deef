"""
How soon the log looks for new events.

NOTIFY makes commits wait for each other, which costs nothing while there are few.  When there are many, the log looks
by itself every few milliseconds, and closes a gate in front of NOTIFY: then no transaction notifies.
"""

from __future__ import annotations

MANY = 300.0
"""
Events a second from which on the log looks by itself.
"""

LOOK = 0.002
"""
Seconds between two looks then.
"""

IDLE = 0.05
"""
Seconds between two looks otherwise.  A notification comes sooner, but one may be lost, and a transaction that saw the
gate closed may commit after it was opened.
"""

_WINDOW = 0.25


class Pace:
    """
    Decides whether to poll, from how many events came lately.

    @ivar polls: look every L{LOOK} seconds, and keep the gate closed.
    """

    def __init__(self) -> None:
        self._since = 0.0
        self._events = 0
        self.polls = False

    def found(self, now: float, events: int) -> None:
        """
        A look has found so many events.

        @param now: monotonic seconds.
        """
        self._events += events
        if self._events >= MANY * _WINDOW:
            self.polls = True
            self._since, self._events = now, 0
        elif now - self._since >= _WINDOW:
            self.polls = self._events >= MANY * (now - self._since)
            self._since, self._events = now, 0

    @property
    def nap(self) -> float:
        """
        Seconds until the next look, if nothing happens.
        """
        return LOOK if self.polls else IDLE
