"""
Asking a service again that says: later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dcm_ws.client.errors import NotAvailableError, RateLimitedError

TRIES = 10
"""
How often a service may say that it is not available.
"""

_PAUSE = 0.1


async def patiently(ask: Callable[[], Awaitable[str]]) -> tuple[str, bool]:
    """
    What C{ask} comes to, called again after every C{RATE_LIMITED}; and whether it had to wait.

    @raise NotAvailableError: it was answered so each of L{TRIES} times.
    @raise DCMError: it was answered otherwise.
    """
    refused, waited = 0, False
    while True:
        try:
            return await ask(), waited
        except RateLimitedError as error:
            pause = error.retry_after
        except NotAvailableError as error:
            refused += 1
            if refused == TRIES:
                raise
            pause = error.retry_after
        waited = True
        await asyncio.sleep(pause or _PAUSE)
