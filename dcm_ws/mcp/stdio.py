"""
Messages on standard input and output, in lines of JSON.

The SDK's own transport reads lines of any length, cannot end while it waits for one, and does not say when a message
has been written.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCResponse

from dcm_ws.mcp.far_end import Written, parse


class Output:
    """
    Writes whole lines, one after the other, in a thread: the client may be slow to read them.

    @param fd: a file descriptor.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = asyncio.Lock()
        self._lines: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        # a daemon: it may wait for a client that does not read when the process ends
        threading.Thread(target=self._work, daemon=True).start()

    async def write(self, line: bytes) -> None:
        """
        Returns when the line has been written.

        @raise OSError: it cannot be written.
        """
        async with self._lock:
            done: asyncio.Future[None] = self._loop.create_future()
            self._lines.put((line + b"\n", done))
            # a line that was begun is finished, or the next one could not be read
            await asyncio.shield(done)

    def _work(self) -> None:
        # a RuntimeError says that the event loop is closed
        with suppress(RuntimeError):
            while True:
                line, done = self._lines.get()
                error = self._write(line)
                self._loop.call_soon_threadsafe(_finish, done, error)

    def _write(self, line: bytes) -> OSError | None:
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            return error
        return None


def _finish(done: asyncio.Future[None], error: OSError | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


class Stdio:
    """
    A client on standard input and output.

    @param lines: the lines that it sends.
    @param written: called with the id of each request whose answer has been written.
    """

    def __init__(self, lines: AsyncIterator[bytes], output: Output, written: Written) -> None:
        self._lines = lines
        self._output = output
        self._written = written
        self._incoming, self.reading = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        self.writing, self._outgoing = anyio.create_memory_object_stream[SessionMessage](0)

    async def read(self) -> None:
        """
        Read messages until the end of the input.
        """
        async with self._incoming:
            async for line in self._lines:
                if not line.strip():
                    continue
                message = parse(line)
                with suppress(anyio.BrokenResourceError):
                    await self._incoming.send(message)

    async def write(self) -> None:
        """
        Write messages until there are no more.

        @raise OSError: the client does not read any more.
        """
        async with self._outgoing:
            async for message in self._outgoing:
                content = message.message
                await self._output.write(content.model_dump_json(by_alias=True, exclude_unset=True).encode())
                if isinstance(content, JSONRPCResponse | JSONRPCError) and content.id is not None:
                    self._written(content.id)

    async def notify(self, method: str, params: dict[str, Any]) -> None:
        """
        Send a notification; returns when it has been written.
        """
        message = JSONRPCNotification(jsonrpc="2.0", method=method, params=params)
        await self._output.write(message.model_dump_json(by_alias=True, exclude_unset=True).encode())

    async def listens(self) -> None:
        """
        Return at once: the client always reads.
        """
