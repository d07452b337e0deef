"""
The reports of several workers, merged to one: C{/health} and C{/stats} of the whole service.

Figures are sums, with the exceptions in the tables of this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

BAD_LAST = ("following", "up", "none", "nats", "postgres", "stopped", "standby", "memory", "connecting", "down")
"""
States and engines of the database, the log and the bus, the worst last.  The worst of all workers is the one of the
service; that some follow is as it should be if one does not.
"""

_LARGEST = frozenset(
    {
        "uptime_s",
        # each worker hears all of them
        "database.notifications",
        # all workers read the same log
        "log.head",
        "log.events",
        "log.bytes",
        "log.maxBytes",
        "log.keep",
        "log.partitions",
        "log.inboxBytes",
        "log.behind",
        "journal.age",
    }
)
_SMALLEST = frozenset({"log.first", "log.oldest", "log.heldSince", "journal.lastFlush"})
_FIRST = frozenset({"port"})


class WorkerReport(TypedDict, total=False):
    """
    One worker in C{/health} and C{/stats}.

    C{answered} is false if it has not said anything in time; then only its number and process are known.
    """

    worker: int
    pid: int
    answered: bool
    connectedClients: int
    pendingDeliveries: int
    database: str
    log: str


class Reported(TypedDict):
    """
    The report of one worker.  C{report} is None if it has not answered in time.
    """

    worker: int
    pid: int
    report: Mapping[str, Any] | None


def merge_stats(workers: Sequence[Reported], supervisor: Mapping[str, Any]) -> dict[str, Any]:
    """
    Merge the bodies of C{/stats}.

    @param workers: all workers; at least one has a report.
    @param supervisor: a part of such a body, with what the supervisor counts.
    """
    merged = _merged([*_reports(workers), supervisor])
    merged["workers"] = [_summary(worker) for worker in workers]
    return merged


def merge_health(workers: Sequence[Reported]) -> dict[str, Any]:
    """
    Merge the bodies of C{/health}.

    The service is draining if all workers are.  It is degraded if a worker is not healthy, or does not answer.

    @param workers: all workers; at least one has a report.
    """
    reports = _reports(workers)
    merged = _merged(reports)
    states = {report["status"] for report in reports}
    if len(states) > 1 or len(reports) < len(workers):
        merged["status"] = "degraded"
    merged["workers"] = [_summary(worker) for worker in workers]
    return merged


def worst(words: Sequence[str]) -> str:
    """
    The worst of several states; the first of them if it is not known how bad they are.
    """
    known = [word for word in words if word in BAD_LAST]
    return max(known, key=BAD_LAST.index) if known else words[0]


def _reports(workers: Sequence[Reported]) -> list[Mapping[str, Any]]:
    return [worker["report"] for worker in workers if worker["report"] is not None]


def _summary(worker: Reported) -> WorkerReport:
    report = worker["report"]
    summary: WorkerReport = {"worker": worker["worker"], "pid": worker["pid"], "answered": report is not None}
    if report is not None:
        summary["connectedClients"] = report["connectedClients"]
        summary["pendingDeliveries"] = report["pendingDeliveries"]
        summary["database"] = report["database"]["state"]
        if "log" in report:
            summary["log"] = report["log"]["state"]
    return summary


def _merged(reports: Sequence[Mapping[str, Any]], above: str = "") -> dict[str, Any]:
    names = dict.fromkeys(name for report in reports for name in report)
    return {name: _value([report[name] for report in reports if name in report], f"{above}{name}") for name in names}


def _value(values: Sequence[Any], path: str) -> Any:
    known = [value for value in values if value is not None]
    if not known:
        return None
    first = known[0]
    if isinstance(first, Mapping):
        return _merged(known, f"{path}.")
    if isinstance(first, bool):
        return any(known)
    if isinstance(first, str):
        return worst(known)
    if isinstance(first, int | float):
        return _rule(path)(known)
    return first


def _rule(path: str) -> Callable[[Sequence[Any]], Any]:
    if path in _LARGEST:
        return max
    if path in _SMALLEST:
        return min
    return _first if path in _FIRST else sum


def _first(values: Sequence[Any]) -> Any:
    return values[0]
