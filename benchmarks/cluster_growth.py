"""
How the messages between nodes, and the statements of their agents, grow with a cluster: C{python -m
benchmarks.cluster_growth [AGENTS...] [--nodes N...]}.

The nodes are simulated, with the code that runs in a service: their cores, their agents and the bus in memory.  In each
simulated second, one part in 100 of the agents comes back at another node, and one tracked event is published that one
agent in ten gets and acknowledges.
"""

from __future__ import annotations

import argparse
import time

from tests.simulation.cluster import Cluster

SECONDS = 5
CHANNELS = 10


def measure(nodes: int, agents: int) -> str:
    """
    One row of the table.
    """
    began = time.perf_counter()
    cluster = Cluster(1, nodes)
    for number in range(agents):
        cluster.add_agent(f"agent{number}", f"topics/{number % CHANNELS}")
    for agent in cluster.agents.values():
        cluster.connect(agent)
    cluster.run(5, step=0.05)
    assert all(agent.is_in for agent in cluster.agents.values())
    before, told = sum(cluster.database.statements.values()), sent(cluster)
    hopping = list(cluster.agents.values())
    for second in range(SECONDS):
        for agent in cluster.random.sample(hopping, max(1, agents // 100)):
            cluster.connect(agent)
        cluster.publish(f"topics/{second % CHANNELS}")
        cluster.run(1, step=0.05)
    statements, messages = sum(cluster.database.statements.values()) - before, sent(cluster) - told
    cluster.check(lately=0.2)
    return (
        f"| {nodes} | {agents:,} | {messages / SECONDS:,.0f} | {messages / SECONDS / nodes:,.0f} |"
        f" {statements / SECONDS:,.0f} | {statements / SECONDS / nodes:.1f} | {time.perf_counter() - began:.1f} |"
    )


def sent(cluster: Cluster) -> int:
    """
    Messages that arrived at nodes.
    """
    return sum(node.core.counts.bus.heard for node in cluster.nodes.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("agents", type=int, nargs="*", default=[100, 1000, 10_000])
    parser.add_argument("--nodes", type=int, nargs="+", default=[2, 4, 8, 16])
    arguments = parser.parse_args()
    print("| nodes | agents | messages heard/s | a node | statements/s | a node | took s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for agents in arguments.agents:
        for nodes in arguments.nodes:
            print(measure(nodes, agents), flush=True)


if __name__ == "__main__":
    main()
