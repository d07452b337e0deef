"""
What C{dcm-ws top --once} prints: a report of the service as tables.
"""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from dcm_ws.cli import top_log
from dcm_ws.cli.terminal import harmless
from dcm_ws.cli.top_figures import Snapshot, duration, figures
from dcm_ws.cli.top_report import Part, Report, is_number

_NAMES_MAX = 200
_COUNTS_WIDTH = 40
_BOTH_WIDTH = 76
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


def screen(report: Report, where: str) -> Group:
    """
    The report as it is shown.

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
    head = [Text("   ").join(head_of(report, where)), Text(top_log.trouble(stats), "bold yellow")]
    return Group(*head, _Columns(_counts(report), names))


def head_of(report: Report, where: str) -> list[Text]:
    """
    The state of the service, in a few words each.
    """
    health = report["health"]
    status = str(health.get("status"))
    state = health["database"].get("state") if isinstance(health.get("database"), dict) else "none"
    parts = [
        Text.assemble(("dcm-ws ", "bold"), harmless(str(health.get("version", "")))),
        Text(harmless(status), _STYLES.get(status, "bold red")),
        Text(f"up {duration(health.get('uptime_s', 0))}"),
        Text(f"database {harmless(str(state))}"),
        Text(top_log.headline(report["stats"])),
        Text(harmless(where), "dim"),
    ]
    return [part for part in parts if part]


def _counts(report: Report) -> Table:
    table = _table("figure", "now")
    for figure in figures(Snapshot(report)):
        table.add_row(figure.label, figure.shown)
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


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        # a narrow terminal cuts names off, but neither numbers nor titles
        least = len(column) if number else None
        table.add_column(column, justify="right" if number else "left", no_wrap=True, min_width=least)
    return table
