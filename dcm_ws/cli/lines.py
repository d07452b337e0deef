"""
Reads the lines of a file or a pipe in a thread, while the event loop answers pings and handles Ctrl-C.
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
The longest line, in bytes.
"""

BOM = b"\xef\xbb\xbf"
"""
The byte order mark, which some editors write at the beginning of a file.
"""

_CHUNK = 1 << 16
_AHEAD = 16


class Numbered(NamedTuple):
    """
    A line of a file, without its line feed.

    @ivar number: counted from 1.
    @ivar text: the line; only its beginning, which is longer than L{LINE_MAX}, if the line is.
    @ivar size: the bytes that the line takes in the file.
    """

    number: int
    text: bytes
    size: int


def open_unbuffered(name: str) -> FileIO:
    """
    Open a file, or standard input for C{-}, without a buffer: a thread that waits in a buffered file holds its lock,
    and Python waits for the lock when it exits.

    @raise OSError: it cannot be opened.
    """
    return os.fdopen(os.dup(0), "rb", buffering=0) if name == "-" else open(name, "rb", buffering=0)


async def numbered(file: FileIO) -> AsyncIterator[Numbered]:
    """
    Yield the lines of the file, and close it at its end.

    @raise click.ClickException: the file cannot be read.
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
        # a RuntimeError says that the event loop is closed: nothing is needed any more
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
            raise click.ClickException(f"cannot read the next line: {chunk.strerror}")
        yield chunk


def _read(file: FileIO) -> bytes | OSError:
    try:
        return os.read(file.fileno(), _CHUNK)
    except OSError as error:
        return error
