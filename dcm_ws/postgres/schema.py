"""
The tables that the metrics are read from (protocol, section 7), for a database that has none.
"""

from __future__ import annotations

DEFINITIONS = {
    "sessions": """
        create table {table} (
            id text primary key,
            started_at timestamptz not null default now(),
            ended_at timestamptz
        );""",
    "task_lists": """
        create table {table} (
            id text primary key default gen_random_uuid()::text,
            request_id text,
            name text,
            wave_number integer not null default 0,
            status text not null default 'pending',
            created_at timestamptz not null default now(),
            completed_at timestamptz
        );""",
    "subtasks": """
        create table {table} (
            id text primary key default gen_random_uuid()::text,
            task_list_id text,
            agent_type text,
            agent_id text,
            description text,
            status text not null default 'pending',
            created_at timestamptz not null default now(),
            completed_at timestamptz,
            result jsonb
        );
        create index on {table} (status);
        create index on {table} (completed_at);""",
    "agent_messages": """
        create table {table} (
            id text primary key default gen_random_uuid()::text,
            from_agent_id text,
            to_agent_id text,
            topic text,
            payload jsonb,
            priority integer not null default 0,
            created_at timestamptz not null default now(),
            expires_at timestamptz
        );
        create index on {table} (created_at);""",
    "actions": """
        create table {table} (
            id text primary key default gen_random_uuid()::text,
            session_id text,
            tool_name text,
            created_at timestamptz not null default now()
        );
        create index on {table} (created_at);
        create index on {table} (session_id, created_at);""",
}
"""
What makes each table, and its indexes; C{table} is where its name goes.
"""

NAMES = tuple(DEFINITIONS)


def _where_missing(name: str, sql: str) -> str:
    # "if not exists" would look into one schema only, and hide a table of the next one behind an empty one
    return f"""
do $dcm_ws$ begin
    if to_regclass('{name}') is null then{sql.replace("{table}", name)}
    end if;
end $dcm_ws$;"""


TABLES = "".join(_where_missing(name, sql) for name, sql in DEFINITIONS.items()) + "\n"
"""
Creates the tables that are missing in all schemas of the search path; existing tables are not changed.
"""
