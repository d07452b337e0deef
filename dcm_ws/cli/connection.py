"""
Clients of the service, for the commands.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

import click
from websockets.exceptions import InvalidProxy, InvalidProxyStatus, InvalidStatus, InvalidURI

from dcm_ws.cli.common import harmless
from dcm_ws.client import ClosedError, DCMError, State
from dcm_ws.client.aio import DCMClient
from dcm_ws.client.reasons import REFUSED

CONNECT_SECONDS = 15.0
"""
Seconds that a command waits for a service that it needs at once.
"""

SLOW_SECONDS = 2.0
"""
Seconds after which a command says that it is still connecting.
"""

_GET_A_TOKEN = "give a token in DCM_WS_TOKEN or --token-file; `dcm-ws token NAME` makes one"
_ADVICE = {
    "AUTHENTICATION_REQUIRED": _GET_A_TOKEN,
    "TOKEN_REQUIRED": _GET_A_TOKEN,
    "TOKEN_EXPIRED": "the token has expired; `dcm-ws token NAME` makes another",
    "TOKEN_INVALID": "the token is damaged, or was not signed with the secret of this service",
}
_SERVER_ERROR = 500


def make_client(url: str, token: str | None, agent_id: str | None, channels: Iterable[str]) -> DCMClient:
    """
    A client that leaves everything that is kept for its agent: it connects as an observer.

    @raise click.UsageError: it is not a WebSocket URL.
    """
    # the commands say themselves what the client would log
    logging.getLogger("dcm_ws.client").setLevel(logging.ERROR)
    try:
        return DCMClient(url, token=token, agent_id=agent_id, channels=channels, observer=True)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def say(text: str) -> None:
    """
    Write a line on standard error, which may be closed.
    """
    with suppress(OSError):
        click.echo(text, err=True)


def advised(error: DCMError, token: str | None) -> str:
    """
    What the error says, and what to do about it.

    @param token: the one that was used.
    """
    refusal = error.refusal if isinstance(error, ClosedError) else error
    code = getattr(refusal, "code", None)
    if token is None and (code == "NOT_AUTHORIZED" or getattr(error, "close_code", None) == 4001):
        code = "AUTHENTICATION_REQUIRED"
    elif code is None and getattr(error, "close_code", None) == 4001:
        # it was accepted when the connection was made
        code = "TOKEN_EXPIRED"
    advice = _ADVICE.get(str(code))
    return harmless(str(error)) + (f" ({advice})" if advice else "")


class Progress:
    """
    Says on standard error why there is no connection, and when it is tried again.

    @param url: as the user gave it.

    @ivar connected: there was a connection.
    @ivar failure: why there is no use in trying again; None as long as there is.
    """

    def __init__(self, client: DCMClient, url: str) -> None:
        self._client = client
        self._url = harmless(url)
        self.connected = False
        self.failure: str | None = None
        client.on_state(self._changed)
        asyncio.get_running_loop().call_later(SLOW_SECONDS, self._still)

    def _still(self) -> None:
        if self._client.state is State.CONNECTING and not self.connected:
            say(f"connecting to {self._url} …")

    def _changed(self, state: State) -> None:
        if state is State.CONNECTED:
            self.connected = True
        elif state is State.WAITING:
            # a service that was there may come back, whatever stands in its place meanwhile
            if not self.connected and is_hopeless(self._client.last_error):
                self.failure = self.trouble
            else:
                delay = max(0.0, (self._client.retry_at or 0.0) - time.time())
                say(f"{self.trouble}; trying again {f'in {delay:.1f} s' if delay >= 0.05 else 'now'}")

    @property
    def trouble(self) -> str:
        """
        What happened to the connection.
        """
        if self._client.ended == REFUSED:
            return f"nothing listens at {self._url} (connection refused)"
        return f"no connection to {self._url}: {harmless(self._client.ended or 'no answer')}"


def is_hopeless(error: BaseException | None) -> bool:
    """
    Whether another attempt would fail in the same way: an HTTP status below 500 instead of a WebSocket, a redirection
    to somewhere else, an unknown host, an error of TLS, or a proxy that refuses.
    """
    if isinstance(error, InvalidStatus | InvalidProxyStatus):
        return error.response.status_code < _SERVER_ERROR
    return isinstance(error, socket.gaierror | ssl.SSLError | InvalidURI | InvalidProxy)


@asynccontextmanager
async def connected(client: DCMClient, url: str, token: str | None) -> AsyncIterator[DCMClient]:
    """
    The client, connected; closed at the end.

    @param url: as the user gave it.
    @raise click.ClickException: it cannot connect, or not within L{CONNECT_SECONDS}.
    """
    progress = Progress(client, url)
    connecting = asyncio.ensure_future(client.connect())
    hopeless = asyncio.Event()
    client.on_state(lambda _: hopeless.set() if progress.failure is not None else None)
    failing = asyncio.ensure_future(hopeless.wait())
    try:
        await asyncio.wait((connecting, failing), timeout=CONNECT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            raise click.ClickException(progress.failure or f"{progress.trouble}; given up after {CONNECT_SECONDS:g} s")
        await connecting
    except DCMError as error:
        raise click.ClickException(f"{harmless(url)}: {advised(error, token)}") from None
    finally:
        failing.cancel()
        if client.state is not State.CONNECTED:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            await client.close()
    try:
        yield client
    finally:
        await client.close()
