"""
docs/identity.md: its tables and its token endpoints do what the page says.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from dcm_ws.protocol.tokens import sign
from tests.integration.clients import Client, answer_to, ask, hear, say
from tests.integration.databases import PostgresServer
from tests.integration.machine import PATIENCE, free_port, until
from tests.integration.running import Service, production_service
from tests.integration.tokens import SECRET, make_token

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[2] / "docs" / "identity.md").read_text()

TOKENS: dict[str, Callable[[], str]] = {
    "none": lambda: "",
    "forged, expired or revoked": lambda: "",
    "no scope": lambda: make_token("ann"),
    "empty": lambda: scoped(),
    "`subscribe:topics/*`": lambda: scoped("subscribe:topics/*"),
    "`publish:topics/*:task.*`": lambda: scoped("publish:topics/*:task.*"),
    "`subscribe:global`": lambda: scoped("subscribe:global"),
    "`subscribe:global` `subscribe:agents/*`": lambda: scoped("subscribe:global", "subscribe:agents/*"),
    "`operator`": lambda: scoped("operator"),
}
"""
The columns of the table.
"""

REVOKED = "ann-revoked"


def scoped(*scope: str, agent: str = "ann", seconds: float = 3600) -> str:
    return sign(SECRET, agent, None, time.time_ns() // 1_000_000, int(seconds * 1000), scope)


class Trial:
    """
    Tries what a token allows on a running service.

    @param token: empty for none.
    @param boss: an operator that publishes.
    """

    def __init__(self, service: Service, token: str, boss: Client) -> None:
        self._service = service
        self._token = token
        self._boss = boss
        self._client = service.connect()
        if token:
            # without success it stays a stranger
            ask(self._client, type="auth", token=token, id="in")

    def _ask(self, **message: Any) -> bool:
        say(self._client, **message, id="ask")
        return bool(answer_to(self._client, "ask")["success"])

    def _http(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self._service.port}{path}"
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                request, timeout=PATIENCE
            ) as response:
                return response.status, json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def _called(self, method: str, path: str, body: object = None) -> bool:
        status, _ = self._http(method, path, body)
        assert status in (200, 401, 403), (method, path, status)
        return status == 200

    def subscribe(self, channel: str) -> bool:
        return self._ask(type="subscribe", channel=channel)

    def publish(self, channel: str, event: str) -> bool:
        return self._ask(type="publish", channel=channel, event=event, data=1)

    def hears(self, channel: str, on: str) -> bool:
        """
        Does the client get, on the channel C{on}, an event that is published to another one?
        """
        mark = f"mark {time.monotonic_ns()}"
        self._ask(type="subscribe", channel=on)
        say(self._boss, type="publish", channel=channel, event="session.created", data=mark, id=mark)
        answer_to(self._boss, mark)
        say(self._client, type="ping")
        while (message := hear(self._client)).get("type") != "pong":
            if message.get("data") == mark and message["channel"] == on:
                return True
        return False

    def http_publish(self, channel: str, event: str) -> bool:
        return self._called("POST", "/v1/publish", {"channel": channel, "event": event, "data": 1})

    def http_read(self, channel: str) -> bool:
        return self._called("GET", f"/v1/streams/{channel}?offset=-1")

    def http_reads(self, channel: str, on: str) -> bool:
        """
        Is an event that was published to a channel in the stream of C{on}?
        """
        mark = f"mark {time.monotonic_ns()}"
        say(self._boss, type="publish", channel=channel, event="session.created", data=mark, id=mark)
        answer_to(self._boss, mark)
        status, events = self._http("GET", f"/v1/streams/{on}?offset=-1")
        return status == 200 and mark in [event["data"] for event in events]

    def http_operates(self, method: str, path: str) -> bool:
        return self._called(method, path)

    def sees_names(self) -> bool:
        return "channelStats" in self._http("GET", "/health")[1]


ACTIONS: dict[str, Callable[[Trial], bool]] = {
    "subscribe to `topics/t`": lambda one: one.subscribe("topics/t"),
    "subscribe to `global`": lambda one: one.subscribe("global"),
    "subscribe to `metrics`": lambda one: one.subscribe("metrics"),
    "subscribe to its own `agents/ann`": lambda one: one.subscribe("agents/ann"),
    "subscribe to `agents/bob`": lambda one: one.subscribe("agents/bob"),
    "subscribe to `sessions/s`": lambda one: one.subscribe("sessions/s"),
    "receive events of `topics/t` on `global`": lambda one: one.hears("topics/t", "global"),
    "receive events of `agents/bob` on `global`": lambda one: one.hears("agents/bob", "global"),
    "publish `task.created` to `topics/t`": lambda one: one.publish("topics/t", "task.created"),
    "publish `message.new` to `agents/bob`": lambda one: one.publish("agents/bob", "message.new"),
    "publish `system.info` to `topics/t`": lambda one: one.publish("topics/t", "system.info"),
    "`POST /v1/publish`: `task.created` to `topics/t`": lambda one: one.http_publish("topics/t", "task.created"),
    "`POST /v1/publish`: `message.new` to `agents/bob`": lambda one: one.http_publish("agents/bob", "message.new"),
    "`POST /v1/publish`: `system.info` to `topics/t`": lambda one: one.http_publish("topics/t", "system.info"),
    "`GET /v1/streams/topics/t`": lambda one: one.http_read("topics/t"),
    "`GET /v1/streams/global`": lambda one: one.http_read("global"),
    "`GET /v1/streams/agents/ann`": lambda one: one.http_read("agents/ann"),
    "`GET /v1/streams/agents/bob`": lambda one: one.http_read("agents/bob"),
    "events of `agents/bob` in `GET /v1/streams/global`": lambda one: one.http_reads("agents/bob", "global"),
    "`GET /v1/agents`, `/v1/dead`, `/v1/channels/…/presence`": lambda one: all(
        one.http_operates("GET", path) for path in ("/v1/agents", "/v1/dead", "/v1/channels/global/presence")
    ),
    "`DELETE /v1/agents/…/connections`": lambda one: one.http_operates("DELETE", "/v1/agents/nobody/connections"),
    "the names of channels in `GET /health`": Trial.sees_names,
}
"""
The rows of the table.
"""


def table() -> dict[str, dict[str, str]]:
    """
    The cells of the table of the page, by their columns and rows.
    """
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    begin = next(number for number, line in enumerate(lines) if line.startswith("| action |"))
    _, *columns = _cells(lines[begin])
    cells: dict[str, dict[str, str]] = {column: {} for column in columns}
    for line in lines[begin + 2 : begin + 2 + len(ACTIONS)]:
        row, *values = _cells(line)
        for column, value in zip(columns, values, strict=True):
            cells[column][row] = value
    return cells


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture(scope="module", params=["seed", "strict"])
def running(request: pytest.FixtureRequest, database: PostgresServer) -> Iterator[tuple[str, Service, Client]]:
    """
    A service with private channels of one kind, and an operator.
    """
    options = ("--private", request.param, "--max-connections-per-ip", "1000", "--rate-burst", "10000")
    with production_service(database.url, *options) as service:
        boss = service.connect()
        assert ask(boss, type="auth", token=scoped("operator", agent="boss"), id=1)["success"]
        say(boss, type="unsubscribe", channel="global", id="quiet")
        answer_to(boss, "quiet")
        yield request.param, service, boss


def found_with(token: str, service: Service, boss: Client) -> dict[str, bool]:
    return {action: attempt(Trial(service, token, boss)) for action, attempt in ACTIONS.items()}


@pytest.mark.parametrize("column", TOKENS)
def test_cells(running: tuple[str, Service, Client], column: str) -> None:
    """
    Each cell of a column: C{yes}, C{no}, or C{seed} if only C{--private strict} forbids it.
    """
    private, service, boss = running
    expected = {
        action: cell == "yes" or (cell == "seed" and private == "seed") for action, cell in table()[column].items()
    }
    tokens = [TOKENS[column]()]
    if column.startswith("forged"):
        revoked = scoped("operator", agent=REVOKED)
        headers = {"Authorization": f"Bearer {scoped('operator', agent='boss')}"}
        path = f"/v1/agents/{REVOKED}/connections?revoke=true"
        assert service.get(path, "DELETE", **headers)[0] == 200
        forged = sign("x" * 40, "ann", None, time.time_ns() // 1_000_000, scope=("operator",))
        tokens = [forged, scoped("operator", seconds=-1), revoked]
    for token in tokens:
        assert found_with(token, service, boss) == expected


def test_table_is_complete() -> None:
    """
    The table has all columns and rows that are tried.
    """
    cells = table()
    assert list(cells) == list(TOKENS)
    assert all(list(column) == list(ACTIONS) for column in cells.values())
    assert {value for column in cells.values() for value in column.values()} == {"yes", "no", "seed"}


# token endpoints


@contextlib.contextmanager
def endpoint(language: str, folder: Path) -> Iterator[int]:
    """
    A token endpoint of the page, running; yields its port.
    """
    (code,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    file = folder / {"python": "endpoint.py", "js": "endpoint.mjs"}[language]
    file.write_text(code)
    port = free_port()
    program = sys.executable if language == "python" else "node"
    variables = os.environ | {"WS_AUTH_SECRET": SECRET, "PORT": str(port)}
    process = subprocess.Popen([program, str(file)], env=variables, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def fetch(port: int, key: str) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", b"", {"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def answers(port: int) -> bool:
    try:
        return fetch(port, "nonsense")[0] == 401
    except OSError:
        return False


@pytest.mark.parametrize(("language", "key", "agent"), [("python", "key-of-ann", "ann"), ("js", "key-of-bob", "bob")])
def test_token_endpoints(language: str, key: str, agent: str, database: PostgresServer, tmp_path: Path) -> None:
    """
    The token of a known caller lets it in as its agent, for what its scope lists; others get none.
    """
    with endpoint(language, tmp_path) as port, production_service(database.url) as service:
        until(lambda: answers(port))
        status, answer = fetch(port, key)
        assert status == 200
        client = service.connect(f"/?token={answer['token']}")
        assert hear(client)["subscriptions"] == [f"agents/{agent}"]
        assert ask(client, type="subscribe", channel="topics/builds", id=1)["success"]
        assert ask(client, type="subscribe", channel="topics/other", id=2)["code"] == "NOT_AUTHORIZED"
        with pytest.raises(InvalidStatus):
            service.connect(f"/?token={answer['token'][:-1]}")
