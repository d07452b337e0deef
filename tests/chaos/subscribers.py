"""
Agents that listen, acknowledge what is tracked, lose their connections and come back.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.chaos.connections import ComingBack, reset, say
from tests.chaos.records import Receipt, Records, Stay, is_tracked, padding
from tests.integration.tokens import DEVELOPMENT_SECRET, make_token

_UNACKED = 0.02
"""
The share of first receipts that an agent leaves without an ack, so that they come again.
"""

OPTIONS: dict[str, Any] = {"compression": None, "ping_interval": None, "max_queue": None, "proxy": None}


class Agent(ComingBack):
    """
    One agent, which reconnects until the test stops it.

    @param channels: what it listens to; it leaves C{global} where that is not among them.
    @param is_one_of_several: other connections of the same agent may exist at the same time.
    @param by_token: it authenticates by a token while connecting; else by an C{auth} message.
    @ivar here: it is connected, authenticated, and subscribed to all that it wants.
    """

    def __init__(
        self,
        name: str,
        channels: Collection[str],
        port: int,
        records: Records,
        *,
        by_token: bool,
        is_one_of_several: bool = False,
    ) -> None:
        super().__init__(name)
        self._channels = channels
        self._query = f"?token={make_token(name, secret=DEVELOPMENT_SECRET)}" if by_token else ""
        self._port = port
        self._records = records
        self._random = random.Random(name)
        self._seen: set[str] = set()
        self._stay: Stay | None = None
        self._known = False
        records.wanted[name] = channels
        # an ack of the other connection would settle what this one leaves
        self._unacked = 0.0 if is_one_of_several else _UNACKED
        if is_one_of_several:
            records.several.add(name)
        self._listening: asyncio.Task[None] | None = None
        self._hung: list[ClientConnection] = []

    async def live(self) -> None:
        """
        Connect, listen, and come back.
        """
        while not self._stopping:
            url = f"ws://127.0.0.1:{self._port}/{self._query}"
            try:
                connection = self._connection = await connect(url, **OPTIONS)
                self._listening = asyncio.create_task(self._listen(connection))
                await asyncio.wait([self._listening])
                if connection not in self._hung:
                    # a connection that was reset ends in this
                    with suppress(ConnectionClosed):
                        self._listening.result()
                    await connection.close()
            except (WebSocketException, OSError) as error:
                self._records.wrongs.append(f"{self.name} could not connect: {error!r}")
                self._away = max(self._away, 0.1)
            self._left()
            if self._connection is not None:
                self._records.wrongs.append(f"{self.name} was disconnected: {self._connection.close_code}")
                self._connection = None
            if not self._stopping:
                await asyncio.sleep(self._away)

    def hang(self) -> bool:
        """
        Read nothing more of the connection, which stays open, and come back on another one.  False if there is none.
        """
        if self._connection is None or self._listening is None:
            return False
        self._left()
        self._away = 0.0
        self._hung.append(self._connection)
        self._connection = None
        self._listening.cancel()
        return True

    async def stop(self) -> None:
        """
        Leave for good.
        """
        self._stopping = True
        await self.leave(0)
        for connection in self._hung:
            reset(connection)

    def _left(self) -> None:
        super()._left()
        if self._stay is not None:
            self._stay.ended = time.time()
            self._stay = None

    async def _listen(self, connection: ClientConnection) -> None:
        authenticated = False
        if not self._query:
            await say(connection, type="auth", agent_id=self.name)
        async for text in connection:
            if connection is not self._connection:
                return  # what still comes after the drop is lost
            message = json.loads(text)
            if "event" in message:
                await self._heard(connection, message, authenticated)
            elif message.get("type") == "ack" and "subscriptions" in message:
                authenticated = True
                await self._authenticated(connection, message["subscriptions"])
            elif message.get("type") == "ack" and message["id"] == "last":
                self.here.set()
            elif message.get("success") is False or "error" in message:
                self._records.wrongs.append(f"{self.name} was refused: {message}")

    async def _authenticated(self, connection: ClientConnection, subscriptions: list[str]) -> None:
        self._stay = Stay(self.name, time.time())
        self._records.stays.append(self._stay)
        missing = [channel for channel in self._channels if channel not in subscriptions]
        # of several connections the one that ended last may not have subscribed yet
        if missing and self._known and self.name not in self._records.several:
            self._records.wrongs.append(f"{self.name} did not get back its subscriptions to {missing}")
        self._known = True
        for channel in missing:
            await say(connection, type="subscribe", channel=channel)
        if "global" in self._channels:
            await say(connection, type="subscribe", channel="global", id="last")
        else:
            await say(connection, type="unsubscribe", channel="global", id="last")

    async def _heard(self, connection: ClientConnection, message: dict[str, Any], authenticated: bool) -> None:
        event, data, event_id = message["event"], message["data"], message["id"]
        if event.startswith("system.") and data.get("component") == "database":
            self.told(message["timestamp"] / 1000, event == "system.info")
        if "publisher" in data and authenticated:
            publisher, number = data["publisher"], data["number"]
            intact = data["padding"] == padding(number)
            self._records.receipts.append(
                Receipt(self.name, message["channel"], event, event_id, publisher, number, intact, message.get("pos"))
            )
        elif "publisher" in data:
            self._records.early += 1
        # the service may read an ack of what came before the answer to auth after it: as one of the agent
        if authenticated and is_tracked(event) and self._acknowledges(event_id, message["channel"]):
            await say(connection, type="ack", message_id=event_id)

    def _acknowledges(self, event_id: str, channel: str) -> bool:
        """
        Whether to acknowledge this frame.  An event that is left without an ack is acknowledged when it comes again on
        the channel on which it came first.
        """
        new = event_id not in self._seen
        self._seen.add(event_id)
        unanswered = self._records.unanswered
        if new and self._random.random() < self._unacked:
            unanswered[self.name, event_id] = channel
        elif unanswered.get((self.name, event_id)) == channel:
            del unanswered[self.name, event_id]
        return (self.name, event_id) not in unanswered

    def told(self, at: float, up: bool) -> None:
        """
        The service says whether the database is up.
        """


class Witness(Agent):
    """
    An agent that nobody disturbs, and that writes down what the service says of its database.
    """

    def drop(self, away: float) -> bool:
        return False

    def told(self, at: float, up: bool) -> None:
        self._records.database.append((at, up))
