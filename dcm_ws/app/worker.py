"""
A worker: a process that serves clients on the sockets of its supervisor, which starts it and tells it what to do.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import IO, Any, cast

from twisted.logger import Logger, globalLogBeginner
from twisted.python.failure import Failure

from dcm_ws.app import process
from dcm_ws.app.build import build_service
from dcm_ws.app.control import CONTROL, MEMORY, Failed, Ready, Running, Start, open_channel, read_start
from dcm_ws.app.errors import StartError
from dcm_ws.app.link import Link
from dcm_ws.app.logs import make_observer, missing_line
from dcm_ws.app.node_memory import NodeMemory
from dcm_ws.app.service import DCMService
from dcm_ws.app.siblings import Siblings
from dcm_ws.app.sockets import InheritedEndpoints
from dcm_ws.app.writer import Descriptor, LogWriter

_log = Logger(namespace="dcm_ws.tap")

_STDOUT = 1


def main() -> None:
    """
    Run until the supervisor wants the worker to end, or has ended itself.
    """
    with socket.socket(fileno=CONTROL) as control:
        try:
            start = read_start(control.recv)
        except EOFError:
            return
        import_module(start.reactor).install()
        from twisted.internet import reactor

        control.setblocking(False)
        worker = _Worker(start, reactor)
        open_channel(reactor, control.fileno(), control.family, worker.link.channel)
    worker.run()
    sys.stdout.flush()
    sys.exit(worker.status)


class _Worker:
    """
    The service of a worker, and what belongs to its process.

    @ivar status: the exit status.
    """

    def __init__(self, start: Start, reactor: Any) -> None:
        self.status = 0
        self._reactor = reactor
        self._stopping = False
        self.link = Link(
            start.worker,
            start.plan.workers,
            reactor,
            is_stopping=self._is_stopping,
            drain=self._stop,
            renew=self._renew,
        )
        siblings = Siblings(
            start.worker,
            NodeMemory(MEMORY, start.plan),
            endpoints=InheritedEndpoints(reactor, start.sockets),
            postgres=self.link,
            gather=self.link.gather,
        )
        self._service = build_service(start.settings, reactor, siblings=siblings)
        self.link.reports = siblings.reports
        settings = start.settings
        self._writer = LogWriter(
            Descriptor(_STDOUT),
            self._service.counts.limits.log_buffer.add,
            partial(missing_line, format=settings.log_format),
        )
        observer = make_observer(
            cast(IO[Any], self._writer), settings.log_level, settings.log_format, worker=start.worker
        )
        globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)

    def run(self) -> None:
        """
        Serve clients until the end.
        """
        reactor = self._reactor
        process.tune()
        self._service.ready.addCallbacks(self._ready, self._failed)
        reactor.callWhenRunning(self._writer.start)
        reactor.callWhenRunning(self._take_signals)
        reactor.callWhenRunning(self.link.channel.send, Running())
        reactor.callWhenRunning(self._service.startService)
        reactor.callWhenRunning(process.spare_full_collections)
        reactor.addSystemEventTrigger("before", "shutdown", self._service.stopService)
        reactor.addSystemEventTrigger("after", "shutdown", self._writer.stop)
        reactor.run()

    def _take_signals(self) -> None:
        def stop(number: int, frame: object) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._reactor.callFromThread(self._stop)

        signal.signal(signal.SIGTERM, stop)
        # these may reach all processes of a terminal, and the supervisor says what they mean
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _ready(self, service: DCMService) -> None:
        self.link.channel.send(Ready())

    def _failed(self, failure: Failure) -> None:
        self.status = 1
        if failure.check(StartError):
            self.link.channel.send(Failed(str(failure.value)))
        else:
            _log.critical("the worker cannot start", log_failure=failure)
        self._stop()

    def _renew(self, secrets: Sequence[str], database: str | None) -> None:
        self._service.use_secrets(secrets)
        self._service.use_database(database)

    def _is_stopping(self) -> None:
        self._service.is_stopping()

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._reactor.callWhenRunning(self._reactor.stop)


if __name__ == "__main__":
    main()
