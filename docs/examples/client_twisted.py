"""
An agent that asks one question, with Twisted: python client_twisted.py ws://127.0.0.1:3849/ws
"""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from dcm_ws.client import DCMClient, Event


async def main(reactor, url: str) -> None:
    answered: Deferred[Event] = Deferred()
    client = DCMClient(url, agent_id="asker", channels=[], reactor=reactor)
    # each event is passed once, even if it arrives on several channels
    client.on("message.read", answered.callback)
    client.startService()
    await client.when_connected()
    await client.publish("agents/echo", "message.new", {"from_agent_id": "asker", "text": "is anybody there?"})
    event = await answered
    print(f"{event.data['from_agent_id']} has read: {event.data['text']}")
    await client.stopService()


react(lambda reactor: Deferred.fromCoroutine(main(reactor, sys.argv[1])))
