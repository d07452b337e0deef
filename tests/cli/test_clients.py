"""
tail, publish, top and bench, before a real service.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import os
import pty
import re
import select
import shlex
import signal
import socket
import subprocess
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from rich.console import Console

from dcm_ws.cli.connection import ATTEMPTS, repeat_until_accepted
from dcm_ws.cli.lines import LINE_MAX, Numbered, numbered
from dcm_ws.cli.tail_filter import Filter
from dcm_ws.cli.tail_output import fields_of, line_of
from dcm_ws.cli.terminal import harmless, json_line
from dcm_ws.cli.top_screen import screen
from dcm_ws.client import Event
from dcm_ws.client.errors import NotAvailableError, refusal
from tests.cli.running import PROGRAM, clean, run
from tests.integration.running import (
    SECRET,
    PostgresServer,
    Service,
    ask,
    free_port,
    hear,
    make_token,
    say,
    service,
    until,
)

pytestmark = pytest.mark.integration

RESTARTS = int(os.environ.get("DCM_WS_TAIL_RESTARTS", "3"))


class Tail:
    """
    A C{dcm-ws tail} that runs, and what it has printed.
    """

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        self.lines: list[str] = []
        self.errors: list[str] = []
        self.process = subprocess.Popen(
            [PROGRAM, "tail", *arguments],
            cwd=folder,
            env=clean(folder, PYTHONFAULTHANDLER="1", **variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.lines), (self.process.stderr, self.errors))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        for line in stream:
            lines.append(line.rstrip("\n"))

    def end(self) -> int | None:
        """
        Wait until it ends by itself; answers its exit code, or None if it did not.
        """
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            # its stack, for whoever looks
            self.stop(signal.SIGABRT)
            return None
        return self.stop()

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout=20)
        finally:
            self.process.kill()
            for reader in self._readers:
                reader.join(timeout=5)


@pytest.fixture
def running() -> Iterator[Service]:
    with service() as started:
        yield started


@pytest.fixture(scope="module")
def guarded() -> Iterator[Service]:
    with service("--database-url", f"postgresql://dcm@127.0.0.1:{free_port()}/none", "--production",
                 env={"WS_AUTH_SECRET": SECRET}, wait="listening on") as started:  # fmt: skip
        yield started


def url(running: Service) -> str:
    return f"ws://127.0.0.1:{running.port}/"


def subscribers(running: Service, channel: str = "global") -> int:
    count: int = running.stats()["channelStats"].get(channel, 0)
    return count


def publish(folder: Path, running: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "publish", "--url", url(running), *arguments)


def lines_of(*events: object) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_tail_shows_and_ends(tmp_path: Path, running: Service, how: signal.Signals) -> None:
    """
    Events come as lines, in columns; Ctrl-C and SIGTERM end it with 0.  It says first where it is connected.
    """
    tail = Tail(tmp_path, "--url", url(running))
    until(lambda: subscribers(running) == 1)
    assert publish(tmp_path, running, "topics/t", "task.created", '{"n": 1}').returncode == 0
    assert publish(tmp_path, running, "global", "system.info").returncode == 0
    until(lambda: len(tail.lines) == 2)
    assert tail.stop(how) == 0
    assert [line.split()[1:] for line in tail.lines] == [
        ["task.created", "global", '{"n":1}'],
        ["system.info", "global", "null"],
    ]
    assert tail.lines[0].index("global") == tail.lines[1].index("global")
    assert tail.errors == [f"connected to {url(running)} as dcm-ws-tail, observing global"]


def test_tail_chooses(tmp_path: Path, running: Service) -> None:
    """
    --event, --agent, --grep and channels narrow it; --count ends it; --json gives lines for programs.
    """
    tails = [
        Tail(tmp_path, "--url", url(running), "--json", *options)
        for options in (
            ("--event", "task.*", "--count", "2"),
            ("--agent", "a1", "--count", "1"),
            ("--grep", "NEEDLE", "-n", "1"),
            ("topics/x", "-n", "1"),
        )
    ]
    until(
        lambda: (
            (running.stats()["connectedClients"], subscribers(running), subscribers(running, "topics/x")) == (4, 3, 1)
        )
    )
    text = lines_of(
        {"channel": "global", "event": "system.info", "data": {"x": "a needle"}},
        {"channel": "global", "event": "task.created", "data": {"agent_id": "a1"}},
        {"channel": "topics/x", "event": "task.failed", "data": None},
    )
    assert run(tmp_path, "publish", "--url", url(running), "--lines", "-", stdin=text).returncode == 0
    assert [tail.end() for tail in tails] == [0, 0, 0, 0], [(tail.lines, tail.errors) for tail in tails]
    told = [[json.loads(line)["event"] for line in tail.lines] for tail in tails]
    failed = json.loads(tails[0].lines[1])
    assert (failed["channel"], failed["origin"], "from" in failed) == ("global", "topics/x", False)
    assert told == [["task.created", "task.failed"], ["task.created"], ["system.info"], ["task.failed"]]


def test_tail_of_an_agent(tmp_path: Path, running: Service) -> None:
    """
    --agent also shows what is published on the agent's own channel.
    """
    tail = Tail(tmp_path, "--url", url(running), "--agent", "bob", "--count", "2")
    until(lambda: (subscribers(running, "agents/bob"), subscribers(running)) == (1, 1))
    assert publish(tmp_path, running, "agents/bob", "message.new", '"hi"').returncode == 0
    assert publish(tmp_path, running, "topics/t", "task.created", '{"agent_id": "bob"}').returncode == 0
    assert tail.end() == 0
    assert ["agents/bob" in line for line in tail.lines] == [True, False]


def test_tail_as_its_help_has_it(tmp_path: Path, running: Service) -> None:
    """
    The example of --help works in development as it is printed.
    """
    shown = " ".join(run(tmp_path, "tail", "--help").stdout.split())
    example = "agents/backend topics/deploys --event 'task.*' --event 'subtask.failed'"
    assert f"dcm-ws tail {example}" in shown
    tail = Tail(tmp_path, *shlex.split(example), "--count", "1", DCM_WS_URL=url(running))
    until(lambda: [subscribers(running, name) for name in ("agents/backend", "topics/deploys")] == [1, 1])
    assert publish(tmp_path, running, "agents/backend", "task.created").returncode == 0
    assert tail.end() == 0, tail.errors
    assert tail.errors == [f"connected to {url(running)} as dcm-ws-tail, observing agents/backend, topics/deploys"]


@pytest.mark.parametrize("command", ["tail", "publish"])
def test_commands_leave_what_is_kept_for_an_agent(tmp_path: Path, running: Service, command: str) -> None:
    """
    What is kept for bob is still kept after a command that connected as bob, and bob is never seen by it.
    """
    bob = running.connect()
    ask(bob, type="auth", agent_id="bob", id=1)
    bob.close()
    until(lambda: running.stats()["connectedClients"] == 0)
    watcher = running.connect()
    assert publish(tmp_path, running, "agents/bob", "message.new", '{"n": 1}').returncode == 0
    if command == "tail":
        tail = Tail(tmp_path, "--url", url(running), "--agent-id", "bob", "--count", "1")
        until(lambda: tail.errors)
        assert publish(tmp_path, running, "agents/bob", "message.new", '{"n": 2}').returncode == 0
        assert tail.end() == 0, tail.errors
        assert len(tail.lines) == 1 and '{"n":2}' in tail.lines[0]
    else:
        assert publish(tmp_path, running, "--agent-id", "bob", "agents/bob", "message.new", '{"n": 2}').returncode == 0
    say(watcher, type="publish", channel="global", event="system.info", data="the end")
    seen = set()
    while "system.info" not in seen:
        seen.add(hear(watcher)["event"])
    # neither agent.connected nor agent.disconnected
    assert seen == {"message.new", "system.info"}
    watcher.close()
    bob = running.connect()
    say(bob, type="auth", agent_id="bob", id=1)
    kept: list[int] = []
    while len(kept) < 2:
        frame = hear(bob)
        if frame.get("event") == "message.new" and frame["channel"] == "agents/bob":
            kept.append(frame["data"]["n"])
    assert kept == [1, 2]
    bob.close()


def test_tail_of_what_it_may_not_hear(tmp_path: Path) -> None:
    """
    A refusal names the channel.  If every channel is refused, tail ends with 1.
    """
    with service("--max-subscriptions", "3") as running:
        tail = Tail(tmp_path, "--url", url(running), "topics/a", "topics/b", "topics/c")
        until(lambda: len(tail.errors) == 3)
        refused = {error.partition(":")[0] for error in tail.errors[:2]}
        assert len(refused) == 2 and refused < {"topics/a", "topics/b", "topics/c"}, tail.errors
        assert tail.errors[2].startswith(f"connected to {url(running)} as dcm-ws-tail, observing topics/")
        assert tail.stop() == 0
        tail = Tail(tmp_path, "--url", url(running), "projects")
        assert tail.end() == 1
        assert tail.errors == ["Error: projects: Invalid channel format: projects"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("tail",),
        ("tail", "topics/a", "agents/bob"),
        ("tail", "--agent-id", "bob"),
        ("publish", "global", "system.info"),
        ("bench",),
    ],
)
def test_production_without_a_token(tmp_path: Path, guarded: Service, arguments: tuple[str, ...]) -> None:
    """
    Without a token, production is one line at once that says how to give one.
    """
    done = run(tmp_path, *arguments, "--url", url(guarded))
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and not done.stdout, done
    assert "DCM_WS_TOKEN" in last and "dcm-ws token" in last, done.stderr


def test_tail_where_anybody_may_listen(tmp_path: Path) -> None:
    """
    With --anonymous listen, tail needs a token in production only for the channels of agents.
    """
    with service("--database-url", f"postgresql://dcm@127.0.0.1:{free_port()}/none", "--production",
                 "--anonymous", "listen", env={"WS_AUTH_SECRET": SECRET}, wait="listening on") as running:  # fmt: skip
        tail = Tail(tmp_path, "--url", url(running), "topics/t", "-n", "1")
        until(lambda: tail.errors)
        assert tail.errors == [f"connected to {url(running)} as an anonymous client, observing topics/t"]
        done = run(tmp_path, "publish", "--url", url(running), "topics/t", "task.created", DCM_WS_TOKEN=make_token("a"))
        assert done.returncode == 0, done.stderr
        assert tail.end() == 0 and len(tail.lines) == 1
        assert Tail(tmp_path, "--url", url(running), "agents/bob").end() == 1


@pytest.mark.parametrize("command", [("tail",), ("publish", "global", "system.info"), ("bench", "--yes"), ("top",)])
def test_what_retrying_cannot_help(tmp_path: Path, running: Service, command: tuple[str, ...]) -> None:
    """
    An HTTP status below 500, an unknown host, TLS errors and a redirection to somewhere else end a command at once,
    with 1 and a line that has the URL and the reason.
    """
    secure = f"wss://127.0.0.1:{running.port}/"
    moved = b"HTTP/1.1 301 Moved\r\nLocation: http://away.invalid/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    forbidden = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with (
        another_service(forbidden) as forbidding,
        another_service(answer(b"<html>")) as page,
        another_service(moved) as moving,
    ):
        for where, reason in (
            (forbidding, "HTTP 403 Forbidden"),
            (page, "not a dcm-ws service" if command == ("top",) else "HTTP 200 OK"),
            (moving, "unknown host" if command == ("top",) else "redirects to http://away.invalid/"),
            ("ws://nowhere.invalid/", "unknown host"),
            (secure, "TLS: wrong version number"),
        ):
            done = run(tmp_path, *command, "--url", where)
            last = done.stderr.splitlines()[-1]
            base = where.replace("ws", "http", 1).rstrip("/") if command == ("top",) else where
            assert done.returncode == 1 and "Errno" not in done.stderr and "trying again" not in done.stderr, done
            assert base in last and reason in last, done.stderr


@pytest.mark.parametrize(
    "command", [("tail", "-n", "1"), ("publish", "global", "system.info"), ("bench", "--messages", "1")]
)
def test_nothing_listens_yet(tmp_path: Path, command: tuple[str, ...]) -> None:
    """
    Commands say at once that nothing listens and when they try again, and go on as soon as something does.
    """
    port = free_port()
    where = f"ws://127.0.0.1:{port}/"
    process = start(tmp_path, *command, "--url", where)
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    said = next(line for line in lines if "connections to" not in line)
    assert re.fullmatch(
        rf"nothing listens at {re.escape(where)} \(connection refused\); trying again (?:now|in \d\.\d s)\n", said
    )
    with service("--listen", f"tcp:{port}:interface=127.0.0.1") as running:
        running.port = port
        if command[0] == "tail":
            until(lambda: subscribers(running) == 1)
            assert publish(tmp_path, running, "global", "system.info").returncode == 0
        assert ended(process)[0] == 0


def test_top_without_anybody(tmp_path: Path) -> None:
    """
    top says that nothing listens, in words.
    """
    port = free_port()
    done = run(tmp_path, "top", "--url", f"ws://127.0.0.1:{port}/")
    assert (done.returncode, done.stderr) == (
        1,
        f"Error: nothing listens at http://127.0.0.1:{port} (connection refused)\n",
    )


def test_no_proxy_for_this_machine(tmp_path: Path, running: Service) -> None:
    """
    A proxy in the environment is not asked for a service on this machine.
    """
    proxy = f"http://127.0.0.1:{free_port()}"
    variables = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), proxy)
    for command in (("publish", "global", "system.info"), ("top", "--once"), ("bench", "--messages", "1")):
        for host in ("127.0.0.1", "localhost"):
            done = run(tmp_path, *command, "--url", f"ws://{host}:{running.port}/", **variables, no_proxy="")
            assert done.returncode == 0, done.stderr


def test_tail_without_anybody_to_complain_to(tmp_path: Path) -> None:
    """
    It comes back though nobody reads its standard error, and shows what its terminal has no letters for.
    """
    port = free_port()
    process = subprocess.Popen(
        [PROGRAM, "tail", "--url", f"ws://127.0.0.1:{port}/", "--count", "1"],
        cwd=tmp_path,
        env=clean(tmp_path, PYTHONIOENCODING="ascii"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stderr.close()
    try:
        for _ in range(2):
            with service("--listen", f"tcp:{port}:interface=127.0.0.1", "--drain", "0.1") as running:
                running.port = port
                until(lambda running=running: subscribers(running) == 1, 60)
        with service("--listen", f"tcp:{port}:interface=127.0.0.1") as running:
            running.port = port
            until(lambda running=running: subscribers(running) == 1, 60)
            assert publish(tmp_path, running, "global", "system.info", '"\u4e16"').returncode == 0
            assert process.wait(timeout=20) == 0
        assert r"\u4e16" in process.stdout.read()
    finally:
        process.kill()
        process.stdout.close()


def test_tail_into_a_closed_pipe(tmp_path: Path, running: Service) -> None:
    """
    Whoever reads it may go: it ends with 0 and without a traceback.
    """
    process = subprocess.Popen(
        [PROGRAM, "tail", "--url", url(running)],
        cwd=tmp_path,
        env=clean(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    until(lambda: subscribers(running) == 1)
    process.stdout.close()
    publish(tmp_path, running, "global", "system.info")
    try:
        assert process.wait(timeout=20) == 0
        assert process.stderr.read().splitlines() == [
            f"connected to {url(running)} as dcm-ws-tail, observing global",
        ]
    finally:
        process.kill()
        process.stderr.close()


def test_nothing_that_a_terminal_would_obey_is_printed(tmp_path: Path, running: Service) -> None:
    """
    Escape sequences, C1 controls and what turns text round are written out, on a terminal, too.
    """
    evil = "\x1b]0;owned\x07 \x9b31m \x08\r\n \u202e back \x7f [bold]"
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "tail", "--url", url(running), "--count", "2"],
        cwd=tmp_path,
        env=clean(tmp_path, TERM="xterm-256color", COLUMNS="200"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    # reading ends with the process
    deadline = threading.Timer(60, process.kill)
    deadline.start()
    until(lambda: subscribers(running) == 1)
    line = {"channel": "global", "event": "system.info", "data": {evil: evil}}
    for text in (lines_of(line), lines_of({**line, "data": evil})):
        assert run(tmp_path, "publish", "--url", url(running), "--lines", "-", stdin=text).returncode == 0
    shown = b""
    try:
        while True:
            piece = os.read(master, 65_536)
            shown += piece
    except OSError:  # the other end is closed
        pass
    assert process.wait(timeout=20) == 0
    deadline.cancel()
    os.close(master)
    text = shown.decode()
    assert "owned" in text and "[bold]" in text and "\x1b[" in text, text
    # colours are ours; they end with m
    for piece in text.split("\x1b")[1:]:
        assert piece[0] == "[" and piece[1:].partition("m")[0].replace(";", "").isdigit(), piece
    assert not set(text) & set("\x07\x08\x7f\x9b\u202e")


def test_writing_out() -> None:
    """
    Every control is written out, and other text is left alone.
    """
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x202E, 0x2028, 0xD800):
        assert harmless(chr(code)).isascii() and harmless(chr(code)).isprintable(), code
    assert harmless("Grüße, 世界 \U0001f600") == "Grüße, 世界 \U0001f600"
    assert json.loads(json_line("\x7f\x9b")) == "\x7f\x9b" and json_line("\x7f\x9b").isprintable()


def test_filters() -> None:
    """
    An agent is looked for in the channel, the data and the sender; what comes twice is shown once.
    """
    event = Event("msg_1", "agents/a", "message.new", {"to_agent_id": "b", "text": "Über"}, 0, {})
    assert (
        Filter(agent="a").matches(event) and Filter(agent="b").matches(event) and not Filter(agent="c").matches(event)
    )
    assert Filter(text="über").matches(event) and not Filter(text="unter").matches(event)
    assert Filter(events=("task.*", "message.*")).matches(event) and not Filter(events=("task.*",)).matches(event)
    assert not Filter(channels=("agents/b",)).matches(event)
    mirrored = Event("msg_1", "global", "message.new", None, 0, {"from": "s", "origin": "agents/a"})
    assert Filter(agent="s").matches(mirrored) and not Filter(agent="x").matches(mirrored)
    assert Filter(channels=("global",), agent="a").matches(mirrored) and not Filter(agent="a").matches(mirrored)
    assert not Filter(channels=("global", "agents/a")).matches(mirrored)
    assert fields_of(mirrored)["from"] == "s"
    assert "message.new" in line_of(event).plain


def test_tail_over_restarts(tmp_path: Path) -> None:
    """
    A tail that is left running while the service is restarted misses nothing that was sent while it was connected.
    """
    port, sent = free_port(), []
    tail = Tail(tmp_path, "--url", f"ws://127.0.0.1:{port}/", "--json", "--event", "task.*")
    try:
        for number in range(RESTARTS + 1):
            with service("--listen", f"tcp:{port}:interface=127.0.0.1", "--drain", "0.2") as running:
                running.port = port
                until(lambda running=running: subscribers(running) == 1, 60)
                names = [f"{number}.{one}" for one in range(50)]
                text = lines_of(*({"channel": "topics/r", "event": "task.updated", "data": name} for name in names))
                done = run(tmp_path, "publish", "--url", url(running), "--lines", "-", stdin=text)
                assert done.returncode == 0, done.stderr
                sent += names
                assert running.stop() == 0
        until(lambda: len(tail.lines) >= len(sent))
    finally:
        status = tail.stop()
    got = [json.loads(line)["data"] for line in tail.lines]
    print(f"{RESTARTS} restarts: {len(sent)} sent, {len(got)} shown, {len(set(sent) - set(got))} missing")
    assert (status, got) == (0, sent)
    assert sum(line.startswith("connected again") for line in tail.errors) >= RESTARTS


def test_a_refused_token(tmp_path: Path) -> None:
    """
    Where the service refuses a token, tail ends with 1 and says so; with a good one it goes on.
    """
    with service("--database-url", f"postgresql://dcm@127.0.0.1:{free_port()}/none", "--production",
                 env={"WS_AUTH_SECRET": SECRET}, wait="listening on") as running:  # fmt: skip
        bad = Tail(tmp_path, "--url", url(running), DCM_WS_TOKEN=make_token("a", secret="another"))
        until(lambda: bad.process.poll() is not None)
        assert bad.stop() == 1 and len(bad.errors) == 1, bad.errors
        (tmp_path / "token").write_text(make_token("a") + "\n")
        good = Tail(tmp_path, "--url", url(running), "--token-file", "token", "-n", "1", "--event", "message.*")
        until(lambda: running.stats()["authenticatedClients"] == 1)
        done = run(tmp_path, "publish", "--url", url(running), "global", "message.new", DCM_WS_TOKEN=make_token("b"))
        assert done.returncode == 0, done.stderr
        assert good.end() == 0, (good.lines, good.errors)


def test_a_token_that_expires(tmp_path: Path) -> None:
    """
    If the service ends a connection because its token has expired, tail ends with 1 and says how to get another.
    """
    with service("--database-url", f"postgresql://dcm@127.0.0.1:{free_port()}/none", "--production", "--enforce-expiry",
                 env={"WS_AUTH_SECRET": SECRET}, wait="listening on") as running:  # fmt: skip
        tail = Tail(tmp_path, "--url", url(running), DCM_WS_TOKEN=make_token("a", seconds=6))
        assert tail.end() == 1
    assert tail.errors[0].startswith("connected to ") and len(tail.errors) == 2, tail.errors
    assert "the token has expired; `dcm-ws token NAME` makes another" in tail.errors[1]


@pytest.mark.parametrize("command", [("tail",), ("publish", "global", "system.info"), ("top",), ("bench",)])
def test_what_is_not_a_token(tmp_path: Path, command: tuple[str, ...]) -> None:
    """
    What cannot be a token is an error without a connection, which does not show it; spaces around a token do not count.
    """
    where = f"ws://127.0.0.1:{free_port()}/"
    for name, content in (("lines", b"one\ntwo"), ("letters", "clé".encode()), ("bytes", b"\xff\xfe")):
        (tmp_path / name).write_bytes(content)
        done = run(tmp_path, *command, "--url", where, "--token-file", name)
        assert (done.returncode, done.stderr.splitlines()[-1]) == (
            1,
            f"Error: there is no token in '{name}': a token is one line without spaces",
        )
    done = run(tmp_path, *command, "--url", where, DCM_WS_TOKEN="one two")
    assert done.returncode == 1 and "no token in DCM_WS_TOKEN" in done.stderr and "one two" not in done.stderr
    done = run(tmp_path, *command, "--url", where, "--token-file", "missing")
    assert "cannot read the token from 'missing': No such file or directory\n" in done.stderr


def test_publish(tmp_path: Path, running: Service) -> None:
    """
    DATA comes from the command line or standard input; the id is printed.
    """
    client = running.connect()
    done = publish(tmp_path, running, "global", "system.info", '{"a": [1, "\u00fc"]}')
    frame = hear(client)
    assert (done.returncode, done.stdout.strip()) == (0, frame["id"])
    assert frame["data"] == {"a": [1, "\u00fc"]}
    done = run(tmp_path, "publish", "--url", url(running), "--json", "global", "system.info", "-", stdin="7\n")
    assert hear(client)["data"] == 7
    assert json.loads(done.stdout)["published"] is True


@pytest.mark.parametrize(
    "arguments",
    [(), ("global",), ("global", "a.b", "{no json"), ("agents/", "a.b"), ("global", "no dots"),
     ("global", "a.b", "--lines", "x"), ("--lines", "/none/such"), ("--via", "pigeon", "global", "a.b")],
)  # fmt: skip
def test_publish_what_is_no_good(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """
    A command line that is no good is exit code 2, before anything is connected to.
    """
    done = run(tmp_path, "publish", "--url", "ws://127.0.0.1:1/", *arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr


def test_publish_lines(tmp_path: Path, running: Service) -> None:
    """
    Lines that are no good are told by their number, and the others are published, in their order.
    """
    client = running.connect()
    (tmp_path / "events").write_text(
        '{"channel": "global", "event": "system.info", "data": 1}\n'
        "\n"
        "nonsense\n"
        '{"channel": "nowhere", "event": "system.info"}\n'
        '{"channel": "global", "event": "not.in-catalogue"}\n'
        '{"channel": "global", "event": "system.info", "colour": 1}\n'
        f'{{"channel": "global", "event": "system.info", "data": "{"x" * (1 << 20)}"}}\n'
        '{"channel": "global", "event": "system.info", "data": 2}'
    )
    done = publish(tmp_path, running, "--lines", "events")
    assert done.returncode == 1
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == [
        *("line 3", "line 4", "line 5", "line 6", "line 7"),
        done.stderr.splitlines()[-1].partition(":")[0],
    ]
    assert "2 published, 5 not" in done.stderr
    assert [hear(client)["data"], hear(client)["data"]] == [1, 2]


def start(folder: Path, *arguments: str, stdin: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """
    A command that runs, and whose standard input is ours.
    """
    return subprocess.Popen(
        [PROGRAM, *arguments],
        cwd=folder,
        env=clean(folder),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """
    How it ends by itself, and what it says on standard error until then.
    """
    try:
        return process.wait(timeout=20), process.stderr.read() if process.stderr else ""
    finally:
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


INFO = {"channel": "global", "event": "system.info"}


def test_publish_lines_at_the_rate_limit(tmp_path: Path) -> None:
    """
    What the service has no room for yet is sent again, in its order, and so are the messages of bench.
    """
    with service("--rate-limit", "50/s", "--rate-burst", "3") as running:
        client = running.connect()
        text = lines_of(*({**INFO, "data": number} for number in range(20)))
        done = run(tmp_path, "publish", "--url", url(running), "--lines", "-", stdin=text)
        assert (done.returncode, len(done.stdout.split())) == (0, 20), done.stderr
        assert [hear(client)["data"] for _ in range(20)] == list(range(20))
        arguments = ("--connections", "2", "--messages", "20", "--rate", "1000", "--json")
        done = run(tmp_path, "bench", "--url", url(running), *arguments)
        assert done.returncode == 0, done.stderr
        figures = json.loads(done.stdout)
        assert (figures["received"], figures["waited"] > 0) == (40, True)


def test_a_service_that_is_not_available() -> None:
    """
    It is asked ten times, and then believed.
    """
    asked: list[str] = []

    async def ask() -> str:
        asked.append("")
        if len(asked) == enough:
            return "there"
        raise refusal({"code": "NOT_AVAILABLE", "error": "later", "retry_after_ms": 1})

    enough = ATTEMPTS
    assert asyncio.run(repeat_until_accepted(ask)) == ("there", True)
    asked, enough = [], ATTEMPTS + 1
    with pytest.raises(NotAvailableError):
        asyncio.run(repeat_until_accepted(ask))
    assert len(asked) == ATTEMPTS


def test_publish_waits_for_its_lines(tmp_path: Path) -> None:
    """
    A pipe through which nothing comes does not keep it from answering the service's pings.
    """
    with service("--heartbeat-interval", "0.2", "--heartbeat-timeout", "1") as running:
        process = start(tmp_path, "publish", "--url", url(running), "--lines", "-")
        until(lambda: running.stats()["connectedClients"] == 1)
        # one that came later, and is mute, has been closed
        assert running.connect_raw().close_code() == 4000
        assert process.stdin is not None
        process.stdin.write(lines_of(INFO))
        process.stdin.close()
        process.stdin = None
        status, said = ended(process)
        assert status == 0 and "1 published, 0 not" in said, said


def test_publish_ends_at_once(tmp_path: Path, running: Service) -> None:
    """
    The first Ctrl-C ends it with 130, though nothing comes through the pipe, and it says where to go on.
    """
    process = start(tmp_path, "publish", "--url", url(running), "--lines", "-")
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(lines_of(INFO, INFO) + '{"chan')
    process.stdin.flush()
    assert process.stdout.readline() and process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "2 published, 0 not; stopped at line 3\n")


def test_publish_ends_at_once_before_its_data(tmp_path: Path) -> None:
    """
    Ctrl-C ends with 130 also what still reads DATA.
    """
    process = start(tmp_path, "publish", "global", "system.info", "-")
    assert process.stdin is not None
    # more than a pipe holds: it is being read
    process.stdin.write("1" * 200_000)
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "")


def test_publish_to_a_service_that_goes(tmp_path: Path, running: Service) -> None:
    """
    A lost connection ends it with 1, and it says where to go on.
    """
    process = start(tmp_path, "publish", "--url", url(running), "--lines", "-")
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(lines_of(INFO) + "nonsense\n" + lines_of(INFO))
    assert process.stdout.readline() and process.stdout.readline()
    assert running.stop() == 0
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(lines_of(INFO))
    status, said = ended(process)
    assert status == 1 and "2 published, 1 not; stopped at line 4, which may have been published" in said, said
    assert "Traceback" not in said


def test_publish_a_file_with_a_mark(tmp_path: Path, running: Service) -> None:
    """
    The mark that some editors begin a file with is passed over, in DATA, too.
    """
    client = running.connect()
    (tmp_path / "events").write_text("\ufeff" + lines_of({**INFO, "data": 1}), encoding="utf-8")
    assert publish(tmp_path, running, "--lines", "events").returncode == 0
    done = run(tmp_path, "publish", "--url", url(running), *INFO.values(), "-", stdin="\ufeff2")
    assert done.returncode == 0, done.stderr
    assert [hear(client)["data"], hear(client)["data"]] == [1, 2]


@pytest.mark.parametrize("data", ["NaN", "[Infinity]", "1e999", r'"\ud800"', r'{"\udc00": 1}', "\ud800"])
@pytest.mark.parametrize("via", ["ws", "db"])
def test_publish_what_is_no_json(tmp_path: Path, data: str, via: str) -> None:
    """
    What JSON does not have is refused before anything is connected to.
    """
    nowhere = {"DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    arguments = ("publish", "--via", via, "--url", "ws://127.0.0.1:1/", *INFO.values())
    stdin = None if data == "\ud800" else data
    # an argument that is no UTF-8
    given = data if stdin is None else "-"
    done = run(tmp_path, *arguments, given.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"),
               stdin=stdin, **nowhere)  # fmt: skip
    assert done.returncode == 2 and "DATA is not JSON" in done.stderr and "Traceback" not in done.stderr


def test_publish_lines_that_are_no_json(tmp_path: Path, running: Service, database: PostgresServer) -> None:
    """
    Lines with what JSON does not have are told by their number, without what a terminal would obey.
    """
    text = "".join(
        f'{{"channel": "global", "event": "system.info", {rest}}}\n'
        for rest in ('"data": NaN', '"data": 1e999', r'"data": "\ud800"', '"\\u009b31m\u202e": 1', '"data": \u202e')
    ) + lines_of(INFO)
    for way in (("--url", url(running)), ("--via", "db")):
        done = run(tmp_path, "publish", *way, "--lines", "-", stdin=text, DATABASE_URL=database.url)
        assert done.returncode == 1 and "1 published, 5 not" in done.stderr, done.stderr
        told = done.stderr.splitlines()
        assert [line.partition(":")[0] for line in told[:5]] == [f"line {number}" for number in range(1, 6)]
        assert harmless("".join(told)) == "".join(told)


@pytest.mark.parametrize("sizes", [(1,), (3, 1, 100), (65_536,)])
def test_lines_of_any_length(sizes: tuple[int, ...]) -> None:
    """
    Lines are the same however they come, and of one that is too long a beginning is kept.
    """
    pieces = [b"\xef\xbb\xbfone", b"", b"x" * (LINE_MAX + 70_000) if len(sizes) == 1 and sizes[0] > 1 else b"y" * 99,
              b"\xef\xbb\xbf", b"last"]  # fmt: skip
    whole = b"\n".join(pieces)
    reader, writer = os.pipe()

    def write() -> None:
        with open(writer, "wb", buffering=0) as pipe:
            place = 0
            for size in itertools.cycle(sizes):
                place += pipe.write(whole[place : place + size])
                if place == len(whole):
                    return

    async def read() -> list[Numbered]:
        return [line async for line in numbered(os.fdopen(reader, "rb", buffering=0))]

    thread = threading.Thread(target=write)
    thread.start()
    lines = asyncio.run(read())
    thread.join()
    assert [line.number for line in lines] == [1, 2, 3, 4, 5]
    assert [line.text[: LINE_MAX + 1] for line in lines] == [b"one", *(piece[: LINE_MAX + 1] for piece in pieces[1:])]
    assert all(len(line.text) <= LINE_MAX + 1 + 65_536 for line in lines)
    assert sum(line.size for line in lines) == len(whole)


def test_publish_by_the_database(tmp_path: Path, database: PostgresServer) -> None:
    """
    --via db goes through NOTIFY; what NOTIFY does not take is said.
    """
    with service("--database-url", database.url) as running:
        client = running.connect()
        variables = {"DATABASE_URL": database.url}
        assert run(tmp_path, "publish", "--via", "db", "global", "any.event", '"\u00fc"', **variables).returncode == 0
        assert hear(client)["data"] == "\u00fc"
        big = json.dumps("\u00fc" * 3990)
        done = run(tmp_path, "publish", "--via", "db", "global", "any.event", "-", stdin=big, **variables)
        assert done.returncode == 1 and "NOTIFY takes 7999" in done.stderr


def test_nobody_answers(tmp_path: Path) -> None:
    """
    A database or a service that is not there is one line and exit code 1.
    """
    nowhere = {"DATABASE_URL": f"postgresql://dcm:sesame@127.0.0.1:{free_port()}/x"}
    for arguments in (
        ("publish", "--via", "db", "global", "a.b"),
        ("init-db", "--apply"),
        ("top", "--once", "--url", f"ws://127.0.0.1:{free_port()}"),
    ):
        done = run(tmp_path, *arguments, **nowhere)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "sesame" not in done.stderr, done.stderr
    assert run(tmp_path, "publish", "--via", "db", "global", "a.b").returncode == 1
    assert run(tmp_path, "top", "--url", "nonsense").returncode == 2


def test_top(tmp_path: Path, running: Service) -> None:
    """
    --json gives both reports, --once a page.
    """
    client = running.connect()
    report = json.loads(run(tmp_path, "top", "--json", "--url", url(running)).stdout)
    assert report["health"]["status"] == "healthy" and report["stats"]["connectedClients"] == 1
    ask(client, type="auth", agent_id="ann", id=1)
    ask(client, type="publish", channel="global", event="task.created", id=2)
    say(client, type="nonsense")
    until(lambda: running.stats()["refusals"])
    page = run(tmp_path, "top", "--once", "--url", url(running)).stdout
    rows = [" ".join(line.split()) for line in page.splitlines()]
    assert "agents/ann" in page and any(row.startswith("clients 1 ") for row in rows), page
    for row in ("events of clients 1", "pending deliveries 1", "refused: UNKNOWN_MESSAGE_TYPE 1"):
        assert any(line.startswith(row) for line in rows), page
    client.close()


def test_rates() -> None:
    """
    Rates are reckoned from two reports; what a report lacks is left out, and what could do harm is written out.
    """
    then = {"health": {}, "stats": {"connectedClients": 1, "events": {"client": 10}}}
    now = {
        "health": {"status": "\x1b[31m"},
        "stats": {"connectedClients": 1, "events": {"client": 30}, "agentStats": {"\x9b": 1}, "limits": {"\x07": 2}},
    }
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(screen(now, then, 2.0, "no answer"))
    text = console.export_text()
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert any(row.startswith("events of clients 30 +10.0") for row in rows), text
    assert any(row.startswith("clients 1") for row in rows) and "pending" not in text and "no answer" in text
    assert r"\x1b[31m" in text and r"\x9b" in text and r"limit hit: \x07" in text


@contextlib.contextmanager
def another_service(*answers: bytes, asked: list[bytes] | None = None) -> Iterator[str]:
    """
    What answers each connection with the next of these bytes, whatever it is asked; yields its URL.

    @param asked: gets what it was asked.
    """
    requests = [] if asked is None else asked
    with socket.create_server(("127.0.0.1", 0)) as server:

        def work() -> None:
            for answer in answers:
                with contextlib.suppress(OSError), server.accept()[0] as client:
                    requests.append(client.recv(65_536))
                    client.sendall(answer)
            # nobody shall wait for an answer that does not come
            server.close()

        where = f"ws://127.0.0.1:{server.getsockname()[1]}/"
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        yield where


def answer(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (size, body)


@pytest.mark.parametrize(
    "answers",
    [
        (b"\x1b[31mno HTTP\r\n",),
        (answer(b"<html>"),),
        (b"",),
        (answer(b"{}", 99), answer(b"{}", 99)),
        (answer(b"[" * 100_000),),
        (answer(b"[]"),),
        (answer(b'{"status": "UP"}'), answer(b'{"uptime": 1}')),
    ],
)
def test_top_of_another_service(tmp_path: Path, answers: tuple[bytes, ...]) -> None:
    """
    What is no HTTP, breaks off, or is another service's, is one line and exit code 1.
    """
    with another_service(*answers) as where:
        done = run(tmp_path, "top", "--once", "--url", where)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "does not answer" in done.stderr and "\x1b" not in done.stderr


def test_top_when_a_proxy_says_503(tmp_path: Path) -> None:
    """
    A 503 without a report is an error; with one it is a service that is draining.
    """
    head = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n"
    with another_service(head + b"<html>") as where:
        done = run(tmp_path, "top", "--once", "--url", where)
    assert done.returncode == 1 and "the server answered HTTP 503 Service Unavailable" in done.stderr
    with another_service(head + b'{"status":"draining"}', answer(b'{"connectedClients":7}')) as where:
        done = run(tmp_path, "top", "--once", "--url", where)
    assert done.returncode == 0 and "draining" in done.stdout, done.stderr


def test_top_keeps_its_token_to_itself(tmp_path: Path) -> None:
    """
    A redirection is followed without the token, which is only for the service.
    """
    asked: list[bytes] = []
    with another_service(answer(b"{}"), asked=asked) as elsewhere:
        target = elsewhere.replace("ws", "http", 1).encode()
        moved = b"HTTP/1.1 302 Found\r\nLocation: %s\r\nConnection: close\r\n\r\n" % target
        with another_service(moved, asked=asked) as where:
            run(tmp_path, "top", "--once", "--url", where, DCM_WS_TOKEN="a.b")
    assert [b"a.b" in request for request in asked] == [True, False]


@pytest.mark.parametrize("where", ["ws://127.0.0.1:port/", "ws://[::1", "ws://127.0.0.1:99999/"])
@pytest.mark.parametrize("command", ["top", "bench"])
def test_urls_that_are_none(tmp_path: Path, command: str, where: str) -> None:
    """
    A URL that cannot be read is exit code 2.
    """
    done = run(tmp_path, command, "--url", where)
    assert done.returncode == 2 and "Traceback" not in done.stderr


@pytest.mark.parametrize("odd", ['"x"', "[1]", "NaN", "1e308", "-Infinity", '{"a": "b"}', '{"a": NaN}', "null", "true"])
def test_top_of_odd_values(odd: str) -> None:
    """
    A report with values of the wrong kind is shown without them.
    """
    value = json.loads(odd)
    stats = {
        "connectedClients": 1, "events": value, "channelStats": value, "agentStats": value, "refusals": value,
        "closes": {"a": value}, "pendingDeliveries": value,
    }  # fmt: skip
    report = {"health": {"status": value, "database": value, "uptime_s": value}, "stats": stats}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(screen(report, report, 1.0, ""))
    assert "clients" in console.export_text()


class OnTerminal:
    """
    A C{dcm-ws top} on a terminal of its own, and what it has shown.

    @ivar before: the terminal's settings, as they were.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._master, self._slave = pty.openpty()
        self.before = termios.tcgetattr(self._slave)
        self.shown = b""
        self.process = subprocess.Popen(
            [PROGRAM, "top", *arguments],
            cwd=folder,
            env=clean(folder, TERM="xterm-256color"),
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            preexec_fn=_own_terminal,
        )
        # reading ends with the process
        self._deadline = threading.Timer(60, self.process.kill)
        self._deadline.start()

    def read_until_refreshed(self) -> None:
        while self.shown.count(b"events of clients") < 3:
            self._read()

    def type(self, key: bytes) -> None:
        os.write(self._master, key)

    def end(self) -> int:
        """
        Read on to its end; answers its exit code.
        """
        while self.process.poll() is None:
            if select.select([self._master], [], [], 0.05)[0]:
                self._read()
        while select.select([self._master], [], [], 0)[0]:
            self._read()
        assert termios.tcgetattr(self._slave) == self.before
        self._deadline.cancel()
        os.close(self._slave)
        os.close(self._master)
        return self.process.returncode

    def _read(self) -> None:
        self.shown += os.read(self._master, 65_536)


