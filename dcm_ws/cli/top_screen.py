"""
What C{dcm-ws top} shows: a report of the service as tables, with rates.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from dcm_ws.cli import top_log
from dcm_ws.cli.terminal import harmless
from dcm_ws.cli.top_report import Part, Report, is_number, number_at

_NAMES_MAX = 200
_COUNTS_WIDTH = 48
_BOTH_WIDTH = 76
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
    ("redelivered", "deliveries.retried"),
    ("dropped", "failedDeliveries"),
    ("kept for absent agents", "deliveries.keptForAbsentAgents"),
    ("owed in all", "log.owed"),
    ("last position", "log.head"),
    ("events in the log", "log.events"),
    ("bytes of the log", "log.bytes"),
    ("clients catching up", "log.catchingUp"),
    ("events behind, at most", "log.behind"),
    ("replays", "log.replays"),
    ("gaps told", "log.gaps"),
    ("takeovers", "log.takeovers"),
    ("dead letters", "deadLetters.kept"),
    ("repeated publishes", "keys.duplicates"),
)
"""
The labels of the rows, and the places of their numbers in C{/stats}.
"""
_PROBLEMS = (("refusals", "refused: {}"), ("closes", "closed with {}"), ("limits", "limit hit: {}"))
"""
Parts of C{/stats} that count by name what should not happen, and the labels of their rows.
"""
_STYLES = {"healthy": "bold green", "degraded": "bold yellow", "draining": "bold yellow"}


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

    @param before: an earlier report to compute the rates from; None for none.
    @param elapsed: seconds since then.
    @param trouble: why there is no newer report; empty if there is.
    @param where: the address of the service.
    """
    stats = report["stats"]
    names = Group(
        _by_name("channel", "subscribers", stats.get("channelStats")),
        "",
        _by_name("agent", "connections", stats.get("agentStats")),
        "",
        _by_name("agent", "owed", _loads(stats, "owed")),
        "",
        _by_name("agent", "dead letters", _loads(stats, "dead")),
    )
    counts = _counts(report, before["stats"] if before else None, elapsed)
    head = [_head(report["health"], top_log.headline(stats), where), Text(trouble, "bold red")]
    if log_trouble := top_log.trouble(stats):
        head.append(Text(log_trouble, "bold yellow"))
    return Group(*head, _Columns(counts, names))


def _head(health: Part, log: str, where: str) -> Text:
    status = str(health.get("status"))
    state = health["database"].get("state") if isinstance(health.get("database"), dict) else "none"
    return Text.assemble(
        ("dcm-ws ", "bold"),
        harmless(str(health.get("version", ""))),
        "   ",
        (harmless(status), _STYLES.get(status, "bold red")),
        f"   up {_duration(health.get('uptime_s', 0))}",
        f"   database {harmless(str(state))}",
        f"   {log}" * bool(log),
        (f"   {harmless(where)}", "dim"),
    )


def _counts(report: Report, before: Part | None, elapsed: float) -> Table:
    stats = report["stats"]
    table = _table("", "now", "per second")
    durable = (*top_log.COUNTS, *top_log.JOURNAL_COUNTS) if top_log.is_durable(stats) else ()
    for label, place in (*_COUNTS, *durable, *_problems(stats)):
        value, earlier = number_at(stats, place), number_at(before, place) if before else None
        if value is not None:
            table.add_row(label, f"{value:,}", _rate(value, earlier, elapsed))
    for label, seconds in top_log.ages(stats, report["health"]):
        table.add_row(label, _duration(seconds), "")
    for label, ms in top_log.means(stats, before):
        table.add_row(label, f"{ms:,.1f}", "")
    return table


def _by_name(what: str, count: str, counts: object) -> Table | Text:
    """
    The largest counts with their names; nothing if the service does not show names.
    """
    if not isinstance(counts, dict):
        return Text()
    table = _table(what, count)
    numbers = {name: number for name, number in counts.items() if is_number(number)}
    for name, number in sorted(numbers.items(), key=lambda item: (-item[1], item[0]))[:_NAMES_MAX]:
        table.add_row(Text(harmless(name), "cyan"), f"{number:,}")
    return table


def _loads(stats: Part, figure: str) -> dict[str, object] | None:
    """
    One figure of the agents' loads, where it is not 0; None if there is none.
    """
    loads = stats.get("agentLoads")
    if not isinstance(loads, dict):
        return None
    figures = {name: load.get(figure) for name, load in loads.items() if isinstance(load, dict)}
    return {name: number for name, number in figures.items() if number} or None


def _problems(stats: Part) -> Iterator[tuple[str, str]]:
    """
    The labels and places of the problems that have been counted.
    """
    for part, label in _PROBLEMS:
        counts = stats.get(part)
        if isinstance(counts, dict):
            yield from ((label.format(harmless(name)), f"{part}.{name}") for name, count in counts.items() if count)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        # a narrow terminal cuts names off, but neither numbers nor titles
        least = len(column) if number else None
        table.add_column(column, justify="right" if number else "left", no_wrap=True, min_width=least)
    return table


def _rate(value: float, earlier: float | None, elapsed: float) -> str:
    if earlier is None or elapsed <= 0 or value == earlier:
        return ""
    return f"{(value - earlier) / elapsed:+,.1f}"


def _duration(seconds: object) -> str:
    whole = int(seconds) if is_number(seconds) else 0
    days, rest = divmod(whole, 86_400)
    return f"{days} d " * bool(days) + f"{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"
