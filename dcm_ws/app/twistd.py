"""
What C{twistd dcm-ws} runs: the service in a process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import IO, Any, cast

from twisted.application.service import IService, MultiService
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from dcm_ws.app import process
from dcm_ws.app.build import make_service
from dcm_ws.app.commandline import Options
from dcm_ws.app.logs import make_observer, missing_line
from dcm_ws.app.modes import drain_delay, worker_count
from dcm_ws.app.sd_notify import ServiceManager
from dcm_ws.app.service import DCMService
from dcm_ws.app.settings import SettingsError
from dcm_ws.app.supervisor import GRACE, Supervisor
from dcm_ws.app.writer import LogWriter
from dcm_ws.core.counters import Count

_log = Logger(namespace="dcm_ws.tap")


def makeService(options: Options) -> IService:
    """
    The service, stopped by signals with exit status 0; if it cannot start, the process ends with exit status 1.
    """
    from twisted.internet import reactor

    files = process.raise_file_limit()
    workers = worker_count(options.settings)
    logged = _LoggedService(options, reactor)
    service: DCMService | Supervisor
    renew: Callable[[Sequence[str], str | None], object]
    kill: Callable[[], object]
    skip_delay: Callable[[], bool]
    if workers > 1:
        service = supervisor = Supervisor(
            options.settings, reactor, workers, relay=logged.relay, dropped=logged.dropped
        )
        renew, kill, skip_delay = supervisor.renew, supervisor.kill, supervisor.delay.skip
    else:
        process.tune()
        service = single = make_service(replace(options.settings, workers=1), reactor)
        logged.dropped = single.counts.limits.log_buffer
        renew, kill, skip_delay = partial(_renew, single), _nothing, single.delay.skip
    manager = ServiceManager(reactor, os.environ, os.getpid())
    # not before a signal would stop it in order
    service.ready.addCallbacks(lambda _: reactor.callWhenRunning(manager.ready), process.end, errbackArgs=(reactor,))
    for sentence in (*options.ignored, *process.too_few_files(files, options.settings)):
        reactor.callWhenRunning(_log.warn, "{sentence}", sentence=sentence)
    reactor.callWhenRunning(process.spare_full_collections)
    hang_up = partial(_read_again, options, renew, manager)
    reactor.callWhenRunning(process.install_signals, reactor, hang_up, kill, skip_delay)
    reactor.callWhenRunning(manager.start_watchdog)
    time_to_stop = drain_delay(options.settings) + options.settings.drain + GRACE
    reactor.addSystemEventTrigger("before", "shutdown", manager.stopping, time_to_stop)
    service.setServiceParent(logged)
    return logged


def _nothing() -> None:
    pass


def _renew(service: DCMService, secrets: Sequence[str], database: str | None) -> None:
    service.use_secrets(secrets)
    service.use_database(database)


def _read_again(
    options: Options, renew: Callable[[Sequence[str], str | None], object], manager: ServiceManager
) -> None:
    with manager.reload():
        try:
            settings = options.read_settings()
        except SettingsError as error:
            _log.error("the secrets stay as they are: {reason}", reason=error)
        else:
            renew(settings.secrets, settings.database)


class _LoggedService(MultiService):
    """
    Has twistd log at the level and in the format of the settings, unless its own options choose a log.

    @ivar dropped: counts the lines that cannot be written.
    """

    def __init__(self, options: Options, reactor: Any) -> None:
        super().__init__()
        self._options = options
        self._reactor = reactor
        self._writer: LogWriter | None = None
        self.dropped = Count()

    def relay(self, lines: str) -> None:
        """
        Write lines of another process, which end with a newline.
        """
        if self._writer is not None:
            self._writer.write(lines)
            return
        for line in lines.splitlines():
            _log.info("{line}", line=line)

    def setServiceParent(self, parent: Any) -> None:
        super().setServiceParent(parent)
        twistd = self._options.parent
        if isinstance(parent, Componentized) and twistd is not None and not twistd.get("syslog"):
            settings = self._options.settings
            out = process.log_sink(twistd.get("logfile"), nodaemon=bool(twistd.get("nodaemon")))
            notice = partial(missing_line, format=settings.log_format)
            self._writer = writer = LogWriter(out, self.dropped.add, notice)
            self._reactor.callWhenRunning(writer.start)
            self._reactor.addSystemEventTrigger("after", "shutdown", writer.stop)
            observer = make_observer(cast(IO[Any], writer), settings.log_level, settings.log_format)
            parent.setComponent(ILogObserver, observer)
