"""
The metrics, read from real tables.
"""

from __future__ import annotations

import contextlib
import copy
import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
from websockets.sync.client import ClientConnection

from dcm_ws.postgres.schema import TABLES
from tests.event_types import fits
from tests.integration.clients import ask, hear, silence
from tests.integration.databases import PostgresServer
from tests.integration.machine import until
from tests.integration.running import Service, service

pytestmark = pytest.mark.integration

ZEROS = {
    "active_sessions": 0,
    "active_agents": 0,
    "pending_tasks": 0,
    "running_tasks": 0,
    "completed_tasks_last_hour": 0,
    "messages_last_hour": 0,
    "actions_per_minute": 0,
    "avg_task_duration_ms": 0,
}

ROWS = """
insert into sessions (id, started_at, ended_at) values
    ('open', now() - interval '3 days', null),
    ('open too', now(), null),
    ('ended, with an action of late', now() - interval '2 hours', now() - interval '1 hour'),
    ('ended, with an old action', now() - interval '2 hours', now() - interval '1 hour'),
    ('ended, without an action', now() - interval '2 hours', now() - interval '1 hour');
insert into actions (session_id, tool_name, created_at) values
    ('open', 'Read', now() - interval '1 minute'),
    ('open', 'Read', now() - interval '4 minutes'),
    ('open', 'Edit', now() - interval '6 minutes'),
    ('ended, with an action of late', 'Read', now() - interval '2 minutes'),
    ('ended, with an action of late', 'Read', now() - interval '14 minutes'),
    ('ended, with an old action', 'Read', now() - interval '16 minutes'),
    ('of no session that is known', 'Read', now());
insert into task_lists (status, created_at, completed_at) values
    ('pending', now(), null),
    ('pending', now() - interval '9 days', null),
    ('running', now(), null),
    ('failed', now() - interval '2 seconds', now()),
    ('completed', now() - interval '10 minutes', now() - interval '9 minutes'),
    ('completed', now() - interval '90 minutes', now() - interval '90 minutes' + interval '40 minutes'),
    ('completed', now() - interval '59.0015 seconds', now() - interval '59 seconds'),
    ('completed', now() - interval '3 hours', now() - interval '2 hours');
insert into subtasks (task_list_id, agent_id, status, created_at, completed_at) values
    ('list', 'ann', 'running', now(), null),
    ('list', 'ann', 'running', now(), null),
    ('list', 'bob', 'running', now(), null),
    ('list', null, 'running', now(), null),
    ('list', 'eve', 'pending', now(), null),
    ('list', 'eve', 'pending', now() - interval '9 days', null),
    ('list', 'eve', 'failed', now(), now()),
    ('list', 'eve', 'completed', now() - interval '10 minutes', now() - interval '9 minutes'),
    ('list', 'eve', 'completed', now() - interval '90 minutes', now() - interval '90 minutes' + interval '40 minutes'),
    ('list', 'eve', 'completed', now() - interval '59.001 seconds', now() - interval '59 seconds'),
    ('list', 'eve', 'completed', now() - interval '3 hours', now() - interval '2 hours');
insert into agent_messages (from_agent_id, to_agent_id, topic, created_at) values
    ('ann', 'bob', 'x', now()),
    ('ann', 'bob', 'x', now() - interval '59 minutes'),
    ('ann', 'bob', 'x', now() - interval '61 minutes');
"""


@pytest.fixture
def own(database: PostgresServer) -> Iterator[PostgresServer]:
    """
    An empty database for one test.
    """
    database.execute("create database kpis")
    own = copy.copy(database)
    own.url = database.url.replace("/postgres", "/kpis")
    yield own
    database.execute("drop database kpis with (force)")


@contextlib.contextmanager
def polling(database: PostgresServer, interval: float = 0.1) -> Iterator[Service]:
    """
    A service that takes a snapshot so often.
    """
    with service("--database-url", database.url, f"--metrics-interval={interval}") as running:
        yield running
        assert running.stop(signal.SIGTERM) == 0


