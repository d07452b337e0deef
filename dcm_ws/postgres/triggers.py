"""
The trigger function that turns INSERTs and UPDATEs into events (protocol, section 7), and the choice among its events.

The SQL that installs it is in L{dcm_ws.postgres.install}.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from dcm_ws.postgres.schema import NAMES
from dcm_ws.postgres.statements import statement

VERSION = 4
"""
The version of the triggers, raised with each change of the function or of the triggers.
"""

MARK = "dcm-ws triggers, version"
"""
The beginning of the comment on the function; the version follows.
"""

EVENTS = {
    "task_lists": ("task.created", "task.updated", "task.completed", "task.failed"),
    "subtasks": ("subtask.created", "subtask.updated", "subtask.running", "subtask.completed", "subtask.failed"),
    "agent_messages": ("message.new", "message.read", "message.expired"),
    "sessions": ("session.created", "session.ended"),
}
"""
The events that the triggers of each table send.
"""

PAYLOAD_MAX = 7999
"""
Bytes of a payload that NOTIFY accepts.
"""

VALUE_MAX = 500
"""
Bytes of a column's value, as JSON; a longer one is left out unless the column was named to be included.
"""

CHANNEL_MAX = 300
"""
Bytes of a channel; an event for a longer one goes to C{global}.
"""


class ChoiceError(ValueError):
    """
    A table or event does not exist, or a column's name is invalid.
    """


@dataclass(frozen=True, slots=True)
class Choice:
    """
    What C{init-db} is asked to install.

    @ivar tables: the tables that are created if missing, and get triggers.
    @ivar events: the events that are sent; empty for all.
    @ivar exclude: columns, or C{table.column}, that are never sent.
    @ivar include: columns, or C{table.column}, that are sent whatever their size.
    @ivar publisher: the owner of C{dcm_ws.publish()}, if it is neither that of the tables nor who runs C{init-db}.
    @ivar replicated: the triggers also fire for rows that logical replication applies.
    """

    tables: tuple[str, ...] = NAMES
    events: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    publisher: str = ""
    replicated: bool = False

    def __post_init__(self) -> None:
        _check("table", self.tables, NAMES)
        _check("event", self.events, [event for events in EVENTS.values() for event in events])
        for column in (*self.exclude, *self.include):
            table, dot, _ = column.rpartition(".")
            if dot:
                _check("table", (table,), list(EVENTS))
            if not column.rpartition(".")[2] or not column.isprintable() or set(column) & set("\"'\\"):
                raise ChoiceError(f"{column!r} is not the name of a column")

    @property
    def triggered(self) -> tuple[str, ...]:
        """
        The tables that get triggers: those that send a chosen event.
        """
        return tuple(
            table
            for table, events in EVENTS.items()
            if table in self.tables and (not self.events or set(self.events) & set(events))
        )

    @property
    def argument(self) -> str | None:
        """
        What the triggers pass to the function, as JSON; None for a plain installation.
        """
        said = {name: value for name, value in asdict(self).items() if name != "replicated" and value}
        if self.tables == NAMES:
            del said["tables"]
        return json.dumps(said, ensure_ascii=False, sort_keys=True) if said else None


def _check(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise ChoiceError(f"there is no {kind} {name!r}: {hint}")


_BODY = statement(
    "triggers/notify", channel_max=str(CHANNEL_MAX), value_max=str(VALUE_MAX), payload_max=str(PAYLOAD_MAX)
)
# the line feeds are part of the installed function
BODY = "\n" + _BODY + "\n"
"""
The body of the trigger function.
"""
