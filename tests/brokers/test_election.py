"""
How often nodes that do not lead look at the log.
"""

from __future__ import annotations

import random

import pytest

from dcm_ws.brokers.election import LOCK_SECONDS, LOOKS, look_seconds


@pytest.mark.parametrize("nodes", [1, 2, 10])
def test_few_nodes(nodes: int) -> None:
    assert {look_seconds(nodes, chance) for chance in (0.0, 0.5, 1.0)} == {LOCK_SECONDS}


@pytest.mark.parametrize("nodes", [11, 30, 100, 300])
def test_many_nodes(nodes: int) -> None:
    """
    All together look no more often than ten nodes, or each of them once a second; and soon after all were woken, one of
    them looks again.
    """
    chances = random.Random(1)
    seconds = [look_seconds(nodes, chances.random()) for _ in range(10_000)]
    assert nodes / (sum(seconds) / len(seconds)) == pytest.approx(max(LOOKS, nodes), rel=0.05)
    soonest = [min(seconds[begin : begin + nodes]) for begin in range(0, len(seconds) - nodes, nodes)]
    assert sum(soonest) / len(soonest) < LOCK_SECONDS
    assert max(seconds) < 2.0
