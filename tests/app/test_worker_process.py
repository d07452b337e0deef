"""
The process of a worker: real processes, started, watched and killed.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from dcm_ws.app.control import SOCKETS, Drain, FromWorker, Start
from dcm_ws.app.modes import of_one_worker
from dcm_ws.app.node_memory import make_memory, plan_for
from dcm_ws.app.relay import Lines
from dcm_ws.app.settings import Settings
from dcm_ws.app.sockets import Inherited
from dcm_ws.app.worker_process import CHECKS, STARTS, WorkerProcess
from tests.integration.machine import until

pytestmark = pytest.mark.integration


class Watched:
    """
    A worker, and what it does.

    @ivar lines: of its log.
    """

    def __init__(self, reactor_module: str = "twisted.internet.selectreactor") -> None:
        self._plan = plan_for(2, 100)
        self._memory = make_memory(self._plan)
        self._module = reactor_module
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.lines: list[str] = []
        self.messages: list[FromWorker] = []
        self.is_ready: Deferred[None] = Deferred()
        self.has_ended: Deferred[None] = Deferred()
        self.has_given_up: Deferred[str] = Deferred()
        self.starts = 0
        self.process = WorkerProcess(
            1,
            reactor,
            relay=self.lines.append,
            prepare=self._prepare,
            received=lambda _, message: self.messages.append(message),
            ready=lambda _: self.is_ready.callback(None),
            given_up=self.has_given_up.callback,
            ended=self._ended,
        )

    def _prepare(self, worker: WorkerProcess) -> tuple[Start, int, list[int]]:
        self.starts += 1
        settings, inherited = of_one_worker(Settings(), 2), Inherited(SOCKETS, socket.AF_INET, given=False)
        start = Start(worker.number, self._module, settings, [inherited], self._plan)
        return start, self._memory, [self._socket.fileno()]

    def _ended(self, worker: WorkerProcess) -> None:
        ended, self.has_ended = self.has_ended, Deferred()
        ended.callback(None)


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.process.stop(Drain())
    made.process.kill()


@ensureDeferred
async def test_runs_and_ends(watched: Watched) -> None:
    """
    A worker is ready, logs with its number, and ends when it is told to.
    """
    watched.process.start()
    await watched.is_ready
    assert watched.process.is_ready
    ended = watched.has_ended
    watched.process.stop(Drain())
    await ended
    assert watched.process.pid == 0
    assert not watched.process.is_ready
    assert "[dcm_ws.service.DCMService] worker 1: stopped\n" in "".join(watched.lines)
    assert watched.starts == 1


@ensureDeferred
async def test_worker_that_does_not_answer(watched: Watched) -> None:
    """
    A worker that answers is left alone; one that has not answered for a number of checks is killed, and another process
    takes its place.
    """
    watched.process.start()
    await watched.is_ready
    first = watched.process.pid
    os.kill(first, signal.SIGSTOP)
    # what it still answers before it stops must not count as an answer to what comes then
    until(lambda: Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    await deferLater(reactor, 0.01)
    for _ in range(CHECKS):
        watched.process.check()
    assert watched.process.pid == first
    watched.is_ready = Deferred()
    ended = watched.has_ended
    watched.process.check()
    await ended
    await watched.is_ready
    assert watched.process.pid not in (0, first)
    assert watched.process.restarts == 1


@ensureDeferred
async def test_worker_that_never_starts() -> None:
    """
    If a worker ends several times before it has ever been ready, it is given up.
    """
    watched = Watched(reactor_module="no_such_module")
    watched.process.start()
    reason = await watched.has_given_up
    assert reason == f"worker 1 ended {STARTS} times before it was ready: exit status 1"
    assert watched.starts == STARTS
    assert "ModuleNotFoundError" in "".join(watched.lines)


def test_lines_are_put_together() -> None:
    """
    Lines are passed on when they are complete, those of each descriptor by themselves; the rest comes at the end.
    """
    lines: list[str] = []
    relay = Lines(lines.append)
    relay.received(1, b"one\ntw")
    relay.received(2, b"err")
    relay.received(1, b"o\nthree\n")
    assert lines == ["one\n", "two\nthree\n"]
    relay.received(1, b"\xff" * 70_000)
    assert len(lines[2]) == 4 * 70_000 + 1
    relay.end()
    relay.end()
    assert lines[3:] == ["err\n"]
