"""
The lists that C{dcm-ws top} shows on a terminal: agents, channels and all figures, with the orders that keys choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from dcm_ws.cli.terminal import harmless
from dcm_ws.cli.top_figures import Snapshot, figures, signed
from dcm_ws.cli.top_report import Part, is_number

_LOADS = ("owed", "dead", "behind")
_NO_NAMES = "Names are shown only with a token: set DCM_WS_TOKEN, or give --token-file."


class Cell(NamedTuple):
    """
    What a row has in one column.

    @ivar order: rows are sorted by it.
    """

    shown: str
    order: Any


class Column(NamedTuple):
    """
    A column of a list.

    @ivar title: has the key that sorts by the column in brackets, as in C{(o)wed}.
    """

    title: str

    @property
    def key(self) -> str:
        return self.title[self.title.index("(") + 1]


class Order(NamedTuple):
    """
    An order of a list's rows.

    @ivar column: the number of the column to sort by.
    @ivar is_reversed: the other way round than usual, which is by name from A, and by number from the largest.
    """

    column: int
    is_reversed: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """
    One of the lists.

    @ivar columns: the first one has names, the others have numbers.
    @ivar usual: how it is sorted if no key was pressed; None for the order in which the rows come.
    @ivar rows: makes its rows; they are None if the service does not show names.
    @ivar if_none: shown if there are no rows.
    """

    name: str
    columns: tuple[Column, ...]
    usual: Order | None
    rows: Callable[[Snapshot], Iterable[tuple[Cell, ...]] | None]
    if_none: str

    def sorted_rows(self, snapshot: Snapshot, order: Order | None) -> list[tuple[Cell, ...]] | None:
        """
        Its rows; None if the service does not show names.
        """
        rows = self.rows(snapshot)
        if rows is None:
            return None
        if order is None:
            return list(rows)
        by_name = sorted(rows, key=lambda row: row[0].order)
        if not order.column:
            return by_name[::-1] if order.is_reversed else by_name
        return sorted(by_name, key=lambda row: row[order.column].order, reverse=not order.is_reversed)

    def note(self, rows: list[tuple[Cell, ...]] | None) -> str:
        """
        What is shown in the place of rows; empty if there are some.
        """
        return _NO_NAMES if rows is None else "" if rows else self.if_none


def _columns(*titles: str) -> tuple[Column, ...]:
    return tuple(Column(title) for title in titles)


def _agents(snapshot: Snapshot) -> Iterator[tuple[Cell, ...]] | None:
    stats = snapshot.stats
    connections, loads = _part(stats, "agentStats"), _part(stats, "agentLoads")
    if connections is None and loads is None:
        return None
    before = _part(snapshot.before["stats"], "agentLoads") if snapshot.before else None
    return (
        _agent(name, snapshot, (connections or {}).get(name), (loads or {}).get(name), (before or {}).get(name))
        for name in {**(connections or {}), **(loads or {})}
    )


def _agent(name: str, snapshot: Snapshot, connections: object, load: object, before: object) -> tuple[Cell, ...]:
    owed, dead, behind = (_number(load, figure) for figure in _LOADS)
    # an agent that owes nothing has no load
    rate = snapshot.rate(owed, _number(before, "owed") if snapshot.before else None)
    numbers = (owed, dead, behind, connections if is_number(connections) else 0)
    first, *others = (Cell(f"{number:,}", number) for number in numbers)
    return (_name(name), first, Cell(signed(rate), rate or 0), *others)


def _number(load: object, figure: str) -> float:
    number = load.get(figure) if isinstance(load, dict) else None
    return number if is_number(number) else 0


def _channels(snapshot: Snapshot) -> Iterator[tuple[Cell, ...]] | None:
    channels = _part(snapshot.stats, "channelStats")
    if channels is None:
        return None
    return ((_name(name), Cell(f"{count:,}", count)) for name, count in channels.items() if is_number(count))


def _figures(snapshot: Snapshot) -> Iterator[tuple[Cell, ...]]:
    return (
        (Cell(one.label, one.label), Cell(one.shown, one.value), Cell(signed(one.rate), one.rate or 0))
        for one in figures(snapshot)
    )


def _name(name: str) -> Cell:
    shown = harmless(name)
    return Cell(shown, shown.lower())


def _part(stats: Part, name: str) -> Part | None:
    part = stats.get(name)
    return part if isinstance(part, dict) else None


KINDS = (
    Kind(
        "agents",
        _columns("(n)ame", "(o)wed", "(r)ate", "(d)ead", "(b)ehind", "(c)onns"),
        Order(1),
        _agents,
        "No agents.",
    ),
    Kind("channels", _columns("(n)ame", "(s)ubscribers"), Order(1), _channels, "Nobody is subscribed to a channel."),
    Kind("figures", _columns("(n)ame", "no(w)", "(r)ate"), None, _figures, "No figures."),
)
"""
All lists, in the order in which Tab shows them.
"""
