"""
What is done to the service, its database and its clients, at times and in an order that a seed decides.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

import psycopg2

from tests.chaos.durable.agents import AgentClient
from tests.chaos.durable.connections import LoadBalancer
from tests.chaos.durable.database import Database
from tests.chaos.durable.followers import FollowingClient
from tests.chaos.durable.history import DONE, UNDONE, Call, History, Incident, Restore
from tests.chaos.durable.scribe import Scribe
from tests.chaos.durable.service import ServiceProcess
from tests.chaos.durable.ws_writers import WsWriter
from tests.integration.nats_servers import NatsServer

_KILL = (
    "select application_name from (select pg_terminate_backend(pid), application_name from pg_stat_activity"
    " where backend_type = 'client backend' and pid <> pg_backend_pid() and application_name like %s) as killed"
)
_OLD = 20
"""
Seconds for which a snapshot is held.  In these runs the service writes another slot of the inbox 200 times as often as
otherwise, so this stands for more than an hour.
"""
_LATER = 20_000
_BULK = (
    "select count(dcm_ws.publish('topics/chaos/bulk', 'bulk.written',"
    " jsonb_build_object('publisher', 'bulk', 'number', n, 'padding', ''))) from generate_series(%s, %s) as n"
)
_HEAD = "select coalesce(max(pos), 0) from dcm_ws.log"
_READ_BEYOND = (
    "select count(*), count(*) filter (where (figures ->> 'pos')::bigint > %s) from dcm_ws.node"
    " where not fenced and seen_at > now() - interval '3 seconds'"
)


@dataclass
class World:
    """
    What can be disturbed.

    @ivar nodes: the processes of the service.
    @ivar called: what one of them is called in the report.
    @ivar front: decides to which node clients connect.
    @ivar nats: carries messages between nodes; None if the database does.
    @ivar one: held while something is done that nothing else may disturb.
    @ivar bulk: events of a large transaction.
    @ivar patience: seconds after which what does not come true will not.
    @ivar backed_up: and C{dumped}: when that began; None if there is no backup.
    @ivar head_backed_up: the backup has no event behind this position.
    @ivar held: what goes on in the background: those who keep transactions open, and agents that come back in vain.
    """

    nodes: Sequence[ServiceProcess]
    called: str
    front: LoadBalancer
    nats: NatsServer | None
    database: Database
    scribe: Scribe
    history: History
    agents: Sequence[AgentClient]
    followers: Sequence[FollowingClient]
    writers: Sequence[WsWriter]
    bulk: int
    patience: float
    one: asyncio.Lock = field(default_factory=asyncio.Lock)
    backed_up: float | None = None
    head_backed_up: int = 0
    dumped: float | None = None
    published_in_bulk: int = 0
    held: list[asyncio.Task[None]] = field(default_factory=list)

    def note(self, kind: str, what: str, began: float, node: ServiceProcess | None = None) -> None:
        """
        Something was done from C{began} until now, to one node or to all.
        """
        name = None if node is None else node.name
        self.history.incidents.append(Incident(kind, what, began, time.monotonic(), name))
        self.history.counts[f"did: {what}"] += 1


Nemesis = Callable[[World, random.Random], Awaitable[None]]


async def live(
    name: str, deck: Sequence[Nemesis], world: World, seed: int, until: float, pause: float, *, beside: bool = False
) -> None:
    """
    Do all of C{deck} in random order, and then again, with a random pause after each.

    @param pause: seconds, on average.
    @param beside: while anything else is done, too.
    """
    source = random.Random(f"{seed} {name}")
    one = asyncio.Lock() if beside else world.one
    while True:
        for nemesis in source.sample(list(deck), len(deck)):
            await asyncio.sleep(source.uniform(0.3, 1.7) * pause)
            if time.monotonic() > until:
                return
            async with one:
                await nemesis(world, source)


# the service


async def kill(world: World, node: ServiceProcess, pause: float, what: str) -> None:
    """
    End a process without warning, and start it again.
    """
    began = time.monotonic()
    node.kill()
    await asyncio.sleep(pause)
    await asyncio.to_thread(node.start)
    world.note("service", f"kill -9 of {what}", began, node)


async def kill_service(world: World, source: random.Random) -> None:
    """
    End a process of the service without warning, and start it again.
    """
    await kill(world, source.choice(world.nodes), source.choice((0, 0, 1.0)), world.called)


async def stop_service(world: World, source: random.Random) -> None:
    """
    Stop a process of the service, and start it again.
    """
    began, node = time.monotonic(), source.choice(world.nodes)
    await asyncio.to_thread(node.stop)
    await asyncio.sleep(source.choice((0, 0, 1.0)))
    await asyncio.to_thread(node.start)
    world.note("stop", f"stop of {world.called}", began, node)


async def freeze_service(world: World, source: random.Random) -> None:
    """
    A process of the service does not run for a while.
    """
    began, node = time.monotonic(), source.choice(world.nodes)
    node.freeze()
    await asyncio.sleep(source.uniform(0.3, 4.0))
    node.thaw()
    world.note("frozen", f"{world.called} frozen", began, node)


async def kill_service_without_database(world: World, source: random.Random) -> None:
    """
    A process of the service is killed and started again while the database is down.
    """
    began, node = time.monotonic(), source.choice(world.nodes)
    await asyncio.to_thread(world.database.stop, "immediate")
    await asyncio.sleep(source.uniform(0, 1.5))
    node.kill()
    world.note("service", f"kill -9 of {world.called} while the database is down", began, node)
    starting = asyncio.create_task(asyncio.to_thread(node.start))
    await asyncio.sleep(source.uniform(0.5, 1.5))
    await asyncio.to_thread(world.database.start)
    await starting
    world.note("database", "the database stopped (immediate) meanwhile", began)


# the database


def stop_database(mode: str) -> Nemesis:
    """
    Stop PostgreSQL, and start it again.
    """

    async def nemesis(world: World, source: random.Random) -> None:
        began = time.monotonic()
        await asyncio.to_thread(world.database.stop, mode)
        await asyncio.sleep(source.choice((0, 0.3, 2.0)))
        await asyncio.to_thread(world.database.start)
        world.note("database", f"stop of the database ({mode})", began)

    return nemesis


def kill_connections(names: str) -> Nemesis:
    """
    End the connections of some applications.
    """

    async def nemesis(world: World, source: random.Random) -> None:
        began = time.monotonic()
        for _ in range(source.choice((1, 1, 3))):
            rows = await asyncio.to_thread(world.database.execute, _KILL, names)
            world.history.counts["did: connections to the database ended"] += len(rows)
            await asyncio.sleep(source.uniform(0, 0.5))
        world.note("database", f"connections {names} ended", began)

    return nemesis


async def large_transaction(world: World, source: random.Random) -> None:
    """
    A transaction of very many events.  In a long run only the first ones are that large: the clients of the run need
    much longer for all of them than the service does.
    """
    few = world.published_in_bulk < 2 * world.bulk
    await publish_in_bulk(world, world.bulk if few else min(world.bulk, _LATER))


async def publish_in_bulk(world: World, events: int) -> None:
    """
    Publish so many events in one transaction.
    """
    began = time.monotonic()
    first, last = world.published_in_bulk + 1, world.published_in_bulk + events
    world.published_in_bulk = last

    def publish() -> str:
        try:
            world.database.execute(_BULK, first, last)
        except psycopg2.Error:
            return UNDONE
        return DONE

    outcome = await asyncio.to_thread(publish)
    ended = time.monotonic()
    for number in range(first, last + 1):
        call = Call("bulk", number, "sql", "bulk", "topics/chaos/bulk", "bulk.written", began, None, ended, outcome)
        world.history.calls.append(call)
    # it takes a while to number them, and others wait meanwhile
    world.note("frozen", f"a transaction of {events} events", began)


def hold(world: World, seconds: float, *statements: str) -> None:
    """
    Keep a transaction open in the background, and end it.
    """

    def run() -> None:
        try:
            connection = psycopg2.connect(world.database.url, application_name="chaos holder")
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            time.sleep(seconds)
            connection.commit()
            connection.close()
        except psycopg2.Error:
            world.history.counts["transactions held open that were cut"] += 1

    world.held.append(asyncio.create_task(asyncio.to_thread(run)))


async def old_snapshot(world: World, source: random.Random) -> None:
    """
    A transaction keeps its snapshot, and another one its number, for a long time.
    """
    hold(world, _OLD, "begin isolation level repeatable read", "select count(*) from dcm_ws.log")
    hold(world, 12, "begin", "select pg_current_xact_id()")
    world.note("other", "an old snapshot", time.monotonic())


async def prepared_transaction(world: World, source: random.Random) -> None:
    """
    A prepared transaction is left behind, and committed by the next one.
    """

    def prepare() -> None:
        try:
            for (gid,) in world.database.execute("select gid from pg_prepared_xacts"):
                world.database.execute(f"commit prepared '{gid}'")
            connection = psycopg2.connect(world.database.url, application_name="chaos holder")
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute("begin")
            cursor.execute("insert into chaos_prepared values (1)")
            cursor.execute(f"prepare transaction 'chaos {time.monotonic()}'")
            connection.close()
        except psycopg2.Error:
            world.history.counts["transactions that could not be prepared"] += 1

    await asyncio.to_thread(prepare)
    world.note("other", "a prepared transaction", time.monotonic())


async def fill_disk(world: World, source: random.Random) -> None:
    """
    The disk of the database is full for a while.
    """
    if not world.database.is_small:
        world.history.counts["left out: full disk (no file system could be mounted)"] += 1
        return
    began = time.monotonic()
    await asyncio.to_thread(world.database.fill)
    await asyncio.sleep(source.uniform(1.0, 2.5))
    await asyncio.to_thread(world.database.empty)
    await asyncio.to_thread(world.database.recover)
    world.note("database", "a full disk", began)


async def _all_read_beyond(world: World, head: int) -> bool:
    """
    Wait until each process has read something that the backup does not have.  One that has not cannot know that the
    database was restored (docs/log.md).

    @return: False if that takes too long.
    """
    workers = [await asyncio.to_thread(node.workers) for node in world.nodes]
    expected = sum(max(1, len(pids)) for pids in workers)
    for _ in range(150):
        rows = await asyncio.to_thread(world.database.execute, _READ_BEYOND, head)
        if rows == [(expected, expected)]:
            return True
        await asyncio.sleep(0.1)
    return False


async def back_up(world: World, source: random.Random) -> None:
    """
    Make a copy of the stopped server, and a dump.
    """
    began = time.monotonic()
    world.backed_up = began
    await asyncio.to_thread(world.database.back_up)
    ((world.head_backed_up,),) = await asyncio.to_thread(
        world.database.execute, "select coalesce(max(pos), 0) from dcm_ws.log"
    )
    world.dumped = time.monotonic()
    await asyncio.to_thread(world.database.dump)
    world.note("database", "a backup", began)


def restore(kind: str) -> Nemesis:
    """
    Replace the database by what it was at the last backup.

    @param kind: C{copy}: while the service runs, which has to notice it; C{stopped}: while it is stopped, and an
        operator says so; C{dump}: by another server.
    """

    async def nemesis(world: World, source: random.Random) -> None:
        if world.backed_up is None or world.dumped is None:
            await back_up(world, source)
            await asyncio.sleep(2)
        assert world.backed_up is not None and world.dumped is not None
        if kind == "copy" and world.history.is_cluster and not await _all_read_beyond(world, world.head_backed_up):
            world.history.counts["did: no restore, for a node had not read enough to notice it"] += 1
            return
        database, began = world.database, time.monotonic()
        known = set(world.history.log)
        if kind == "stopped":
            await of_all(world, ServiceProcess.stop)
        await asyncio.to_thread(database.stop, "fast")
        aside = await asyncio.to_thread(database.start_aside)
        await asyncio.to_thread(world.scribe.copy, aside)
        await asyncio.to_thread(database.stop, "fast")
        await asyncio.to_thread(database.restore_dump if kind == "dump" else database.restore_copy)
        await asyncio.to_thread(database.start)
        if kind == "stopped":
            await asyncio.to_thread(database.execute, "select dcm_ws.new_epoch()")
            await of_all(world, ServiceProcess.start)
        await _epoch_renewed(world, known)
        backed_up = world.dumped if kind == "dump" else world.backed_up
        world.history.restores.append(Restore(backed_up, began, time.monotonic()))
        world.note("database", f"restore of a backup ({kind})", began)

    return nemesis


async def of_all(world: World, act: Callable[[ServiceProcess], None]) -> None:
    """
    Do something to all processes of the service at the same time.
    """
    async with asyncio.TaskGroup() as acting:
        for node in world.nodes:
            acting.create_task(asyncio.to_thread(act, node))


def is_up(world: World, known: Collection[str] = ()) -> bool:
    """
    Does each process of the service have a log, of another epoch than those that are known, and does one number it?
    """
    logs = [(node.get("stats") or {}).get("log", {}) for node in world.nodes]
    states = [log.get("state") for log in logs if log.get("epoch") not in known]
    return len(states) == len(logs) and "up" in states and {*states} <= {"up", "following"}


async def _epoch_renewed(world: World, known: set[str]) -> None:
    """
    Wait until the service says that the log is another one.  That takes seconds, and a minute on a busy machine.
    """
    for _ in range(600):
        if await asyncio.to_thread(is_up, world, known):
            return
        await asyncio.sleep(0.2)
    world.history.wrongs.append("the service did not notice that the database was restored")


SERVICE: tuple[Nemesis, ...] = (
    kill_service, kill_service, stop_service, freeze_service, kill_service_without_database,
)  # fmt: skip
DATABASE: tuple[Nemesis, ...] = (
    kill_connections("dcm-ws%"), kill_connections("%"), stop_database("fast"), stop_database("immediate"),
    old_snapshot, prepared_transaction, large_transaction, fill_disk,
)  # fmt: skip
RESTORES: tuple[Nemesis, ...] = (restore("copy"), restore("stopped"), restore("dump"))


# clients


async def trouble_clients(world: World, seed: int, until: float) -> None:
    """
    Reset the connections of clients, let agents leave, and let some leave their connections half open.
    """
    source = random.Random(f"{seed} clients")
    counts = world.history.counts
    while time.monotonic() < until:
        await asyncio.sleep(source.uniform(0.05, 0.8))
        match source.randrange(12):
            case 0:
                clients: list[AgentClient | FollowingClient] = [*world.agents, *world.followers]
                for client in clients:
                    counts["did: clients reset, all at once"] += client.drop(source.uniform(0, 2))
            case 1:
                agent, chance = source.choice(world.agents), random.Random(source.random())
                world.held.append(asyncio.create_task(_come_back_in_vain(world, agent, chance, until)))
            case 2 | 3:
                agent = source.choice(world.agents)
                counts["did: agents left"] += await agent.leave(source.uniform(0, agent.habits.away_most))
            case 4 | 5:
                counts["did: publishers reset"] += source.choice(world.writers).drop()
            case 6 | 7 | 8:
                follower = source.choice(world.followers)
                counts["did: followers reset"] += follower.drop(source.choice((0, 0.2, 1, 3, 6)))
            case 9:
                hanging = [agent for agent in world.agents if agent.habits.several]
                counts["did: agents hung"] += source.choice(hanging).hang()
            case _:
                agent = source.choice(world.agents)
                counts["did: agents reset"] += agent.drop(source.uniform(0, agent.habits.away_most))


async def _come_back_in_vain(world: World, agent: AgentClient, source: random.Random, until: float) -> None:
    """
    Let an agent miss something, and reset its next connections while it is sent that.
    """
    agent.drop(source.uniform(0.5, 2))
    for _ in range(source.randrange(3, 8)):
        for _ in range(300):
            if agent.is_connected:
                break
            if time.monotonic() > until:
                return
            await asyncio.sleep(0.01)
        await asyncio.sleep(source.uniform(0, 0.03))
        world.history.counts["did: agents reset while they come back"] += agent.drop(source.uniform(0, 0.05))
