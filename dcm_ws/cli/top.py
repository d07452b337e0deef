"""
C{dcm-ws top}.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard
from urllib.parse import urlsplit

import click
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dcm_ws.cli.common import harmless, http_base, server_options, token_of
from dcm_ws.client.reasons import REFUSED, reason_of
from dcm_ws.client.urls import is_loopback, is_proxied

ANSWER_MAX = 16 << 20
"""
Bytes of an answer that are read.
"""

_SHOWN = 200
_COUNTS_WIDTH = 48
_BOTH_WIDTH = 76
_NOT_OURS = "it is not a dcm-ws service"
_COUNTS = (
    ("clients", "connectedClients"),
    ("authenticated", "authenticatedClients"),
    ("agents", "agents.connected"),
    ("channels", "activeChannels"),
    ("connections so far", "totalConnections"),
    ("events of clients", "events.client"),
    ("events of the database", "events.database"),
    ("bad notifications", "events.badNotifications"),
    ("pending deliveries", "pendingDeliveries"),
    ("acknowledged", "deliveries.acked"),
    ("sent again", "deliveries.retried"),
    ("given up", "failedDeliveries"),
    ("kept for absent agents", "deliveries.keptForAbsentAgents"),
)
"""
What a row is called, and where it is in C{/stats}.
"""
_NUMBER_MAX = 1e18
_TIMEOUT = 8.0
_TROUBLE = (OSError, ValueError, http.client.HTTPException)
_STYLES = {"healthy": "bold green", "degraded": "bold yellow", "draining": "bold yellow"}

Report = dict[str, Any]


@click.command("top")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between two refreshes.",
)
@click.option("--once", is_flag=True, help="Print it once.")
@click.option("--json", "as_json", is_flag=True, help="Print it once, as JSON.")
@server_options
def command(interval: float, once: bool, as_json: bool, url: str, token_file: str | None, agent_id: str | None) -> None:
    """
    Show connections, channels, rates, what is pending and the state of the database, refreshed.  q or Ctrl-C ends it.
    In production channel names are shown only with a token.

    Exit codes: 0 ended by q, Ctrl-C or SIGTERM, or printed; 1 the service cannot be reached at the start, or answers
    with an error; 2 invalid usage.  If the service goes away later, it retries until it is back.

    \b
    Examples:
      dcm-ws top
      dcm-ws top --url wss://events.example.com/ --interval 5
      dcm-ws top --json | jq .stats.pendingDeliveries
    """
    base, token = http_base(url), token_of(token_file)

    def fetch() -> Report:
        report = {"health": _get(f"{base}/health", token), "stats": _get(f"{base}/stats", token)}
        if _at(report["stats"], "connectedClients") is None:
            raise ValueError(_NOT_OURS)
        return report

    try:
        report = fetch()
    except _TROUBLE as error:
        raise click.ClickException(_failure(base, error)) from None
    if as_json:
        click.echo(json.dumps(report))
    elif once or not sys.stdout.isatty():
        Console(highlight=False).print(screen(report, None, 0, "", base))
    else:
        # it ends as by Ctrl-C, and leaves the terminal as it was
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            _watch(fetch, report, interval, base)


def _get(url: str, token: str | None) -> Report:
    request = urllib.request.Request(url)
    if token:
        # not for the place that the answer may redirect to
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    # a proxy of the environment cannot reach this machine
    direct = [urllib.request.ProxyHandler({})] if is_loopback(urlsplit(url).hostname or "") else []
    try:
        with urllib.request.build_opener(*direct).open(request, timeout=_TIMEOUT) as answer:
            body = answer.read(ANSWER_MAX)
    except urllib.error.HTTPError as error:
        # a service that is draining answers with 503, and a report
        report = _report(error.read(ANSWER_MAX)) if error.code == 503 else None
        if report is None:
            raise
        return report
    report = _report(body)
    if report is None:
        raise ValueError(_NOT_OURS)
    return report


def _report(body: bytes) -> Report | None:
    """
    The report in an answer; None if it is not from a dcm-ws service.
    """
    try:
        report = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return report if isinstance(report, dict) else None


def _failure(base: str, error: BaseException) -> str:
    reason = reason_of(error, proxied=is_proxied(base))
    if isinstance(error, http.client.BadStatusLine) and not isinstance(error, http.client.RemoteDisconnected):
        reason = f"it does not speak HTTP: {reason}"
    if reason == REFUSED:
        return f"nothing listens at {base} (connection refused)"
    said = "" if isinstance(error, urllib.error.HTTPError) else " does not answer"
    return f"{base}{said}: {harmless(reason)}"


def _watch(fetch: Callable[[], Report], report: Report, interval: float, base: str) -> None:
    before: Report | None = None
    where = f"{base}   q quits"
    taken, elapsed, trouble = time.monotonic(), 0.0, ""
    with _keys() as pressed, Live(screen(report, None, 0, "", where), screen=True, auto_refresh=False) as live:
        while True:
            if pressed(interval) == "q":
                return
            try:
                before, report = report, fetch()
                trouble = ""
            except _TROUBLE as error:
                before, trouble = None, f"{_failure(base, error)}; trying again in {interval:g} s"
            now = time.monotonic()
            taken, elapsed = now, now - taken
            live.update(screen(report, before, elapsed, trouble, where), refresh=True)


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """
    What is typed within so many seconds, without waiting for the end of a line.
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


