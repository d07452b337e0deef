"""
Clients of the service, as commands use them: connect, report why that fails, and repeat requests that come too early.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

import click
from websockets.exceptions import InvalidProxy, InvalidProxyStatus, InvalidStatus, InvalidURI

from dcm_ws.cli.certificates import advice, trusting
from dcm_ws.cli.options import Server
from dcm_ws.cli.terminal import harmless, say
from dcm_ws.client import ClosedError, DCMError, State
from dcm_ws.client.aio import DCMClient
from dcm_ws.client.errors import NotAvailableError, RateLimitedError
from dcm_ws.client.reasons import REFUSED
from dcm_ws.client.storage import PositionStore

T = TypeVar("T")

CONNECT_SECONDS = 15.0
"""
Seconds that a command tries to connect to a service that it needs at once.
"""

SLOW_SECONDS = 2.0
"""
Seconds after which a command reports that it is still connecting.
"""

ATTEMPTS = 10
"""
Attempts at a request that the service answers with C{NOT_AVAILABLE}.
"""

_PAUSE = 0.1
_GET_A_TOKEN = "give a token in DCM_WS_TOKEN or --token-file; `dcm-ws token NAME` makes one"
_ADVICE = {
    "AUTHENTICATION_REQUIRED": _GET_A_TOKEN,
    "TOKEN_REQUIRED": _GET_A_TOKEN,
    "TOKEN_EXPIRED": "the token has expired; `dcm-ws token NAME` makes another",
    "TOKEN_INVALID": "the token is damaged, or was not signed with the secret of this service",
}
_UNAUTHENTICATED = 4001
_SERVER_ERROR = 500


def make_client(
    server: Server,
    channels: Iterable[str] = (),
    since: str | None = None,
    *,
    position: PositionStore | None = None,
    observer: bool = True,
) -> DCMClient:
    """
    A client that connects as an observer: what the service keeps for the agent stays kept.

    @param since: the position to begin at; None for new events.
    @param position: keeps the position of the client.
    @param observer: False for a client that gets what is kept for the agent, and acknowledges it.
    @raise click.UsageError: the URL is not a WebSocket URL.
    """
    # the commands report themselves what the client would log
    logging.getLogger("dcm_ws.client").setLevel(logging.ERROR)
    try:
        return DCMClient(
            server.url,
            token=server.token,
            agent_id=server.agent_id,
            channels=channels,
            observer=observer,
            durable=not observer,
            position=position,
            since=since,
            tls=trusting(server.cacert),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def describe(error: DCMError, server: Server) -> str:
    """
    What the error says, and what to do about it.
    """
    refusal = error.refusal if isinstance(error, ClosedError) else error
    code = getattr(refusal, "code", None)
    close_code = getattr(error, "close_code", None)
    if server.token is None and (code == "NOT_AUTHORIZED" or close_code == _UNAUTHENTICATED):
        code = "AUTHENTICATION_REQUIRED"
    elif code is None and close_code == _UNAUTHENTICATED:
        # the token was accepted when the connection was made
        code = "TOKEN_EXPIRED"
    advice = _ADVICE.get(str(code))
    return harmless(str(error)) + (f" ({advice})" if advice else "")


def failure(error: DCMError, server: Server) -> click.ClickException:
    """
    The error that ends a command because of what the service answers.
    """
    return click.ClickException(f"{harmless(server.url)}: {describe(error, server)}")


class Progress:
    """
    Reports on standard error why there is no connection, and when the client tries again.

    @ivar connected: whether there has been a connection.
    @ivar failure: why trying again would not help; None as long as it may.
    """

    def __init__(self, client: DCMClient, server: Server) -> None:
        self._client = client
        self._url = harmless(server.url)
        self.connected = False
        self.failure: str | None = None
        client.on_state(self._changed)
        asyncio.get_running_loop().call_later(SLOW_SECONDS, self._report_slowness)

    def _report_slowness(self) -> None:
        if self._client.state is State.CONNECTING and not self.connected:
            say(f"connecting to {self._url} …")

    def _changed(self, state: State) -> None:
        if state is State.CONNECTED:
            self.connected = True
        elif state is State.WAITING:
            # a service that has been there may come back, whatever answers in its place now
            if not self.connected and is_permanent(self._client.last_error):
                self.failure = self.trouble
            else:
                delay = max(0.0, (self._client.retry_at or 0.0) - time.time())
                say(f"{self.trouble}; trying again {f'in {delay:.1f} s' if delay >= 0.05 else 'now'}")

    @property
    def trouble(self) -> str:
        """
        Why there is no connection.
        """
        if self._client.ended == REFUSED:
            return f"nothing listens at {self._url} (connection refused)"
        reason = harmless(self._client.ended or "no answer") + advice(self._client.last_error)
        return f"no connection to {self._url}: {reason}"


def is_permanent(error: BaseException | None) -> bool:
    """
    Whether another attempt would fail in the same way: an HTTP status below 500 instead of a WebSocket, a redirection
    to another server, an unknown host, a TLS error, or a proxy that refuses.
    """
    if isinstance(error, InvalidStatus | InvalidProxyStatus):
        return error.response.status_code < _SERVER_ERROR
    return isinstance(error, socket.gaierror | ssl.SSLError | InvalidURI | InvalidProxy)


@asynccontextmanager
async def connected(client: DCMClient, server: Server) -> AsyncIterator[DCMClient]:
    """
    Connect the client, and close it at the end.

    @raise click.ClickException: it cannot connect, or not within L{CONNECT_SECONDS}.
    """
    progress = Progress(client, server)
    connecting = asyncio.ensure_future(client.connect())
    gave_up = asyncio.Event()
    client.on_state(lambda _: gave_up.set() if progress.failure is not None else None)
    giving_up = asyncio.ensure_future(gave_up.wait())
    try:
        await asyncio.wait((connecting, giving_up), timeout=CONNECT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            raise click.ClickException(progress.failure or f"{progress.trouble}; gave up after {CONNECT_SECONDS:g} s")
        await connecting
    except DCMError as error:
        raise failure(error, server) from None
    finally:
        giving_up.cancel()
        if client.state is not State.CONNECTED:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            await client.close()
    try:
        yield client
    finally:
        await client.close()


async def repeat_until_accepted(request: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
    """
    Call C{request} again, after the pause that the service names, as long as the service answers C{RATE_LIMITED}, and
    up to L{ATTEMPTS} times while it answers C{NOT_AVAILABLE}.

    @return: what it returns, and whether it had to be called again.
    @raise NotAvailableError: the service was not available at any attempt.
    @raise DCMError: the service refuses the request for another reason.
    """
    attempts, repeated = 0, False
    while True:
        try:
            return await request(), repeated
        except RateLimitedError as error:
            pause = error.retry_after
        except NotAvailableError as error:
            attempts += 1
            if attempts == ATTEMPTS:
                raise
            pause = error.retry_after
        repeated = True
        await asyncio.sleep(pause or _PAUSE)
