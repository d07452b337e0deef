"""
Several nodes of a cluster on the log of one real PostgreSQL: one numbers, the others follow.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_twisted

from dcm_ws.brokers import batches, membership
from dcm_ws.brokers.postgres_log import LogState
from dcm_ws.core.entries import Published
from tests.brokers.engine import Engine, logged
from tests.integration.databases import PostgresServer

pytestmark = pytest.mark.integration

PUBLISH = "select dcm_ws.publish(%s, 'task.created', %s)"
LEADS = """
    select pid from pg_stat_activity join pg_locks using (pid)
    where application_name = 'dcm-ws log' and locktype = 'advisory' and objid = 1
"""


@pytest_twisted.async_yield_fixture
async def nodes(schema: PostgresServer) -> AsyncIterator[list[Engine]]:
    """
    Three nodes; the first one leads.
    """
    nodes = [Engine(schema.url, node=f"n{number}") for number in (1, 2, 3)]
    for node in nodes:
        await node.start()
    yield nodes
    for node in reversed(nodes):
        if node.numberer.running:
            await node.stop()


async def all_have(nodes: list[Engine], head: int) -> None:
    """
    Wait until all of C{nodes} have delivered so much.
    """
    for node in nodes:
        await node.head_is(head)


async def leader_of(nodes: list[Engine]) -> Engine:
    """
    Wait until one of C{nodes} leads.
    """
    await nodes[0].until(lambda: sum(node.numberer.leads for node in nodes) == 1)
    return next(node for node in nodes if node.numberer.leads)


@pytest_twisted.ensureDeferred
async def test_all_nodes_deliver_the_same(schema: PostgresServer, nodes: list[Engine]) -> None:
    """
    What is published in SQL, at the leader and at another node, is delivered by all nodes, once, in one order.
    """
    first, second, third = nodes
    assert [node.log.state for node in nodes] == [LogState.UP, LogState.FOLLOWING, LogState.FOLLOWING]
    await schema.run(PUBLISH, "topics/a", "1")
    published = [first.publish("2"), second.publish("3", "agents/bob", publisher="bob"), third.publish("4")]
    for node, one in zip(nodes, published, strict=True):
        await node.answered(one)
    await all_have(nodes, 4)
    assert first.delivered == second.delivered == third.delivered == await logged(schema)
    assert {one.id: one.pos for one in published} == {id: pos for pos, id, *_ in first.delivered if "client" in id}
    assert sorted(first.data()) == ["1", "2", "3", "4"]


@pytest_twisted.ensureDeferred
async def test_what_is_published_at_a_follower_stays_in_order(
    nodes: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The events of one publisher keep their order, also over several batches.
    """
    monkeypatch.setattr(batches, "_BATCH", 100)
    _, second, _ = nodes
    published = [second.publish(str(number)) for number in range(300)]
    await second.answered(*published)
    assert second.data() == [str(number) for number in range(300)]
    assert [one.pos for one in published] == list(range(1, 301))


@pytest_twisted.ensureDeferred
async def test_columns_of_what_a_follower_publishes(schema: PostgresServer, nodes: list[Engine]) -> None:
    """
    The log has the publisher, and whether the event is mirrored, as if it had been published at the leader.
    """
    first, second, _ = nodes
    await second.answered(second.publish("1", "topics/a", publisher="bob"))
    await first.answered(first.publish("2", "topics/a", publisher="bob"))
    columns = "select publisher, mirrored, named, channel, sender from dcm_ws.log order by pos"
    one, other = await schema.run(columns)
    assert one == other == ("bob", True, None, "topics/a", None)


@pytest_twisted.ensureDeferred
async def test_keys_at_several_nodes(nodes: list[Engine]) -> None:
    """
    What was published under a key is published once, wherever it is published again; each publisher gets the id of the
    first one.
    """
    first, second, third = nodes
    original = second.publish("1", key="k")
    await second.answered(original)
    again = [third.publish("1", key="k"), first.publish("1", key="k"), second.publish("1", key="k")]
    for node, one in zip((third, first, second), again, strict=True):
        await node.answered(one)
    assert [(one.id, one.pos, one.duplicate) for one in again] == [(original.id, 1, True)] * 3
    assert first.data() == ["1"]


@pytest_twisted.ensureDeferred
async def test_data_that_the_database_refuses(nodes: list[Engine]) -> None:
    """
    An event that the database cannot store is refused at a follower, and the others of its batch are not.
    """
    _, second, _ = nodes
    published = [second.publish(data) for data in ("1", '"\x00"', "3")]
    await second.answered(*published)
    assert [one.pos for one in published] == [1, None, 2]
    assert second.data() == ["1", "3"]
    together = second.publish_all("4", '"\x00"')
    await second.answered(*together)
    assert [one.pos for one in together] == [None, None]
    together = second.publish_all("5", "6")
    await second.answered(*together)
    assert second.data() == ["1", "3", "5", "6"]


