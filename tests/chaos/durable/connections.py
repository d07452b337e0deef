"""
What all WebSocket clients of the test have in common.
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection

from tests.integration.tokens import SECRET, make_token

OPTIONS: dict[str, Any] = {"compression": None, "ping_interval": None, "proxy": None, "close_timeout": 2}
RETRY = 0.1
"""
Seconds after which a client tries again that could not connect.
"""


@dataclass(frozen=True, slots=True)
class Address:
    """
    Where the service is.
    """

    port: int

    def url(self, agent: str, *, session: str | None = None, observer: bool = False) -> str:
        """
        The URL for an agent that authenticates with its handshake.
        """
        mark = "&observer=1" if observer else ""
        return f"{self.bare()}?token={self.token(agent, session)}{mark}"

    def bare(self) -> str:
        """
        The URL for a client that authenticates later.
        """
        return f"ws://127.0.0.1:{self.port}/"

    def token(self, agent: str, session: str | None = None) -> str:
        """
        A token of the agent.
        """
        return make_token(agent, session, secret=SECRET)


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


def gap_end(message: dict[str, Any]) -> int:
    """
    The last position that a C{gap} frame says may be missing: what is still in the log follows, unless the log is
    another one.
    """
    end: int = message["first"] - 1 if message["reason"] == "expired" else message["pos"]
    return end
