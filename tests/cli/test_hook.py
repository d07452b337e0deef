"""
dcm-ws hook, as a coding agent runs it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from dcm_ws.cli.hook_events import FULL_MAX, KINDS, TEXT_MAX, event_of
from dcm_ws.cli.outbox import spool_of
from tests.cli.commands import start, url
from tests.cli.running import PROGRAM, clean, run
from tests.event_types import fits
from tests.forking import Popen
from tests.integration.machine import ROOT, debian_command, free_port
from tests.integration.running import Service, service
from tests.integration.tokens import make_token

pytestmark = pytest.mark.integration

COMMON = {
    "session_id": "3f1c9a52-0d7e-4d7e-9f3b-2a4d5e6f7a8b",
    "transcript_path": "/home/me/.claude/projects/x/3f1c9a52.jsonl",
    "cwd": "/home/me/secret-client/shop",
    "permission_mode": "default",
}
CHANNEL = f"sessions/{COMMON['session_id']}"


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    with service() as started:
        yield started


def hook(
    folder: Path, where: str, name: str, *arguments: str, stdin: str | None = None, **fields: Any
) -> subprocess.CompletedProcess[str]:
    """
    Run a hook, which must succeed and print nothing.
    """
    text = json.dumps(COMMON | {"hook_event_name": name} | fields) if stdin is None else stdin
    done = run(folder, "hook", "--url", where, *arguments, stdin=text, XDG_STATE_HOME=str(folder / "state"))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return done


def flush(folder: Path, where: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "hook", "--flush", "--url", where, *arguments, XDG_STATE_HOME=str(folder / "state"))


def hear(client: ClientConnection, channel: str = CHANNEL) -> dict[str, Any]:
    """
    The next event of a channel.
    """
    while True:
        message: dict[str, Any] = json.loads(client.recv(timeout=20))
        if channel in (message.get("channel"), message.get("origin")):
            return message


def test_a_session(tmp_path: Path, shared: Service) -> None:
    """
    A session from its beginning to its end, as others see it.
    """
    hooks: list[tuple[str, dict[str, Any]]] = [
        ("SessionStart", {"source": "startup", "model": "large"}),
        (
            "PostToolUse",
            {"tool_name": "Bash", "tool_use_id": "t1", "tool_input": {"command": "x"}, "tool_response": {}},
        ),
        ("SubagentStart", {"agent_id": "sub-1", "agent_type": "Explore"}),
        ("SubagentStop", {"agent_id": "sub-1", "agent_type": "Explore", "stop_hook_active": False}),
        ("Notification", {"message": "may I?", "notification_type": "permission_prompt"}),
        ("SessionEnd", {"reason": "logout"}),
    ]
    with shared.connect("/?observer=1") as client:
        for name, fields in hooks:
            assert hook(tmp_path, url(shared), name, "--agent-id", "backend", **fields).stderr == ""
        events = [hear(client) for _ in hooks]
    assert all(fits(event["event"], event["data"], "hook") for event in events)
    common = {"agent_id": "backend", "session_id": COMMON["session_id"], "project": "shop"}
    assert [(event["event"], event["data"].pop("hook"), event["data"].pop("at") > 10**12) for event in events] == [
        ("session.created", "SessionStart", True),
        ("agent.heartbeat", "PostToolUse", True),
        ("subtask.running", "SubagentStart", True),
        ("subtask.completed", "SubagentStop", True),
        ("agent.blocked", "Notification", True),
        ("session.ended", "SessionEnd", True),
    ]
    assert [event["data"] for event in events] == [
        common | {"source": "startup", "model": "large"},
        common | {"tool_name": "Bash", "tool_use_id": "t1"},
        common | {"id": "sub-1", "agent_type": "Explore"},
        common | {"id": "sub-1", "agent_type": "Explore"},
        common | {"message": "may I?", "notification_type": "permission_prompt"},
        common | {"reason": "logout"},
    ]
    assert not (tmp_path / "state").exists()


def test_while_the_service_is_away(tmp_path: Path) -> None:
    """
    Events are kept while the service is away, except what is of no use later, and come in order before the next one,
    each once, also if the answer to an earlier attempt was lost.
    """
    port = free_port()
    where = f"ws://127.0.0.1:{port}/"
    for number in range(3):
        assert "does not answer" in hook(tmp_path, where, "SubagentStart", agent_id=str(number)).stderr
    hook(tmp_path, where, "PostToolUse", tool_name="Bash")
    [spool] = (tmp_path / "state").rglob("*.jsonl")
    kept = spool.read_bytes()
    assert kept.count(b"\n") == 3
    with service("--ws-port", str(port)) as running, running.connect("/?observer=1") as client:
        hook(tmp_path, where, "SubagentStart", agent_id="3")
        assert not spool.exists()
        # as if it had been killed before it removed what it had sent
        spool.write_bytes(kept)
        hook(tmp_path, where, "SubagentStart", agent_id="4")
        assert [hear(client)["data"]["id"] for _ in range(5)] == ["0", "1", "2", "3", "4"]
        assert running.stats()["keys"]["duplicates"] == 3


def test_flush(tmp_path: Path) -> None:
    """
    --flush sends what is kept, says how much that was, and fails if something is left.
    """
    port = free_port()
    where = f"ws://127.0.0.1:{port}/"
    for number in range(2):
        hook(tmp_path, where, "SubagentStart", agent_id=str(number))
    done = flush(tmp_path, where)
    assert done.returncode == 1 and "0 published, 0 refused, 0 dropped before, 2 left" in done.stderr
    with service("--ws-port", str(port)):
        done = flush(tmp_path, where)
        assert done.returncode == 0 and "2 published, 0 refused, 0 dropped before, 0 left" in done.stderr
        # another agent has others
        assert "0 published" in flush(tmp_path, where, "--agent-id", "other").stderr


def test_several_at_once(tmp_path: Path) -> None:
    """
    Hooks that run at the same time lose nothing and publish nothing twice.
    """
    port = free_port()
    where = f"ws://127.0.0.1:{port}/"

    def at_once(numbers: range) -> None:
        processes = [
            Popen(
                [PROGRAM, "hook", "--url", where],
                env=clean(tmp_path, XDG_STATE_HOME=str(tmp_path / "state")),
                stdin=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for _ in numbers
        ]
        for number, process in zip(numbers, processes, strict=True):
            assert process.stdin is not None
            with process.stdin:
                json.dump(COMMON | {"hook_event_name": "SubagentStart", "agent_id": str(number)}, process.stdin)
        # after all have their input: they do not wait long for it
        for process in processes:
            assert process.wait(60) == 0

    at_once(range(6))
    with service("--ws-port", str(port)) as running, running.connect("/?observer=1") as client:
        at_once(range(6, 12))
        flush(tmp_path, where)
        heard = sorted(int(hear(client)["data"]["id"]) for _ in range(12))
        assert heard == list(range(12))
        assert running.stats()["events"]["client"] == 12


@pytest.mark.parametrize(
    "stdin",
    [
        "",
        "{",
        "[]",
        "null",
        '{"hook_event_name":{}}',
        '{"hook_event_name":"Future"}',
        "[" * 200_000,
        "\ufeff{}",
        '"\\ud800"',
    ],
)
def test_bad_input(tmp_path: Path, shared: Service, stdin: str) -> None:
    """
    Whatever is on standard input, the agent goes on.
    """
    done = hook(tmp_path, url(shared), "", stdin=stdin)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--no-such-option",),
        ("extra",),
        ("--channel", "topics/"),
        ("--url", "ftp://x/"),
        ("--url", "ws://[/"),
        ("--token-file", "/does/not/exist"),
        ("--channel",),
    ],
)
def test_bad_usage(tmp_path: Path, shared: Service, arguments: tuple[str, ...]) -> None:
    """
    A mistake in the settings is reported, and does not block the agent, as the exit status 2 would.
    """
    done = hook(tmp_path, url(shared), "SessionEnd", *arguments)
    assert done.stderr.startswith("dcm-ws hook: ") and len(done.stderr.splitlines()) == 1


def test_no_place_for_the_spool(tmp_path: Path) -> None:
    """
    If events cannot be kept either, the agent goes on.
    """
    (tmp_path / "state").write_text("a file")
    done = hook(tmp_path, f"ws://127.0.0.1:{free_port()}/", "SessionEnd")
    assert "NotADirectoryError" in done.stderr or "FileExistsError" in done.stderr


def test_input_without_end(tmp_path: Path, shared: Service) -> None:
    """
    If standard input stays open, it gives up after a second.
    """
    process = start(tmp_path, "hook", "--url", url(shared))
    assert process.wait(timeout=60) == 0
    assert process.stderr is not None and "did not end" in process.stderr.read()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def test_a_service_that_hangs(tmp_path: Path) -> None:
    """
    If the service accepts connections and does not answer, the first hook gives up in time for the end of a session,
    and the next one does not even try.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"ws://127.0.0.1:{server.getsockname()[1]}/"
        assert "no answer in" in hook(tmp_path, where, "SessionStart").stderr
        assert hook(tmp_path, where, "SessionEnd").stderr == ""
    [spool] = (tmp_path / "state").rglob("*.jsonl")
    assert spool.read_bytes().count(b"\n") == 2


