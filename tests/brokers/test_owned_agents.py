"""
The agents of a cluster's nodes, in a real PostgreSQL.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock, deferLater

from dcm_ws.brokers.agent_store import AgentStore
from dcm_ws.brokers.agent_tables import PostgresAgents
from dcm_ws.brokers.bus_memory import MemoryHub
from dcm_ws.brokers.handovers import KEPT, Question
from dcm_ws.brokers.owned_agents import OwnedAgents
from dcm_ws.core.agent_states import encode
from dcm_ws.core.assembly import Core
from dcm_ws.core.counts import Counts
from dcm_ws.core.entries import Draft, Published
from dcm_ws.core.log import MemoryLog
from dcm_ws.core.ports import Deliver, Reset
from dcm_ws.postgres.agent_owners import NodeLease
from dcm_ws.postgres.connection import DatabaseConnection, Place, connect
from tests.fakes import Client, make_core
from tests.integration.databases import PostgresServer
from tests.integration.owed import bury

pytestmark = pytest.mark.integration

TASK = "task.created"


async def eventually(condition: Callable[[], Any]) -> None:
    from twisted.internet import reactor

    while not condition():
        await deferLater(reactor, 0.005)


class Shared(MemoryLog):
    """
    One log of several nodes, which delivers to all of them.
    """

    def __init__(self, *args: Any, **limits: Any) -> None:
        super().__init__(*args, **limits)
        self.deliver: list[Deliver] = []
        super().attach(lambda *event: [each(*event) for each in self.deliver], lambda: None)

    def attach(self, deliver: Deliver, reset: Reset) -> None:
        self.deliver.append(deliver)


def same(log: MemoryLog) -> type[MemoryLog]:
    class Same(MemoryLog):
        def __new__(cls, *args: Any, **limits: Any) -> Any:
            return log

    return Same


class Rig:
    """
    A database, a bus and a log.
    """

    def __init__(self, server: PostgresServer, clock: Clock) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.server = server
        self.clock = clock
        self.hub = MemoryHub(self.reactor.callLater, self.reactor.seconds, Random(1))
        self.log = Shared("epoch", clock.seconds, keep=86_400.0, max_events=1000, max_bytes=1 << 20)
        self.numbers = iter(range(1, 1 << 30))
        self.nodes: list[Node] = []
        self.stores: list[tuple[AgentStore, DatabaseConnection]] = []
        ((self.epoch,),) = server.execute("select epoch from dcm_ws.meta")

    def random(self, length: int) -> str:
        return str(next(self.numbers)).rjust(length, "0")

    def address(self) -> Deferred[Place]:
        return succeed(Place(self.server.url))

    def node(self, **choices: Any) -> Node:
        node = Node(self, **choices)
        self.nodes.append(node)
        return node

    async def solo(self) -> Core:
        """
        A service without a cluster starts.
        """
        core = make_core(self.clock, log=same(self.log), random=self.random)
        session = DatabaseConnection(self.reactor)
        await connect(session, Place(self.server.url), "dcm-ws test")
        store = AgentStore(
            self.reactor,
            self.address,
            core.counts.journal,
            journal=core.journal,
            ledger=core.ledger,
            loading=core.loading,
            redriving=core.redriving,
            leads=lambda: True,
            now=core.world.now,
            wall_ms=core.world.wall_ms,
            random=lambda: 0.0,
        )
        self.stores.append((store, session))
        store.apply(await store.read(session))
        await eventually(lambda: store.report() is not None)
        store.startService()
        return core

    def publish(self, data: object, channel: str = "topics/t") -> None:
        from dcm_ws.protocol.channels import parse_channel
        from dcm_ws.protocol.events import traits_of

        category, tracked, _ = traits_of(TASK)
        number = next(self.numbers)
        draft = Draft(
            f"msg_{number}",
            parse_channel(channel),
            TASK,
            str(data).encode(),
            1,
            b"",
            channel,
            category,
            tracked,
            True,
            "p",
        )
        self.log.append(draft, Published(draft.id))

    async def stop(self) -> None:
        for node in self.nodes:
            await node.stop()
        for store, session in self.stores:
            await store.stopService()
            session.close()


class Node:
    """
    A node without the rest of the service.
    """

    def __init__(self, rig: Rig, leads: bool = False) -> None:
        self.rig = rig
        counts = Counts()
        ((self.number,),) = rig.server.execute(
            "insert into dcm_ws.node (name, host, pid, version, address) values ('n', 'h', 1, '1', 'a') returning id"
        )
        self.bus = rig.hub.bus(counts)
        self.bus.join(str(self.number), "test")
        self.fenced = 0
        #: the position and the id of the last event that was delivered here
        self.last = (0, "")
        owners, agents = (
            PostgresAgents(rig.reactor, rig.address, name, lambda: NodeLease(self.number, rig.epoch, *self.last))
            for name in ("dcm-ws owners", "dcm-ws agents")
        )
        self.owned = OwnedAgents(
            rig.reactor,
            owners,
            agents,
            self.bus,
            counts,
            leads=lambda: leads,
            reach=rig.log.reach,
            last=lambda: self.last,
            fenced=self._is_fenced,
            now=rig.reactor.seconds,
            wall_ms=lambda: 1_706_000_000_000,
            random=lambda: 0.0,
        )
        self.core = make_core(
            rig.clock, counts=counts, log=same(rig.log), random=rig.random, owners=self.owned, bus=self.bus
        )
        self.owned.attach(
            journal=self.core.journal,
            ledger=self.core.ledger,
            ownership=self.core.ownership,
            redriving=self.core.redriving,
        )
        self.owned.open(self.core.loading)
        self.owned.startService()

    def _is_fenced(self) -> None:
        self.fenced += 1

    async def agent(self, name: str = "ann", **fields: Any) -> Client:
        """
        An agent whose connection is ready.
        """
        client = Client(self.core)
        client.say(type="unsubscribe", channel="global")
        client.auth(name, id=1, durable=True, **fields)
        await eventually(lambda: not client.peer.stopped)
        return client

    async def flush(self) -> None:
        counts = self.core.counts.journal
        before = counts.flushes
        self.owned.tick()
        await eventually(lambda: counts.flushes > before and not self.owned.is_working)

    async def crash(self) -> None:
        """
        It ends without a last flush, and is fenced.
        """
        self.bus.leave()
        self.owned._is_open = False
        await self.stop()
        await self.rig.server.run("update dcm_ws.node set fenced = true where id = %s", self.number)

    async def stop(self) -> None:
        await self.owned.stopService()


@pytest_twisted.async_yield_fixture
async def rig(tables: PostgresServer, clock: Clock) -> AsyncIterator[Rig]:
    made = Rig(tables, clock)
    yield made
    await made.stop()


def data(client: Client) -> list[Any]:
    return [message["data"] for message in client.peer.take() if message.get("event") == TASK]


@pytest_twisted.ensureDeferred
async def test_an_agent_hops(rig: Rig) -> None:
    """
    What it has acknowledged a moment ago does not come again.
    """
    one, two = rig.node(), rig.node()
    client = await one.agent()
    client.say(type="subscribe", channel="topics/t")
    rig.publish(1)
    rig.publish(2)
    assert data(client) == [1, 2]
    client.say(type="ack", pos=1)
    client.leave()
    rig.publish(3)
    client = await two.agent()
    assert data(client) == [2, 3]
    assert await rig.server.run("select node, gen from dcm_ws.agent") == [(two.number, 2)]
    client.say(type="ack", pos=3)
    again = await one.agent()
    assert data(again) == []
    assert (one.core.counts.owners.given, two.core.counts.owners.given) == (1, 1)
    assert (one.core.counts.owners.asked, one.core.counts.owners.forced) == (1, 0)
    assert (one.owned.takes.report(), two.owned.takes.report()) == (
        {"owned": 1, "awaited": 0},
        {"owned": 0, "awaited": 0},
    )


@pytest_twisted.ensureDeferred
async def test_a_backup_is_restored_and_a_node_does_not_know_it(rig: Rig) -> None:
    """
    The node has delivered what the log does not have any more: what it has of its agents does not count, neither in the
    database nor at other nodes.
    """
    one, two = rig.node(), rig.node()
    client = await one.agent()
    client.say(type="subscribe", channel="topics/t")
    rig.publish(1)
    await one.flush()
    assert data(client) == [1]
    client.say(type="ack", pos=1)
    one.last = (7, "msg_lost")
    fenced = one.fenced
    one.owned.tick()
    await eventually(lambda: one.fenced > fenced)
    assert await rig.server.run("select count(*) from dcm_ws.ack") == [(1,)]
    # what it has acknowledged there is gone with the log
    assert data(await two.agent()) == [1]
    assert (one.core.counts.owners.given, two.core.counts.owners.forced) == (1, 1)
    assert await rig.server.run("select node, gen from dcm_ws.agent") == [(two.number, 2)]


@pytest_twisted.ensureDeferred
async def test_a_node_crashes(rig: Rig) -> None:
    """
    What was written counts; and the leader puts together what others do not ask for.
    """
    one, two = rig.node(), rig.node(leads=True)
    for name in ("ann", "bob"):
        client = await one.agent(name)
        client.say(type="subscribe", channel="topics/t")
    rig.publish(1)
    await one.flush()
    client.say(type="ack", pos=1)
    await one.crash()
    rig.publish(2)
    client = await two.agent("bob")
    assert data(client) == [1, 2]
    await two.flush()
    assert await rig.server.run("select node from dcm_ws.ack") == [(two.number,)]
    client = await two.agent("ann")
    assert data(client) == [1, 2]


@pytest_twisted.ensureDeferred
async def test_a_node_does_not_answer(rig: Rig) -> None:
    """
    The agent is taken with what the database has, and the former node learns of it with its next flush.
    """
    one, two = rig.node(), rig.node()
    old = await one.agent()
    old.say(type="subscribe", channel="topics/t")
    await one.flush()
    rig.publish(1)
    await one.flush()
    rig.hub.loss = 1.0
    client = await two.agent()
    assert data(client) == [1]
    assert (two.core.counts.owners.asked, two.core.counts.owners.forced) == (1, 1)
    rig.publish(2)
    await one.flush()
    assert one.core.counts.owners.lost == 1
    assert one.core.clients.elsewhere["ann"].node == str(two.number)
    assert data(old) == [1, 2]
    old.leave()
    await two.flush()
    assert await rig.server.run("select node, gen from dcm_ws.agent") == [(two.number, 2)]


@pytest_twisted.ensureDeferred
async def test_an_agent_that_is_away_is_taken_by_force(rig: Rig) -> None:
    """
    Its former node, which was not reached and has nothing to write of it, learns of it all the same.
    """
    one, two = rig.node(), rig.node()
    client = await one.agent()
    client.say(type="subscribe", channel="topics/t")
    rig.publish(1)
    await one.agent("bob")
    client.leave()
    await one.flush()
    assert one.core.memory.kept == 1
    rig.hub.loss = 1.0
    assert data(await two.agent()) == [1]
    for _ in range(10):
        await one.flush()
    assert one.core.memory.kept == 0 and list(one.owned.releases.gens) == ["bob"]
    assert one.core.counts.owners.lost == 1


@pytest_twisted.ensureDeferred
async def test_a_question_comes_late(rig: Rig) -> None:
    """
    The bus was frozen, so the node that asked has taken the agent by force.  When its question arrives, the agent is on
    its way back: it is not given to that node once more, and gets what it is owed first.
    """
    one, two = rig.node(), rig.node()
    client = await one.agent()
    client.say(type="subscribe", channel="topics/t")
    rig.publish(1)
    client.leave()
    await one.flush()
    await one.flush()
    rig.hub.freeze()
    client = await two.agent()
    assert (data(client), two.core.counts.owners.forced) == ([1], 1)
    client.leave()
    rig.publish(2)
    client = Client(one.core)
    client.say(type="unsubscribe", channel="global")
    client.auth("ann", id=1, durable=True)
    await eventually(lambda: one.core.counts.owners.asked)
    late: list[bytes | None] = []
    two.bus.ask(str(one.number), "release", encode(Question("ann", 1)), 60.0, late.append)
    rig.hub.thaw()
    await eventually(lambda: not client.peer.stopped)
    assert data(client) == [1, 2]
    await eventually(lambda: late)
    assert late == [KEPT]
    assert (one.core.counts.owners.forced, one.core.counts.owners.given) == (0, 0)
    assert await rig.server.run("select node, gen from dcm_ws.agent") == [(one.number, 3)]
    assert list(one.owned.releases.gens) == ["ann"]


@pytest_twisted.ensureDeferred
async def test_checkpoints(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    from dcm_ws.brokers import flushes

    monkeypatch.setattr(flushes, "CHECKPOINT_TICKS", 1)
    one, two = rig.node(), rig.node()
    client = await one.agent()
    client.say(type="subscribe", channel="topics/t")
    rig.publish(1)
    await one.flush()
    assert await rig.server.run("select * from dcm_ws.ack") == []
    assert await rig.server.run("select state -> 'owed' ? '1' from dcm_ws.agent") == [(True,)]
    await one.crash()
    assert data(await two.agent()) == [1]


@pytest_twisted.ensureDeferred
async def test_what_a_connection_has_left(rig: Rig) -> None:
    """
    Its agent gets it at the node that has it now.
    """
    one, two = rig.node(), rig.node()
    old = await one.agent()
    new = await two.agent()
    old.say(type="subscribe", channel="topics/u")
    rig.publish(1, "topics/u")
    old.leave()
    assert len(one.owned.merges) == 1
    await one.flush()
    await eventually(lambda: not len(one.owned.merges))
    assert data(new) == [1]
    third = await one.agent("bob")
    await two.agent("bob")
    third.say(type="subscribe", channel="topics/u")
    rig.publish(2, "topics/u")
    third.leave()
    await two.crash()
    await one.flush()
    await eventually(lambda: not len(one.owned.merges))
    assert data(await one.agent("bob")) == [2]


@pytest_twisted.ensureDeferred
async def test_what_a_connection_has_subscribed_to(rig: Rig) -> None:
    """
    The node that has its agent knows it, also if the node of the connection is killed.
    """
    one, two = rig.node(), rig.node()
    old = await one.agent()
    new = await two.agent()
    old.say(type="subscribe", channel="topics/u")
    await one.flush()
    await eventually(lambda: not len(one.owned.merges))
    await one.crash()
    rig.publish(1, "topics/u")
    third = await two.agent()
    rig.publish(2, "topics/u")
    assert (data(new), data(third)) == ([], [2])


@pytest_twisted.ensureDeferred
async def test_acks_at_another_node(rig: Rig) -> None:
    one, two = rig.node(), rig.node()
    old = await one.agent()
    old.say(type="subscribe", channel="topics/t")
    new = await two.agent()
    rig.publish(1)
    assert (data(old), data(new)) == ([1], [1])
    assert len(new.session.owed) == 1
    old.say(type="ack", pos=1)
    await eventually(lambda: not new.session.owed)


@pytest_twisted.ensureDeferred
async def test_requests_on_dead_letters(rig: Rig) -> None:
    """
    They are executed by the node that has the agent, also if it has not heard of the letter yet.
    """
    one = rig.node(leads=True)
    client = await one.agent()
    bury(rig.server, "ann", 1)
    bury(rig.server, "ann", 2)
    bury(rig.server, "bob", 3)
    await rig.server.run("update dcm_ws.dead set request = case pos when 2 then 'purge' else 'redrive' end")
    await one.flush()
    await one.flush()
    assert [message["pos"] for message in client.peer.take() if message.get("event") == TASK] == [1]
    assert await rig.server.run("select pos, request, redriven_at is null from dcm_ws.dead order by pos") == [
        (1, None, False),
        (3, None, False),
    ]
    bob = await one.agent("bob")
    assert [message["pos"] for message in bob.peer.take() if message.get("event") == TASK] == [3]


@pytest_twisted.ensureDeferred
async def test_the_database_is_away(rig: Rig) -> None:
    one = rig.node()
    await one.agent()
    await rig.server.run("alter table dcm_ws.agent rename to away")
    client = Client(one.core)
    client.peer.take()
    client.auth("bob", id=1)
    await eventually(lambda: client.peer.closed)
    assert [message["code"] for message in client.peer.take()] == ["NOT_AVAILABLE"]
    await rig.server.run("alter table dcm_ws.away rename to agent")
    await one.agent("bob")


@pytest_twisted.ensureDeferred
async def test_a_node_that_is_fenced(rig: Rig) -> None:
    one = rig.node()
    await one.agent()
    await rig.server.run("update dcm_ws.node set fenced = true")
    one.owned.tick()
    await eventually(lambda: one.fenced == 1)
    client = Client(one.core)
    client.auth("bob", id=1)
    await eventually(lambda: client.peer.closed)
    assert one.fenced > 1


@pytest_twisted.ensureDeferred
async def test_from_one_service_to_a_cluster_and_back(rig: Rig) -> None:
    solo = await rig.solo()
    client = Client(solo)
    client.say(type="unsubscribe", channel="global")
    client.auth("ann", durable=True)
    client.say(type="subscribe", channel="topics/t")
    rig.publish(1)
    store, session = rig.stores.pop()
    await store.stopService()
    session.close()
    one = rig.node()
    client = await one.agent()
    assert data(client) == [1]
    client.say(type="ack", pos=1)
    rig.publish(2)
    client.leave()
    await one.stop()
    solo = await rig.solo()
    assert await rig.server.run("select node, gen from dcm_ws.agent") == [(None, 0)]
    client = Client(solo)
    client.say(type="unsubscribe", channel="global")
    assert [message["data"] for message in client.auth("ann") if message.get("event") == TASK] == [2]


@pytest_twisted.ensureDeferred
async def test_agents_of_a_node_that_is_about_to_stop(rig: Rig) -> None:
    """
    As their last connections end, they are written for whoever takes them next, who need not ask.
    """
    one, two = rig.node(), rig.node()
    clients = [await one.agent(name) for name in ("ann", "bob", "eve")]
    for client in clients:
        client.say(type="subscribe", channel="topics/t")
    rig.publish(1)
    one.core.hub.draining = True
    for client in clients[:2]:
        client.leave()
    rows = "select agent, node, gen from dcm_ws.agent order by 1"
    await eventually(lambda: rig.server.execute(rows)[1] == ("bob", None, 2))
    assert await rig.server.run(rows) == [("ann", None, 2), ("bob", None, 2), ("eve", one.number, 1)]
    one.bus.leave()
    client = await two.agent("ann")
    assert data(client) == [1]
    assert (await rig.server.run(rows))[0] == ("ann", two.number, 3)
    clients[2].leave()
    # the last flush does it, too
    await one.stop()
    assert (await rig.server.run(rows))[2] == ("eve", None, 2)
    assert (one.core.counts.owners.given_back, one.core.counts.owners.given) == (3, 0)


@pytest_twisted.ensureDeferred
async def test_an_agent_that_is_given_back_and_comes_again(rig: Rig) -> None:
    """
    It may come to the same node, or another one may ask for it, before it is written.
    """
    one, two = rig.node(), rig.node()
    client = await one.agent()
    client.say(type="subscribe", channel="topics/t")
    rig.publish(1)
    one.core.hub.draining = True
    client.leave()
    again = await one.agent()
    await one.flush()
    assert data(again) == [1]
    assert await rig.server.run("select node, gen from dcm_ws.agent") == [(one.number, 1)]
    again.leave()
    one.owned.releases.give_back("ann")
    third = await one.agent()
    assert data(third) == [1]
    third.leave()
    one.owned.releases.give_back("ann")
    assert data(await two.agent()) == [1]
    await one.flush()
    assert await rig.server.run("select node from dcm_ws.agent") == [(two.number,)]


@pytest_twisted.ensureDeferred
async def test_what_is_given_back_is_written_later(rig: Rig) -> None:
    """
    If the database is away, it is still here, with its dead letters.
    """
    from dcm_ws.core.tracked import Tracked

    one = rig.node()
    client = await one.agent()
    client.say(type="subscribe", channel="topics/t")
    rig.publish(1)
    (event,) = [delivery.event for delivery in client.session.owed.values()]
    one.core.letters.bury("ann", Tracked(9, "msg_9", event.frames), 3, "attempts")
    await rig.server.run("alter table dcm_ws.agent rename to away")
    one.core.hub.draining = True
    client.leave()
    await eventually(lambda: one.core.counts.journal.failures)
    await rig.server.run("alter table dcm_ws.away rename to agent")
    await eventually(lambda: rig.server.execute("select node from dcm_ws.agent") == [(None,)])
    assert await rig.server.run("select agent, pos from dcm_ws.dead") == [("ann", 9)]
