"""
How far a client is that catches up with the log, and what it gets of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from dcm_ws.core.delivery import Tracked
from dcm_ws.core.entries import Entry

_NEVER = 1 << 62


class Behind:
    """
    How far a client is that catches up.

    @ivar after: everything up to this position has been sent, or need not be.
    @ivar live: up to this position the client has got the events of its subscriptions directly.
    @ivar resumed: the position that the client has in the channels that it has resumed.
    @ivar missed: the position in each channel after which its agent has missed tracked events.
    @ivar owed: what its agent has not acknowledged, by position.
    @ivar told: up to this position it knows of the gaps.
    @ivar is_full: so much is in flight that it waits for acks.
    @ivar page: what has been read in the log, and not been sent yet.
    @ivar upto: the position up to which that is everything; -1 if the log has to be read, or is being read.
    @ivar lost: the last position of what should be in C{page} and is gone.
    @ivar reading: stands for the page that the log is being asked for; None if it is not.
    """

    __slots__ = ("after", "is_full", "live", "lost", "missed", "owed", "page", "reading", "resumed", "told", "upto")

    def __init__(self, live: int) -> None:
        self.after = self.live = live
        self.told = 0
        self.resumed: dict[str, int] = {}
        self.missed: dict[str, int] = {}
        self.owed: dict[int, Tracked] = {}
        self.is_full = False
        self.page: deque[Entry] = deque()
        self.upto = -1
        self.lost = 0
        self.reading: object | None = None

    def read_again(self) -> None:
        """
        Forget what has been read, and what is being read.
        """
        self.page.clear()
        self.upto = -1
        self.reading = None

    def lanes(self, subscriptions: Mapping[str, int]) -> dict[str, int]:
        """
        The position in each channel after which there may be something for the client.
        """
        live, resumed, missed = self.live, self.resumed, self.missed
        return {
            name: min(max(live, since), resumed.get(name, _NEVER), missed.get(name, _NEVER))
            for name, since in subscriptions.items()
        }

    def wants(self, entry: Entry, channel: str, since: int) -> bool:
        """
        Does the client get C{entry} as a subscriber of C{channel}, which it has been since C{since}?
        """
        pos = entry.pos
        if pos > since:
            return pos > self.live
        return self.resumed.get(channel, _NEVER) < pos or (entry.tracked and self.missed.get(channel, _NEVER) < pos)
