"""
C{dcm-ws tail}: shows events as they arrive.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace

import click

from dcm_ws.cli.connection import Progress, describe, failure, make_client
from dcm_ws.cli.options import Server, ServerOptions, check_channel, server_options
from dcm_ws.cli.tail_filter import Filter
from dcm_ws.cli.tail_output import Printer
from dcm_ws.cli.tail_since import Since, Window, read
from dcm_ws.cli.terminal import harmless, say
from dcm_ws.client import ClosedError, DCMError, Event, Gap, RefusedError, State
from dcm_ws.client.streams import Events
from dcm_ws.protocol.errors import ProtocolError

AGENT = "dcm-ws-tail"
"""
The agent to connect as without a token, which only development allows: the channels of agents need one.
"""


@click.command("tail")
@click.argument("channels", nargs=-1, metavar="[CHANNEL]...")
@click.option(
    "--event",
    "events",
    multiple=True,
    metavar="PATTERN",
    help="Only events whose name matches, such as 'task.*'; repeatable.",
)
@click.option("--agent", metavar="AGENT", help="Only events of, from or for this agent, or on its channel.")
@click.option("--grep", "text", metavar="TEXT", help="Only events with this text in their data, whatever its case.")
@click.option(
    "--since",
    metavar="TIME|POS|EPOCH.POS",
    help="Begin with the events of the last TIME, such as 30s, 10m or 2h, or with those after a position in the log.",
)
@click.option("--count", "-n", metavar="NUMBER", type=click.IntRange(1), help="End after this many events.")
@click.option("--json", "as_json", is_flag=True, help="Print each event as a line of JSON.")
@server_options
def command(
    channels: tuple[str, ...],
    events: tuple[str, ...],
    agent: str | None,
    text: str | None,
    since: str | None,
    count: int | None,
    as_json: bool,
    server: ServerOptions,
) -> None:
    """
    Show events as they arrive on the CHANNELs, or without any on global, which has all public events.  It only
    observes: it acknowledges nothing, and what the service keeps for an agent stays kept, also if it connects as that
    agent.

    It reconnects indefinitely, and reports the connection on standard error.  After a reconnect it goes on where it
    was; if the service cannot send what was published meanwhile, a line says so.  Escape sequences, control characters
    and text-direction marks in events are printed escaped, so an event cannot control your terminal.

    Exit codes: 0 ended by Ctrl-C, SIGTERM, a closed pipe or --count; 1 the service refuses the connection or all the
    CHANNELs, or the first connection fails in a way that retrying cannot help: an HTTP status below 500, an unknown
    host, a TLS error; 2 invalid usage.

    \b
    Examples:
      dcm-ws tail
      dcm-ws tail agents/backend topics/deploys --event 'task.*' --event 'subtask.failed'
      dcm-ws tail --json --agent backend | jq .data
      dcm-ws tail --since 10m topics/deploys
    """
    for channel in (*channels, *((f"agents/{agent}",) if agent else ())):
        try:
            check_channel(channel)
        except ProtocolError as error:
            raise click.UsageError(harmless(error.reason)) from None
    try:
        begin = None if since is None else read(since)
    except ValueError as error:
        raise click.BadParameter(harmless(str(error)), param_hint="--since") from None
    asyncio.run(_tail(server.server(), Filter(channels, events, agent or None, text), begin, count, as_json))


async def _tail(server: Server, wanted: Filter, since: Since | None, count: int | None, as_json: bool) -> None:
    """
    Show events until the end.

    @raise click.ClickException: the service does not send any.
    """
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, done.set)
    printer = Printer(count, as_json, done.set)
    unnamed = server.token is None and not server.agent_id
    tail = _Tail(replace(server, agent_id=AGENT) if unnamed else server, wanted, since, printer, done)
    try:
        await tail.run()
    except click.ClickException:
        if not tail.needs_token or not unnamed or wanted.needs_agent:
            raise
        # in production the service may allow anonymous clients to listen
        done.clear()
        await _Tail(server, wanted, since, printer, done).run()


class _Tail:
    """
    Runs one client, and reports on standard error what happens to it.

    @param done: set when the command is to end.

    @ivar needs_token: whether the service accepts no client without a token.
    """

    def __init__(
        self, server: Server, wanted: Filter, since: Since | None, printer: Printer, done: asyncio.Event
    ) -> None:
        self._server = server
        self._wanted = wanted
        self._printer = printer
        self._done = done
        self._since = since
        self._window = Window(since)
        self._client = make_client(server, wanted.subscriptions, since.start if since is not None else None)
        self._channels = set(wanted.subscriptions)
        self._refusals: dict[str, str] = {}
        self._progress = Progress(self._client, server)
        self._greeted = False
        self._lost = False
        self.needs_token = False

    async def run(self) -> None:
        """
        Show events until the end.

        @raise click.ClickException: the service refuses the connection or all the channels, or cannot be reached.
        """
        # before it connects, so that no event is missed
        showing = asyncio.create_task(self._show(self._client.events(gaps=True)))
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
        except ClosedError as error:
            self.needs_token = getattr(error.refusal, "code", None) == "TOKEN_REQUIRED"
            raise failure(error, self._server) from None
        finally:
            showing.cancel()
            await self._client.close()
        if self._progress.failure is not None:
            raise click.ClickException(self._progress.failure)
        if self._refuses_all:
            raise click.ClickException("; ".join(self._refusals.values()))

    async def _show(self, stream: Events[Event | Gap]) -> None:
        async for came in stream:
            for item in self._window.choose(came, self._client.greeting):
                if isinstance(item, Gap) or self._wanted.matches(item):
                    self._printer.print(item)

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
            say(f"connected to {harmless(self._server.url)} as {name}, observing {harmless(channels)}")
        if self._since is not None and "epoch" not in self._client.greeting:
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
