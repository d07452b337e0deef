"""
C{dcm-ws hook}: publishes events from the hooks of a coding agent.
"""

from __future__ import annotations

import json
import os
import select
import time
from typing import Any, NoReturn

import click

from dcm_ws.cli.hook_events import USELESS_LATER, event_of
from dcm_ws.cli.options import ServerOptions, check_channels, server_options
from dcm_ws.cli.outbox import Outbox, poster, spool_of
from dcm_ws.cli.terminal import one_line, say
from dcm_ws.cli.who import agent_of

SEND_SECONDS = 0.7
"""
Seconds that publishing may take: a coding agent ends hooks of the end of a session after 1.5 s.
"""

FLUSH_SECONDS = 30.0
"""
Seconds that C{--flush} may take.
"""

READ_SECONDS = 1.0
"""
Seconds that the coding agent may take to write on standard input.
"""

INPUT_MAX = 16 << 20
"""
Bytes of standard input; the result of a tool may be long.
"""


class _Harmless(click.Command):
    """
    A command that always succeeds: the exit status 2 would block what the coding agent is about to do.
    """

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **more)
        except click.ClickException as error:
            _give_up(error.format_message())

    def invoke(self, ctx: click.Context) -> Any:
        if ctx.params["flush"]:
            return super().invoke(ctx)
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            _give_up(error.format_message())
        except KeyboardInterrupt:
            raise SystemExit(0) from None
        except Exception as error:
            _give_up(f"{type(error).__name__}: {error}")


def _give_up(reason: str) -> NoReturn:
    say(f"dcm-ws hook: {one_line(reason)}")
    raise SystemExit(0)


@click.command("hook", cls=_Harmless)
@click.option(
    "--channel", metavar="CHANNEL", help="Publish on this channel.  [default: the channel of the session, sessions/ID]"
)
@click.option("--full", is_flag=True, help="Also publish prompts, messages, and the inputs and results of tools, cut.")
@click.option("--flush", is_flag=True, help="Only publish what is kept, and say how much that was.")
@server_options
def command(channel: str | None, full: bool, flush: bool, server: ServerOptions) -> None:
    """
    Publish the event that fits the hook of a coding agent, which writes JSON on standard input.  dcm-ws init-hooks
    installs it.

    It never disturbs the agent: it writes nothing on standard output, and its exit status is 0 whatever happens.  If
    the service cannot be reached, the event is kept in a file, and sent before the next one.

    Exit codes: 0 always; with --flush: 1 if something is left.

    \b
    Examples:
      dcm-ws hook < hook.json
      dcm-ws hook --flush
    """
    base = server.http_base()
    who = server.server()
    agent = agent_of(who)
    spool = spool_of(base, agent)

    outbox = Outbox(poster(base, who), spool, _report)
    if flush:
        sent = outbox.flush(FLUSH_SECONDS)
        left = spool.count()
        say(f"{sent.published} published, {sent.refused} refused, {spool.take_dropped()} dropped before, {left} left")
        if left:
            raise SystemExit(1)
        return
    if channel is not None:
        check_channels((channel,))
    hook = json.loads(_read_input())
    if not isinstance(hook, dict):
        raise click.ClickException("what is on standard input is not a JSON object")
    now_ms = time.time_ns() // 1_000_000
    event = event_of(hook, agent=agent, channel=channel, full=full, now_ms=now_ms, key=f"hook-{os.urandom(12).hex()}")
    if event is not None:
        outbox.publish(event, SEND_SECONDS, keep=event["event"] not in USELESS_LATER)


def _report(text: str) -> None:
    say(f"dcm-ws hook: {one_line(text)}")


def _read_input() -> bytes:
    """
    @raise click.ClickException: it is too long, or does not end in time.
    """
    deadline = time.monotonic() + READ_SECONDS
    text = bytearray()
    while select.select([0], [], [], max(0.0, deadline - time.monotonic()))[0]:
        piece = os.read(0, 1 << 16)
        if not piece:
            return bytes(text)
        text += piece
        if len(text) > INPUT_MAX:
            raise click.ClickException(f"standard input is longer than {INPUT_MAX} bytes")
    raise click.ClickException(f"standard input did not end in {READ_SECONDS:g} s")