@pytest_twisted.ensureDeferred
async def test_the_leader_is_lost(schema: PostgresServer, nodes: list[Engine]) -> None:
    """
    If the leader's session ends, another node goes on numbering, no client is told of anything, and nothing is missing.
    """
    for round_ in range(5):
        leader = await leader_of(nodes)
        await schema.run(PUBLISH, "topics/a", str(2 * round_))
        ((pid,),) = await schema.run(LEADS)
        published = [node.publish(f"{round_}{number}") for number, node in enumerate(nodes)]
        await schema.run("select pg_terminate_backend(%s)", pid)
        await schema.run(PUBLISH, "topics/a", str(2 * round_ + 1))
        await leader.until(lambda leader=leader: not leader.numberer.leads)  # type: ignore[misc]
        for node, one in zip(nodes, published, strict=True):
            await node.answered(one)
    ((count,),) = await schema.run("select count(*) from dcm_ws.log")
    await all_have(nodes, count)
    assert nodes[0].delivered == nodes[1].delivered == nodes[2].delivered == await logged(schema)
    assert all(len(node.opened) == 1 for node in nodes)


@pytest_twisted.ensureDeferred
async def test_the_leader_stops(schema: PostgresServer, nodes: list[Engine]) -> None:
    """
    A leader that stops leaves the cluster, and another one leads soon.
    """
    first, *others = nodes
    await first.stop()
    leader = await leader_of(others)
    await leader.answered(leader.publish("1"))
    await all_have(others, 1)
    await leader.until(lambda: schema.execute("select id from dcm_ws.node where leader") == [(leader.membership.node,)])
    fenced = await schema.run("select name, fenced from dcm_ws.node order by id")
    assert fenced == [("n1", True), ("n2", False), ("n3", False)]


@pytest_twisted.ensureDeferred
async def test_a_node_that_joins_later(schema: PostgresServer, nodes: list[Engine]) -> None:
    """
    It begins at the end of the log, and reads what is before that from the database.
    """
    for number in range(5):
        await schema.run(PUBLISH, "topics/a", str(number))
    await all_have(nodes, 5)
    late = Engine(schema.url, node="late")
    await late.start()
    assert late.log.head == 5 and late.log.epoch == nodes[0].log.epoch
    page = await late.page(2, {"topics/a": 0})
    assert page is not None and [entry.pos for entry in page.entries] == [3, 4, 5]
    await schema.run(PUBLISH, "topics/a", "5")
    await late.head_is(6)
    await late.stop()


@pytest_twisted.ensureDeferred
async def test_another_epoch(schema: PostgresServer, nodes: list[Engine]) -> None:
    """
    All nodes learn of another epoch.
    """
    await schema.run(PUBLISH, "topics/a", "1")
    await all_have(nodes, 1)
    ((epoch,),) = await schema.run("select dcm_ws.new_epoch()")
    for node in nodes:
        await node.until(
            lambda node=node: node.log.epoch == epoch and node.log.state in (LogState.UP, LogState.FOLLOWING)  # type: ignore[misc]
        )
    assert [len(node.opened) for node in nodes] == [2, 2, 2]
    published = nodes[2].publish("2")
    await nodes[2].answered(published)
    assert published.pos == 2
    await all_have(nodes, 2)


@pytest_twisted.ensureDeferred
async def test_a_follower_misses_the_end_of_the_log(schema: PostgresServer, nodes: list[Engine]) -> None:
    """
    If the log does not have what a node has delivered, after a failover that lost it, the epoch changes for all.
    """
    for number in (1, 2):
        await schema.run(PUBLISH, "topics/a", str(number))
    await all_have(nodes, 2)
    epoch = nodes[1].log.epoch
    # the others have not seen the last event
    nodes[0].log.delivery.last = nodes[2].log.delivery.last = nodes[0].delivered[0][:2]
    await schema.run("delete from dcm_ws.log where pos = 2")
    await schema.run("delete from dcm_ws.inbox")
    await schema.run("update dcm_ws.log set snapshot = pg_current_snapshot() where pos = 1")
    await schema.run("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'dcm-ws log'")
    for node in nodes:
        await node.until(lambda node=node: node.log.epoch not in ("", epoch))  # type: ignore[misc]
    leader = await leader_of(nodes)
    await leader.until(lambda: len({node.log.epoch for node in nodes}) == 1)


