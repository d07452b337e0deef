"""
C{dcm-ws tail}.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from io import TextIOWrapper

import click
from rich.console import Console
from rich.text import Text

from dcm_ws.cli.common import check_channel, compact, harmless, json_line, server_options, token_of
from dcm_ws.cli.connection import make_client
from dcm_ws.client import ClosedError, DCMError, Event, RefusedError, State
from dcm_ws.errors import ProtocolError

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
        The channels that it comes on.  On global an event does not say that it was published to the agent's own.
        """
        own = () if self.agent is None else (f"agents/{self.agent}",)
        return self.channels or ("global", *own)

    def __call__(self, event: Event) -> bool:
        data = event.data if isinstance(event.data, dict) else {}
        return (
            (not self.channels or event.channel in self.channels)
            and (not self.events or any(fnmatchcase(event.event, pattern) for pattern in self.events))
            and (
                self.agent is None
                or event.channel == f"agents/{self.agent}"
                or any(data.get(key) == self.agent for key in _AGENT_KEYS)
            )
            and (self.text is None or self.text.lower() in compact(event.data).lower())
        )


@click.command("tail")
@click.argument("channels", nargs=-1, metavar="[CHANNEL]...")
@click.option("--event", "events", multiple=True, metavar="PATTERN", help="Such events alone: 'task.*'; repeatable.")
@click.option("--agent", help="Events of, from or for this agent, or on its channel, alone.")
@click.option("--grep", "text", metavar="TEXT", help="Events with this text in their data alone, whatever its case.")
@click.option("--count", "-n", type=click.IntRange(1), help="End after so many.")
@click.option("--json", "as_json", is_flag=True, help="Print each as a line of JSON.")
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
    Show events as they come, on the CHANNELs given, else on global, where all are.  It connects again for ever, and
    says so on standard error.  What a terminal would obey in an event's text is written out.

    Exit codes: 0 ended by Ctrl-C, SIGTERM, a closed pipe or --count; 1 the service refuses the connection, or all the
    CHANNELs; 2 the command line is no good.

    \b
    Examples:
      dcm-ws tail
      dcm-ws tail agents/backend topics/deploys --event 'task.*' --event 'subtask.failed'
      dcm-ws tail --json --agent backend | jq .data
    """
    for channel in channels:
        try:
            check_channel(channel)
        except ProtocolError as error:
            raise click.UsageError(harmless(error.reason)) from None
    wanted = Wanted(channels, events, agent, text)
    refused = asyncio.run(_tail(url, token_of(token_file), agent_id, wanted, count, as_json))
    if refused is not None:
        raise click.ClickException(f"{url}: {harmless(str(refused))}")


async def _tail(
    url: str, token: str | None, agent_id: str | None, wanted: Wanted, count: int | None, as_json: bool
) -> DCMError | None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not done.done():
            done.set_result(None)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    client = make_client(url, token, agent_id, wanted.subscriptions)
    # before it connects, so that nothing comes earlier
    client.on("*", _printer(wanted, count, as_json, end))
    refusals: dict[str, RefusedError] = {}
    lost = False

    def complain(error: DCMError) -> None:
        _say(harmless(str(error)))
        if isinstance(error, RefusedError) and error.channel is not None:
            refusals[error.channel] = error
            if refusals.keys() >= set(wanted.subscriptions):
                end()

    def tell(state: State) -> None:
        nonlocal lost
        if state is State.WAITING:
            lost = True
            _, reason = client.last_close or (None, "")
            _say(f"no connection ({harmless(reason) or 'it ended'}); trying again")
        elif state is State.CONNECTED and lost:
            lost = False
            _say("connected again")
        elif state is State.CLOSED:
            end()

    client.on_state(tell)
    client.on_error(complain)
    connecting = asyncio.ensure_future(client.connect())
    await done
    connecting.cancel()
    try:
        await asyncio.gather(connecting, return_exceptions=True)
        if client.state is State.CLOSED and not connecting.cancelled():
            await client.connected()
    except ClosedError as refused:
        return refused
    finally:
        await client.close()
    return next(iter(refusals.values())) if refusals.keys() >= set(wanted.subscriptions) else None


def _say(text: str) -> None:
    # nobody may be reading
    with suppress(OSError):
        click.echo(text, err=True)


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
                sys.stdout.write(json_line(_plain(event)) + "\n")
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


def _plain(event: Event) -> dict[str, object]:
    return {
        "id": event.id,
        "channel": event.channel,
        "event": event.event,
        "data": event.data,
        "timestamp": event.timestamp,
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
