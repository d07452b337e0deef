"""
dcm-ws tail, connected to real services.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import threading
from datetime import datetime
from pathlib import Path

import pytest

from dcm_ws.cli import tail_since
from dcm_ws.cli.event_lines import fields_of
from dcm_ws.cli.tail_filter import Filter
from dcm_ws.cli.tail_output import Printer, Style, line_of
from dcm_ws.client import Event, Gap
from tests.cli.commands import Tail, lines_of, publish, subscribers, url
from tests.cli.running import PROGRAM, clean, run
from tests.forking import Popen
from tests.integration.databases import UNREACHABLE
from tests.integration.machine import free_port, until
from tests.integration.running import Service, production_service, service
from tests.integration.tokens import make_token

pytestmark = pytest.mark.integration

RESTARTS = int(os.environ.get("DCM_WS_TAIL_RESTARTS", "3"))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_tail_shows_and_ends(tmp_path: Path, running: Service, how: signal.Signals) -> None:
    """
    Events are printed as lines, in columns.  It first says where it is connected; Ctrl-C and SIGTERM end it with 0.
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
    --event, --exclude, --agent, --grep and channels choose the events; --count ends it; --json prints JSON lines.
    """
    tails = [
        Tail(tmp_path, "--url", url(running), "--json", *options)
        for options in (
            ("--event", "task.*", "--count", "2"),
            ("--agent", "a1", "--count", "1"),
            ("--grep", "NEEDLE", "-n", "1"),
            ("topics/x", "-n", "1"),
            ("--exclude", "*.info", "--exclude", "*.created", "--count", "1"),
        )
    ]
    until(
        lambda: (
            (running.stats()["connectedClients"], subscribers(running), subscribers(running, "topics/x")) == (5, 4, 1)
        )
    )
    text = lines_of(
        {"channel": "global", "event": "system.info", "data": {"x": "a needle"}},
        {"channel": "global", "event": "task.created", "data": {"agent_id": "a1"}},
        {"channel": "topics/x", "event": "task.failed", "data": None},
    )
    assert run(tmp_path, "publish", "--url", url(running), "--lines", "-", stdin=text).returncode == 0
    assert [tail.end() for tail in tails] == [0] * 5, [(tail.lines, tail.errors) for tail in tails]
    told = [[json.loads(line)["event"] for line in tail.lines] for tail in tails]
    failed = json.loads(tails[0].lines[1])
    assert (failed["channel"], failed["origin"], "from" in failed) == ("global", "topics/x", False)
    assert told == [
        ["task.created", "task.failed"],
        ["task.created"],
        ["system.info"],
        ["task.failed"],
        ["task.failed"],
    ]


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
    The example in --help works in development as it is printed.
    """
    shown = " ".join(run(tmp_path, "tail", "--help").stdout.split())
    example = "agents/backend topics/deploys --event 'task.*' --event 'subtask.failed'"
    assert f"dcm-ws tail {example}" in shown
    tail = Tail(tmp_path, *shlex.split(example), "--count", "1", DCM_WS_URL=url(running))
    until(lambda: [subscribers(running, name) for name in ("agents/backend", "topics/deploys")] == [1, 1])
    assert publish(tmp_path, running, "agents/backend", "task.created").returncode == 0
    assert tail.end() == 0, tail.errors
    assert tail.errors == [f"connected to {url(running)} as dcm-ws-tail, observing agents/backend, topics/deploys"]


def test_refused_channels(tmp_path: Path) -> None:
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


def test_anonymous_tail(tmp_path: Path) -> None:
    """
    With --anonymous listen, tail needs a token in production only for the channels of agents.
    """
    with production_service(UNREACHABLE, "--anonymous", "listen") as running:
        tail = Tail(tmp_path, "--url", url(running), "topics/t", "-n", "1")
        until(lambda: tail.errors)
        assert tail.errors == [f"connected to {url(running)} as an anonymous client, observing topics/t"]
        done = run(tmp_path, "publish", "--url", url(running), "topics/t", "task.created", DCM_WS_TOKEN=make_token("a"))
        assert done.returncode == 0, done.stderr
        assert tail.end() == 0 and len(tail.lines) == 1
        assert Tail(tmp_path, "--url", url(running), "agents/bob").end() == 1


