"""
What agents are owed, kept in a real PostgreSQL over crashes of the service.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock, LoopingCall, deferLater

from dcm_ws.brokers import agent_store, flushes
from dcm_ws.brokers.agent_store import AgentStore
from dcm_ws.core.assembly import Core
from dcm_ws.core.log import MemoryLog
from dcm_ws.postgres import agent_rows
from dcm_ws.postgres.connection import DatabaseConnection, Place, connect
from tests.core.clients import TASK, joined, texts
from tests.core.living import live
from tests.fakes import Client, make_core
from tests.integration.databases import PostgresServer

pytestmark = pytest.mark.integration


async def eventually(condition: Callable[[], Any]) -> None:
    from twisted.internet import reactor

    while not condition():
        await deferLater(reactor, 0.005)


class Node:
    """
    The core with what keeps its agents in the database, and none of the rest of the service.

    @ivar leads: it believes that it is the leader.
    """

    def __init__(self, server: PostgresServer, clock: Clock, former: Node | None = None, **choices: Any) -> None:
        from twisted.internet import reactor

        self.server = server
        self.leads = True
        if former is not None:
            choices["log"] = same_log(former.core)
        self.core: Core = make_core(clock, **choices)
        self.session = DatabaseConnection(reactor)
        core = self.core
        self.store = AgentStore(
            reactor,
            lambda: succeed(Place(server.url)),
            core.counts.journal,
            journal=core.journal,
            ledger=core.ledger,
            loading=core.loading,
            redriving=core.redriving,
            leads=lambda: self.leads,
            now=core.world.now,
            wall_ms=core.world.wall_ms,
            random=lambda: 0.0,
        )

    async def start(self) -> Node:
        await connect(self.session, Place(self.server.url), "dcm-ws test")
        await self.load()
        self.store.startService()
        return self

    async def load(self) -> None:
        self.store.apply(await self.store.read(self.session))
        await eventually(lambda: self.store.report() is not None)

    async def flush(self) -> None:
        """
        Write what has changed.
        """
        counts = self.core.counts.journal
        before = counts.flushes
        self.store.tick()
        await eventually(lambda: counts.flushes > before and not self.store.is_working)

    async def flush_in_vain(self) -> None:
        counts = self.core.counts.journal
        before = counts.failures
        self.store.tick()
        await eventually(lambda: counts.failures > before and not self.store.is_working)

    async def crash(self) -> None:
        """
        It ends without a last flush.
        """
        self.leads = False
        await self.store.stopService()
        self.session.close()


def same_log(core: Core) -> type[MemoryLog]:
    """
    What makes the log of C{core}, which is in the database elsewhere, and has survived.
    """
    log = core.log
    assert isinstance(log, MemoryLog)

    class SameLog(MemoryLog):
        def __new__(cls, *args: Any, **limits: Any) -> Any:
            return log

    return SameLog


Start = Callable[..., "Deferred[Node]"]


@pytest_twisted.async_yield_fixture
async def start(tables: PostgresServer, clock: Clock) -> AsyncIterator[Start]:
    """
    Starts nodes; they end with the test.
    """
    nodes: list[Node] = []

    def begin(former: Node | None = None, **choices: Any) -> Deferred[Node]:
        nodes.append(Node(tables, clock, former, **choices))
        return Deferred.fromCoroutine(nodes[-1].start())

    yield begin
    for node in nodes:
        await node.crash()


async def restarted(start: Start, node: Node) -> Node:
    """
    The node after it was killed.
    """
    await node.crash()
    return await start(node)


def worker(node: Node, agent: str = "ann", *channels: str) -> Client:
    """
    A durable agent that is subscribed to C{topics/t}.
    """
    client = joined(node.core, quiet=True)
    client.auth(agent, durable=True)
    for channel in channels or ("topics/t",):
        client.say(type="subscribe", channel=channel)
    client.peer.take()
    return client


def publish(node: Node, *data: Any, channel: str = "topics/t") -> None:
    publisher = joined(node.core, quiet=True)
    for one in data:
        publisher.say(**(TASK | {"channel": channel}), data=one)
    publisher.leave()


def returns(node: Node, agent: str = "ann") -> list[Any]:
    """
    The data of the events that an agent gets when it returns, and leaves again.
    """
    client = joined(node.core, quiet=True)
    got = [data for _, data in texts(client.auth(agent, durable=True))]
    client.leave()
    return got


def acknowledge(client: Client, *messages: dict[str, Any]) -> None:
    for message in messages:
        client.say(type="ack", message_id=message["id"])


@pytest_twisted.ensureDeferred
async def test_crash(start: Start) -> None:
    """
    After a crash, an agent gets what it had not acknowledged at the last flush, and what was published since, to all
    channels that it was subscribed to.
    """
    node = await start()
    ann = worker(node, "ann", "topics/t", "topics/u")
    publish(node, 0, 1, 2)
    first, second, _ = ann.peer.take()
    acknowledge(ann, first)
    await node.flush()
    acknowledge(ann, second)
    publish(node, 3, channel="topics/u")
    node = await restarted(start, node)
    assert returns(node) == [1, 2, 3]


@pytest_twisted.ensureDeferred
async def test_crashes_in_a_row(start: Start) -> None:
    """
    What was written before one crash is there after the next, although nothing was written in between; the journal
    begins again at each start, and is not read twice.
    """
    node = await start()
    ann = worker(node)
    worker(node, "ben")
    publish(node, 0, 1)
    await node.flush()
    acknowledge(ann, ann.peer.take()[0])
    await node.flush()
    for _ in range(3):
        node = await restarted(start, node)
        assert await node.server.run("select count(*) from dcm_ws.ack") == [(0,)]
    assert returns(node) == [1]
    assert returns(node, "ben") == [0, 1]


@pytest_twisted.ensureDeferred
async def test_checkpoints(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A checkpoint shortens the journal, and nothing is different after a crash.
    """
    monkeypatch.setattr(flushes, "CHECKPOINT_TICKS", 3)
    node = await start()
    ann = worker(node)
    for number in range(7):
        publish(node, number)
        if number % 2:
            acknowledge(ann, *ann.peer.take()[:1])
        await node.flush()
    rows = (await node.server.run("select count(*) from dcm_ws.ack"))[0][0]
    assert rows == 1
    report = node.store.report()
    assert report is not None and report["rows"] == rows and report["pending"] == 0
    node = await restarted(start, node)
    assert returns(node) == [1, 3, 5, 6]


