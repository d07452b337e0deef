"""
The tables that the metrics are read from (protocol, section 7), for a database that has none.
"""

from __future__ import annotations

TABLES = """
create table if not exists sessions (
    id text primary key,
    started_at timestamptz not null default now(),
    ended_at timestamptz
);
create table if not exists task_lists (
    id text primary key default gen_random_uuid()::text,
    request_id text,
    name text,
    wave_number integer not null default 0,
    status text not null default 'pending',
    created_at timestamptz not null default now(),
    completed_at timestamptz
);
create table if not exists subtasks (
    id text primary key default gen_random_uuid()::text,
    task_list_id text references task_lists (id),
    agent_type text,
    agent_id text,
    description text,
    status text not null default 'pending',
    created_at timestamptz not null default now(),
    completed_at timestamptz,
    result jsonb
);
create table if not exists agent_messages (
    id text primary key default gen_random_uuid()::text,
    from_agent_id text,
    to_agent_id text,
    topic text,
    payload jsonb,
    priority integer not null default 0,
    created_at timestamptz not null default now(),
    expires_at timestamptz
);
create table if not exists actions (
    id text primary key default gen_random_uuid()::text,
    session_id text,
    tool_name text,
    created_at timestamptz not null default now()
);
create index if not exists subtasks_status on subtasks (status);
create index if not exists subtasks_completed_at on subtasks (completed_at);
create index if not exists agent_messages_created_at on agent_messages (created_at);
create index if not exists actions_created_at on actions (created_at);
create index if not exists actions_session_id on actions (session_id, created_at);
"""
"""
Makes what is missing, and drops nothing.
"""
