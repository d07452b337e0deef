"""
What is known of a setting: its row in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

from dcm_ws.app.kinds import Choice, Flag, Kind, Several


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """
    One setting.

    @ivar name: of its option, without the dashes, and of its key in a TOML file; empty if there is no option.
    @ivar has_option: an option gives it.
    @ivar help: what it does, in Markdown without links.
    @ivar see: where the documentation says more, as a link in C{docs/settings.md}.
    @ivar default: the value of its field if it is not given.
    @ivar modes: the defaults in production and in development, if they differ; C{default} stands for them.
    @ivar otherwise: the default in words, if no value says it.
    @ivar short: the letter of its option.
    @ivar has_variable: an environment variable gives it, too: the name in capitals, with underscores.
    @ivar old_variable: an older variable of which only the value C{production} counts.
    @ivar secret: its value is never shown.
    @ivar holds_secret: it names a file with a secret in it.
    @ivar in_production: it has an effect only in production.
    @ivar libpq: libpq's name of this part of the database's address.
    @ivar heading: of the group of settings that starts here.
    @ivar also: other options that give the same field, or a part of it.
    @ivar field: of L{Settings<dcm_ws.app.settings.Settings>}; empty if it has none of its own.
    """

    kind: Kind
    help: str
    name: str = ""
    has_option: bool = True
    default: Any = None
    modes: tuple[Any, Any] | None = None
    otherwise: str = ""
    see: str = ""
    short: str | None = None
    has_variable: bool = False
    old_variable: str = ""
    secret: bool = False
    holds_secret: bool = False
    in_production: bool = False
    libpq: str = ""
    heading: str = ""
    also: tuple[Row, ...] = ()
    field: str = ""

    @property
    def variable(self) -> str:
        """
        The environment variable that gives it; empty if there is none.
        """
        return self.name.upper().replace("-", "_") if self.has_variable else ""

    @property
    def label(self) -> str:
        """
        Its names, for a message.
        """
        if not self.name:
            return self.field
        return f"--{self.name} ({self.variable})" if self.has_variable else f"--{self.name}"

    @property
    def meaning(self) -> str:
        """
        What it does, with the words that it takes, in Markdown.
        """
        return f"{self.kind.text}: {self.help}" if isinstance(self.kind, Choice) else self.help

    @property
    def repeatable(self) -> bool:
        return isinstance(self.kind, Several)

    @property
    def is_flag(self) -> bool:
        return isinstance(self.kind, Flag)

    def default_text(self, shown: Callable[[Any], str]) -> str:
        """
        The default in words; empty if there is none.

        @param shown: shows a value.
        """
        if self.otherwise:
            return self.otherwise
        if self.modes is not None:
            production, development = (shown(value) or "none" for value in self.modes)
            return f"{production} in production, {development} in development"
        return "" if self.default in (None, ()) else shown(self.default)

    def mode_default(self, production: bool) -> Any:
        """
        The default in one of the modes.
        """
        if self.modes is None:
            return self.default
        return self.modes[0 if production else 1]


def setting(default: Any, kind: Kind, help: str, name: str = "", **more: Any) -> Any:
    """
    A field with its row.

    @param name: of the option, if it is not the field's name with dashes.
    """
    row = Row(kind=kind, help=help, name=name, default=default, **more)
    return field(default=default, metadata={"row": row}, repr=not row.secret)


def part(name: str, kind: Kind, help: str, **more: Any) -> Row:
    """
    The row of an option, with a variable, that gives a part of a field.
    """
    return Row(kind=kind, help=help, name=name, has_variable=True, **more)


def rows_of(table: type[Any]) -> Iterator[Row]:
    """
    The rows of the fields of a dataclass, each followed by those of the other options that give the field.
    """
    heading = ""
    for one in fields(table):
        row: Row = one.metadata["row"]
        name = row.name or (one.name.replace("_", "-") if row.has_option else "")
        heading = row.heading or heading
        yield replace(row, name=name, field=one.name, heading=heading)
        for other in row.also:
            yield replace(other, heading=heading)
