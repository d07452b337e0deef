"""
A program that goes on where it was when it starts again: python client_position.py ws://127.0.0.1:3849/ws FILE
"""

import asyncio
import sys

from dcm_ws.client import Event, Gap
from dcm_ws.client.aio import DCMClient


async def main(url: str, file: str) -> None:
    stopped = asyncio.Event()

    def handle(event: Event) -> None:
        # handled when this returns: the next run goes on after it
        print(event.data, flush=True)
        if event.data == "stop":
            stopped.set()

    def load_again(gap: Gap) -> None:
        print(gap, flush=True)

    client = DCMClient(url, agent_id="indexer", channels=["topics/documents"], position=file)
    client.on("*", handle, channel="topics/documents")
    client.on_gap(load_again)
    async with client:
        print("ready", flush=True)
        await stopped.wait()


asyncio.run(main(sys.argv[1], sys.argv[2]))
