"""
A worker with asyncio that does one task after the other: python worker_asyncio.py ws://127.0.0.1:3849/ worker

A task is acknowledged when its result is in the service's log.  If the worker crashes before that, it gets the task
again; the key makes sure that a result is published once.
"""

import asyncio
import sys

from dcm_ws.client import Event
from dcm_ws.client.aio import DCMClient


def work(task: dict[str, object]) -> int:
    """
    What the worker is for: here, adding numbers.
    """
    return sum(task["numbers"])


async def handle(client: DCMClient, event: Event) -> None:
    task = event.data
    try:
        # in a thread, so that the connection stays alive meanwhile
        outcome, result = "task.completed", {"result": await asyncio.to_thread(work, task)}
    except Exception as error:
        outcome, result = "task.failed", {"error": str(error)}
    answer_to = f"agents/{event.sender}"
    await client.publish(answer_to, outcome, {"id": task["id"], **result}, key=f"done-{task['id']}")


async def main(url: str, name: str) -> None:
    async with DCMClient(url, agent_id=name, channels=[], durable=True) as client:
        print("ready", flush=True)
        async for event in client.events("task.created", channel=f"agents/{name}"):
            # acknowledged when the loop asks for the next one
            await handle(client, event)


asyncio.run(main(*sys.argv[1:]))
