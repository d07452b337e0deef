"""
Gives events their positions in the log: the service that holds the leader's lock of the database.

Each step is one statement, which finds what was committed since the last step, and writes it to the log together with
what clients have published here.  The lock belongs to the session, so it ends with the session, and a process that is
stopped for longer than C{idle_session_timeout} loses both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import psycopg2
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dcm_ws.brokers.batches import Batches
from dcm_ws.brokers.election import GATE, LOCK, UNLOCK, Election
from dcm_ws.brokers.lag import Lag
from dcm_ws.brokers.log_rows import Row
from dcm_ws.brokers.naps import Naps
from dcm_ws.brokers.numbering import ROWS, ROWS_BYTES, STEP, Placed, read_step, step_parameters
from dcm_ws.brokers.postgres_log import LogState, PostgresLog
from dcm_ws.core.counts import EngineCounts
from dcm_ws.core.publish_queue import Waiting
from dcm_ws.postgres.backoff import Backoff
from dcm_ws.postgres.connection import (
    Address,
    DatabaseConnection,
    DatabaseError,
    DatabaseUnavailableError,
    connect,
    deadline,
    one_line,
)
from dcm_ws.postgres.log_place import LogPlace, Snapshot
from dcm_ws.postgres.log_schema import FIND, log_schema
from dcm_ws.postgres.migrations import VERSION
from dcm_ws.postgres.pace import Pace
from dcm_ws.postgres.pooling import SHARED, shares_process
from dcm_ws.postgres.statements import statement
from dcm_ws.postgres.upkeep import LogEnd, Upkeep

_log = Logger(namespace="dcm_ws.log")

_PATH = "search_path = pg_catalog, pg_temp"
_OPENED = statement("numbering/opened")
_AFTER = statement("reading/after")
STOP_SECONDS = 3.0
"""
Seconds that the last step may take when the service stops.
"""
_STEP_SECONDS = 120.0
_ASK_SECONDS = 10.0
_PAUSE = 0.1
_ANOTHER_LOG = "the log is another one than before: clients are told to load their state again"
_ANOTHER_LEADER = (
    "another service has been the leader meanwhile: what agents are owed is read again,"
    " and clients are told to load their state again"
)


class AgentStore(Protocol):
    """
    What agents are owed, in the database.
    """

    def is_current(self, session: DatabaseConnection) -> Awaitable[bool]:
        """
        Has nobody else been the leader since everything was read?
        """

    def read(self, session: DatabaseConnection) -> Awaitable[object]:
        """
        Read everything.
        """

    def apply(self, state: Any) -> object:
        """
        Hand what was read to the core.
        """


class _NewEpochError(Exception):
    """
    An operator has given the log a new epoch.
    """


class NoLogError(Exception):
    """
    The database has no log that can be used, and the settings demand one.
    """


class Numberer(Service):
    """
    Numbers events.

    @param address: returns where the database is.
    @param log: receives them.
    @param store: has what agents are owed; None in a cluster, whose nodes each have that of their own agents.
    @param election: finds out if this process numbers the events, and does what has to be done while it does not.
    @param batches: what clients publish here.
    @param required: fail where the database has no log, instead of keeping it in memory.
    @param data_bytes: bytes that the data of an event of SQL may have.
    @param data_depth: how deep it may be nested.
    @param new_epoch: makes the name of a log.
    @param now: monotonic seconds.
    @param random: returns a number from 0 to 1.

    @ivar reached: called when the log can be used, for the first time or again.
    @ivar tried: fires after the first look at the database, whatever came of it.
    @ivar found: fires when the log was opened, or is in memory; fails with L{NoLogError}.
    """

    def __init__(
        self,
        reactor: Any,
        address: Address,
        log: PostgresLog,
        store: AgentStore | None,
        counts: EngineCounts,
        *,
        election: Election,
        batches: Batches,
        lag: Lag,
        required: bool,
        data_bytes: int,
        data_depth: int,
        new_epoch: Callable[[], str],
        upkeep: Upkeep,
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._log = log
        self._delivery = log.delivery
        self._store = store
        self._counts = counts
        self._required = required
        self._data_bytes = data_bytes
        self._data_depth = data_depth
        self._new_epoch = new_epoch
        self._upkeep = upkeep
        self._now = now
        self._backoff = Backoff(now, random)
        self._session: DatabaseConnection | None = None
        self._pace = Pace()
        self._gated = False
        self._is_shared = False
        self._naps = Naps(reactor, now, lambda: bool(self.running))
        self._election = election
        self._batches = batches
        self._lag = lag
        self._ended: Deferred[None] | None = None
        self._turned: Placed | None = None
        self._head = 0
        self._snapshot = Snapshot("0", "{}")
        self.leads = False
        self.reached: Callable[[], object] = _nothing
        self.tried: Deferred[None] = Deferred()
        self.found: Deferred[None] = Deferred()
        log.wake = self._naps.wake_soon

    def startService(self) -> None:
        super().startService()
        self._ended = Deferred.fromCoroutine(self._serve())
        self._ended.addErrback(lambda failure: _log.failure("the numbering of events failed", failure))

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.wake()
        limit = self._reactor.callLater(STOP_SECONDS, self._close)
        if self._ended is not None:
            await self._ended
        if limit.active():
            limit.cancel()

    def woken(self, log_has_grown: bool) -> None:
        """
        The database has notified.

        @param log_has_grown: another process has numbered events; otherwise, there may be something to number.
        """
        if self.leads is not log_has_grown:
            self.wake()

    def wake(self) -> None:
        """
        There may be something new: look now.
        """
        self._naps.wake()

    def hurry(self) -> None:
        """
        The database can be reached again.
        """
        self._naps.hurry()

    def _has_tried(self) -> None:
        if not self.tried.called:
            self.tried.callback(None)

    async def _serve(self) -> None:
        try:
            await self._lead_again_and_again()
        finally:
            self._has_tried()

    async def _lead_again_and_again(self) -> None:
        while self.running:
            reason = ""
            try:
                session = await self._connect()
                if not await self._has_log(session):
                    return
                await self._get_lock(session)
                await self._open(session)
                await self._number(session)
            except DatabaseError as error:
                reason = one_line(error)
            except _NewEpochError as error:
                _log.info("the log was given the epoch {epoch}: it is opened again", epoch=str(error))
                self._log.change_to(LogState.CONNECTING)
                continue
            except NoLogError as error:
                self.found.errback(error)
                return
            except Exception as error:
                _log.failure("the numbering of events failed")
                reason = one_line(error)
            finally:
                await self._leave()
                self._close()
            if not self.running:
                return
            self._change_to(LogState.DOWN, reason)
            await self._naps.rest(self._backoff.next())

    def _change_to(self, state: LogState, reason: str = "") -> None:
        before = self._log.state
        self._log.change_to(state, reason)
        self._has_tried()
        if state is before:
            return
        if state in (LogState.UP, LogState.FOLLOWING):
            self._backoff.connected()
            self.reached()
            if not self.found.called:
                self.found.callback(None)
            _log.info(
                "log: epoch {epoch}, position {head}{how}",
                epoch=self._log.epoch,
                head=self._log.head,
                how="" if state is LogState.UP else "; another node numbers the events",
            )
        elif state is LogState.STANDBY:
            _log.warn("{reason}; this one waits until it ends", reason=reason)
        elif self._log.is_open or before is not LogState.CONNECTING:
            _log.warn("the log cannot be written: {reason}", reason=reason)

    async def _connect(self) -> DatabaseConnection:
        place = await self._address()
        if not self.running:
            raise DatabaseUnavailableError("the service stops")
        self._session = session = DatabaseConnection(self._reactor)
        await connect(session, place, "dcm-ws log", writable=True)
        session.lost = lambda reason: self.wake()
        self._is_shared = await shares_process(session, place)
        return session

    async def _leave(self) -> None:
        session = self._session
        if session is not None and not self.running:
            with suppress(*DatabaseError):
                await self._election.leave(session)

    def _close(self) -> None:
        self.leads = self._gated = False
        session, self._session = self._session, None
        if session is not None:
            session.lost = None
            session.close()

    async def _has_log(self, session: DatabaseConnection) -> bool:
        """
        Can the log of this database be used?  If it cannot, the log is in memory, or the service does not start.

        @raise NoLogError: the log is needed.
        """
        with deadline(session, _ASK_SECONDS):
            # in one transaction, because it may be a pool's connection
            schema = log_schema((await session.runQuery(f"set local {_PATH}; {FIND}"))[0][0])
        if schema.usable and self._is_shared:
            raise DatabaseUnavailableError(SHARED)
        if schema.usable:
            with deadline(session, _ASK_SECONDS):
                await session.runOperation(f"set {_PATH}")
            return True
        reason = f"{schema.reason} ({schema.hint})" if schema.hint else schema.reason
        if schema.version > VERSION and self._log.is_open:
            if reason != self._log.report()["reason"]:
                _log.error("the log cannot be used any more: {reason}", reason=reason)
            self._election.is_outdated()
        if schema.read_only or self._log.is_open:
            # it may be a standby that is promoted soon; or the log was there before
            raise DatabaseUnavailableError(reason)
        if self._required:
            raise NoLogError(f"the log has to be in the database: {reason}")
        _log.info("the log is in memory: {reason}", reason=reason)
        self._log.use_memory(reason)
        if not self.found.called:
            self.found.callback(None)
        return False

    async def _get_lock(self, session: DatabaseConnection) -> None:
        version = session.pollable().server_version
        with deadline(session, _ASK_SECONDS):
            await session.runOperation(statement("numbering/session"))
            if version >= 140000:
                # the session of a process that is stopped must end, so that another one can go on
                await session.runOperation("set idle_session_timeout = '5s'")
        await self._election.win(session, self._naps, self._change_to)

    async def _open(self, session: DatabaseConnection) -> None:
        """
        Find where the log ends, and whether it is the same one as before.
        """
        log = self._log
        await self._election.lead(session)
        with deadline(session, _STEP_SECONDS):
            place = await LogPlace.find(
                session, self._delivery.last if log.is_open else None, log.epoch, self._new_epoch
            )
            await session.runOperation(statement("numbering/prepare"))
            await session.runOperation(_OPENED, {"bytes": self._data_bytes, "depth": self._data_depth})
            await self._upkeep.begin(session, place)
            is_current = self._store is None or await self._store.is_current(session)
        self._head, self._snapshot = place.head, place.snapshot
        if not log.is_open or place.epoch != log.epoch or not is_current:
            if log.is_open:
                _log.warn(_ANOTHER_LOG if place.epoch != log.epoch else _ANOTHER_LEADER)
            if self._store is None:
                log.open(place, self._upkeep.first)
            else:
                with deadline(session, _STEP_SECONDS):
                    state = await self._store.read(session)
                log.open(place, self._upkeep.first)
                self._store.apply(state)
        self.leads = True
        self._change_to(LogState.UP)

    async def _number(self, session: DatabaseConnection) -> None:
        """
        Number events until the service stops and nothing waits any more.
        """
        while self.running or self._log.publishes:
            self._naps.woken = False
            await self._election.tend(session)
            found = await self._step(session)
            self._pace.found(self._now(), found)
            if self._pace.polls is not self._gated:
                await self._use_gate(session)
            if self._upkeep.is_due():
                await self._keep_up(session)
            if self._delivery.fetched < self._head and not self._delivery.has_waiting:
                await self._read_on(session)
                continue
            if not self._batches.has_waiting:
                await self._naps.sleep(self._pace.nap)

    async def _use_gate(self, session: DatabaseConnection) -> None:
        """
        Close or open the gate in front of NOTIFY.
        """
        with deadline(session, _ASK_SECONDS):
            if self._pace.polls:
                # somebody may be about to pass
                self._gated = (await session.runQuery(LOCK, (GATE,)))[0][0]
            else:
                await session.runQuery(UNLOCK, (GATE,))
                self._gated = False
                # what was published until now has not notified
                self._naps.woken = True

    async def _step(self, session: DatabaseConnection) -> int:
        """
        One numbering step; returns how many events of others it found.
        """
        batch = self._batches.take()
        began = self._now()
        try:
            with deadline(session, _STEP_SECONDS):
                rows = await session.runQuery(STEP, self._parameters(batch))
        except psycopg2.Error as error:
            if session.pollable().closed:
                raise
            await self._step_failed(batch, error)
            return 0
        placed = read_step(rows)
        if placed.head > self._head:
            self._counts.steps += 1
        self._counts.step_seconds.observe(self._now() - began)
        self._take(batch, placed)
        return placed.others

    def _parameters(self, batch: Sequence[Waiting]) -> dict[str, object]:
        drafts = [waiting.draft for waiting in batch]
        return step_parameters(self._head, self._snapshot, self._upkeep.hour_ago, drafts, tell=self._election.shares)

    async def _step_failed(self, batch: list[Waiting], error: psycopg2.Error) -> None:
        """
        The database has refused a step, and nothing of it was done.
        """
        if not self._batches.refused(batch, error):
            self._change_to(LogState.DOWN, one_line(error))
            await self._naps.rest(_PAUSE)

    def _take(self, batch: Sequence[Waiting], placed: Placed) -> None:
        """
        A step was committed.
        """
        log, before = self._log, self._head
        self._head, self._snapshot = placed.head, placed.snapshot
        self._counts.numbered += placed.head - before
        log.looked()
        if log.state is not LogState.UP:
            self._change_to(LogState.UP)
        for number, (pos, event_id) in placed.again.items():
            log.publishes.again(batch[number - 1].draft.id, pos, event_id)
        if len(placed.rows) == placed.others:
            self._delivery.place(
                placed.rows, [(pos, batch[number - 1].draft) for number, pos in placed.clients.items()]
            )
            self._lag.measure(placed.rows)

    async def _read_on(self, session: DatabaseConnection) -> None:
        """
        Read what was numbered and is not here.
        """
        with deadline(session, _STEP_SECONDS):
            part = {"after": self._delivery.fetched, "head": self._head, "most": ROWS, "bytes": ROWS_BYTES}
            rows = await session.runQuery(_AFTER, part)
        events = [Row(*row) for row in rows]
        self._delivery.read(events, self._head)
        self._lag.measure(events)

    async def _keep_up(self, session: DatabaseConnection) -> None:
        self._turned = None
        with deadline(session, _STEP_SECONDS):
            end = LogEnd(self._head, str(self._snapshot), self._delivery.fetched)
            epoch = await self._upkeep.run(session, end, self._turn)
        if self._turned is not None:
            self._take((), self._turned)
        if epoch != self._log.epoch:
            raise _NewEpochError(epoch)

    async def _turn(self, session: DatabaseConnection) -> None:
        """
        Number what is in the inbox, within the transaction that empties a slot of it.
        """
        self._turned = read_step(await session.runQuery(STEP, self._parameters(())))


def _nothing() -> None:
    pass
