"""
What docs/topologies.md and docs/cluster.md say of failures: each row is shown by tests.
"""

from __future__ import annotations

import re

import pytest

from tests.integration.machine import ROOT

PARTITIONS = "tests/integration/partitions.py"
CLUSTER = "tests/integration/test_cluster.py"
AGENTS = "tests/integration/test_cluster_agents.py"
SERVERS = "tests/integration/test_log_servers.py"
WORKERS = "tests/integration/test_workers.py"
FOLLOWING = "tests/brokers/test_following.py"
FAULTS = "tests/simulation/test_single_faults.py"
CHAOS = "tests/chaos/durable/nemeses.py"
NODES = "tests/chaos/durable/node_nemeses.py"

SHOWN: dict[str, tuple[str, ...]] = {
    # docs/topologies.md
    "a client, or its network": (
        "tests/integration/test_protocol_liveness.py: test_silence_is_death",
        "tests/integration/test_python_resuming.py: test_half_open",
    ),
    "the load balancer": ("tests/integration/test_python_resuming.py: test_cut_in_a_burst",),
    "the network between the load balancer and a node": (f"{PARTITIONS}: test_clients_do_not_reach_a_node",),
    "one process, without a cluster": (f"{CHAOS}: kill_service",),
    "a node that does not lead": (
        f"{AGENTS}: test_a_node_ends",
        "tests/integration/test_three_nodes.py: test_nodes_stop_and_are_killed",
    ),
    "the node that leads": (f"{CLUSTER}: test_the_leader_is_gone", f"{NODES}: kill_leader"),
    "a node that is frozen (SIGSTOP, a paused machine)": (
        f"{CLUSTER}: test_the_leader_is_gone",
        f"{NODES}: freeze_for_long",
    ),
    "a worker": (f"{WORKERS}: test_killed_worker", f"{NODES}: kill_worker"),
    "the supervisor of the workers": (f"{WORKERS}: test_killed_supervisor",),
    "one of several NATS servers": ("tests/nats/test_client.py: test_others_of_the_cluster",),
    "all NATS servers, or the network between a node and them": (f"{PARTITIONS}: test_no_nats", f"{NODES}: kill_nats"),
    "PostgreSQL, while it restarts": (
        f"{CLUSTER}: test_postgresql_restarts",
        f"{FAULTS}: test_nobody_waits_for_a_slow_database",
        f"{CHAOS}: stop_database",
    ),
    "the primary of PostgreSQL, for good": (
        f"{SERVERS}: test_replica_without_the_last_commits",
        f"{SERVERS}: test_replica_with_every_commit",
    ),
    "a replica": (f"{SERVERS}: test_replica_of_which_nothing_is_heard",),
    "the network between the primary and a replica": (f"{SERVERS}: test_replica_of_which_nothing_is_heard",),
    "the network between a node and PostgreSQL": (
        f"{PARTITIONS}: test_a_node_does_not_reach_postgresql",
        f"{PARTITIONS}: test_the_leader_does_not_reach_postgresql",
    ),
    "the network between two nodes": (f"{PARTITIONS}: test_nodes_do_not_reach_each_other",),
    "the disk of PostgreSQL is full": (f"{CHAOS}: fill_disk",),
    # docs/cluster.md
    "a node that follows ends": (f"{AGENTS}: test_a_node_ends",),
    "a node is killed (`kill -9`)": (f"{AGENTS}: test_a_node_ends", f"{CHAOS}: kill_service"),
    "a node is frozen for more than 10 s": (
        f"{FOLLOWING}: test_a_node_that_is_not_seen_is_fenced",
        f"{NODES}: freeze_for_long",
    ),
    "the node that leads ends, or its connection to the database does": (
        f"{CLUSTER}: test_the_leader_is_gone",
        f"{FOLLOWING}: test_the_leader_is_lost",
    ),
    "the node that leads is stopped without ending (SIGSTOP, a paused machine)": (
        f"{CLUSTER}: test_the_leader_is_gone",
    ),
    "the database restarts": (
        f"{CLUSTER}: test_postgresql_restarts",
        f"{FOLLOWING}: test_a_new_leader_gives_others_time",
    ),
    "a node does not reach the database": (
        f"{PARTITIONS}: test_a_node_does_not_reach_postgresql",
        "tests/integration/test_three_nodes.py: test_node_without_the_database",
    ),
    "a node was away for longer than events are kept": (
        f"{FOLLOWING}: test_events_that_were_dropped_before_they_were_read",
    ),
    "the database is lost and restored, or a failover loses commits": (
        f"{CLUSTER}: test_a_new_epoch_reaches_clients_of_all_nodes",
        f"{FOLLOWING}: test_a_follower_misses_the_end_of_the_log",
        f"{CHAOS}: restore",
    ),
}
"""
For each row, the tests, or what the chaos tests do to the service.
"""


def rows(page: str, heading: str) -> list[str]:
    """
    The first cells of the table under a heading.
    """
    text = (ROOT / "docs" / page).read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [line.split(" | ")[0].removeprefix("| ") for line in section.splitlines() if line.startswith("| ")]
    return [cell for cell in cells if not cell.startswith("---")][1:]


def test_each_row_is_shown() -> None:
    found = rows("topologies.md", "When a part fails") + rows("cluster.md", "What happens when a node is lost")
    assert found == list(SHOWN)


@pytest.mark.parametrize("row", SHOWN)
def test_what_shows_it_is_there(row: str) -> None:
    for what in SHOWN[row]:
        file, name = what.split(": ")
        assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), what
