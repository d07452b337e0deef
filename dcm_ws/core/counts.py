"""
What is counted as it happens, cheaply, and turned into metrics by whoever asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence

LATENCIES = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""
Seconds.
"""

AUDIENCES = (0, 1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
"""
Subscribers that one event went to.
"""

SAMPLED = 16
"""
Of so many publishings of clients one is timed: to look at the clock twice for each would cost more than to count it.
"""


class Histogram:
    """
    How often values were how large.

    @param bounds: the largest value of each bucket but the last, which has none.
    @param values: how often each value was there already.

    @ivar counts: of each bucket by itself.
    @ivar sum: of all values.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float], values: Mapping[int, int] | None = None) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        for value, times in (values or {}).items():
            self.observe(value, times)

    def observe(self, value: float, times: int = 1) -> None:
        """
        Count C{value}, so many times.
        """
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


class Tally:
    """
    What passes through a hub.

    @ivar received: messages of clients, by what they are, but for pings and acks that settle a delivery; what could
        not be read is C{invalid}, and what was over the rate limit C{limited}.
    @ivar received_bytes: all that came from clients after the handshake.
    @ivar sent: frames, by what they are, but for events and pongs.
    @ivar sent_bytes: all that was written for clients after the handshake, before TLS and compression.
    @ivar pongs: the answers to pings.
    @ivar audiences: events, by how many subscribers they went to.
    @ivar again: frames of events that went out once more, or late.
    @ivar events: by source (C{client}, C{database} or C{service}), and category.
    @ivar publish_seconds: from a client's message to the frames queued for the subscribers, of one in L{SAMPLED}.
    @ivar notify_seconds: from a notification's arrival to its frames written.
    @ivar probe_seconds: round trips on the connection that listens to the database.
    """

    __slots__ = (
        "again",
        "audiences",
        "events",
        "notify_seconds",
        "pongs",
        "probe_seconds",
        "publish_seconds",
        "received",
        "received_bytes",
        "sent",
        "sent_bytes",
    )

    def __init__(self) -> None:
        # adding to a Counter takes more than twice as long
        self.received: defaultdict[str, int] = defaultdict(int)
        self.received_bytes = 0
        self.sent: defaultdict[str, int] = defaultdict(int)
        self.sent_bytes = 0
        self.pongs = 0
        self.audiences: defaultdict[int, int] = defaultdict(int)
        self.again = 0
        self.events: dict[str, defaultdict[str, int]] = {
            source: defaultdict(int) for source in ("client", "database", "service")
        }
        self.publish_seconds = Histogram(LATENCIES)
        self.notify_seconds = Histogram(LATENCIES)
        self.probe_seconds = Histogram(LATENCIES)
