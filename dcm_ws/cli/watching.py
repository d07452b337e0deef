"""
What C{dcm-ws tail} and C{dcm-ws wait} do alike: a client that receives events, and reports on standard error what
happens to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

import click

from dcm_ws.cli.connection import Progress, describe, failure
from dcm_ws.cli.options import Server
from dcm_ws.cli.tail_since import Window
from dcm_ws.cli.terminal import harmless, say
from dcm_ws.client import ClosedError, DCMError, Event, Gap, RefusedError, State
from dcm_ws.client.aio import DCMClient
from dcm_ws.client.streams import Events

events_option = click.option(
    "--event",
    "events",
    multiple=True,
    metavar="PATTERN",
    help="Only events whose name matches, such as 'task.*'; repeatable.",
)


class Wanted(Protocol):
    """
    Decides which events are shown.
    """

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """
        The channels to subscribe to.
        """

    def matches(self, event: Event) -> bool:
        """
        Whether the event is shown.
        """


class Watch:
    """
    Runs one client.

    @param wanted: which events are shown; the client is subscribed to its channels.
    @param window: which of the events that are replayed are too old.
    @param show: shows an event or a gap; returns False if that failed.
    @param done: set when the command is to end.  An event that comes after that is neither acknowledged, nor does the
        client's position pass it.
    @param is_since: the command begins with old events.
    @param acknowledges: the client acknowledges what is shown.

    @ivar needs_token: whether the service accepts no client without a token.
    """

    def __init__(
        self,
        client: DCMClient,
        server: Server,
        wanted: Wanted,
        window: Window,
        show: Callable[[Event | Gap], bool],
        done: asyncio.Event,
        *,
        is_since: bool,
        acknowledges: bool = False,
    ) -> None:
        self._server = server
        self._wanted = wanted
        self._window = window
        self._show = show
        self._done = done
        self._is_since = is_since
        self._acknowledges = acknowledges
        self._client = client
        self._channels = set(wanted.subscriptions)
        self._refusals: dict[str, str] = {}
        self._progress = Progress(client, server)
        self._greeted = False
        self._lost = False
        self.needs_token = False

    async def run(self) -> None:
        """
        Show events until the end.

        @raise click.ClickException: the service refuses the connection or all the channels, or cannot be reached.
        """
        # before it connects, so that no event is missed
        showing = asyncio.create_task(self._show_all(self._client.events(gaps=True)))
        self._client.on_state(self._changed)
        self._client.on_error(self._report)
        connecting = asyncio.ensure_future(self._connect())
        await self._done.wait()
        # closed by the service: cancelling may close the client, too
        closed = self._client.state is State.CLOSED
        connecting.cancel()
        try:
            await asyncio.gather(connecting, return_exceptions=True)
            if closed:
                await self._client.connected()
            elif self._acknowledges and self._client.state is State.CONNECTED:
                # the answer comes after the service has read the acknowledgements
                with suppress(DCMError):
                    await self._client.ping()
        except ClosedError as error:
            self.needs_token = getattr(error.refusal, "code", None) == "TOKEN_REQUIRED"
            raise failure(error, self._server) from None
        finally:
            await self._client.close()
            showing.cancel()
        if self._progress.failure is not None:
            raise click.ClickException(self._progress.failure)
        if self._refuses_all:
            raise click.ClickException("; ".join(self._refusals.values()))

    async def _show_all(self, stream: Events[Event | Gap]) -> None:
        async for came in stream:
            if self._done.is_set():
                # until the client is closed, what has been taken is not handled
                await asyncio.Event().wait()
            for item in self._window.choose(came, self._client.greeting):
                wanted = isinstance(item, Gap) or self._wanted.matches(item)
                if wanted and not self._show(item):
                    await asyncio.Event().wait()

    async def _connect(self) -> None:
        await self._client.connect()
        if self._client.agent_id is None:
            # for a client that has not authenticated, only the answers to subscribe say if it may listen
            for channel in self._channels:
                try:
                    await self._client.subscribe(channel)
                except RefusedError as error:
                    error.channel = channel
                    self._report(error)
                except DCMError:
                    # the connection has ended; the client subscribes again by itself
                    return
        self._greet()

    def _greet(self) -> None:
        channels = ", ".join(sorted(self._channels - self._refusals.keys()))
        if channels:
            self._greeted = True
            name = harmless(self._client.agent_id or "an anonymous client")
            doing = "acknowledging" if self._acknowledges else "observing"
            say(f"connected to {harmless(self._server.url)} as {name}, {doing} {harmless(channels)}")
        if self._is_since and "epoch" not in self._client.greeting:
            say("this service keeps no log, so --since has no effect; only new events are shown")

    def _report(self, error: DCMError) -> None:
        text = describe(error, self._server)
        if isinstance(error, RefusedError) and error.channel is not None:
            text = f"{harmless(error.channel)}: {text}"
            self._refusals[error.channel] = text
            if self._refuses_all:
                # the command ends with this as its error
                self._done.set()
                return
        say(text)

    @property
    def _refuses_all(self) -> bool:
        return self._refusals.keys() >= self._channels

    def _changed(self, state: State) -> None:
        if state is State.WAITING:
            self._lost = self._greeted
            if self._progress.failure is not None:
                self._done.set()
        elif state is State.CONNECTED and self._lost:
            self._lost = False
            say("connected again")
        elif state is State.CLOSED:
            self._done.set()


async def watch(
    make: Callable[[Server], Watch], server: Server, unnamed: str, done: asyncio.Event, *, needs_agent: bool
) -> None:
    """
    Show events until the end.  Without a name, try one first: the channels of agents need one.

    @param make: makes what shows them, given who connects.
    @param unnamed: the agent to connect as without a token, which only development allows.
    @param needs_agent: one of the channels is only for clients that have authenticated.
    @raise click.ClickException: the service does not send any.
    """
    is_unnamed = server.token is None and not server.agent_id
    first = make(replace(server, agent_id=unnamed) if is_unnamed else server)
    try:
        await first.run()
    except click.ClickException:
        if not first.needs_token or not is_unnamed or needs_agent:
            raise
        # in production the service may allow anonymous clients to listen
        done.clear()
        await make(server).run()
