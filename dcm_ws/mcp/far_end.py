"""
A client of the MCP server, however its messages come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from mcp.shared.message import SessionMessage
from mcp_types import RequestId, jsonrpc_message_adapter

Written = Callable[[RequestId], object]
"""
Called with the id of a request whose answer has been written.
"""


class NotListeningError(Exception):
    """
    A notification could not be sent: the client does not receive any now.
    """


class FarEnd(Protocol):
    """
    @ivar reading: the stream of its messages.
    @ivar writing: the stream of messages to it.
    """

    reading: Any
    writing: Any

    async def read(self) -> None:
        """
        Read its messages until there are no more.
        """

    async def write(self) -> None:
        """
        Write messages until there are no more.

        @raise OSError: the client does not read any more.
        """

    async def notify(self, method: str, params: dict[str, Any]) -> None:
        """
        Send a notification; returns when it has been written.

        @raise NotListeningError: it has not been.
        """

    async def listens(self) -> None:
        """
        Returns when the client receives notifications.
        """


def parse(line: bytes | str) -> SessionMessage | Exception:
    """
    A message, or why it is not one.
    """
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        return error
