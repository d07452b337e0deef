"""
The tables of what agents are owed, in a database of a test's own.
"""

from __future__ import annotations

import json

from tests.integration.databases import PostgresServer

SCHEMA = """
drop schema if exists dcm_ws cascade;
create schema dcm_ws;
create table dcm_ws.meta (
    one boolean primary key default true check (one), version int not null, epoch text not null,
    system_id text not null, timeline int not null, slot smallint not null default 0, base bigint not null default 0,
    snapshot pg_snapshot not null default pg_current_snapshot(),
    max_bytes int not null default 1048576, max_depth int not null default 100, leader bigint not null default 0);
insert into dcm_ws.meta (version, epoch, system_id, timeline) values (1, 'abcdefgh', '1', 1);
create table dcm_ws.log (pos bigint not null primary key, event_id text not null, channel text not null,
    event text not null, data text not null, at bigint not null, sender text, named text, publisher text, key text,
    mirrored boolean not null, logged_at timestamptz not null default clock_timestamp(), snapshot pg_snapshot);
create index on dcm_ws.log (channel, pos);
create table dcm_ws.agent (agent text primary key, state jsonb not null, seen_at timestamptz not null default now());
create table dcm_ws.ack (seq bigint generated always as identity primary key, at timestamptz not null default now(),
    changes jsonb not null);
create table dcm_ws.dead (agent text not null, event_id text not null, pos bigint not null, channel text not null,
    event text not null, data text not null, at bigint not null, sender text, deliveries int not null,
    reason text not null, died_at bigint not null, redriven_at bigint,
    request text check (request in ('redrive','purge')), primary key (agent, event_id));
create index on dcm_ws.dead (request) where request is not null;
"""


def make_tables(server: PostgresServer) -> None:
    """
    Make the tables, empty.
    """
    server.execute(SCHEMA)


def bury(
    server: PostgresServer,
    agent: str,
    pos: int,
    *,
    reason: str = "attempts",
    died_at: int = 1_795_000_000_000,
    data: object = None,
    event: str = "task.created",
) -> str:
    """
    Make a dead letter; returns the event's id.
    """
    event_id = f"msg_{pos}"
    server.execute(
        "insert into dcm_ws.dead (agent, event_id, pos, channel, event, data, at, deliveries, reason, died_at)"
        " values (%s, %s, %s, 'topics/a', %s, %s, %s, 3, %s, %s)",
        *(agent, event_id, pos, event, json.dumps(data), died_at - 60_000, reason, died_at),
    )
    return event_id
