"""
The metrics of the log, its engine and the journal.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.http.metrics import ReactorLag, ServiceCollector
from tests.fakes import make_core, make_report


def samples(core: Core, **choices: Any) -> dict[str, float]:
    """
    Each sample by its name and labels, as they would stand in a query.  Choices go to the report.
    """
    registry = CollectorRegistry()
    report = make_report(core, **choices)
    registry.register(
        ServiceCollector(
            core.counts,
            hub=core.hub,
            deliveries=core.deliveries,
            stats=lambda: report.stats(False),
            lag=ReactorLag(core.world.now),
        )
    )
    found = {}
    for family in registry.collect():
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_log_in_memory(clock: Clock) -> None:
    """
    What does not exist has no sample, or is 0.
    """
    core = make_core(clock)
    found = samples(core)
    assert found['dcm_ws_log_engine{engine="memory"}'] == found['dcm_ws_log_state{state="up"}'] == 1
    assert found['dcm_ws_log_engine{engine="postgres"}'] == found['dcm_ws_log_state{state="standby"}'] == 0
    assert found["dcm_ws_log_fallback"] == found["dcm_ws_journal_pending_agents"] == 0
    assert not [name for name in found if name.endswith("_timestamp_seconds")]
    assert found["dcm_ws_log_max_bytes"] == core.log.report()["maxBytes"] > 0


def test_engine(clock: Clock) -> None:
    """
    Everything that the engine reports and counts is in the metrics, in seconds and bytes.
    """
    core = make_core(clock)
    state = {
        "engine": "postgres", "state": "standby", "oldest": 1_700_000_000_500, "keep": 86_400.0, "partitions": 5,
        "inboxBytes": 6, "heldSince": 1_700_000_001_500, "waiting": 7, "waitingBytes": 8, "maxBytes": 9,
        "readsWaiting": 14,
    }  # fmt: skip
    whole = core.log.report
    core.log.report = lambda: {**whole(), **state}  # type: ignore[method-assign,typeddict-item]
    engine = core.counts.engine
    engine.steps, engine.numbered, engine.reads = 10, 11, 12
    engine.refused.add_of("ann", 13)
    engine.lag_seconds.observe(0.002)
    engine.step_seconds.observe(3, 2)

    found = samples(core)
    assert found['dcm_ws_log_state{state="standby"}'] == found['dcm_ws_log_engine{engine="postgres"}'] == 1
    assert found['dcm_ws_log_state{state="up"}'] == found['dcm_ws_log_engine{engine="memory"}'] == 0
    expected = {
        "log_oldest_timestamp_seconds": 1_700_000_000.5, "log_keep_seconds": 86_400, "log_partitions": 5,
        "log_inbox_bytes": 6, "log_held_since_timestamp_seconds": 1_700_000_001.5,
        "publishes_waiting": 7, "publishes_waiting_bytes": 8, "log_max_bytes": 9,
        "log_steps_total": 10, "log_numbered_total": 11, "log_reads_total": 12, "publishes_refused_total": 13,
        "log_reads_waiting": 14,
        'log_lag_seconds_bucket{le="0.001"}': 0, 'log_lag_seconds_bucket{le="0.0025"}': 1, "log_lag_seconds_count": 1,
        "log_lag_seconds_sum": 0.002, 'log_step_seconds_bucket{le="2.5"}': 0, "log_step_seconds_count": 2,
    }  # fmt: skip
    assert {name: found[f"dcm_ws_{name}"] for name in expected} == expected


def test_log_that_fell_back_to_memory(clock: Clock) -> None:
    """
    A log that is in memory because the database has none can be told from one that was asked for.
    """
    core = make_core(clock)
    whole = core.log.report
    core.log.report = lambda: {**whole(), "reason": "the database has no schema dcm_ws"}  # type: ignore[method-assign]
    found = samples(core)
    assert found["dcm_ws_log_fallback"] == found['dcm_ws_log_engine{engine="memory"}'] == 1


def test_journal(clock: Clock) -> None:
    """
    What is known of the journal.
    """
    core = make_core(clock)
    counts = core.counts.journal
    counts.flushes, counts.failures = 1, 2
    counts.flush_seconds.observe(0.1)
    found = samples(core, journal=lambda: {"lastFlush": 1_700_000_000_250, "pending": 3, "rows": 4})
    expected = {
        "journal_flushes_total": 1, "journal_failures_total": 2, "journal_pending_agents": 3, "journal_rows": 4,
        "journal_last_flush_timestamp_seconds": 1_700_000_000.25, "journal_flush_seconds_sum": 0.1,
    }  # fmt: skip
    assert {name: found[f"dcm_ws_{name}"] for name in expected} == expected


def test_owners(clock: Clock) -> None:
    """
    What is known of agents that go from one node to another; 0 if there is only one node.
    """
    core = make_core(clock)
    assert samples(core)["dcm_ws_agents_owned"] == 0
    counts = core.counts.owners
    counts.taken, counts.asked, counts.forced, counts.given, counts.given_back = 3, 4, 5, 6, 7
    counts.lost, counts.merged, counts.refused = 8, 9, 10
    counts.take_seconds.observe(0.1)
    found = samples(core, owners=lambda: {"owned": 1, "awaited": 2})
    expected = {
        "owned": 1, "awaited": 2, "taken_total": 3, "asked_total": 4, "forced_total": 5, "given_total": 6,
        "given_back_total": 7, "lost_total": 8, "merged_total": 9, "refused_total": 10,
    }  # fmt: skip
    assert {name: found[f"dcm_ws_agents_{name}"] for name in expected} == expected
    assert found["dcm_ws_agent_take_seconds_sum"] == 0.1


def test_bus(clock: Clock) -> None:
    """
    What is known of the bus between nodes; 0 or none if there is no bus.
    """
    core = make_core(clock)
    found = samples(core)
    assert found['dcm_ws_bus_engine{engine="none"}'] == found['dcm_ws_bus_state{state="none"}'] == 1
    assert found["dcm_ws_bus_waiting"] == found["dcm_ws_bus_reconnects_total"] == 0
    counts = core.counts.bus
    counts.connects, counts.sent, counts.heard, counts.sent_bytes, counts.heard_bytes = 4, 5, 6, 7, 8
    counts.dropped, counts.broken, counts.unanswered = 9, 10, 11
    counts.probe_seconds.observe(0.1)
    found = samples(
        core, bus=lambda: {"engine": "nats", "state": "down", "reason": "", "waiting": 12, "waitingBytes": 13}
    )
    expected = {
        "bus_reconnects_total": 3, "bus_messages_sent_total": 5, "bus_messages_heard_total": 6,
        "bus_sent_bytes_total": 7, "bus_heard_bytes_total": 8, "bus_dropped_total": 9, "bus_broken_total": 10,
        "bus_unanswered_total": 11, "bus_waiting": 12, "bus_waiting_bytes": 13, "bus_probe_seconds_sum": 0.1,
        'bus_engine{engine="nats"}': 1, 'bus_state{state="down"}': 1, 'bus_engine{engine="none"}': 0,
    }  # fmt: skip
    assert {name: found[f"dcm_ws_{name}"] for name in expected} == expected
