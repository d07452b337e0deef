"""
The supervisor of several workers: it serves no clients, and keeps alive what the workers need (docs/workers.md).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcm_ws.app.control import (
    SOCKETS,
    Answer,
    Drain,
    FromWorker,
    Gather,
    IsStopping,
    Locate,
    Located,
    Renew,
    Start,
    encode,
)
from dcm_ws.app.drain_delay import DrainDelay
from dcm_ws.app.errors import StartError
from dcm_ws.app.files import default_folder
from dcm_ws.app.gatherings import Gatherings
from dcm_ws.app.modes import drain_delay, of_one_worker
from dcm_ws.app.node_memory import NodeMemory, make_memory, plan_for
from dcm_ws.app.settings import Settings
from dcm_ws.app.sockets import Sockets
from dcm_ws.app.timers import every
from dcm_ws.app.worker_process import CHECK_SECONDS, WorkerProcess
from dcm_ws.core.counters import Count
from dcm_ws.http.common_metrics import to_families
from dcm_ws.postgres.connection import Place
from dcm_ws.postgres.data_folder import EmbeddedError
from dcm_ws.postgres.embedded import EmbeddedPostgres

GRACE = 12.0
"""
Seconds beyond the drain time after which workers that have not ended are killed.
"""

# as of a service without workers: an operator may filter by this name
_log = Logger(namespace="dcm_ws.service.DCMService")


class Supervisor(MultiService):
    """
    Starts the workers, and again if they die; has the listening sockets and the embedded PostgreSQL; passes on what
    the workers ask each other.

    @param count: of the workers.
    @param relay: writes lines of the workers to the log.
    @param dropped: counts lines that the log had no room for.

    @ivar delay: what passes before the workers close connections.
    @ivar ready: fires when all workers serve clients; fails with L{StartError} if one cannot start.
    """

    def __init__(
        self, settings: Settings, reactor: Any, count: int, *, relay: Callable[[str], object], dropped: Count
    ) -> None:
        super().__init__()
        self.setName("dcm-ws")
        self.ready: Deferred[Supervisor] = Deferred()
        self.delay = DrainDelay(reactor, drain_delay(settings))
        self._settings = settings
        self._reactor = reactor
        self._dropped = dropped
        self._sockets = Sockets(reactor, count, production=settings.production)
        self._postgres: EmbeddedPostgres | None = None
        if settings.embedded:
            self._postgres = EmbeddedPostgres(reactor, settings.data_folder or default_folder())
        plan = plan_for(count, settings.max_connections)
        self._descriptor = make_memory(plan)
        self._memory = NodeMemory(self._descriptor, plan)
        self._gatherings = Gatherings(reactor, self._own_part)
        self._workers = [
            WorkerProcess(
                number,
                reactor,
                relay=relay,
                prepare=self._prepare,
                received=self._received,
                ready=self._one_ready,
                given_up=self._give_up,
                ended=self._one_ended,
            )
            for number in range(1, count + 1)
        ]
        self._starting: Deferred[None] | None = None
        self._all_ready: Deferred[None] = Deferred()
        self._all_ended: Deferred[None] | None = None
        every(CHECK_SECONDS, "the check of the workers", self._check, reactor).setServiceParent(self)

    def startService(self) -> None:
        self._starting = Deferred.fromCoroutine(self._start()).addCallbacks(self.ready.callback, self._not_started)

    def _not_started(self, failure: Failure) -> None:
        # to stop before it is ready is not a failure
        if not failure.check(CancelledError):
            self.ready.errback(failure)

    async def _start(self) -> Supervisor:
        await self._sockets.listen(self._settings.listen, is_public=True)
        await self._sockets.listen(self._settings.admin_listen, is_public=False)
        super().startService()
        if self._postgres is not None:
            try:
                url = (await self._postgres.place()).dsn
            except EmbeddedError as error:
                raise StartError(str(error)) from None
            # its password protects nothing else, and psql needs it
            _log.info("embedded PostgreSQL: {url}", url=url)
        for worker in self._workers:
            worker.start()
        await self._all_ready
        self._reactor.callWhenRunning(_log.info, "ready")
        return self

    def renew(self, secrets: Sequence[str], database: str | None) -> None:
        """
        From now on have all workers accept tokens that are signed with one of C{secrets}, and make new connections to
        the database with the URL C{database}.
        """
        first, *more = secrets
        self._settings = replace(self._settings, secret=first, more_secrets=tuple(more))
        if database is not None and self._settings.database is not None:
            self._settings = replace(self._settings, database=database)
        for worker in self._workers:
            worker.send(Renew(list(secrets), database))

    def kill(self) -> None:
        """
        Kill all workers at once.
        """
        for worker in self._workers:
            worker.kill()

    def stopService(self) -> Deferred[None]:
        """
        Let the drain delay pass, stop listening, have the workers notify their clients and close their connections,
        wait for their end, and stop the rest.
        """
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
        if any(worker.is_ready for worker in self._workers):
            for worker in self._workers:
                worker.send(IsStopping())
            await self.delay.passed()
        await self._sockets.close()
        for worker in self._workers:
            worker.stop(Drain())
        if any(worker.pid for worker in self._workers):
            self._all_ended = Deferred()
            late = self._reactor.callLater(self._settings.drain + GRACE, self._kill_late)
            await self._all_ended
            if late.active():
                late.cancel()
        if self.running:
            await super().stopService()
        if self._postgres is not None:
            await self._postgres.stop()
        os.close(self._descriptor)
        _log.info("stopped")

    def _kill_late(self) -> None:
        for worker in self._workers:
            if worker.pid:
                _log.error(
                    "worker {worker} (pid {pid}) does not end, and is killed", worker=worker.number, pid=worker.pid
                )
        self.kill()

    def _prepare(self, worker: WorkerProcess) -> tuple[Start, int, list[int]]:
        index, plan = worker.number - 1, self._memory.plan
        self._memory.clear(index)
        sockets = list(self._sockets.of_worker(index, SOCKETS))
        start = Start(
            worker.number,
            type(self._reactor).__module__,
            self._settings_of(worker),
            [inherited for _, inherited in sockets],
            plan,
        )
        return start, self._descriptor, [one.fileno() for one, _ in sockets]

    def _settings_of(self, worker: WorkerProcess) -> Settings:
        """
        The settings of a worker; as a node of a cluster, it has the name of the service with its number.
        """
        settings = of_one_worker(self._settings, len(self._workers))
        name = settings.node_name or f"{socket.gethostname()}:{self._sockets.number or os.getpid()}"
        return replace(settings, node_name=f"{name}/{worker.number}")

    def _one_ready(self, worker: WorkerProcess) -> None:
        if not self._all_ready.called and all(one.is_ready for one in self._workers):
            self._all_ready.callback(None)

    def _give_up(self, reason: str) -> None:
        if not self._all_ready.called:
            self._all_ready.errback(StartError(reason))

    def _one_ended(self, worker: WorkerProcess) -> None:
        self._gatherings.gone(worker)
        if self._all_ended is not None and not any(one.pid for one in self._workers):
            self._all_ended.callback(None)

    def _check(self) -> None:
        for worker in self._workers:
            worker.check()

    def _received(self, worker: WorkerProcess, message: FromWorker) -> None:
        match message:
            case Gather():
                self._gatherings.ask(worker, message, self._workers)
            case Answer():
                self._gatherings.answered(worker, message)
            case Locate(request):
                assert self._postgres is not None
                self._postgres.place().addCallbacks(
                    self._located, self._not_located, callbackArgs=(worker, request), errbackArgs=(worker, request)
                )
            case _:
                raise AssertionError(message)

    def _located(self, place: Place, worker: WorkerProcess, request: int) -> None:
        worker.send(Located(request, place.dsn, ""))

    def _not_located(self, failure: Failure, worker: WorkerProcess, request: int) -> None:
        worker.send(Located(request, "", failure.getErrorMessage()))

    def _own_part(self, what: str) -> bytes:
        """
        What the supervisor adds to a report: lines of the log that it has dropped, and figures about the workers.
        """
        if what == "stats":
            return encode({"limits": {"logBuffer": self._dropped.value}})
        if what != "metrics":
            return encode({})
        dropped = CounterMetricFamily("dcm_ws_limits_hit", "How often each limit was crossed", labels=["limit"])
        dropped.add_metric(["logBuffer"], self._dropped.value)
        workers = GaugeMetricFamily("dcm_ws_workers", "Workers", labels=["state"])
        ready = sum(worker.is_ready for worker in self._workers)
        workers.add_metric(["ready"], ready)
        workers.add_metric(["starting"], len(self._workers) - ready)
        restarts = sum(worker.restarts for worker in self._workers)
        restarted = CounterMetricFamily("dcm_ws_worker_restarts", "Workers that died and were started again", restarts)
        return encode(to_families([dropped, workers, restarted]))
