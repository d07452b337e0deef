"""
Followers: clients that keep the epoch and the position of the last event that they have handled, and resume there.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.chaos.connections import ComingBack, say
from tests.chaos.durable.connections import OPTIONS, RETRY, LoadBalancer, gap_end, token
from tests.chaos.durable.history import Follower, Gap, History, Receipt, padding

_SMALL = 16_384
_SLOW_PART = 500
_SILENCE = 12.0
"""
Seconds without anything, not even a ping, after which the connection is dead.
"""


class FollowingClient(ComingBack):
    """
    An observer that follows some channels, and reconnects until the test stops it.

    @param by_auth: it resumes with its C{auth}; else with a message of its own.
    @param slow: it reads a part of what comes, waits for a moment, and reads on.
    @param trusts_pings: it takes the position of a server's ping for its own, as the protocol allows.

    @ivar here: it is connected, and has resumed.
    @ivar at: the node of its connection.
    """

    def __init__(
        self, name: str, channels: Collection[str], front: LoadBalancer, history: History, *, by_auth: bool = False,
        slow: bool = False, trusts_pings: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(name)
        self.following = Follower(name, frozenset(channels))
        history.followers.append(self.following)
        self._front = front
        self.at = ""
        self._history = history
        self._random = random.Random(name)
        self._by_auth = by_auth
        self._slow = slow
        self._trusts_pings = trusts_pings
        self._connections = 0
        self.epoch = ""
        self.pos = 0
        # the end of the log when the server answered; before it only the positions of events count
        self._caught_up = 0

    async def live(self) -> None:
        """
        Connect, read, and come back.
        """
        while not self._stopping:
            try:
                async with await self._connect() as connection:
                    self._connections += 1
                    self._connection = connection
                    with suppress(ConnectionClosed):
                        await self._read(connection)
            except (WebSocketException, OSError, TimeoutError):
                self._away = max(self._away, RETRY)
            self.here.clear()
            self._connection = None
            away, self._away = self._away, RETRY
            if not self._stopping:
                await asyncio.sleep(away)

    async def _connect(self) -> ClientConnection:
        address = self._front.pick(observes=True)
        self.at = address.node
        url = address.bare() if self._by_auth else address.url(self.name, observer=True)
        options = dict(OPTIONS)
        if self._slow:
            plain = socket.socket()
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
            plain.setblocking(False)
            try:
                async with asyncio.timeout(5):
                    await asyncio.get_running_loop().sock_connect(plain, (address.host, address.port))
            except BaseException:
                plain.close()
                raise
            options |= {"sock": plain, "max_queue": 4}
        return await connect(url, **options)

    async def _read(self, connection: ClientConnection) -> None:
        count = 0
        while True:
            async with asyncio.timeout(_SILENCE):
                text = await connection.recv()
            if connection is not self._connection:
                return  # what still comes after the drop is lost
            message = json.loads(text)
            if "event" in message:
                self._event(message)
            elif message.get("type") == "connected":
                await self._connected(connection, message)
            elif message.get("id") == "resumed":
                self._resumed(message)
            elif message.get("type") == "gap":
                self._gap(message["reason"], message, gap_end(message))
            elif message.get("type") == "ping":
                self._ping(message)
            elif message.get("success") is False or "error" in message:
                self._refused(connection, message)
            count += 1
            if self._slow and count % _SLOW_PART == 0:
                await asyncio.sleep(self._random.uniform(0.05, 0.3))

    async def _connected(self, connection: ClientConnection, message: dict[str, Any]) -> None:
        if self.following.start is None:
            self.epoch, self.pos = message["epoch"], message["pos"]
            self.following.start = self.epoch, self.pos
        channels = sorted(self.following.channels)
        position = {"epoch": self.epoch, "pos": self.pos, "channels": channels}
        if self._by_auth:
            await say(connection, type="auth", id="resumed", token=token(self.name), observer=True, resume=position)
        else:
            await say(connection, type="unsubscribe", channel="global", id="left")
            await say(connection, type="resume", id="resumed", **position)

    def _refused(self, connection: ClientConnection, message: dict[str, Any]) -> None:
        # a server that stops does not do everything any more
        if message.get("code") != "NOT_AVAILABLE":
            self._history.wrongs.append(f"{self.name} was refused: {message}")

    def _resumed(self, message: dict[str, Any]) -> None:
        if message["success"] is not True:
            if message["code"] != "NOT_AVAILABLE":
                self._history.wrongs.append(f"{self.name} was refused: {message}")
            return
        if message["resumed"] is not True:
            self._gap(message["gap"]["reason"], message, message["pos"])
        elif message["epoch"] != self.epoch:
            self._history.wrongs.append(f"{self.name} resumed from {self.epoch} in {message['epoch']}")
        self._caught_up = message["pos"]
        self.here.set()

    def _gap(self, reason: str, message: dict[str, Any], pos: int) -> None:
        epoch = message["epoch"]
        gap = Gap(time.monotonic(), self._connections, reason, self.epoch, self.pos, epoch, pos)
        self.following.steps.append(gap)
        # the server may tell of what the client has already
        if epoch != self.epoch or pos > self.pos:
            self.epoch, self.pos = epoch, pos

    def _ping(self, message: dict[str, Any]) -> None:
        if self._trusts_pings and self.here.is_set() and message["epoch"] == self.epoch and self.pos >= self._caught_up:
            self.pos = max(self.pos, message["pos"])

    def _event(self, message: dict[str, Any]) -> None:
        pos, data, channel = message.get("pos"), message["data"], message["channel"]
        if channel not in self.following.channels or pos is None or not self.here.is_set():
            return  # what came on global before it was left is in the log
        publisher, number = data["publisher"], data["number"]
        intact = data["padding"] in (padding(number), "")
        receipt = Receipt(
            time.monotonic(), self._connections, self.epoch, pos, channel, message["event"], message["id"], publisher,
            number, intact,
        )  # fmt: skip
        self.following.steps.append(receipt)
        self.pos = max(self.pos, pos)
