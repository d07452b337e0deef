"""
dcm-ws init-db on tables of real installations: those of the replaced server, partitioned ones, replicas.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.cli.installing import init, sent
from tests.cli.running import check, run
from tests.integration.databases import PostgresServer, postgres
from tests.integration.machine import until

pytestmark = pytest.mark.integration

REPLACED = """
create table sessions (id text primary key, started_at timestamptz default now(), ended_at timestamptz);
create table task_lists (id uuid primary key default gen_random_uuid(), request_id uuid, name text, wave_number int,
    status text default 'pending', created_at timestamptz default now(), completed_at timestamptz);
create table subtasks (id uuid primary key default gen_random_uuid(), task_list_id uuid references task_lists,
    agent_type text, agent_id text, description text, status varchar(20) default 'pending',
    created_at timestamptz default now(), completed_at timestamptz, result jsonb);
create table agent_messages (id uuid primary key default gen_random_uuid(), from_agent_id text, to_agent_id text,
    topic text, payload jsonb, priority int default 0, read_by text[] default '{}',
    created_at timestamptz default now(), expires_at timestamptz);
create table actions (id bigserial primary key, session_id text, tool_name text, created_at timestamptz default now());
"""

PARTITIONED = """
create table sessions (id text, started_at timestamptz, ended_at timestamptz, primary key (id, started_at))
    partition by range (started_at);
create table sessions_2026 partition of sessions for values from ('2026-01-01') to ('2027-01-01');
create table sessions_2027 partition of sessions for values from ('2027-01-01') to ('2028-01-01');
create table task_lists (id bigint, name text, status text) partition by list (status);
create table task_lists_done partition of task_lists for values in ('completed', 'failed');
create table task_lists_open partition of task_lists default;
create table subtasks (id bigint, agent_id text, description text, status text) partition by list (status);
create table subtasks_pending partition of subtasks for values in ('pending');
create table subtasks_rest partition of subtasks default partition by list (status);
create table subtasks_running partition of subtasks_rest for values in ('running');
create table subtasks_over partition of subtasks_rest default;
create table agent_messages (id bigint, to_agent_id text, read_by text[], read_at timestamptz, expires_at timestamptz,
    archived boolean not null default false) partition by list (archived);
create table agent_messages_new partition of agent_messages for values in (false);
create table agent_messages_old partition of agent_messages for values in (true);
create table actions (id bigint, session_id text, tool_name text, created_at timestamptz);
"""


def names(server: PostgresServer, *statements: str) -> list[str]:
    return [event["event"] for event in sent(server, *statements)]


def line(folder: Path, server: PostgresServer, name: str = "triggers") -> dict[str, Any]:
    finding: dict[str, Any] = check(folder, "--ws-port", "0", DATABASE_URL=server.url)[1][name]
    return finding


def test_the_tables_of_the_replaced_server(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    Its tables keep their columns, and its rows become its events; a message is read when read_by gets an element.
    """
    fresh.execute(REPLACED)
    columns = "select count(*) from information_schema.columns where table_schema = 'public'"
    before = fresh.execute(columns)
    init(tmp_path, fresh)
    assert fresh.execute(columns) == before
    assert names(
        fresh,
        "insert into sessions (id) values ('s')",
        "update sessions set ended_at = now()",
        "insert into task_lists (name) values ('t')",
        "update task_lists set status = 'completed', completed_at = now()",
        "insert into subtasks (agent_id, task_list_id) select 'a', id from task_lists",
        "update subtasks set status = 'running'",
        "insert into agent_messages (to_agent_id, payload) values ('a', '{}')",
        "update agent_messages set read_by = array_append(read_by, 'a')",
        "update agent_messages set read_by = array_append(read_by, 'b')",
        "update agent_messages set read_by = array['b', 'a']",
        "update agent_messages set read_by = array_remove(read_by, 'a')",
        "update agent_messages set read_by = null",
        "update agent_messages set read_by = array['c']",
        "update agent_messages set expires_at = '-infinity'",
    ) == [
        *("session.created", "session.ended", "task.created", "task.completed", "subtask.created", "subtask.running"),
        *("message.new", "message.read", "message.read", "message.read", "message.expired"),
    ]


