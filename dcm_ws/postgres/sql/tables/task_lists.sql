create table @table@ (
    id text primary key default gen_random_uuid()::text,
    request_id text,
    name text,
    wave_number integer not null default 0,
    status text not null default 'pending',
    created_at timestamptz not null default now(),
    completed_at timestamptz
);
