"""
One run: everybody starts, is disturbed for a while, and is then waited for.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

from tests.chaos.durable import nemeses, node_nemeses
from tests.chaos.durable.agent_judge import told_of
from tests.chaos.durable.agents import AgentClient, Habits
from tests.chaos.durable.connections import LoadBalancer
from tests.chaos.durable.database import Database, database
from tests.chaos.durable.followers import FollowingClient
from tests.chaos.durable.history import DONE, NEVER, Call, History, Receipt, padding
from tests.chaos.durable.installation import Shape, installed, log_of
from tests.chaos.durable.nemeses import Nemesis, World, is_up, of_all
from tests.chaos.durable.networks import ADMITTED, is_isolated
from tests.chaos.durable.scribe import Scribe
from tests.chaos.durable.service import CAME_BACK, UNANSWERED, ServiceProcess
from tests.chaos.durable.sql_writers import SETUP, SqlWriters
from tests.chaos.durable.ws_writers import WsWriter
from tests.integration.machine import ROOT
from tests.integration.nats_servers import NatsServer

TOPICS = tuple(f"topics/chaos/{name}" for name in "abcd")
PRIVATE = ("agents/agent-a", "agents/agent-c", "sessions/chaos")
BULK = "topics/chaos/bulk"
CHANNELS = (*TOPICS, *TOPICS, *PRIVATE, "global")
ELSEWHERE = "elsewhere"
"""
Not the name of a channel: the database may publish there, and that is global.
"""
OPTIONS = (
    *("--log", "postgres", "--ack-timeout", "2", "--heartbeat-interval", "2", "--heartbeat-timeout", "10"),
    *("--max-attempts", "3"),
)
TURN = 3.0
"""
Seconds after which the service writes another slot of the inbox.
"""

_ALONE = Shape()
_AT_THE_END = 5_000
_BURST = 12_000
"""
More notifications than the service takes before it lets the connection wait.
"""
_NOTIFY = (
    "select count(pg_notify('dcm_events', json_build_object('channel', 'topics/chaos/bulk', 'event', 'burst.notified',"
    " 'data', json_build_object('publisher', 'burst', 'number', n, 'padding', ''))::text))"
    " from generate_series(%s, %s) as n"
)
_NOTIFY_SECONDS = 0.5
_WARM_UP = 2.5
_LONG = 240
"""
Seconds from which on a run has the largest transactions.
"""


def disturbed(
    seconds: float,
    seed: int,
    *,
    bug: str = "",
    restores: bool = True,
    keep: float | None = None,
    patience: float = 60.0,
    shape: Shape = _ALONE,
) -> tuple[History, str]:
    """
    Run for so many seconds.

    @param bug: is planted into the service; empty for none.
    @param restores: restore backups, too.
    @param keep: the log keeps events for so many seconds, and only clients are disturbed; None for a day.
    @param patience: seconds after which what does not come true will not.
    @param shape: of the service.
    @return: what happened, and the log of the service.
    """
    if seconds >= _LONG:
        patience *= 10
    # a slot of the inbox is emptied before the third turn after its last event
    history = History(key_seconds=2 * TURN - 1, is_cluster=shape.is_cluster)
    admitted = ADMITTED if shape.is_cluster and is_isolated() else ""
    with (
        database(8000 if seconds >= _LONG else 600, admitted) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        program = Path(sys.executable).with_name("dcm-ws")
        subprocess.run(
            [program, "init-db", "--apply", "--database-url", server.url],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
        )
        server.execute(SETUP)
        options = OPTIONS if keep is None else (*OPTIONS, "--log-keep", str(keep))
        with installed(shape, Path(folder), server.url, *options, turn=TURN, bug=bug) as (nodes, nats):
            course = _Course(nodes, nats, server, seconds, seed, history, restores, keep is not None, patience)
            asyncio.run(course.run())
            statuses = {node.name: node.statuses for node in nodes}
            history.unanswered = [one for node in nodes for one in node.moments(UNANSWERED)]
            history.came_back = [one for node in nodes for one in node.moments(CAME_BACK)]
            log = log_of(nodes)
    history.counts["agents taken without an answer of their node"] = len(history.unanswered)
    history.counts["agents taken back of which connections had stayed"] = len(history.came_back)
    for name, ended in statuses.items():
        if any(ended):
            history.wrongs.append(f"{name} ended with {ended}")
    history.wrongs += [f"the service logged: {line}" for line in log.splitlines() if _is_bad(line)]
    return history, log


def _is_bad(line: str) -> bool:
    return "Traceback" in line or "Unhandled" in line


def _followers(front: LoadBalancer, history: History) -> list[FollowingClient]:
    return [
        FollowingClient("follower-a", TOPICS, front, history),
        FollowingClient("follower-b", ("global",), front, history, by_auth=True),
        FollowingClient("follower-c", ("global",), front, history, slow=True),
        FollowingClient("follower-d", (TOPICS[0], *PRIVATE), front, history, by_auth=True, trusts_pings=False),
        FollowingClient("follower-e", (BULK, TOPICS[1]), front, history),
    ]


def _agents(front: LoadBalancer, history: History) -> list[AgentClient]:
    both = (TOPICS[0], TOPICS[1], "global")
    lazy = Habits(unanswered=0.05, never=0.003)
    several = Habits(several=True)
    return [
        AgentClient("agent-a", TOPICS, front, history),
        AgentClient("agent-b", both, front, history, lazy),
        AgentClient("agent-c", TOPICS[:1], front, history, Habits(session="chaos", away_most=8.0)),
        AgentClient("agent-d", TOPICS[:2], front, history, Habits(cumulative=True)),
        AgentClient("agent-e", TOPICS[2:], front, history, Habits(refuses=0.05, unanswered=0.02)),
        AgentClient("agent-f", TOPICS, front, history, several),
        AgentClient("agent-f", TOPICS, front, history, several),
        AgentClient("agent-g", both, front, history, Habits(slow=0.3)),
        AgentClient("agent-h", TOPICS[1:], front, history, several),
    ]


@dataclass(slots=True)
class _Course:
    """
    One run.
    """

    nodes: Sequence[ServiceProcess]
    nats: NatsServer | None
    server: Database
    seconds: float
    seed: int
    history: History
    restores: bool
    is_calm: bool
    patience: float

    async def run(self) -> None:
        """
        Start the service, disturb it, wait for everybody, and stop the service.
        """
        history, server, seed = self.history, self.server, self.seed
        front = LoadBalancer([node.address for node in self.nodes], seed)
        followers, agents = _followers(front, history), _agents(front, history)
        clients: list[FollowingClient | AgentClient] = [*followers, *agents]
        writers = [
            WsWriter(f"client-{name}", CHANNELS, front, history, seed=seed, keyed=keyed, rate=15)
            for name, keyed in (("a", False), ("b", True), ("c", True))
        ]
        scribe = Scribe(server.url, history)
        bulk = 200_000 if self.seconds >= _LONG else 5_000 if history.is_cluster else 20_000
        called = "a node" if len(self.nodes) > 1 else "the service"
        world = World(
            *(self.nodes, called, front, self.nats, server, scribe, history),
            *(agents, followers, writers, bulk, self.patience),
        )
        await of_all(world, ServiceProcess.start)
        await _come(world, "the log is there", lambda: is_up(world))
        async with asyncio.TaskGroup() as listening:
            for each in clients:
                listening.create_task(each.live())
            listening.create_task(scribe.live())
            await _come(world, "all are connected", lambda: all(each.here.is_set() for each in clients))
            began = time.monotonic()
            until = began + self.seconds
            sql = SqlWriters(
                server.url, (*CHANNELS, ELSEWHERE), until=until, seed=seed, processes=2, sessions=3, rate=5
            )
            async with asyncio.TaskGroup() as acting:
                for writer in writers:
                    acting.create_task(writer.live(until))
                # what agents are subscribed to is in the database after a second
                await asyncio.sleep(_WARM_UP)
                acting.create_task(nemeses.trouble_clients(world, seed, until))
                for name, deck, pause in self._decks():
                    beside = deck is node_nemeses.NATS
                    acting.create_task(nemeses.live(name, deck, world, seed, until, pause, beside=beside))
            calls, wrongs = await asyncio.to_thread(sql.finish)
            history.calls += calls
            history.wrongs += wrongs
            await _settle(world)
            scribe.stop()
            for each in clients:
                await each.stop()
            for held in world.held:
                await held
        history.incidents.sort(key=lambda one: one.began)
        history.counts["seconds"] = round(time.monotonic() - began)
        await of_all(world, ServiceProcess.stop)

    def _decks(self) -> Iterator[tuple[str, Sequence[Nemesis], float]]:
        """
        Names of decks, what is in them, and seconds between two of it.
        """
        if self.is_calm:
            return
        if self.history.is_cluster:
            deck = node_nemeses.NODES if len(self.nodes) > 1 else node_nemeses.WORKERS
            yield "service", deck, 1.0
            yield "database", nemeses.DATABASE, 5.0
        else:
            yield "service", nemeses.SERVICE, 5.0
            yield "database", nemeses.DATABASE, 3.0
        if self.nats is not None:
            yield "nats", node_nemeses.NATS, 6.0
        if self.restores:
            yield "restores", nemeses.RESTORES, self.seconds / 4


async def _settle(world: World) -> None:
    """
    Wait until everybody has everything, and have the dead letters redriven.
    """
    history, server = world.history, world.database
    clients: list[FollowingClient | AgentClient] = [*world.followers, *world.agents]
    await _come(world, "all are connected again", lambda: all(each.here.is_set() for each in clients))
    await _marked(world)
    never = {
        (agent.name, event_id)
        for agent in history.agents.values()
        for event_id, times in agent.left_unanswered.items()
        if times >= NEVER
    }
    restored = history.restores[-1].ended if history.restores else 0.0
    recent = {
        (agent.name, receipt.id)
        for agent in history.agents.values()
        for receipt in agent.receipts
        if receipt.at > restored and (agent.name, receipt.id) in never and not told_of(agent, receipt)
    }

    def buried() -> bool:
        history.buried = set(server.execute("select agent, event_id from dcm_ws.dead"))
        return recent <= history.buried

    await _come(world, "what is never acknowledged becomes a dead letter", buried)
    await _come(world, "nothing is owed but dead letters", lambda: _owed(world) == 0, lambda: _loads(world))
    for agent in world.agents:
        agent.obedient = True
    history.redriven_at = time.monotonic()
    await asyncio.to_thread(server.execute, "select dcm_ws.redrive(null, null, null, 1000000)")
    await _come(
        world, "the dead letters that are redriven are acknowledged",
        lambda: not server.execute("select from dcm_ws.dead") and _owed(world) == 0, lambda: _loads(world),
    )  # fmt: skip
    # more than one page of the log
    await nemeses.publish_in_bulk(world, _AT_THE_END)
    await _notify(world)
    # acks and numbering are a second behind
    await asyncio.sleep(1.5)
    await asyncio.to_thread(world.scribe.copy, server.url, all_of_it=True)


async def _marked(world: World) -> None:
    """
    Publish a last event on every channel, and wait until everybody has it.
    """
    marks = await asyncio.to_thread(_mark, world.database, world.history)

    def there() -> bool:
        ours = [
            mark in {step[7:9] for step in follower.following.steps[-50:] if isinstance(step, Receipt)}
            for follower in world.followers
            for channel, mark in marks.items()
            if channel in follower.following.channels
        ]
        theirs = [
            mark in {receipt[7:9] for receipt in agent.mine.receipts[-2000:]}
            for agent in world.agents
            for channel, mark in marks.items()
            if channel in agent.mine.since
        ]
        return all(ours) and all(theirs)

    await _come(world, "everybody has the last event of every channel", there)


async def _notify(world: World) -> None:
    """
    NOTIFY very much at once, and then something more until it is heard: nothing is disturbed any more, so the service
    must hear it.  What waits for more than a second is not logged.
    """
    reader = world.followers[-1].following
    # several nodes on one machine may be too slow to log as many within a second
    burst = _BURST // 4 if world.history.is_cluster else _BURST

    sent = 0

    def notify(upto: int) -> None:
        nonlocal sent
        began, first, sent = time.monotonic(), sent + 1, upto
        world.database.execute(_NOTIFY, first, upto)
        ended = time.monotonic()
        world.history.calls += [
            Call("burst", number, "notify", "burst", BULK, "burst.notified", began, None, ended, DONE)
            for number in range(first, upto + 1)
        ]

    await asyncio.to_thread(notify, burst)

    def heard() -> bool:
        notify(sent + 1)
        time.sleep(_NOTIFY_SECONDS)
        last = reader.steps[-1]
        return isinstance(last, Receipt) and last.publisher == "burst" and last.number > burst

    await _come(world, "a NOTIFY is heard after very many", heard)
    await _marked(world)


def _owed(world: World) -> int:
    owed = 0
    for node in world.nodes:
        stats = node.get("stats")
        if stats is None:
            return -1
        owed += stats["pendingDeliveries"] + stats["deliveries"]["keptForAbsentAgents"]
    return owed


def _loads(world: World) -> str:
    """
    Of which agents the nodes have something that is owed.
    """
    return "; ".join(f"{node.name} {(node.get('stats') or {}).get('agentLoads')}" for node in world.nodes)


def _mark(server: Database, history: History) -> dict[str, Any]:
    """
    Publish a last event on every channel.
    """
    marks: dict[str, Any] = {}
    first = 1 + sum(call.publisher == "mark" for call in history.calls)
    for number, channel in enumerate(dict.fromkeys((*CHANNELS, BULK)), start=first):
        call = Call("mark", number, "sql", "mark", channel, "task.created", time.monotonic())
        data = f'{{"publisher":"mark","number":{number},"padding":"{padding(number)}"}}'
        ((call.id,),) = server.execute("select dcm_ws.publish(%s, %s, %s::text)", channel, call.event, data)
        call.ended, call.outcome = time.monotonic(), DONE
        history.calls.append(call)
        marks[channel] = call.name
    return marks


async def _come(
    world: World, what: str, condition: Callable[[], bool], details: Callable[[], str] = lambda: ""
) -> None:
    """
    Wait until something is true; write down if it does not become true, with some details.
    """
    end = time.monotonic() + world.patience
    while True:
        try:
            if await asyncio.to_thread(condition):
                return
        except psycopg2.Error:
            pass
        if time.monotonic() > end:
            more = await asyncio.to_thread(details)
            world.history.wrongs.append(f"it did not come true that {what}{more and ': '}{more}")
            return
        await asyncio.sleep(0.1)
