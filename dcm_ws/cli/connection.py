"""
Clients of the service, for the commands.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import click

from dcm_ws.cli.common import harmless
from dcm_ws.client import DCMError
from dcm_ws.client.aio import DCMClient

CONNECT_SECONDS = 15.0
"""
Seconds that a command waits for a service that it needs at once.
"""


def make_client(url: str, token: str | None, agent_id: str | None, channels: Iterable[str]) -> DCMClient:
    """
    @raise click.UsageError: it is no WebSocket URL.
    """
    # the commands say themselves what the client would log
    logging.getLogger("dcm_ws.client").setLevel(logging.ERROR)
    try:
        return DCMClient(url, token=token, agent_id=agent_id, channels=channels)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@asynccontextmanager
async def connected(client: DCMClient) -> AsyncIterator[DCMClient]:
    """
    The client, connected; closed at the end.

    @raise click.ClickException: it cannot connect, or not in time.
    """
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await client.connect()
    except DCMError as error:
        raise click.ClickException(f"{client.url}: {harmless(str(error))}") from None
    except TimeoutError:
        reason = client.last_close[1] if client.last_close else "no answer"
        raise click.ClickException(f"{client.url} does not answer: {harmless(reason)}") from None
    try:
        yield client
    finally:
        await client.close()
