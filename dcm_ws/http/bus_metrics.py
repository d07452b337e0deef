"""
The bus between nodes, as Prometheus metrics.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from dcm_ws.core.counts import Counts
from dcm_ws.http.families import gauge, histogram, one_of, plain
from dcm_ws.http.report import StatsReport

ENGINES = ("none", "memory", "postgres", "nats")
"""
What may carry messages between nodes.
"""

STATES = ("none", "connecting", "up", "down")
"""
States of the bus.
"""


def bus_metrics(stats: StatsReport, counts: Counts) -> Iterator[Metric]:
    """
    Make the metrics of the bus.

    @param stats: the body of C{/stats}.
    """
    report, bus = stats.get("bus"), counts.bus
    engine, state, waiting, size = "none", "none", 0, 0
    if report is not None:
        engine, state = report["engine"], report["state"]
        waiting, size = report["waiting"], report["waitingBytes"]
    yield one_of("bus_engine", "1 for what carries messages between nodes", "engine", ENGINES, engine)
    yield one_of("bus_state", "1 for the state of the bus between nodes", "state", STATES, state)
    yield plain("bus_reconnects", "Reconnections of the bus", max(0, bus.connects - 1))
    yield plain("bus_messages_sent", "Messages to other nodes", bus.sent)
    yield plain("bus_sent_bytes", "Bytes of the messages to other nodes", bus.sent_bytes)
    yield plain("bus_messages_heard", "Messages of other nodes", bus.heard)
    yield plain("bus_heard_bytes", "Bytes of the messages of other nodes", bus.heard_bytes)
    yield gauge("bus_waiting", "Messages to other nodes that cannot be sent yet", waiting)
    yield gauge("bus_waiting_bytes", "Bytes that these take", size)
    yield plain("bus_dropped", "Messages to other nodes that were dropped", bus.dropped)
    yield plain("bus_broken", "Messages of other nodes that arrived incomplete, or could not be read", bus.broken)
    yield plain("bus_unanswered", "Questions to other nodes that had no answer in time", bus.unanswered)
    yield histogram("bus_probe_seconds", "Round trips to the server that carries the messages", bus.probe_seconds)
