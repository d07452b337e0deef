"""
The reports and the metrics of several workers, merged.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dcm_ws.core.counters import Histogram
from dcm_ws.core.counts import Counts
from dcm_ws.http.bus_metrics import ENGINES as BUS_ENGINES
from dcm_ws.http.bus_metrics import STATES as BUS_STATES
from dcm_ws.http.common_metrics import LARGEST, SMALLEST, STATES, Family, MergedMetrics, Sampled, to_families
from dcm_ws.http.families import counter, gauge, histogram, one_of, plain
from dcm_ws.http.gathering import CommonReports, Gathered, Joined, Said, families_of
from dcm_ws.http.log_metrics import ENGINES as LOG_ENGINES
from dcm_ws.http.log_metrics import STATES as LOG_STATES
from dcm_ws.http.merging import BAD_LAST, merge_health, merge_stats, worst
from dcm_ws.http.metrics import STATES as DATABASE_STATES
from dcm_ws.http.metrics import ReactorLag, ServiceCollector
from tests.fakes import Client, make_core, make_report


def reported(*reports: dict[str, Any] | None) -> list[Any]:
    return [{"worker": number, "pid": 100 + number, "report": one} for number, one in enumerate(reports, 1)]


def stats_of(clock: Clock, clients: int) -> dict[str, Any]:
    core = make_core(clock)
    for _ in range(clients):
        Client(core).auth("ann")
    report: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(make_report(core).stats(True)))
    return report


# reports


def test_figures_are_sums(clock: Clock) -> None:
    """
    What each worker counts is added; what all of them see is not.
    """
    ours, theirs = stats_of(clock, 2), stats_of(clock, 3)
    ours["log"] |= {"head": 7, "events": 4, "oldest": None}
    theirs["log"] |= {"head": 9, "events": 5, "oldest": 1000}
    merged = merge_stats(reported(ours, theirs), {"limits": {"logBuffer": 3}})
    assert merged["connectedClients"] == merged["totalConnections"] == 5
    assert merged["agentStats"] == {"ann": 5}
    assert merged["channelStats"]["global"] == 5
    assert merged["log"]["head"] == 9
    assert merged["log"]["events"] == 5
    assert merged["log"]["oldest"] == 1000
    assert merged["log"]["heldSince"] is None
    assert merged["log"]["fallback"] is False
    assert merged["limits"]["logBuffer"] == 3
    assert merged["limits"]["maxConnections"] == 0
    assert merged["workers"][1] == {
        "worker": 2,
        "pid": 102,
        "answered": True,
        "connectedClients": 3,
        "pendingDeliveries": theirs["pendingDeliveries"],
        "database": "none",
        "log": "up",
    }


def test_one_report_stays_as_it_is(clock: Clock) -> None:
    """
    Merging changes nothing where there is nothing to merge.
    """
    own = stats_of(clock, 2)
    merged = merge_stats(reported(own), {})
    del merged["workers"]
    assert merged == own


def test_missing_worker_is_named(clock: Clock) -> None:
    """
    A worker that has not answered is in the list, and makes the service degraded.
    """
    own = make_report(make_core(clock)).health(False)
    merged = merge_health(reported(dict(own), None))
    assert merged["status"] == "degraded"
    assert merged["workers"][1] == {"worker": 2, "pid": 102, "answered": False}
    assert "log" not in merged["workers"][0]


@pytest.mark.parametrize(
    ("states", "status"),
    [
        (("healthy", "healthy"), "healthy"),
        (("healthy", "degraded"), "degraded"),
        (("degraded", "degraded"), "degraded"),
        (("healthy", "draining"), "degraded"),
        (("draining", "draining"), "draining"),
    ],
)
def test_status(clock: Clock, states: tuple[str, ...], status: str) -> None:
    """
    The service is healthy, or draining, if all workers are.
    """
    own = dict(make_report(make_core(clock)).health(False))
    merged = merge_health(reported(*(own | {"status": state, "uptime_s": 3.5} for state in states)))
    assert merged["status"] == status
    assert merged["uptime_s"] == 3.5
    assert merged["port"] == 3849


def test_worst_state() -> None:
    """
    Every state of the database, the log and the bus has its place in the order, and so has every engine.
    """
    assert worst(["up", "down", "connecting"]) == "down"
    assert worst(["up", "standby"]) == "standby"
    assert worst(["following", "up", "following"]) == "up"
    assert worst(["1.0.0", "1.1.0"]) == "1.0.0"
    states = set(DATABASE_STATES) | set(LOG_STATES) | set(BUS_STATES)
    assert states | set(LOG_ENGINES) | set(BUS_ENGINES) <= set(BAD_LAST)


# asking


class Others:
    """
    Other workers, whose answers a test chooses.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []
        self.answers: list[Deferred[Gathered]] = []

    def gather(self, what: str, names: bool) -> Deferred[Gathered]:
        self.asked.append((what, names))
        answer: Deferred[Gathered] = Deferred()
        self.answers.append(answer)
        return answer

    def answer(self, *values: object, supervisor: object = None) -> None:
        said = [Said(number, 100 + number, msgspec.json.encode(value)) for number, value in enumerate(values, 1)]
        self.answers.pop(0).callback(Gathered(said, msgspec.json.encode(supervisor or {})))


