"""
dcm-ws run: a command, and what others hear of it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from dcm_ws.cli.run_output import LINE_MAX, TEXT_MAX, Copy, LastLines
from dcm_ws.cli.run_reports import Reports
from tests.cli.commands import url
from tests.cli.running import PROGRAM, clean, run
from tests.event_types import fits
from tests.forking import Popen
from tests.integration.machine import free_port, until
from tests.integration.running import Service, service

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    with service() as started:
        yield started


def work(
    folder: Path, where: str, *arguments: str, stdin: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    return run(
        folder, "run", "--url", where, *arguments, stdin=stdin, XDG_STATE_HOME=str(folder / "state"), **variables
    )


def begin(folder: Path, where: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    return Popen(
        [PROGRAM, "run", "--url", where, *arguments],
        cwd=folder,
        env=clean(folder, XDG_STATE_HOME=str(folder / "state")),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def hear(client: ClientConnection, channel: str = "topics/runs") -> dict[str, Any]:
    """
    The next event of a channel.
    """
    while True:
        message: dict[str, Any] = json.loads(client.recv(timeout=30))
        if channel in (message.get("channel"), message.get("origin")):
            return message


def test_a_command_that_succeeds(tmp_path: Path, shared: Service) -> None:
    """
    Input and output are passed on as they are, the exit status is 0, and the events say what happened.
    """
    colours = 'printf "\\033[31mred\\033[0m \\033[2J\\tend"'
    script = f'read line; echo "got $line"; echo oops >&2; {colours}; echo "$DCM_WS_TASK_ID" >&2'
    with shared.connect("/?observer=1") as client:
        done = work(tmp_path, url(shared), "--agent-id", "ci", "--task-id", "t1", "sh", "-c", script, stdin="in\n")
        created, completed = hear(client), hear(client)
    assert (done.returncode, done.stderr) == (0, "oops\nt1\n")
    assert done.stdout == "got in\n\x1b[31mred\x1b[0m \x1b[2J\tend"
    assert created["event"] == "task.created" and completed["event"] == "task.completed"
    assert all(fits(one["event"], one["data"], "run") for one in (created, completed))
    data = completed["data"]
    assert created["data"]["at"] <= data["at"] and data["duration_s"] > 0
    assert {name: data[name] for name in ("id", "name", "agent_id", "exit_status")} == {
        "id": "t1",
        "name": "sh",
        "agent_id": "ci",
        "exit_status": 0,
    }
    assert sorted(data["last_lines"]) == sorted(["got in", "oops", "red \\x1b[2J    end", "t1"])
    assert not (tmp_path / "state").exists()


def test_a_command_that_fails(tmp_path: Path, shared: Service) -> None:
    """
    The exit status is passed on, with the last lines; options of the command are not ours.
    """
    with shared.connect("/?observer=1") as client:
        done = work(
            tmp_path, url(shared), "--name", "nightly", "--lines", "2", "sh", "-c", "seq 5; exit 7", "--lines", "--x"
        )
        created, failed = hear(client), hear(client)
    assert done.returncode == 7 and done.stdout == "1\n2\n3\n4\n5\n"
    assert failed["event"] == "task.failed" and created["data"]["id"] == failed["data"]["id"]
    assert failed["data"]["exit_status"] == 7 and failed["data"]["last_lines"] == ["4", "5"]
    assert failed["data"]["name"] == "nightly" and fits("task.failed", failed["data"], "run")


def test_a_subtask(tmp_path: Path, shared: Service) -> None:
    """
    A run inside a run is a subtask of it.
    """
    inner = f'{PROGRAM} run --url {url(shared)} --subtask-of "$DCM_WS_TASK_ID" -- true'
    with shared.connect("/?observer=1") as client:
        assert work(tmp_path, url(shared), "--", "sh", "-c", inner).returncode == 0
        events = [hear(client) for _ in range(4)]
    assert [event["event"] for event in events] == [
        "task.created",
        "subtask.created",
        "subtask.completed",
        "task.completed",
    ]
    assert all(fits(event["event"], event["data"], "run") for event in events)
    assert {event["data"]["task_list_id"] for event in events[1:3]} == {events[0]["data"]["id"]}


def test_heartbeats(tmp_path: Path, shared: Service) -> None:
    """
    While the command runs, there are heartbeats.
    """
    with shared.connect("/?observer=1") as client:
        process = begin(tmp_path, url(shared), "--heartbeat", "1", "sleep", "60")
        events = [hear(client) for _ in range(3)]
        process.terminate()
        last = hear(client)
        while last["event"] == "agent.heartbeat":
            last = hear(client)
        process.communicate(timeout=20)
    assert [event["event"] for event in events] == ["task.created", "agent.heartbeat", "agent.heartbeat"]
    assert 0.9 < events[1]["data"]["elapsed_s"] < events[2]["data"]["elapsed_s"]
    assert process.returncode == 143 and last["event"] == "task.failed"
    assert (last["data"]["exit_status"], last["data"]["signal"]) == (143, "SIGTERM")
    assert all(fits(event["event"], event["data"], "run") for event in (*events, last))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT])
def test_signals_are_passed_on(tmp_path: Path, shared: Service, number: signal.Signals) -> None:
    """
    The command gets the signal, and its exit status counts.
    """
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo got; exit 9' {name}; echo ready; while :; do sleep 0.1; done"
    process = begin(tmp_path, url(shared), "--", "sh", "-c", script, start_new_session=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (9, "got\n"), errors


def test_ignored_signals_stay_ignored(tmp_path: Path, shared: Service) -> None:
    """
    Under nohup, the command ignores SIGHUP.
    """
    process = begin(
        tmp_path,
        url(shared),
        *("--", "sh", "-c", "echo ready; sleep 1; echo still here"),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=20)[0] == "still here\n" and process.returncode == 0


def test_ctrl_c_in_a_terminal(tmp_path: Path, shared: Service) -> None:
    """
    Ctrl-C reaches the command once, and with --lines 0 the command has the terminal.
    """
    script = "trap 'echo got' INT; test -t 1 && echo ready; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; done; exit 3"
    arguments = [PROGRAM, "run", "--url", url(shared), "--lines", "0", "--", "sh", "-c", script]
    # in a process with a single thread, because it forks
    spawn = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    with subprocess.Popen(
        [sys.executable, "-c", spawn, *arguments],
        env=clean(tmp_path, XDG_STATE_HOME=str(tmp_path / "state")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        output = b""
        while b"ready" not in output:
            output += process.stdout.read(1024)
        process.stdin.write(b"\x03")
        while piece := process.stdout.read(1024):
            output += piece
    assert process.returncode == 3
    assert output.count(b"got") == 1


@pytest.mark.parametrize("command,status", [("no-such-program", 127), ("./folder", 126)])
def test_what_cannot_be_run(tmp_path: Path, shared: Service, command: str, status: int) -> None:
    """
    As in a shell, the exit status is 127 or 126; others learn of it.
    """
    (tmp_path / "folder").mkdir()
    with shared.connect("/?observer=1") as client:
        done = work(tmp_path, url(shared), command)
        events = [hear(client) for _ in range(2)]
    assert [event["event"] for event in events] == ["task.created", "task.failed"]
    assert events[1]["data"]["error"] and fits("task.failed", events[1]["data"], "run")
    assert done.returncode == status and "cannot run" in done.stderr


def test_usage(tmp_path: Path) -> None:
    """
    After a usage error, or without its token, nothing is run.
    """
    for arguments, status in (
        (("--channel", "topics/", "touch", "x"), 2),
        ((), 2),
        (("--token-file", "none", "touch", "x"), 1),
    ):
        assert work(tmp_path, "ws://127.0.0.1:9/", *arguments).returncode == status
    assert not (tmp_path / "x").exists()


def test_without_the_service(tmp_path: Path) -> None:
    """
    If the service is away, the command runs as usual, and its events come later, in order.
    """
    port = free_port()
    where = f"ws://127.0.0.1:{port}/"
    done = work(tmp_path, where, "sh", "-c", "echo out; exit 4")
    assert (done.returncode, done.stdout) == (4, "out\n") and "does not answer" in done.stderr
    with service("--ws-port", str(port)) as running, running.connect("/?observer=1") as client:
        assert work(tmp_path, where, "true").returncode == 0
        events = [hear(client) for _ in range(4)]
    assert [event["event"] for event in events] == ["task.created", "task.failed", "task.created", "task.completed"]
    assert events[1]["data"]["last_lines"] == ["out"]


def test_a_service_that_hangs(tmp_path: Path) -> None:
    """
    The command does not wait for a service that does not answer, and its end is kept.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = begin(
            tmp_path, f"ws://127.0.0.1:{server.getsockname()[1]}/", "--", "sh", "-c", "echo at once; sleep 60"
        )
        assert process.stdout is not None and process.stdout.readline() == "at once\n"
        assert process.poll() is None
        process.terminate()
        process.communicate(timeout=20)
    [spool] = (tmp_path / "state").rglob("*.jsonl")
    assert [json.loads(line)["event"] for line in spool.read_text().splitlines()] == ["task.created", "task.failed"]


