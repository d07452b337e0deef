-- Step 1 of the migrations: the tables of the durable log.  install.sql runs it as the owner of the schema.
-- The newest partition of the log is open-ended.  Slots of the inbox are emptied with TRUNCATE, so that a table which
-- other transactions write to is never vacuumed, and users' transactions never lock the log.
create table dcm_ws.meta (
    one boolean primary key default true check (one),
    version int not null,
    epoch text not null,
    system_id text not null,
    timeline int not null,
    slot smallint not null default 0,
    base bigint not null default 0,
    snapshot pg_snapshot not null default pg_current_snapshot(),
    max_bytes int not null default 1048576,
    max_depth int not null default 100,
    leader bigint not null default 0,
    opened_at timestamptz
) with (fillfactor = 10, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0);
comment on table dcm_ws.meta is 'the state of the log: one row';
comment on column dcm_ws.meta.slot is 'the slot of the inbox that is written now';
comment on column dcm_ws.meta.base is 'the position of the last event when the newest partition of the log was made';
comment on column dcm_ws.meta.snapshot is 'the snapshot of the numbering step that ended at base';
comment on column dcm_ws.meta.leader is 'how often a service became the leader: what earlier ones still write is refused';
comment on column dcm_ws.meta.opened_at is 'when a service used the log for the first time';

create sequence dcm_ws.inbox_id;
create table dcm_ws.inbox (
    slot smallint not null,
    id bigint not null default nextval('dcm_ws.inbox_id'),
    xid xid8 not null default pg_current_xact_id(),
    event_id text not null,
    channel text not null,
    event text not null,
    data text not null,
    at bigint not null,
    sender text,
    key text
) partition by list (slot);
comment on table dcm_ws.inbox is 'events that were published by SQL, until they are numbered';
alter sequence dcm_ws.inbox_id owned by dcm_ws.inbox.id;
create table dcm_ws.inbox_0 partition of dcm_ws.inbox for values in (0) with (autovacuum_enabled = off);
create table dcm_ws.inbox_1 partition of dcm_ws.inbox for values in (1) with (autovacuum_enabled = off);
create table dcm_ws.inbox_2 partition of dcm_ws.inbox for values in (2) with (autovacuum_enabled = off);
create index inbox_xid on dcm_ws.inbox (xid);
create index inbox_key on dcm_ws.inbox (key) where key is not null;

create table dcm_ws.log (
    pos bigint not null primary key,
    event_id text not null,
    channel text not null,
    event text not null,
    data text not null,
    at bigint not null,
    sender text,
    named text,
    publisher text,
    key text,
    mirrored boolean not null,
    logged_at timestamptz not null default clock_timestamp(),
    snapshot pg_snapshot
) partition by range (pos);
comment on table dcm_ws.log is 'the events by position';
comment on column dcm_ws.log.snapshot is 'only in the last row of each numbering step: its snapshot';
create index log_channel on dcm_ws.log (channel, pos);
create index log_key on dcm_ws.log (key) where key is not null;
create table dcm_ws.log_1 partition of dcm_ws.log for values from (minvalue) to (maxvalue);

create table dcm_ws.agent (
    agent text primary key,
    state jsonb not null,
    seen_at timestamptz not null default now()
) with (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0.05);
comment on table dcm_ws.agent is 'what each agent has acknowledged and is owed, at the last checkpoint';

create table dcm_ws.ack (
    seq bigint generated always as identity primary key,
    at timestamptz not null default now(),
    changes jsonb not null
) with (
    autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_insert_threshold = -1,
    autovacuum_vacuum_cost_delay = 0
);
comment on table dcm_ws.ack is 'what changed in the state of agents since their checkpoint';

create table dcm_ws.dead (
    agent text not null,
    event_id text not null,
    pos bigint not null,
    channel text not null,
    event text not null,
    data text not null,
    at bigint not null,
    sender text,
    deliveries int not null,
    reason text not null,
    died_at bigint not null,
    redriven_at bigint,
    request text check (request in ('redrive', 'purge')),
    primary key (agent, event_id)
) with (fillfactor = 80, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0.05);
comment on table dcm_ws.dead is 'dead letters: events that an agent was sent too often without acknowledging them';
create index dead_request on dcm_ws.dead (request) where request is not null;

insert into dcm_ws.meta (version, epoch, system_id, timeline)
    select 1, left(md5(gen_random_uuid()::text), 8), s.system_identifier::text, c.timeline_id
    from pg_control_system() as s, pg_control_checkpoint() as c;
