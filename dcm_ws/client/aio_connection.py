"""
One connection of the client for asyncio: what reads and writes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from dcm_ws.client.core import ALIVE, SILENCE, ClientCore
from dcm_ws.client.errors import DCMError


class Connection:
    """
    Passes messages between a WebSocket and the client's core, until the connection ends.

    @param room: set by the client when reading may go on.
    @param complain: called with each error that answers no request.
    """

    def __init__(
        self,
        socket: ClientConnection,
        core: ClientCore,
        *,
        room: asyncio.Event,
        complain: Callable[[DCMError], object],
    ) -> None:
        self._socket = socket
        self._core = core
        self._room = room
        self._complain = complain
        self._outgoing: asyncio.Queue[str] = asyncio.Queue()

    async def run(self, conversation: Coroutine[Any, Any, None]) -> DCMError | None:
        """
        Read and write, and have the conversation at the same time.

        @return: why this client ended the connection, if it did.
        """
        self._core.opened(self._outgoing.put_nowait)
        tasks = [asyncio.create_task(part) for part in (self._write(), self._read(), conversation)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done() and not task.cancelled():
                    problem = task.exception()
                    if isinstance(problem, DCMError):
                        return problem
                    if problem is not None and not isinstance(problem, ConnectionClosed):
                        raise problem
            return None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self) -> None:
        while True:
            await self._socket.send(await self._outgoing.get())

    async def _read(self) -> None:
        while True:
            if self._core.full:
                await self._until_room()
            try:
                # wait_for() may swallow a cancellation, before Python 3.12
                async with asyncio.timeout(SILENCE):
                    text = await self._socket.recv()
            except TimeoutError:
                raise DCMError("nothing was heard for too long") from None
            error = self._core.received(text)
            if error is not None:
                self._complain(error)

    async def _until_room(self) -> None:
        """
        Wait until the client may read again.
        """
        ended = asyncio.create_task(self._socket.wait_closed())
        try:
            while self._core.full and not ended.done():
                self._room.clear()
                room = asyncio.create_task(self._room.wait())
                done, _ = await asyncio.wait((ended, room), timeout=ALIVE, return_when=asyncio.FIRST_COMPLETED)
                room.cancel()
                if not done:
                    self._core.alive()
        finally:
            ended.cancel()
