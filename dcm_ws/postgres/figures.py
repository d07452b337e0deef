"""
What the metrics are, as SQL (protocol, section 7), and which tables they may be read from.

Anyone who can create objects in a schema of the search path could have the service run their code: through a view, a
row-level security policy, a function, an operator, a cast, or the condition of an index or a constraint, which the
planner evaluates.  Therefore only ordinary tables are read, by their qualified names, and only if the planner needs no
function of another role; every function, operator and type in the statements comes from C{pg_catalog}; and nothing is
written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

_TIMES = ("timestamp", "timestamptz")
_KINDS = {"r": "", "p": "", "v": "a view", "m": "a materialized view", "f": "a foreign table"}


class UnreadableError(Exception):
    """
    A figure has no table that it may be read from; the text says why, in one line.
    """


class Table(NamedTuple):
    """
    A relation with the name of one of the tables.

    @ivar kind: C{pg_class.relkind}.
    @ivar foreign: the name of another role's function or operator that the planner would run; None for none.
    @ivar columns: the type of each column by its name; a type of C{pg_catalog} by its name, any other as C{None}.
    """

    name: str
    schema: str
    kind: str
    foreign: str | None
    columns: Mapping[str, str | None]

    @property
    def qualified(self) -> str:
        """
        The name as SQL.
        """
        return f"{_quoted(self.schema)}.{_quoted(self.name)}"

    @property
    def trouble(self) -> str:
        """
        Why it is not read; empty for no reason.
        """
        if kind := _KINDS[self.kind]:
            return f"{self.qualified} is {kind}, and only ordinary tables are read"
        if self.foreign is not None:
            return f"an index or a constraint of {self.qualified} uses {self.foreign}, which another role owns"
        return ""

    def time(self, column: str) -> str:
        """
        The column as SQL.

        @raise UnreadableError: it is missing, or not a point in time.
        """
        if self._type(column) not in _TIMES:
            raise UnreadableError(f"column {column} of {self.qualified} is neither timestamp nor timestamptz")
        return column

    def text(self, column: str) -> str:
        """
        The column as SQL that can be compared with text.

        @raise UnreadableError: it is missing.
        """
        if self._type(column) in ("text", "varchar", "bpchar"):
            return column
        # a cast may run a function of the type's owner; concat uses the output function, which only superusers make
        return f"case when {column} is not null then concat({column}) end"

    def has(self, column: str) -> str:
        """
        The column as SQL of which only C{is null} is asked.

        @raise UnreadableError: it is missing.
        """
        self._type(column)
        return column

    def _type(self, column: str) -> str | None:
        if column not in self.columns:
            raise UnreadableError(f"{self.qualified} has no column {column}")
        return self.columns[column]


class Query(NamedTuple):
    """
    A query that returns one row.

    @ivar tables: the names of the tables that it reads.
    @ivar columns: the names of the row's columns.
    @ivar sql: makes the query of those tables.
    """

    tables: tuple[str, ...]
    columns: tuple[str, ...]
    sql: Callable[..., str]


def _open_sessions(sessions: Table) -> str:
    return f"select count(*) as open_sessions from {sessions.qualified} where {sessions.has('ended_at')} is null"


def _revived_sessions(sessions: Table, actions: Table) -> str:
    return (
        f"select count(*) as revived_sessions from {sessions.qualified} where {sessions.has('ended_at')} is not null"
        f" and {sessions.text('id')} in (select {actions.text('session_id')} from {actions.qualified}"
        f" where {actions.time('created_at')} > now() - interval '15 minutes')"
    )


def _agents(subtasks: Table) -> str:
    return (
        f"select count(distinct {subtasks.text('agent_id')}) as active_agents from {subtasks.qualified}"
        f" where {subtasks.text('status')} = 'running'"
    )


def _tasks(lists: Table) -> str:
    status, created, completed = lists.text("status"), lists.time("created_at"), lists.time("completed_at")
    epochs = [f"extract(epoch from {time})" for time in (completed, created)]
    if lists.columns["created_at"] != lists.columns["completed_at"]:
        epochs = [f"extract(epoch from {time}::timestamptz)" for time in (completed, created)]
    return (
        f"select count(*) filter (where {status} = 'pending') as pending_tasks,"
        f" count(*) filter (where {status} = 'running') as running_tasks,"
        f" count(*) filter (where {status} = 'completed' and {completed} > now() - interval '1 hour')"
        " as completed_tasks_last_hour,"
        # infinite times have no mean that JSON could hold, and the longest differences do not fit an interval
        f" coalesce(avg(({epochs[0]} - {epochs[1]}) * 1000)"
        f" filter (where isfinite({completed}) and isfinite({created})), 0)::float8 as avg_task_duration_ms"
        f" from {lists.qualified}"
    )


def _messages(messages: Table) -> str:
    return (
        f"select count(*) as messages_last_hour from {messages.qualified}"
        f" where {messages.time('created_at')} > now() - interval '1 hour'"
    )


def _actions(actions: Table) -> str:
    return (
        f"select count(*)::float8 / 5 as actions_per_minute from {actions.qualified}"
        f" where {actions.time('created_at')} > now() - interval '5 minutes'"
    )


QUERIES = (
    Query(("sessions",), ("open_sessions",), _open_sessions),
    Query(("sessions", "actions"), ("revived_sessions",), _revived_sessions),
    Query(("subtasks",), ("active_agents",), _agents),
    Query(
        ("task_lists",),
        ("pending_tasks", "running_tasks", "completed_tasks_last_hour", "avg_task_duration_ms"),
        _tasks,
    ),
    Query(("agent_messages",), ("messages_last_hour",), _messages),
    Query(("actions",), ("actions_per_minute",), _actions),
)
"""
All figures.  They go to the database as one statement: one round trip, and one moment that all figures are of.
"""

SCHEMAS = "select pg_catalog.current_schemas(false)::pg_catalog.text[]"
"""
Asks for the schemas in which the role looks for tables, the first one first.
"""

_GUARD = (
    "set local search_path = ''; set local transaction_read_only = on; set local row_security = off;"
    # tables may be replaced after they have been found; PostgreSQL has this since the minor releases of August 2024
    " select set_config(name, 'view, foreign-table', true) from (select 'restrict_nonsystem_relation_kind') s (name)"
    " where current_setting(name, true) is not null;"
)

_RELATIONS = """
select c.relname::text, n.nspname::text, c.relkind::text, (
    with recursive tree (relation) as (
        select c.oid union all select i.inhrelid from tree join pg_inherits i on i.inhparent = tree.relation
    ), planned (class, object) as (
        select 'pg_class'::regclass::oid, relation from tree
        union all select 'pg_class'::regclass, indexrelid from pg_index join tree on relation = indrelid
        union all select 'pg_constraint'::regclass, oid from pg_constraint join tree on relation = conrelid
        union all select 'pg_statistic_ext'::regclass, oid from pg_statistic_ext join tree on relation = stxrelid
    ), used (name, namespace, owner) as (
        select p.oid::regprocedure::text, p.pronamespace, p.proowner
        from planned join pg_depend d on d.classid = class and d.objid = object
        join pg_proc p on p.oid = d.refobjid and d.refclassid = 'pg_proc'::regclass
        union all
        select o.oid::regoperator::text, o.oprnamespace, o.oprowner
        from planned join pg_depend d on d.classid = class and d.objid = object
        join pg_operator o on o.oid = d.refobjid and d.refclassid = 'pg_operator'::regclass
    )
    select used.name from used join pg_roles r on r.oid = owner
    where namespace <> 'pg_catalog'::regnamespace and not r.rolsuper and r.rolname <> current_user limit 1
), coalesce((
    select json_object_agg(a.attname, case when coalesce(b.typnamespace, t.typnamespace) = 'pg_catalog'::regnamespace
        then coalesce(b.typname, t.typname)::text end)
    from pg_attribute a join pg_type t on t.oid = a.atttypid left join pg_type b on b.oid = nullif(t.typbasetype, 0)
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '{}')
from unnest(%(schemas)s::text[]) with ordinality as path (schema, place)
join pg_namespace n on n.nspname = path.schema
join pg_class c on c.relnamespace = n.oid
where c.relname = any(%(names)s::text[]) and c.relkind = any(%(kinds)s::text[])
order by path.place"""


def guarded(sql: str, timeout_ms: int) -> str:
    """
    The statement in a transaction of its own in which it can neither write nor run anybody's code.  The settings end
    with the transaction: behind a connection pool the next transaction may be another application's.

    @param timeout_ms: what the statement may take, in milliseconds.
    """
    return f"set local statement_timeout = {timeout_ms}; {_GUARD} {sql}"


def relations(schemas: list[str]) -> tuple[str, dict[str, object]]:
    """
    A statement that asks for the rows of L{found}, and its parameters.

    @param schemas: where to look, the first one first.
    """
    names = sorted({name for query in QUERIES for name in query.tables})
    return _RELATIONS, {"schemas": schemas, "names": names, "kinds": list(_KINDS)}


def found(rows: Iterable[Iterable[Any]]) -> dict[str, Table]:
    """
    The tables by name: the first one of the search path that may be read, or else what is there in its place.
    """
    tables: dict[str, Table] = {}
    for row in map(Table._make, rows):
        before = tables.get(row.name)
        if before is None or (before.trouble and not row.trouble):
            tables[row.name] = row
    return tables


def sql_of(query: Query, tables: Mapping[str, Table]) -> str:
    """
    The query as SQL.

    @raise UnreadableError: it cannot be read from these tables.
    """
    for name in query.tables:
        if name not in tables:
            raise UnreadableError(f"there is no table {name} in the search path")
        if trouble := tables[name].trouble:
            raise UnreadableError(trouble)
    return query.sql(*(tables[name] for name in query.tables))


def joined(parts: Mapping[Query, str]) -> tuple[str, list[str]]:
    """
    One statement of several, and the names of its columns.
    """
    columns = [column for query in parts for column in query.columns]
    sources = [f"({sql}) q{number}" for number, sql in enumerate(parts.values())]
    return f"select {', '.join(columns)} from {' cross join '.join(sources)}", columns


def snapshot(figures: Mapping[str, Any]) -> dict[str, float]:
    """
    The data of a C{metric.update}, without its timestamp; 0 for what could not be read.
    """
    kpis = {column: figures.get(column, 0) for query in QUERIES for column in query.columns}
    sessions = kpis.pop("open_sessions") + kpis.pop("revived_sessions")
    # a whole number is written as one, as JavaScript does
    return {"active_sessions": sessions} | {
        name: int(figure) if figure == int(figure) else figure for name, figure in kpis.items()
    }


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
