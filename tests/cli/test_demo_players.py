"""
The agents of dcm-ws demo, at a service.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing

import pytest

from dcm_ws.cli.demo import Plan, _play
from dcm_ws.cli.demo_day import TEAM, make_day
from dcm_ws.cli.demo_players import Players
from dcm_ws.cli.demo_rows import Rows
from dcm_ws.cli.demo_steps import Day, Publish
from dcm_ws.client.aio import DCMClient
from tests.cli.commands import url
from tests.integration.databases import PostgresServer
from tests.integration.machine import PATIENCE
from tests.integration.running import Service

pytestmark = pytest.mark.integration


CONNECTIONS = "/v1/agents/planner/connections"


@pytest.fixture
def rows(database: PostgresServer) -> Iterator[Rows]:
    with closing(Rows(database.url)) as made:
        yield made


def test_lost_connections(running: Service, rows: Rows) -> None:
    """
    An agent that loses its connection while it works connects again, and publishes each event once.  Messages of others
    on the agents' channels, whatever is in them, do not disturb it.
    """
    numbers = range(60)
    day = Day(tuple(Publish(at / 100, "planner", TEAM, "system.info", {"number": at}) for at in numbers), "none")

    async def work() -> list[int]:
        seen: list[int] = []
        async with (
            DCMClient(url(running), agent_id="watcher", observer=True, channels=[TEAM]) as watcher,
            Players(url(running), rows, print) as players,
        ):
            await watcher.publish(TEAM, "message.new", ["not", "an", "object"])
            playing = asyncio.create_task(players.play(day, 1))
            async with asyncio.timeout(PATIENCE):
                async for event in watcher.events("system.info"):
                    seen.append(event.data["number"])
                    if seen[-1] in (10, 40):
                        _, _, closed = await asyncio.to_thread(running.get, CONNECTIONS, "DELETE")
                        assert json.loads(closed)["closed"] == 1
                    if seen[-1] == numbers[-1]:
                        break
            playing.cancel()
        return seen

    assert asyncio.run(work()) == list(numbers)


def test_minutes(running: Service, rows: Rows, capsys: pytest.CaptureFixture[str]) -> None:
    """
    With --minutes it ends after that time.
    """
    late = next(seed for seed in range(100) if make_day(seed, 1).steps[0].at > 1)

    async def work() -> None:
        async with Players(url(running), rows, print) as players:
            await _play(players, Plan(1.0, None, 0.001, late))

    asyncio.run(work())
    assert capsys.readouterr().err == "day 1, which takes 10 minutes:\n"
