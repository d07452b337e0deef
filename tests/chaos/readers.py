"""
Readers: observers that keep the position of the last event that they have read, lose their connections, and resume.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.chaos.connections import ComingBack, say
from tests.chaos.records import Reading, Records
from tests.chaos.subscribers import OPTIONS


class Reader(ComingBack):
    """
    One reader, which reconnects until the test stops it.  It resumes also when it connects for the first time: from
    where the server says that the log is.

    @ivar here: it is connected, and has resumed.
    """

    def __init__(self, name: str, channels: Collection[str], port: int, records: Records) -> None:
        super().__init__(name)
        self._channels = list(channels)
        self._url = f"ws://127.0.0.1:{port}/?observer=1"
        self._reading = records.readings[name] = Reading(frozenset(channels))
        self._records = records
        self._epoch = ""
        self._pos = 0

    async def live(self) -> None:
        """
        Connect, read, and come back.
        """
        while not self._stopping:
            try:
                async with connect(self._url, **OPTIONS) as connection:
                    self._connection = connection
                    with suppress(ConnectionClosed):
                        await self._read(connection)
            except (WebSocketException, OSError) as error:
                self._records.wrongs.append(f"{self.name} could not connect: {error!r}")
                self._away = max(self._away, 0.1)
            self.here.clear()
            self._connection = None
            if not self._stopping:
                await asyncio.sleep(self._away)

    async def _read(self, connection: ClientConnection) -> None:
        async for text in connection:
            if connection is not self._connection:
                return  # what still comes after the drop is lost
            message = json.loads(text)
            if message.get("type") == "connected":
                if not self._epoch:
                    self._epoch, self._pos = message["epoch"], message["pos"]
                await say(connection, type="unsubscribe", channel="global", id="left")
                position = {"epoch": self._epoch, "pos": self._pos, "channels": self._channels}
                await say(connection, type="resume", id="resumed", **position)
            elif message.get("id") == "resumed":
                self._resumed(message)
            elif "event" in message:
                self._event(message)
            elif message.get("type") == "gap":
                self._gap(message)
            elif message.get("success") is False or "error" in message:
                self._records.wrongs.append(f"{self.name} was refused: {message}")

    def _resumed(self, message: dict[str, Any]) -> None:
        if message["resumed"] is not True:
            self._gap(message)
        self.here.set()

    def _gap(self, message: dict[str, Any]) -> None:
        self._reading.gaps.append(range(self._pos + 1, message["pos"] + 1))
        self._epoch, self._pos = message["epoch"], message["pos"]

    def _event(self, message: dict[str, Any]) -> None:
        pos, data = message.get("pos"), message["data"]
        if message["channel"] not in self._channels or pos is None:
            return
        if not self.here.is_set():
            return  # on global, before it was left: the log has it
        if pos <= self._pos:
            self._records.wrongs.append(f"{self.name}: position {pos} came after {self._pos}")
        self._pos = max(self._pos, pos)
        self._reading.counts[data["publisher"], data["number"]] += 1
