"""
Connections of the clients of the test: how they end, and come back.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

from websockets.asyncio.client import ClientConnection


class ComingBack:
    """
    A client that connects again whenever its connection has ended, until the test stops it.

    @ivar here: it is connected, and ready.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.here = asyncio.Event()
        self._connection: ClientConnection | None = None
        self._away = 0.0
        self._stopping = False

    @property
    def is_connected(self) -> bool:
        """
        It has a connection, on which the service may have begun to send.
        """
        return self._connection is not None

    def drop(self, away: float) -> bool:
        """
        Reset the TCP connection, and stay away for so many seconds.  False if there is none.
        """
        connection = self._leaves(away)
        if connection is None:
            return False
        reset(connection)
        return True

    async def leave(self, away: float) -> bool:
        """
        Close the connection as one should, and stay away for so many seconds.  False if there is none.
        """
        connection = self._leaves(away)
        if connection is None:
            return False
        await connection.close()
        return True

    async def stop(self) -> None:
        """
        Leave for good.
        """
        self._stopping = True
        if self._connection is not None:
            await self._connection.close()

    def _leaves(self, away: float) -> ClientConnection | None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._left()
            self._away = away
        return connection

    def _left(self) -> None:
        """
        It is not ready any more.
        """
        self.here.clear()


def reset(connection: ClientConnection) -> None:
    """
    End a TCP connection with an RST: what is on its way in either direction is lost.
    """
    plain = connection.transport.get_extra_info("socket")
    if plain is not None and plain.fileno() >= 0:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.transport.abort()


async def say(connection: ClientConnection, **message: Any) -> None:
    """
    Send one message.
    """
    await connection.send(json.dumps(message))