def subscribed(running: Service) -> ClientConnection:
    client = running.connect()
    assert ask(client, type="subscribe", channel="metrics", id=1)["success"] is True
    return client


def snapshot(client: ClientConnection) -> dict[str, Any]:
    """
    The figures of the next snapshot.
    """
    frame = hear(client)
    assert (frame["channel"], frame["event"]) == ("metrics", "metric.update")
    figures: dict[str, Any] = frame["data"]
    assert fits("metric.update", figures, "service")
    assert abs(figures.pop("timestamp") - frame["timestamp"]) < 1000
    return figures


def snapshot_where(client: ClientConnection, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """
    The figures of the next snapshot that meets a condition.
    """
    for _ in range(100):
        figures = snapshot(client)
        if condition(figures):
            return figures
    raise AssertionError(f"the last snapshot was {figures}")


def backends(database: PostgresServer) -> int:
    """
    How many connections take the metrics.
    """
    rows = database.execute(
        "select count(*) from pg_stat_activity where application_name = 'dcm-ws metrics' and datname = 'kpis'"
    )
    number: int = rows[0][0]
    return number


def test_every_figure(own: PostgresServer) -> None:
    """
    A snapshot has each figure as the protocol defines it.
    """
    own.execute(TABLES + ROWS)
    with polling(own) as running:
        assert snapshot(subscribed(running)) == {
            "active_sessions": 3,
            "active_agents": 2,
            "pending_tasks": 2,
            "running_tasks": 1,
            "completed_tasks_last_hour": 3,
            "messages_last_hour": 2,
            "actions_per_minute": 0.8,
            "avg_task_duration_ms": (2_000 + 60_000 + 2_400_000 + 1.5 + 3_600_000) / 5,
        }


def test_empty_tables_give_zeros(own: PostgresServer) -> None:
    """
    Tables without rows give zeros, as numbers, and no warning.
    """
    own.execute(TABLES)
    with polling(own) as running:
        client = subscribed(running)
        assert snapshot(client) == ZEROS
    assert "metrics" not in running.log


def test_snapshots_follow_the_tables(own: PostgresServer) -> None:
    """
    What changes in the tables shows in the next snapshot.
    """
    own.execute(TABLES)
    with polling(own) as running:
        client = subscribed(running)
        assert snapshot(client)["pending_tasks"] == 0
        own.execute("insert into task_lists (status) values ('pending')")
        snapshot_where(client, lambda figures: figures["pending_tasks"] == 1)
        own.execute("update task_lists set status = 'running'")
        figures = snapshot_where(client, lambda figures: figures["running_tasks"] == 1)
        assert figures["pending_tasks"] == 0
        own.execute("insert into subtasks (status, agent_id) values ('running', 'ann')")
        snapshot_where(client, lambda figures: figures["active_agents"] == 1)


def test_missing_tables_give_zeros_and_one_warning_each(own: PostgresServer) -> None:
    """
    Without tables all figures are zeros, each missing table is logged once, and nothing else is wrong.
    """
    with polling(own) as running:
        client = subscribed(running)
        for _ in range(30):
            assert snapshot(client) == ZEROS
    for table in ("sessions", "task_lists", "subtasks", "agent_messages", "actions"):
        assert running.log.count(f"there is no table {table} in the search path") == 1
    assert running.log.count("metrics") == 5


def test_tables_made_later_are_found(own: PostgresServer) -> None:
    """
    Tables that are made while the service runs are read from soon after, the others meanwhile.
    """
    own.execute(TABLES + ROWS)
    own.execute("alter table actions rename to hidden; alter table task_lists rename to unseen")
    with polling(own) as running:
        client = subscribed(running)
        figures = snapshot(client)
        assert (figures["active_sessions"], figures["messages_last_hour"]) == (2, 2)
        assert (figures["actions_per_minute"], figures["pending_tasks"]) == (0, 0)
        own.execute("alter table hidden rename to actions; alter table unseen rename to task_lists")
        figures = snapshot_where(client, lambda figures: figures["pending_tasks"] == 2)
        assert (figures["active_sessions"], figures["actions_per_minute"]) == (3, 0.8)


def test_table_of_other_columns_gives_zeros(own: PostgresServer) -> None:
    """
    A table that has the name but not the columns, or that may not be read, costs its own figures alone.
    """
    own.execute(TABLES + ROWS)
    own.execute("alter table agent_messages rename created_at to sent_at")
    own.execute("alter table subtasks drop agent_id")
    own.execute("alter table actions alter created_at type text")
    own.execute("create role metrics login; grant select on all tables in schema public to metrics")
    own.execute("revoke select on sessions from metrics")
    own.url = own.url.replace("//dcm@", "//metrics@")
    try:
        with polling(own) as running:
            figures = snapshot(subscribed(running))
        assert figures == ZEROS | {"pending_tasks": 2, "running_tasks": 1} | {
            name: figures[name] for name in ("completed_tasks_last_hour", "avg_task_duration_ms")
        }
        for reason in (
            "public.agent_messages has no column created_at",
            "public.subtasks has no column agent_id",
            "column created_at of public.actions is neither timestamp nor timestamptz",
            "permission denied for table sessions",
        ):
            assert running.log.count(f"some metrics are given as 0: {reason}") == 1
    finally:
        own.url = own.url.replace("//metrics@", "//dcm@")
        own.execute("drop owned by metrics; drop role metrics")


def test_nobody_asks_nobody_polls(own: PostgresServer) -> None:
    """
    The tables are read only while somebody is subscribed to metrics.
    """
    own.execute(TABLES)
    reads = "select coalesce(sum(seq_scan) + sum(idx_scan), 0) from pg_stat_user_tables"
    ticks = "select state_change from pg_stat_activity where application_name = 'dcm-ws metrics' and datname = 'kpis'"
    with polling(own, 0.05) as running:
        client = running.connect()
        for _ in range(20):
            silence(client)
        assert backends(own) == 0
        assert ask(client, type="subscribe", channel="metrics", id=1)["success"] is True
        snapshot(client)
        assert backends(own) == 1
        # in one turn with the reply: the last snapshot may come before it, and none after it
        answer = ask(client, type="unsubscribe", channel="metrics", id=2)
        while "event" in answer:
            answer = hear(client)
        until(lambda: own.execute(ticks.replace("state_change", "state")) == [("idle",)])
        last = own.execute(ticks)
        watcher = running.connect()
        for _ in range(10):
            own.notify(json.dumps({"channel": "global", "event": "time.passed"}))
            assert hear(watcher)["event"] == "time.passed"
        assert own.execute(ticks) == last
        assert own.execute(reads)[0][0] >= 0


def test_tick_whose_query_still_runs_is_skipped(own: PostgresServer) -> None:
    """
    While a table is locked no second query waits for it, and the snapshots go on after that.
    """
    own.execute(TABLES)
    with polling(own, 0.05) as running:
        client = subscribed(running)
        snapshot(client)
        waiting = "select count(*) from pg_stat_activity where datname = 'kpis' and wait_event_type = 'Lock'"
        with contextlib.closing(psycopg2.connect(own.url)) as connection, connection.cursor() as cursor:
            cursor.execute("lock table subtasks")
            until(lambda: own.execute(waiting) == [(1,)])
            for _ in range(50):
                assert own.execute(waiting) == [(1,)]
                assert backends(own) == 1
            assert running.health()["status"] == "healthy"
            connection.rollback()
        # not one for each tick that was skipped
        first, second = hear(client), hear(client)
        while second["timestamp"] - first["timestamp"] < 20:
            first, second = second, hear(client)
        assert second["event"] == "metric.update"


def test_metrics_come_back_with_the_database(own: PostgresServer) -> None:
    """
    When the connection of the metrics is lost, the next snapshot is taken on a new one.
    """
    own.execute(TABLES)
    with polling(own) as running:
        client = subscribed(running)
        snapshot(client)
        own.kill_backends("dcm-ws metrics")
        own.execute("insert into task_lists (status) values ('pending')")
        snapshot_where(client, lambda figures: figures["pending_tasks"] == 1)
        assert backends(own) == 1
    assert running.log.count("no metrics") <= 1


def test_query_given_up_ends_in_the_database_too(own: PostgresServer) -> None:
    """
    A snapshot that takes too long is given up, in the database as well: no connection is left behind there.
    """
    own.execute(TABLES)
    with polling(own, 0.5) as running:
        client = subscribed(running)
        snapshot(client)
        with contextlib.closing(psycopg2.connect(own.url)) as connection, connection.cursor() as cursor:
            cursor.execute("lock table subtasks")
            running.read_log_until("no metrics: canceling statement due to statement timeout")
            assert backends(own) <= 1
            connection.rollback()
        assert snapshot(client)["pending_tasks"] == 0


def test_a_state_that_the_database_does_not_know(own: PostgresServer) -> None:
    """
    Where an enumeration lacks a state, no row has it, and nothing is wrong.
    """
    own.execute(TABLES + ROWS)
    own.execute("create type state as enum ('pending', 'failed', 'completed', 'running')")
    own.execute("create type short as enum ('running')")
    own.execute("alter table subtasks alter status drop default, alter status type state using status::state")
    own.execute("alter table task_lists alter status drop default; delete from task_lists where status <> 'running'")
    own.execute("alter table task_lists alter status type short using status::short")
    with polling(own) as running:
        figures = snapshot(subscribed(running))
    assert (figures["active_agents"], figures["running_tasks"], figures["pending_tasks"]) == (2, 1, 0)
    assert "metrics" not in running.log


# as the replaced server counts

# the definitions of the protocol, section 7, one statement each
DEFINITIONS = {
    "active_sessions": """
        select count(*) from sessions where ended_at is null or id::text in (
            select session_id::text from actions where created_at > now() - interval '15 minutes')""",
    "active_agents": "select count(*) from (select distinct agent_id from subtasks"
    " where status::text = 'running' and agent_id is not null) agents",
    "pending_tasks": "select count(*) from task_lists where status::text = 'pending'",
    "running_tasks": "select count(*) from task_lists where status::text = 'running'",
    "completed_tasks_last_hour": "select count(*) from task_lists"
    " where status::text = 'completed' and completed_at > now() - interval '1 hour'",
    "messages_last_hour": "select count(*) from agent_messages where created_at > now() - interval '1 hour'",
    "actions_per_minute": "select count(*) / 5.0 from actions where created_at > now() - interval '5 minutes'",
    "avg_task_duration_ms": "select sum(1000 * extract(epoch from (completed_at - created_at))) / count(*)"
    " from task_lists where completed_at is not null and created_at is not null",
}

MANY_ROWS = """
select setseed(0.3849);
create function pg_temp.age(most interval) returns timestamptz language sql as
    $$ select now() - most * power(random(), 4) $$;
-- so near the edge that it counts, and so near that it does not
create function pg_temp.edges(age interval) returns setof timestamptz language sql as
    $$ select now() - age + n * interval '90 seconds' from generate_series(-2, 2) n where n <> 0 $$;
insert into sessions (id, started_at, ended_at)
    select md5('session' || n)::uuid, at, case when random() < 0.7 then at + random() * (now() - at) end
    from (select n, pg_temp.age('60 days') as at from generate_series(1, 800) n) s;
insert into actions (session_id, tool_name, created_at)
    select case when random() < 0.95 then md5('session' || 1 + floor(random() * 850))::uuid end, 'Read',
        pg_temp.age('20 days')
    from generate_series(1, 4000);
insert into actions (session_id, created_at)
    select md5('session' || n)::uuid, at from generate_series(1, 9) n, pg_temp.edges('15 minutes') at
    union all select md5('session5')::uuid, at from pg_temp.edges('5 minutes') at;
insert into task_lists (name, status, created_at, completed_at)
    select 'list', (array['pending', 'running', 'completed', 'failed', 'cancelled'])[1 + floor(5 * random())]::state,
        case when random() < 0.98 then at end, case when random() < 0.6 then at + random() * (now() - at) end
    from (select pg_temp.age('40 days') as at from generate_series(1, 2500)) s;
insert into task_lists (status, created_at, completed_at)
    select 'completed', at - interval '1.0005 seconds', at from pg_temp.edges('1 hour') at;
-- completed before it was made, as clocks that differ have it
insert into task_lists (status, created_at, completed_at)
    values ('completed', now(), now() - interval '3 seconds'), ('failed', now() - interval '400 days', now()),
        ('running', now(), now());
insert into subtasks (agent_id, status, created_at, completed_at)
    select case when random() < 0.8 then 'agent ' || floor(60 * power(random(), 2)) end,
        (array['pending', 'running', 'completed', 'failed'])[1 + floor(4 * random())]::state,
        at, case when random() < 0.5 then at + interval '1 minute' end
    from (select pg_temp.age('40 days') as at from generate_series(1, 3000)) s;
insert into subtasks (agent_id, status) values ('', 'running'), ('équipe', 'running'), ('équipe ', 'running');
insert into agent_messages (from_agent_id, created_at)
    select 'agent', pg_temp.age('10 days') from generate_series(1, 2000)
    union all select 'agent', pg_temp.edges('1 hour');
"""

SHAPES = {
    "as made here": "create domain state as text",
    "times without a zone": "create domain state as text;"
    + "".join(
        f"alter table {table} alter {column} type timestamp;"
        for table, columns in {
            "sessions": ("started_at", "ended_at"),
            "actions": ("created_at",),
            "task_lists": ("created_at", "completed_at"),
            "subtasks": ("created_at", "completed_at"),
            "agent_messages": ("created_at",),
        }.items()
        for column in columns
    ),
    "some with a zone": "create domain state as text;"
    " alter table task_lists alter completed_at type timestamp;"
    " alter table actions alter created_at type timestamp(3);",
    "enumerations and UUIDs": "create type state as enum ('pending', 'running', 'completed', 'failed', 'cancelled');"
    " alter table task_lists alter status drop default, alter status type state using status::state;"
    " alter table subtasks alter status drop default, alter status type state using status::state;"
    " alter table sessions alter id type uuid using id::uuid;"
    " alter table actions alter session_id type uuid using session_id::uuid;",
    "partitions": "create domain state as text; drop table actions;"
    " create table actions (id serial, session_id varchar(255), tool_name text, created_at timestamptz not null)"
    " partition by range (created_at);"
    " create table old_actions partition of actions for values from (minvalue) to ('2020-01-01');"
    " create table new_actions partition of actions for values from ('2020-01-01') to (maxvalue);",
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_figure_is_that_of_the_definitions(own: PostgresServer, name: str) -> None:
    """
    On thousands of rows of many ages and states, in tables of different types, each figure is what its definition
    gives.
    """
    zone = "America/St_Johns" if "zone" in name else "UTC"
    own.execute(f"alter database kpis set timezone = '{zone}'")
    own.execute(TABLES)
    own.execute(SHAPES[name])
    own.execute("alter table task_lists alter created_at drop not null")
    own.execute(MANY_ROWS)

    def defined() -> dict[str, float]:
        together = ", ".join(f"({sql}) as {name}" for name, sql in DEFINITIONS.items())
        values = own.execute(f"select {together}")[0]
        return {name: float(value) for name, value in zip(DEFINITIONS, values, strict=True)}

    with polling(own) as running:
        client = subscribed(running)
        for _ in range(100):
            before, figures, after = defined(), snapshot(client), defined()
            if before == after:
                break
    assert before == after
    assert figures.pop("avg_task_duration_ms") == pytest.approx(before.pop("avg_task_duration_ms"), rel=1e-12)
    assert figures == before
    assert all(value > 3 for value in before.values()), before


def test_times_without_end(own: PostgresServer) -> None:
    """
    Rows with impossible times spoil no figure: each one is a finite number.
    """
    own.execute(TABLES + ROWS)
    with polling(own) as running:
        client = subscribed(running)
        good = snapshot(client)
        own.execute(
            "insert into task_lists (status, created_at, completed_at) values ('failed', now(), 'infinity'),"
            " ('failed', '-infinity', now()), ('failed', '-infinity', 'infinity'), ('failed', 'infinity', 'infinity')"
        )
        own.execute("insert into actions (created_at) values ('-infinity')")
        own.execute("insert into task_lists (status) values ('cancelled')")
        assert snapshot(client) == good
        own.execute("delete from task_lists where isfinite(completed_at)")
        assert snapshot_where(client, lambda figures: figures["avg_task_duration_ms"] == 0)
        own.execute(
            "insert into task_lists (created_at, completed_at) values ('294276-12-31 23:59:59+00', '4713-01-01 BC')"
        )
        assert snapshot_where(client, lambda figures: figures["avg_task_duration_ms"] < -1e15)


# objects that others have made

HOSTILE = {
    "a view": "create view actions as select 'x'::text as session_id, now() as created_at where evil('')",
    "a policy": "create table actions (session_id text, created_at timestamptz default now());"
    " insert into actions default values;"
    " alter table actions enable row level security; create policy trap on actions using (evil(''))",
    "a cast": "create type state as enum ('running', 'pending', 'completed');"
    " create function cast_state(state) returns text language plpgsql"
    " as $$ begin perform evil(''); return 'running'; end $$;"
    " create cast (state as text) with function cast_state(state) as implicit;"
    " create table subtasks (agent_id text, status state); insert into subtasks values ('ann', 'running');"
    " create table task_lists (status state, created_at timestamptz, completed_at timestamptz);"
    " insert into task_lists values ('running', now(), now())",
    "functions and operators": "create function now() returns timestamptz language plpgsql"
    " as $$ begin perform public.evil(''); return pg_catalog.now(); end $$;"
    " create function later(timestamptz, timestamptz) returns bool language plpgsql"
    " as $$ begin perform public.evil(''); return true; end $$;"
    " create operator > (function = later, leftarg = timestamptz, rightarg = timestamptz)",
    "a type": "create table actions (session_id text, created_at timestamptz default now());"
    " insert into actions default values;"
    " create type moment as (at timestamptz); create function cast_moment(moment) returns timestamptz language plpgsql"
    " as $$ begin perform evil(''); return now(); end $$;"
    " create cast (moment as timestamptz) with function cast_moment(moment) as implicit;"
    " alter table actions alter created_at drop default,"
    " alter created_at type moment using row(created_at)::moment",
    "a condition of an index": "create table actions (session_id text, created_at timestamptz default now());"
    " create index on actions (created_at) where evil('')",
    "a constraint": "create table actions (session_id text, created_at timestamptz default now());"
    " create table more (check (evil(''))) inherits (actions)",
}


@pytest.fixture
def shared(own: PostgresServer) -> Iterator[PostgresServer]:
    """
    A database with the tables in the second schema of the search path, whose first one everybody may create in: role
    C{mallory} has a function there, which leaves a lock with the session that runs it.
    """
    own.execute("create schema dcm; alter database kpis set search_path = public, dcm")
    own.execute("set search_path = dcm;" + TABLES + ROWS)
    own.execute("create role mallory login; create role service login; grant create on schema public to mallory")
    own.execute("grant usage on schema dcm to public; grant select on all tables in schema dcm to public")
    mallory = copy.copy(own)
    mallory.url = own.url.replace("//dcm@", "//mallory@")
    mallory.execute(
        "create function evil(text) returns bool language plpgsql immutable"
        " as $$ begin perform pg_advisory_lock(4711); return true; end $$"
    )
    yield own
    own.execute("drop table if exists public.more")
    own.execute("drop owned by mallory, service cascade; drop role mallory, service")


@pytest.mark.parametrize("name", HOSTILE)
def test_nobody_elses_code_runs(shared: PostgresServer, name: str) -> None:
    """
    Objects with the names of tables, functions, operators and casts, in a schema that anyone may create in, do not
    make the metrics run a function of their owner; the figures that are not touched stay right.
    """
    if "functions" in name:
        shared.execute("alter database kpis set search_path = public, pg_catalog, dcm")
    mallory = copy.copy(shared)
    mallory.url = shared.url.replace("//dcm@", "//mallory@")
    mallory.execute(HOSTILE[name])
    mallory.execute("grant select on all tables in schema public to public")
    limited = copy.copy(shared)
    limited.url = shared.url.replace("//dcm@", "//service@")
    trapped = (
        "select count(*) from pg_catalog.pg_locks where locktype = 'advisory' and objid operator(pg_catalog.=) 4711"
    )
    with contextlib.closing(psycopg2.connect(limited.url)) as careless, careless.cursor() as cursor:
        careless.autocommit = True
        for sql in DEFINITIONS.values():
            with contextlib.suppress(psycopg2.Error):
                cursor.execute(sql.replace("::text", "") if "cast" in name else sql)
        assert mallory.execute(trapped)[0][0] > 0, "the trap does not work"
    until(lambda: mallory.execute(trapped) == [(0,)])
    with polling(limited) as running:
        client = subscribed(running)
        for _ in range(15):
            figures = snapshot(client)
        assert figures["messages_last_hour"] == 2
        assert figures["active_sessions"] >= 2
        assert mallory.execute(trapped) == [(0,)]


def test_first_ordinary_table_of_the_search_path_is_read(shared: PostgresServer) -> None:
    """
    A table is found behind a view of its name in a schema before; where there is nothing else than a view, the log
    says so.
    """
    shared.execute("create view public.actions as select * from dcm.actions")
    shared.execute("create materialized view public.agent_messages as select * from dcm.agent_messages")
    shared.execute("drop table dcm.subtasks; create view public.subtasks as select 'ann' agent_id, 'running' status")
    with polling(shared) as running:
        figures = snapshot(subscribed(running))
    assert (figures["actions_per_minute"], figures["messages_last_hour"], figures["active_agents"]) == (0.8, 2, 0)
    assert running.log.count("some metrics are given as 0") == 1
    assert "public.subtasks is a view, and only ordinary tables are read" in running.log


def test_a_table_that_becomes_a_view_while_the_service_runs(shared: PostgresServer) -> None:
    """
    A view put in the place of a table that was found before is not read, either.
    """
    mallory = copy.copy(shared)
    mallory.url = shared.url.replace("//dcm@", "//mallory@")
    mallory.execute("create table actions (session_id text, created_at timestamptz default now())")
    mallory.execute("grant select on actions to public")
    limited = copy.copy(shared)
    limited.url = shared.url.replace("//dcm@", "//service@")
    with polling(limited) as running:
        client = subscribed(running)
        assert snapshot(client)["actions_per_minute"] == 0
        mallory.execute("drop table actions; " + HOSTILE["a view"] + "; grant select on actions to public")
        snapshot_where(client, lambda figures: figures["actions_per_minute"] == 0.8)
        assert mallory.execute("select count(*) from pg_locks where locktype = 'advisory'") == [(0,)]
