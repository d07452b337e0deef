"""
The process of a worker, as its supervisor sees it: started, watched, and started again after it has died.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcm_ws.app.control import (
    CONTROL,
    MEMORY,
    SOCKETS,
    Channel,
    Check,
    Failed,
    FromWorker,
    Ready,
    Running,
    Start,
    open_channel,
    to_workers,
)
from dcm_ws.app.relay import Lines

FIRST_PAUSE, LONGEST_PAUSE, GOOD_SECONDS = 0.1, 10.0, 30.0
"""
Seconds before a worker that has died is started again: the first time, and at most; and for how long it has to run so
that it counts as the first time again.
"""

CHECK_SECONDS, CHECKS = 5.0, 6
"""
Seconds between two questions whether a worker still runs, and how many may be without an answer.
"""

STARTS = 3
"""
How often a worker may die before it has ever been ready.
"""

PROGRAM = "dcm_ws.app.worker"
"""
The module that runs in the process of a worker.
"""

_log = Logger(namespace="dcm_ws.workers")


class WorkerProcess:
    """
    A worker, which has a process most of the time.

    @param number: from 1 on.
    @param relay: writes lines to the log.
    @param prepare: clears what the worker has left behind; returns its first message and the descriptors of its common
        memory and its listening sockets.
    @param received: called with this object and each message that is not about the process.
    @param ready: called with this object when it serves clients.
    @param given_up: called with the reason if it cannot start.
    @param ended: called with this object when the process has ended.

    @ivar pid: of the process; 0 if there is none.
    @ivar is_running: it answers questions.
    @ivar is_ready: it serves clients.
    @ivar restarts: how often it was started again.
    """

    def __init__(
        self,
        number: int,
        reactor: Any,
        *,
        relay: Callable[[str], object],
        prepare: Callable[[WorkerProcess], tuple[Start, int, list[int]]],
        received: Callable[[WorkerProcess, FromWorker], object],
        ready: Callable[[WorkerProcess], object],
        given_up: Callable[[str], object],
        ended: Callable[[WorkerProcess], object],
    ) -> None:
        self.number = number
        self.pid = 0
        self.is_running = self.is_ready = False
        self.restarts = 0
        self._reactor = reactor
        self._relay = relay
        self._prepare = prepare
        self._received = received
        self._on_ready = ready
        self._given_up = given_up
        self._on_end = ended
        self._channel: Channel | None = None
        self._transport: Any = None
        self._starting: Any = None
        self._stopping = False
        self._was_ready = False
        self._reason = ""
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._started_at = 0.0
        self._unanswered = 0

    def start(self) -> None:
        """
        Start the process.
        """
        self._starting = None
        self._reason = ""
        self._started_at = self._reactor.seconds()
        self._unanswered = 0
        try:
            self._spawn()
        except OSError as error:
            # the machine has no room for another process now
            self._not_running(f"it cannot be started: {error}", 0)

    def _spawn(self) -> None:
        start, memory, sockets = self._prepare(self)
        ours, theirs = socket.socketpair()
        with ours, theirs, open(os.devnull, "rb") as null:
            descriptors: dict[int, int | str] = {0: null.fileno(), 1: "r", 2: "r", CONTROL: theirs.fileno()}
            descriptors |= {MEMORY: memory, **dict(enumerate(sockets, SOCKETS))}
            self._transport = self._reactor.spawnProcess(
                _Watcher(Lines(self._relay), self._died),
                sys.executable,
                # without the working folder, which others may write to, in the path
                [sys.executable, "-P", "-m", PROGRAM, str(self.number)],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                childFDs=descriptors,
            )
            ours.setblocking(False)
            self._channel = to_workers(self._heard, lambda: None)
            open_channel(self._reactor, ours.fileno(), ours.family, self._channel)
        self.pid = self._transport.pid
        self.send(start)

    def send(self, message: msgspec.Struct) -> None:
        """
        Send a message, if there is a process.
        """
        if self._channel is not None:
            self._channel.send(message)

    def check(self) -> None:
        """
        Kill the process if it has not answered for too long, and ask it again.
        """
        # to start may take long on a busy machine
        if not self.is_running:
            return
        # counted, since the supervisor may have been stopped as well
        if self._unanswered >= CHECKS:
            _log.error(
                "worker {worker} (pid {pid}) has not answered for {seconds} s, and is killed",
                worker=self.number,
                pid=self.pid,
                seconds=round(CHECKS * CHECK_SECONDS),
            )
            self.kill()
            return
        self._unanswered += 1
        self.send(Check())

    def stop(self, message: msgspec.Struct) -> None:
        """
        Send a message that ends the process, and do not start it again.
        """
        self._stopping = True
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
        self.send(message)

    def kill(self) -> None:
        """
        Kill the process.
        """
        if self.pid:
            with suppress(ProcessExitedAlready):
                self._transport.signalProcess("KILL")

    def _heard(self, message: FromWorker) -> None:
        self._unanswered = 0
        match message:
            case Check():
                pass
            case Running():
                self.is_running = True
            case Ready():
                self.is_ready = self._was_ready = True
                self._on_ready(self)
            case Failed(reason):
                self._reason = reason
            case _:
                self._received(self, message)

    def _died(self, failure: Failure) -> None:
        pid, self.pid = self.pid, 0
        self.is_running = self.is_ready = False
        if self._channel is not None and self._channel.transport is not None:
            self._channel.transport.loseConnection()
        self._channel = None
        self._on_end(self)
        if not self._stopping:
            self._not_running(self._reason or _how(failure), pid)

    def _not_running(self, why: str, pid: int) -> None:
        """
        Start the process again after a pause, or give it up.
        """
        self._failures = 0 if self._was_ready else self._failures + 1
        if not self._was_ready and (self._reason or self._failures == STARTS):
            self._given_up(self._reason or f"worker {self.number} ended {STARTS} times before it was ready: {why}")
            return
        if self._reactor.seconds() - self._started_at >= GOOD_SECONDS:
            self._pause = FIRST_PAUSE
        _log.error(
            "worker {worker} (pid {pid}) ended: {why}; it is started again in {pause} s",
            worker=self.number,
            pid=pid,
            why=why,
            pause=self._pause,
        )
        self.restarts += 1
        self._starting = self._reactor.callLater(self._pause, self.start)
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)


class _Watcher(ProcessProtocol):
    """
    Passes the output of a process on, and notices its end.
    """

    def __init__(self, lines: Lines, ended: Callable[[Failure], object]) -> None:
        self._lines = lines
        self._ended = ended

    def childDataReceived(self, descriptor: int, data: bytes) -> None:
        self._lines.received(descriptor, data)

    def processEnded(self, reason: Failure) -> None:
        self._lines.end()
        self._ended(reason)


def _how(failure: Failure) -> str:
    """
    How a process has ended, in words.
    """
    number = getattr(failure.value, "signal", None)
    if number is None:
        return f"exit status {getattr(failure.value, 'exitCode', None)}"
    try:
        return f"killed by {signal.Signals(number).name}"
    except ValueError:
        return f"killed by signal {number}"
