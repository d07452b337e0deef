"""
The tutorial about two coding agents, run as it is printed, and the examples of agents.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import url
from tests.cli.pages import LONGEST, commands, folder, matches, outputs, reader, run_page
from tests.cli.running import clean, run
from tests.integration.machine import ROOT
from tests.integration.running import Service

__all__ = ["folder"]

PAGE = "docs/two-agents.md"
EXAMPLES = ROOT / "docs" / "examples"
#: where the programs of this environment are
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(LONGEST + 60)]


def test_two_coding_agents(folder: Path) -> None:
    """
    Every command of the page works, one after the other; the planner gets an answer for each task, and the builder
    loses none while it is away.
    """
    blocks = commands(PAGE)
    assert len(blocks) >= 8
    status, said = run_page(folder, "".join(blocks), reader(folder, PATH=PATH))
    logs = "".join(f"{log.name}:\n{log.read_text()}" for log in (folder / "empty").glob("*.log"))
    assert status == 0, f"{said}\n{logs}"
    events = [json.loads(line) for line in said.splitlines() if line.startswith('{"id":"msg_')]
    assert [(event["event"], event["data"]["id"]) for event in events[:4]] == [
        ("task.completed", "task-1"),
        ("task.failed", "task-2"),
        ("task.completed", "task-3"),
        ("task.completed", "task-4"),
    ]
    assert events[0]["data"]["agent_id"] == "builder" and events[0]["channel"] == "agents/planner"
    assert events[0]["data"]["last_lines"] == ["I thought about: paint the shed", "done"]
    assert events[1]["data"]["exit_status"] == 1
    assert events[4]["event"] == "session.created" and events[4]["data"]["project"] == "shed"
    (shown,) = outputs(PAGE)
    assert matches(shown).search(said), said
    assert '+    "SessionStart": [' in said and "gave up" not in said


def test_the_page_has_the_example() -> None:
    """
    The agent that waits is the same on the page and in its file.
    """
    assert f"<<'END'\n{(EXAMPLES / 'agent_waits.sh').read_text()}END\n" in (ROOT / PAGE).read_text()


def test_text_of_others_is_not_executed(tmp_path: Path, running: Service) -> None:
    """
    The agent that waits is woken, and hands the text of a task to its command as input, whatever it is.
    """
    hostile = "$(touch broken); `touch broken`; '; touch broken; \" \x1b[2J"
    task = json.dumps({"id": "--help; touch broken", "text": hostile, "answer_to": "boss"})
    environment = clean(tmp_path, PATH=PATH, DCM_WS_URL=url(running), XDG_STATE_HOME=str(tmp_path / "state"))
    agent = subprocess.Popen(
        ["sh", str(EXAMPLES / "agent_waits.sh"), "worker", "cat"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert agent.stderr is not None and "connected to" in agent.stderr.readline()
        published = run(tmp_path, "publish", "--url", url(running), "agents/worker", "task.created", task)
        assert published.returncode == 0, published.stderr
        done = run(
            tmp_path,
            *("wait", "--json", "--url", url(running), "--agent-id", "boss", "--since", "0"),
            *("--event", "task.completed", "--timeout", "30"),
        )
    finally:
        os.killpg(agent.pid, 15)
        agent.communicate(timeout=20)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)["data"]
    assert data["id"] == "--help; touch broken"
    assert data["last_lines"] == [hostile.replace("\x1b", "\\x1b")]
    assert not (tmp_path / "broken").exists()


def test_a_worker(tmp_path: Path, running: Service) -> None:
    """
    The worker with asyncio does its tasks, reports the one that it cannot do, and goes on.
    """
    worker = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "worker_asyncio.py"), url(running), "worker"],
        env=clean(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
        for number, numbers in enumerate(([1, 2], "no numbers", [3, 4])):
            task = json.dumps({"id": f"t{number}", "numbers": numbers})
            arguments = ("--url", url(running), "--agent-id", "boss", "agents/worker", "task.created", task)
            assert run(tmp_path, "publish", *arguments).returncode == 0
        done = run(
            tmp_path,
            *("wait", "--json", "--url", url(running), "--agent-id", "boss", "--since", "0"),
            *("--count", "3", "--timeout", "30"),
        )
    finally:
        worker.kill()
        worker.communicate()
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(event["event"], event["data"].get("result"), event["from"]) for event in events] == [
        ("task.completed", 3, "worker"),
        ("task.failed", None, "worker"),
        ("task.completed", 7, "worker"),
    ]
