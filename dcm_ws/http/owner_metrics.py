"""
The agents of a node of a cluster, as Prometheus metrics.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from dcm_ws.core.counts import Counts
from dcm_ws.http.families import gauge, histogram, plain
from dcm_ws.http.report import StatsReport


def owner_metrics(stats: StatsReport, counts: Counts) -> Iterator[Metric]:
    """
    Make the metrics of agents that go from one node to another.

    @param stats: the body of C{/stats}.
    """
    report, owners = stats.get("owners"), counts.owners
    yield gauge("agents_owned", "Agents that this node has", 0 if report is None else report["owned"])
    yield gauge("agents_awaited", "Agents that this node is about to have", 0 if report is None else report["awaited"])
    yield plain("agents_taken", "Agents that this node took over", owners.taken)
    yield plain("agents_asked", "Agents that other nodes were asked for", owners.asked)
    yield plain("agents_forced", "Agents that were taken because the other node did not answer", owners.forced)
    yield plain("agents_given", "Agents that were given to other nodes", owners.given)
    yield plain("agents_given_back", "Agents that were written for others because this node stops", owners.given_back)
    yield plain("agents_lost", "Agents that other nodes took without this one knowing", owners.lost)
    yield plain("agents_merged", "Connections that left something for an agent of another node", owners.merged)
    yield plain("agents_refused", "Clients that were closed because their agent could not be taken", owners.refused)
    yield histogram("agent_take_seconds", "How long clients waited for their agents", owners.take_seconds)
