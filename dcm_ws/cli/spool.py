"""
A file with events that could not be published yet, in order.  Several processes use it at the same time.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

EVENTS_MAX = 1000
"""
Events in a spool; beyond it, the oldest is dropped.
"""

BYTES_MAX = 1 << 20
"""
Bytes in a spool; beyond it, the oldest events are dropped.
"""

LOCK_SECONDS = 0.3
"""
Seconds to wait for another process that changes the file.
"""

HOLD_SECONDS = 5.0
"""
Seconds for which nothing is sent after a service did not answer in time.
"""

_LOCK_PAUSE = 0.005


class SpoolError(OSError):
    """
    The spool cannot be used now.
    """


class Spool:
    """
    The events of one publisher for one service.

    @param folder: where the files are; it is made, for this user only.
    @param name: of the files, without an ending.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._file = folder / f"{name}.jsonl"
        self._lock = folder / f"{name}.lock"
        self._sending = folder / f"{name}.sending"
        self._held = folder / f"{name}.held"

    def is_empty(self) -> bool:
        """
        Whether no event waits.
        """
        return not self._file.exists() or not self._read()[1]

    def add(self, event: bytes) -> None:
        """
        Add an event at the end.

        @param event: JSON without line feeds.
        @raise OSError: the file cannot be written, or another process keeps it locked.
        """
        with self._locked():
            dropped, events = self._read()
            events.append(event)
            size = sum(map(len, events))
            while len(events) > EVENTS_MAX or (size > BYTES_MAX and events):
                size -= len(events.pop(0))
                dropped += 1
            self._write(dropped, events)

    def first(self, number: int, size: int) -> list[bytes]:
        """
        The oldest events, at most C{number}, and C{size} bytes unless the first is larger.
        """
        taken: list[bytes] = []
        for event in self._read()[1][:number]:
            size -= len(event)
            if taken and size < 0:
                break
            taken.append(event)
        return taken

    def remove(self, events: list[bytes]) -> None:
        """
        Remove events that are done: the oldest ones, as L{first} returned them.  Some of them may have been dropped
        meanwhile.
        """
        done = set(events)
        with self._locked():
            dropped, left = self._read()
            while left and left[0] in done:
                left.pop(0)
            self._write(dropped, left)

    def count(self) -> int:
        """
        How many events wait.
        """
        return len(self._read()[1])

    def take_dropped(self) -> int:
        """
        How many events were dropped since this was called the last time.
        """
        if not self._file.exists():
            return 0
        with self._locked():
            dropped, events = self._read()
            self._write(0, events)
        return dropped

    @contextmanager
    def sending(self) -> Iterator[bool]:
        """
        Be the only process that sends; yields False if another one is.
        """
        with self._opened(self._sending) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def hold(self) -> None:
        """
        Send nothing for L{HOLD_SECONDS}.
        """
        with self._opened(self._held) as file:
            os.utime(file)

    def is_held(self) -> bool:
        """
        Whether nothing is to be sent.
        """
        try:
            age = time.time() - self._held.stat().st_mtime
        except OSError:
            return False
        return 0 <= age < HOLD_SECONDS

    @contextmanager
    def _locked(self) -> Iterator[None]:
        deadline = time.monotonic() + LOCK_SECONDS
        with self._opened(self._lock) as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise SpoolError("another process keeps it locked") from None
                    time.sleep(_LOCK_PAUSE)
                else:
                    break
            yield

    @contextmanager
    def _opened(self, path: Path) -> Iterator[int]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield file
        finally:
            os.close(file)

    def _read(self) -> tuple[int, list[bytes]]:
        """
        How many events were dropped, and the events.
        """
        try:
            lines = self._file.read_bytes().splitlines()
        except FileNotFoundError:
            return 0, []
        dropped = 0
        if lines and lines[0].startswith(b'{"dropped":'):
            with suppress(ValueError):
                dropped = int(json.loads(lines[0])["dropped"])
            lines = lines[1:]
        return dropped, [line for line in lines if line.startswith(b"{") and line.endswith(b"}")]

    def _write(self, dropped: int, events: list[bytes]) -> None:
        """
        Replace the file as a whole; remove it if it says nothing.
        """
        if not dropped and not events:
            self._file.unlink(missing_ok=True)
            return
        head = [b'{"dropped":%d}' % dropped] if dropped else []
        draft = self._file.with_name(f"{self._file.name}.new")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(b"".join(line + b"\n" for line in [*head, *events]))
        draft.replace(self._file)
