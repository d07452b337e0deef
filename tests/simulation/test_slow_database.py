"""
A database that answers, but takes long.
"""

from __future__ import annotations

from tests.simulation.cluster import Cluster


def test_agents_of_a_killed_node() -> None:
    """
    They wait until they are taken, and are not closed.
    """
    cluster = Cluster(1, 2)
    for number in range(4):
        cluster.add_agent(f"a{number}", "topics/all")
    cluster.make_safe()
    cluster.database.delay = (0.3, 0.4)
    cluster.publish("topics/all")
    cluster.kill(cluster.any_node())
    cluster.settle()
    assert not cluster.closed
    cluster.check(allowed=2.5)
