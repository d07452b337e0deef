"""
A node of a simulated cluster: its core, its log, its bus and its agents, in a process that may be cut off, be frozen,
and end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from dcm_ws.brokers.bus_memory import MemoryBus, MemoryHub
from dcm_ws.brokers.bus_parcels import Parcel
from dcm_ws.brokers.election import look_seconds
from dcm_ws.brokers.log_rows import LogRows
from dcm_ws.brokers.naps import Naps
from dcm_ws.brokers.owned_agents import OwnedAgents
from dcm_ws.brokers.postgres_log import Found, LogState, PostgresLog
from dcm_ws.core.assembly import Core
from dcm_ws.core.counts import Counts
from dcm_ws.core.ids import base36
from dcm_ws.core.log import MemoryLog
from dcm_ws.core.publish_queue import PublishQueue
from dcm_ws.postgres.connection import DatabaseUnavailableError
from dcm_ws.postgres.log_place import LogPlace, Snapshot
from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.errors import CloseCode
from tests.core.living import finish
from tests.fakes import make_core
from tests.simulation.clock import Process
from tests.simulation.database import UNSEEN_SECONDS, Database, Link, Look
from tests.simulation.tables import Tables

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

EPOCH = "epoch"
LOOK_SECONDS = 0.1
BEAT_SECONDS = 1.0
_LATE_SECONDS = 3.0
_ROWS = 500
_BATCH = 1000
_BATCH_BYTES = 1 << 20
# of the log in memory; what is older is read in the database
_KEPT_EVENTS = 2000


class NodeBus(MemoryBus):
    """
    The bus of one process.
    """

    process: Process
    topics: Any

    def arrived(self, parcel: Parcel) -> None:
        self.process.do(self._arrived, parcel)

    def _arrived(self, parcel: Parcel) -> None:
        self.topics[parcel.topic] += 1
        super().arrived(parcel)


class Reader:
    """
    Reads the log for clients that are far behind.
    """

    waiting = 0

    def __init__(self, database: Database, link: Link) -> None:
        self._database = database
        self._link = link

    def page(self, lanes: Mapping[str, int], head: int, most: int, ready: Callable[[Found | None], object]) -> None:
        after = dict(lanes)
        self._ask("page", lambda: self._database.page(after, head, most), ready)

    def find(self, positions: Sequence[int], ready: Callable[[Found | None], object]) -> None:
        wanted = list(positions)
        self._ask("find", lambda: self._database.find(wanted), ready)

    def _ask(self, name: str, execute: Callable[[], Found], ready: Callable[[Found | None], object]) -> None:
        async def read() -> None:
            try:
                found = await self._link.ask(name, execute)
            except DatabaseUnavailableError:
                found = None
            ready(found)

        Deferred.fromCoroutine(read()).addErrback(self._link.database.clock.failed)


class Node:
    """
    One node.

    @ivar name: stays, whatever happens to it.
    @ivar number: that of its row; None while it has none.
    @ivar leads: it numbers the events.
    """

    def __init__(self, cluster: Cluster, name: str, **choices: Any) -> None:
        self.cluster = cluster
        self.name = name
        self.process = process = Process(cluster.clock)
        self.database = database = cluster.database
        self.link = Link(database, process)
        self.number: int | None = database.register()
        cluster.numbered[self.number] = self
        counts = Counts()
        self.bus = NodeBus(
            cluster.hub,
            process.callLater,
            now=process.seconds,
            counts=counts,
            max_message=1 << 20,
            max_waiting=cluster.max_waiting,
        )
        self.bus.process, self.bus.topics = process, cluster.heard
        if cluster.bus_is_away:
            self.bus.cut()
        self.bus.join(str(self.number), "test")
        self._naps = Naps(process, process.seconds, lambda: process.is_alive)
        self.link.woken = self._naps.wake_soon

        def make_log(epoch: str, now: Callable[[], float], **limits: Any) -> PostgresLog:
            limits["max_events"] = _KEPT_EVENTS
            tail = MemoryLog(epoch, now, **limits)
            queue = PublishQueue(now, lambda _: None, max_events=10_000, max_bytes=64 << 20)
            log = PostgresLog(
                tail,
                LogRows(Channels()),
                queue,
                counts.engine,
                later=process.callLater,
                now=now,
                keep=cluster.database.keep,
                max_bytes=1 << 30,
                crowded=lambda publisher, number: None,
                shares=True,
            )
            log.reader = Reader(database, self.link)
            log.wake = self._naps.wake_soon
            return log

        random = cluster.random
        self.owned = OwnedAgents(
            process,
            Tables(database, self.link, lambda: self.number),
            Tables(database, self.link, lambda: self.number),
            self.bus,
            counts,
            leads=lambda: self.leads,
            reach=lambda pos, ready: self.log.reach(pos, ready),
            last=lambda: self.log.delivery.last,
            fenced=self._hurry,
            now=process.seconds,
            wall_ms=cluster.wall_ms,
            random=random.random,
        )
        self.core: Core = make_core(
            process,
            counts=counts,
            log=make_log,  # type: ignore[arg-type]
            random=lambda length: base36(random.getrandbits(5 * length)).rjust(length, "0")[-length:],
            owners=self.owned,
            bus=self.bus,
            **choices,
        )
        core = self.core
        self.owned.attach(journal=core.journal, ledger=core.ledger, ownership=core.ownership, redriving=core.redriving)
        core.hub.was_reset = lambda: self.owned.open(core.loading)
        self.log: PostgresLog = core.log  # type: ignore[assignment]
        self.leads = False
        self._count = 1
        self._beat_at = self._led_since = 0.0
        self.log.open(LogPlace(EPOCH, database.head, Snapshot("1", ""), 0, (0, "")), database.first)
        self.owned.startService()
        self.stops = False
        process.callLater(random.random(), self._tick)
        process.callLater(random.random() * LOOK_SECONDS, self._begin)

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive

    @property
    def serves(self) -> bool:
        """
        A client that connects gets an answer.
        """
        return self.is_alive and not self.stops and not self.process.is_frozen

    # once a second

    def _tick(self) -> None:
        self.process.callLater(1.0, self._tick)
        finish(self.core.hub.sweep())
        finish(self.core.retrying.sweep())
        self.owned.tick()

    # the log: see dcm_ws.brokers.follower and dcm_ws.brokers.numberer

    def _begin(self) -> None:
        Deferred.fromCoroutine(self._run()).addErrback(self.cluster.clock.failed)

    async def _run(self) -> None:
        while not self.stops:
            try:
                await self._session()
            except DatabaseUnavailableError:
                self.leads = False
                self.log.change_to(LogState.DOWN)
                await self._naps.rest(0.1 + self.cluster.random.random())

    async def _session(self) -> None:
        self.leads = False
        self._led_since = self.process.seconds()
        while not self.stops:
            self._naps.woken = False
            await self._tend()
            found = await (self._lead() if self.leads else self._follow())
            log = self.log
            log.looked()
            if not self.leads and found.leads:
                self.leads = True
                self._beat_at = 0.0
            elif self.leads and not found.leads:
                raise DatabaseUnavailableError("another node leads")
            log.change_to(LogState.UP if self.leads else LogState.FOLLOWING)
            log.first = found.first
            if found.first > log.delivery.fetched + 1:
                log.lose()
                continue
            if log.delivery.fetched < found.head:
                log.delivery.read(found.rows, found.head)
            if not self.leads and log.publishes:
                drafts = [waiting.draft for waiting in log.publishes.take(_BATCH, _BATCH_BYTES)]
                await self.link.ask("publish", lambda drafts=drafts: self.database.put(drafts))  # type: ignore[misc]
            if len(found.rows) < _ROWS and not log.publishes:
                await self._naps.sleep(
                    LOOK_SECONDS if self.leads else look_seconds(self._count, self.cluster.random.random())
                )

    async def _follow(self) -> Look:
        after = self.log.delivery.fetched
        found: Look = await self.link.ask("follow", lambda: self.database.look(self.link, after, _ROWS))
        return found

    async def _lead(self) -> Look:
        after, batch = self.log.delivery.fetched, self.log.publishes.take(_BATCH, _BATCH_BYTES)
        drafts = [waiting.draft for waiting in batch]

        def execute() -> Look:
            if self.database.leader is not self.link:
                raise DatabaseUnavailableError("the session has ended")
            return self.database.number(self.link, drafts, after, _ROWS)

        found: Look = await self.link.ask("number", execute)
        return found

    # the membership: see dcm_ws.brokers.membership

    def _hurry(self) -> None:
        self._beat_at = 0.0

    async def _tend(self) -> None:
        now = self.process.seconds()
        if now < self._beat_at:
            return
        if not self.leads or now - self._beat_at > _LATE_SECONDS:
            self._led_since = now
        self._beat_at = now + BEAT_SECONDS
        number = self.number
        if number is not None:
            count = await self.link.ask("beat", partial(self.database.beat, number))
            if count:
                self._count = count
                if self.leads and now - self._led_since >= UNSEEN_SECONDS:
                    for other in await self.link.ask("fence", partial(self.database.fence, number)):
                        self.core.presence.suspect(str(other))
                return
            self.number = None
            self.cluster.restarted += 1
            self.core.hub.restart()
        number = self.number = await self.link.ask("register", self.database.register)
        self.cluster.numbered[number] = self
        self.bus.join(str(self.number), "test")

    # the end

    def kill(self) -> None:
        """
        End as a process that is killed.
        """
        if not self.is_alive:
            return
        self.process.end()
        self.bus.leave()
        self.cluster.clock.callLater(self.cluster.random.uniform(0.0, 0.05), self.link.leave)

    def stop(self) -> None:
        """
        End as a process that is asked to.
        """
        self.stops = True
        self.process.do(self._stop)

    def _stop(self) -> None:
        self.core.hub.draining = True
        for session in list(self.core.clients.sessions):
            self.core.hub.close(session, CloseCode.RESTART)
        self.process.callLater(self.cluster.random.uniform(0.0, 0.5), self._end)

    def _end(self) -> None:
        async def end() -> None:
            await self.owned.stopService()
            self.core.presence.leave()
            number = self.number
            if number is not None:
                with suppress(DatabaseUnavailableError):
                    await self.link.ask("leave", lambda: self.database.nodes.pop(number, None))
            self.kill()

        Deferred.fromCoroutine(end()).addErrback(self.cluster.clock.failed)


def hub_of(cluster: Cluster) -> MemoryHub:
    """
    What the buses of all nodes hang on.
    """
    clock = cluster.clock
    return MemoryHub(clock.callLater, clock.seconds, cluster.random, delay=(0.0005, 0.005))
