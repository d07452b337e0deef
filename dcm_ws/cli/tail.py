"""
C{dcm-ws tail}.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from io import TextIOWrapper

import click
from rich.console import Console
from rich.text import Text

from dcm_ws.cli.common import check_channel, compact, harmless, json_line, server_options, token_of
from dcm_ws.cli.connection import Progress, advised, make_client, say
from dcm_ws.client import ClosedError, DCMError, Event, RefusedError, State
from dcm_ws.client.aio import DCMClient
from dcm_ws.protocol.errors import ProtocolError

AGENT = "dcm-ws-tail"
"""
Who it connects as without a token, which only development allows: an agent's channel takes being somebody.
"""

_COLOURS = {
    "task": "green",
    "subtask": "cyan",
    "message": "magenta",
    "agent": "yellow",
    "session": "blue",
    "metric": "dim",
    "system": "bold",
}
_BAD = ("failed", "error", "blocked")
_AGENT_KEYS = ("agent_id", "from_agent_id", "to_agent_id")


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    What is shown.

    @ivar channels: none for all that come.
    """

    channels: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    agent: str | None = None
    text: str | None = None

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """
        The channels that it comes on.  What is published to an agent need not be mirrored to global.
        """
        own = () if self.agent is None else (f"agents/{self.agent}",)
        return self.channels or ("global", *own)

    @property
    def private(self) -> bool:
        """
        Whether one of the channels takes being authenticated.
        """
        return any(channel.startswith("agents/") for channel in self.subscriptions)

    def __call__(self, event: Event) -> bool:
        data = event.data if isinstance(event.data, dict) else {}
        return (
            (not self.channels or event.channel in self.channels)
            # it comes on that channel, too, and before
            and event.origin not in self.subscriptions
            and (not self.events or any(fnmatchcase(event.event, pattern) for pattern in self.events))
            and (
                self.agent is None
                or event.sender == self.agent
                or f"agents/{self.agent}" in (event.channel, event.origin)
                or any(data.get(key) == self.agent for key in _AGENT_KEYS)
            )
            and (self.text is None or self.text.lower() in compact(event.data).lower())
        )


@click.command("tail")
@click.argument("channels", nargs=-1, metavar="[CHANNEL]...")
@click.option(
    "--event",
    "events",
    multiple=True,
    metavar="PATTERN",
    help="Only events whose name matches, such as 'task.*'; repeatable.",
)
@click.option("--agent", help="Only events of, from or for this agent, or on its channel.")
@click.option("--grep", "text", metavar="TEXT", help="Only events with this text in their data; case is ignored.")
@click.option("--count", "-n", type=click.IntRange(1), help="End after this many events.")
@click.option("--json", "as_json", is_flag=True, help="Print each event as a line of JSON.")
@server_options
def command(
    channels: tuple[str, ...],
    events: tuple[str, ...],
    agent: str | None,
    text: str | None,
    count: int | None,
    as_json: bool,
    url: str,
    token_file: str | None,
    agent_id: str | None,
) -> None:
    """
    Show events as they come, on the CHANNELs given, or else on global, which has all public events.  It only observes:
    it acknowledges nothing, and what is kept for an agent stays kept, also if it connects as that agent.

    It reconnects indefinitely, and reports the connection on standard error.  Escape sequences, control characters and
    text-direction marks in events are printed escaped, so an event cannot control your terminal.

    Exit codes: 0 ended by Ctrl-C, SIGTERM, a closed pipe or --count; 1 the service refuses the connection or all the
    CHANNELs, or the first connection fails in a way that retrying cannot help: an HTTP status below 500, an unknown
    host, a TLS error; 2 invalid usage.

    \b
    Examples:
      dcm-ws tail
      dcm-ws tail agents/backend topics/deploys --event 'task.*' --event 'subtask.failed'
      dcm-ws tail --json --agent backend | jq .data
    """
    for channel in (*channels, *((f"agents/{agent}",) if agent else ())):
        try:
            check_channel(channel)
        except ProtocolError as error:
            raise click.UsageError(harmless(error.reason)) from None
    wanted = Wanted(channels, events, agent or None, text)
    failure = asyncio.run(_tail(url, token_of(token_file), agent_id, wanted, count, as_json))
    if failure is not None:
        raise click.ClickException(failure)


async def _tail(
    url: str, token: str | None, agent_id: str | None, wanted: Wanted, count: int | None, as_json: bool
) -> str | None:
    """
    Show events until the end.

    @return: why the service does not give any; None where it did.
    """
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, done.set)
    show = _printer(wanted, count, as_json, done.set)
    claimed = agent_id if token or agent_id else AGENT
    tail = _Tail(url, make_client(url, token, claimed, wanted.subscriptions), token, wanted, done)
    failure = await tail.run(show)
    if failure is not None and tail.needs_token and claimed == AGENT and not wanted.private:
        # production may let clients listen that have not authenticated
        done.clear()
        tail = _Tail(url, make_client(url, None, None, wanted.subscriptions), None, wanted, done)
        failure = await tail.run(show)
    return failure


