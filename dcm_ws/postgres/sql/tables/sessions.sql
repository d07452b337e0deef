create table @table@ (
    id text primary key,
    started_at timestamptz not null default now(),
    ended_at timestamptz
);
