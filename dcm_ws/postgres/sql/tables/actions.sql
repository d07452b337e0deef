create table @table@ (
    id text primary key default gen_random_uuid()::text,
    session_id text,
    tool_name text,
    created_at timestamptz not null default now()
);
create index on @table@ (created_at);
create index on @table@ (session_id, created_at);
