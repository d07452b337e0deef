"""
The client without the service, C{dcm-ws-client}, and installations with uv.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dcm_ws.version import VERSION
from tests.integration.running import Service, service

pytestmark = [pytest.mark.package, pytest.mark.timeout(400)]  # installs packages into new environments

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
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


def install(folder: Path, *what: str) -> Path:
    """
    Make an environment with uv; returns its Python.
    """
    python = folder / "bin" / "python"
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, folder], check=True)
    subprocess.run([UV, "pip", "install", "-q", "--python", python, *what], check=True)
    return python


def installed(python: Path) -> dict[str, str]:
    """
    The packages of an environment, with their versions.
    """
    command: list[Path | str] = [UV, "pip", "list", "-q", "--format", "json", "--python", python]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {one["name"]: one["version"] for one in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    with service() as found:
        yield found


def test_client_alone(running: Service, tmp_path: Path) -> None:
    """
    An environment with dcm-ws-client has one other package.  Its client subscribes, publishes, receives and
    acknowledges.
    """
    python = install(tmp_path / "venv", str(ROOT / "client"))
    found = installed(python)
    assert set(found) == {"dcm-ws-client", "websockets"}
    assert found["dcm-ws-client"] == VERSION
    done = subprocess.run(
        [python, "-c", PROGRAM, f"ws://127.0.0.1:{running.port}/"],
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


def test_service_with_uv(tmp_path: Path) -> None:
    """
    uv installs the service with a wheel of txpostgres that pip has made, as docs/installing.md says.
    """
    steps = (ROOT / "docs" / "installing.md").read_text()
    assert "pip wheel --no-deps --wheel-dir wheels txpostgres" in steps and "--find-links wheels" in steps
    make = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", "wheels", "txpostgres"]
    subprocess.run(make, check=True, cwd=tmp_path)
    python = install(tmp_path / "venv", "--find-links", str(tmp_path / "wheels"), str(ROOT))
    assert installed(python)["dcm-ws"] == VERSION
    done = subprocess.run([python.with_name("dcm-ws"), "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, f"dcm-ws {VERSION}")