def test_rows_that_move_to_another_partition(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    An UPDATE that moves a row is the event of an UPDATE; a DELETE and an INSERT are those of a new row.
    """
    fresh.execute(PARTITIONED)
    init(tmp_path, fresh)
    assert "already installed, unchanged" in init(tmp_path, fresh)
    assert names(
        fresh,
        "insert into subtasks values (1, 'a', 'd', 'pending'), (2, 'a', 'd', 'pending'), (3, 'b', 'd', 'pending')",
        "update subtasks set status = 'running' where id = 1",
        "update subtasks set status = 'completed' where id in (1, 2)",
        "update subtasks set description = 'e' where id = 2",
        "update subtasks set status = 'blocked' where id = 3",
        "update subtasks_rest set status = 'running' where id = 3",
    ) == [
        *("subtask.created", "subtask.created", "subtask.created", "subtask.running"),
        *("subtask.completed", "subtask.completed", "subtask.updated", "subtask.updated", "subtask.running"),
    ]
    assert names(
        fresh,
        "insert into task_lists values (1, 't', 'pending')",
        "update task_lists set status = 'failed'",
        "insert into sessions values ('s', '2026-12-31', null)",
        "update sessions set started_at = '2027-01-02', ended_at = '2027-01-03'",
        "update sessions set started_at = '2026-01-02'",
        "insert into agent_messages (id, read_by) values (1, '{}')",
        "update agent_messages set read_by = '{a}', archived = true",
        "update agent_messages set read_by = '{a,b}', archived = false",
        "update agent_messages set expires_at = now(), archived = true",
        "update agent_messages set archived = false",
    ) == [
        *("task.created", "task.failed", "session.created", "session.ended"),
        *("message.new", "message.read", "message.read", "message.expired"),
    ]


def test_a_delete_is_not_half_of_an_update(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    A row that is deleted and inserted again is new, in one transaction or in one message to the server.
    """
    fresh.execute(PARTITIONED)
    init(tmp_path, fresh)
    again = "delete from subtasks where id = 1; insert into subtasks values (1, 'a', 'd', 'completed')"
    assert names(fresh, "insert into subtasks values (1, 'a', 'd', 'pending')", again, f"begin; {again}; commit") == [
        *("subtask.created", "subtask.created", "subtask.created"),
    ]
    assert names(fresh, "delete from subtasks") == []
    # of a move that was rolled back nothing is left
    assert names(
        fresh,
        "insert into subtasks values (1, 'a', 'd', 'pending')",
        "begin; savepoint a; update subtasks set status = 'completed'; rollback to a;"
        " insert into subtasks values (1, 'a', 'd', 'running'); commit",
    ) == ["subtask.created", "subtask.created"]


def test_merge_moves_rows(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    MERGE that updates moves rows as UPDATE does.
    """
    fresh.execute(PARTITIONED)
    init(tmp_path, fresh)
    assert names(
        fresh,
        "insert into subtasks values (1, 'a', 'd', 'pending')",
        "merge into subtasks s using (values (1), (2)) as v (id) on s.id = v.id"
        " when matched then update set status = 'completed'"
        " when not matched then insert values (v.id, 'b', 'd', 'pending')",
    ) == ["subtask.created", "subtask.completed", "subtask.created"]


def test_partitions_made_later(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    Partitions that are added send events, too, also for rows that are written to them directly.
    """
    fresh.execute(PARTITIONED)
    init(tmp_path, fresh)
    fresh.execute("create table sessions_2028 partition of sessions for values from ('2028-01-01') to ('2029-01-01')")
    assert names(
        fresh,
        "insert into sessions values ('s', '2028-02-01', null)",
        "insert into sessions_2028 values ('t', '2028-02-01', null)",
        "update sessions_2028 set ended_at = now() where id = 't'",
        "update sessions set started_at = '2026-02-01', ended_at = now() where id = 's'",
    ) == ["session.created", "session.created", "session.ended", "session.ended"]


def test_the_triggers_of_version_1(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    What an older dcm-ws put on partitioned tables is replaced.
    """
    fresh.execute(PARTITIONED)
    fresh.execute(
        "create function dcm_ws_notify() returns trigger language plpgsql as 'begin return null; end';"
        "comment on function dcm_ws_notify() is 'dcm-ws triggers, version 2'"
    )
    for table in ("sessions", "task_lists", "subtasks", "agent_messages"):
        fresh.execute(
            f"create trigger dcm_ws_notify after insert or update on {table} for each row"
            f" execute function dcm_ws_notify('{table}')"
        )
    assert line(tmp_path, fresh)["good"] and "init-db --apply" in line(tmp_path, fresh)["text"]
    init(tmp_path, fresh)
    assert names(
        fresh, "insert into subtasks values (1, 'a', 'd', 'pending')", "update subtasks set status = 'completed'"
    ) == ["subtask.created", "subtask.completed"]
    init(tmp_path, fresh, "--remove")
    assert fresh.execute("select count(*) from pg_trigger where tgname like 'dcm_ws%%'") == [(0,)]
    assert fresh.execute("select count(*) from pg_proc where proname = 'dcm_ws_notify'") == [(0,)]


def test_triggers_that_are_disabled(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    A disabled trigger is red, and --apply enables it, on every partition.
    """
    fresh.execute(PARTITIONED)
    init(tmp_path, fresh)
    assert line(tmp_path, fresh)["good"]
    fresh.execute("alter table subtasks disable trigger dcm_ws_notify")
    fresh.execute("alter table subtasks_pending disable trigger dcm_ws_notify")
    assert not line(tmp_path, fresh)["good"] and "disabled on subtasks" in line(tmp_path, fresh)["text"]
    init(tmp_path, fresh)
    assert line(tmp_path, fresh)["good"]
    assert names(fresh, "insert into subtasks values (1, 'a', 'd', 'pending')") == ["subtask.created"]


def test_rows_of_logical_replication(tmp_path: Path) -> None:
    """
    They send no events, and check says so, until the triggers fire for them, too; partitions included.
    """
    with postgres() as source, postgres() as target:
        source.execute("alter system set wal_level = logical")
        source.stop()
        source.start()
        for server in (source, target):
            server.execute(PARTITIONED)
            server.execute("alter table subtasks_pending replica identity full")
        init(tmp_path, target)
        assert line(tmp_path, target)["good"]
        source.execute("create publication events for all tables")
        target.execute(f"create subscription events connection '{source.url}' publication events")
        triggers = line(tmp_path, target)
        assert not triggers["good"] and "subtasks" in triggers["text"] and "--replicated" in triggers["hint"]
        init(tmp_path, target, "--replicated")
        assert line(tmp_path, target)["good"]
        assert "already installed, unchanged" in init(tmp_path, target, "--replicated")

        with contextlib.closing(psycopg2.connect(target.url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute("listen dcm_events")
            until(lambda: target.execute("select bool_and(srsubstate = 'r') from pg_subscription_rel") == [(True,)], 60)
            source.execute("insert into subtasks values (1, 'a', 'd', 'pending')")

            def came() -> bool:
                connection.poll()
                return bool(connection.notifies)

            until(came, 60)
            assert json.loads(connection.notifies[0].payload)["event"] == "subtask.created"
        target.execute("alter subscription events disable")
        target.execute("alter subscription events set (slot_name = none)")
        target.execute("drop subscription events")


def test_a_standby(tmp_path: Path) -> None:
    """
    On a standby nothing can be installed, which the error says; check finds the triggers of its primary there.
    """
    with postgres() as primary:
        init(tmp_path, primary)
        with postgres(primary=primary) as standby:
            for arguments in ((), ("--remove",)):
                done = run(tmp_path, "init-db", "--apply", *arguments, DATABASE_URL=standby.url)
                assert done.returncode == 1 and "read-only" in done.stderr and "primary" in done.stderr, done
            _, found = check(tmp_path, "--ws-port", "0", DATABASE_URL=standby.url)
            assert found["triggers"]["good"] and found["tables"]["good"] and not found["listen"]["good"], found
