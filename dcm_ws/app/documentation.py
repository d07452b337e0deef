"""
The tables of the documentation, and the types of events, that are made from the code.

C{python -m dcm_ws.app.documentation} writes them; a test fails if they are out of date.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from dcm_ws.app.event_types import PAYLOADS, python_module, with_names, with_types
from dcm_ws.app.kinds import Rate
from dcm_ws.app.options import BY_FIELD, BY_NAME, FILES, TABLE
from dcm_ws.app.rows import Row
from dcm_ws.app.settings import Settings
from dcm_ws.core import limits
from dcm_ws.protocol.catalogue import EVENTS
from dcm_ws.protocol.payloads import Kind

COMMAND = "python -m dcm_ws.app.documentation"

_PACKAGE = Path(__file__).parents[1]
_DOCS = _PACKAGE.parent / "docs"

_KINDS = {
    Kind.TEXT: "text",
    Kind.TEXT_OR_NULL: "text or `null`",
    Kind.INTEGER: "integer",
    Kind.NUMBER: "number",
    Kind.TEXTS: "list of texts",
    Kind.TRUE: "`true`",
    Kind.ANY: "any JSON value",
}


def settings_table() -> str:
    """
    All settings, for operators: a table for each group.
    """
    rows = (*FILES, *(row for row in TABLE if row.name))
    return "\n\n".join(
        f"### {heading or 'Files'}\n\n"
        + _table(("option", "variable", "default", "meaning"), (_setting(row) for row in group))
        for heading, group in groupby(rows, lambda row: row.heading)
    )


def fields_table() -> str:
    """
    The fields of L{Settings}, for applications.
    """
    head = ("field", "type", "default", "[option](settings.md), or meaning")
    kinds = {one.name: str(one.type) for one in fields(Settings)}
    return _table(head, (_field(name, kinds[name], row) for name, row in BY_FIELD.items()))


def limits_table() -> str:
    """
    The limits that a client can exceed, with their defaults.
    """
    head = ("what is limited", "per", "default", "when it is exceeded", "option", "counter")
    defaults = {name: _brief(row, row.mode_default(True)) for name, row in BY_NAME.items()}
    return _table(head, (_limit(limit, defaults) for limit in limits.TABLE))


def families_table() -> str:
    """
    The events of the catalogue by family.
    """
    families = groupby((entry.name for entry in EVENTS), lambda name: name.partition(".")[0])
    rows = ((family, " ".join(f"`{name}`" for name in names)) for family, names in families)
    return _table(("family", "events"), rows)


def events_table() -> str:
    """
    When each event of the catalogue is published, and what its data is.
    """
    rows = ((f"`{one.name}`", one.when, f"[`{one.payload.name}`](#{one.payload.name.lower()})") for one in EVENTS)
    return _table(("event", "when", "data"), rows)


def data_tables() -> str:
    """
    The data of the events of the catalogue: a table for each type.
    """
    return "\n\n".join(
        f"### {payload.name}\n\n{payload.meaning}\n\n"
        + _table(
            ("field", "type", "sent by", "meaning"),
            (
                (
                    f"`{field.name}`",
                    " or ".join(f"`{word}`" for word in field.words) or _KINDS[field.kind],
                    ", ".join(field.sources),
                    field.meaning,
                )
                for field in payload.fields
            ),
        )
        for payload in PAYLOADS
    )


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "settings.md": {"settings": settings_table},
    "limits.md": {"limits": limits_table},
    "embedding.md": {"fields": fields_table},
    "protocol.md": {"the catalogue": families_table},
    "events.md": {"events": events_table, "data": data_tables},
}
"""
The pages of the documentation, with the tables in them.
"""

CODE: dict[str, Callable[[str], str]] = {
    "client/catalogue.py": lambda _: python_module(),
    "web/dcm-ws.d.ts": with_types,
    "web/modules/publish.js": with_names,
}
"""
The files of the package that are made from the table of the catalogue, and what makes them of their former text.
"""


def with_tables(page: str, text: str) -> str:
    """
    The text of a page with its tables as they are now.

    @raise ValueError: a table has no markers in the text.
    """
    for name, make in PAGES[page].items():
        begin, end = f"<!-- table of {name}, made by {COMMAND} -->\n", f"<!-- end of the table of {name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"docs/{page} lacks the markers of the table of {name}")
        before, _, rest = text.partition(begin)
        after = rest.partition(end)[2]
        text = f"{before}{begin}\n{make()}\n\n{end}{after}"
    return text


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = (head, ("---",) * len(head), *rows)
    # an empty cell is two spaces in some editors and one in others: here it is one
    return "\n".join("|" + "".join(f" {cell} |" if cell else " |" for cell in line) for line in lines)


def _setting(row: Row) -> tuple[str, ...]:
    option = f"`--{row.name}`" + (f", `-{row.short}`" if row.short else "")
    repeated = "; repeatable" if row.repeatable else ""
    see = f"; see {row.see}" if row.see else ""
    variable = f"`{row.variable}`" if row.has_variable else ""
    return option, variable, row.default_text(row.kind.described), f"{row.meaning}{repeated}{see}"


def _field(name: str, kind: str, row: Row) -> tuple[str, ...]:
    default = f"`{row.default!r}`"
    if row.modes is not None:
        default += f": {row.default_text(row.kind.described)}"
    elif row.kind.unit == "bytes" and row.default is not None:
        default = _brief(row, row.default)
    meaning = f"`--{row.name}`" if row.name else row.help
    return f"`{name}`", f"`{kind}`".replace("|", "\\|"), default, meaning


def _limit(limit: limits.Limit, defaults: Mapping[str, str]) -> tuple[str, ...]:
    row = BY_NAME.get(limit.option.removeprefix("--"))
    template = limit.default or f"{{{limit.option.removeprefix('--')}}}"
    default = template.format_map(defaults)
    only_production = row is not None and (row.in_production or (row.modes is not None and not limit.default))
    default += "; development: none" if only_production else ""
    option = f"`{limit.option}`" if limit.option else ""
    return limit.bounded, limit.per, default, limit.effect, option, f"`{limit.counter}`"


def _brief(row: Row, value: Any) -> str:
    """
    A value as a limit: bytes in binary multiples, and rates as numbers.
    """
    if value is None:
        return ""
    if row.kind.unit == "bytes":
        for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
            if value >= size and value % size == 0:
                return f"{value / size:g} {unit}"
    return f"{value:g}" if isinstance(row.kind, Rate) else row.kind.described(value)


def main() -> None:
    """
    Write the tables into the pages of this checkout, and the types into its package.
    """
    for page in PAGES:
        _write(_DOCS / page, partial(with_tables, page))
    for name, make in CODE.items():
        _write(_PACKAGE / name, make)


def _write(path: Path, make: Callable[[str], str]) -> None:
    text = path.read_text()
    made = make(text)
    if made != text:
        path.write_text(made)
        print(f"{path.relative_to(_PACKAGE.parent)} written")


if __name__ == "__main__":
    main()
