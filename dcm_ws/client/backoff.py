"""
How long a client waits before it connects again.
"""

from __future__ import annotations

from collections.abc import Callable

BACKOFF_BASE = 0.5
"""
Maximum delay of the first retry, in seconds.
"""

BACKOFF_MAX = 30.0
"""
Maximum delay of any retry, in seconds.
"""

STABLE = 10.0
"""
Seconds that a client must stay connected for the back-off to start again from its minimum.
"""

_GOING_AWAY = 1001
# the server is full, or the client kept exceeding the rate limit
_OVER_A_LIMIT = frozenset({1013, 4029})
_ATTEMPT_OVER_A_LIMIT = 4
_ATTEMPT_MAX = 30


class Backoff:
    """
    Exponential delays with full jitter: clients that were disconnected at the same time do not reconnect at the same
    time.

    @param random: returns a number from 0 to 1.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._attempt = 0

    def reset(self) -> None:
        """
        Start again from the minimum: the client has been connected for a while, or its user connects it.
        """
        self._attempt = 0

    def next_delay(self, code: int | None) -> float:
        """
        Seconds until the next attempt.

        @param code: the close code of the connection that has ended (docs/protocol.md, Close codes); None if no
            connection was opened.
        """
        if code in _OVER_A_LIMIT:
            self._attempt = max(self._attempt, _ATTEMPT_OVER_A_LIMIT)
        longest = BACKOFF_MAX if code == _GOING_AWAY else min(BACKOFF_MAX, BACKOFF_BASE * 2**self._attempt)
        self._attempt = min(self._attempt + 1, _ATTEMPT_MAX)
        return self._random() * longest