class _Tail:
    """
    One client, and what is reported about it on standard error.

    @ivar needs_token: the service does not let anybody in without a token.
    """

    def __init__(self, url: str, client: DCMClient, token: str | None, wanted: Wanted, done: asyncio.Event) -> None:
        self._url = url
        self._client = client
        self._token = token
        self._wanted = set(wanted.subscriptions)
        self._done = done
        self._refusals: dict[str, str] = {}
        self._progress = Progress(client, url)
        self._greeted = False
        self._lost = False
        self.needs_token = False

    async def run(self, show: Callable[[Event], object]) -> str | None:
        """
        Call C{show} with each event until the end.

        @return: why there were none.
        """
        # before it connects, so that nothing comes earlier
        self._client.on("*", show)
        self._client.on_state(self._changed)
        self._client.on_error(self._complain)
        connecting = asyncio.ensure_future(self._connect())
        await self._done.wait()
        connecting.cancel()
        try:
            await asyncio.gather(connecting, return_exceptions=True)
            if self._client.state is State.CLOSED and not connecting.cancelled():
                await self._client.connected()
        except ClosedError as error:
            self.needs_token = getattr(error.refusal, "code", None) == "TOKEN_REQUIRED"
            return f"{harmless(self._url)}: {advised(error, self._token)}"
        finally:
            await self._client.close()
        if self._progress.failure is not None:
            return self._progress.failure
        return "; ".join(self._refusals.values()) if self._refusals.keys() >= self._wanted else None

    async def _connect(self) -> None:
        await self._client.connect()
        if self._client.agent_id is None:
            # nothing else says whether a client that has not authenticated gets anything
            for channel in self._wanted:
                try:
                    await self._client.subscribe(channel)
                except RefusedError as error:
                    error.channel = channel
                    self._complain(error)
                except DCMError:
                    # the connection has ended; the client subscribes again by itself
                    return
        self._greet()

    def _greet(self) -> None:
        channels = ", ".join(sorted(self._wanted - self._refusals.keys()))
        if channels:
            self._greeted = True
            name = harmless(self._client.agent_id or "an anonymous client")
            say(f"connected to {harmless(self._url)} as {name}, observing {harmless(channels)}")

    def _complain(self, error: DCMError) -> None:
        text = advised(error, self._token)
        if isinstance(error, RefusedError) and error.channel is not None:
            text = f"{harmless(error.channel)}: {text}"
            self._refusals[error.channel] = text
            if self._refusals.keys() >= self._wanted:
                # it is the end, and its reason
                self._done.set()
                return
        say(text)

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


def _printer(wanted: Wanted, count: int | None, as_json: bool, end: Callable[[], None]) -> Callable[[Event], None]:
    console = Console(highlight=False)
    if isinstance(sys.stdout, TextIOWrapper):
        # a terminal may lack what is in an event
        sys.stdout.reconfigure(errors="backslashreplace")
    shown = 0

    def show(event: Event) -> None:
        nonlocal shown
        if not wanted(event) or shown == count:
            return
        shown += 1
        try:
            if as_json:
                sys.stdout.write(json_line(fields_of(event)) + "\n")
            else:
                # not printed by rich itself, which ends the process where a pipe is closed
                with console.capture() as captured:
                    console.print(line_of(event), soft_wrap=True)
                sys.stdout.write(captured.get())
            sys.stdout.flush()
        except BrokenPipeError:
            # Python would complain when it flushes at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            end()
        if shown == count:
            end()

    return show


def fields_of(event: Event) -> dict[str, object]:
    """
    An event as C{--json} prints it.
    """
    more = {"from": event.sender, "origin": event.origin}
    return {
        "id": event.id,
        "channel": event.channel,
        "event": event.event,
        "data": event.data,
        "timestamp": event.timestamp,
        **{name: value for name, value in more.items() if value is not None},
    }


def line_of(event: Event) -> Text:
    """
    An event as a line.
    """
    when = datetime.fromtimestamp(event.timestamp / 1000).strftime("%H:%M:%S.%f")[:-3]
    family, _, rest = event.event.partition(".")
    colour = "bold red" if rest in _BAD else _COLOURS.get(family, "white")
    return Text.assemble(
        (when, "dim"),
        " ",
        (f"{harmless(event.event):<19}", colour),
        " ",
        (f"{harmless(event.channel):<20}", "blue"),
        " ",
        compact(event.data),
    )
