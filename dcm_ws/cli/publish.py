"""
C{dcm-ws publish}.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from typing import IO, Any, NamedTuple

import click
import msgspec

from dcm_ws.channels import parse_channel
from dcm_ws.cli.common import config_option, database_of, harmless, json_line, server_options, token_of
from dcm_ws.errors import ProtocolError
from dcm_ws.events import is_event
from dcm_ws.triggers import PAYLOAD_MAX

LINE_MAX = 1 << 20
"""
Bytes of one line of C{--lines}, and of data from standard input.
"""

_ANSWER_SECONDS = 15.0


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


Send = Callable[[Line], Awaitable[str]]
"""
Publishes one; answers its id, empty where the way gives none.
"""


class Numbered(NamedTuple):
    """
    A line of a file as it stands there.
    """

    number: int
    text: bytes


@click.command("publish")
@click.argument("channel", required=False)
@click.argument("event", required=False)
@click.argument("data", required=False)
@click.option("--lines", metavar="FILE|-", help="Publish a JSON object of each line: channel, event and data.")
@click.option(
    "--via", type=click.Choice(["ws", "db"]), default="ws", show_default=True, help="By WebSocket, or NOTIFY."
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
    Publish EVENT on CHANNEL, with DATA: JSON, or - to read it from standard input; null where there is none.  With
    --lines, what a file says; lines that are no good are told by their number, and the others are published.

    Exit codes: 0 all published; 1 something was not; 2 the command line is no good.

    \b
    Examples:
      dcm-ws publish topics/deploys system.info '{"version": 7}'
      date +%s | dcm-ws publish global system.info -
      dcm-ws publish --via db agents/backend task.created '{"id": "t1"}'
      dcm-ws publish --lines events.jsonl
    """
    if lines is not None:
        if channel is not None:
            raise click.UsageError("give either CHANNEL and EVENT, or --lines")
    elif channel is None or event is None:
        raise click.UsageError("give CHANNEL and EVENT, or --lines FILE")
    one = None if channel is None or event is None else _one(channel, event, data)
    sender = _by_database(database_of(config)) if via == "db" else _by_websocket(url, token_of(token_file), agent_id)
    began = time.monotonic()
    try:
        if one is not None:
            sent, bad = asyncio.run(_publish(sender, one, as_json))
        else:
            assert lines is not None
            with _opened(lines) as file:
                sent, bad = asyncio.run(_publish_all(sender, file, as_json))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if lines is not None and not as_json:
        click.echo(f"{sent} published, {bad} not, in {time.monotonic() - began:.1f} s", err=True)
    if bad:
        raise SystemExit(1)


def _one(channel: str, event: str, data: str | None) -> Line:
    if data == "-":
        data = sys.stdin.read(LINE_MAX + 1)
        if len(data) > LINE_MAX:
            raise click.UsageError(f"DATA is longer than {LINE_MAX} characters")
    try:
        line = Line(channel, event, json.loads(data) if data is not None and data.strip() else None)
        judge(line)
    except BadLineError as error:
        raise click.UsageError(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"DATA is not JSON ({error}); a string needs quotes of its own: '\"text\"'") from None
    return line


def judge(line: Line) -> None:
    """
    @raise BadLineError: the channel or the event does not fit its grammar.
    """
    try:
        parse_channel(line.channel)
    except ProtocolError as error:
        raise BadLineError(harmless(error.reason)) from None
    if not is_event(line.event):
        raise BadLineError(f"{harmless(line.event)!r} is no event: two or more parts of a-z 0-9 _ - joined by dots")


def _opened(lines: str) -> IO[bytes]:
    try:
        return os.fdopen(os.dup(0), "rb") if lines == "-" else open(lines, "rb")
    except OSError as error:
        raise click.UsageError(f"cannot read {lines!r}: {error.strerror}") from None


async def _publish(sender: Any, line: Line, as_json: bool) -> tuple[int, int]:
    async with sender as send:
        try:
            _told(await send(line), as_json)
        except BadLineError as error:
            click.echo(f"not published: {error}", err=True)
            return 0, 1
    return 1, 0


async def _publish_all(sender: Any, file: IO[bytes], as_json: bool) -> tuple[int, int]:
    """
    How many were published, and how many were not.
    """
    from rich.console import Console
    from rich.progress import Progress

    sent = bad = 0
    size = os.fstat(file.fileno()).st_size or None
    console = Console(stderr=True)
    decoder = msgspec.json.Decoder(Line)
    async with sender as send:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("publishing", total=size)
            for number, text in _numbered(file):
                progress.advance(task, len(text))
                if not text.strip():
                    continue
                try:
                    if len(text) > LINE_MAX:
                        raise BadLineError(f"longer than {LINE_MAX} bytes")
                    line = decoder.decode(text)
                    judge(line)
                    _told(await send(line), as_json)
                    sent += 1
                except (msgspec.DecodeError, RecursionError, UnicodeError, BadLineError) as error:
                    bad += 1
                    progress.console.print(f"line {number}: {error}", markup=False, highlight=False, soft_wrap=True)
    return sent, bad


def _numbered(file: IO[bytes]) -> Iterator[Numbered]:
    """
    The lines; of one that is too long, its beginning.
    """
    number = 0
    while text := file.readline(LINE_MAX + 1):
        number += 1
        yield Numbered(number, text)
        while len(text) > LINE_MAX and not text.endswith(b"\n"):
            text = file.readline(LINE_MAX + 1)


def _told(message_id: str, as_json: bool) -> None:
    if as_json:
        click.echo(json_line({"published": True, "message_id": message_id or None}))
    elif message_id:
        click.echo(harmless(message_id))


@asynccontextmanager
async def _by_database(url: str) -> AsyncIterator[Send]:
    import psycopg2

    def reason(error: BaseException) -> str:
        return harmless(" ".join(str(error).split()))

    try:
        connection = psycopg2.connect(url, connect_timeout=10, application_name="dcm-ws publish")
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
            return ""

        try:
            yield send
        except psycopg2.Error as error:
            raise click.ClickException(f"the database: {reason(error)}") from None


@asynccontextmanager
async def _by_websocket(url: str, token: str | None, agent_id: str | None) -> AsyncIterator[Send]:
    from dcm_ws.cli.connection import connected, make_client
    from dcm_ws.client import ClosedError, DCMError, NotConnectedError, RequestTimeoutError

    async with connected(make_client(url, token, agent_id, ())) as client:

        async def send(line: Line) -> str:
            try:
                return await client.publish(line.channel, line.event, line.data)
            except (ClosedError, NotConnectedError, RequestTimeoutError) as error:
                raise click.ClickException(f"it may have been published, or not: {harmless(str(error))}") from None
            except DCMError as error:
                raise BadLineError(harmless(str(error))) from None

        yield send
