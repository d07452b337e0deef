"""
A client over HTTP, whose requests and streams are in another process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCResponse

from dcm_ws.mcp.far_end import NotListeningError, Written, parse
from dcm_ws.protocol.gateway import Sent


class Exchange:
    """
    A client over HTTP.

    @param session: the number of its session.
    @param send: sends to the process that has its connections.
    @param written: called with the id of each request whose answer the client has got.
    @param unwritten: called with the id of each whose answer it has not got.
    """

    def __init__(self, session: int, send: Callable[[Sent], object], written: Written, unwritten: Written) -> None:
        self._session = session
        self._send = send
        self._written = written
        self._unwritten = unwritten
        self._texts: asyncio.Queue[str] = asyncio.Queue()
        self._number = 0
        self._untaken: dict[int, Callable[[bool], object]] = {}
        self._listens = asyncio.Event()
        self._incoming, self.reading = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        self.writing, self._outgoing = anyio.create_memory_object_stream[SessionMessage](0)

    # from the other process

    def received(self, text: str) -> None:
        """
        The client has sent a message.
        """
        self._texts.put_nowait(text)

    def taken(self, number: int, read: bool) -> None:
        """
        The client has got what was sent with this number, or not.
        """
        then = self._untaken.pop(number, None)
        if then is not None:
            then(read)

    def listening(self, on: bool) -> None:
        """
        The client receives notifications from now on, or not.
        """
        if on:
            self._listens.set()
        else:
            self._listens.clear()

    # the far end of the MCP server

    async def read(self) -> None:
        async with self._incoming:
            while True:
                message = parse(await self._texts.get())
                with suppress(anyio.BrokenResourceError):
                    await self._incoming.send(message)

    async def write(self) -> None:
        async with self._outgoing:
            async for message in self._outgoing:
                content = message.message
                text = content.model_dump_json(by_alias=True, exclude_unset=True)
                if isinstance(content, JSONRPCResponse | JSONRPCError) and content.id is not None:
                    self._answer(content.id, text, failed=isinstance(content, JSONRPCError))
                elif self._listens.is_set():
                    self._post(text)

    async def notify(self, method: str, params: dict[str, Any]) -> None:
        if not self._listens.is_set():
            raise NotListeningError
        got: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        message = JSONRPCNotification(jsonrpc="2.0", method=method, params=params)
        number = self._post(message.model_dump_json(by_alias=True, exclude_unset=True))
        self._untaken[number] = got.set_result
        try:
            if not await got:
                raise NotListeningError
        finally:
            self._untaken.pop(number, None)

    async def listens(self) -> None:
        await self._listens.wait()

    def _answer(self, request: int | str, text: str, *, failed: bool) -> None:
        number = self._post(text, request, failed=failed)
        self._untaken[number] = lambda read: (self._written if read else self._unwritten)(request)

    def _post(self, text: str, answers: int | str | None = None, *, failed: bool = False) -> int:
        self._number += 1
        self._send(Sent(self._session, self._number, text, answers, failed))
        return self._number
