"""
C{dcm-ws wait}: ends when an event comes.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import sys
from io import TextIOWrapper
from pathlib import Path

import click

from dcm_ws.cli.connection import make_client
from dcm_ws.cli.event_lines import columns_of, fields_of
from dcm_ws.cli.options import Server, ServerOptions, check_channels, server_options
from dcm_ws.cli.positions import LastPosition, position_file
from dcm_ws.cli.suggestions import note_unknown_events
from dcm_ws.cli.tail_since import Since, Window, read
from dcm_ws.cli.terminal import INTERRUPTED, TERMINATED, TIMED_OUT, harmless, json_line, say
from dcm_ws.cli.times import period
from dcm_ws.cli.wait_filter import Waiting, compiled
from dcm_ws.cli.watching import Watch, events_option, watch
from dcm_ws.cli.who import agent_of
from dcm_ws.client import Event, Gap, PositionError

AGENT = "dcm-ws-wait"
"""
The agent to connect as without a token, which only development allows: the channels of agents need one.
"""

LAST = "last"
"""
The value of C{--since} that goes on where the last wait of the same kind ended.
"""

_SECONDS = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)


@click.command("wait")
@click.argument("channels", nargs=-1, metavar="[CHANNEL]...")
@events_option
@click.option(
    "--where",
    metavar="EXPRESSION",
    help="Only events for which this jq expression is true; its input is the event as --json prints it.",
)
@click.option(
    "--since",
    metavar="last|TIME|POS|EPOCH.POS",
    help="Begin with older events: last goes on where the last wait for the same ended; the others are as in dcm-ws"
    " tail.",
)
@click.option(
    "--timeout", metavar="TIME", help="Give up after this time, such as 30s, 5m or 2h; a number alone is seconds."
)
@click.option(
    "--count",
    "-n",
    metavar="NUMBER",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Wait for this many events.",
)
@click.option(
    "--ack",
    "acknowledges",
    is_flag=True,
    help="Connect as the agent, get what it has not acknowledged yet, and acknowledge each event after it was printed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each event as a line of JSON.")
@server_options
def command(
    channels: tuple[str, ...],
    events: tuple[str, ...],
    where: str | None,
    since: str | None,
    timeout: str | None,
    count: int,
    acknowledges: bool,
    as_json: bool,
    server: ServerOptions,
) -> None:
    """
    Wait until an event comes on one of the CHANNELs, print it, and end.  Without a CHANNEL it waits on the agent's own
    channel if there is a token or --agent-id, and otherwise on global, which has all public events.

    It only observes: it acknowledges nothing.  To lose nothing between one wait and the next, use --since last, or
    --ack.  It keeps trying to connect until the time is over, and reports the connection on standard error.

    Exit codes: 0 the events came; 124 they did not within --timeout; 1 the service refuses the connection or all the
    CHANNELs, or the first connection fails in a way that retrying cannot help, or standard output was closed; 2
    invalid usage; 130 ended by Ctrl-C; 143 ended by SIGTERM.

    \b
    Examples:
      dcm-ws wait --agent-id worker --since last --timeout 5m
      dcm-ws wait topics/deploys --event 'task.*' --where '.data.task_id == "42"'
      dcm-ws wait --json topics/build --event task.completed --event task.failed | jq -r .data.status
    """
    check_channels(channels)
    limit = None if timeout is None else _seconds(timeout)
    start = _start(since)
    condition = None if where is None else compiled(where)
    who = server.server()
    agent = agent_of(who)
    if acknowledges and (events or where is not None or since is not None):
        raise click.UsageError("--ack gets each event of the agent in order: without --event, --where and --since")
    if acknowledges and agent is None:
        raise click.UsageError("--ack needs a token or --agent-id")
    own = ("global",) if agent is None else (f"agents/{agent}",)
    note_unknown_events(events)
    wanted = Waiting(tuple(dict.fromkeys(channels or own)), events, condition, everything=acknowledges)
    position = None
    if since == LAST:
        position = position_file(who.url, agent, sorted(wanted.subscriptions), sorted(events), where)
    status = asyncio.run(_wait(who, wanted, start, position, limit, _Output(count, as_json)))
    if status:
        raise SystemExit(status)


def _seconds(timeout: str) -> float:
    seconds = float(timeout) if _SECONDS.fullmatch(timeout) else period(timeout)
    if not seconds:
        raise click.BadParameter(f"{harmless(timeout)!r} is not a time such as 30s, 5m or 2h", param_hint="--timeout")
    return seconds


def _start(since: str | None) -> Since | None:
    if since is None or since == LAST:
        return None
    try:
        return read(since)
    except ValueError as error:
        raise click.BadParameter(f"{harmless(str(error))}, nor {LAST!r}", param_hint="--since") from None


class _Output:
    """
    Prints events on standard output.

    @param count: the number of events to print.
    """

    def __init__(self, count: int, as_json: bool) -> None:
        self._as_json = as_json
        self.left = count
        if isinstance(sys.stdout, TextIOWrapper):
            # the encoding of the terminal may lack characters of an event
            sys.stdout.reconfigure(errors="backslashreplace")

    def print(self, event: Event) -> bool:
        """
        Print an event, and flush; returns False if standard output was closed.
        """
        text = json_line(fields_of(event)) if self._as_json else " ".join(columns_of(event))
        try:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except OSError as error:
            say(f"cannot print the event: {error.strerror}")
            # Python would report the error again when it flushes at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return False
        self.left -= 1
        return True


async def _wait(
    server: Server, wanted: Waiting, since: Since | None, position: Path | None, limit: float | None, output: _Output
) -> int:
    """
    Wait, and print; returns the exit status.

    @param limit: seconds; None for none.
    @raise click.ClickException: the service does not send any events.
    """
    done = asyncio.Event()
    status = 0
    loop = asyncio.get_running_loop()

    def end(how: int) -> None:
        nonlocal status
        if not done.is_set():
            status = how
            done.set()

    def forsaken() -> None:
        loop.remove_reader(stdout)
        say("standard output was closed by its reader")
        end(1)

    stdout = sys.stdout.fileno()
    if stat.S_ISFIFO(os.fstat(stdout).st_mode):
        # a pipe that is written to becomes readable when its reader has gone
        loop.add_reader(stdout, forsaken)
    loop.add_signal_handler(signal.SIGINT, end, INTERRUPTED)
    loop.add_signal_handler(signal.SIGTERM, end, TERMINATED)
    if limit is not None:
        loop.call_later(limit, end, TIMED_OUT)

    def show(item: Event | Gap) -> bool:
        if isinstance(item, Gap):
            say(f"gap: {harmless(str(item))}")
            return True
        printed = output.print(item)
        if not printed or output.left == 0:
            end(0 if printed else 1)
        return printed

    def make(server: Server) -> Watch:
        start = since.start if since is not None else None
        last = None if position is None else LastPosition(position)
        if last is not None:
            start = last.since
        client = make_client(server, wanted.subscriptions, start, position=last, observer=not wanted.everything)
        begins = since is not None or position is not None
        return Watch(client, server, wanted, Window(since), show, done, is_since=begins, acknowledges=wanted.everything)

    needs_agent = any(channel.startswith("agents/") for channel in wanted.subscriptions)
    try:
        await watch(make, server, AGENT, done, needs_agent=needs_agent)
    except PositionError as error:
        raise click.ClickException(harmless(str(error))) from None
    return status
