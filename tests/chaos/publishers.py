"""
Those who publish: WebSocket clients, and transactions that NOTIFY.  All number their events.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psycopg2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.chaos.connections import reset, say
from tests.chaos.records import Publication, Records, is_tracked, padding
from tests.chaos.subscribers import OPTIONS

_EVENTS = ("task.created", "subtask.running", "message.new", "session.created", "agent.heartbeat", "metric.update")
_RETRY = 0.1


class _Publisher:
    def __init__(self, name: str, channels: Sequence[str], rate: float, seed: int, records: Records) -> None:
        self.name = name
        self._channels = channels
        self._rate = rate
        self._random = random.Random(f"{seed} {name}")
        self._records = records
        self._number = 0

    def _next(self, *, from_database: bool) -> Publication:
        self._number += 1
        channel, event = self._random.choice(self._channels), self._random.choice(_EVENTS)
        publication = Publication(self.name, self._number, channel, event, from_database, time.time())
        self._records.publications.append(publication)
        return publication

    def _message(self, publication: Publication) -> dict[str, Any]:
        number = publication.number
        data = {"publisher": self.name, "number": number, "padding": padding(number)}
        return {"channel": publication.channel, "event": publication.event, "data": data}

    async def _pause(self) -> None:
        await asyncio.sleep(self._random.expovariate(self._rate))


class ClientPublisher(_Publisher):
    """
    A WebSocket client that publishes without waiting for the acks.

    @param rate: events a second.
    """

    def __init__(
        self, name: str, channels: Sequence[str], rate: float, seed: int, records: Records, *, port: int
    ) -> None:
        super().__init__(name, channels, rate, seed, records)
        self._port = port
        self._connection: ClientConnection | None = None
        self._awaited: dict[int, Publication] = {}

    async def live(self, until: float) -> None:
        """
        Publish until a moment in the event loop's time, and wait for the last acks.
        """
        now = asyncio.get_running_loop().time
        while now() < until:
            # a connection that was aborted ends in one of these
            with suppress(WebSocketException, OSError):
                async with connect(f"ws://127.0.0.1:{self._port}/", **OPTIONS) as connection:
                    await self._use(connection, until)
            self._connection = None
            # whether these were published nobody knows
            self._awaited.clear()
            await asyncio.sleep(_RETRY)

    def drop(self) -> bool:
        """
        Reset the TCP connection.  False where there is none.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return False
        reset(connection)
        return True

    async def _use(self, connection: ClientConnection, until: float) -> None:
        now = asyncio.get_running_loop().time
        reader = asyncio.create_task(self._read(connection))
        try:
            await say(connection, type="unsubscribe", channel="global")
            self._connection = connection
            while now() < until:
                publication = self._next(from_database=False)
                self._awaited[publication.number] = publication
                await say(connection, type="publish", id=publication.number, **self._message(publication))
                await self._pause()
            while self._awaited and now() < until + 10 and not reader.done():
                await asyncio.sleep(0.05)
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError, WebSocketException, OSError):
                await reader

    async def _read(self, connection: ClientConnection) -> None:
        async for text in connection:
            message = json.loads(text)
            if message.get("type") == "ack":
                if message["success"] is not True:
                    self._records.wrongs.append(f"{self.name} was refused: {message}")
                    continue
                publication = self._awaited.pop(message["id"])
                publication.id, publication.ended = message["message_id"], time.time()
                publication.pos = message.get("pos")
            elif is_tracked(message.get("event", "")):
                # what came before it had left global
                await say(connection, type="ack", message_id=message["id"])


class DatabasePublisher(_Publisher):
    """
    Transactions, each of one or some NOTIFYs.

    @param rate: transactions a second.
    """

    def __init__(
        self, name: str, channels: Sequence[str], rate: float, seed: int, records: Records, *, url: str
    ) -> None:
        super().__init__(name, channels, rate, seed, records)
        self._url = url
        self._connection: Any = None

    async def live(self, until: float) -> None:
        """
        Publish until a moment in the event loop's time.
        """
        now = asyncio.get_running_loop().time
        try:
            while now() < until:
                try:
                    if self._connection is None:
                        self._connection = await asyncio.to_thread(
                            psycopg2.connect, self._url, application_name=f"chaos {self.name}"
                        )
                    await self._transaction(self._random.choice((1, 1, 1, 2, 5)))
                    await self._pause()
                except psycopg2.Error:
                    # whether the transaction was committed nobody knows
                    self._connection = None
                    await asyncio.sleep(_RETRY)
        finally:
            if self._connection is not None:
                self._connection.close()

    async def _transaction(self, size: int) -> None:
        batch = [self._next(from_database=True) for _ in range(size)]
        await asyncio.to_thread(self._notify, [json.dumps(self._message(publication)) for publication in batch])
        ended = time.time()
        for publication in batch:
            publication.ended = ended

    def _notify(self, payloads: list[str]) -> None:
        with self._connection, self._connection.cursor() as cursor:
            for payload in payloads:
                cursor.execute("select pg_notify('dcm_events', %s)", (payload,))