def test_closed_standard_error(tmp_path: Path) -> None:
    """
    It reconnects although its standard error is closed, and escapes characters that its terminal does not have.
    """
    port = free_port()
    process = Popen(
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


def test_closed_pipe(tmp_path: Path, running: Service) -> None:
    """
    If the reader of its output ends, it ends with 0 and without a traceback.
    """
    process = Popen(
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


def test_control_characters_are_escaped(tmp_path: Path, running: Service) -> None:
    """
    Escape sequences, C1 controls and text-direction marks are printed escaped, on a terminal, too.
    """
    evil = "\x1b]0;owned\x07 \x9b31m \x08\r\n \u202e back \x7f [bold]"
    master, slave = pty.openpty()
    process = Popen(
        [PROGRAM, "tail", "--url", url(running), "--count", "2"],
        cwd=tmp_path,
        env=clean(tmp_path, TERM="xterm-256color", COLUMNS="200"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    # reading ends when the process ends
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
    # colours are from tail itself; their sequences end with m
    for sequence in text.split("\x1b")[1:]:
        assert sequence[0] == "[" and sequence[1:].partition("m")[0].replace(";", "").isdigit(), sequence
    assert not set(text) & set("\x07\x08\x7f\x9b\u202e")


def test_filters() -> None:
    """
    An agent is looked for in the channel, the data and the sender; an event that comes twice is shown once.
    """
    event = Event("msg_1", "agents/a", "message.new", {"to_agent_id": "b", "text": "Über"}, 0, {})
    assert (
        Filter(agent="a").matches(event) and Filter(agent="b").matches(event) and not Filter(agent="c").matches(event)
    )
    assert Filter(text="über").matches(event) and not Filter(text="unter").matches(event)
    assert Filter(events=("task.*", "message.*")).matches(event) and not Filter(events=("task.*",)).matches(event)
    assert not Filter(channels=("agents/b",)).matches(event)
    assert not Filter(events=("message.*",), excluded=("*.new", "task.*")).matches(event)
    assert Filter(excluded=("task.*",)).matches(event)
    mirrored = Event("msg_1", "global", "message.new", None, 0, {"from": "s", "origin": "agents/a"})
    assert Filter(agent="s").matches(mirrored) and not Filter(agent="x").matches(mirrored)
    assert Filter(channels=("global",), agent="a").matches(mirrored) and not Filter(agent="a").matches(mirrored)
    assert not Filter(channels=("global", "agents/a")).matches(mirrored)
    assert fields_of(mirrored)["from"] == "s"
    assert "message.new" in line_of(event, Style()).plain


def test_lines() -> None:
    """
    What --grep looks for is marked wherever it is in the data, whatever its case, and --date adds the date.
    """
    when = datetime(2026, 5, 1, 12, 0).timestamp() * 1000
    event = Event("msg_1", "topics/t", "message.new", {"text": "Timeout [red] timeout"}, round(when), {})
    line = line_of(event, Style(found="TIMEOUT", dated=True))
    assert line.plain.startswith("2026-05-01 12:00:00.000 message.new ")
    marked = [line.plain[span.start : span.end] for span in line.spans if span.style == "black on yellow"]
    assert marked == ["Timeout", "timeout"]
    assert "[red]" in line.plain
    assert not [span for span in line_of(event, Style(found="[x")).spans if span.style == "black on yellow"]


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("terminal", [True, False])
def test_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cut: bool, terminal: bool) -> None:
    """
    With --cut, a terminal shows each event in one line; what is not a terminal gets the whole event.
    """
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    event = Event("msg_1", "topics/t", "message.new", {"text": "word " * 40}, 0, {})
    assert Printer(None, Style(cut=cut), lambda: None).print(event)
    plain = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)
    if cut and terminal:
        assert len(plain) == 61 and plain.endswith("…\n") and plain.count("\n") == 1
    else:
        assert plain.endswith('word "}\n') and plain.count("\n") == 1


def test_restarts_of_the_service(tmp_path: Path) -> None:
    """
    While the service is restarted, it misses no event that was sent while it was connected, and says that the service
    has another log each time.
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
        until(lambda: len(tail.lines) >= len(sent) + RESTARTS)
    finally:
        status = tail.stop()
    items = [json.loads(line) for line in tail.lines]
    got = [item["data"] for item in items if "event" in item]
    assert [item["reason"] for item in items if item.get("type") == "gap"] == ["epoch"] * RESTARTS
    print(f"{RESTARTS} restarts: {len(sent)} sent, {len(got)} shown, {len(set(sent) - set(got))} missing")
    assert (status, got) == (0, sent)
    assert sum(line.startswith("connected again") for line in tail.errors) >= RESTARTS


def test_a_refused_token(tmp_path: Path) -> None:
    """
    If the service refuses its token, tail ends with 1 and says so; with a valid token it shows events.
    """
    with production_service() as running:
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
    with production_service(UNREACHABLE, "--enforce-expiry") as running:
        tail = Tail(tmp_path, "--url", url(running), DCM_WS_TOKEN=make_token("a", seconds=6))
        assert tail.end() == 1
    assert tail.errors[0].startswith("connected to ") and len(tail.errors) == 2, tail.errors
    assert "the token has expired; `dcm-ws token NAME` makes another" in tail.errors[1]


@pytest.mark.parametrize(
    ("text", "start", "seconds"),
    [
        ("30s", "0", 30),
        ("10m", "0", 600),
        ("1.5h", "0", 5400),
        ("1d", "0", 86_400),
        ("118", "118", None),
        ("k3v9x2mt.118", "k3v9x2mt.118", None),
    ],
)
def test_where_it_begins(text: str, start: str, seconds: float | None) -> None:
    """
    --since takes a period, a position, or a position with its epoch.
    """
    assert tail_since.read(text) == tail_since.Since(start, seconds)


@pytest.mark.parametrize("text", ["", "yesterday", "10x", "-5", ".5", "k3.", "a b.5", "10 m", "1.2.3"])
def test_where_it_cannot_begin(text: str) -> None:
    """
    Anything else is a usage error that names the formats.
    """
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        tail_since.read(text)


def test_invalid_since(tmp_path: Path) -> None:
    """
    The error of the command says what is allowed.
    """
    done = run(tmp_path, "tail", "--since", "yesterday")
    assert done.returncode == 2
    assert "neither a period (30s, 10m, 2h, 1d) nor a position (POS or EPOCH.POS)" in " ".join(done.stderr.split())


def test_window() -> None:
    """
    With a period, older events of the log are left out; a gap is shown only if the log does not reach back so far.
    """
    greeting = {"timestamp": 1_700_000_600_000, "pos": 5}
    gap = Gap("expired", 2, "k3", 5)

    def event(pos: int | None, seconds: int) -> Event:
        return Event("m", "global", "task.created", None, 1_700_000_000_000 + seconds * 1000, {"pos": pos})

    window = tail_since.Window(tail_since.read("5m"))
    assert window.choose(gap, greeting) == []
    assert window.choose(event(2, 299), greeting) == []
    assert window.choose(event(3, 300), greeting) == [event(3, 300)]
    # new events, whatever their time
    assert window.choose(event(6, 0), greeting) == [event(6, 0)]
    assert window.choose(event(None, 0), greeting) == [event(None, 0)]
    assert window.choose(Gap("epoch", 1, "k4", 0), greeting) == [Gap("epoch", 1, "k4", 0)]
    window = tail_since.Window(tail_since.read("5m"))
    assert window.choose(gap, greeting) == []
    assert window.choose(event(2, 400), greeting) == [gap, event(2, 400)]
    assert tail_since.Window(None).choose(gap, greeting) == [gap]


def test_since(tmp_path: Path) -> None:
    """
    --since shows what is in the log, and then new events, each once; a position of another log is a gap.
    """
    with service() as running:
        names = [str(number) for number in range(4)]
        text = lines_of(*({"channel": "topics/s", "event": "session.created", "data": name} for name in names))
        assert run(tmp_path, "publish", "--url", url(running), "--lines", "-", stdin=text).returncode == 0
        client = running.connect()
        epoch = client.connected["epoch"]
        tails = [
            Tail(tmp_path, "--url", url(running), "--json", "--since", since, "topics/s")
            for since in ("0", "10m", "2", f"{epoch}.3", "old.3", "9")
        ]
        until(lambda: subscribers(running, "topics/s") == len(tails))
        assert publish(tmp_path, running, "topics/s", "session.created", '"new"').returncode == 0
        until(lambda: all('"new"' in "".join(tail.lines) for tail in tails), 60)
        assert [tail.stop() for tail in tails] == [0] * len(tails)
    items = [[json.loads(line) for line in tail.lines] for tail in tails]
    got = [[item["data"] if "event" in item else item["reason"] for item in one] for one in items]
    assert got == [
        [*names, "new"],
        [*names, "new"],
        ["2", "3", "new"],
        ["3", "new"],
        ["epoch", *names, "new"],
        ["ahead", "new"],
    ]
    assert [item["pos"] for item in items[0]] == [1, 2, 3, 4, 5]


def test_since_before_the_log(tmp_path: Path) -> None:
    """
    If the log does not reach back as far, a line says so, and the rest follows.
    """
    with service("--max-recent-events", "64") as running:
        text = lines_of(*({"channel": "topics/s", "event": "session.created", "data": one} for one in range(100)))
        assert run(tmp_path, "publish", "--url", url(running), "--lines", "-", stdin=text).returncode == 0
        tail = Tail(tmp_path, "--url", url(running), "--since", "5", "topics/s")
        until(lambda: len(tail.lines) > 20)
        until(lambda: tail.lines[-1].endswith(" 99"))
        assert tail.stop() == 0
    assert tail.lines[0] == "--- gap: events may be missing: the server no longer keeps them ---"
    numbers = [int(line.split()[-1]) for line in tail.lines[1:]]
    assert numbers == list(range(numbers[0], 100)) and numbers[0] > 5
