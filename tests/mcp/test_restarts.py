"""
Agents that work together while the service, and their own MCP servers, are restarted.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
from pathlib import Path

import pytest

from tests.integration.conftest import database
from tests.integration.databases import PostgresServer
from tests.integration.machine import free_port
from tests.integration.owed import schema
from tests.integration.running import Service
from tests.mcp.agents import Agent, agent, events_in, until

__all__ = ["database", "schema"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

ROUNDS = 5
"""
Tasks before, between and after the restarts, at least.
"""


def start(port: int, database: PostgresServer) -> Service:
    return Service("--database-url", database.url, "--listen", f"tcp:{port}:interface=127.0.0.1", "--drain", "0.1")


def test_each_message_once(tmp_path: Path, schema: PostgresServer) -> None:
    """
    Two agents give each other work, one by waiting and one by being pushed, while the service is stopped, killed and
    started again: every message arrives once, in order, and none is owed in the end.
    """
    port = free_port()
    services = [start(port, schema)]

    async def restart(how: signal.Signals) -> None:
        await asyncio.to_thread(services[-1].stop, how)
        # messages are sent meanwhile
        await asyncio.sleep(1.0)
        services.append(await asyncio.to_thread(start, port, schema))

    sent: list[str] = []
    finished = asyncio.Event()

    async def ask(ann: Agent) -> None:
        """
        Send tasks to bob, one after the other, and wait for his answers.
        """
        answers: list[str] = []
        while not finished.is_set():
            text = await ann.call("send_message", to="bob", content=f"task {len(sent)}")
            sent.append(json.loads(text)["message_id"])
            while len(answers) < len(sent):
                text = await ann.call("wait_for_event", timeout_seconds=60)
                answers += [json.loads(data)["content"] for data in events_in(text).values()]
        assert answers == [f"done: task {number}" for number in range(len(sent))]

    async def work(bob: Agent) -> None:
        """
        Answer what is pushed.
        """
        for number in itertools.count():
            await until(lambda number=number: len(bob.pushed) > number, 60)  # type: ignore[misc]
            ((message_id, data),) = events_in(bob.pushed[number].content).items()
            await bob.call("reply", message_id=message_id, content=f"done: {json.loads(data)['content']}")

    async def program() -> None:
        pushing = ("--push", "channel", "--push-rate", "6000")
        async with (
            agent(tmp_path, port, "--agent-id", "ann") as ann,
            agent(tmp_path, port, "--agent-id", "bob", *pushing, understands=True) as bob,
        ):
            working = asyncio.create_task(work(bob))
            asking = asyncio.create_task(ask(ann))
            for how in (signal.SIGTERM, signal.SIGKILL):
                before = len(sent)
                await until(lambda before=before: len(sent) >= before + ROUNDS, 60)  # type: ignore[misc]
                await restart(how)
            before = len(sent)
            await until(lambda: len(sent) >= before + ROUNDS, 60)
            finished.set()
            await asking
            await asyncio.sleep(1)
            working.cancel()
            assert [name for push in bob.pushed for name in events_in(push.content)] == sent
            assert await ann.call("wait_for_event", timeout_seconds=0.1) == "no such event within 0.1 s"
            await until(lambda: services[-1].stats()["pendingDeliveries"] == 0)

    try:
        asyncio.run(program())
        assert len(services) == 3
        assert all("Traceback" not in one.log for one in services), "".join(one.log for one in services)
    finally:
        for one in services:
            one.stop(signal.SIGKILL)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_session_ends_before_reading(tmp_path: Path, schema: PostgresServer, mode: str) -> None:
    """
    With --position, an agent that ended before it read its messages gets them in its next session, although they had
    been acknowledged, and those that it read do not come again.
    """
    port = free_port()
    running = start(port, schema)
    options = ("--agent-id", "eve", "--position", str(tmp_path / "eve.position"))

    async def program() -> None:
        async with agent(tmp_path, port, "--agent-id", "ann") as ann:
            async with agent(tmp_path, port, *options, mode=mode) as eve:
                await ann.call("send_message", to="eve", content="first")
                assert '"first"' in await eve.call("wait_for_event")
                for content in ("second", "third"):
                    await ann.call("send_message", to="eve", content=content)
                await until(lambda: running.stats()["pendingDeliveries"] == 0)
            async with agent(tmp_path, port, *options, mode=mode) as eve:
                contents: list[str] = []
                while len(contents) < 2:
                    text = await eve.call("wait_for_event", timeout_seconds=20)
                    contents += [json.loads(data)["content"] for data in events_in(text).values()]
                assert contents == ["second", "third"]
                assert await eve.call("wait_for_event", timeout_seconds=0.5) == "no such event within 0.5 s"

    try:
        asyncio.run(program())
    finally:
        running.stop(signal.SIGKILL)


def test_missing_events(tmp_path: Path) -> None:
    """
    If the service has lost its log, the model is told once that events may be missing.
    """
    port = free_port()
    options = ("--no-database", "--listen", f"tcp:{port}:interface=127.0.0.1", "--drain", "0.1")
    running = Service(*options)

    async def program() -> None:
        nonlocal running
        async with agent(tmp_path, port, "--agent-id", "ann") as ann:
            await ann.call("publish", channel="topics/t", event="task.created")
            await asyncio.to_thread(running.stop)
            running = await asyncio.to_thread(Service, *options)
            await ann.call("publish", channel="topics/t", event="task.created")
            text = await ann.call("wait_for_event", timeout_seconds=0)
            assert "(events may be missing: " in text and "see recent_events)" in text
            assert await ann.call("wait_for_event", timeout_seconds=0) == "no such event within 0 s"

    try:
        asyncio.run(program())
    finally:
        running.stop(signal.SIGKILL)
