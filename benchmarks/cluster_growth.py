"""
How the messages between nodes, the work of the database and that of the nodes grow with a cluster.

    python -m benchmarks.cluster_growth --agents 1000 10000 --nodes 1 3 10 30 --rows rows.jsonl
    python -m benchmarks.cluster_growth --rows rows.jsonl --draw docs/images/cluster-growth.svg

The nodes are simulated, with the code that runs in a service: their cores, their logs, their agents, and the bus in
memory.  First nothing happens for some seconds.  Then, in each second, one part in 100 of the agents comes back at
another node, and one tracked event is published that one agent in ten gets and acknowledges.

What is measured of the processor is what the code of the nodes takes, without that of clients, of the database, and of
sockets.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.plots import Line, Plot, draw
from tests.simulation.cluster import Cluster

SECONDS = 6
TOPICS = 10


class Meter:
    """
    What a cluster does in some seconds.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._before = self._now()

    def _now(self) -> dict[str, Counter[str] | float]:
        cluster = self._cluster
        return {
            "messages": Counter(cluster.heard),
            "statements": Counter(cluster.database.statements),
            "rows": Counter(cluster.database.rows),
            "cpu": sum(node.process.cpu for node in cluster.nodes),
        }

    def rates(self, seconds: float) -> dict[str, Any]:
        """
        Each a second, and what makes most of it.
        """
        rates: dict[str, Any] = {}
        for name, now in self._now().items():
            before = self._before[name]
            if isinstance(now, Counter) and isinstance(before, Counter):
                parts = {part: number / seconds for part, number in (now - before).most_common()}
                rates[name] = sum(parts.values())
                rates[f"{name} of"] = dict(list(parts.items())[:6])
            else:
                rates[name] = (now - before) / seconds  # type: ignore[operator]
        return rates


def measure(nodes: int, agents: int) -> dict[str, Any]:
    """
    One row.
    """
    began = time.process_time()
    with Cluster(1, nodes, watched=0, max_waiting=16 << 10) as cluster:
        for number in range(agents):
            cluster.add_agent(f"agent{number}", f"topics/{number % TOPICS}")
        # then each node reads who is at the others in pages, which takes much less time than one message for each agent
        cluster.take_bus_away(8.0)
        cluster.make_safe(spread=5.0)
        cluster.run(10.0)
        gc.collect()
        gc.freeze()
        meter = Meter(cluster)
        cluster.run(SECONDS)
        idle = meter.rates(SECONDS)
        meter = Meter(cluster)
        for second in range(SECONDS):
            for agent in cluster.random.sample(cluster.crowd, max(1, agents // 100)):
                cluster.clock.callLater(cluster.random.random(), agent.hop)
            cluster.publish(f"topics/{second % TOPICS}")
            cluster.run(1.0)
        busy = meter.rates(SECONDS)
        cluster.run(10.0)
        cluster.check()
        gc.unfreeze()
    return {
        "nodes": nodes,
        "agents": agents,
        "idle": idle,
        "busy": busy,
        "took s": time.process_time() - began,
        "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """
    The rows for people.
    """
    lines = [
        "| agents | nodes | messages a node hears | all statements | rows | CPU of a node ms | statements, idle |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in sorted(rows, key=lambda row: (row["agents"], row["nodes"])):
        busy, nodes = row["busy"], row["nodes"]
        lines.append(
            f"| {row['agents']:,} | {nodes} | {busy['messages'] / nodes:,.0f} | {busy['statements']:,.0f} |"
            f" {busy['rows']:,.0f} | {1000 * busy['cpu'] / nodes:.1f} | {row['idle']['statements']:,.0f} |"
        )
    return "\n".join(lines)


def picture(rows: list[dict[str, Any]]) -> str:
    """
    The rows as plots.
    """
    agents = sorted({row["agents"] for row in rows})

    def lines(figure: str, *, each: bool, factor: float = 1.0) -> list[Line]:
        def points(when: str, number: int) -> list[tuple[float, float]]:
            return [
                (row["nodes"], factor * row[when][figure] / (row["nodes"] if each else 1))
                for row in rows
                if row["agents"] == number and row[when][figure] > 0
            ]

        found = [Line(f"{number:,} agents", points("busy", number)) for number in agents]
        # which does not depend on the number of agents
        return [*found, Line("nothing happens", points("idle", agents[0]), dashed=True)]

    return draw(
        [
            Plot("Messages that each node hears, a second", "nodes", lines("messages", each=True)),
            Plot("Processor of each node, ms a second", "nodes", lines("cpu", each=True, factor=1000.0)),
            Plot("Statements of all nodes, a second", "nodes", lines("statements", each=False)),
            Plot("Rows that all nodes read and write, a second", "nodes", lines("rows", each=False)),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[])
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 3, 10, 30, 100])
    parser.add_argument("--rows", type=Path, help="a file to which the rows are added, and from which they are drawn")
    parser.add_argument("--draw", type=Path, help="an SVG file")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if arguments.rows is not None and arguments.rows.exists():
        rows = [json.loads(line) for line in arguments.rows.read_text().splitlines()]
    for agents in arguments.agents:
        for nodes in arguments.nodes:
            row = measure(nodes, agents)
            print(json.dumps(row), file=sys.stderr, flush=True)
            rows = [one for one in rows if (one["agents"], one["nodes"]) != (agents, nodes)] + [row]
            if arguments.rows is not None:
                arguments.rows.write_text("".join(json.dumps(one) + "\n" for one in rows))
    print(table(rows))
    if arguments.draw is not None:
        arguments.draw.write_text(picture(rows))


if __name__ == "__main__":
    main()
