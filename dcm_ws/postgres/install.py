"""
The SQL of C{dcm-ws init-db}: it creates the tables and the triggers, removes the triggers, and finds what is installed.

Other roles may create objects in the same schemas.  Therefore no object is looked up by an unqualified name: L{BEGIN}
notes the search path and leaves only C{pg_catalog} in it.  Each object of our names must belong to a role that may
change it anyway: the role that installs it, a superuser, or the owner of all the tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from dcm_ws.postgres.schema import NAMES, definition
from dcm_ws.postgres.statements import literal, statement
from dcm_ws.postgres.triggers import BODY, EVENTS, MARK, VERSION, Choice


def names(texts: Iterable[str]) -> str:
    """
    Names as an array in SQL.
    """
    return f"array[{', '.join(map(literal, texts))}]::name[]"


BEGIN = statement("triggers/begin") + "\n"
"""
The statements that begin each transaction here.
"""

_FOUND = statement("triggers/found", names=names(NAMES))
TRUSTED = statement("triggers/trusted")
WRITABLE = statement("triggers/writable")

INSTALLED = statement("triggers/installed", found=_FOUND, trusted=TRUSTED)
"""
Selects one row with one JSON value, from which L{Installed} is made.  L{BEGIN} comes before it.
"""


class Installed(NamedTuple):
    """
    What is installed in a database.

    @ivar functions: the functions of our name; the first one is in use.
    @ivar tables: the existing tables by name, each with its triggers.
    """

    functions: list[dict[str, Any]]
    tables: dict[str, dict[str, Any]]

    @property
    def version(self) -> int:
        """
        The version of the function; 0 if there is none.
        """
        comment = (self.functions[0]["comment"] or "") if self.functions else ""
        number = comment.removeprefix(MARK).strip() if comment.startswith(MARK) else ""
        return int(number) if number.isdigit() else 0

    @property
    def altered(self) -> bool:
        """
        Whether somebody changed the function since it was installed.
        """
        return self.version == VERSION and self.functions[0]["source"] != BODY

    @property
    def foreign(self) -> dict[str, str]:
        """
        The functions of our name that other roles could change, each with its owner.
        """
        return {function["name"]: function["owner"] for function in self.functions if not function["trusted"]}

    @property
    def absent(self) -> list[str]:
        """
        The tables that do not exist.
        """
        return [name for name in NAMES if name not in self.tables]

    @property
    def bare(self) -> list[str]:
        """
        The existing tables that lack the trigger chosen for them.
        """
        chosen = self._chosen()
        return [name for name in chosen if name in self.tables and not self.tables[name]["triggers"]]

    def enabled(self, states: str) -> list[str]:
        """
        Returns the tables with a trigger in one of these states of C{pg_trigger.tgenabled}.
        """
        return [
            name
            for name, table in self.tables.items()
            if any(trigger["enabled"] in states for trigger in table["triggers"])
        ]

    @property
    def unreplicated(self) -> list[str]:
        """
        The tables that logical replication writes to without firing their trigger.
        """
        return [name for name in self.enabled("O") if self.tables[name]["subscribed"]]

    def _chosen(self) -> tuple[str, ...]:
        for table in self.tables.values():
            for trigger in table["triggers"]:
                arguments = bytes.fromhex(trigger["arguments"]).split(b"\0")
                if len(arguments) > 2:
                    said = json.loads(arguments[1])
                    return Choice(tuple(said.get("tables", NAMES)), tuple(said.get("events", ()))).triggered
        return tuple(EVENTS)


def install_sql(choice: Choice) -> str:
    """
    Returns SQL that creates the missing tables and the triggers; running it again changes nothing.

    It raises an exception, and so changes nothing, if an object of one of our names belongs to another role.
    """
    return statement(
        "triggers/install",
        tables=names(choice.tables),
        triggered=names(choice.triggered),
        firing="A" if choice.replicated else "O",
        argument="null::text" if choice.argument is None else literal(choice.argument),
        body=BODY,
        mark=MARK,
        version=str(VERSION),
        # PostgreSQL fills in the schema
        definitions=literal(json.dumps({name: definition(name, "{table}") for name in NAMES})),
        names=names(NAMES),
        found=_FOUND,
        trusted=TRUSTED,
        writable=WRITABLE,
        own_home=statement("triggers/own_home"),
    )


def remove_sql() -> str:
    """
    Returns SQL that removes the triggers and leaves the tables.
    """
    return statement("triggers/remove", found=_FOUND, writable=WRITABLE, mark=MARK)


def in_transaction(sql: str) -> str:
    """
    Returns the SQL as a script, for people who run it themselves.
    """
    return f"begin;\n{BEGIN}{sql.strip()}\ncommit;\n"
