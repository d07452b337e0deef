"""
The output of a command: passed on as it is, and its last lines kept.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from contextlib import suppress

from dcm_ws.cli.terminal import harmless

LINE_MAX = 500
"""
Bytes of a line that are kept; of a longer one, the beginning.
"""

TEXT_MAX = 16_000
"""
Characters of all lines together that are published; the first lines are left out.
"""

_CHUNK = 1 << 16
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class LastLines:
    """
    The last lines of one or several outputs.

    @param number: how many.
    """

    def __init__(self, number: int) -> None:
        self._lines: deque[bytes] = deque(maxlen=number)
        self._lock = threading.Lock()

    def add(self, line: bytes) -> None:
        """
        Add a line without its line feed, of which the beginning is kept.
        """
        with self._lock:
            self._lines.append(line[:LINE_MAX])

    def texts(self) -> list[str]:
        """
        The lines without colours, and with all other control characters escaped; at most L{TEXT_MAX} characters.
        """
        with self._lock:
            lines = list(self._lines)
        texts = [harmless(_COLOURS.sub("", line.decode("utf-8", "replace")).expandtabs(4)) for line in lines]
        size = sum(map(len, texts))
        while size > TEXT_MAX:
            size -= len(texts.pop(0))
        return texts


class Copy:
    """
    Copies an output of a command to one of ours in a thread, until the command closes it.

    @param source: the file descriptor to read; it is closed at the end.  If ours cannot be written any more, it is
        closed, too, so that the command learns of it as without us.
    @param target: the file descriptor to write.
    @param lines: receives the lines.
    """

    def __init__(self, source: int, target: int, lines: LastLines) -> None:
        self._source = source
        self._target = target
        self._lines = lines
        self._line = b""
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """
        Wait for the end of the output, which a process in the background may keep open.
        """
        self._thread.join(seconds)

    def _work(self) -> None:
        try:
            while piece := os.read(self._source, _CHUNK):
                self._keep(piece)
                self._write(piece)
        except OSError:
            pass
        finally:
            if self._line:
                self._lines.add(self._line)
            with suppress(OSError):
                os.close(self._source)

    def _write(self, piece: bytes) -> None:
        left = memoryview(piece)
        while left:
            left = left[os.write(self._target, left) :]

    def _keep(self, piece: bytes) -> None:
        *ended, rest = piece.split(b"\n")
        for end in ended:
            self._lines.add(_shown(self._line + end))
            self._line = b""
        # a progress bar begins its line again and again
        self._line = _shown(self._line + rest)[:LINE_MAX]


def _shown(line: bytes) -> bytes:
    """
    What a terminal would show of a line that has carriage returns in it.
    """
    return line.removesuffix(b"\r").rpartition(b"\r")[2]
