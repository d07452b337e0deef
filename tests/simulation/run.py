"""
A course with very many nodes and agents, as a program: python -m tests.simulation.run --nodes 200 --agents 100000
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from functools import lru_cache

from dcm_ws.core import presence_messages as messages
from tests.simulation.cluster import Cluster
from tests.simulation.courses import COURSES, crowd, judge, run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=30)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--deeds", type=int, default=1000, help="how much happens")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between two deeds, on an average")
    parser.add_argument("--course", choices=COURSES, default="everything")
    parser.add_argument("--seed", type=int, default=1)
    choices = parser.parse_args()
    # a message goes to all nodes, and each would keep what it reads of it; here they share that
    messages._decode = lru_cache(maxsize=256)(messages._decode)  # type: ignore[assignment]
    messages.sum_of = lru_cache(maxsize=1 << 18)(messages.sum_of)
    began = time.process_time()

    def say(what: str) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{time.process_time() - began:7.1f} s CPU, {used:7,.0f} MiB: {what}", flush=True)

    course = COURSES[choices.course]
    course = course._replace(pauses=(choices.pause / 2, choices.pause, choices.pause * 3 / 2))
    with Cluster(choices.seed, choices.nodes, keep=course.keep, watched=3, max_waiting=16 << 10) as cluster:
        spread = max(1.0, choices.agents / 5000)
        # then each node reads who is at the others in pages, which takes much less time than one message for each agent
        cluster.take_bus_away(spread + 3.0)
        crowd(cluster, choices.agents, readers=max(2, choices.nodes // 2), topics=max(3, choices.agents // 100))
        cluster.make_safe(spread)
        cluster.run(10.0)
        say(f"{choices.agents:,} agents are connected to {choices.nodes} nodes")
        run(cluster, course, choices.deeds)
        say(f"{choices.deeds:,} deeds are done, {cluster.clock.seconds() - 1000:.0f} s have passed in the cluster")
        try:
            judge(cluster, course)
        except AssertionError as error:
            print(error)
            return 1
        finally:
            say("all is judged")
            print(f"seed {choices.seed}, course {choices.course!r}")
            print(f"{cluster.clock.passed:,} things happened")
            print(f"{len(cluster.troubles)} troubles, {cluster.restarted} nodes were fenced and came back")
            print(f"{len(cluster.answered):,} events acknowledged, refused: {dict(cluster.refused)}")
            print(
                f"{cluster.received:,} events received, {len(cluster.repeats):,} of them after they were acknowledged"
            )
            print(f"{sum(map(len, cluster.database.dead.values())):,} dead letters")
            print(f"{cluster.heard.total():,} messages between nodes: {dict(cluster.heard)}")
            print(f"{cluster.database.statements.total():,} statements: {dict(cluster.database.statements)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
