"""
The pages of a service for people and monitors.
"""

from __future__ import annotations

import urllib.error
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.integration.machine import PATIENCE
from tests.integration.running import Service


def get(url: str, **headers: str) -> tuple[int, str]:
    """
    The status and the body of an answer.
    """
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def metrics(url: str) -> dict[str, float]:
    """
    Each sample by its name and labels, as they would stand in a query.
    """
    status, text = get(f"{url}/metrics")
    assert status == 200
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def http(running: Service) -> str:
    """
    Where its pages are.
    """
    return f"http://127.0.0.1:{running.port}"


def names(url: str) -> set[str]:
    """
    The metrics that there are, as queries name them.
    """
    found = set()
    for family in text_string_to_metric_families(get(f"{url}/metrics")[1]):
        found |= {family.name} if family.type in ("gauge", "histogram") else {f"{family.name}_total"}
    return found
