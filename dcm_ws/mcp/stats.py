"""
Reads C{/stats} of a service on a Unix socket.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from dcm_ws.mcp.calls import CallError

SECONDS = 5.0
"""
Seconds that the service has for its answer.
"""

_SIZE_MAX = 16 << 20


async def connected_agents(path: str, token: str | None) -> dict[str, int]:
    """
    The number of connections of each connected agent.

    @param path: of the socket.
    @raise CallError: the service does not say.
    """
    try:
        async with asyncio.timeout(SECONDS):
            agents = json.loads(await _get(path, token)).get("agentStats")
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
        raise CallError(f"the service does not answer: {error}") from None
    if not isinstance(agents, dict):
        raise CallError("the service does not say which agents are connected")
    return agents


async def _get(path: str, token: str | None) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path, limit=_SIZE_MAX)
    try:
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        writer.write(f"GET /stats HTTP/1.0\r\nHost: localhost\r\n{authorization}\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        return await reader.read(-1)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
