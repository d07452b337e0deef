"""
MCP over HTTP: clients of the SDK, and others, at a running service.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from dcm_ws.mcp.arguments import DESCRIPTIONS
from dcm_ws.protocol.tokens import sign
from tests.integration.conftest import database
from tests.integration.databases import PostgresServer
from tests.integration.machine import free_port
from tests.integration.owed import schema
from tests.integration.running import Service, service
from tests.integration.tokens import DEVELOPMENT_SECRET, make_token
from tests.mcp.agents import Agent, _Channel, events_in, until

__all__ = ["database", "schema"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

BOTH = "application/json, text/event-stream"
VERSION = "2025-11-25"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    with service("--mcp", "--no-database", "--max-mcp-per-agent", "2") as started:
        yield started


def token(agent: str, **more: Any) -> str:
    return make_token(agent, secret=DEVELOPMENT_SECRET, **more)


@asynccontextmanager
async def agent(
    port: int, name: str, *, mode: str = "legacy", query: str = "", understands: bool = True, ends: bool = True
) -> AsyncIterator[Agent]:
    """
    An agent whose client speaks HTTP.

    @param understands: the client says that it understands C{notifications/claude/channel}.
    @param ends: it ends its session when it leaves.
    """
    found = Agent()
    transport = streamable_http_client(f"http://127.0.0.1:{port}/mcp?agent_id={name}{query}", terminate_on_close=ends)
    extensions = [_Channel(found.pushed)] if understands else []
    async with Client(transport, mode=mode, extensions=extensions, message_handler=found.hear) as client:
        found.client = client
        yield found


def _message(text: bytes) -> Any:
    # an answer that takes some time comes as an event, after comments
    found = re.search(rb"^data: (.*)$", text, re.MULTILINE)
    return json.loads(found[1] if found else text or b"null")


def ask(
    port: int,
    method: str,
    body: object = None,
    *,
    token: str | None = None,
    session: str | None = None,
    query: str = "",
) -> tuple[int, dict[str, str], Any]:
    """
    Send a request without the SDK; returns the status, the headers and the JSON of the response.
    """
    headers = {"Accept": BOTH, "Content-Type": "application/json"}
    headers |= {} if token is None else {"Authorization": f"Bearer {token}"}
    headers |= {} if session is None else {"Mcp-Session-Id": session}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/mcp{query}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return response.status, headers, _message(response.read())
    except urllib.error.HTTPError as error:
        return error.code, {}, json.loads(error.read())


def begin(port: int, name: str) -> str:
    status, headers, _ = ask(port, "POST", INITIALIZE, token=token(name))
    assert status == 200
    return headers["mcp-session-id"]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_two_agents(running: Service, mode: str) -> None:
    """
    Two agents list and call tools, one is pushed events, and one waits for them; afterwards nothing is owed, and their
    sessions are over.
    """

    async def program() -> None:
        async with (
            agent(running.port, "ann", mode=mode, query="&push=channel&channel=topics/t") as ann,
            agent(running.port, "bob", mode=mode, query="&push=off") as bob,
        ):
            assert [tool.name for tool in (await ann.client.list_tools()).tools] == list(DESCRIPTIONS)
            assert json.loads(await ann.call("list_agents")) == {
                "you": "ann",
                "agents": [{"agent": "ann", "connections": 1}, {"agent": "bob", "connections": 1}],
            }
            sent = json.loads(await bob.call("send_message", to="ann", content="hello"))
            await bob.call("publish", channel="topics/t", event="task.created", data={"n": 1})
            await until(lambda: len(ann.pushed) == 2)
            assert sent["message_id"] in ann.pushed[0].content and ann.pushed[1].meta["channel"] == "topics/t"
            waiting = asyncio.create_task(bob.call("wait_for_event"))
            await ann.call("reply", message_id=sent["message_id"], content="to you")
            assert '"to you"' in await waiting
            assert '"hello"' in await ann.call("recent_events", channels=["agents/ann"])
            failed, text = await ann.try_to("publish", channel="nonsense", event="x")
            assert failed and "INVALID" in text
            resources = (await bob.client.list_resources()).resources
            assert [str(one.uri) for one in resources] == ["dcm://channels/agents/bob"]

    asyncio.run(program())
    running.read_log_until("(bob, close code 1000)")
    assert running.stats()["pendingDeliveries"] == 0


def test_announced_events(running: Service) -> None:
    """
    A client that does not understand pushed events gets updates of resources that it is subscribed to, and log
    messages; the events wait until a tool returns them.
    """

    async def program() -> None:
        async with agent(running.port, "cleo", understands=False) as cleo, agent(running.port, "dan") as dan:
            await cleo.client.subscribe_resource("dcm://channels/agents/cleo")
            await dan.call("send_message", to="cleo", content="x")
            await until(lambda: cleo.updated and cleo.logged)
            assert cleo.updated == ["dcm://channels/agents/cleo"] and "wait_for_event" in cleo.logged[0]
            assert not cleo.pushed and '"x"' in await cleo.call("wait_for_event")

    asyncio.run(program())


def test_who_may(running: Service) -> None:
    """
    A wrong token is refused; a session is only for its own agent; an agent has so many sessions at most; and a session
    ends with the connections of its agent.
    """
    port = running.port
    assert ask(port, "POST", INITIALIZE, token="wrong")[0] == 401
    assert ask(port, "POST", INITIALIZE, token=token("eve", seconds=-5))[0] == 401
    assert ask(port, "POST", INITIALIZE)[0] == 401
    first, second = begin(port, "eve"), begin(port, "eve")
    assert ask(port, "POST", INITIALIZE, token=token("eve"))[0] == 429
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    status, _, listed = ask(port, "POST", listing, token=token("eve"), session=first)
    assert status == 200 and len(listed["result"]["tools"]) == len(DESCRIPTIONS)
    assert ask(port, "POST", listing, token=token("mallory"), session=first)[0] == 404
    assert ask(port, "POST", listing, session=first, query="?agent_id=eve")[0] == 404
    assert ask(port, "DELETE", token=token("eve"), session=second)[0] == 204
    limits = running.stats()["limits"]
    assert limits["maxMcpPerAgent"] == 1
    operator = sign(DEVELOPMENT_SECRET, "ops", None, time.time_ns() // 1_000_000, scope=("operator",))
    kick = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/agents/eve/connections",
        headers={"Authorization": f"Bearer {operator}"},
        method="DELETE",
    )
    urllib.request.urlopen(kick, timeout=30).close()
    deadline = time.monotonic() + 20
    while ask(port, "POST", listing, token=token("eve"), session=first)[0] != 404:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_page_of_another_origin(running: Service) -> None:
    """
    A web page of another origin may not call it, whatever its token.
    """
    request = urllib.request.Request(
        f"http://127.0.0.1:{running.port}/mcp",
        json.dumps(INITIALIZE).encode(),
        {"Origin": "https://evil.example", "Accept": BOTH, "Authorization": f"Bearer {token('eve')}"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 403


def test_process_dies(running: Service) -> None:
    """
    If the process that speaks MCP is killed, its sessions are over, and new ones begin soon.
    """
    session = begin(running.port, "fay")
    os.kill(gateway_of(running), signal.SIGKILL)
    running.read_log_until("the process for MCP ended")
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert ask(running.port, "POST", listing, token=token("fay"), session=session)[0] == 404
    deadline = time.monotonic() + 20
    while ask(running.port, "POST", INITIALIZE, token=token("gil"))[0] == 503:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    again = begin(running.port, "fay")
    assert ask(running.port, "POST", listing, token=token("fay"), session=again)[0] == 200


def test_restart(tmp_path: Path, schema: PostgresServer) -> None:
    """
    While the service is killed and started again, nothing is lost: not what was sent when the client did not listen,
    although the service had been told that it has it, nor what was sent when the agent was away.  What was pushed does
    not come again.  The former session is unknown, so the client begins another one.
    """
    port = free_port()
    folder, temporary = tmp_path / "positions", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()

    def start() -> Service:
        listen = f"tcp:{port}:interface=127.0.0.1"
        options = ("--database-url", schema.url, "--listen", listen, "--mcp", "--mcp-folder", str(folder))
        return Service(*options, env={"TMPDIR": str(temporary)})

    async def say(content: str) -> None:
        async with agent(port, "ann") as ann:
            await ann.call("send_message", to="gus", content=content)

    async def program() -> None:
        nonlocal running  # type: ignore[misc]
        query = "&push=channel"
        async with agent(port, "gus", query=query, ends=False) as gus:
            await say("pushed")
            await until(lambda: gus.pushed)
        _, headers, _ = await asyncio.to_thread(ask, port, "POST", INITIALIZE, query="?agent_id=hal")
        former = headers["mcp-session-id"]
        await say("not listening")
        await until(lambda: running.stats()["pendingDeliveries"] == 0)
        process = gateway_of(running)
        await asyncio.to_thread(running.stop, signal.SIGKILL)
        await until(lambda: not Path(f"/proc/{process}").exists())
        assert not list(temporary.iterdir())
        running = await asyncio.to_thread(start)
        await say("away")
        listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        status, _, _ = await asyncio.to_thread(ask, port, "POST", listing, session=former, query="?agent_id=hal")
        assert status == 404
        async with agent(port, "gus", query=query) as gus:
            await until(lambda: len(contents(gus)) >= 2)
            assert contents(gus) == ["not listening", "away"]

    running = start()
    try:
        asyncio.run(program())
    finally:
        running.stop(signal.SIGKILL)


def test_what_it_needs(tmp_path: Path) -> None:
    """
    It starts neither without the package that it needs, nor with several workers, and says why.
    """
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'mcp' else find(name, package)\n"
    )
    for options, env, said in (
        (("--no-database",), {"PYTHONPATH": str(tmp_path)}, "pip install 'dcm-ws[mcp]'"),
        (("--no-database", "--mcp-folder", "/nowhere"), {}, "--mcp-folder: /nowhere is not a folder"),
        (("--workers", "2"), {}, "--mcp needs one worker"),
    ):
        with pytest.raises(AssertionError, match="did not say") as failed:
            Service("--mcp", *options, env=env)
        assert said in str(failed.value)


def contents(agent: Agent) -> list[str]:
    """
    The messages that an agent was pushed.
    """
    return [json.loads(data)["content"] for push in agent.pushed for data in events_in(push.content).values()]


def gateway_of(running: Service) -> int:
    """
    The process of a service that speaks MCP.
    """
    pid = running.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (found,) = [one for one in children if b"dcm_ws.mcp.gateway" in Path(f"/proc/{one}/cmdline").read_bytes()]
    return int(found)
