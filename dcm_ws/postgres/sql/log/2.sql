-- Step 2 of the migrations: the nodes of a cluster.
create table dcm_ws.node (
    id bigint generated always as identity primary key,
    name text not null,
    host text not null,
    pid int not null,
    version text not null,
    address text not null,
    started_at timestamptz not null default now(),
    seen_at timestamptz not null default now(),
    fenced boolean not null default false,
    leader boolean not null default false,
    draining boolean not null default false,
    figures jsonb not null default '{}'
) with (fillfactor = 20, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0);
comment on table dcm_ws.node is 'the processes of a cluster: a row for each start';
comment on column dcm_ws.node.fenced is 'it has ended, or did not answer: what it still writes is refused';

-- what clients publish at nodes that do not lead
alter table dcm_ws.inbox add named text, add publisher text, add mirrored boolean;
comment on table dcm_ws.inbox is 'events that were published by SQL, or at nodes that do not lead, until they are numbered';

alter table dcm_ws.agent add node bigint, add gen bigint not null default 0;
comment on column dcm_ws.agent.node is 'the node of a cluster that has the agent';
comment on column dcm_ws.agent.gen is 'how often a node has taken the agent: changes that carry another number do not count';

alter table dcm_ws.ack add node bigint;
comment on column dcm_ws.ack.node is 'the node of a cluster that wrote the changes';
