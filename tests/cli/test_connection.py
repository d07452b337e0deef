"""
What all commands that are clients do alike: connect, give a token, and retry.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from dcm_ws.cli.connection import ATTEMPTS, repeat_until_accepted
from dcm_ws.client.errors import NotAvailableError, refusal
from tests.cli.commands import Tail, another_service, answer, ended, publish, start, subscribers, url
from tests.cli.running import run
from tests.integration.clients import ask, hear, say
from tests.integration.machine import free_port, until
from tests.integration.running import Service, service

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("command", ["tail", "publish"])
def test_commands_leave_what_is_kept_for_an_agent(tmp_path: Path, running: Service, command: str) -> None:
    """
    A command that connects as bob takes nothing of what is kept for bob, and no client is notified that bob connected.
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
    Without a token, production is an error at once, which says how to give a token.
    """
    done = run(tmp_path, *arguments, "--url", url(guarded))
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and not done.stdout, done
    assert "DCM_WS_TOKEN" in last and "dcm-ws token" in last, done.stderr


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
    Commands report at once that nothing listens and when they try again, and continue as soon as a service listens.
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


def test_proxies_are_not_used_for_this_machine(tmp_path: Path, running: Service) -> None:
    """
    A proxy that the environment names is not used for a service on this machine.
    """
    proxy = f"http://127.0.0.1:{free_port()}"
    variables = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), proxy)
    for command in (("publish", "global", "system.info"), ("top", "--once"), ("bench", "--messages", "1")):
        for host in ("127.0.0.1", "localhost"):
            done = run(tmp_path, *command, "--url", f"ws://{host}:{running.port}/", **variables, no_proxy="")
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [("tail",), ("publish", "global", "system.info"), ("top",), ("bench",)])
def test_invalid_tokens(tmp_path: Path, command: tuple[str, ...]) -> None:
    """
    A text that cannot be a token is an error before it connects, which does not show the text.
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


def test_a_service_that_is_not_available() -> None:
    """
    A request is repeated up to ten times.
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


def test_unreachable(tmp_path: Path) -> None:
    """
    If the database or the service does not answer, the command ends with 1 and one line.
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


@pytest.mark.parametrize("where", ["ws://127.0.0.1:port/", "ws://[::1", "ws://127.0.0.1:99999/"])
@pytest.mark.parametrize("command", ["top", "bench"])
def test_invalid_urls(tmp_path: Path, command: str, where: str) -> None:
    """
    An invalid URL is invalid usage.
    """
    done = run(tmp_path, command, "--url", where)
    assert done.returncode == 2 and "Traceback" not in done.stderr
