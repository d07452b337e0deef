"""
Agents: clients that acknowledge what is tracked, lose their connections, and come back.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter, deque
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.chaos.connections import ComingBack, reset, say
from tests.chaos.durable.connections import OPTIONS, RETRY, LoadBalancer, gap_end
from tests.chaos.durable.history import NEVER, AgentHistory, Gap, History, Receipt, SentAck, Visit, is_tracked, padding

_PING_SECONDS = 0.3
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Habits:
    """
    How an agent behaves.

    @ivar session: the session that its first connection names; its later ones name none.
    @ivar several: it has other connections at the same time.
    @ivar cumulative: it acknowledges up to a position.
    @ivar unanswered: the share of events that it leaves without an ack the first time, or the first two times.
    @ivar never: the share of events that it never acknowledges.
    @ivar refuses: the share of events that it refuses once.
    @ivar slow: seconds that it takes for an event, now and then.
    @ivar away_most: seconds for which it stays away at most.
    """

    session: str | None = None
    several: bool = False
    cumulative: bool = False
    unanswered: float = 0.0
    never: float = 0.0
    refuses: float = 0.0
    slow: float = 0.0
    away_most: float = 2.0


class AgentClient(ComingBack):
    """
    One connection after another of an agent of version 1: it knows nothing of positions.

    @ivar here: it is connected, authenticated, and subscribed to all that it wants.
    @ivar obedient: from now on it acknowledges everything.
    @ivar at: the node of its connection.
    """

    def __init__(
        self, name: str, channels: Collection[str], front: LoadBalancer, history: History, habits: Habits = Habits()
    ) -> None:
        super().__init__(name)
        self.habits = habits
        self.obedient = False
        self._channels = channels
        self._front = front
        self.at = ""
        self._history = history
        self.mine = history.agents.setdefault(name, AgentHistory(name, habits.several))
        self._random = random.Random(f"{name} {len(channels)}")
        self._number = 0
        self._visit = Visit(0, "", 0.0)
        self._epoch = ""
        self._pos = 0
        self._known = False
        self._times: Counter[tuple[str, str]] = Counter()
        # an event may come on two channels
        self._decided: set[str] = set()
        # acks that the service may not have read yet, by the ping that was sent after them
        self._open: list[SentAck] = []
        self._pinged: deque[list[SentAck]] = deque()
        self._hung: list[ClientConnection] = []

    async def live(self) -> None:
        """
        Connect, listen, and come back.
        """
        while not self._stopping:
            with suppress(WebSocketException, OSError, TimeoutError):
                session = None if self._known else self.habits.session
                address = self._front.pick()
                self.at = address.node
                self._connection = connection = await connect(address.url(self.name, session=session), **OPTIONS)
                self._number = next(_numbers)
                self._visit = visit = Visit(self._number, self.at, time.monotonic())
                self.mine.visits.append(visit)
                listening = asyncio.create_task(self._listen(connection))
                pinging = asyncio.create_task(self._ping(connection))
                await asyncio.wait([listening, pinging], return_when=asyncio.FIRST_COMPLETED)
                for task in (listening, pinging):
                    task.cancel()
                    with suppress(asyncio.CancelledError, ConnectionClosed):
                        await task
                if connection not in self._hung:
                    visit.ended = time.monotonic()
                    await connection.close()
            self.here.clear()
            self._connection = None
            self._open.clear()
            self._pinged.clear()
            away, self._away = self._away, RETRY
            if not self._stopping:
                await asyncio.sleep(away)

    def hang(self) -> bool:
        """
        Read nothing more of the connection, which stays open, and come back on another one.  False if there is none.
        """
        connection, self._connection = self._connection, None
        if connection is None or len(self._hung) > 20:
            return False
        self.here.clear()
        self._hung.append(connection)
        return True

    async def stop(self) -> None:
        """
        Leave for good.
        """
        self._stopping = True
        await self.leave(0)
        for connection in self._hung:
            reset(connection)

    async def _ping(self, connection: ClientConnection) -> None:
        """
        Ask again and again whether the service has read what was sent before.
        """
        while connection is self._connection:
            if self.habits.cumulative and self._pos and self.here.is_set():
                self._acknowledge(SentAck(time.monotonic(), self._number, None, self._pos, self._epoch, node=self.at))
                await say(connection, type="ack", pos=self._pos)
            self._pinged.append(self._open)
            self._open = []
            await say(connection, type="ping")
            await asyncio.sleep(_PING_SECONDS)

    async def _listen(self, connection: ClientConnection) -> None:
        async for text in connection:
            if connection is not self._connection:
                return  # what still comes after the drop is lost
            message = json.loads(text)
            if "event" in message:
                await self._heard(connection, message)
            elif message.get("type") == "pong":
                now = time.monotonic()
                for ack in self._pinged.popleft():
                    ack.certain = now
            elif message.get("type") == "connected":
                if message["epoch"] != self._epoch:
                    self._pos = 0
                self._epoch = message["epoch"]
                self._visit.client = message["client_id"]
            elif message.get("type") == "gap":
                self._gap(message)
            elif message.get("type") == "ack" and message.get("success") is True:
                await self._answered(connection, message)
            elif (message.get("success") is False or "error" in message) and message.get("code") != "NOT_AVAILABLE":
                self._history.wrongs.append(f"{self.name} was refused: {message}")

    async def _answered(self, connection: ClientConnection, message: dict[str, Any]) -> None:
        since = self.mine.since
        if "subscriptions" in message:
            there = message["subscriptions"]
            self._visit.authenticated, self._visit.pos = time.monotonic(), message["pos"]
            self.mine.epochs.setdefault(message["epoch"], message["pos"])
            for channel in there:
                since.setdefault(channel, (message["epoch"], message["pos"]))
            missing = [channel for channel in self._channels if channel not in there]
            if self._known:
                forgotten = [channel for channel in since if channel not in there and channel != "global"]
                self.mine.forgotten += [(time.monotonic(), message["epoch"], channel) for channel in forgotten]
            for channel in missing:
                await say(connection, type="subscribe", channel=channel, id=channel)
            if "global" not in self._channels:
                since.pop("global", None)
                await say(connection, type="unsubscribe", channel="global")
            await say(connection, type="subscribe", channel=f"agents/{self.name}", id="last")
        elif message["id"] == "last":
            self._known = True
            self.here.set()
        elif message["id"] in self._channels:
            since.setdefault(message["id"], (message["epoch"], message["pos"]))

    def _gap(self, message: dict[str, Any]) -> None:
        epoch, end = message["epoch"], gap_end(message)
        gap = Gap(time.monotonic(), self._number, message["reason"], self._epoch, 0, epoch, end)
        self.mine.gaps.append(gap)
        self._epoch = epoch
        if gap.epoch != gap.since_epoch:
            self._pos = 0

    async def _heard(self, connection: ClientConnection, message: dict[str, Any]) -> None:
        event, data, event_id, channel = message["event"], message["data"], message["id"], message["channel"]
        if "publisher" not in data:
            return
        pos, number = message.get("pos"), data["number"]
        intact = data["padding"] in (padding(number), "")
        self.mine.receipts.append(
            Receipt(
                time.monotonic(),
                self._number,
                self._epoch,
                pos,
                channel,
                event,
                event_id,
                data["publisher"],
                number,
                intact,
            )
        )
        if pos is not None and (channel in self._channels or channel != "global"):
            self._pos = max(self._pos, pos)
        if self.habits.slow and self._random.random() < 0.003:
            await asyncio.sleep(self.habits.slow)
        if is_tracked(event) and not self.habits.cumulative:
            await self._decide(connection, event_id, channel)

    async def _decide(self, connection: ClientConnection, event_id: str, channel: str) -> None:
        """
        Acknowledge an event, or leave that for the next time, or refuse it.
        """
        self._times[event_id, channel] += 1
        times, left = self._times[event_id, channel], self.mine.left_unanswered
        new = event_id not in self._decided
        self._decided.add(event_id)
        if new and not self.obedient:
            chance, habits = self._random.random(), self.habits
            if chance < habits.never:
                left[event_id] = NEVER
            elif chance < habits.never + habits.unanswered:
                left[event_id] = self._random.choice((1, 1, 2))
            elif chance < habits.never + habits.unanswered + habits.refuses:
                left[event_id] = 1
                await say(connection, type="nack", message_id=event_id, delay_ms=self._random.randrange(800))
        if times > left.get(event_id, 0) or self.obedient:
            await say(connection, type="ack", message_id=event_id)
            self._acknowledge(SentAck(time.monotonic(), self._number, event_id, None, self._epoch, node=self.at))

    def _acknowledge(self, ack: SentAck) -> None:
        self.mine.acks.append(ack)
        self._open.append(ack)