def test_with_a_token(tmp_path: Path) -> None:
    """
    In production the token says which agent it is; what a token does not allow is dropped, and an expired token keeps
    events until there is another.
    """
    from tests.integration.databases import TOOLS, postgres

    with postgres(TOOLS) as database:
        secret = "0123456789abcdef0123456789abcdef-hook"
        env = {"WS_AUTH_SECRET": secret, "DATABASE_URL": database.url}
        with service("--production", env=env) as running:
            token = make_token("owner", secret=secret)
            observer = make_token("watcher", secret=secret)
            with running.connect(f"/?observer=1&token={observer}") as client:
                variables = {"XDG_STATE_HOME": str(tmp_path / "state")}
                text = json.dumps(COMMON | {"hook_event_name": "SessionEnd"})
                expired = make_token("owner", secret=secret, seconds=-10)
                for one in (expired, token):
                    done = run(tmp_path, "hook", "--url", url(running), stdin=text, DCM_WS_TOKEN=one, **variables)
                    assert (done.returncode, done.stdout) == (0, "")
                events = [hear(client) for _ in range(2)]
    assert [(event["from"], event["data"]["agent_id"]) for event in events] == [("owner", "owner")] * 2


def test_what_it_imports(tmp_path: Path) -> None:
    """
    It starts quickly because it imports little.
    """
    done = subprocess.run(
        [sys.executable, "-X", "importtime", PROGRAM, "hook", "--url", f"ws://127.0.0.1:{free_port()}/"],
        env=clean(tmp_path, XDG_STATE_HOME=str(tmp_path)),
        input=json.dumps(COMMON | {"hook_event_name": "SessionEnd"}),
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "dcm_ws.cli.hook_events" in imported
    heavy = {"asyncio", "twisted", "autobahn", "rich", "websockets", "msgspec", "http.client", "urllib.request", "ssl"}
    heavy |= {"platformdirs", "importlib.metadata", "encodings.idna", "difflib"}
    assert not imported & heavy


def test_with_curl(tmp_path: Path, shared: Service) -> None:
    """
    The hook of the page, which needs only curl, sends what the coding agent writes, and prints nothing.
    """
    page = (ROOT / "docs" / "agents.md").read_text()
    [command] = re.findall(r"^```sh\n(.*curl .*)\n```$", page, re.M)
    variables = {"DCM_WS_HTTP": f"http://127.0.0.1:{shared.port}", "DCM_WS_TOKEN": ""}
    debian_command("curl")
    with shared.connect("/?observer=1") as client:
        for where in (variables, {"DCM_WS_HTTP": f"http://127.0.0.1:{free_port()}"}):
            done = subprocess.run(
                ["sh", "-c", command],
                env=clean(tmp_path, **where),
                input=json.dumps(COMMON | {"hook_event_name": "Stop", "x": "'\"$(exit 2)\\"}),
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode, done.stdout) == (0, ""), done.stderr
        event = hear(client, "topics/hooks")
    assert event["event"] == "system.info" and event["data"]["x"] == "'\"$(exit 2)\\"


def _event_of(**fields: Any) -> dict[str, Any] | None:
    return event_of(fields, agent=None, channel=None, full=False, now_ms=1, key="k")


def test_what_is_no_event() -> None:
    """
    A session that goes on after its context was compacted has not begun, and some notifications need no answer.
    """
    assert _event_of(hook_event_name="SessionStart", source="compact") is None
    assert _event_of(hook_event_name="SessionStart", source="resume") is not None
    assert _event_of(hook_event_name="Notification", notification_type="auth_success") is None
    # as older versions send it
    assert _event_of(hook_event_name="Notification", message="x") is not None


@pytest.mark.parametrize(
    "session,channel",
    [
        ("abc", "sessions/abc"),
        ("équipe 1", "sessions/équipe 1"),
        ("a\nb", "global"),
        ("", "global"),
        ("x" * 129, "global"),
        (None, "global"),
        (7, "global"),
    ],
)
def test_the_channel_of_a_session(session: object, channel: str) -> None:
    """
    A session that cannot be a channel publishes on global.
    """
    event = _event_of(hook_event_name="SessionEnd", session_id=session)
    assert event is not None and event["channel"] == channel


def test_what_is_sent() -> None:
    """
    Inputs, results and prompts are only sent with --full, and cut; other texts are cut, and what is not text is left
    out.
    """
    fields = {
        "hook_event_name": "PostToolUse",
        "tool_name": "x" * (TEXT_MAX + 1),
        "tool_use_id": 7,
        "tool_input": {"a": 1},
        "tool_response": "y" * FULL_MAX,
        "agent_id": "sub",
    }
    plain = event_of(fields, agent="a", channel="topics/t", full=False, now_ms=5, key="k")
    data = {"hook": "PostToolUse", "at": 5, "agent_id": "a", "subagent_id": "sub", "tool_name": "x" * TEXT_MAX + "…"}
    assert plain == {"channel": "topics/t", "event": "agent.heartbeat", "data": data, "key": "k"}
    full = event_of(fields, agent="a", channel="topics/t", full=True, now_ms=5, key="k")
    assert full is not None
    response = '"' + "y" * (FULL_MAX - 1) + "…"
    assert full["data"] == data | {"tool_input": {"a": 1}, "tool_response": response}
    for name in KINDS:
        event = event_of({"hook_event_name": name}, agent=None, channel=None, full=True, now_ms=1, key="k")
        assert event is not None and event["data"]["hook"] == name
        texts = dict.fromkeys(("cwd", "agent_id", *KINDS[name].fields, *KINDS[name].full), "x")
        full_hook = texts | {"hook_event_name": name, "session_id": "s", "notification_type": "idle_prompt"}
        event = event_of(full_hook, agent="a", channel=None, full=True, now_ms=1, key="k")
        assert event is not None and fits(event["event"], event["data"], "hook")


def test_the_spools_of_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each agent has its own spool for each service.
    """
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    spool_of("http://a", None).add(b"{}")
    assert spool_of("http://a", None).count() == 1
    assert [spool_of(*key).count() for key in (("http://a", "x"), ("http://b", None))] == [0, 0]
    assert os.listdir(tmp_path) == ["dcm-ws"]
