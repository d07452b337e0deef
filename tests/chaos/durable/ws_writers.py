"""
Those who publish over a WebSocket: observers with a token, with and without keys.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.chaos.connections import reset, say
from tests.chaos.durable.connections import OPTIONS, RETRY, LoadBalancer
from tests.chaos.durable.history import DONE, REFUSED, UNDONE, Call, History, is_logged, padding

_EVENTS = ("task.created", "subtask.running", "message.new", "session.created", "agent.heartbeat")


class WsWriter:
    """
    A client that publishes without waiting for the acks.

    @param keyed: each of its events has a key, and is published again if it was refused or its ack did not come.
    @param rate: events a second.

    @ivar at: the node of its connection.
    """

    def __init__(
        self, name: str, channels: Sequence[str], front: LoadBalancer, history: History, *, seed: int, keyed: bool,
        rate: float,
    ) -> None:  # fmt: skip
        self.name = name
        self._channels = channels
        self._front = front
        self.at = ""
        self._history = history
        self._random = random.Random(f"{seed} {name}")
        self._keyed = keyed
        self._rate = rate
        self._number = 0
        self._connections = 0
        self._connection: ClientConnection | None = None
        self._epoch = ""
        self._requests = 0
        # by request
        self._awaited: dict[int, Call] = {}
        self._again: list[Call] = []
        self._until = 0.0

    async def live(self, until: float) -> None:
        """
        Publish until a moment, and repeat what has a key until it is acknowledged.
        """
        self._until = until
        while time.monotonic() < until or (self._keyed and (self._again or self._awaited)):
            if time.monotonic() > until + 60:
                self._history.wrongs.append(f"{self.name}: {len(self._again) + len(self._awaited)} were not accepted")
                return
            address = self._front.pick()
            self.at = address.node
            with suppress(WebSocketException, OSError, TimeoutError):
                async with connect(address.url(self.name, observer=True), **OPTIONS) as connection:
                    await self._use(connection)
            self._connection = None
            if self._keyed:
                self._again = [*self._awaited.values(), *self._again]
            # whether the others were published nobody knows
            self._awaited.clear()
            await asyncio.sleep(RETRY)

    def drop(self) -> bool:
        """
        Reset the TCP connection.  False if there is none.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return False
        reset(connection)
        return True

    async def _use(self, connection: ClientConnection) -> None:
        self._connections += 1
        reader = asyncio.create_task(self._read(connection))
        try:
            await say(connection, type="unsubscribe", channel="global")
            self._connection = connection
            while not reader.done() and (time.monotonic() < self._until or self._again):
                await self._publish(connection, self._again.pop(0) if self._again else None)
                await asyncio.sleep(self._random.expovariate(self._rate))
            while self._awaited and not self._again and time.monotonic() < self._until + 10 and not reader.done():
                await asyncio.sleep(0.05)
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError, WebSocketException, OSError):
                await reader

    async def _publish(self, connection: ClientConnection, before: Call | None) -> None:
        if before is not None:
            number, channel, event = before.number, before.channel, before.event
        else:
            self._number += 1
            number = self._number
            channel, event = self._random.choice(self._channels), self._random.choice(_EVENTS)
        stream = f"{self.name}/{self._connections}"
        call = Call(self.name, number, "client", stream, channel, event, time.monotonic())
        message: dict[str, Any] = {
            "channel": channel,
            "event": event,
            "data": {"publisher": self.name, "number": number, "padding": padding(number)},
        }
        if self._keyed:
            call.key = message["key"] = f"key {number}"
        self._history.calls.append(call)
        self._requests += 1
        self._awaited[self._requests] = call
        await say(connection, type="publish", id=self._requests, **message)

    async def _read(self, connection: ClientConnection) -> None:
        async for text in connection:
            message = json.loads(text)
            if message.get("type") in ("connected", "gap"):
                self._epoch = message["epoch"]
            elif message.get("type") == "ack" and message["id"] in self._awaited:
                self._answered(self._awaited.pop(message["id"]), message)

    def _answered(self, call: Call, message: dict[str, Any]) -> None:
        call.ended = time.monotonic()
        if message["success"] is True:
            call.outcome, call.id, call.pos, call.epoch = DONE, message["message_id"], message.get("pos"), self._epoch
            if (call.pos is not None) != is_logged(call.event):
                self._history.wrongs.append(f"{self.name}: {call.event} was acknowledged with position {call.pos}")
        elif message["code"] == "NOT_AVAILABLE":
            call.outcome = REFUSED
            if not is_logged(call.event) and not message["error"].startswith("Server"):
                self._history.counts["ephemeral events refused"] += 1
            if self._keyed:
                self._again.append(call)
        else:
            call.outcome = UNDONE
            self._history.wrongs.append(f"{self.name} was refused: {message}")
