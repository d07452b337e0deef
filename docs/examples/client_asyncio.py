"""
An agent that answers messages, with asyncio: python client_asyncio.py ws://127.0.0.1:3849/ws
"""

import asyncio
import sys

from dcm_ws.client.aio import DCMClient


async def main(url: str) -> None:
    async with DCMClient(url, agent_id="echo", channels=[]) as client:
        print("ready", flush=True)
        async for event in client.events("message.*"):
            # acknowledged when the loop asks for the next one
            sender = event.data["from_agent_id"]
            await client.publish(
                f"agents/{sender}", "message.read", {"from_agent_id": "echo", "text": event.data["text"]}
            )


asyncio.run(main(sys.argv[1]))
