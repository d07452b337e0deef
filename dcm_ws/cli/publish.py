"""
C{dcm-ws publish}.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from io import FileIO
from typing import Any

import click
import msgspec

from dcm_ws.cli.common import check_channel, config_option, database_of, harmless, json_line, server_options, token_of
from dcm_ws.cli.lines import BOM, LINE_MAX, numbered, open_unbuffered
from dcm_ws.postgres.triggers import PAYLOAD_MAX
from dcm_ws.protocol.errors import ProtocolError
from dcm_ws.protocol.events import EVENT_RULE, is_event


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """
    An event to publish.
    """

    channel: str
    event: str
    data: Any = None


class BadLineError(ValueError):
    """
    It cannot be published; the text says why.
    """


_decoder = msgspec.json.Decoder(Line)

Send = Callable[[Line], Awaitable[str]]
"""
Publishes one event and returns its id, which is empty if it went by NOTIFY.
"""


@dataclass(slots=True)
class Tally:
    """
    What has become of the events.

    @ivar line: of a file, the line that was taken up last; 0 for none yet.
    @ivar on_its_way: it has not been answered for.
    """

    sent: int = 0
    bad: int = 0
    line: int = 0
    on_its_way: bool = False

    def stopped(self) -> str:
        """
        Where to go on from.
        """
        where = f"{self.line}, which may have been published" if self.on_its_way else f"{self.line + 1}"
        return f"{self.sent} published, {self.bad} not; stopped at line {where}"


@click.command("publish")
@click.argument("channel", required=False)
@click.argument("event", required=False)
@click.argument("data", required=False)
@click.option("--lines", metavar="FILE|-", help="Publish a JSON object of each line: channel, event and data.")
@click.option(
    "--via", type=click.Choice(["ws", "db"]), default="ws", show_default=True, help="By WebSocket or by NOTIFY."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
@config_option
def command(
    channel: str | None,
    event: str | None,
    data: str | None,
    lines: str | None,
    via: str,
    as_json: bool,
    url: str,
    token_file: str | None,
    agent_id: str | None,
    config: str | None,
) -> None:
    """
    Publish EVENT on CHANNEL, with DATA: JSON, or - to read it from standard input; null without it.  With --lines,
    publish the events in a file: invalid lines are reported by number, and the others are published.  It slows down to
    the service's rate limit.  The id of each event is printed; with --via db there is none, since the service makes it.

    Exit codes: 0 all published; 1 something was not, or the service or the database cannot be reached (if nothing
    listens, it retries for 15 seconds); 2 invalid usage, nothing was done; 130 ended by Ctrl-C.

    \b
    Examples:
      dcm-ws publish topics/deploys task.completed '{"version": 7}'
      date +%s | dcm-ws publish topics/clock agent.heartbeat -
      dcm-ws publish --via db agents/backend task.created '{"id": "t1"}'
      dcm-ws publish --lines events.jsonl
    """
    if (lines is None) == (channel is None):
        raise click.UsageError("give either CHANNEL and EVENT, or --lines FILE")
    tally, began, done = Tally(), time.monotonic(), False
    try:
        what = _one(channel, event, data) if lines is None else _opened(lines)
        sender = (
            _by_database(database_of(config)) if via == "db" else _by_websocket(url, token_of(token_file), agent_id)
        )
        asyncio.run(_publish(sender, what, as_json, tally))
        done = True
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        if tally.line and not done:
            click.echo(tally.stopped(), err=True)
    if lines is not None and not as_json:
        click.echo(f"{tally.sent} published, {tally.bad} not, in {time.monotonic() - began:.1f} s", err=True)
    if tally.bad:
        raise SystemExit(1)


def _one(channel: str | None, event: str | None, data: str | None) -> Line:
    if channel is None or event is None:
        raise click.UsageError("EVENT is missing")
    try:
        raw = _standard_input() if data == "-" else (data or "").encode()
        line = Line(channel, event, msgspec.json.decode(raw) if raw.strip() else None)
        judge(line)
    except BadLineError as error:
        raise click.UsageError(str(error)) from None
    except (ValueError, RecursionError) as error:
        text = harmless(str(error))
        raise click.UsageError(f"DATA is not JSON ({text}); a string needs quotes of its own: '\"text\"'") from None
    return line


def _standard_input() -> bytes:
    data = b""
    try:
        with _opened("-") as file:
            while len(data) <= LINE_MAX and (piece := file.read(LINE_MAX)):
                data += piece
    except OSError as error:
        raise click.UsageError(f"cannot read DATA: {error.strerror}") from None
    if len(data) > LINE_MAX:
        raise click.UsageError(f"DATA is longer than {LINE_MAX} bytes")
    return data.removeprefix(BOM)


def judge(line: Line) -> None:
    """
    @raise BadLineError: the channel or the event does not fit its grammar.
    """
    try:
        check_channel(line.channel)
    except ProtocolError as error:
        raise BadLineError(harmless(error.reason)) from None
    if not is_event(line.event):
        raise BadLineError(f"{harmless(line.event)!r} is not an event name: use {EVENT_RULE}")


def _opened(lines: str) -> FileIO:
    try:
        return open_unbuffered(lines)
    except OSError as error:
        raise click.UsageError(f"cannot read {lines!r}: {error.strerror}") from None


async def _publish(sender: Any, what: Line | FileIO, as_json: bool, tally: Tally) -> None:
    async with sender as send:
        if not isinstance(what, Line):
            await _publish_all(send, what, as_json, tally)
            return
        try:
            _told(await send(what), as_json)
        except BadLineError as error:
            click.echo(f"not published: {error}", err=True)
            tally.bad += 1


async def _publish_all(send: Send, file: FileIO, as_json: bool, tally: Tally) -> None:
    from rich.console import Console
    from rich.progress import Progress

    size = os.fstat(file.fileno()).st_size or None
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("publishing", total=size)
        async for line in numbered(file):
            tally.line, tally.on_its_way = line.number, True
            try:
                if line.text.strip():
                    _told(await send(_event_of(line.text)), as_json)
                    tally.sent += 1
            except BadLineError as error:
                tally.bad += 1
                told = f"line {line.number}: {error}"
                progress.console.print(told, markup=False, highlight=False, soft_wrap=True)
            tally.on_its_way = False
            progress.advance(task, line.size)


def _event_of(text: bytes) -> Line:
    """
    @raise BadLineError: it is none.
    """
    if len(text) > LINE_MAX:
        raise BadLineError(f"longer than {LINE_MAX} bytes")
    try:
        line = _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise BadLineError(harmless(str(error))) from None
    judge(line)
    return line


def _told(message_id: str, as_json: bool) -> None:
    if as_json:
        click.echo(json_line({"published": True, "message_id": message_id or None}))
    else:
        click.echo(harmless(message_id) or "notified")


@asynccontextmanager
async def _by_database(url: str) -> AsyncIterator[Send]:
    import psycopg2

    def reason(error: BaseException) -> str:
        return harmless(" ".join(str(error).split()))

    try:
        connection = psycopg2.connect(
            url, connect_timeout=10, application_name="dcm-ws publish", client_encoding="utf8"
        )
    except psycopg2.Error as error:
        raise click.ClickException(f"the database does not answer: {reason(error)}") from None
    with closing(connection):
        connection.autocommit = True

        async def send(line: Line) -> str:
            payload = msgspec.json.encode(line)
            if len(payload) > PAYLOAD_MAX:
                raise BadLineError(f"{len(payload)} bytes, and NOTIFY takes {PAYLOAD_MAX}: publish it with --via ws")
            with connection.cursor() as cursor:
                cursor.execute("select pg_notify('dcm_events', %s)", (payload.decode(),))
            # Ctrl-C is heard between two
            await asyncio.sleep(0)
            return ""

        try:
            yield send
        except psycopg2.Error as error:
            raise click.ClickException(f"the database: {reason(error)}") from None


@asynccontextmanager
async def _by_websocket(url: str, token: str | None, agent_id: str | None) -> AsyncIterator[Send]:
    from dcm_ws.cli.connection import advised, connected, make_client
    from dcm_ws.cli.patience import patiently
    from dcm_ws.client import ClosedError, DCMError, NotConnectedError, RequestTimeoutError

    async with connected(make_client(url, token, agent_id, ()), url, token) as client:

        async def send(line: Line) -> str:
            try:
                return (await patiently(lambda: client.publish(line.channel, line.event, line.data)))[0]
            except (ClosedError, NotConnectedError, RequestTimeoutError) as error:
                raise click.ClickException(
                    f"{harmless(url)}: {harmless(str(error))}; the event may have been published"
                ) from None
            except DCMError as error:
                raise BadLineError(advised(error, token)) from None

        yield send
