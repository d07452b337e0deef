"""
What is counted as it happens, cheaply, and turned into metrics by whoever asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

LATENCIES = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""
Seconds.
"""

AUDIENCES = (0, 1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
"""
Subscribers that one event went to.
"""


class Histogram:
    """
    How often values were how large.

    @param bounds: the largest value of each bucket but the last, which has none.

    @ivar counts: of each bucket by itself.
    @ivar sum: of all values.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """
        Count C{value}, so many times.
        """
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


class Tally:
    """
    What passes through a hub.

    @ivar received: messages of clients, by what they are; what could not be read is under None.
    @ivar received_bytes: of those messages, without the frames around them.
    @ivar sent: frames, by what they are.
    @ivar sent_bytes: bytes of those frames.
    @ivar events: by source (C{client}, C{database} or C{service}) and category, as C{(source, category)}.
    @ivar fanout: subscribers, for each event.
    @ivar publish_seconds: from a client's message to the frames queued for the subscribers.
    @ivar notify_seconds: from a notification's arrival to its frames written.
    """

    __slots__ = (
        "events",
        "fanout",
        "notify_seconds",
        "publish_seconds",
        "received",
        "received_bytes",
        "sent",
        "sent_bytes",
    )

    def __init__(self) -> None:
        self.received: Counter[type | None] = Counter()
        self.received_bytes = 0
        self.sent: Counter[str] = Counter()
        self.sent_bytes: Counter[str] = Counter()
        self.events: Counter[tuple[str, str]] = Counter()
        self.fanout = Histogram(AUDIENCES)
        self.publish_seconds = Histogram(LATENCIES)
        self.notify_seconds = Histogram(LATENCIES)

    def count_sent(self, kind: str, frames: int, size: int) -> None:
        """
        So many frames of that kind went out, of so many bytes in all.
        """
        self.sent[kind] += frames
        self.sent_bytes[kind] += size
