"""
C{dcm-ws tail}: shows events as they arrive.
"""

from __future__ import annotations

import asyncio
import signal

import click

from dcm_ws.cli.connection import make_client
from dcm_ws.cli.options import Server, ServerOptions, check_channels, server_options
from dcm_ws.cli.suggestions import note_unknown_events
from dcm_ws.cli.tail_filter import Filter
from dcm_ws.cli.tail_output import Printer, Style
from dcm_ws.cli.tail_since import Since, Window, read
from dcm_ws.cli.terminal import harmless
from dcm_ws.cli.watching import Watch, events_option, watch

AGENT = "dcm-ws-tail"
"""
The agent to connect as without a token, which only development allows: the channels of agents need one.
"""


@click.command("tail")
@click.argument("channels", nargs=-1, metavar="[CHANNEL]...")
@events_option
@click.option(
    "--exclude",
    "excluded",
    multiple=True,
    metavar="PATTERN",
    help="No events whose name matches, such as 'metric.*'; repeatable.",
)
@click.option("--agent", metavar="AGENT", help="Only events of, from or for this agent, or on its channel.")
@click.option(
    "--grep", "text", metavar="TEXT", help="Only events with this text in their data, whatever its case; it is marked."
)
@click.option(
    "--since",
    metavar="TIME|POS|EPOCH.POS",
    help="Begin with the events of the last TIME, such as 30s, 10m or 2h, or with those after a position in the log.",
)
@click.option("--count", "-n", metavar="NUMBER", type=click.IntRange(1), help="End after this many events.")
@click.option("--date", "dated", is_flag=True, help="Print the date, too.")
@click.option("--cut", is_flag=True, help="Cut lines at the width of the terminal, instead of wrapping them.")
@click.option("--json", "as_json", is_flag=True, help="Print each event as a line of JSON.")
@server_options
def command(
    channels: tuple[str, ...],
    events: tuple[str, ...],
    excluded: tuple[str, ...],
    agent: str | None,
    text: str | None,
    since: str | None,
    count: int | None,
    dated: bool,
    cut: bool,
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
      dcm-ws tail --exclude 'agent.*' --grep timeout --cut
      dcm-ws tail --json --agent backend | jq .data
      dcm-ws tail --since 10m topics/deploys
    """
    check_channels((*channels, *((f"agents/{agent}",) if agent else ())))
    try:
        begin = None if since is None else read(since)
    except ValueError as error:
        raise click.BadParameter(harmless(str(error)), param_hint="--since") from None
    note_unknown_events((*events, *excluded))
    wanted = Filter(channels, events, excluded, agent or None, text)
    asyncio.run(_tail(server.server(), wanted, begin, count, Style(as_json, dated, cut, text)))


async def _tail(server: Server, wanted: Filter, since: Since | None, count: int | None, style: Style) -> None:
    """
    Show events until the end.

    @raise click.ClickException: the service does not send any.
    """
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, done.set)
    printer = Printer(count, style, done.set)

    def make(server: Server) -> Watch:
        client = make_client(server, wanted.subscriptions, since.start if since is not None else None)
        return Watch(client, server, wanted, Window(since), printer.print, done, is_since=since is not None)

    await watch(make, server, AGENT, done, needs_agent=wanted.needs_agent)
