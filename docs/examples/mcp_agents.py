"""
Two agents that give each other work through dcm-ws.  Each is a client of C{dcm-ws mcp}, as a coding agent is; here, a
few lines of Python take the place of the model.

    pip install 'dcm-ws[mcp]'
    python mcp_agents.py ws://127.0.0.1:3849/
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp_types import TextContent

EVENT = re.compile(r'<event id="([^"]*)" [^>]*position="([^"]*)"[^>]*>\n(.*)\n</event>')


def server(url: str, agent: str, *options: str) -> StdioServerParameters:
    """
    How an agent starts its server.
    """
    arguments = ["mcp", "--url", url, "--agent-id", agent, *options]
    return StdioServerParameters(command="dcm-ws", args=arguments, env=dict(os.environ))


async def call(client: Client, tool: str, **arguments: object) -> str:
    """
    Call a tool; returns its text.
    """
    result = await client.call_tool(tool, arguments)
    (content,) = result.content
    if result.is_error or not isinstance(content, TextContent):
        raise RuntimeError(content)
    return content.text


async def lead(client: Client, tasks: list[int]) -> None:
    """
    Publish tasks, and wait until all are completed.
    """
    for number in tasks:
        data = {"task_id": f"square-{number}", "number": number}
        await call(client, "publish", channel="topics/squares", event="task.created", data=data)
    completed: set[str] = set()
    while len(completed) < len(tasks):
        text = await call(client, "wait_for_event", events=["task.completed"], timeout_seconds=60)
        for _, _, data in EVENT.findall(text):
            task = json.loads(data)
            completed.add(task["task_id"])
            print(f"lead: {task['task_id']} is {task['result']}")


async def work(client: Client, name: str) -> None:
    """
    Claim tasks, and complete those that were not claimed by another worker before.
    """
    while True:
        text = await call(client, "wait_for_event", events=["task.created"], timeout_seconds=60)
        for _, position, data in EVENT.findall(text):
            task = json.loads(data)
            here = {"channel": "topics/squares", "task_id": task["task_id"]}
            claim = json.loads(await call(client, "claim_task", **here, position=position))
            if claim["claimed"]:
                print(f"{name}: I take {task['task_id']}")
                await call(client, "complete_task", **here, result=task["number"] ** 2)


async def main(url: str) -> None:
    async with (
        Client(server(url, "lead", "topics/squares")) as leader,
        Client(server(url, "worker-1", "topics/squares")) as first,
        Client(server(url, "worker-2", "topics/squares")) as second,
    ):
        # once they answer, they are subscribed
        for client in (leader, first, second):
            await call(client, "subscribe", channel="topics/squares")
        workers = [asyncio.create_task(work(first, "worker-1")), asyncio.create_task(work(second, "worker-2"))]
        await lead(leader, [2, 3, 4, 5])
        for worker in workers:
            worker.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:3849/"))
