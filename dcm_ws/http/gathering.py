"""
What one worker answers for all: it asks the others, and merges what they say with its own report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from dcm_ws.http.common_metrics import Family
from dcm_ws.http.merging import Reported, merge_health, merge_stats
from dcm_ws.http.report import Report
from dcm_ws.http.sparing import LastResults

K = TypeVar("K")
V = TypeVar("V")

GATHERINGS_A_SECOND = 20.0
"""
How often a worker asks the others for each report at most.
"""


class Said(NamedTuple):
    """
    What another worker has said.

    @ivar pid: of its process; 0 if there is none.
    @ivar value: JSON; C{null} if it has not answered in time.
    """

    worker: int
    pid: int
    value: bytes


class Gathered(NamedTuple):
    """
    What all others have said.

    @ivar supervisor: what the supervisor adds, as JSON.
    """

    workers: Sequence[Said]
    supervisor: bytes


Gather = Callable[[str, bool], Deferred[Gathered]]
"""
Asks all other workers for their C{health}, C{stats}, C{metrics} or C{ready}, with names or without.
"""


class Joined(Generic[K, V]):
    """
    A function with a Deferred that is called a limited number of times a second.  Beyond that, its last result is
    returned.  Calls that come while it is busy share the result.

    @param now: monotonic seconds.
    @param most: calls at once, and in each second.
    """

    def __init__(
        self, make: Callable[[K], Deferred[V]], now: Callable[[], float], most: float = GATHERINGS_A_SECOND
    ) -> None:
        self._make = make
        self._last: LastResults[K, V] = LastResults(now, most)
        self._waiting: dict[K, list[Deferred[V]]] = {}

    def __call__(self, key: K) -> Deferred[V]:
        answer: Deferred[V] = Deferred()
        if key in self._waiting:
            self._waiting[key].append(answer)
            return answer
        if self._last.must_do(key):
            return succeed(self._last[key])
        self._waiting[key] = [answer]
        self._make(key).addCallbacks(self._made, self._failed, callbackArgs=(key,), errbackArgs=(key,))
        return answer

    def _made(self, value: V, key: K) -> None:
        self._last.keep(key, value)
        for answer in self._waiting.pop(key):
            answer.callback(value)

    def _failed(self, failure: Failure, key: K) -> None:
        for answer in self._waiting.pop(key):
            answer.errback(failure)


class CommonReports:
    """
    The reports of all workers together.

    @param worker: the number of this one.
    @param pid: of this process.
    @param report: of this worker.
    """

    def __init__(self, worker: int, pid: int, report: Report, gather: Gather) -> None:
        self._worker = worker
        self._pid = pid
        self._report = report
        self._gather = gather

    def health(self, names: bool) -> Deferred[dict[str, Any]]:
        """
        The body of C{/health}.

        @param names: as in L{Report.health}.
        """
        return self._gather("health", names).addCallback(
            lambda gathered: merge_health(self._all(self._report.health(names), gathered))
        )

    def stats(self, names: bool) -> Deferred[dict[str, Any]]:
        """
        The body of C{/stats}.

        @param names: as in L{Report.stats}.
        """
        return self._gather("stats", names).addCallback(
            lambda gathered: merge_stats(
                self._all(self._report.stats(names), gathered), msgspec.json.decode(gathered.supervisor)
            )
        )

    def not_ready(self) -> Deferred[str]:
        """
        Why a load balancer should not send clients here; empty if it should.  Workers that do not answer are about to
        be replaced, and count as ready.
        """
        return self._gather("ready", False).addCallback(self._fault)

    def _fault(self, gathered: Gathered) -> str:
        own = self._report.not_ready()
        if own:
            return own
        for said in gathered.workers:
            fault = msgspec.json.decode(said.value)
            if fault:
                return f"{fault} (worker {said.worker})"
        return ""

    def _all(self, own: Any, gathered: Gathered) -> list[Reported]:
        reported: list[Reported] = [{"worker": self._worker, "pid": self._pid, "report": own}]
        reported += [
            {
                "worker": said.worker,
                "pid": said.pid,
                "report": msgspec.json.decode(said.value),
            }
            for said in gathered.workers
        ]
        return sorted(reported, key=lambda one: one["worker"])


def families_of(own: list[Family], gathered: Gathered) -> list[list[Family]]:
    """
    The metrics of each worker that has answered, and those of the supervisor.
    """
    values = [*(said.value for said in gathered.workers), gathered.supervisor]
    return [own, *(msgspec.json.decode(value, type=list[Family] | None) or [] for value in values)]
