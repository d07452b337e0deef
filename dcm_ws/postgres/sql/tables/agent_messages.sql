create table @table@ (
    id text primary key default gen_random_uuid()::text,
    from_agent_id text,
    to_agent_id text,
    topic text,
    payload jsonb,
    priority integer not null default 0,
    created_at timestamptz not null default now(),
    expires_at timestamptz
);
create index on @table@ (created_at);
