"""
Writes the log in a thread, so that the service never waits for its reader.

A pipe that nobody reads, a terminal that was stopped and a slow disk block the thread that writes; a full disk raises
errors.  Neither may delay clients.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

BUFFER_MAX = 1 << 20
"""
Characters of lines that may wait to be written; lines beyond the limit are dropped and counted.
"""

STOP_SECONDS = 1.0
"""
Seconds for writing the last lines when the service stops.
"""

_WAIT_SECONDS = 3600.0
_GATHER_SECONDS = 0.02


class Sink(Protocol):
    """
    An object that lines are written to.
    """

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


class Descriptor:
    """
    A sink for a file descriptor.  It has no buffer, whose lock a blocked thread would keep.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> None:
        data = memoryview(text.encode(errors="backslashreplace"))
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                # another process that shares it has made it non-blocking
                select.select([], [self._descriptor], [], _WAIT_SECONDS)

    def flush(self) -> None:
        """
        Do nothing: there is no buffer.
        """


class LogWriter:
    """
    Writes lines in a thread between L{start} and L{stop}, and at once before and after that.

    twistd forks before the reactor runs, and a thread would not survive the fork.

    @param sink: where to write.
    @param dropped: called for each line that is dropped, or that the sink refuses.
    @param notice: makes the line that replaces missing lines, given their number.
    @param most: characters that may wait.
    """

    def __init__(
        self,
        sink: Sink,
        dropped: Callable[[], object],
        notice: Callable[[int], str],
        most: int = BUFFER_MAX,
    ) -> None:
        self._sink = sink
        self._dropped = dropped
        self._notice = notice
        self._most = most
        self._lines: deque[str] = deque()
        self._size = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._asleep = False
        self._stopping = False
        self._stuck = False
        self._lost = 0

    def start(self) -> None:
        """
        Write in a thread from now on.
        """
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """
        Write the lines that wait, for C{seconds} at most.  If that is not enough, nothing is written afterwards.
        """
        with self._changed:
            thread, self._thread = self._thread, None
            self._stopping = True
            self._changed.notify_all()
        if thread is not None:
            thread.join(seconds)
            self._stuck = thread.is_alive()

    def write(self, text: str) -> None:
        """
        Write a line, sooner or later.  It never waits after L{start}.
        """
        if self._thread is None:
            if not self._stuck:
                self._put(text, 1)
            return
        with self._changed:
            fits = self._size + len(text) <= self._most
            if fits:
                self._lines.append(text)
                self._size += len(text)
                if self._asleep or self._size > self._most // 2:
                    self._asleep = False
                    self._changed.notify_all()
        if not fits:
            self._lose(1)

    def flush(self) -> None:
        """
        Do nothing: each line is flushed when it is written.
        """

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines and not self._stopping:
                    self._asleep = True
                    self._changed.wait()
                # Lines come in bursts.  Waking the thread for each would take longer than all other logging; half a
                # buffer ends the wait.
                if not self._stopping and self._size <= self._most // 2:
                    self._changed.wait(_GATHER_SECONDS)
                if not self._lines:
                    return
                # in one piece, so that a busy log takes few system calls
                text, count = "".join(self._lines), len(self._lines)
                self._lines.clear()
            self._put(text, count)
            with self._changed:
                self._size -= len(text)

    def _put(self, text: str, count: int) -> None:
        with self._changed:
            lost, self._lost = self._lost, 0
        try:
            self._sink.write(f"{self._notice(lost)}{text}" if lost else text)
            self._sink.flush()
        except (OSError, ValueError):
            # a full disk, a closed pipe or a closed file: there is no place to report it
            with self._changed:
                self._lost += lost
            self._lose(count)

    def _lose(self, count: int) -> None:
        with self._changed:
            self._lost += count
        for _ in range(count):
            self._dropped()
