create table @table@ (
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
create index on @table@ (status);
create index on @table@ (completed_at);
