"""
The lines of a file or a pipe, read beside the event loop, which has pings to answer and Ctrl-C to hear meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from io import FileIO
from typing import NamedTuple

import click

LINE_MAX = 1 << 20
"""
Bytes of one line.
"""

BOM = b"\xef\xbb\xbf"
"""
What some editors put before everything else.
"""

_CHUNK = 1 << 16
_AHEAD = 16


class Numbered(NamedTuple):
    """
    A line of a file, without its end.

    @ivar text: of a line that is longer than L{LINE_MAX}, a beginning that is, too.
    @ivar size: bytes that it takes in the file.
    """

    number: int
    text: bytes
    size: int


def open_unbuffered(name: str) -> FileIO:
    """
    The file, or standard input for C{-}.  (A thread that waits in a buffered one would hold its lock, for which Python
    waits at its end.)

    @raise OSError: it cannot be opened.
    """
    return os.fdopen(os.dup(0), "rb", buffering=0) if name == "-" else open(name, "rb", buffering=0)


async def numbered(file: FileIO) -> AsyncIterator[Numbered]:
    """
    The lines, from 1; the file is closed at its end.

    @raise click.ClickException: it cannot be read.
    """
    number, size, held = 1, 0, bytearray()
    async for chunk in _chunks(file):
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield Numbered(number, _text(number, held + end), size + len(end) + 1)
            number, size, held = number + 1, 0, bytearray()
        size += len(rest)
        held += rest
        del held[LINE_MAX + 1 :]
    if size:
        yield Numbered(number, _text(number, held), size)


def _text(number: int, line: bytearray) -> bytes:
    return bytes(line.removeprefix(BOM) if number == 1 else line)


async def _chunks(file: FileIO) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    read: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)

    def work() -> None:
        # no loop: nobody asks any more
        with file, suppress(RuntimeError):
            while room.acquire():
                chunk = _read(file)
                loop.call_soon_threadsafe(read.put_nowait, chunk)
                if not chunk or isinstance(chunk, OSError):
                    return

    threading.Thread(target=work, daemon=True).start()
    while chunk := await read.get():
        room.release()
        if isinstance(chunk, OSError):
            raise click.ClickException(f"cannot read on: {chunk.strerror}")
        yield chunk


def _read(file: FileIO) -> bytes | OSError:
    try:
        return os.read(file.fileno(), _CHUNK)
    except OSError as error:
        return error
