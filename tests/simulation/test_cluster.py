"""
Agents and readers that hop between the nodes of a cluster: whatever happens, what they are owed arrives.
"""

from __future__ import annotations

import os

import pytest

from tests.simulation.cluster import Cluster
from tests.simulation.courses import COURSES, crowd, judge, run

SEEDS = int(os.environ.get("DCM_WS_TEST_COURSES", "4"))


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("name", COURSES)
def test_promises_are_kept(name: str, seed: int) -> None:
    course = COURSES[name]
    with Cluster(seed, 4, keep=course.keep) as cluster:
        crowd(cluster, agents=6, readers=2, topics=3)
        cluster.make_safe()
        run(cluster, course, 150)
        judge(cluster, course)