@pytest_twisted.ensureDeferred
async def test_a_service_without_a_cluster_keeps_out(schema: PostgresServer, nodes: list[Engine]) -> None:
    """
    It waits until the last node has ended, and then has the database alone.
    """
    alone = Engine(schema.url)
    alone.reader.startService()
    alone.numberer.startService()
    await alone.until(lambda: alone.log.state is LogState.STANDBY)
    assert alone.log.report()["reason"] == "another dcm-ws numbers the events of this database"
    for node in nodes:
        await node.stop()
    await alone.is_up()
    late = Engine(schema.url, node="late")
    late.reader.startService()
    late.numberer.startService()
    await late.until(lambda: late.log.state is LogState.STANDBY)
    assert late.log.report()["reason"] == "a dcm-ws without --cluster uses this database"
    await late.stop()
    await alone.stop()


@pytest_twisted.ensureDeferred
async def test_a_node_that_is_not_seen_is_fenced(
    schema: PostgresServer, nodes: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The leader fences a node that does not say that it is there; if it was only late, it joins again.
    """
    monkeypatch.setattr(membership, "UNSEEN_SECONDS", 3.0)
    lost: list[str] = []
    unseen: list[int] = []
    nodes[1].membership.fenced = lambda: lost.append("n2")
    nodes[0].membership.unseen = unseen.append
    former = nodes[1].membership.node
    await schema.run("update dcm_ws.node set seen_at = now() - interval '11 seconds' where name = 'n2'")
    # it does not beat before the leader has looked
    nodes[1].membership._due = float("inf")
    await nodes[0].until(lambda: schema.execute("select fenced from dcm_ws.node where id = %s", former) == [(True,)])
    nodes[1].membership.hurry()
    await nodes[1].until(lambda: nodes[1].membership.node not in (None, former))
    assert (lost, unseen) == (["n2"], [former])


@pytest_twisted.ensureDeferred
async def test_events_that_were_dropped_before_they_were_read(schema: PostgresServer, nodes: list[Engine]) -> None:
    """
    A node that was away for longer than events are kept has its clients resume, so that they are told of the gap.
    """
    _, second, _ = nodes
    await second.stop()
    for number in range(3):
        await schema.run(PUBLISH, "topics/a", str(number))
    await all_have([nodes[0], nodes[2]], 3)
    await schema.run("alter table dcm_ws.log detach partition dcm_ws.log_1")
    await schema.run("create table dcm_ws.log_4 partition of dcm_ws.log for values from (4) to (maxvalue)")
    await schema.run("update dcm_ws.meta set base = 3, snapshot = pg_current_snapshot()")
    await schema.run("drop table dcm_ws.log_1")
    await schema.run(PUBLISH, "topics/a", "3")
    await second.start_again()
    await second.head_is(4)
    assert second.data() == ["3"]
    assert len(second.opened) == 2


@pytest_twisted.ensureDeferred
async def test_much_is_published_at_a_node_that_follows(schema: PostgresServer, nodes: list[Engine]) -> None:
    """
    Nothing is left out while the node delivers what it has read before.
    """
    _, follower, other = nodes
    follower.patient = True
    published: list[Published] = []

    def few_wait() -> bool:
        return sum(one.waiting for one in published) < 2000

    for number in range(20):
        published += [follower.publish(str(number)) for _ in range(1000)]
        await follower.until(few_wait)
    await all_have([follower, other], 20_000)
    assert follower.delivered == other.delivered == await logged(schema)
    assert [one.pos for one in published] == list(range(1, 20_001))


@pytest_twisted.ensureDeferred
async def test_a_new_leader_gives_others_time(schema: PostgresServer, nodes: list[Engine]) -> None:
    """
    After the database was away, no node could say that it is there.  The one that leads then does not take that for the
    end of those that come back after it.
    """
    late, former = nodes[2].membership, nodes[2].membership.node
    late._due = float("inf")
    await schema.run("update dcm_ws.node set seen_at = now() - interval '1 minute'")
    await schema.run(f"select pg_terminate_backend(pid) from ({LEADS}) as leader")
    leader = await leader_of(nodes)
    for _ in range(2):
        beat = await schema.run("select seen_at from dcm_ws.node where id = %s", leader.membership.node)
        await leader.until(
            lambda beat=beat: beat != schema.execute("select seen_at from dcm_ws.node where leader and not fenced")  # type: ignore[misc]
        )
    assert await schema.run("select id from dcm_ws.node where fenced") == []
    late.hurry()
    await leader.until(lambda: not schema.execute("select 1 from dcm_ws.node where seen_at < now() - interval '9 s'"))
    assert late.node == former
