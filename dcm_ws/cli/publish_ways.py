"""
The two ways to publish: through the service by WebSocket, and through the database by NOTIFY.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

import click
import msgspec

from dcm_ws.cli.options import Server
from dcm_ws.cli.publish_events import EventToPublish, InvalidEventError
from dcm_ws.cli.terminal import harmless, one_line
from dcm_ws.postgres.triggers import PAYLOAD_MAX

if TYPE_CHECKING:
    from dcm_ws.client import Published

Send = Callable[[EventToPublish], Awaitable["Published | None"]]
"""
Publishes one event and returns its id; None if it went by NOTIFY.

@raise InvalidEventError: this event is refused.
@raise click.ClickException: no event can be published any more.
"""

_CONNECT_SECONDS = 10


@asynccontextmanager
async def by_database(url: str) -> AsyncIterator[Send]:
    """
    Publish with C{pg_notify}.
    """
    import psycopg2

    try:
        connection = psycopg2.connect(
            url, connect_timeout=_CONNECT_SECONDS, application_name="dcm-ws publish", client_encoding="utf8"
        )
    except psycopg2.Error as error:
        raise click.ClickException(f"cannot connect to the database: {one_line(error)}") from None
    with closing(connection):
        connection.autocommit = True

        async def send(event: EventToPublish) -> None:
            if event.key is not None:
                raise InvalidEventError("NOTIFY takes no key: publish it with --via ws")
            payload = msgspec.json.encode({"channel": event.channel, "event": event.event, "data": event.data})
            if len(payload) > PAYLOAD_MAX:
                raise InvalidEventError(
                    f"{len(payload)} bytes are too long, NOTIFY takes {PAYLOAD_MAX}: publish it with --via ws"
                )
            with connection.cursor() as cursor:
                cursor.execute("select pg_notify('dcm_events', %s)", (payload.decode(),))
            # Ctrl-C is handled here, between two events
            await asyncio.sleep(0)

        try:
            yield send
        except psycopg2.Error as error:
            raise click.ClickException(f"database error: {one_line(error)}") from None


@asynccontextmanager
async def by_websocket(server: Server) -> AsyncIterator[Send]:
    """
    Publish as a client of the service.
    """
    from dcm_ws.cli.connection import connected, describe, make_client, repeat_until_accepted
    from dcm_ws.client import ClosedError, DCMError, NotConnectedError, RequestTimeoutError

    async with connected(make_client(server), server) as client:

        async def send(event: EventToPublish) -> Published:
            if event.key is not None and not (server.token or server.agent_id):
                raise InvalidEventError(
                    "a key needs a token or --agent-id: without an agent it ends with the connection"
                )

            def publish() -> Awaitable[Published]:
                return client.publish(event.channel, event.event, event.data, key=event.key)

            try:
                return (await repeat_until_accepted(publish))[0]
            except (ClosedError, NotConnectedError, RequestTimeoutError) as error:
                raise click.ClickException(
                    f"{harmless(server.url)}: {harmless(str(error))}; the event may have been published"
                ) from None
            except DCMError as error:
                raise InvalidEventError(describe(error, server)) from None

        yield send
