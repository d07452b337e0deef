"""
What belongs to the process of C{twistd dcm-ws}: signals, exit status, log file and file descriptors.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from twisted.logger import Logger
from twisted.python import log
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile

from dcm_ws.app.errors import StartError
from dcm_ws.app.settings import Settings
from dcm_ws.app.writer import Descriptor, Sink

_log = Logger(namespace="dcm_ws.tap")

_OTHER_FILES = 100


def log_sink(name: str | None, *, nodaemon: bool) -> Sink:
    """
    The file that twistd would log to.

    @param name: as in C{twistd --logfile}.
    @param nodaemon: twistd stays in the foreground, and logs to standard output.
    """
    if name == "-" or (nodaemon and not name):
        sys.stdout.flush()
        return Descriptor(sys.stdout.fileno())
    return cast(Sink, LogFile.fromFullPath(os.path.abspath(name or "twistd.log")))


def end(failure: Failure, reactor: Any) -> None:
    """
    Log why the service cannot start, and end the process with exit status 1.
    """
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


def install_signals(
    reactor: Any, hang_up: Callable[[], object], kill_others: Callable[[], object], skip_delay: Callable[[], bool]
) -> None:
    """
    Make the first SIGTERM or SIGINT stop the service, with exit status 0, and the next one end the process at once,
    unless there is a delay for it to skip.

    Twisted's own handlers would let the process end as if killed by the signal.

    @param hang_up: called on SIGHUP.
    @param kill_others: kills the processes that must not outlive this one; called on the last signal.
    @param skip_delay: skips the time before connections are closed; returns if there was any left.
    """

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, kill)
        signal.signal(signal.SIGTERM, kill)
        reactor.callFromThread(reactor.stop)

    def kill(number: int, frame: object) -> None:
        if skip_delay():
            return
        kill_others()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def call_hang_up(number: int, frame: object) -> None:
        reactor.callFromThread(hang_up)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, call_hang_up)


# of the middle generation, before a full one
_COLLECTIONS = 10_000


class _PlainLog:
    """
    Replaces C{twisted.python.log} in the epoll reactor: it calls without giving the old logging system a context, which
    nothing here reads, and which would be a sixth of the cost of a small read.
    """

    def callWithLogger(self, logger: object, call: Callable[..., object], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception:
            log.err()

    def __getattr__(self, name: str) -> object:
        return getattr(log, name)


def tune() -> None:
    """
    Change Twisted where that pays in a process that does nothing else (docs/decisions/0013).
    """
    with suppress(ImportError):
        from twisted.internet import epollreactor

        setattr(epollreactor, "log", _PlainLog())  # noqa: B010 - for mypy it is the module that it replaces


def spare_full_collections() -> None:
    """
    Have the garbage collector visit all objects almost never: a full collection stops the service for as long as it
    takes, and finds nothing (docs/decisions/0013).  To be called when everything is built.
    """
    gc.collect()
    # what is there now stays until the end
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _COLLECTIONS)


def raise_file_limit() -> int | None:
    """
    Use as many file descriptors as the system allows: each client takes one.

    @return: their number; None if there is no limit.
    """
    try:
        import resource
    except ImportError:  # pragma: no cover - not on Windows
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return None if hard == resource.RLIM_INFINITY else int(hard)


def too_few_files(limit: int | None, settings: Settings) -> list[str]:
    """
    A warning, if there are fewer file descriptors than the connections that the settings allow need.
    """
    needed = settings.max_connections + settings.max_http_connections + _OTHER_FILES
    if limit is None or limit >= needed:
        return []
    return [
        f"only {limit} file descriptors for up to {needed} (--max-connections, --max-http-connections and"
        f" {_OTHER_FILES} others): raise the limit (LimitNOFILE in systemd, ulimit -Hn) or lower --max-connections"
    ]
