"""
The screen of C{dcm-ws top}: lines that fit the terminal, whatever its size.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.text import Text

from dcm_ws.cli import top_log
from dcm_ws.cli.top_figures import KEY_COUNTS, Figure, Snapshot, counts
from dcm_ws.cli.top_lists import KINDS, Cell, Kind, Order
from dcm_ws.cli.top_screen import head_of
from dcm_ws.cli.top_view import View

_GAP = 2
_NAME_LEAST = 10
_NAME_USUAL = 32
_LABEL = max(len(label) for label, _ in KEY_COUNTS)
_FIGURE_LEAST = _LABEL + 14
_FIGURE_MOST = 38
_COLUMNS_MOST = 3
_ROWS_LEAST = 5
_TROUBLE_LINES = 2
_UNITS = ((1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P"))


def layout(snapshot: Snapshot, where: str, view: View, width: int, height: int) -> list[Text]:
    """
    The lines of the screen: at most C{height}, each at most C{width} cells wide.  The view's first row is made to fit.

    @param where: the address of the service.
    """
    width, height = max(1, width), max(1, height)
    rows = view.kind.sorted_rows(snapshot, view.order)
    head = flow(head_of(snapshot.report, where), width, "   ")
    for text, style in ((snapshot.trouble, "bold red"), (top_log.trouble(snapshot.stats), "bold yellow")):
        head += [Text(line, style) for line in textwrap.wrap(text, width, max_lines=_TROUBLE_LINES, placeholder=" …")]
    # the line with the lists, the titles and the keys, if there is space for a row
    frame = 3 if height >= 5 else 0
    head = head[: max(1, height - frame - 1)]
    key_figures = _key_figures(counts(snapshot, KEY_COUNTS), width)
    space = height - frame - len(head) - _ROWS_LEAST
    # with an empty line above and below
    shown = key_figures[: max(0, space - 2)]
    above = [*head, *(Text() for _ in shown[:1]), *shown, *(Text() for _ in shown[:1])]
    if not frame:
        return [_cut(line, width) for line in above[:height]]
    page = height - frame - len(above)
    view.fit(len(rows or ()), page)
    tabs = _tabs(view, len(rows or ()), page, width)
    listed = _listed(view.kind, rows, view.first, page, view.order, width)
    empty = [Text()] * (page + 1 - len(listed))
    return [_cut(line, width) for line in (*above, tabs, *listed, *empty, _footer(view, width))]


def flow(parts: Iterable[Text], width: int, between: str) -> list[Text]:
    """
    Parts of text in lines, as many in each line as fit.
    """
    lines: list[Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + len(between) + part.cell_len <= width:
            lines[-1] = Text.assemble(lines[-1], between, part)
        else:
            lines.append(part)
    return lines


def number(value: float, width: int) -> str:
    """
    A number with separators if it fits, else rounded, with a unit: C{12.3M}.
    """
    plain = f"{value:,}"
    if len(plain) <= width:
        return plain
    size, unit = _unit(value)
    return f"{value / size:.1f}{unit}"


def _unit(value: float) -> tuple[float, str]:
    return next((unit for unit in _UNITS if abs(value) < unit[0] * 999.95), _UNITS[-1])


def _key_figures(figures: Iterable[Figure], width: int) -> list[Text]:
    """
    Figures in as many columns as fit, one after the other in each line.
    """
    columns = max(1, min(_COLUMNS_MOST, (width + _GAP) // (_FIGURE_LEAST + _GAP)))
    each = min(_FIGURE_MOST, (width - (columns - 1) * _GAP) // columns)
    half = max(1, (each - _LABEL) // 2)
    every = [
        Text.assemble(
            f"{one.label:<{max(0, each - 2 * half)}}",
            (f"{number(one.value, half - 1):>{half}}", "bold"),
            (f"{_short_rate(one.rate, half - 1):>{half}}", "green"),
        )
        for one in figures
    ]
    return [Text(" " * _GAP).join(every[at : at + columns]) for at in range(0, len(every), columns)]


def _short_rate(rate: float | None, width: int) -> str:
    if rate is None:
        return ""
    size, unit = _unit(rate)
    short = f"{rate / size:+.0f}{unit}"
    shapes = (f"{rate:+,.1f}/s", f"{rate:+,.0f}/s", f"{rate / size:+.1f}{unit}/s", f"{short}/s")
    return next((shape for shape in shapes if len(shape) <= width), short)


def _tabs(view: View, rows: int, page: int, width: int) -> Text:
    """
    The names of the lists, and which part of the present one is shown.
    """
    names = [Text(f"[{kind.name}]", "bold") if kind is view.kind else Text(f" {kind.name} ", "dim") for kind in KINDS]
    left = Text(" ").join(names)
    last = min(rows, view.first + page)
    place = f"{view.first + 1:,}-{last:,} of {rows:,}" if rows > page else f"{rows:,} in all"
    space = width - left.cell_len - len(place)
    return Text.assemble(left, " " * space, place) if space > 0 else left


def _listed(
    kind: Kind, rows: Sequence[tuple[Cell, ...]] | None, first: int, page: int, order: Order | None, width: int
) -> list[Text]:
    """
    The titles of a list, and the rows that are shown; without the last columns, if the terminal is too narrow.
    """
    titles = [column.title for column in kind.columns]
    if order is not None:
        up = order.is_reversed == (order.column > 0)
        titles[order.column] += "▲" if up else "▼"
    shown = (rows or ())[first : first + page]
    # over all rows, so that the columns stay where they are
    widths = [max([len(title), *(len(row[at].shown) for row in rows or ())]) for at, title in enumerate(titles)][1:]
    while widths and width - sum(widths) - _GAP * len(widths) < _NAME_LEAST:
        widths.pop()
    longest = max([_NAME_USUAL, *(cell_len(row[0].shown) for row in rows or ())])
    space = min(longest, width - sum(widths) - _GAP * len(widths))
    lines = [_row(titles, widths, space, "bold", "bold")]
    lines += [_row([cell.shown for cell in row], widths, space, "cyan", "") for row in shown]
    if note := kind.note(None if rows is None else list(rows)):
        lines.append(Text(textwrap.shorten(note, max(8, width), placeholder=" …"), "dim"))
    return lines[: page + 1]


def _row(cells: Sequence[str], widths: Sequence[int], space: int, name_style: str, style: str) -> Text:
    name = Text(cells[0], name_style)
    name.truncate(space, overflow="ellipsis", pad=True)
    numbers = "".join(f"{' ' * _GAP}{cell:>{width}}" for cell, width in zip(cells[1:], widths, strict=False))
    return Text.assemble(name, (numbers, style))


def _footer(view: View, width: int) -> Text:
    """
    The keys, as many as fit.
    """
    keys = (("q", "quit"), ("Tab", view.next_kind.name), ("↑↓ PgUp PgDn", "scroll"), ("(letter)", "sort"))
    parts = [Text.assemble((key, "bold"), " ", what) for key, what in keys]
    return flow(parts, width, "   ")[0]


def _cut(line: Text, width: int) -> Text:
    line = line.copy()
    line.truncate(width, overflow="ellipsis")
    return line
