"""
dcm-ws wait, connected to real services.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dcm_ws.cli import positions
from dcm_ws.cli.options import Server
from dcm_ws.cli.wait_filter import Waiting, compiled
from dcm_ws.cli.who import agent_of
from dcm_ws.client import Event
from tests.cli.commands import publish, subscribers, url
from tests.cli.running import PROGRAM, clean, run
from tests.forking import Popen
from tests.integration.machine import free_port, until
from tests.integration.running import Service, service
from tests.integration.tokens import SECRET, make_token

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    with service() as started:
        yield started


def wait(folder: Path, running: Service, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """
    A wait that ends at once, or after a time that the arguments give.
    """
    state = {"XDG_STATE_HOME": str(folder / "state")}
    return run(folder, "wait", "--json", "--url", url(running), *arguments, **(state | variables))


def begin(folder: Path, running: Service, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """
    A wait that goes on; returns when it is subscribed.
    """
    process = Popen(
        [PROGRAM, "wait", "--json", "--url", url(running), *arguments],
        cwd=folder,
        env=clean(folder, XDG_STATE_HOME=str(folder / "state")),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "connected to" in line, line
    return process


def came(output: str) -> list[object]:
    return [json.loads(line)["data"] for line in output.splitlines()]


def test_an_event_ends_it(tmp_path: Path, shared: Service) -> None:
    """
    It prints the event that matches, and ends with 0; events that do not match are ignored.
    """
    process = begin(tmp_path, shared, "topics/a", "--event", "task.*", "--where", '.data.task_id == "42"')
    for event, data in (
        ("system.info", {"task_id": "42"}),
        ("task.created", "42"),
        ("task.created", {"task_id": 42}),
        ("task.completed", {"task_id": "42"}),
    ):
        assert publish(tmp_path, shared, "topics/a", event, json.dumps(data)).returncode == 0
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    [line] = output.splitlines()
    event = json.loads(line)
    assert (event["channel"], event["event"], event["data"]) == ("topics/a", "task.completed", {"task_id": "42"})
    assert event["pos"] > 0


def test_events_as_columns(tmp_path: Path, shared: Service) -> None:
    """
    Without --json each event is a line of columns, in which control characters are escaped.
    """
    process = Popen(
        [PROGRAM, "wait", "--url", url(shared), "topics/columns", "--count", "2"],
        cwd=tmp_path,
        env=clean(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: subscribers(shared, "topics/columns") == 1)
    for text in ('"one\\u001b[2J"', '"two"'):
        assert publish(tmp_path, shared, "topics/columns", "task.created", text).returncode == 0
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert [line.split()[1:] for line in output.splitlines()] == [
        ["task.created", "topics/columns", '"one\\u001b[2J"'],
        ["task.created", "topics/columns", '"two"'],
    ]


def test_the_time_is_over(tmp_path: Path, shared: Service) -> None:
    """
    Exit status 124, as that of the command timeout, also if the service is not there.
    """
    began = time.monotonic()
    done = wait(tmp_path, shared, "topics/never", "--timeout", "1.5")
    assert (done.returncode, done.stdout) == (124, "")
    assert time.monotonic() - began >= 1.5
    done = run(tmp_path, "wait", "--url", f"ws://127.0.0.1:{free_port()}/", "--timeout", "1s")
    assert done.returncode == 124 and "nothing listens" in done.stderr


@pytest.mark.parametrize("how,status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(tmp_path: Path, shared: Service, how: signal.Signals, status: int) -> None:
    """
    Only an event ends it with 0.
    """
    process = begin(tmp_path, shared, "topics/never")
    process.send_signal(how)
    assert process.communicate(timeout=20)[0] == ""
    assert process.returncode == status


def test_since_last(tmp_path: Path, running: Service) -> None:
    """
    What comes between two waits is not lost, and nothing comes twice: after an event, after a time-out, after a kill,
    and after several events of which one was wanted.  Another wait has its own position.
    """
    arguments = ("--agent-id", "worker", "--since", "last")

    def send(*numbers: int) -> None:
        for number in numbers:
            assert publish(tmp_path, running, "agents/worker", "message.new", str(number)).returncode == 0

    send(0)
    # the first begins with new events
    assert wait(tmp_path, running, *arguments, "--timeout", "4").returncode == 124
    send(1, 2, 3)
    done = wait(tmp_path, running, *arguments, "--timeout", "20s")
    assert (done.returncode, came(done.stdout)) == (0, [1])
    done = wait(tmp_path, running, *arguments, "--timeout", "20s", "--count", "2")
    assert (done.returncode, came(done.stdout)) == (0, [2, 3])
    assert wait(tmp_path, running, *arguments, "--timeout", "1").returncode == 124
    killed = begin(tmp_path, running, *arguments)
    killed.kill()
    killed.communicate()
    send(4)
    done = wait(tmp_path, running, *arguments, "--timeout", "20s")
    assert (done.returncode, came(done.stdout)) == (0, [4])
    # it has not waited before
    done = wait(tmp_path, running, *arguments, "--event", "message.*", "--timeout", "1")
    assert done.returncode == 124
    # the observer has acknowledged nothing
    assert len(list((tmp_path / "state").rglob("*.json"))) == 2


def test_two_waits_for_the_same(tmp_path: Path, shared: Service) -> None:
    """
    A second wait with --since last for the same events is refused while the first one waits.
    """
    first = begin(tmp_path, shared, "topics/twice", "--since", "last")
    second = wait(tmp_path, shared, "topics/twice", "--since", "last", "--timeout", "20")
    first.terminate()
    first.communicate(timeout=20)
    assert second.returncode == 1 and "in use by another client" in second.stderr


def test_since_a_position(tmp_path: Path, running: Service) -> None:
    """
    --since takes what tail takes.
    """
    for number in (1, 2):
        assert publish(tmp_path, running, "topics/p", "task.created", str(number)).returncode == 0
    for since in ("0", "1h"):
        done = wait(tmp_path, running, "topics/p", "--since", since, "--count", "2", "--timeout", "20")
        assert (done.returncode, came(done.stdout)) == (0, [1, 2]), done.stderr


def test_a_gap_is_reported(tmp_path: Path, shared: Service) -> None:
    """
    If the service no longer has all that came meanwhile, standard error says so, and what it has follows.
    """
    folder = tmp_path / "state" / "dcm-ws" / "wait"
    assert wait(tmp_path, shared, "topics/gap", "--since", "last", "--timeout", "4").returncode == 124
    [file] = folder.glob("*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"epoch": "other"}))
    done = wait(tmp_path, shared, "topics/gap", "--since", "last", "--timeout", "4")
    assert done.returncode == 124 and "gap: " in done.stderr and done.stdout == ""
    # it goes on from there
    done = wait(tmp_path, shared, "topics/gap", "--since", "last", "--timeout", "4")
    assert done.returncode == 124 and "gap: " not in done.stderr
    file.write_text(json.dumps(json.loads(file.read_text()) | {"epoch": "other"}))
    assert publish(tmp_path, shared, "topics/gap", "task.created", "1").returncode == 0
    done = wait(tmp_path, shared, "topics/gap", "--since", "last", "--timeout", "20")
    assert (done.returncode, came(done.stdout)) == (0, [1]) and "gap: " in done.stderr
    file.write_text("{}")
    done = wait(tmp_path, shared, "topics/gap", "--since", "last", "--timeout", "20")
    assert done.returncode == 1 and "does not hold the position" in done.stderr


def test_acknowledging(tmp_path: Path, running: Service) -> None:
    """
    With --ack the agent gets each event once, over several waits; what it printed is acknowledged, and nothing else.
    """
    arguments = ("--agent-id", "worker", "--ack", "--timeout", "20")
    # the agent is durable from now on
    assert wait(tmp_path, running, "--agent-id", "worker", "--ack", "--timeout", "4").returncode == 124
    for number in (1, 2, 3):
        assert publish(tmp_path, running, "agents/worker", "message.new", str(number)).returncode == 0
    done = wait(tmp_path, running, *arguments)
    assert (done.returncode, came(done.stdout)) == (0, [1]), done.stderr
    assert running.stats()["deliveries"]["acked"] == 1
    done = wait(tmp_path, running, *arguments, "--count", "2")
    assert (done.returncode, came(done.stdout)) == (0, [2, 3]), done.stderr
    assert running.stats()["deliveries"]["acked"] == 3
    assert wait(tmp_path, running, "--agent-id", "worker", "--ack", "--timeout", "1").returncode == 124


def test_nobody_reads_it(tmp_path: Path, running: Service) -> None:
    """
    If the reader of the output has gone, such as a script that was killed, it ends at once, also without an event.
    """
    process = begin(tmp_path, running, "--agent-id", "worker", "--ack")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=20) == 1
    assert "standard output was closed" in process.stderr.read()
    process.stderr.close()


def test_what_cannot_be_printed(tmp_path: Path, running: Service) -> None:
    """
    An event that could not be printed is not acknowledged.
    """
    arguments = ("--agent-id", "worker", "--ack")
    with open("/dev/full", "w") as full:
        process = begin(tmp_path, running, *arguments, stdout=full.fileno())
    assert publish(tmp_path, running, "agents/worker", "message.new", "1").returncode == 0
    assert process.wait(timeout=20) == 1
    assert process.stderr is not None and "No space left" in process.stderr.read()
    process.stderr.close()
    done = wait(tmp_path, running, *arguments, "--timeout", "20")
    assert (done.returncode, came(done.stdout)) == (0, [1])


def test_it_survives_a_restart(tmp_path: Path) -> None:
    """
    While the service restarts it waits, and gets what comes afterwards.
    """
    port = str(free_port())
    with service("--ws-port", port) as first:
        process = begin(tmp_path, first, "topics/a")
    with service("--ws-port", port) as second:
        until(lambda: subscribers(second, "topics/a") == 1)
        assert publish(tmp_path, second, "topics/a", "task.created", "1").returncode == 0
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, came(output)) == (0, [1]), errors


def test_the_channel_of_a_token(tmp_path: Path, guarded: Service) -> None:
    """
    With a token it waits on the channel of the token's agent.
    """
    token = make_token("owner", secret=guarded.secret)
    done = wait(tmp_path, guarded, "--timeout", "4", DCM_WS_TOKEN=token)
    assert done.returncode == 124 and "as owner, observing agents/owner" in done.stderr
    done = wait(tmp_path, guarded, "--timeout", "20")
    assert done.returncode == 1 and "token" in done.stderr


def test_after_another_log(tmp_path: Path) -> None:
    """
    If the service has lost its log meanwhile, the wait says so, and gets all that is in the new one.
    """
    port = str(free_port())
    arguments = ("topics/a", "--since", "last")
    with service("--ws-port", port) as first:
        assert wait(tmp_path, first, *arguments, "--timeout", "4").returncode == 124
    with service("--ws-port", port) as second:
        for number in (1, 2):
            assert publish(tmp_path, second, "topics/a", "task.created", str(number)).returncode == 0
        done = wait(tmp_path, second, *arguments, "--timeout", "20")
        assert (done.returncode, came(done.stdout)) == (0, [1]) and "gap: " in done.stderr
        done = wait(tmp_path, second, *arguments, "--timeout", "20")
        assert (done.returncode, came(done.stdout)) == (0, [2]) and "gap: " not in done.stderr


def test_what_it_imports(tmp_path: Path, shared: Service) -> None:
    """
    It starts quickly because it imports neither Twisted nor what only other commands need.
    """
    done = subprocess.run(
        [sys.executable, "-X", "importtime", PROGRAM, "wait", "--url", url(shared), "--timeout", "1", "topics/plain"],
        env=clean(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "dcm_ws.cli.watching" in imported
    heavy = {"twisted", "autobahn", "rich", "jq", "psycopg2", "platformdirs", "msgspec"}
    assert not imported & (heavy | {"importlib.metadata", "urllib.request", "http.client", "tempfile", "difflib"})


@pytest.mark.parametrize(
    "arguments,said",
    [
        (("--where", ".data |"), "--where"),
        (("--timeout", "soon"), "--timeout"),
        (("--timeout", "0"), "--timeout"),
        (("--since", "yesterday"), "'last'"),
        (("topics/",), "Invalid channel format"),
        (("--ack",), "--ack needs a token or --agent-id"),
        (("--ack", "--agent-id", "a", "--event", "task.*"), "without --event"),
        (("--count", "0"), "--count"),
    ],
)
def test_invalid_usage(tmp_path: Path, shared: Service, arguments: tuple[str, ...], said: str) -> None:
    """
    The error names the option; nothing was done.
    """
    done = wait(tmp_path, shared, *arguments)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def _event(data: object, *, channel: str = "topics/a", name: str = "task.created", origin: str | None = None) -> Event:
    return Event("msg_1", channel, name, data, 1, {} if origin is None else {"origin": origin})


@pytest.mark.parametrize(
    "expression,data,expected",
    [
        ('.data.task_id == "42"', {"task_id": "42"}, True),
        ('.data.task_id == "42"', {"task_id": 42}, False),
        # an error, no result, null and false
        (".data.task_id.x", {"task_id": "42"}, False),
        ("empty", 1, False),
        (".data", None, False),
        (".data", False, False),
        # 0 is true, as in jq
        (".data", 0, True),
        ('.event | startswith("task.")', 1, True),
        (".data.n > 3", {"n": 4}, True),
        # half a character, which jq refuses, counts as "?"
        ('.data == "\\u0000?"', "\x00\ud800", True),
    ],
)
def test_where(expression: str, data: object, expected: bool) -> None:
    """
    An event counts if the first result of the expression is neither false nor null.
    """
    assert compiled(expression)(_event(data)) is expected


def test_a_syntax_error_of_where() -> None:
    """
    The error shows what jq says in one line.
    """
    with pytest.raises(click.BadParameter, match="syntax error") as raised:
        compiled(".a |")
    assert "\n" not in raised.value.message


def test_without_jq(tmp_path: Path, shared: Service) -> None:
    """
    Without the extra, the error says how to install it.
    """
    (tmp_path / "jq.py").write_text("raise ImportError\n")
    done = wait(tmp_path, shared, "--where", ".data", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and "pip install 'dcm-ws[jq]'" in done.stderr


def test_what_is_waited_for() -> None:
    """
    A copy on global of what comes on a channel of its own does not count; nor do other channels, except what an agent
    that acknowledges is owed there.
    """
    both = Waiting(("topics/a", "global"))
    assert both.matches(_event(1)) and not both.matches(_event(1, channel="global", origin="topics/a"))
    assert both.matches(_event(1, channel="global", origin="topics/b"))
    one = Waiting(("topics/a",))
    assert not one.matches(_event(1, channel="topics/b"))
    owed = Waiting(("topics/a",), everything=True)
    assert owed.matches(_event(1, channel="topics/b"))
    assert not owed.matches(_event(1, channel="topics/b", name="system.info"))


def test_the_agent_of_a_token() -> None:
    """
    It is read from tokens of both kinds, without verifying them; what is not a token has none.
    """
    assert agent_of(Server("", make_token("a/b", secret=SECRET), "x")) == "a/b"
    claims = base64.urlsafe_b64encode(json.dumps({"sub": "équipe"}).encode()).decode().rstrip("=")
    assert agent_of(Server("", f"e30.{claims}.xyz")) == "équipe"
    for token in ("x", "x.y", "a.b.c", "W10.x", base64.b64encode(b"[" * 99_999).decode() + ".x"):
        assert agent_of(Server("", token)) is None
    assert agent_of(Server("", None, "x")) == "x" and agent_of(Server("")) is None


def test_old_positions_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each wait has a file of its own; one that has not been used for a month is removed.
    """
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    old, new = positions.position_file("a"), positions.position_file("b")
    assert old != new == positions.position_file("b")
    for file in (old, new):
        file.touch()
    month = time.time() - positions.KEEP_SECONDS - 60
    os.utime(old, (month, month))
    positions.position_file("c")
    assert not old.exists() and new.exists()
    assert old.parent.stat().st_mode & 0o777 == 0o700
