"""
The client without the service, C{dcm-ws-client}.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dcm_ws.version import VERSION
from tests.integration.running import Service, service
from tests.package.environments import Environment

pytestmark = [pytest.mark.package, pytest.mark.timeout(400)]  # installs packages into a new environment

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, json, sys
from dcm_ws.client.aio import DCMClient
from dcm_ws.client.catalogue import TaskData, is_event

async def main(url):
    async with DCMClient(url, agent_id="ann", channels=[]) as client:
        await client.subscribe("topics/builds")
        found = client.events("task.*")
        await client.publish("topics/builds", "task.created", {"task_id": "42"})
        event = await anext(found)
        assert is_event(event, "task.created") and TaskData(id="42") == {"id": "42"}
        print(json.dumps([event.channel, event.event, event.data]))
        # taking the next event acknowledges the last
        await client.publish("topics/builds", "task.completed", {"task_id": "42"})
        await anext(found)
        await client.ping()
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    with service() as found:
        yield found


def test_client_alone(running: Service, tmp_path: Path) -> None:
    """
    An environment with dcm-ws-client has one other package.  Its client subscribes, publishes, receives and
    acknowledges.
    """
    environment = Environment(tmp_path / "venv", str(ROOT / "client"))
    found = environment.packages()
    assert set(found) == {"dcm-ws-client", "websockets"}
    assert found["dcm-ws-client"] == VERSION
    done = subprocess.run(
        [environment.python, "-c", PROGRAM, f"ws://127.0.0.1:{running.port}/"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    event, modules = map(json.loads, done.stdout.splitlines())
    assert event == ["topics/builds", "task.created", {"task_id": "42"}]
    assert {"dcm_ws", "websockets"} <= set(modules)
    assert not {"twisted", "autobahn", "psycopg2", "txpostgres", "msgspec"} & set(modules)
    assert running.stats()["deliveries"]["acked"] >= 1