def result(deferred: Deferred[Any]) -> Any:
    found: list[Any] = []
    deferred.addCallback(found.append)
    assert found
    return found[0]


def test_reports_of_all(clock: Clock) -> None:
    """
    A worker answers with its own report and those of the others, in the order of their numbers.
    """
    core, others = make_core(clock), Others()
    common = CommonReports(2, 42, make_report(core), others.gather)
    stats, health = common.stats(True), common.health(False)
    assert others.asked == [("stats", True), ("health", False)]
    others.answer(stats_of(clock, 4))
    others.answer(None)
    assert [worker["pid"] for worker in result(stats)["workers"]] == [101, 42]
    # without the names of channels in it, which only this worker's own report would have
    assert [worker["answered"] for worker in result(health)["workers"]] == [False, True]


@pytest.mark.parametrize(
    ("theirs", "fault"),
    [
        (("", ""), ""),
        (("", "the database is not connected"), "the database is not connected (worker 2)"),
        (("", None), ""),
    ],
)
def test_readiness_of_all(clock: Clock, theirs: tuple[str | None, ...], fault: str) -> None:
    """
    A service is ready if all workers that answer are.
    """
    others = Others()
    common = CommonReports(3, 42, make_report(make_core(clock)), others.gather)
    ready = common.not_ready()
    others.answer(*theirs)
    assert result(ready) == fault


def test_own_fault_comes_first(clock: Clock) -> None:
    """
    A worker that is not ready says so itself.
    """
    core, others = make_core(clock), Others()
    core.hub.drain()
    ready = CommonReports(2, 42, make_report(core), others.gather).not_ready()
    others.answer("the database is not connected")
    assert result(ready) == "draining"


def test_gatherings_are_joined(clock: Clock) -> None:
    """
    Requests that come while the others are asked share the answer; the next one asks again, unless there are too many.
    """
    asked: list[Deferred[str]] = []

    def make(key: bool) -> Deferred[str]:
        asked.append(Deferred())
        return asked[-1]

    joined: Joined[bool, str] = Joined(make, clock.seconds, most=2.0)
    first, second, other = joined(True), joined(True), joined(False)
    assert len(asked) == 2
    asked[0].callback("one")
    asked[1].callback("two")
    assert [result(one) for one in (first, second, other)] == ["one", "one", "two"]
    assert result(joined(True)) == "one"
    assert len(asked) == 2
    clock.advance(0.5)
    third = joined(True)
    asked[2].errback(ValueError("it failed"))
    failed: list[Any] = []
    third.addErrback(failed.append)
    assert failed[0].check(ValueError)
    assert result(joined(True)) == "one"


# metrics


def text_of(*workers: list[Family]) -> str:
    return generate_latest(MergedMetrics(workers)).decode()


