"""
Runs dcm-ws and measures the turns of its reactor: how long all other clients wait for what one turn does.

    python benchmarks/turns.py -n --pidfile= dcm-ws --ws-port 3849 --no-database

takes the options of C{twistd}.  On SIGUSR1 it prints the longest turn since the last time as a line of JSON on standard
error: its CPU time, which does not depend on what else the machine does, and its time by the clock.
"""

from __future__ import annotations

import json
import os
import signal
import time
from select import epoll
from typing import Any

from twisted.internet import epollreactor
from twisted.scripts.twistd import run


class MeasuredPoller:
    """
    An epoll object that takes the time between two polls.
    """

    def __init__(self) -> None:
        self._epoll = epoll(1024)
        self._cpu, self._clock = time.thread_time(), time.monotonic()
        self._longest = (0.0, 0.0)
        signal.signal(signal.SIGUSR1, lambda *_: self._report())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)

    def poll(self, *arguments: float) -> list[tuple[int, int]]:
        """
        End a turn, wait, and begin the next one.
        """
        turn = (time.thread_time() - self._cpu, time.monotonic() - self._clock)
        self._longest = max(self._longest, turn)
        ready = self._epoll.poll(*arguments)
        self._cpu, self._clock = time.thread_time(), time.monotonic()
        return ready

    def _report(self) -> None:
        cpu, clock = self._longest
        self._longest = (0.0, 0.0)
        # not to sys.stderr, which twistd has redirected to its log
        os.write(2, json.dumps({"cpu_ms": round(cpu * 1e3, 2), "clock_ms": round(clock * 1e3, 2)}).encode() + b"\n")


if __name__ == "__main__":
    epollreactor.epoll = lambda *_: MeasuredPoller()
    run()
