"""
C{dcm-ws top}: shows what a service does, refreshed.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable
from io import TextIOWrapper

import click
from rich.console import Console, ConsoleDimensions, Group
from rich.live import Live

from dcm_ws.cli.options import ServerOptions, server_options
from dcm_ws.cli.top_figures import Snapshot
from dcm_ws.cli.top_layout import layout
from dcm_ws.cli.top_report import ERRORS, Report, explain, fetch
from dcm_ws.cli.top_screen import screen
from dcm_ws.cli.top_terminal import Outcome, Refresher, Waker, keyboard, size
from dcm_ws.cli.top_view import View


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
    Show the state of the service and of its database, key figures with rates, and below them a list: the agents with
    what they owe, the channels, or all figures.  It fits any size of terminal, and is refreshed until q or Ctrl-C.  In
    production the names of channels and agents are shown only with a token.

    Keys: Tab shows the next list; the letter in brackets in a column's title sorts by it, and again the other way
    round; the arrows, Page Up, Page Down, Home and End scroll; q quits, and Ctrl-Z stops it until fg.

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
        return
    if isinstance(sys.stdout, TextIOWrapper):
        # the encoding of the terminal may lack characters of a name
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False)
    at_terminal = sys.stdout.isatty() and console.is_terminal and not console.is_dumb_terminal
    if once or not at_terminal:
        console.print(screen(report, base))
    else:
        # SIGTERM ends it as Ctrl-C does, and the terminal is restored
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            _Watch(lambda: fetch(base, who), report, interval, base).run()


class _Watch:
    """
    The screen, refreshed until the user ends it.

    @param report: shown until there is a newer one.
    @param interval: seconds between two refreshes.
    @param base: the URL of the service's HTTP.
    """

    def __init__(self, refresh: Callable[[], Report], report: Report, interval: float, base: str) -> None:
        self._waker = Waker()
        self._refresher = Refresher(refresh, interval, self._waker)
        self._retrying = f"; trying again in {interval:g} s"
        self._base = base
        self._view = View()
        self._snapshot = Snapshot(report)
        self._taken = time.monotonic()
        self._console = Console(highlight=False)

    def run(self) -> None:
        with self._waker.woken_by_signals():
            self._refresher.start()
            while not self._show():
                # the terminal is the shell's meanwhile
                self._waker.stop_if_wanted()

    def _show(self) -> bool:
        """
        Show the screen until the user ends it, or the process is interrupted.

        @return: whether the user has ended it.
        """
        with (
            keyboard(self._waker) as wait,
            Live(console=self._console, screen=True, auto_refresh=False) as live,
        ):
            while not self._waker.is_interrupted:
                self._console.size = ConsoleDimensions(*size())
                lines = layout(self._snapshot, self._base, self._view, *self._console.size)
                live.update(Group(*lines), refresh=True)
                keys = wait()
                if keys is None or "q" in keys:
                    return True
                for key in keys:
                    self._view.press(key)
                for outcome in self._refresher.outcomes():
                    self._take(outcome)
        return False

    def _take(self, outcome: Outcome) -> None:
        now = time.monotonic()
        self._snapshot = _next(self._snapshot, outcome, now - self._taken, self._retrying, self._base)
        self._taken = now


def _next(snapshot: Snapshot, outcome: Outcome, elapsed: float, retrying: str, base: str) -> Snapshot:
    """
    What is known after another answer, or without one.
    """
    if not isinstance(outcome, BaseException):
        return Snapshot(outcome, None if snapshot.trouble else snapshot.report, elapsed)
    if not isinstance(outcome, ERRORS):
        raise outcome
    return Snapshot(snapshot.report, trouble=explain(base, outcome) + retrying)
