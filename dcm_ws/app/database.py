"""
The service's database: the server that it starts itself, the connection that LISTENs, and the metrics.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, cast

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from dcm_ws.app.errors import StartError
from dcm_ws.app.modes import log_bytes, needs_durable_log
from dcm_ws.app.settings import Settings
from dcm_ws.app.siblings import OwnPostgres
from dcm_ws.app.summary import Summary
from dcm_ws.brokers.agent_store import AgentStore
from dcm_ws.brokers.batches import Batches
from dcm_ws.brokers.election import Alone, Election
from dcm_ws.brokers.follower import Follower
from dcm_ws.brokers.lag import Lag
from dcm_ws.brokers.log_reader import LogReader
from dcm_ws.brokers.membership import Membership
from dcm_ws.brokers.numberer import NoLogError, Numberer
from dcm_ws.brokers.owned_agents import OwnedAgents
from dcm_ws.brokers.postgres_log import PostgresLog
from dcm_ws.core.counts import Counts
from dcm_ws.core.journal import Journal
from dcm_ws.core.ledger import Ledger
from dcm_ws.core.loading import Loading
from dcm_ws.core.ports import JournalReport, World
from dcm_ws.core.redriving import Redriving
from dcm_ws.core.router import Router
from dcm_ws.http.pacing import Pacing
from dcm_ws.http.report import DatabaseStats
from dcm_ws.postgres.connection import Place
from dcm_ws.postgres.data_folder import EmbeddedError
from dcm_ws.postgres.kpis import KpiPoller
from dcm_ws.postgres.ledger_upkeep import LedgerUpkeep
from dcm_ws.postgres.listener import NotifyListener
from dcm_ws.postgres.upkeep import Upkeep
from dcm_ws.protocol.channels import GLOBAL, METRICS
from dcm_ws.protocol.errors import ProtocolError

_log = Logger(namespace="dcm_ws.service.DCMService")


class Database(MultiService):
    """
    Publishes what the database notifies, and its metrics.

    @param settings: name a database, or ask for the embedded one.
    @param postgres: the embedded one; None if the settings name a database.
    @param wants_metrics: returns if a client is subscribed to the metrics, at any node.
    @param pacing: of the connections that the events are written to.
    @param summary: receives what is wrong with notifications that are not events.
    @param log: the log, if it may be in the database.
    @param journal: what agents are owed; it is kept where the log is.
    @param ledger: what has happened to events; it is kept there, too.
    @param loading: receives what was kept of agents.
    @param redriving: executes what operators want to be done with dead letters.

    @ivar hurries: called when the database can be reached again, so that nobody waits longer for it.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        world: World,
        *,
        postgres: OwnPostgres | None,
        router: Router,
        wants_metrics: Callable[[], bool],
        counts: Counts,
        summary: Summary,
        pacing: Pacing,
        log: PostgresLog | None,
        journal: Journal,
        ledger: Ledger,
        loading: Loading,
        redriving: Redriving,
        membership: Membership | None,
    ) -> None:
        super().__init__()
        self._router = router
        self._wants_metrics = wants_metrics
        self._summary = summary
        self._membership = membership
        self._url = settings.database
        self._embedded = postgres
        self._kpis = KpiPoller(reactor, self.place, took=self._took_metrics, wall_ms=world.wall_ms)
        self._kpis.setServiceParent(self)
        self._listener = NotifyListener(
            reactor,
            self.place,
            heard=self._heard,
            together=pacing.together,
            changed=self._changed,
            written=counts.notify_seconds.observe,
            probed=counts.probe_seconds.observe,
            now=world.now,
            random=random.random,
        )
        self._listener.setServiceParent(self)
        self.hurries: list[Callable[[], object]] = [self._listener.hurry]
        self._numberer: Numberer | None = None
        self._store: AgentStore | OwnedAgents | None = None
        self._goodbye: Callable[[], object] | None = None
        if log is not None:
            store = None
            if membership is None:
                self._store = store = AgentStore(
                    reactor,
                    self.place,
                    counts.journal,
                    journal=journal,
                    ledger=ledger,
                    loading=loading,
                    redriving=redriving,
                    leads=lambda: self.leads,
                    now=world.now,
                    wall_ms=world.wall_ms,
                    random=random.random,
                )
                self.hurries.append(store.hurry)
            self._numberer = self._make_numberer(log, store, membership, settings, reactor, world, counts)
            self._numberer.reached = self._reached
            self.hurries.append(self._numberer.hurry)
            self._listener.woken = self._numberer.woken
            # the log first: where a pool has only one connection, and the database no log, the other one needs it
            self._listener.after = self._numberer.tried

    def _make_numberer(
        self,
        log: PostgresLog,
        store: AgentStore | None,
        membership: Membership | None,
        settings: Settings,
        reactor: Any,
        world: World,
        counts: Counts,
    ) -> Numberer:
        log.reader = reader = LogReader(reactor, self.place, world.now)
        reader.setServiceParent(self)
        batches, lag = Batches(log.publishes), Lag(counts.engine, world.wall_ms)
        upkeep = Upkeep(
            world.now,
            world.wall_ms,
            keep=settings.log_keep,
            max_bytes=log_bytes(settings, durable=True),
            kept=log.kept,
            ledger=LedgerUpkeep(settings.ledger_max_bytes, counts.limits.ledger_max_bytes.add),
        )
        election: Election = Alone()
        if membership is not None:
            election = Follower(log, batches, upkeep, membership, lag, random.random)
        numberer = Numberer(
            reactor,
            self.place,
            log,
            store,
            counts.engine,
            election=election,
            batches=batches,
            lag=lag,
            required=needs_durable_log(settings),
            data_bytes=settings.max_message_size,
            data_depth=settings.max_depth,
            new_epoch=lambda: world.random(8),
            upkeep=upkeep,
            now=world.now,
            random=random.random,
        )
        numberer.setServiceParent(self)
        return numberer

    @property
    def leads(self) -> bool:
        """
        Does this process number the events?
        """
        return self._numberer is not None and self._numberer.leads

    def own(self, owned: OwnedAgents, goodbye: Callable[[], object]) -> None:
        """
        This process is a node of a cluster.

        @param owned: keeps its agents.
        @param goodbye: tells the other nodes that this one stops.
        """
        self._store, self._goodbye = owned, goodbye
        self.hurries.append(owned.hurry)

    def is_stopping(self) -> None:
        """
        Tell operators and other nodes that this one is about to stop.
        """
        if self._membership is not None and self._numberer is not None:
            self._membership.draining = True
            self._membership.hurry()
            self._numberer.wake()

    @property
    def _is_node(self) -> bool:
        return self._membership is not None

    def startService(self) -> None:
        super().startService()
        if self._store is not None:
            self._store.startService()

    def stopService(self) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._store is not None:
            # while this service still has the leader's lock: then nobody has read what is written last
            await self._store.stopService()
        if self._goodbye is not None:
            self._goodbye()
        await super().stopService()

    async def up(self) -> None:
        """
        Wait until the service LISTENs, and the log is there.

        @raise StartError: the settings demand a log that the database does not have.
        """
        await self._listener.up
        if self._numberer is not None:
            try:
                await self._numberer.found
            except NoLogError as error:
                raise StartError(str(error)) from None

    def report(self) -> DatabaseStats:
        """
        The C{database} object of C{/health} and C{/stats}.
        """
        return cast(DatabaseStats, self._listener.report())

    def journal(self) -> JournalReport | None:
        """
        The state of the journal of what agents are owed; None if there is none.
        """
        return None if self._store is None else self._store.report()

    def flush(self) -> None:
        """
        Write what agents are owed, if it is kept in the database.
        """
        if self._store is not None:
            self._store.tick()

    def use(self, url: str) -> None:
        """
        Make the next connection with C{url}.
        """
        self._url = url

    def poll_metrics(self) -> None:
        """
        Read the metrics, if a client is subscribed to them, and no other node of a cluster does it: the leader reads
        them for the clients of all nodes.
        """
        if not self._is_led and self._wants_metrics():
            self._kpis.tick()

    async def prepare(self) -> None:
        """
        Start the embedded server, if there is one.

        @raise StartError: it cannot be started.
        """
        if self._embedded is None:
            return
        try:
            url = (await self._embedded.place()).dsn
        except EmbeddedError as error:
            raise StartError(str(error)) from None
        # its password protects nothing else, and psql needs it
        _log.info("embedded PostgreSQL: {url}", url=url)

    async def shut_down(self) -> None:
        """
        Stop the embedded server, if there is one, after the connections to it are closed.
        """
        if self._embedded is not None:
            await self._embedded.stop()

    def place(self) -> Deferred[Place]:
        """
        Where the database is, as soon as it can be connected to.
        """
        # asked before each connection, since the password may change
        if self._embedded is not None:
            return self._embedded.place()
        assert self._url is not None
        return succeed(Place(self._url))

    @property
    def _is_led(self) -> bool:
        """
        Does another node of a cluster look after what one of them has to?
        """
        return self._is_node and not self.leads

    def _heard(self, payload: str) -> None:
        if self._is_led:
            # all nodes hear it, and one of them logs it
            return
        try:
            self._router.notified(payload)
        except ProtocolError as error:
            self._summary.bad_notification(error.reason)

    def _reached(self) -> None:
        for hurry in self.hurries:
            hurry()

    def _changed(self, up: bool) -> None:
        if up:
            self._reached()
        event, state = ("system.info", "up") if up else ("system.error", "down")
        self._router.announce(GLOBAL, event, {"component": "database", "state": state})

    def _took_metrics(self, kpis: object) -> None:
        self._router.announce(METRICS, "metric.update", kpis, everywhere=True)