@pytest_twisted.ensureDeferred
async def test_agents_that_are_forgotten(start: Start, clock: Clock) -> None:
    """
    An agent that has been away for too long is not in the database any more.
    """
    node = await start(keep_subscriptions=50.0, keep_deliveries=50.0)
    worker(node).leave()
    await node.flush()
    agents = "select count(*) from dcm_ws.agent"
    node = await restarted(start, node)
    assert await node.server.run(agents) == [(1,)]
    for _ in range(100):
        clock.advance(86_400.0)
        live(node.core, clock, 1)
    await node.flush()
    node = await restarted(start, node)
    assert await node.server.run(agents) == [(0,)]


@pytest_twisted.ensureDeferred
async def test_many_agents(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is written at once is limited, for changes and checkpoints alike.
    """
    monkeypatch.setattr(agent_rows, "PAGE_ROWS", 100)
    monkeypatch.setattr(flushes, "CHECKPOINT_TICKS", 2)
    node = await start()
    clients = [worker(node, f"agent-{number}") for number in range(350)]
    publish(node, "x")
    await node.flush()
    count = "select count(*) from dcm_ws.ack"
    assert await node.server.run(count) == [(4,)]
    for client in clients[:250]:
        acknowledge(client, *client.peer.take())
    await node.flush()
    assert await node.server.run(count) == [(0,)]
    node = await restarted(start, node)
    assert [bool(returns(node, f"agent-{number}")) for number in range(350)] == [False] * 250 + [True] * 100


@pytest_twisted.ensureDeferred
async def test_many_agents_are_read_in_turns(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    However many agents have changed before a crash, no turn of the next start encodes many of them.
    """
    from twisted.internet import reactor

    node = await start()
    clients = [worker(node, f"agent-{number}") for number in range(100)]
    await node.flush()
    for client in clients:
        client.leave()
    await node.flush()
    await node.crash()
    monkeypatch.setattr(flushes, "_STEPS_A_TURN", 10)
    turns = [0]
    encode = agent_store.encode  # type: ignore[attr-defined]

    def encoded(state: object) -> bytes:
        turns[-1] += 1
        return encode(state)

    monkeypatch.setattr(agent_store, "encode", encoded)
    each_turn = LoopingCall(turns.append, 0)
    each_turn.clock = reactor
    each_turn.start(0)
    try:
        await start(node)
    finally:
        each_turn.stop()
    assert sum(turns) == 100
    assert max(turns) <= 10


def bury(node: Node, clock: Clock, *data: Any) -> None:
    """
    Have an agent never acknowledge something, so that it becomes a dead letter; the agent leaves.
    """
    ann = worker(node)
    publish(node, *data)
    live(node.core, clock, 30)
    ann.leave()
    assert len(node.core.letters) == len(data)


@pytest_twisted.ensureDeferred
async def test_dead_letters(start: Start, clock: Clock) -> None:
    """
    A dead letter is there after a crash; redriven, it goes to its agent only, also after another crash, and is gone
    when that has acknowledged it.
    """
    node = await start()
    bury(node, clock, {"text": "\\u0000 ü"})
    await node.flush()
    node = await restarted(start, node)
    ben = worker(node, "ben")
    (letter,) = node.core.application_hub.dead_letters()
    assert (letter.agent, json.loads(letter.data), letter.reason) == ("ann", {"text": "\\u0000 ü"}, "attempts")
    assert returns(node) == []
    await node.server.run("update dcm_ws.dead set request = 'redrive'")
    await node.flush()
    dead = "select agent, request, redriven_at is not null from dcm_ws.dead"
    assert await node.server.run(dead) == [("ann", None, True)]
    assert ben.peer.take() == []
    node = await restarted(start, node)
    ann = joined(node.core, quiet=True)
    (event,) = ann.auth("ann", durable=True)[1:]
    acknowledge(ann, event)
    await node.flush()
    assert await node.server.run(dead) == []


@pytest_twisted.ensureDeferred
async def test_redriven_letters_that_only_the_database_knows(
    start: Start, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    They wait for a service that loads them, and hold up no others.
    """
    monkeypatch.setattr(agent_store, "REQUESTS_AT_ONCE", 1)
    node = await start()
    bury(node, clock, 1)
    await node.flush()
    await node.server.run(
        "insert into dcm_ws.dead (agent, event_id, pos, channel, event, data, at, deliveries, reason, died_at)"
        " select 'x', 'y' || n, n, 'topics/t', 'task.created', '1', 1, 3, 'attempts', %s - n"
        " from generate_series(1, 3) n",
        node.core.world.wall_ms() - 60_000,
    )
    await node.server.run("update dcm_ws.dead set request = 'redrive'")
    waiting = "select agent from dcm_ws.dead where request = 'redrive' order by event_id"
    for _ in range(4):
        await node.flush()
    assert await node.server.run(waiting) == [("x",)] * 3
    node = await restarted(start, node)
    for _ in range(3):
        await node.flush()
    assert await node.server.run(waiting) == []
    assert [letter.redriven_at is None for letter in node.core.application_hub.dead_letters()] == [False] * 4


@pytest_twisted.ensureDeferred
async def test_purged_letters(start: Start, clock: Clock) -> None:
    """
    What operators want to be purged is deleted, also if this service does not know of it.
    """
    node = await start()
    bury(node, clock, 0, 1)
    await node.flush()
    await node.server.run(
        "insert into dcm_ws.dead (agent, event_id, pos, channel, event, data, at, deliveries, reason, died_at, request)"
        " select 'x', 'y', 1, 'topics/t', 'task.created', '1', 1, 3, 'attempts', 1, 'purge'"
    )
    await node.server.run("update dcm_ws.dead set request = 'purge' where data = '0'")
    await node.flush()
    assert await node.server.run("select agent, data from dcm_ws.dead") == [("ann", "1")]
    assert [json.loads(letter.data) for letter in node.core.application_hub.dead_letters()] == [1]


@pytest_twisted.ensureDeferred
async def test_large_letters(start: Start, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Dead letters are written in parts of limited size, and all are there after a crash, in the order of dying.
    """
    monkeypatch.setattr(agent_rows, "PAGE_BYTES", 10_000)
    node = await start()
    data = [f"{number} {'x' * 4000}" for number in range(8)]
    bury(node, clock, *data)
    written = await node.server.run("select count(distinct xmin::text) from dcm_ws.dead")
    assert written == [(0,)]
    await node.flush()
    assert await node.server.run("select count(distinct xmin::text), count(*) from dcm_ws.dead") == [(3, 8)]
    node = await restarted(start, node)
    assert [json.loads(letter.data) for letter in node.core.application_hub.dead_letters()] == data


@pytest_twisted.ensureDeferred
async def test_the_database_is_away(start: Start, clock: Clock) -> None:
    """
    While the database does not answer, changes are merged, and it is asked less and less often; then all is written.
    """
    node = await start()
    ann = worker(node)
    publish(node, 0, 1)
    await node.flush()
    node.server.stop("immediate")
    try:
        acknowledge(ann, ann.peer.take()[0])
        await node.flush_in_vain()
        publish(node, 2)
        # not before the next attempt is due
        node.store.tick()
        assert not node.store.is_working
        clock.advance(60)
        await node.flush_in_vain()
        report = node.store.report()
        assert report is not None and report["pending"] == 1
    finally:
        node.server.start()
    acknowledge(ann, ann.peer.take()[0])
    clock.advance(60)
    await node.flush()
    await node.crash()
    assert returns(await start(node)) == [1]


@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_lost(start: Start, clock: Clock) -> None:
    node = await start()
    worker(node)
    await node.flush()
    assert node.server.kill_backends("dcm-ws agents") == 1
    publish(node, 0)

    def flushed() -> bool:
        clock.advance(60)
        node.store.tick()
        return node.core.counts.journal.flushes == 2

    await eventually(flushed)
    node = await restarted(start, node)
    assert returns(node) == [0]


@pytest_twisted.ensureDeferred
async def test_a_former_leader(start: Start) -> None:
    """
    A service that has lost the leader's lock without knowing it writes nothing more, until it has read again what the
    other one has written.
    """
    former = await start()
    ann = worker(former)
    publish(former, 0, 1)
    await former.flush()
    assert await former.store.is_current(former.session)
    leader = await start(former)
    assert not await former.store.is_current(former.session)
    acknowledge(ann, *ann.peer.take())
    former.store.tick()
    await eventually(lambda: not former.store.is_working)
    assert former.store.report() is None
    assert returns(leader) == [0, 1]
    await leader.flush()
    # as the engine does
    former.core.hub.reset()
    await former.load()
    await former.flush()
    assert returns(former) == [0, 1]


@pytest_twisted.ensureDeferred
async def test_nothing_is_written_by_a_service_that_does_not_lead(start: Start) -> None:
    node = await start()
    worker(node)
    node.leads = False
    node.store.tick()
    assert not node.store.is_working
    node.leads = True
    await node.flush()
    assert len(await node.server.run("select 1 from dcm_ws.ack")) == 1


@pytest_twisted.ensureDeferred
async def test_the_last_flush(start: Start) -> None:
    """
    A service that stops writes what has changed.
    """
    node = await start()
    ann = worker(node)
    publish(node, 0, 1)
    acknowledge(ann, ann.peer.take()[0])
    ann.leave()
    await node.store.stopService()
    node = await start(node)
    assert returns(node) == [1]


async def after_a_failure(start: Start) -> Node:
    """
    A node whose last flush has failed, with an ack; the database is there again.
    """
    node = await start()
    ann = worker(node)
    publish(node, 0, 1)
    await node.flush()
    acknowledge(ann, ann.peer.take()[0])
    node.server.stop("immediate")
    try:
        await node.flush_in_vain()
    finally:
        node.server.start()
    return node


@pytest_twisted.ensureDeferred
async def test_the_last_flush_after_a_failure(start: Start) -> None:
    """
    A service that stops writes what has changed, although the database was away just before.
    """
    node = await after_a_failure(start)
    await node.store.stopService()
    node = await start(node)
    assert returns(node) == [1]


@pytest_twisted.ensureDeferred
async def test_what_could_not_be_saved(start: Start, warnings: list[str]) -> None:
    """
    A service that stops while the database is away says what it could not save.
    """
    node = await start()
    ann = worker(node)
    publish(node, 0)
    await node.flush()
    acknowledge(ann, *ann.peer.take())
    node.server.stop("immediate")
    try:
        await node.store.stopService()
    finally:
        node.server.start()
    assert warnings[-1].startswith("what 1 agents are owed could not be saved")


@pytest_twisted.ensureDeferred
async def test_nothing_waits_when_the_database_is_back(start: Start) -> None:
    node = await after_a_failure(start)
    node.store.hurry()
    await node.flush()
    await node.crash()
    assert returns(await start(node)) == [1]


@pytest_twisted.ensureDeferred
async def test_the_last_flush_is_limited(start: Start) -> None:
    """
    A service stops although the database does not let it write.
    """
    node = await start()
    worker(node)
    with closing(psycopg2.connect(node.server.url)) as other:
        other.cursor().execute("lock table dcm_ws.ack")
        node.store.tick()
        await node.store.stopService()
        assert not node.store.is_working
    assert node.core.counts.journal.flushes == 0


@pytest_twisted.ensureDeferred
async def test_loading_again_while_it_loads(start: Start) -> None:
    """
    If the log becomes another one while agents are loaded, only what was read last counts.
    """
    node = await start()
    for number in range(600):
        worker(node, f"agent-{number}").leave()
    await node.flush()
    await node.crash()
    node = await start(node)
    first = await node.store.read(node.session)
    node.core.hub.reset()
    node.store.apply(first)
    await node.server.run("delete from dcm_ws.agent where agent <> 'agent-7'")
    second = await node.store.read(node.session)
    node.core.hub.reset()
    node.store.apply(second)
    await eventually(lambda: node.store.report() is not None)
    assert len(node.core.memory) == 1
    await node.flush()


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_read(start: Start, tables: PostgresServer) -> None:
    """
    What somebody has written into the tables by hand does not keep the service from starting.
    """
    await tables.run(
        "insert into dcm_ws.agent (agent, state) values ('a', '5'), ('ben', '{\"channels\":{\"topics/t\":0}}')"
    )
    await tables.run('insert into dcm_ws.ack (changes) values (\'[]\'), (\'{"ben":{"sent":"x"}}\')')
    node = await start()
    publish(node, 0)
    assert len(node.core.memory) == 1
