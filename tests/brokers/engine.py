"""
The log in PostgreSQL as a service runs it, without clients.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from dcm_ws.brokers.batches import Batches
from dcm_ws.brokers.election import Alone
from dcm_ws.brokers.follower import Follower
from dcm_ws.brokers.lag import Lag
from dcm_ws.brokers.log_reader import LogReader
from dcm_ws.brokers.log_rows import LogRows
from dcm_ws.brokers.membership import Membership
from dcm_ws.brokers.numberer import Numberer
from dcm_ws.brokers.postgres_log import LogState, PostgresLog
from dcm_ws.core.counts import Counts
from dcm_ws.core.entries import Draft, Entry, Page, Published
from dcm_ws.core.log import MemoryLog
from dcm_ws.core.publish_queue import PublishQueue
from dcm_ws.postgres.connection import Place
from dcm_ws.postgres.ledger_upkeep import LedgerUpkeep
from dcm_ws.postgres.nodes import NodeInfo
from dcm_ws.postgres.upkeep import Kept, Upkeep
from dcm_ws.protocol.channels import Channels, parse_channel
from dcm_ws.protocol.events import traits_of
from tests.integration.databases import PostgresServer

_numbers = itertools.count(1)
_made: list[Engine] = []


class Engine:
    """
    A log in a database, and what it does.

    @param url: the database's.
    @param limits: of the upkeep and of memory.
    @param node: its name in a cluster; empty if there is none.

    @ivar delivered: the position, id, channel, event and data of each event that was delivered, in this order.
    @ivar opened: the head at each reset.
    @ivar ahead_ms: how far its wall clock is ahead.
    @ivar store: has what agents are owed.
    @ivar patient: publishers wait for as long as it takes.
    @ivar looks: how often it has looked after the tables.
    """

    def __init__(
        self,
        url: str,
        *,
        keep: float = 3600.0,
        max_bytes: int = 1 << 30,
        tail_events: int = 10_000,
        ledger_bytes: int = 1 << 30,
        required: bool = False,
        node: str = "",
    ) -> None:
        from twisted.internet import reactor

        _made.append(self)
        self._reactor: Any = reactor
        self.counts = Counts()
        self.delivered: list[tuple[int, str, str, str, str]] = []
        self.opened: list[int] = []
        self.ahead_ms = 0
        now = self._reactor.seconds

        async def address() -> Place:
            return Place(url)

        tail = MemoryLog("provided", now, keep=keep, max_events=tail_events, max_bytes=64 << 20)
        self.patient = False
        queue = PublishQueue(
            lambda: 0.0 if self.patient else now(),
            self.counts.limits.max_log_waiting.add_of,
            max_events=10_000,
            max_bytes=64 << 20,
        )
        self.log = PostgresLog(
            tail,
            LogRows(Channels()),
            queue,
            self.counts.engine,
            later=self._reactor.callLater,
            now=now,
            keep=keep,
            max_bytes=max_bytes,
            crowded=self.counts.limits.max_recent_events.add_of,
            shares=bool(node),
        )
        self.log.attach(self._deliver, lambda: self.opened.append(self.log.head))
        self.log.reader = self.reader = LogReader(reactor, address, now)
        self.looks = 0
        ledger = LedgerUpkeep(ledger_bytes, self.counts.limits.ledger_max_bytes.add)
        self.upkeep = Upkeep(now, self.wall_ms, keep=keep, max_bytes=max_bytes, kept=self._kept, ledger=ledger)
        batches, lag = Batches(self.log.publishes), Lag(self.counts.engine, self.wall_ms)
        info = NodeInfo(node, "host", 1, "1.0", "ws://127.0.0.1/")
        self.membership = Membership(lambda: info, lambda: {"pos": self.log.head}, now)
        follower = Follower(self.log, batches, self.upkeep, self.membership, lag, lambda: 0.5)
        epochs = itertools.count(1)
        self.store = Nothing()
        self.numberer = Numberer(
            reactor,
            address,
            self.log,
            self.store,
            self.counts.engine,
            election=follower if node else Alone(),
            batches=batches,
            lag=lag,
            required=required,
            data_bytes=1 << 20,
            data_depth=50,
            new_epoch=lambda: f"epoch{next(epochs)}",
            upkeep=self.upkeep,
            now=now,
            random=lambda: 0.5,
        )

    def wall_ms(self) -> int:
        """
        Ms since the epoch.
        """
        return int(self._reactor.seconds() * 1000) + self.ahead_ms

    async def start(self) -> None:
        """
        Start, and wait until the log is there.
        """
        self.reader.startService()
        self.numberer.startService()
        await self.numberer.found

    async def start_again(self) -> None:
        """
        Go on after L{stop}, as a service does whose database was away.
        """
        self.reader.startService()
        self.numberer.startService()

    async def stop(self) -> None:
        """
        Stop.
        """
        await self.numberer.stopService()
        working = self.reader.stopService()
        if working is not None:
            await working

    def publish(
        self, data: str, channel: str = "topics/a", event: str = "task.created", publisher: str = "ann", key: str = ""
    ) -> Published:
        """
        Publish as a client does.
        """
        draft = self._draft(data, channel, event, publisher, key)
        published = Published(draft.id)
        self.log.append(draft, published)
        return published

    def publish_all(self, *data: str) -> list[Published]:
        """
        Publish events together.
        """
        drafts = [self._draft(one, "topics/a", "task.created", "ann", "") for one in data]
        published = [Published(draft.id) for draft in drafts]
        self.log.append_all(list(zip(drafts, published, strict=True)), partial(self._reactor.callLater, 0))
        return published

    def _draft(self, data: str, channel: str, event: str, publisher: str, key: str) -> Draft:
        category, tracked, _ = traits_of(event)
        parsed = parse_channel(channel)
        return Draft(
            f"msg_client{next(_numbers)}",
            parsed,
            event,
            data.encode(),
            1_700_000_000_000,
            b"",
            channel,
            category,
            tracked,
            parsed.mirrored,
            publisher,
            key,
        )

    async def answered(self, *published: Published) -> None:
        """
        Wait until the log has answered.
        """
        await self.until(lambda: not any(one.waiting for one in published))

    async def has_looked(self) -> None:
        """
        Wait until the tables have been looked after.
        """
        looks = self.looks
        await self.until(lambda: self.looks >= looks + 2)

    async def until(self, holds: Callable[[], object]) -> None:
        """
        Wait until something is the case.
        """
        for _ in range(2000):
            if holds():
                return
            await deferLater(self._reactor, 0.01)
        raise AssertionError("it never was the case")

    async def head_is(self, head: int) -> None:
        """
        Wait until so many events have been delivered.
        """
        await self.until(lambda: self.log.head >= head)
        assert self.log.head == head

    def data(self) -> list[str]:
        """
        The data of what was delivered.
        """
        return [data for *_, data in self.delivered]

    async def has_data(self, data: str) -> None:
        """
        Wait until an event with this data has been delivered.
        """
        await self.until(lambda: data in self.data())

    async def page(self, after: int, channels: Mapping[str, int], most: int = 256) -> Page | None:
        """
        Read a page.
        """
        answer: Deferred[Page | None] = Deferred()
        self.log.page(after, channels, most, answer.callback)
        return await answer

    async def find(self, *positions: int) -> Mapping[int, Entry] | None:
        """
        Read single events.
        """
        answer: Deferred[Mapping[int, Entry] | None] = Deferred()
        self.log.find(positions, answer.callback)
        return await answer

    async def is_up(self) -> None:
        """
        Wait until the log can be written.
        """
        await self.until(lambda: self.log.state is LogState.UP)

    def _kept(self, kept: Kept) -> None:
        self.looks += 1
        self.log.kept(kept)

    def _deliver(self, draft: Draft, pos: int, frame: bytes) -> None:
        assert f'"pos":{pos}}}'.encode() in frame
        self.delivered.append((pos, draft.id, draft.channel.name, draft.event, draft.data.decode()))


class Nothing:
    """
    Agents are owed nothing.

    @ivar current: no other service has been the leader since this one was.
    """

    current = True

    async def is_current(self, session: object) -> bool:
        return self.current

    async def read(self, connection: object) -> None:
        pass

    def apply(self, state: None) -> None:
        pass


async def stop_all() -> None:
    """
    Stop those that still run after a test that failed: they would disturb the next one.
    """
    while _made:
        engine = _made.pop()
        if engine.numberer.running:
            await engine.stop()


async def logged(database: PostgresServer) -> list[tuple[Any, ...]]:
    """
    What is in the log, as L{Engine.delivered} has it.
    """
    rows = await database.run("select pos, event_id, channel, event, data from dcm_ws.log order by pos")
    return [tuple(row) for row in rows]
