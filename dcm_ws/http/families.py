"""
Families of metrics, as the collectors make them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from dcm_ws.core.counters import Histogram


def plain(name: str, text: str, value: float) -> Metric:
    """
    A counter without labels.

    @param name: without the C{dcm_ws_} in front of it, as of all families here.
    """
    return CounterMetricFamily(f"dcm_ws_{name}", text, value)


def counter(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """
    A counter with one label.

    @param values: by the value of the label.
    """
    family = CounterMetricFamily(f"dcm_ws_{name}", text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def gauge(name: str, text: str, value: float) -> Metric:
    """
    A gauge without labels.
    """
    return GaugeMetricFamily(f"dcm_ws_{name}", text, value)


def moment(name: str, text: str, at: int | None) -> Metric:
    """
    A gauge of a time, in seconds since the epoch.

    @param at: ms since the epoch; None for no sample.
    """
    return GaugeMetricFamily(f"dcm_ws_{name}_timestamp_seconds", text, None if at is None else at / 1000)


def one_of(name: str, text: str, label: str, values: Iterable[str], current: str) -> Metric:
    """
    A gauge that is 1 for the current one of several values of a label, and 0 for the others.
    """
    family = GaugeMetricFamily(f"dcm_ws_{name}", text, labels=[label])
    for value in values:
        family.add_metric([value], int(value == current))
    return family


def histogram(name: str, text: str, values: Histogram) -> Metric:
    """
    A histogram without labels.
    """
    bounds = [*(str(float(bound)) for bound in values.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(values.counts), strict=True))
    return HistogramMetricFamily(f"dcm_ws_{name}", text, buckets=buckets, sum_value=values.sum)
