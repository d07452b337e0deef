"""
What is done to the service and its clients, at times and in an order that a seed decides.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

from tests.chaos.publishers import ClientPublisher
from tests.chaos.readers import Reader
from tests.chaos.records import Records
from tests.chaos.subscribers import Agent
from tests.integration.databases import PostgresServer

_AWAY_MOST = 3.0
_DOWN_MOST = 2.0


class DatabaseTrouble:
    """
    Kills connections to PostgreSQL, and PostgreSQL.
    """

    def __init__(self, seed: int, server: PostgresServer, records: Records) -> None:
        self._random = random.Random(f"{seed} database")
        self._server = server
        self._records = records

    async def live(self, until: float) -> None:
        """
        Disturb until a moment in the event loop's time; PostgreSQL runs afterwards.
        """
        now = asyncio.get_running_loop().time
        step = self._random.uniform(0.3, 1.5)
        while now() + step < until:
            await asyncio.sleep(step)
            match self._random.choice(("service", "service", "everybody", "fast", "immediate")):
                case "service":
                    await self._kill("dcm-ws%")
                case "everybody":
                    await self._kill("%")
                case mode:
                    await self._stop(mode)
            # the service takes its time to come back where a connection did not last for 5 s
            if self._random.random() < 0.75:
                await self._listened_to()
                step = self._random.uniform(5.5, 8.0)
            else:
                step = self._random.uniform(0.1, 2.0)

    async def _listened_to(self) -> None:
        """
        Wait until the service says that the database is up, but not indefinitely: the ledger reports that.
        """
        cut, patience = self._records.cuts[-1:], 150
        while cut and patience and not any(up and at > cut[0] for at, up in self._records.database[-1:]):
            await asyncio.sleep(0.1)
            patience -= 1

    async def _kill(self, names: str) -> None:
        began = time.time()
        rows = await asyncio.to_thread(
            self._server.execute,
            "select application_name, pg_terminate_backend(pid) from pg_stat_activity"
            " where backend_type = 'client backend' and pid <> pg_backend_pid() and application_name like %s",
            names,
        )
        if any(name == "dcm-ws listen" for name, _ in rows):
            self._records.cuts.append(began)
        self._records.disturbances["database connections killed"] += len(rows)

    async def _stop(self, mode: str) -> None:
        self._records.cuts.append(time.time())
        await asyncio.to_thread(self._server.stop, mode)
        await asyncio.sleep(self._random.uniform(0, _DOWN_MOST))
        # it was down, whatever the service had to say of it before
        self._records.cuts.append(time.time())
        await asyncio.to_thread(self._server.start)
        self._records.disturbances[f"database stopped ({mode}) and started"] += 1


class ConnectionTrouble:
    """
    Resets the connections of agents, of readers and of publishers, and has agents leave connections half open.
    """

    def __init__(
        self,
        seed: int,
        agents: Sequence[Agent],
        readers: Sequence[Reader],
        publishers: Sequence[ClientPublisher],
        records: Records,
    ) -> None:
        self._random = random.Random(f"{seed} connections")
        self._agents = agents
        self._readers = readers
        self._publishers = publishers
        self._records = records

    async def live(self, until: float) -> None:
        """
        Disturb until a moment in the event loop's time.
        """
        now = asyncio.get_running_loop().time
        step = self._random.uniform(0.1, 1.0)
        while now() + step < until:
            await asyncio.sleep(step)
            match self._random.randrange(14):
                case 0:
                    await self._agents_all_at_once()
                case 1:
                    await self._agent_again_and_again()
                case 2 | 3:
                    await self._agent_leaves()
                case 4 | 5:
                    publisher = self._random.choice(self._publishers)
                    self._count("publishers reset", publisher.drop())
                case 6 | 7:
                    reader = self._random.choice(self._readers)
                    self._count("readers reset", reader.drop(self._away()))
                case 8:
                    agent = self._random.choice([one for one in self._agents if one.name in self._records.several])
                    self._count("agents hung", agent.hang())
                case _:
                    agent = self._random.choice(self._agents)
                    self._count("agents reset", agent.drop(self._away()))
            step = self._random.uniform(0.05, 1.0)

    async def _agents_all_at_once(self) -> None:
        for agent in self._agents:
            self._count("agents reset, all at once", agent.drop(self._away()))

    async def _agent_again_and_again(self) -> None:
        agent = self._random.choice(self._agents)
        for _ in range(self._random.randrange(3, 8)):
            self._count("agents reset in the middle of coming back", agent.drop(self._random.uniform(0, 0.05)))
            await asyncio.sleep(self._random.uniform(0, 0.15))

    async def _agent_leaves(self) -> None:
        agent = self._random.choice(self._agents)
        self._count("agents left", await agent.leave(self._away()))

    def _away(self) -> float:
        return self._random.uniform(0, _AWAY_MOST)

    def _count(self, what: str, done: bool) -> None:
        self._records.disturbances[what] += done
