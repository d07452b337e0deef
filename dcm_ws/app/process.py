"""
The process of C{twistd dcm-ws}: the service under signals, with its log and its limits.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import IO, Any, cast

from twisted.application.service import IService, MultiService
from twisted.logger import ILogObserver, Logger
from twisted.python import log
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile

from dcm_ws.app.commandline import Options
from dcm_ws.app.logs import make_observer, missing_line
from dcm_ws.app.service import DCMService, StartError, make_service
from dcm_ws.app.settings import (
    Settings,
    SettingsError,
)
from dcm_ws.app.writer import Descriptor, LogWriter, Sink

_log = Logger(namespace="dcm_ws.tap")

_OTHER_FILES = 100


class _Process(MultiService):
    """
    The service as all that its process does: twistd logs at its level and in its format, unless it was told otherwise.
    """

    def __init__(self, options: Options, reactor: Any, limits: Counter[str]) -> None:
        super().__init__()
        self._options = options
        self._reactor = reactor
        self._limits = limits

    def setServiceParent(self, parent: Any) -> None:
        super().setServiceParent(parent)
        above = self._options.parent
        if isinstance(parent, Componentized) and above is not None and not above.get("syslog"):
            settings = self._options.settings
            out = _log_file(above.get("logfile"), nodaemon=bool(above.get("nodaemon")))
            writer = LogWriter(
                out, partial(self._limits.update, ("logBuffer",)), partial(missing_line, format=settings.log_format)
            )
            self._reactor.callWhenRunning(writer.start)
            self._reactor.addSystemEventTrigger("after", "shutdown", writer.stop)
            observer = make_observer(cast(IO[Any], writer), settings.log_level, settings.log_format)
            parent.setComponent(ILogObserver, observer)


def _log_file(name: str | None, *, nodaemon: bool) -> Sink:
    """
    Where twistd would log to.
    """
    if name == "-" or (nodaemon and not name):
        sys.stdout.flush()
        return Descriptor(sys.stdout.fileno())
    return cast(Sink, LogFile.fromFullPath(os.path.abspath(name or "twistd.log")))


def makeService(options: Options) -> IService:
    """
    The service, stopped by signals with exit status 0, and ending the process if it cannot start.
    """
    from twisted.internet import reactor

    files = _raise_file_limit()
    _tune()
    service = make_service(options.settings, reactor)
    service.ready.addErrback(_end, reactor)
    for sentence in (*options.ignored, *_too_few_files(files, options.settings)):
        reactor.callWhenRunning(_log.warn, "{sentence}", sentence=sentence)
    reactor.callWhenRunning(_install_signals, reactor, partial(_take_over_secrets, options, service))
    process = _Process(options, reactor, service.hub.limits)
    service.setServiceParent(process)
    return process


def _end(failure: Failure, reactor: Any) -> None:
    if failure.check(StartError):
        _log.critical("dcm-ws cannot start: {reason}", reason=failure.value)
    else:
        _log.critical("dcm-ws cannot start", log_failure=failure)
    # twistd has no way to ask for an exit status
    atexit.register(_exit_with_failure)
    reactor.callWhenRunning(reactor.stop)


def _exit_with_failure() -> None:
    sys.stdout.flush()
    os._exit(1)


def _take_over_secrets(options: Options, service: DCMService) -> None:
    try:
        settings = options.read_settings()
    except SettingsError as error:
        _log.error("the secrets stay as they are: {reason}", reason=error)
    else:
        service.use_secrets(settings.secrets)
        service.use_database(settings.database)


def _install_signals(reactor: Any, take_over_secrets: Callable[[], None]) -> None:
    """
    The first SIGTERM or SIGINT stops the service, with exit status 0; the second ends the process at once.  SIGHUP has
    the secrets read again.

    Twisted's own handlers would let the process end as if killed by the signal.
    """

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, end)
        signal.signal(signal.SIGTERM, end)
        reactor.callFromThread(reactor.stop)

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def hang_up(number: int, frame: object) -> None:
        reactor.callFromThread(take_over_secrets)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, hang_up)


class _PlainLog:
    """
    What the epoll reactor takes for C{twisted.python.log}: it calls without giving the old logging system a context,
    which nothing here reads, and which would be a sixth of the cost of a small read.
    """

    def callWithLogger(self, logger: object, call: Callable[..., object], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception:
            log.err()

    def __getattr__(self, name: str) -> object:
        return getattr(log, name)


def _tune() -> None:
    """
    What pays in a process that does nothing else (docs/decisions).
    """
    with suppress(ImportError):
        from twisted.internet import epollreactor

        setattr(epollreactor, "log", _PlainLog())  # noqa: B010 - for mypy it is the module that it replaces


def _raise_file_limit() -> int | None:
    """
    Each client takes a file descriptor: use as many as the system lets us.

    @return: how many that are; None if there is no limit.
    """
    try:
        import resource
    except ImportError:  # pragma: no cover - not on Windows
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return None if hard == resource.RLIM_INFINITY else int(hard)


def _too_few_files(limit: int | None, settings: Settings) -> list[str]:
    """
    A warning, if the file descriptors do not suffice for the connections that the settings allow.
    """
    needed = settings.max_connections + settings.max_http_connections + _OTHER_FILES
    if limit is None or limit >= needed:
        return []
    return [
        f"only {limit} file descriptors for up to {needed} (--max-connections, --max-http-connections and"
        f" {_OTHER_FILES} others): raise the limit (LimitNOFILE in systemd, ulimit -Hn) or lower --max-connections"
    ]