@pytest.mark.parametrize("how", [b"q", b"\x03", signal.SIGTERM])
def test_top_on_a_terminal(tmp_path: Path, running: Service, how: bytes | signal.Signals) -> None:
    """
    On a terminal it is refreshed until q, Ctrl-C or SIGTERM, and leaves the terminal as it was.
    """
    top = OnTerminal(tmp_path, "--interval", "0.2", "--url", url(running))
    top.read_until_refreshed()
    if isinstance(how, bytes):
        top.type(how)
    else:
        top.process.send_signal(how)
    assert top.end() == 0
    # the other screen, and back; the cursor, too
    assert top.shown.count(b"\x1b[?1049h") == top.shown.count(b"\x1b[?1049l") == 1
    assert top.shown.rindex(b"\x1b[?25h") > top.shown.rindex(b"\x1b[?25l")


def _own_terminal() -> None:
    import fcntl

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_bench(tmp_path: Path, running: Service) -> None:
    """
    It says what it will do, and every event comes to every subscriber.
    """
    arguments = ("--connections", "10", "--messages", "20", "--rate", "100", "--json")
    done = run(tmp_path, "bench", "--url", url(running), *arguments)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["expected"], figures["received"]) == (200, 200)
    assert 0 < figures["latency_p50_ms"] <= figures["latency_p99_ms"] <= figures["latency_max_ms"]
    assert "10 connections" in done.stderr and "200 deliveries" in done.stderr
    assert run(tmp_path, "bench", "--url", "ws://events.invalid/").returncode == 2


def test_bench_in_production(tmp_path: Path, guarded: Service) -> None:
    """
    In production it takes a token of any agent, and not an operator's.
    """
    arguments = ("--connections", "10", "--messages", "20", "--rate", "100", "--json")
    done = run(tmp_path, "bench", "--url", url(guarded), *arguments, DCM_WS_TOKEN=make_token("ann"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["received"] == 200
