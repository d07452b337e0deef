"""
C{dcm-ws publish}: publishes one event, or the events in a file.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from io import FileIO
from typing import TYPE_CHECKING

import click

from dcm_ws.cli.lines import BOM, LINE_MAX, numbered, open_unbuffered
from dcm_ws.cli.options import ServerOptions, SettingsFiles, json_option, server_options, settings_options
from dcm_ws.cli.publish_events import EventToPublish, InvalidEventError, from_arguments, from_line
from dcm_ws.cli.publish_ways import Send, by_database, by_websocket
from dcm_ws.cli.terminal import INTERRUPTED, harmless, json_line, progress_bar

if TYPE_CHECKING:
    from dcm_ws.client import Published


@dataclass(slots=True)
class Tally:
    """
    How many events have been published.

    @ivar line: the number of the line that is being published, or was last; 0 if there is none.
    @ivar unanswered: whether it has been sent, perhaps, and not been answered.
    """

    published: int = 0
    invalid: int = 0
    line: int = 0
    unanswered: bool = False

    def __str__(self) -> str:
        return f"{self.published} published, {self.invalid} not"

    def stopped(self) -> str:
        """
        What was published, and from which line to continue.
        """
        where = f"{self.line}, which may have been published" if self.unanswered else f"{self.line + 1}"
        return f"{self}; stopped at line {where}"


@click.command("publish")
@click.argument("channel", required=False)
@click.argument("event", required=False)
@click.argument("data", required=False)
@click.option(
    "--lines",
    metavar="FILE|-",
    help="Publish each line of this file, or with - of standard input: JSON with channel, event and data.",
)
@click.option(
    "--key",
    help="Publish nothing if the same agent has used this key within the last 10 minutes; 1 to 128 characters.",
)
@click.option(
    "--via",
    type=click.Choice(["ws", "db"]),
    default="ws",
    show_default=True,
    help="ws: by WebSocket; db: by NOTIFY in the database.",
)
@json_option
@server_options
@settings_options
def command(
    channel: str | None,
    event: str | None,
    data: str | None,
    lines: str | None,
    key: str | None,
    via: str,
    as_json: bool,
    server: ServerOptions,
    files: SettingsFiles,
) -> None:
    """
    Publish EVENT on CHANNEL.  DATA is JSON, or - to read it from standard input; the default is null.  With --lines,
    publish the events in a file instead: invalid lines are reported by number, and the others are published.  It slows
    down to the service's rate limit.  It prints the id of each event; with --via db there is none, because the service
    makes the id later.

    With --key, and a token or --agent-id, it is safe to run the command again if it is not known whether the event was
    published: it prints the id of the event that was published first.

    --config and --env-file are for --via db; --url, --token-file and --agent-id are for --via ws.

    Exit codes: 0 all published; 1 something was not, or the service or the database cannot be reached (if nothing
    listens, it retries for 15 seconds); 2 invalid usage, nothing was done; 130 ended by Ctrl-C.

    \b
    Examples:
      dcm-ws publish topics/deploys task.completed '{"version": 7}'
      date +%s | dcm-ws publish topics/clock agent.heartbeat -
      dcm-ws publish --via db agents/backend task.created '{"id": "t1"}'
      dcm-ws publish --lines events.jsonl
      dcm-ws publish --agent-id ci --key deploy-7 topics/deploys task.completed '{"version": 7}'
    """
    if (lines is None) == (channel is None):
        raise click.UsageError("give either CHANNEL and EVENT, or --lines FILE")
    if lines is not None and key is not None:
        raise click.UsageError("--key is for one event: with --lines, each line may have a `key`")
    tally, began, done = Tally(), time.monotonic(), False
    try:
        events = _one(channel, event, data, key) if lines is None else _open(lines)
        way = by_database(_database(files)) if via == "db" else by_websocket(server.server())
        asyncio.run(_publish(way, events, as_json, tally))
        done = True
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    finally:
        if tally.line and not done:
            click.echo(tally.stopped(), err=True)
    if lines is not None and not as_json:
        click.echo(f"{tally}, in {time.monotonic() - began:.1f} s", err=True)
    if tally.invalid:
        raise SystemExit(1)


def _database(files: SettingsFiles) -> str:
    # it takes longer to import than an event to publish
    from dcm_ws.cli.settings import find_database

    return find_database(files)


def _one(channel: str | None, event: str | None, data: str | None, key: str | None) -> EventToPublish:
    """
    The event that the arguments give.

    @raise click.UsageError: they are invalid.
    """
    if channel is None or event is None:
        raise click.UsageError("EVENT is missing")
    try:
        return from_arguments(channel, event, _standard_input() if data == "-" else data or "", key)
    except InvalidEventError as error:
        raise click.UsageError(str(error)) from None


def _standard_input() -> bytes:
    data = b""
    try:
        with _open("-") as file:
            while len(data) <= LINE_MAX and (piece := file.read(LINE_MAX)):
                data += piece
    except OSError as error:
        raise click.UsageError(f"cannot read DATA: {error.strerror}") from None
    if len(data) > LINE_MAX:
        raise click.UsageError(f"DATA is longer than {LINE_MAX} bytes")
    return data.removeprefix(BOM)


def _open(name: str) -> FileIO:
    try:
        return open_unbuffered(name)
    except OSError as error:
        raise click.UsageError(f"cannot read {name!r}: {error.strerror}") from None


async def _publish(
    way: AbstractAsyncContextManager[Send], events: EventToPublish | FileIO, as_json: bool, tally: Tally
) -> None:
    async with way as send:
        if isinstance(events, FileIO):
            await _publish_lines(send, events, as_json, tally)
            return
        try:
            _print_id(await send(events), as_json)
        except InvalidEventError as error:
            click.echo(f"not published: {error}", err=True)
            tally.invalid += 1


async def _publish_lines(send: Send, file: FileIO, as_json: bool, tally: Tally) -> None:
    size = os.fstat(file.fileno()).st_size or None
    with progress_bar() as progress:
        task = progress.add_task("publishing", total=size)
        async for line in numbered(file):
            tally.line, tally.unanswered = line.number, True
            try:
                if line.text.strip():
                    _print_id(await send(from_line(line.text)), as_json)
                    tally.published += 1
            except InvalidEventError as error:
                tally.invalid += 1
                text = f"line {line.number}: {error}"
                progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
            tally.unanswered = False
            progress.advance(task, line.size)


def _print_id(published: Published | None, as_json: bool) -> None:
    duplicate = published is not None and published.duplicate
    if as_json:
        line: dict[str, object] = {"published": True, "message_id": published}
        if published is not None and published.pos is not None:
            line["pos"] = published.pos
        click.echo(json_line(line | {"duplicate": True} if duplicate else line))
        return
    click.echo("notified" if published is None else harmless(published))
    if duplicate:
        click.echo("published before, with the same key", err=True)
