"""
The queries of the metrics (protocol, section 7), and which tables they may read.

Anyone who can create objects in a schema of the search path could have the service run their code: through a view, a
row-level security policy, a function, an operator, a cast, or the condition of an index or a constraint, which the
planner evaluates.  Therefore:

    - only ordinary tables are read, by their qualified names, and only if the planner needs no function of another role
    - every function, operator and type in the queries comes from C{pg_catalog}
    - nothing is written
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from dcm_ws.postgres.statements import statement

_KINDS = {"r": "", "p": "", "v": "a view", "m": "a materialized view", "f": "a foreign table"}


class UnreadableError(Exception):
    """
    A figure cannot be read from the tables; the text says why, in one line.
    """


class Table(NamedTuple):
    """
    A relation that has the name of one of the tables.

    @ivar qualified: its name with its schema, as SQL.
    @ivar kind: C{pg_class.relkind}.
    @ivar foreign: the name of another role's function or operator that the planner would run; None if there is none.
    @ivar columns: the type of each column by the column's name; None for a type outside of C{pg_catalog}.
    """

    name: str
    qualified: str
    kind: str
    foreign: str | None
    columns: Mapping[str, str | None]

    @property
    def trouble(self) -> str:
        """
        Why the relation must not be read; empty if it may be read.
        """
        if kind := _KINDS[self.kind]:
            return f"{self.qualified} is {kind}, and only ordinary tables are read"
        if self.foreign is not None:
            return f"an index or a constraint of {self.qualified} uses {self.foreign}, which another role owns"
        return ""

    def require(self, column: str) -> str | None:
        """
        Returns the type of a column.

        @raise UnreadableError: there is no such column.
        """
        if column not in self.columns:
            raise UnreadableError(f"{self.qualified} has no column {column}")
        return self.columns[column]

    def require_time(self, column: str) -> str:
        """
        Returns the type of a column with points in time.

        @raise UnreadableError: there is no such column, or it has another type.
        """
        kind = self.require(column)
        if kind not in ("timestamp", "timestamptz"):
            raise UnreadableError(f"column {column} of {self.qualified} is neither timestamp nor timestamptz")
        return kind

    def text(self, column: str) -> str:
        """
        Returns a column as SQL that can be compared with text.

        @raise UnreadableError: there is no such column.
        """
        if self.require(column) in ("text", "varchar", "bpchar"):
            return column
        # a cast may run a function of the type's owner; concat uses the output function, which only superusers define
        return f"case when {column} is not null then concat({column}) end"


class Query(NamedTuple):
    """
    A query that returns one row.

    @ivar name: of its file in C{sql/metrics/}.
    @ivar tables: the names of the tables that it reads.
    @ivar columns: the names of the row's columns.
    @ivar parts: checks these tables, and returns the SQL for the file's other marks.
    """

    name: str
    tables: tuple[str, ...]
    columns: tuple[str, ...]
    parts: Callable[..., dict[str, str]]


def _open_sessions(sessions: Table) -> dict[str, str]:
    sessions.require("ended_at")
    return {}


def _revived_sessions(sessions: Table, actions: Table) -> dict[str, str]:
    sessions.require("ended_at")
    actions.require_time("created_at")
    return {"id": sessions.text("id"), "session_id": actions.text("session_id")}


def _agents(subtasks: Table) -> dict[str, str]:
    return {"agent_id": subtasks.text("agent_id"), "status": subtasks.text("status")}


def _tasks(lists: Table) -> dict[str, str]:
    types = {lists.require_time("created_at"), lists.require_time("completed_at")}
    return {"status": lists.text("status"), "cast": "::timestamptz" if len(types) > 1 else ""}


def _with_creation(table: Table) -> dict[str, str]:
    table.require_time("created_at")
    return {}


QUERIES = (
    Query("open_sessions", ("sessions",), ("open_sessions",), _open_sessions),
    Query("revived_sessions", ("sessions", "actions"), ("revived_sessions",), _revived_sessions),
    Query("agents", ("subtasks",), ("active_agents",), _agents),
    Query(
        "tasks",
        ("task_lists",),
        ("pending_tasks", "running_tasks", "completed_tasks_last_hour", "avg_task_duration_ms"),
        _tasks,
    ),
    Query("messages", ("agent_messages",), ("messages_last_hour",), _with_creation),
    Query("actions", ("actions",), ("actions_per_minute",), _with_creation),
)
"""
The queries of all figures.  They are sent as one statement, so that all figures are of the same moment.
"""

SCHEMAS = "select pg_catalog.current_schemas(false)::pg_catalog.text[]"
"""
Selects the schemas of the search path, in its order.
"""


def guarded(sql: str, timeout_ms: int) -> str:
    """
    Returns SQL that runs a query in a transaction in which it can neither write nor run code of other roles.

    @param timeout_ms: milliseconds that each statement may take.
    """
    return statement("metrics/guard", timeout_ms=str(timeout_ms)) + "\n" + sql


def relations(schemas: list[str]) -> tuple[str, dict[str, object]]:
    """
    Returns a query for the rows of L{found}, and its parameters.

    @param schemas: the schemas of the search path, in its order.
    """
    names = sorted({name for query in QUERIES for name in query.tables})
    return statement("metrics/relations"), {"schemas": schemas, "names": names, "kinds": list(_KINDS)}


def found(rows: Iterable[Iterable[Any]]) -> dict[str, Table]:
    """
    Returns the tables by name: of each, the first one in the search path that may be read, or else the first one.
    """
    tables: dict[str, Table] = {}
    for row in map(Table._make, rows):
        before = tables.get(row.name)
        if before is None or (before.trouble and not row.trouble):
            tables[row.name] = row
    return tables


def sql_of(query: Query, tables: Mapping[str, Table]) -> str:
    """
    Returns the SQL of a query.

    @raise UnreadableError: the query cannot read these tables.
    """
    for name in query.tables:
        if name not in tables:
            raise UnreadableError(f"there is no table {name} in the search path")
        if trouble := tables[name].trouble:
            raise UnreadableError(trouble)
    read = [tables[name] for name in query.tables]
    return statement(f"metrics/{query.name}", **query.parts(*read), **{table.name: table.qualified for table in read})


def joined(parts: Mapping[Query, str]) -> tuple[str, list[str]]:
    """
    Returns one query that combines several, and the names of its columns.
    """
    columns = [column for query in parts for column in query.columns]
    sources = [f"(\n{sql}\n) q{number}" for number, sql in enumerate(parts.values())]
    return "select * from " + " cross join ".join(sources), columns


def snapshot(figures: Mapping[str, Any]) -> dict[str, float]:
    """
    Returns the data of a C{metric.update} without its timestamp; figures that could not be read are 0.
    """
    kpis = {column: figures.get(column, 0) for query in QUERIES for column in query.columns}
    sessions = kpis.pop("open_sessions") + kpis.pop("revived_sessions")
    # whole numbers are written without a fraction, as in JavaScript
    return {"active_sessions": sessions} | {
        name: int(figure) if figure == int(figure) else figure for name, figure in kpis.items()
    }
