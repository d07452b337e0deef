"""
C{dcm-ws mcp} as a process: what it reads and writes, how it ends, and what it refuses.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dcm_ws.mcp.server import CALLS_MAX
from tests.cli.running import PROGRAM, clean, run
from tests.forking import Popen
from tests.integration.machine import free_port, until
from tests.integration.running import Service, production_service
from tests.integration.tokens import make_token
from tests.mcp.test_rendering import GOLDEN, hostile

pytestmark = pytest.mark.integration

INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"experimental": {"claude/channel": {}}},
    "clientInfo": {"name": "test", "version": "1"},
}


class Process:
    """
    A server, and the messages that it sends.
    """

    def __init__(self, folder: Path, port: int, *arguments: str, **variables: str) -> None:
        self.process = Popen(
            [PROGRAM, "mcp", "--url", f"ws://127.0.0.1:{port}/", *arguments],
            cwd=folder,
            env=clean(folder, **variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._id = 0

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, method: str, params: dict[str, Any] | None = None, **fields: Any) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params or {}, **fields}
        self.write(json.dumps(message).encode() + b"\n")

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read().decode() if self.process.stderr else ""
        message: dict[str, Any] = json.loads(line)
        return message

    def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """
        Send a request; returns its answer.
        """
        self._id += 1
        self.send(method, params, id=self._id)
        while (message := self.read()).get("id") != self._id:
            pass
        return message

    def greet(self) -> dict[str, Any]:
        answer = self.ask("initialize", INITIALIZE)
        self.send("notifications/initialized")
        return answer

    def call(self, tool: str, **arguments: Any) -> str:
        text: str = self.ask("tools/call", {"name": tool, "arguments": arguments})["result"]["content"][0]["text"]
        return text

    def end(self) -> tuple[int, str]:
        """
        Wait until it ends; returns its status and its standard error.
        """
        self.process.wait(timeout=30)
        _, errors = self.process.communicate()
        return self.process.returncode, errors.decode()


@contextlib.contextmanager
def started(folder: Path, port: int, *arguments: str, **variables: str) -> Iterator[Process]:
    process = Process(folder, port, *arguments, **variables)
    try:
        yield process
    finally:
        process.process.kill()
        process.process.communicate()


def test_hostile_event(tmp_path: Path, running: Service) -> None:
    """
    What a model is pushed of a hostile event of 100 KB is what L{GOLDEN} has, apart from its id, place and time.
    """
    with started(tmp_path, running.port, "--agent-id", "victim") as process:
        process.greet()
        until(lambda: running.stats()["connectedClients"] == 1)
        event = {"type": "publish", "channel": "agents/victim", "event": "message.new", "data": hostile().data}
        with running.connect("/?agent_id=attacker") as attacker:
            attacker.send(json.dumps({"type": "auth", "agent_id": "attacker", "id": 1}))
            attacker.send(json.dumps(event))
            while (message := process.read()).get("method") != "notifications/claude/channel":
                pass
        text, meta = message["params"]["content"], message["params"]["meta"]
        assert (meta["channel"], meta["from"], meta["count"]) == ("agents/victim", "attacker", "1")
        golden = GOLDEN.read_text().splitlines()
        head, label, data, end = text.splitlines()
        assert [head, end] == [golden[0], golden[3]]
        assert data == golden[2]
        assert label.startswith('<event id="msg_')
        assert label.partition(" cut=")[2] == golden[1].partition(" cut=")[2]
        assert len(json.dumps(message)) < 6_000


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"jsonrpc":"2.0"}',
        b'{"jsonrpc":"2.0","method":5}',
        b"[" * 100_000,
        b"x" * 3_000_000,
    ],
    ids=["empty", "half", "array", "binary", "nothing", "number", "nested", "long"],
)
def test_bad_lines(tmp_path: Path, running: Service, line: bytes) -> None:
    """
    Lines that are no messages, also very long ones, do no harm to those that follow.
    """
    with started(tmp_path, running.port, "--agent-id", "lines") as process:
        process.write(line + b"\n")
        assert process.greet()["result"]["serverInfo"]["name"] == "dcm-ws"
        process.write(line + b"\n")
        assert json.loads(process.call("ack", message_ids=["m"]))["read"] == 0
        process.process.stdin.close()  # type: ignore[union-attr]
        process.process.stdin = None
        status, errors = process.end()
        assert status == 0 and "Traceback" not in errors, errors


@pytest.mark.parametrize("how", ["closes its input", "closes its output", signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("waiting", [False, True])
def test_end(tmp_path: Path, running: Service, how: str | signal.Signals, waiting: bool) -> None:
    """
    It ends at once, with 0, when its client has gone or a signal comes, also while a call waits.
    """
    with started(tmp_path, running.port, "--agent-id", "ending") as process:
        process.greet()
        until(lambda: running.stats()["connectedClients"] == 1)
        if waiting:
            process.send("tools/call", {"name": "wait_for_event", "arguments": {"timeout_seconds": 600}}, id=99)
        if isinstance(how, signal.Signals):
            process.process.send_signal(how)
        elif how == "closes its input":
            process.process.stdin.close()  # type: ignore[union-attr]
            process.process.stdin = None
        else:
            process.process.stdout.close()  # type: ignore[union-attr]
            process.send("ping", id=100)
            process.process.stdout = None
        status, errors = process.end()
        assert status == 0 and "Traceback" not in errors, errors
        until(lambda: running.stats()["connectedClients"] == 0)


def test_cancelled_call(tmp_path: Path, running: Service) -> None:
    """
    A call that the client has given up takes no events: the next call returns them.
    """
    with started(tmp_path, running.port, "--agent-id", "patient", "--push", "off") as process:
        process.greet()
        waiting = {"name": "wait_for_event", "arguments": {"timeout_seconds": 600}}
        process.send("tools/call", waiting, id=98)
        assert "read" in process.call("ack", message_ids=["m"])
        process.send("notifications/cancelled", {"requestId": 98, "reason": "enough"})
        assert "read" in process.call("ack", message_ids=["m"])
        sent = json.loads(run_publish(tmp_path, running, "agents/patient"))["message_id"]
        assert sent in process.call("wait_for_event", timeout_seconds=20)


def run_publish(folder: Path, running: Service, channel: str) -> str:
    done = run(folder, "publish", "--json", "--url", f"ws://127.0.0.1:{running.port}/", channel, "task.created")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_too_many_calls(tmp_path: Path, running: Service) -> None:
    """
    A limited number of calls may wait at the same time; those beyond it fail at once, and the others go on.
    """
    with started(tmp_path, running.port, "--agent-id", "busy", "--push", "off") as process:
        process.greet()
        waiting = {"name": "wait_for_event", "arguments": {"timeout_seconds": 600, "limit": 1}}
        for number in range(CALLS_MAX):
            process.send("tools/call", waiting, id=1000 + number)
        assert process.call("ack", message_ids=["m"]) == "64 calls are waiting for their results; call again later"
        run_publish(tmp_path, running, "agents/busy")
        first = process.read()
        assert first["id"] == 1000 and "task.created" in first["result"]["content"][0]["text"]
        assert "not_waiting" in process.call("ack", message_ids=["m"])


def test_client_that_does_not_read(tmp_path: Path, running: Service) -> None:
    """
    If the client does not read, events wait and are not acknowledged as read; it ends at once all the same.
    """
    with started(
        tmp_path, running.port, "--agent-id", "deaf", "--max-data", "100000", "--push-rate", "6000"
    ) as process:
        process.greet()
        until(lambda: running.stats()["connectedClients"] == 1)
        other = running.connect("/?agent_id=loud")
        for _ in range(20):
            data = {
                "type": "publish",
                "channel": "agents/deaf",
                "event": "session.created",
                "data": "x" * 50_000,
                "id": 1,
            }
            other.send(json.dumps(data))
            other.recv(timeout=20)
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(timeout=20) == 0


def test_service_away(tmp_path: Path) -> None:
    """
    Without a service it serves its client, says what is wrong, and a call that needs the service fails in time.
    """
    with started(tmp_path, free_port(), "--agent-id", "lonely") as process:
        process.greet()
        assert len(process.ask("tools/list")["result"]["tools"]) > 10
        text = process.call("wait_for_event", timeout_seconds=0.2)
        assert "no such event" in text and "not connected to the service now" in text
        assert "not connected now" in process.call("subscribe", channel="topics/t")
        failed = process.call("publish", channel="topics/t", event="task.created", key="k7")
        assert failed == (
            "the service did not answer within 20 s: nothing was published; call again with key 'k7', which is safe"
        )
        assert "connection refused" in process.call("list_agents")


def test_production(tmp_path: Path) -> None:
    """
    In production it needs a token, which has the agent's name.
    """
    with production_service() as guarded:
        refused = Process(tmp_path, guarded.port, "--agent-id", "nobody")
        status, errors = refused.end()
        assert status == 1 and "TOKEN" in errors.upper(), errors
        with started(tmp_path, guarded.port, DCM_WS_TOKEN=make_token("tokened")) as process:
            process.greet()
            until(lambda: guarded.health()["connectedClients"] == 1)
            assert json.loads(process.call("list_agents"))["you"] == "tokened"
            assert "message_id" in process.call("send_message", to="tokened", content="x")
        file = tmp_path / "token"
        file.write_text(make_token("filed"))
        with started(tmp_path, guarded.port, "--token-file", str(file)) as process:
            process.greet()
            assert "message_id" in process.call("send_message", to="x", content="x")


@pytest.mark.parametrize(
    "arguments, error",
    [
        ((), "give --agent-id, or a token in DCM_WS_TOKEN or --token-file"),
        (("--agent-id", "a", "agents/"), "Invalid channel format: agents/"),
        (("--agent-id", "a", "--from-unnamed"), "--from-unnamed is for --from"),
        (("--agent-id", "a", "--url", "http://x"), "ws://"),
        (("--agent-id", "a", "--push-rate", "0"), "--push-rate"),
    ],
)
def test_invalid_usage(tmp_path: Path, arguments: tuple[str, ...], error: str) -> None:
    """
    Invalid usage is an error, and nothing is done.
    """
    done = run(tmp_path, "mcp", *arguments)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert error in done.stderr


def test_stored_position_of_another(tmp_path: Path, running: Service) -> None:
    """
    A file that does not hold the agent's position is an error.
    """
    file = tmp_path / "position"
    file.write_text("not a position")
    process = Process(tmp_path, running.port, "--agent-id", "a", "--position", str(file))
    status, errors = process.end()
    assert status == 1 and "position" in errors and "Traceback" not in errors, errors


def test_without_the_package(tmp_path: Path) -> None:
    """
    Without the package mcp, it says what to install.
    """
    (tmp_path / "mcp.py").write_text("raise ImportError")
    done = run(tmp_path, "mcp", "--agent-id", "a", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "Error: the MCP server needs the package mcp: pip install 'dcm-ws[mcp]'\n"


def test_stray_output(tmp_path: Path, running: Service) -> None:
    """
    What anything else prints does not get between the messages.
    """
    said = tmp_path / "said"
    code = f"""
import os, threading, time
def say():
    while not os.path.exists({str(tmp_path / "go")!r}):
        time.sleep(0.05)
    print("stray", flush=True)
    open({str(said)!r}, "w").close()
threading.Thread(target=say, daemon=True).start()
"""
    (tmp_path / "sitecustomize.py").write_text(code)
    with started(tmp_path, running.port, "--agent-id", "stray", PYTHONPATH=str(tmp_path)) as process:
        process.greet()
        (tmp_path / "go").touch()
        until(said.exists)
        assert "no such event" in process.call("wait_for_event", timeout_seconds=0)
        process.process.stdin.close()  # type: ignore[union-attr]
        process.process.stdin = None
        assert "stray" in process.end()[1]
