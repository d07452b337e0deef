"""
The terminal of C{dcm-ws top}: keys, its size, and reports that come while it waits for keys.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from dcm_ws.cli.top_report import Report
from dcm_ws.cli.top_view import keys_of

_COLUMNS, _LINES = 80, 24

Outcome = Report | BaseException


def size() -> tuple[int, int]:
    """
    Columns and lines of the terminal, as they are now: the variables COLUMNS and LINES do not follow them.
    """
    columns, lines = os.get_terminal_size()
    # a terminal that knows no size has 0
    return columns or _COLUMNS, lines or _LINES


class Waker:
    """
    A pipe that ends a wait: another thread writes to it, and so does Python when a signal comes that has a handler.

    @ivar is_interrupted: whether the process is to stop, as after Ctrl-Z, or has been stopped and goes on.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)
        self.is_interrupted = False
        self._is_to_stop = False

    def fileno(self) -> int:
        return self._reader

    def wake(self) -> None:
        # if the pipe is full, the wait ends, too
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"\0")

    def clear(self) -> None:
        """
        Have the next wait not end because of what was before.
        """
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)

    @contextlib.contextmanager
    def woken_by_signals(self) -> Iterator[None]:
        """
        Also end a wait when the terminal gets another size, when the process is to stop, and when it goes on.
        """
        signals = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
        handlers = [(number, signal.signal(number, self._note)) for number in signals]
        descriptor = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            for number, handler in handlers:
                signal.signal(number, handler)

    def stop_if_wanted(self) -> None:
        """
        Stop the process if that is why it was interrupted; returns when it goes on.  The terminal must be as it was.
        """
        if self._is_to_stop:
            self._is_to_stop = False
            handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, handler)
        # Ctrl-Z may come again at once
        self.is_interrupted = self._is_to_stop

    def _note(self, number: int, _frame: object) -> None:
        if number == signal.SIGTSTP:
            self._is_to_stop = True
        if number != signal.SIGWINCH:
            self.is_interrupted = True


class Refresher:
    """
    Asks for a report again and again until the process ends, in a thread of its own, so that keys work while the
    service does not answer.

    @param interval: seconds between an answer and the next request.
    """

    def __init__(self, refresh: Callable[[], Report], interval: float, waker: Waker) -> None:
        self._refresh = refresh
        self._interval = interval
        self._waker = waker
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()

    def start(self) -> None:
        # a request that hangs must not delay the end of the process
        threading.Thread(target=self._run, daemon=True).start()

    def outcomes(self) -> Iterator[Outcome]:
        """
        The reports, and the errors in their place, that have come since the last call.
        """
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._outcomes.get_nowait()

    def _run(self) -> None:
        while True:
            time.sleep(self._interval)
            try:
                outcome: Outcome = self._refresh()
            except Exception as error:
                outcome = error
            self._outcomes.put(outcome)
            self._waker.wake()


@contextlib.contextmanager
def keyboard(waker: Waker) -> Iterator[Callable[[], list[str] | None]]:
    """
    Yields a function that waits for keys or for the waker, and returns the names of the keys; None if the terminal is
    gone.  The terminal gets its settings back at the end.
    """
    if not sys.stdin.isatty():

        def wait() -> list[str]:
            select.select([waker], [], [])
            waker.clear()
            return []

        yield wait
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    rest = b""

    def wait_for_keys() -> list[str] | None:
        nonlocal rest
        ready, _, _ = select.select([descriptor, waker], [], [])
        waker.clear()
        if descriptor not in ready:
            return []
        try:
            data = os.read(descriptor, 4096)
        except OSError:
            return None
        keys, rest = keys_of(rest + data)
        return keys if data else None

    tty.setcbreak(descriptor)
    try:
        yield wait_for_keys
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
