"""
The metrics of several workers, merged to those of the whole service.

Counters, histograms and most gauges are sums.  They are merged as values, before they become text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from prometheus_client.core import Metric

from dcm_ws.http.merging import worst

LARGEST = frozenset(
    {
        "dcm_ws_draining",
        "dcm_ws_log_behind",
        "dcm_ws_log_bytes",
        "dcm_ws_log_events",
        "dcm_ws_log_fallback",
        "dcm_ws_log_first",
        "dcm_ws_log_head",
        "dcm_ws_log_held_since_timestamp_seconds",
        "dcm_ws_log_inbox_bytes",
        "dcm_ws_log_keep_seconds",
        "dcm_ws_log_max_bytes",
        "dcm_ws_log_oldest_timestamp_seconds",
        "dcm_ws_log_partitions",
        "dcm_ws_notifications",
        "process_max_fds",
        "process_start_time_seconds",
        "python_info",
    }
)
"""
Families of which the largest value of all workers counts.
"""

SMALLEST = frozenset({"dcm_ws_journal_last_flush_timestamp_seconds"})
"""
Families of which the smallest value counts.
"""

STATES = frozenset(
    {"dcm_ws_bus_engine", "dcm_ws_bus_state", "dcm_ws_database_state", "dcm_ws_log_engine", "dcm_ws_log_state"}
)
"""
Families that are 1 for one state: for the worst of all workers.
"""


class Sampled(msgspec.Struct, array_like=True):
    """
    One value of a family.
    """

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, array_like=True):
    """
    A family of metrics, as it is sent from one worker to another.
    """

    name: str
    help: str
    type: str
    samples: list[Sampled]


def to_families(metrics: Iterable[Metric]) -> list[Family]:
    """
    Metrics as they can be sent.
    """
    return [
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            [Sampled(sample.name, sample.labels, sample.value) for sample in metric.samples],
        )
        for metric in metrics
    ]


class MergedMetrics:
    """
    The metrics of all workers, in place of a registry.

    @param workers: the families of each.
    """

    def __init__(self, workers: Sequence[Sequence[Family]]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        together: dict[str, list[Family]] = {}
        for families in self._workers:
            for family in families:
                together.setdefault(family.name, []).append(family)
        for same in together.values():
            yield _merged(same)


def _merged(families: Sequence[Family]) -> Metric:
    first = families[0]
    metric = Metric(first.name, first.help, first.type)
    found: dict[tuple[str, tuple[tuple[str, str], ...]], list[Sampled]] = {}
    for family in families:
        for sample in family.samples:
            found.setdefault((sample.name, tuple(sample.labels.items())), []).append(sample)
    if first.name in STATES:
        state = worst([label for (_, [(_, label)]), samples in found.items() if any(one.value for one in samples)])
    for samples in found.values():
        one, values = samples[0], [sample.value for sample in samples]
        value: Any
        if first.name in STATES:
            value = float(state in one.labels.values())
        elif first.name in LARGEST:
            value = max(values)
        elif first.name in SMALLEST:
            value = min(values)
        else:
            value = sum(values)
        metric.add_sample(one.name, one.labels, value)
    return metric