def test_nobody_reads_the_output(tmp_path: Path, shared: Service) -> None:
    """
    If the reader of the output goes, the command gets SIGPIPE, as without us.
    """
    process = begin(tmp_path, url(shared), "--", "yes")
    assert process.stdout is not None and process.stdout.readline() == "y\n"
    process.stdout.close()
    assert process.wait(timeout=20) == 128 + signal.SIGPIPE
    assert process.stderr is not None
    process.stderr.close()


def test_a_child_that_stays(tmp_path: Path, shared: Service) -> None:
    """
    A process in the background that keeps the output open does not keep us.
    """
    done = begin(tmp_path, url(shared), "--", "sh", "-c", "sleep 300 & echo $!")
    assert done.stdout is not None
    child = int(done.stdout.readline())
    try:
        assert done.wait(timeout=60) == 0
    finally:
        os.kill(child, signal.SIGKILL)
    for stream in (done.stdout, done.stderr):
        if stream is not None:
            stream.close()


def test_much_output(tmp_path: Path, shared: Service) -> None:
    """
    Long output without a line feed is passed on completely, and only its beginning is kept.
    """
    code = "import sys; sys.stdout.write('é' * 3_000_000)"
    with shared.connect("/?observer=1", max_size=None) as client:
        done = work(tmp_path, url(shared), "--", sys.executable, "-X", "utf8", "-c", code)
        hear(client)
        [line] = hear(client)["data"]["last_lines"]
    assert done.stdout == "é" * 3_000_000 and done.returncode == 0
    assert line == "é" * (LINE_MAX // 2)


def test_last_lines() -> None:
    """
    Colours are left out, other control characters escaped; of a progress bar the last state is kept; in all, the text
    is limited.
    """
    lines = LastLines(100)
    source, target = os.pipe()
    sink = os.open(os.devnull, os.O_WRONLY)
    copy = Copy(source, sink, lines)
    for piece in (b"10%\r", b"50%\r100%\r\n", b"\x1b[1;31mred\x1b[0m\x07\n", b"\xff\n", b"half", b" line"):
        os.write(target, piece)
    os.close(target)
    copy.finish(10)
    os.close(sink)
    assert lines.texts() == ["100%", "red\\x07", "\ufffd", "half line"]
    for _ in range(100):
        lines.add(b"\x01" * 1000)
    texts = lines.texts()
    assert len(texts) == TEXT_MAX // (4 * LINE_MAX) and sum(map(len, texts)) <= TEXT_MAX


class _Broken:
    def publish(self, event: dict[str, Any], seconds: float, *, keep: bool = True) -> None:
        raise OSError("no space left")


def test_events_that_cannot_be_kept() -> None:
    """
    If an event can be neither published nor kept, that is reported, and nothing else happens.
    """
    reported: list[str] = []
    reports = Reports(_Broken(), "topics/a", "task", {}, heartbeat=60, report=reported.append)
    reports.begin()
    ending = threading.Thread(target=reports.end, args=(0, {}))
    ending.start()
    ending.join(10)
    until(lambda: len(reported) == 2)
    assert reported == [f"task.{name} is lost: OSError: no space left" for name in ("created", "completed")]
