"""
Agents that hop between the nodes of a cluster: whatever happens, what they are owed arrives.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dcm_ws.protocol.errors import CloseCode
from tests.simulation.cluster import Cluster, SimAgent


def crowded(seed: int, nodes: int = 3, agents: int = 6) -> Cluster:
    """
    A cluster with agents that are subscribed to something, which the database knows.
    """
    cluster = Cluster(seed, nodes)
    for number in range(agents):
        cluster.add_agent(f"a{number}", f"topics/{number % 3}", "topics/all")
    cluster.make_safe()
    return cluster


def course(
    cluster: Cluster, turns: int, cases: int, pauses: tuple[float, ...] = (0.01, 0.05, 0.3)
) -> Iterator[tuple[SimAgent, int]]:
    """
    Turns with an agent, and which of so many cases it is: both at random.  A pause follows each.
    """
    random = cluster.random
    for _ in range(turns):
        yield random.choice(list(cluster.agents.values())), random.randrange(cases)
        cluster.run(random.choice(pauses))


CHANNELS = ("topics/0", "topics/1", "topics/2", "topics/all")


@pytest.mark.parametrize("seed", range(5))
def test_agents_hop_between_nodes(seed: int) -> None:
    """
    Without faults, nothing that was acknowledged comes again, unless the agent is faster than its acks.
    """
    cluster = crowded(seed)
    random = cluster.random
    for agent, case in course(cluster, 150, 6):
        match case:
            case 0:
                cluster.connect(agent)
            case 1:
                cluster.leave(agent)
            case 2:
                if agent.far is None:
                    cluster.connect(agent)
            case _:
                cluster.publish(random.choice(CHANNELS))
    cluster.settle()
    cluster.check(lately=0.2)
    cluster.check_presence()


@pytest.mark.parametrize("seed", range(5))
def test_former_connections_are_half_dead(seed: int) -> None:
    """
    An agent comes back at another node before anybody knows that its former connection is dead.
    """
    cluster = crowded(seed)
    random = cluster.random
    for agent, case in course(cluster, 150, 6):
        match case:
            case 0:
                cluster.connect(agent, hangs=True)
            case 1:
                cluster.connect(agent)
            case 2 if agent.old:
                agent.old.pop(0).end()
            case _:
                cluster.publish(random.choice(CHANNELS))
    cluster.settle()
    cluster.check(lately=0.2)
    cluster.check_presence()
    for name, owners in cluster.owners():
        assert len(owners) == 1, name


@pytest.mark.parametrize("seed", range(5))
def test_nodes_crash(seed: int) -> None:
    """
    Only what was acknowledged in the last second before a crash may come again.
    """
    cluster = crowded(seed, 4)
    random = cluster.random
    for agent, case in course(cluster, 150, 5):
        match case:
            case 0:
                cluster.connect(agent, hangs=random.random() < 0.3)
            case 1:
                cluster.leave(agent)
            case 2 if random.random() < 0.3:
                cluster.kill(cluster.any_node())
                cluster.add_node()
            case 3:
                for other in cluster.agents.values():
                    if other.far is None:
                        cluster.connect(other)
            case _:
                cluster.publish(random.choice(CHANNELS))
    cluster.settle(20)
    cluster.check(allowed=2.5)
    cluster.check_presence()
    cluster.run(65)
    assert all(cluster.database.lives(node) for node, _ in cluster.database.journal.values())


@pytest.mark.parametrize("seed", range(5))
def test_nodes_are_restarted(seed: int) -> None:
    """
    A node that stops in order gives its agents back: nothing is lost, and nothing that was acknowledged comes again.
    """
    cluster = crowded(seed)
    random = cluster.random
    for agent, case in course(cluster, 150, 6):
        match case:
            case 0:
                cluster.connect(agent)
            case 1:
                cluster.leave(agent)
            case 2 if random.random() < 0.5:
                cluster.add_node()
                cluster.stop(next(iter(cluster.nodes.values())))
            case 3:
                for other in cluster.agents.values():
                    if other.far is None:
                        cluster.connect(other)
            case _:
                cluster.publish(random.choice(CHANNELS))
    cluster.settle()
    assert cluster.database.statements["give_back"] > 5
    assert set(cluster.closed) <= {CloseCode.RESTART}
    cluster.check(lately=0.2)
    cluster.check_presence()
    for name, owners in cluster.owners():
        assert len(owners) == 1, name


@pytest.mark.parametrize("seed", range(5))
def test_bus_loses_messages(seed: int) -> None:
    """
    Without an answer, an agent is taken with what the database has of it.
    """
    cluster = crowded(seed)
    cluster.hub.loss = cluster.hub.doubles = 0.2
    random = cluster.random
    for agent, case in course(cluster, 150, 6):
        match case:
            case 0:
                cluster.connect(agent, hangs=random.random() < 0.3)
            case 1:
                cluster.leave(agent)
            case _:
                cluster.publish(random.choice(CHANNELS))
        cluster.faults.append(cluster.clock.seconds())
    cluster.hub.loss = 0.0
    cluster.settle(20)
    cluster.check(allowed=2.5)
    cluster.check_presence()


@pytest.mark.parametrize("seed", range(5))
def test_database_is_away(seed: int) -> None:
    """
    Clients whose agents cannot be taken are closed after a second, and nothing is lost.
    """
    cluster = crowded(seed)
    random = cluster.random
    for agent, case in course(cluster, 100, 8, (0.05, 0.3, 0.5)):
        match case:
            case 0:
                cluster.connect(agent)
            case 1:
                cluster.database.is_away = random.random() < 0.5
            case 2:
                if agent.far is None:
                    cluster.connect(agent)
            case _:
                cluster.publish(random.choice(CHANNELS))
    cluster.database.is_away = False
    cluster.settle(20)
    assert set(cluster.closed) <= {CloseCode.TRY_AGAIN_LATER}
    cluster.check()
    cluster.check_presence()
