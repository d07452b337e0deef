"""
Agents that use C{dcm-ws mcp} through the client of the SDK.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from mcp.client.client import Client
from mcp.client.extension import ClientExtension, NotificationBinding
from mcp.server.stdio import stdio_server
from mcp_types import LoggingMessageNotification, NotificationParams, ResourceUpdatedNotification, TextContent
from pydantic import ConfigDict

from tests.cli.running import PROGRAM, clean
from tests.forking import Popen

_EVENT = re.compile(r'^<event id="([^"]+)".*>\n(.*)\n</event>$', re.M)


class _Pushed(NotificationParams):
    model_config = ConfigDict(extra="allow")
    content: str
    meta: dict[str, str]


class _Channel(ClientExtension):
    """
    What a client does that understands C{notifications/claude/channel}.
    """

    identifier = "claude/channel"

    def __init__(self, pushed: list[Any]) -> None:
        self._pushed = pushed

    def notifications(self) -> list[NotificationBinding[Any]]:
        async def keep(params: _Pushed) -> None:
            self._pushed.append(params)

        return [NotificationBinding(method="notifications/claude/channel", params_type=_Pushed, handler=keep)]


class Agent:
    """
    An agent, and what it has been told.

    @ivar pushed: the notifications with events.
    @ivar updated: the URIs of the resources that have changed.
    @ivar logged: the log messages.
    """

    def __init__(self) -> None:
        self.client: Client
        self.pushed: list[Any] = []
        self.updated: list[str] = []
        self.logged: list[Any] = []

    async def hear(self, message: Any) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            self.updated.append(str(message.params.uri))
        elif isinstance(message, LoggingMessageNotification):
            self.logged.append(message.params.data)

    async def call(self, tool: str, /, **arguments: Any) -> str:
        """
        Call a tool that succeeds; returns its text.
        """
        failed, text = await self.try_to(tool, **arguments)
        assert not failed, text
        return text

    async def try_to(self, tool: str, /, **arguments: Any) -> tuple[bool, str]:
        """
        Call a tool; returns whether it failed, and its text.
        """
        result = await self.client.call_tool(tool, arguments)
        (content,) = result.content
        assert isinstance(content, TextContent)
        return result.is_error, content.text


@asynccontextmanager
async def _forked(command: list[str], folder: Path, env: dict[str, str]) -> AsyncIterator[Any]:
    """
    A transport to a server that is forked, so that it need not import its modules; the example and the inspector start
    theirs as users do.

    The SDK reads and writes lines in the same way at both ends of the pipes.
    """
    process = Popen(
        command, cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        async with stdio_server(anyio.wrap_file(process.stdout), anyio.wrap_file(process.stdin)) as streams:
            try:
                yield streams
            finally:
                # it ends when it has read everything
                process.stdin.close()
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.stdout.close()


@asynccontextmanager
async def agent(
    folder: Path, port: int, *arguments: str, mode: str = "legacy", understands: bool = False, **variables: str
) -> AsyncIterator[Agent]:
    """
    An agent whose server runs in a process of its own.

    @param arguments: of C{dcm-ws mcp}.
    @param mode: C{legacy} for versions of MCP with a handshake, C{auto} for later ones.
    @param understands: the client says that it understands C{notifications/claude/channel}.
    """
    command = [PROGRAM, "mcp", "--url", f"ws://127.0.0.1:{port}/", *arguments]
    served = _forked(command, folder, clean(folder, **variables))
    found = Agent()
    extensions = [_Channel(found.pushed)] if understands else []
    async with Client(served, mode=mode, extensions=extensions, message_handler=found.hear) as client:
        found.client = client
        yield found


def events_in(text: str) -> dict[str, str]:
    """
    The events in a text: their data by their id.
    """
    return dict(_EVENT.findall(text))


async def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
