"""
Publishing for a model: each call publishes once, although the connection may be lost meanwhile.
"""

from __future__ import annotations

import asyncio
import secrets

from dcm_ws.client.aio import DCMClient
from dcm_ws.client.errors import NotAvailableError, NotConnectedError, RateLimitedError, RequestTimeoutError
from dcm_ws.client.published import Published

SECONDS = 20.0
"""
Seconds in which an event has to be published.
"""

_PAUSE = 0.2


class NotPublishedError(Exception):
    """
    The event could not be published in time; the text says what the model can do.
    """


async def publish(client: DCMClient, channel: str, event: str, data: object, key: str | None = None) -> Published:
    """
    Publish an event; repeat the request, with the same key, until the service answers.

    @param key: None for a new one.
    @raise NotPublishedError: the service did not answer within L{SECONDS}.
    @raise DCMError: the service refuses it.
    """
    key = key or secrets.token_hex(16)
    sent = False
    try:
        async with asyncio.timeout(SECONDS):
            while True:
                await client.connected()
                pause = _PAUSE
                try:
                    sent = True
                    return await client.publish(channel, event, data, key=key)
                except (NotAvailableError, RateLimitedError) as error:
                    pause = error.retry_after or _PAUSE
                except (NotConnectedError, RequestTimeoutError):
                    pass
                await asyncio.sleep(pause)
    except TimeoutError:
        unknown = "it may have been published" if sent else "nothing was published"
        raise NotPublishedError(
            f"the service did not answer within {SECONDS:g} s: {unknown}; call again with key {key!r}, which is safe"
        ) from None
