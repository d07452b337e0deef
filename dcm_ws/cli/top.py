"""
C{dcm-ws top}: shows what a service does, refreshed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator

import click
from rich.console import Console
from rich.live import Live

from dcm_ws.cli.options import ServerOptions, server_options
from dcm_ws.cli.top_report import ERRORS, Report, explain, fetch
from dcm_ws.cli.top_screen import screen


@click.command("top")
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(0.2, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between two refreshes.",
)
@click.option("--once", is_flag=True, help="Print it once.")
@click.option("--json", "as_json", is_flag=True, help="Print it once, as JSON.")
@server_options
def command(interval: float, once: bool, as_json: bool, server: ServerOptions) -> None:
    """
    Show connections, channels, rates, pending deliveries and the state of the database, refreshed until q or Ctrl-C.
    In production the names of channels and agents are shown only with a token.

    Exit codes: 0 ended by q, Ctrl-C or SIGTERM, or printed; 1 the service cannot be reached at the start, or answers
    with an error; 2 invalid usage.  If the service goes away later, it retries until the service is back.

    \b
    Examples:
      dcm-ws top
      dcm-ws top --url wss://events.example.com/ --interval 5
      dcm-ws top --json | jq .stats.pendingDeliveries
    """
    base, who = server.http_base(), server.server()
    try:
        report = fetch(base, who)
    except ERRORS as error:
        raise click.ClickException(explain(base, error)) from None
    if as_json:
        click.echo(json.dumps(report))
    elif once or not sys.stdout.isatty():
        Console(highlight=False).print(screen(report, None, 0, "", base))
    else:
        # SIGTERM ends it as Ctrl-C does, and the terminal is restored
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            _watch(lambda: fetch(base, who), report, interval, base)


def _watch(refresh: Callable[[], Report], report: Report, interval: float, base: str) -> None:
    before: Report | None = None
    where = f"{base}   q quits"
    taken, elapsed, trouble = time.monotonic(), 0.0, ""
    with _keys() as pressed, Live(screen(report, None, 0, "", where), screen=True, auto_refresh=False) as live:
        while pressed(interval) != "q":
            try:
                before, report = report, refresh()
                trouble = ""
            except ERRORS as error:
                before, trouble = None, f"{explain(base, error)}; trying again in {interval:g} s"
            now = time.monotonic()
            taken, elapsed = now, now - taken
            live.update(screen(report, before, elapsed, trouble, where), refresh=True)


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """
    Yields a function that waits some seconds, and returns the key that was pressed meanwhile, or an empty string.
    """
    if not sys.stdin.isatty():

        def sleep(seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield sleep
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield (
            lambda seconds: (
                os.read(descriptor, 1).decode("latin-1") if select.select([descriptor], [], [], seconds)[0] else ""
            )
        )
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