class _Columns:
    """
    Two renderables next to each other, or one below the other on a terminal that is too narrow.
    """

    def __init__(self, counts: Table, names: Group) -> None:
        self._counts = counts
        self._names = names

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width < _BOTH_WIDTH:
            yield self._counts
            yield ""
            yield self._names
            return
        both = Table.grid(padding=(0, 3), expand=True)
        both.add_column(min_width=_COUNTS_WIDTH)
        both.add_column(ratio=1)
        both.add_row(self._counts, self._names)
        yield both


def screen(report: Report, before: Report | None, elapsed: float, trouble: str, where: str = "") -> Group:
    """
    The report as it is shown.

    @param before: the report to compute rates against, from C{elapsed} seconds ago; None for none.
    @param where: the address of the service.
    """
    health, stats = report["health"], report["stats"]
    status = str(health.get("status"))
    state = health["database"].get("state") if isinstance(health.get("database"), dict) else "none"
    head = Text.assemble(
        ("dcm-ws ", "bold"),
        harmless(str(health.get("version", ""))),
        "   ",
        (harmless(status), _STYLES.get(status, "bold red")),
        f"   up {_duration(health.get('uptime_s', 0))}",
        f"   database {harmless(str(state))}",
        (f"   {harmless(where)}", "dim"),
    )
    counts = _table("", "now", "a second")
    for label, path in (*_COUNTS, *_trouble(stats)):
        value, then = _at(stats, path), _at(before["stats"], path) if before else None
        if value is not None:
            counts.add_row(label, f"{value:,}", _rate(value, then, elapsed))
    names = Group(
        _counted("channel", "subscribers", stats.get("channelStats")),
        "",
        _counted("agent", "connections", stats.get("agentStats")),
    )
    return Group(head, Text(trouble, "bold red"), _Columns(counts, names))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        # a narrow terminal cuts the names, and no numbers or titles
        least = len(column) if number else None
        table.add_column(column, justify="right" if number else "left", no_wrap=True, min_width=least)
    return table


def _counted(what: str, count: str, counts: object) -> Table | Text:
    """
    The names with the most, first; nothing where the service does not name them.
    """
    if not isinstance(counts, dict):
        return Text()
    table = _table(what, count)
    numbers = {name: number for name, number in counts.items() if _is_number(number)}
    for name, number in sorted(numbers.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]:
        table.add_row(Text(harmless(name), "cyan"), f"{number:,}")
    return table


def _trouble(stats: Report) -> Iterator[tuple[str, str]]:
    """
    Rows of what should not happen, and has.
    """
    for kind, label in (("refusals", "refused: {}"), ("closes", "closed with {}"), ("limits", "limit hit: {}")):
        counts = stats.get(kind)
        if isinstance(counts, dict):
            yield from ((label.format(harmless(name)), f"{kind}.{name}") for name, count in counts.items() if count)


def _at(stats: Report, path: str) -> int | float | None:
    """
    The number in a place of the report; None where there is none.
    """
    value: Any = stats
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if _is_number(value) else None


def _is_number(value: object) -> TypeGuard[int | float]:
    # neither what is not finite, nor what nothing can be reckoned with
    return isinstance(value, int | float) and abs(value) < _NUMBER_MAX


def _rate(value: float, then: float | None, elapsed: float) -> str:
    if then is None or elapsed <= 0 or value == then:
        return ""
    return f"{(value - then) / elapsed:+,.1f}"


def _duration(seconds: object) -> str:
    whole = int(seconds) if _is_number(seconds) else 0
    days, rest = divmod(whole, 86_400)
    return f"{days} d " * bool(days) + f"{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"
