"""
The figures of a service that C{dcm-ws top} shows, with rates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dcm_ws.cli import top_log
from dcm_ws.cli.terminal import harmless
from dcm_ws.cli.top_report import Part, Report, is_number, number_at

COUNTS = (
    ("clients", "connectedClients"),
    ("authenticated", "authenticatedClients"),
    ("agents", "agents.connected"),
    ("channels", "activeChannels"),
    ("connections so far", "totalConnections"),
    ("events of clients", "events.client"),
    ("events of the database", "events.database"),
    ("bad notifications", "events.badNotifications"),
    ("pending deliveries", "pendingDeliveries"),
    ("acknowledged", "deliveries.acked"),
    ("redelivered", "deliveries.retried"),
    ("dropped", "failedDeliveries"),
    ("kept for absent agents", "deliveries.keptForAbsentAgents"),
    ("owed in all", "log.owed"),
    ("last position", "log.head"),
    ("events in the log", "log.events"),
    ("bytes of the log", "log.bytes"),
    ("clients catching up", "log.catchingUp"),
    ("events behind, at most", "log.behind"),
    ("replays", "log.replays"),
    ("gaps told", "log.gaps"),
    ("takeovers", "log.takeovers"),
    ("dead letters", "deadLetters.kept"),
    ("repeated publishes", "keys.duplicates"),
)
"""
The labels of the rows, and the places of their numbers in C{/stats}.
"""

KEY_COUNTS = (
    ("clients", "connectedClients"),
    ("client events", "events.client"),
    ("agents", "agents.connected"),
    ("database events", "events.database"),
    ("channels", "activeChannels"),
    ("acknowledged", "deliveries.acked"),
    ("owed", "log.owed"),
    ("redelivered", "deliveries.retried"),
    ("most behind", "log.behind"),
    ("gaps", "log.gaps"),
    ("dead letters", "deadLetters.kept"),
    ("events logged", "log.events"),
)
"""
The same, in short, of what is always shown.
"""

PROBLEMS = (("refusals", "refused: {}"), ("closes", "closed with {}"), ("limits", "limit hit: {}"))
"""
Parts of C{/stats} that count by name what should not happen, and the labels of their rows.
"""


class Figure(NamedTuple):
    """
    One figure.

    @ivar shown: its value, as text.
    @ivar rate: its change per second; None if it is not known, or 0.
    """

    label: str
    value: float
    shown: str
    rate: float | None = None


class Snapshot(NamedTuple):
    """
    What is known of a service.

    @ivar before: an earlier report to compute the rates from; None for none.
    @ivar elapsed: seconds since then.
    @ivar trouble: why there is no newer report; empty if there is.
    """

    report: Report
    before: Report | None = None
    elapsed: float = 0.0
    trouble: str = ""

    @property
    def stats(self) -> Part:
        return self.report["stats"]

    def rate_at(self, place: str, value: float) -> float | None:
        """
        The change per second of a number of C{/stats}; None if it is not known, or 0.
        """
        earlier = number_at(self.before["stats"], place) if self.before else None
        return self.rate(value, earlier)

    def rate(self, value: float, earlier: float | None) -> float | None:
        """
        The change per second since the earlier report; None if it is not known, or 0.
        """
        if earlier is None or self.elapsed <= 0 or value == earlier:
            return None
        return (value - earlier) / self.elapsed


def figures(snapshot: Snapshot) -> Iterator[Figure]:
    """
    All that is known.
    """
    stats = snapshot.stats
    durable = (*top_log.COUNTS, *top_log.JOURNAL_COUNTS) if top_log.is_durable(stats) else ()
    yield from counts(snapshot, (*COUNTS, *durable, *_problems(stats)))
    for label, seconds in top_log.ages(stats, snapshot.report["health"]):
        yield Figure(label, seconds, duration(seconds))
    for label, ms in top_log.means(stats, snapshot.before["stats"] if snapshot.before else None):
        yield Figure(label, ms, f"{ms:,.1f}")


def counts(snapshot: Snapshot, places: tuple[tuple[str, str], ...]) -> Iterator[Figure]:
    """
    The figures at some places of C{/stats}, without those that are missing.

    @param places: their labels and places.
    """
    for label, place in places:
        value = number_at(snapshot.stats, place)
        if value is not None:
            yield Figure(label, value, f"{value:,}", snapshot.rate_at(place, value))


def signed(rate: float | None) -> str:
    """
    A rate as text; nothing for None.
    """
    return "" if rate is None else f"{rate:+,.1f}"


def duration(seconds: object) -> str:
    """
    Days, hours, minutes and seconds; 0 for what is not a number.
    """
    whole = int(seconds) if is_number(seconds) else 0
    days, rest = divmod(whole, 86_400)
    return f"{days} d " * bool(days) + f"{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"


def _problems(stats: Part) -> Iterator[tuple[str, str]]:
    """
    The labels and places of the problems that have been counted.
    """
    for part, label in PROBLEMS:
        problems = stats.get(part)
        if isinstance(problems, dict):
            yield from ((label.format(harmless(name)), f"{part}.{name}") for name, count in problems.items() if count)