def sent(*metrics: Any) -> list[Family]:
    """
    Metrics, as they arrive at another worker.
    """
    return msgspec.json.decode(msgspec.json.encode(to_families(metrics)), type=list[Family])


def test_metrics_are_added() -> None:
    """
    Counters, gauges and histograms are sums, bucket by bucket; nothing is lost by way of text.
    """
    ours, theirs = Histogram((0.1, 1.0)), Histogram((0.1, 1.0))
    ours.observe(0.05)
    theirs.observe(0.5, 2)
    theirs.observe(1 / 3, 1)
    text = text_of(
        sent(
            plain("sent_bytes", "Bytes", 2**60 + 256),
            counter("refusals", "Refusals", "code", {"A": 1}),
            gauge("channels", "Channels", 3),
            histogram("step_seconds", "Steps", ours),
        ),
        sent(
            plain("sent_bytes", "Bytes", 2**60),
            counter("refusals", "Refusals", "code", {"A": 2, "B": 5}),
            gauge("channels", "Channels", 4),
            histogram("step_seconds", "Steps", theirs),
        ),
    )
    lines = text.splitlines()
    assert f"dcm_ws_sent_bytes_total {float(2**61 + 256)}" in lines
    assert 'dcm_ws_refusals_total{code="A"} 3.0' in lines
    assert 'dcm_ws_refusals_total{code="B"} 5.0' in lines
    assert "dcm_ws_channels 7.0" in lines
    assert 'dcm_ws_step_seconds_bucket{le="0.1"} 1.0' in lines
    assert 'dcm_ws_step_seconds_bucket{le="1.0"} 4.0' in lines
    assert "dcm_ws_step_seconds_count 4.0" in lines
    assert f"dcm_ws_step_seconds_sum {0.05 + 1.0 + 1 / 3}" in lines
    assert lines.count("# TYPE dcm_ws_step_seconds histogram") == 1


def test_metrics_that_are_not_added() -> None:
    """
    Of what all workers see the largest or the smallest value counts, and of states the worst.
    """
    name, flush = "log_head", "journal_last_flush_timestamp_seconds"
    text = text_of(
        *(
            sent(
                gauge(name, "Head", head),
                gauge(flush, "Flush", head),
                one_of("log_state", "State", "state", LOG_STATES, state),
            )
            for head, state in ((5, "up"), (7, "connecting"), (6, "standby"))
        )
    )
    lines = text.splitlines()
    assert f"dcm_ws_{name} 7.0" in lines
    assert f"dcm_ws_{flush} 5.0" in lines
    states = [line for line in lines if line.startswith("dcm_ws_log_state{")]
    assert [line for line in states if line.endswith(" 1.0")] == ['dcm_ws_log_state{state="connecting"} 1.0']
    assert len(states) == len(LOG_STATES)


def test_names_of_families(clock: Clock) -> None:
    """
    The families that are not added exist, and every family of a single worker is there again after merging.
    """
    core = make_core(clock)
    registry = CollectorRegistry()
    registry.register(
        ServiceCollector(
            Counts(),
            hub=core.hub,
            deliveries=core.deliveries,
            stats=lambda: make_report(core).stats(False),
            lag=ReactorLag(clock.seconds),
        )
    )
    families = to_families(registry.collect())
    names = {family.name for family in families}
    own = {name for name in LARGEST | SMALLEST | STATES if name.startswith("dcm_ws_")}
    assert own <= names
    merged = generate_latest(MergedMetrics([families]))
    assert merged == generate_latest(registry)


def test_worker_without_metrics() -> None:
    """
    A worker that has not answered adds nothing.
    """
    own = sent(gauge("channels", "Channels", 3))
    supervisor = msgspec.json.encode(
        [Family("dcm_ws_workers", "Workers", "gauge", [Sampled("dcm_ws_workers", {}, 2.0)])]
    )
    found = families_of(own, Gathered([Said(2, 0, b"null")], supervisor))
    lines = text_of(*found).splitlines()
    assert "dcm_ws_channels 3.0" in lines
    assert "dcm_ws_workers 2.0" in lines
