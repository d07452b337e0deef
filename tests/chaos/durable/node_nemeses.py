"""
What is done to the nodes of a cluster, and to workers.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from contextlib import suppress

from tests.chaos.durable.agents import AgentClient
from tests.chaos.durable.followers import FollowingClient
from tests.chaos.durable.nemeses import Nemesis, World, freeze_service, kill, kill_service, stop_service
from tests.chaos.durable.service import ServiceProcess
from tests.chaos.durable.ws_writers import WsWriter

FENCED = 9.0
"""
Seconds after which the others may take a node for dead: it says once a second that it is there, and 10 s of silence are
too many (docs/cluster.md).
"""

_BRIEFLY, _LONG = (0.5, 4.0), (11.0, 13.0)


def leader(world: World) -> ServiceProcess | None:
    """
    The node that leads, if there is one.
    """
    for node in world.nodes:
        if ((node.get("stats") or {}).get("log") or {}).get("state") == "up":
            return node
    return None


def desert(world: World, node: ServiceProcess, source: random.Random) -> None:
    """
    Most clients of a node leave it for others: to them it seems dead.
    """
    clients: list[AgentClient | FollowingClient | WsWriter] = [*world.agents, *world.followers, *world.writers]
    for client in clients:
        if client.at == node.name and source.random() < 0.8:
            left = client.drop() if isinstance(client, WsWriter) else client.drop(source.uniform(0, 0.5))
            world.history.counts["did: clients left a node that seemed dead"] += left


def send_observers(world: World, node: ServiceProcess, source: random.Random) -> None:
    """
    Have observers come to a node that has read less of the log than they have.
    """
    world.front.behind = node.name
    for follower in world.followers:
        if source.random() < 0.7:
            world.history.counts["did: observers came to a node that is behind"] += follower.drop(
                source.uniform(0, 0.3)
            )


async def kill_leader(world: World, source: random.Random) -> None:
    """
    Kill the node that leads.
    """
    node = await asyncio.to_thread(leader, world)
    if node is not None:
        await kill(world, node, source.uniform(0, 2.0), "the node that leads")


async def roll(world: World, source: random.Random) -> None:
    """
    Restart one node after the other.
    """
    for node in source.sample(list(world.nodes), len(world.nodes)):
        began = time.monotonic()
        world.front.out.add(node.name)
        await asyncio.to_thread(node.stop)
        await asyncio.to_thread(node.start)
        world.front.out.discard(node.name)
        world.note("stop", f"stop of {world.called}, one after the other", began, node)


async def freeze_for_long(world: World, source: random.Random) -> None:
    """
    A node does not run until the others take it for dead, and a while longer.
    """
    leads = await asyncio.to_thread(leader, world) if source.random() < 0.5 else None
    node = leads or source.choice(world.nodes)
    began = time.monotonic()
    node.freeze()
    await asyncio.sleep(0.5)
    world.front.out.add(node.name)
    desert(world, node, source)
    await asyncio.sleep(source.uniform(*_LONG))
    node.thaw()
    world.front.out.discard(node.name)
    world.note("fenced", "a node frozen until it is fenced", began, node)


def cut(*links: str, seconds: tuple[float, float]) -> Nemesis:
    """
    A node does not reach some others, nor they it.
    """

    async def nemesis(world: World, source: random.Random) -> None:
        node = source.choice(world.nodes)
        if not node.place.own:
            world.history.counts["left out: partitions (no network namespaces could be made)"] += 1
            return
        began = time.monotonic()
        await asyncio.to_thread(node.place.cut, *links)
        if "clients" in links:
            # a load balancer would see it, and so would clients, by their pings
            world.front.out.add(node.name)
            await asyncio.sleep(0.3)
            desert(world, node, source)
        elif "database" in links and len(world.nodes) > 1:
            await asyncio.sleep(0.3)
            send_observers(world, node, source)
        await asyncio.sleep(source.uniform(*seconds))
        await asyncio.to_thread(node.place.repair, *links)
        world.front.behind = ""
        world.front.out.discard(node.name)
        kind = "path"
        if "database" in links:
            kind = "fenced" if time.monotonic() - began > FENCED and len(world.nodes) > 1 else "database"
        world.note(kind, f"{world.called} cut off from {', '.join(links)}", began, node)

    return nemesis


async def kill_nats(world: World, source: random.Random) -> None:
    """
    The NATS server is killed, and started again.
    """
    if world.nats is not None:
        began = time.monotonic()
        world.nats.stop(kill=True)
        await asyncio.sleep(source.choice((0, 0.5, 6.0)))
        await asyncio.to_thread(world.nats.start)
        world.note("path", "kill -9 of NATS", began)


async def freeze_nats(world: World, source: random.Random) -> None:
    """
    The NATS server does not run for a while.
    """
    if world.nats is not None:
        began = time.monotonic()
        world.nats.send_signal(signal.SIGSTOP)
        await asyncio.sleep(source.uniform(0.3, 6.0))
        world.nats.send_signal(signal.SIGCONT)
        world.note("path", "NATS frozen", began)


# workers: which clients are at which of them nobody knows


async def _signal(world: World, source: random.Random, number: signal.Signals) -> tuple[ServiceProcess, int]:
    """
    Send a worker a signal.  0 if none runs.
    """
    node = source.choice(world.nodes)
    workers = await asyncio.to_thread(node.workers)
    worker = source.choice(workers) if workers else 0
    if worker:
        with suppress(ProcessLookupError):
            os.kill(worker, number)
    return node, worker


async def kill_worker(world: World, source: random.Random) -> None:
    """
    The supervisor starts it again.
    """
    began = time.monotonic()
    node, _ = await _signal(world, source, signal.SIGKILL)
    await asyncio.sleep(0.5)
    world.note("service", "kill -9 of a worker", began, node)


async def stop_worker(world: World, source: random.Random) -> None:
    """
    It drains its clients, and another one takes its place.
    """
    began = time.monotonic()
    node, _ = await _signal(world, source, signal.SIGTERM)
    await asyncio.sleep(2.5)
    world.note("stop", "stop of a worker", began, node)


def freeze_worker(*seconds: float) -> Nemesis:
    """
    A worker does not run for a while.
    """

    async def nemesis(world: World, source: random.Random) -> None:
        began = time.monotonic()
        node, worker = await _signal(world, source, signal.SIGSTOP)
        await asyncio.sleep(source.uniform(*seconds))
        if worker:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGCONT)
        is_long = time.monotonic() - began > FENCED
        what = "a worker frozen until it is fenced" if is_long else "a worker frozen"
        world.note("fenced" if is_long else "frozen", what, began, node)

    return nemesis


NODES: tuple[Nemesis, ...] = (
    *(kill_leader, kill_service, stop_service, freeze_service, freeze_for_long, roll),
    *(cut("database", seconds=_BRIEFLY), cut("clients", seconds=_BRIEFLY)),
    cut("database", "nats", "clients", seconds=_LONG),
)
WORKERS: tuple[Nemesis, ...] = (
    *(kill_worker, kill_worker, stop_worker, freeze_worker(*_BRIEFLY), freeze_worker(*_LONG)),
    *(kill_service, stop_service, freeze_service, cut("database", seconds=_BRIEFLY)),
)
NATS: tuple[Nemesis, ...] = (kill_nats, freeze_nats, cut("nats", seconds=_BRIEFLY))
