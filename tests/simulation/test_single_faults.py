"""
What random courses have found, one fault at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulation.clients import SimAgent
from tests.simulation.cluster import Cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(1, 2) as cluster:
        yield cluster
        cluster.check()


def with_agent(cluster: Cluster) -> SimAgent:
    """
    An agent at the first node, which leads.
    """
    cluster.run(1.0)
    cluster.nodes.sort(key=lambda node: not node.leads)
    agent = cluster.add_agent("ann", "topics/t")
    agent.connect(cluster.nodes[0])
    cluster.make_safe()
    return agent


def flush(cluster: Cluster, node: int) -> None:
    """
    Let time pass until a node has just written what its agents are owed.
    """
    counts = cluster.nodes[node].core.counts.journal
    before = counts.flushes
    while counts.flushes == before:
        cluster.run(0.001)


def test_an_agent_comes_back_at_once(cluster: Cluster) -> None:
    """
    It has done something at another node, before its former one has written what it gave away: that is old then.
    """
    agent = with_agent(cluster)
    one, two = cluster.nodes
    flush(cluster, 0)
    agent.hop(two)
    cluster.run(0.1)
    assert agent.connection is not None
    agent.connection.say(type="subscribe", channel="topics/new", id=9)
    cluster.run(0.05)
    cluster.stop(two)
    cluster.run(0.1)
    assert not two.is_alive and one.owned.releases.given.unwritten()
    agent.connect(one)
    cluster.run(1.0)
    agent.channels.append("topics/new")
    cluster.publish("topics/new")
    cluster.run(1.0)
    assert len(agent.got) == 1


def test_a_node_is_behind_another_one(cluster: Cluster) -> None:
    """
    An agent that comes there waits, or goes elsewhere, and gets nothing again; and a reader is told of no gap.
    """
    agent = with_agent(cluster)
    one, two = cluster.nodes
    reader = cluster.add_reader("rob", "topics/t")
    reader.connect(one)
    cluster.run(0.1)
    cluster.cut_off([two], 1.0)
    for number in range(1, 6):
        cluster.publishers[one].publish("topics/t", number)
    cluster.run(0.9)
    while not two.link.is_up:
        cluster.run(0.001)
    assert two.log.head < one.log.head == 5
    cluster.troubles.clear()
    agent.hop(two)
    reader.connect(two)
    cluster.run(5.0)
    assert cluster.repeats == [] and reader.gaps == []
    assert len(agent.got) == len(reader.got) == 5
    assert agent.is_in


def test_an_ack_at_one_node_settles_the_event_at_others(cluster: Cluster) -> None:
    agent = with_agent(cluster)
    agent.add(cluster.nodes[1])
    cluster.run(2.0)
    first, second = agent.connection, agent.others[0]
    assert first is not None and cluster.nodes[1].owned.releases.gens
    # it acknowledges what it gets only where its owner is
    first.acknowledges = False
    cluster.publish("topics/t")
    cluster.run(20.0)
    assert first.got == second.got == {1}
    assert cluster.repeats == []


def test_nobody_waits_any_more(cluster: Cluster) -> None:
    """
    A client came to a node that did not reach the database, and went elsewhere: the agent stays there.
    """
    agent = with_agent(cluster)
    one, two = cluster.nodes
    cluster.cut_off([two], 3.0)
    cluster.database.silences = (4.0,)
    cluster.add_agent("bob", "topics/t").connect(two)
    cluster.run(0.01)
    agent.hop(two)
    while cluster.closed[1013] < 2:
        cluster.run(0.001)
    agent.connect(one)
    cluster.run(10.0)
    assert "ann" in one.owned.releases.gens and "ann" not in two.owned.releases.gens
    assert one.core.counts.owners.given == 0


def test_nobody_waits_for_a_slow_database(cluster: Cluster) -> None:
    agent = with_agent(cluster)
    one, two = cluster.nodes
    cluster.database.delay = (1.1, 1.1)
    agent.hop(two)
    cluster.run(0.01)
    cluster.database.delay = (0.001, 0.003)
    while not cluster.closed:
        cluster.run(0.001)
    agent.leave()
    cluster.run(5.0)
    assert "ann" in one.owned.releases.gens and one.core.counts.owners.given == 0


def test_a_node_keeps_an_agent_whose_client_is_there(cluster: Cluster) -> None:
    """
    It offers the agent when its last connection ends, and has another one when the other node asks for it.
    """
    agent = with_agent(cluster)
    two = cluster.nodes[1]
    agent.hop(two, hangs=True)
    cluster.run(1.0)
    given = two.core.counts.owners.given
    agent.hop(two)
    cluster.run(1.0)
    assert "ann" in two.owned.releases.gens and two.core.counts.owners.given == given


def test_nodes_do_not_hear_each_other(cluster: Cluster) -> None:
    """
    Each takes the other for gone, but it is alive: agents stay where their clients are.
    """
    agent = with_agent(cluster)
    one, two = cluster.nodes
    agent.hop(two, hangs=True)
    cluster.run(1.0)
    cluster.part([[one], [two]], 15.0)
    cluster.run(14.0)
    assert len(one.core.presence.nodes or ()) == 0
    assert cluster.database.agents["ann"].node == two.number
    cluster.run(10.0)
    assert two.core.counts.owners.given == 0


def test_the_owner_of_an_agent_is_dead(cluster: Cluster) -> None:
    """
    A node that still has a connection of the agent takes it back when the dead one is fenced.
    """
    agent = with_agent(cluster)
    one, two = cluster.nodes
    agent.add(two)
    cluster.run(1.0)
    assert "ann" in two.owned.releases.gens
    cluster.kill(two)
    cluster.run(14.0)
    assert "ann" in one.owned.releases.gens


def test_a_client_has_left_a_frozen_node(cluster: Cluster) -> None:
    """
    It came while the node was frozen, and went elsewhere: the node learns both at once, and leaves the agent there.
    """
    agent = with_agent(cluster)
    one, two = cluster.nodes
    cluster.freeze(two, 3.0, noticed=0.0)
    agent.hop(two)
    cluster.run(1.0)
    agent.hop(one)
    cluster.run(5.0)
    assert agent.is_in and "ann" in one.owned.releases.gens
    assert one.core.counts.owners.given == 0


def test_a_question_comes_late(cluster: Cluster) -> None:
    """
    The bus is frozen: a node takes the agent by force, and its question arrives when the agent is on its way back.
    """
    agent = with_agent(cluster)
    one, two = cluster.nodes
    cluster.run(1.0)
    cluster.freeze_bus(1.0)
    agent.hop(two)
    cluster.run(0.5)
    assert two.core.counts.owners.forced == 1 and agent.connection is not None
    agent.connection.reads = False
    cluster.publish("topics/t")
    cluster.run(0.3)
    agent.leave()
    cluster.publish("topics/t")
    cluster.run(0.1)
    agent.connect(one)
    cluster.run(2.0)
    assert len(agent.got) == 2
    assert (one.core.counts.owners.forced, one.core.counts.owners.given) == (0, 0)
    assert "ann" in one.owned.releases.gens


def test_a_question_comes_late_whose_client_has_gone(cluster: Cluster) -> None:
    """
    The bus is frozen: a client goes to another node and comes back at once, and then the question of that node arrives.
    """
    agent = with_agent(cluster)
    one, two = cluster.nodes
    cluster.run(1.0)
    cluster.freeze_bus(1.0)
    agent.hop(two)
    cluster.run(0.1)
    agent.hop(one)
    cluster.run(1.0)
    assert (one.core.counts.owners.given, two.core.counts.owners.forced) == (1, 0)
    assert "ann" in one.owned.releases.gens


def test_an_offer_is_lost(cluster: Cluster) -> None:
    """
    The last connection at the node that has the agent ends, and the other node does not hear that.
    """
    agent = with_agent(cluster)
    one, two = cluster.nodes
    agent.add(two)
    cluster.run(1.0)
    assert "ann" in two.owned.releases.gens
    cluster.hub.loss = 1.0
    agent.close_one()
    cluster.run(0.1)
    cluster.hub.loss = 0.0
    cluster.run(12.0)
    assert "ann" in one.owned.releases.gens and one.core.clients.elsewhere == {}


def test_the_next_owner_cannot_read_the_log(cluster: Cluster) -> None:
    """
    The agent goes back at once to the node where it has a connection, and what it acknowledges there stays settled.
    """
    agent = with_agent(cluster)
    one, two = cluster.nodes
    two.log.reach = lambda pos, ready: ready(False)  # type: ignore[assignment]
    agent.add(two)
    cluster.run(0.1)
    assert cluster.closed == {1013: 1}
    assert "ann" in one.owned.releases.gens and one.core.clients.elsewhere == {}
    cluster.publish("topics/t")
    cluster.run(0.5)
    agent.hop(cluster.add_node())
    cluster.run(1.0)
    assert len(agent.acked) == 1 and cluster.repeats == []


def test_a_node_has_forgotten_its_agents(cluster: Cluster) -> None:
    """
    It was away for longer than the log keeps events.  Another node, which has a connection of the agent, takes it back.
    """
    agent = with_agent(cluster)
    one, two = cluster.nodes
    agent.add(two)
    cluster.run(1.0)
    two.log.lose()
    assert two.owned.releases.gens == {}
    for other in agent.others:
        other.end()
    agent.others.clear()
    cluster.run(14.0)
    assert "ann" in one.owned.releases.gens


def test_the_next_owner_dies_before_it_has_the_agent(cluster: Cluster) -> None:
    """
    The former one has given the agent away, and writes its state, which is newer than what the journal has.
    """
    agent = with_agent(cluster)
    one = cluster.nodes[0]
    cluster.publish("topics/t")
    flush(cluster, 0)
    cluster.publish("topics/t")
    cluster.run(0.5)
    assert len(agent.acked) == 2
    three = cluster.add_node()
    agent.hop(three)
    while not one.owned.releases.given.unwritten():
        cluster.run(0.0001)
    three.kill()
    flush(cluster, 0)
    agent.hop(cluster.nodes[1])
    cluster.run(2.0)
    assert agent.is_in and cluster.repeats == []
    cluster.kill(three)


def test_each_client_waits_for_its_own_time(cluster: Cluster) -> None:
    """
    One that has given up does not shorten the time of the next one.
    """
    agent = with_agent(cluster)
    two = cluster.nodes[1]
    agent.leave()
    cluster.run(0.1)
    cluster.database.delay = (0.3, 0.3)
    agent.connect(two)
    cluster.run(0.9)
    agent.connect(two)
    cluster.run(1.0)
    assert agent.is_in and cluster.closed == {}
