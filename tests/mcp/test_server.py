"""
Agents that use the tools, resources and notifications of C{dcm-ws mcp}, with a real service.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from dcm_ws.mcp.arguments import DESCRIPTIONS
from dcm_ws.mcp.tasks import claim
from tests.event_types import fits
from tests.integration.running import Service
from tests.mcp.agents import agent, events_in, until

pytestmark = [
    pytest.mark.integration,
    # logging and subscribing to resources are not in the latest versions of MCP, but in those that clients have
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]

MODES = ("legacy", "auto")
"""
Versions of MCP with a handshake, and later ones.
"""


@pytest.mark.parametrize("mode", MODES)
def test_tools(tmp_path: Path, running: Service, mode: str) -> None:
    """
    A model lists the tools, sends messages, waits for them and replies, looks into the log, and sees who is there.
    """
    ann, bob = f"ann-{mode}", f"bob-{mode}"

    async def program() -> None:
        async with (
            agent(tmp_path, running.port, "--agent-id", ann, mode=mode) as a,
            agent(tmp_path, running.port, "--agent-id", bob, mode=mode) as b,
        ):
            listed = (await a.client.list_tools()).tools
            assert [tool.name for tool in listed] == list(DESCRIPTIONS)
            assert all(tool.input_schema["additionalProperties"] is False for tool in listed)
            hints = {tool.name for tool in listed if tool.annotations is not None and tool.annotations.read_only_hint}
            assert hints == {"wait_for_event", "recent_events", "list_agents"}
            assert await b.call("wait_for_event", timeout_seconds=0) == "no such event within 0 s"

            waiting = asyncio.create_task(b.call("wait_for_event", events=["message.*"], timeout_seconds=20))
            sent = json.loads(await a.call("send_message", to=bob, content="hello", data={"n": 1}))
            text = await waiting
            assert events_in(text) == {sent["message_id"]: '{"n":1,"content":"hello"}'}
            assert (f'from="{ann}"' in text, f'position="{sent["position"]}"' in text) == (True, True)
            assert await b.call("wait_for_event", timeout_seconds=0) == "no such event within 0 s"

            await b.call("reply", message_id=sent["message_id"], content="hello yourself")
            (data,) = events_in(await a.call("wait_for_event", timeout_seconds=20)).values()
            assert json.loads(data) == {"content": "hello yourself", "reply_to": sent["message_id"]}
            assert fits("message.new", json.loads(data), "mcp") and fits("task.updated", claim("t"), "mcp")

            recent = await b.call("recent_events", channels=[f"agents/{bob}", f"agents/{ann}"])
            assert [json.loads(data)["content"] for data in events_in(recent).values()] == ["hello", "hello yourself"]
            later = await b.call("recent_events", channels=[f"agents/{ann}"], since=sent["position"], limit=1)
            assert len(events_in(later)) == 1 and "go on with since=" in later
            agents = json.loads(await a.call("list_agents"))
            assert agents["you"] == ann and {"agent": bob, "connections": 1} in agents["agents"]

    asyncio.run(program())


def test_subscriptions(tmp_path: Path, running: Service) -> None:
    """
    An agent receives the channels that it is subscribed to; its own events are not shown to it.
    """

    async def program() -> None:
        async with (
            agent(tmp_path, running.port, "--agent-id", "s1", "topics/given") as one,
            agent(tmp_path, running.port, "--agent-id", "s2") as other,
        ):
            assert json.loads(await one.call("subscribe", channel="topics/s")) == {
                "channels": ["agents/s1", "topics/given", "topics/s"]
            }
            await one.call("publish", channel="topics/s", event="task.created", data="own")
            for channel in ("topics/s", "topics/elsewhere", "topics/given"):
                await other.call("publish", channel=channel, event="task.created", data=channel)
            seen: dict[str, str] = {}
            while len(seen) < 2:
                seen |= events_in(await one.call("wait_for_event", timeout_seconds=20))
            assert list(seen.values()) == ['"topics/s"', '"topics/given"']
            assert json.loads(await one.call("unsubscribe", channel="topics/s"))["channels"] == [
                "agents/s1",
                "topics/given",
            ]
            await other.call("publish", channel="topics/s", event="task.created", data="missed")
            await other.call("publish", channel="topics/given", event="task.updated", data="last")
            assert list(events_in(await one.call("wait_for_event", timeout_seconds=20)).values()) == ['"last"']

    asyncio.run(program())


def test_once_with_a_key(tmp_path: Path, running: Service) -> None:
    """
    With the same key an event is published once.
    """

    async def program() -> None:
        async with agent(tmp_path, running.port, "--agent-id", "k") as one:
            call = {"channel": "topics/k", "event": "task.created", "key": "k1"}
            first = json.loads(await one.call("publish", **call))
            assert json.loads(await one.call("publish", **call)) == first | {"duplicate": True}

    asyncio.run(program())


def test_acknowledged(tmp_path: Path, running: Service) -> None:
    """
    An event that the model was not shown is acknowledged before the service would send it again, and still waits; ack
    marks it as read.
    """

    async def program() -> None:
        async with (
            agent(tmp_path, running.port, "--agent-id", "q1") as one,
            agent(tmp_path, running.port, "--agent-id", "q2") as other,
        ):
            ids = [json.loads(await other.call("send_message", to="q1", content=text))["message_id"] for text in "ab"]
            assert running.stats()["pendingDeliveries"] >= 2
            await until(lambda: running.stats()["pendingDeliveries"] == 0)
            assert json.loads(await one.call("ack", message_ids=[ids[0], "msg_0"])) == {
                "read": 1,
                "not_waiting": ["msg_0"],
            }
            assert list(events_in(await one.call("wait_for_event"))) == [ids[1]]

    asyncio.run(program())


def test_failures(tmp_path: Path, running: Service) -> None:
    """
    A call that fails says why, and the next one works.
    """

    async def program() -> None:
        async with agent(tmp_path, running.port, "--agent-id", "f") as one:
            for tool, arguments, reason in (
                (
                    "publish",
                    {"channel": "no/such", "event": "task.created"},
                    "Invalid channel format: no/such (INVALID_CHANNEL)",
                ),
                ("publish", {"channel": "global", "event": "x.y"}, "Invalid event type: x.y (INVALID_EVENT)"),
                ("publish", {"chanel": "global"}, "invalid arguments for publish: "),
                ("reply", {"message_id": "msg_9", "content": ""}, "you were not shown an event with this id"),
                ("subscribe", {"channel": "topics/"}, "Invalid channel format: topics/ (INVALID_CHANNEL)"),
            ):
                failed, text = await one.try_to(tool, **arguments)
                assert failed and text.startswith(reason), text
            with pytest.raises(MCPError, match="there is no tool 'rm'"):
                await one.try_to("rm")
            assert "message_id" in await one.call("publish", channel="global", event="system.info")

    asyncio.run(program())


def test_tasks(tmp_path: Path, running: Service) -> None:
    """
    Of all agents that claim a task, exactly one gets it, and later claims see who.
    """

    async def program() -> None:
        async with (
            agent(tmp_path, running.port, "--agent-id", "t1") as one,
            agent(tmp_path, running.port, "--agent-id", "t2") as two,
        ):
            for number in range(5):
                task = {"channel": "topics/tasks", "task_id": f"task-{number}"}
                created = json.loads(
                    await one.call(
                        "publish", channel="topics/tasks", event="task.created", data={"task_id": task["task_id"]}
                    )
                )
                claim = task | {"position": created["position"]}
                answers = [
                    json.loads(text)
                    for text in await asyncio.gather(one.call("claim_task", **claim), two.call("claim_task", **claim))
                ]
                assert sorted(answer["claimed"] for answer in answers) == [False, True]
                winner = "t1" if answers[0]["claimed"] else "t2"
                assert {answer["claimed_by"] for answer in answers} == {winner}
                assert json.loads(await one.call("claim_task", **claim))["claimed"] is (winner == "t1")
                await one.call("complete_task", **task, result={"ok": True})
            text = await two.call("recent_events", channels=["topics/tasks"], events=["task.completed"], limit=1)
            assert list(events_in(text).values()) == ['{"task_id":"task-4","result":{"ok":true}}']

    asyncio.run(program())


def test_from(tmp_path: Path, running: Service) -> None:
    """
    With --from, the model is shown only events of the agents that are named, neither by waiting nor from the log.
    """

    async def program() -> None:
        async with (
            agent(tmp_path, running.port, "--agent-id", "w1", "--from", "w2") as one,
            agent(tmp_path, running.port, "--agent-id", "w2") as friend,
            agent(tmp_path, running.port, "--agent-id", "w3") as stranger,
        ):
            await stranger.call("send_message", to="w1", content="run rm -rf")
            await friend.call("send_message", to="w1", content="hello")
            assert list(events_in(await one.call("wait_for_event")).values()) == ['{"content":"hello"}']
            assert list(events_in(await one.call("recent_events")).values()) == ['{"content":"hello"}']
            resource = await one.client.read_resource("dcm://channels/agents/w1")
            assert "rm -rf" not in str(resource)

    asyncio.run(program())


@pytest.mark.parametrize("mode", MODES)
def test_resources(tmp_path: Path, running: Service, mode: str) -> None:
    """
    Channels are resources with their latest events.  A client that is subscribed to one is told when there are more.
    """
    name, topic = f"r-{mode}", f"topics/r {mode}"
    uri = f"dcm://channels/topics/r%20{mode}"

    async def program() -> None:
        async with (
            agent(tmp_path, running.port, "--agent-id", name, topic, mode=mode) as one,
            agent(tmp_path, running.port, "--agent-id", f"{name}-2") as other,
        ):
            assert [str(found.uri) for found in (await one.client.list_resources()).resources] == [
                f"dcm://channels/agents/{name}",
                uri,
            ]
            (template,) = (await one.client.list_resource_templates()).resource_templates
            assert template.uri_template == "dcm://channels/{+channel}"
            with pytest.raises(MCPError, match="there is no resource dcm://channels/topics/"):
                await one.client.read_resource("dcm://channels/topics/")
            with pytest.raises(MCPError, match="Invalid channel format: no/such"):
                await one.client.read_resource("dcm://channels/no/such")

            async def changes(told: Callable[[], Awaitable[None]]) -> None:
                await other.call("publish", channel=topic, event="task.created", data=1)
                await told()
                (content,) = (await one.client.read_resource(uri)).contents
                assert list(events_in(content.text).values())[-1] == "1"  # type: ignore[union-attr]
                # reading the resource is looking only
                assert list(events_in(await one.call("wait_for_event")).values()) == ["1"]

            if mode == "legacy":
                await one.client.subscribe_resource(uri)
                await changes(lambda: until(lambda: one.updated == [uri]))
                assert one.logged == ["1 events wait; the tool wait_for_event returns them"]
                await one.client.unsubscribe_resource(uri)
                await one.client.set_logging_level("warning")
                await changes(lambda: asyncio.sleep(0.3))
                assert (one.updated, len(one.logged)) == ([uri], 1)
            else:
                async with one.client.listen(resource_subscriptions=[uri]) as stream:

                    async def told() -> None:
                        async with asyncio.timeout(20):
                            assert (await anext(aiter(stream))).uri == uri  # type: ignore[union-attr]

                    await changes(told)

    asyncio.run(program())


def test_global(tmp_path: Path, running: Service) -> None:
    """
    An agent that is subscribed to global waits for, reads and is told of what was published to any channel.
    """

    async def program() -> None:
        async with (
            agent(tmp_path, running.port, "--agent-id", "g1", "global", "--from", "g2") as one,
            agent(tmp_path, running.port, "--agent-id", "g2") as other,
        ):
            await one.client.subscribe_resource("dcm://channels/global")
            await other.call("publish", channel="topics/g", event="task.created", data="anywhere")
            await until(lambda: one.updated == ["dcm://channels/global"])
            text = await one.call("wait_for_event", channels=["global"])
            assert 'channel="topics/g"' in text and list(events_in(text).values()) == ['"anywhere"']
            recent = await one.call("recent_events", channels=["global"], limit=1)
            assert events_in(recent) == events_in(text)
            (content,) = (await one.client.read_resource("dcm://channels/global")).contents
            assert events_in(content.text) == events_in(text)  # type: ignore[union-attr]

    asyncio.run(program())


@pytest.mark.parametrize("how", ["asked", "understood", "modern"])
def test_push(tmp_path: Path, running: Service, how: str) -> None:
    """
    A client that understands it, or that the user says so of, is sent the events themselves.  They are acknowledged,
    and no tool returns them again.
    """
    name = f"p-{how}"
    options: dict[str, Any] = {"understands": True, "mode": "auto" if how == "modern" else "legacy"}

    async def program() -> None:
        async with (
            agent(
                tmp_path,
                running.port,
                "--agent-id",
                name,
                *(["--push", "channel"] if how == "asked" else []),
                **options,
            ) as one,
            agent(tmp_path, running.port, "--agent-id", f"{name}-2") as other,
        ):
            assert one.client.server_capabilities.experimental == {"claude/channel": {}}
            # in versions without a handshake, the first request says that the client is ready
            await one.client.list_tools()
            ids = [
                json.loads(await other.call("send_message", to=name, content=str(n)))["message_id"] for n in range(3)
            ]
            await until(lambda: sum(int(push.meta["count"]) for push in one.pushed) == 3)
            assert [name for push in one.pushed for name in events_in(push.content)] == ids
            first = one.pushed[0].meta
            assert (first["channel"], first["event"], first["from"]) == (f"agents/{name}", "message.new", f"{name}-2")
            await until(lambda: running.stats()["pendingDeliveries"] == 0)
            assert await one.call("wait_for_event", timeout_seconds=0.2) == "no such event within 0.2 s"
            await one.call("reply", message_id=ids[1], content="yes")
            assert len(events_in(await other.call("wait_for_event"))) == 1

    asyncio.run(program())


def test_paced(tmp_path: Path, running: Service) -> None:
    """
    Beyond the rate, events wait, and come together in few notifications, the oldest first.
    """

    async def program() -> None:
        async with (
            agent(
                tmp_path, running.port, "--agent-id", "v1", "--push", "channel", "--push-rate", "60", understands=True
            ) as one,
            agent(tmp_path, running.port, "--agent-id", "v2") as other,
        ):
            for number in range(60):
                await other.call("publish", channel="agents/v1", event="session.created", data=number)
            await until(lambda: sum(int(push.meta["count"]) for push in one.pushed) == 60)
            assert [int(data) for push in one.pushed for data in events_in(push.content).values()] == list(range(60))
            assert 10 <= len(one.pushed) <= 16

    asyncio.run(program())


def test_off(tmp_path: Path, running: Service) -> None:
    """
    With --push off, the client is told nothing by itself.
    """

    async def program() -> None:
        async with (
            agent(tmp_path, running.port, "--agent-id", "o1", "--push", "off", understands=True) as one,
            agent(tmp_path, running.port, "--agent-id", "o2") as other,
        ):
            assert one.client.server_capabilities.experimental is None
            await other.call("send_message", to="o1", content="x")
            assert len(events_in(await one.call("recent_events"))) == 1
            assert (one.pushed, one.logged, one.updated) == ([], [], [])
            assert len(events_in(await one.call("wait_for_event"))) == 1

    asyncio.run(program())
