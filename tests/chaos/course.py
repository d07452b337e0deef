"""
One run: everybody starts, is disturbed for a while, and is then waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from tests.chaos.disturbances import ConnectionTrouble, DatabaseTrouble
from tests.chaos.publishers import ClientPublisher, DatabasePublisher
from tests.chaos.readers import Reader
from tests.chaos.records import Records
from tests.chaos.subscribers import Agent, Witness
from tests.integration.databases import PostgresServer, postgres
from tests.integration.running import Service

TOPICS = tuple(f"topics/chaos/{name}" for name in "abcd")
QUIET_WITHIN = 40.0
"""
Seconds for what is pending to be delivered, once all are back.
"""

_RATE = 25.0


def disturbed(seconds: float, seed: int) -> Records:
    """
    Run for so many seconds, and answer what happened.
    """
    records = Records()
    with postgres() as server:
        service = Service("--database-url", server.url)
        try:
            asyncio.run(_course(service, server, seconds, seed, records))
        finally:
            status = service.stop()
    if status != 0:
        records.wrongs.append(f"the service ended with status {status}")
    records.wrongs += [
        f"the service logged: {line}" for line in service.log.splitlines() if "Traceback" in line or "Unhandled" in line
    ]
    return records


async def _course(service: Service, server: PostgresServer, seconds: float, seed: int, records: Records) -> None:
    port = service.port
    agents = [
        Agent("agent-a", TOPICS, port, records, by_token=True),
        Agent("agent-b", TOPICS, port, records, by_token=False),
        Agent("agent-c", TOPICS[:2], port, records, by_token=True),
        Agent("agent-d", (*TOPICS[1:], "global"), port, records, by_token=True),
        Agent("agent-e", ("global",), port, records, by_token=False),
        Agent("agent-f", (TOPICS[3], "global"), port, records, by_token=False),
    ]
    several = [
        Agent("agent-g", (*TOPICS[:3], "global"), port, records, by_token=by_token, is_one_of_several=True)
        for by_token in (True, False)
    ] + [Agent("agent-h", TOPICS, port, records, by_token=True, is_one_of_several=True)]
    readers = [
        Reader("reader-a", TOPICS, port, records),
        Reader("reader-b", ("global",), port, records),
        Reader("reader-c", TOPICS[1:3], port, records),
    ]
    # metrics, so that the service has its other connection to the database, too
    witness = Witness("witness", (*TOPICS, "global", "metrics"), port, records, by_token=True)
    clients = [ClientPublisher(f"client-{name}", TOPICS, _RATE, seed, records, port=port) for name in "abc"]
    databases = [
        DatabasePublisher(f"database-{name}", TOPICS, _RATE / 2, seed, records, url=server.url) for name in "ab"
    ]
    async with asyncio.TaskGroup() as listening:
        everybody: tuple[Agent | Reader, ...] = (*agents, *several, *readers, witness)
        for each in everybody:
            listening.create_task(each.live())
        await _all_here(everybody)
        until = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as acting:
            actors: list[ClientPublisher | DatabasePublisher | DatabaseTrouble | ConnectionTrouble] = [
                *clients,
                *databases,
                DatabaseTrouble(seed, server, records),
                ConnectionTrouble(seed, (*agents, *several), readers, clients, records),
            ]
            for actor in actors:
                acting.create_task(actor.live(until))
        await _quiet(service, everybody, records)
        for each in everybody:
            await each.stop()
    await _left_clean(service, records)


async def _all_here(everybody: Sequence[Agent | Reader]) -> None:
    async with asyncio.timeout(20):
        for each in everybody:
            await each.here.wait()


async def _quiet(service: Service, everybody: Sequence[Agent | Reader], records: Records) -> None:
    """
    Wait until all are back, nothing is pending, and the database is listened to.
    """
    await _all_here(everybody)
    last: dict[str, Any] = {}

    def quiet() -> bool:
        health, stats = service.health(), service.stats()
        last.update(health=health, stats=stats)
        left = (
            health["database"]["waiting"],
            stats["pendingDeliveries"],
            stats["deliveries"]["keptForAbsentAgents"],
        )
        return health["database"]["state"] == "up" and not any(left)

    if not await _comes_true(quiet, QUIET_WITHIN):
        records.wrongs.append(f"it did not become quiet: {last}")
    if last["stats"]["failedDeliveries"]:
        records.wrongs.append(f"{last['stats']['failedDeliveries']} deliveries were given up")


async def _left_clean(service: Service, records: Records) -> None:
    last: dict[str, Any] = {}

    def nothing_left() -> bool:
        last.update(service.stats())
        return not any(last[name] for name in ("connectedClients", "activeChannels", "pendingDeliveries"))

    if not await _comes_true(nothing_left, 5):
        records.wrongs.append(f"all have left, and something stayed: {last}")


async def _comes_true(condition: Any, seconds: float) -> bool:
    """
    Does it come true within so many seconds, and stay so?
    """
    end, times = time.monotonic() + seconds, 0
    while times < 3:
        times = times + 1 if await asyncio.to_thread(condition) else 0
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.2)
    return True
