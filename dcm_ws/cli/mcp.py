"""
C{dcm-ws mcp}: an MCP server for one agent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from dcm_ws.cli.deferring import spare_collections
from dcm_ws.cli.lines import LINE_MAX, numbered, open_unbuffered
from dcm_ws.cli.options import Server, ServerOptions, check_channel, server_options
from dcm_ws.cli.suggestions import note_unknown_events
from dcm_ws.cli.terminal import harmless, say
from dcm_ws.protocol.errors import ProtocolError

if TYPE_CHECKING:
    from dcm_ws.client.aio import DCMClient
    from dcm_ws.mcp.choice import Choice, Push

_PUSHES = ("auto", "channel", "notify", "off")
# more than may wait in the inbox: what the model has not read does not keep the client from reading
_QUEUE_MAX = 2_000


@click.command("mcp")
@click.argument("channels", nargs=-1, metavar="[CHANNEL]...")
@click.option("--event", "events", multiple=True, metavar="PATTERN", help="Only events whose name matches; repeatable.")
@click.option("--from", "senders", multiple=True, metavar="AGENT", help="Only events of this agent; repeatable.")
@click.option(
    "--from-unnamed",
    is_flag=True,
    help="With --from: also events without a sender, which come from the database and from the service.",
)
@click.option(
    "--push",
    type=click.Choice(_PUSHES),
    default="auto",
    show_default=True,
    help="How the model learns of events. channel: their text, by notifications/claude/channel; notify: only that they"
    " wait; auto: channel if the client says that it understands it, else notify.",
)
@click.option(
    "--push-rate",
    type=click.FloatRange(1, 6_000),
    default=60,
    show_default=True,
    metavar="NUMBER",
    help="Notifications in a minute; ten may come at once.",
)
@click.option(
    "--max-data",
    type=click.IntRange(100, 1_000_000),
    default=4_000,
    show_default=True,
    metavar="NUMBER",
    help="Characters of an event's data that the model is shown.",
)
@click.option(
    "--position",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Store here up to where the model has read, and go on there after a restart.",
)
@server_options
def command(
    channels: tuple[str, ...],
    events: tuple[str, ...],
    senders: tuple[str, ...],
    from_unnamed: bool,
    push: Push,
    push_rate: float,
    max_data: int,
    position: str | None,
    server: ServerOptions,
) -> None:
    """
    Serve the Model Context Protocol on standard input and output: a coding agent receives the events of the CHANNELs
    and of its own channel, and publishes as the agent that --agent-id or the token names.

    An event is acknowledged when the model has been sent it.  The service may be away: the command reconnects, and goes
    on where it was.  It needs pip install 'dcm-ws[mcp]'.

    Exit codes: 0 the client closed the connection, or Ctrl-C or SIGTERM; 1 the service refuses the connection, or the
    first connection fails in a way that retrying cannot help; 2 invalid usage.

    \b
    Examples:
      dcm-ws mcp --agent-id backend
      dcm-ws mcp --agent-id reviewer topics/reviews --event 'task.*' --from backend --push channel
      claude mcp add dcm -- dcm-ws mcp --agent-id backend
    """
    try:
        # a tenth of the time that it takes to start
        with spare_collections():
            import mcp  # noqa: F401

        from dcm_ws.mcp.choice import Choice
        from dcm_ws.mcp.wanted import Wanted
    except ImportError:
        raise click.ClickException("the MCP server needs the package mcp: pip install 'dcm-ws[mcp]'") from None
    for channel in channels:
        try:
            check_channel(channel)
        except ProtocolError as error:
            raise click.UsageError(harmless(error.reason)) from None
    if from_unnamed and not senders:
        raise click.UsageError("--from-unnamed is for --from")
    known = server.server()
    if known.token is None and not known.agent_id:
        raise click.UsageError("give --agent-id, or a token in DCM_WS_TOKEN or --token-file")
    note_unknown_events(events)
    choice = Choice(Wanted((), events, senders, from_unnamed), push, push_rate, max_data)
    # what is printed by mistake must not get between the messages
    output = os.dup(1)
    os.dup2(2, 1)
    asyncio.run(_serve(server, known, channels, position, choice, output))


async def _serve(
    options: ServerOptions, server: Server, channels: tuple[str, ...], position: str | None, choice: Choice, output: int
) -> None:
    """
    Serve until the client has gone, or a signal comes.

    @param output: the file descriptor from which the client reads.
    @raise click.ClickException: the service refuses the connection, or cannot be reached at all.
    """
    from dcm_ws.cli.connection import Progress, failure, make_client
    from dcm_ws.client import ClosedError, PositionError, State
    from dcm_ws.mcp.history import History
    from dcm_ws.mcp.session import Session

    client = _client(options, server, channels, position)
    session = Session(
        server.agent_id or "",
        client,
        History(lambda wanted, since: make_client(options.server(), wanted, since)),
        lambda: _connected(options),
        choice,
    )
    progress = Progress(client, server)
    ended = asyncio.Event()
    client.on_state(lambda state: ended.set() if state is State.CLOSED or progress.failure is not None else None)
    client.on_error(lambda error: say(harmless(str(error))))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    connecting = asyncio.ensure_future(client.connect())
    connecting.add_done_callback(lambda done: ended.set() if not done.cancelled() and done.exception() else None)
    serving = asyncio.ensure_future(session.serve(session.over_stdio(_lines(), output)))
    ending = asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait({serving, ending}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        elif client.state is State.CLOSED:
            await client.connected()
    except ClosedError as error:
        raise failure(error, server) from None
    finally:
        tasks = (connecting, serving, ending)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()
    if isinstance(results[0], PositionError):
        raise click.ClickException(harmless(str(results[0])))
    if progress.failure is not None:
        raise click.ClickException(progress.failure)


def _client(options: ServerOptions, server: Server, channels: tuple[str, ...], position: str | None) -> DCMClient:
    from dcm_ws.cli.certificates import trusting
    from dcm_ws.client.aio import DCMClient

    # the command reports itself what the client would log
    logging.getLogger("dcm_ws.client").setLevel(logging.ERROR)
    try:
        return DCMClient(
            server.url,
            # the file may have a new token when the connection is made again
            token=(lambda: options.server().token or "") if options.token_file else server.token,
            agent_id=server.agent_id,
            channels=channels,
            durable=True,
            queue_max=_QUEUE_MAX,
            position=position,
            tls=trusting(server.cacert),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None


async def _lines() -> AsyncIterator[bytes]:
    async for line in numbered(open_unbuffered("-")):
        if len(line.text) > LINE_MAX:
            say(f"message {line.number} has more than {LINE_MAX} bytes")
        yield line.text


async def _connected(options: ServerOptions) -> dict[str, int]:
    """
    The number of connections of each connected agent.

    @raise CallError: the service does not say.
    """
    from dcm_ws.cli.top_report import ERRORS, explain, fetch
    from dcm_ws.mcp.calls import CallError

    base = options.http_base()
    try:
        stats = (await asyncio.to_thread(fetch, base, options.server()))["stats"]
    except ERRORS as error:
        raise CallError(explain(base, error)) from None
    agents = stats.get("agentStats")
    if not isinstance(agents, dict):
        raise CallError("the service does not say which agents are connected; it needs a valid token")
    return agents
