"""
dcm-ws init-db: plain INSERTs and UPDATEs become events that clients see.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from websockets.sync.client import ClientConnection

from dcm_ws.postgres.triggers import VERSION
from tests.cli.running import run
from tests.integration.clients import hear
from tests.integration.databases import PostgresServer, postgres
from tests.integration.running import Service, service

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def own() -> Iterator[PostgresServer]:
    """
    A database that init-db was applied to.
    """
    with postgres() as server:
        yield server


@pytest.fixture(scope="module")
def running(own: PostgresServer) -> Iterator[Service]:
    with service("--database-url", own.url) as started:
        yield started


@pytest.fixture
def applied(tmp_path: Path, own: PostgresServer) -> PostgresServer:
    done = run(tmp_path, "init-db", "--apply", DATABASE_URL=own.url)
    assert done.returncode == 0, done.stderr
    return own


@pytest.fixture
def client(applied: PostgresServer, running: Service) -> Iterator[ClientConnection]:
    running.read_log_until("listening to dcm_events")
    connected = running.connect()
    yield connected
    connected.close()


@pytest.fixture
def server(own: PostgresServer) -> Iterator[PostgresServer]:
    """
    An empty database.
    """
    with own.another_database() as made:
        yield made


def next_event(client: ClientConnection) -> tuple[str, dict[str, Any]]:
    frame = hear(client)
    assert frame["channel"] == "global", frame
    return frame["event"], frame["data"]


def test_every_event(applied: PostgresServer, client: ClientConnection) -> None:
    """
    Each statement becomes the event that it says, with the row as its data.
    """
    for sql, event, data in (
        ("insert into sessions (id) values ('s1')", "session.created", {"id": "s1"}),
        ("update sessions set ended_at = now() where id = 's1'", "session.ended", {"id": "s1"}),
        ("insert into task_lists (id, name) values ('t1', 'x')", "task.created", {"name": "x", "status": "pending"}),
        ("update task_lists set status = 'running' where id = 't1'", "task.updated", {"status": "running"}),
        ("update task_lists set status = 'completed' where id = 't1'", "task.completed", {"status": "completed"}),
        ("update task_lists set name = 'y' where id = 't1'", "task.updated", {"name": "y"}),
        ("update task_lists set status = 'failed' where id = 't1'", "task.failed", {"status": "failed"}),
        ("insert into subtasks (id, agent_id) values ('u1', 'a1')", "subtask.created", {"agent_id": "a1"}),
        ("update subtasks set status = 'running'", "subtask.running", {"id": "u1"}),
        ("update subtasks set description = 'd'", "subtask.updated", {"description": "d"}),
        ("update subtasks set status = 'completed', result = '{\"n\": 1}'", "subtask.completed", {"result": {"n": 1}}),
        ("update subtasks set status = 'failed'", "subtask.failed", {"id": "u1"}),
        ("insert into agent_messages (id, to_agent_id) values ('m1', 'a1')", "message.new", {"to_agent_id": "a1"}),
        ("update agent_messages set expires_at = now() - interval '1 s'", "message.expired", {"id": "m1"}),
    ):
        applied.execute(sql)
        came, told = next_event(client)
        assert came == event, sql
        assert told.items() >= data.items(), sql


def test_channels(applied: PostgresServer, running: Service) -> None:
    """
    Events about an agent, a topic or a session are published on its own channel.
    """
    running.read_log_until("listening to dcm_events")
    client = running.connect("/?agent_id=a2")
    for channel in ("agents/a2", "topics/t/x", "sessions/s2"):
        client.send(json.dumps({"type": "subscribe", "channel": channel, "id": 1}))
        assert hear(client)["success"]
    for sql, channel in (
        ("insert into subtasks (agent_id) values ('a2')", "agents/a2"),
        ("insert into agent_messages (to_agent_id) values ('a2')", "agents/a2"),
        ("insert into agent_messages (topic) values ('t/x')", "topics/t/x"),
        ("insert into sessions (id) values ('s2')", "sessions/s2"),
    ):
        applied.execute(sql)
        assert [hear(client)["channel"], hear(client)["channel"]] == [channel, "global"], sql
    client.close()


def test_nothing_for_nothing(applied: PostgresServer, client: ClientConnection) -> None:
    """
    An UPDATE that changes nothing, and a transaction that is rolled back, are no events.
    """
    applied.execute("insert into task_lists (id) values ('same')")
    assert next_event(client)[0] == "task.created"
    applied.execute("update task_lists set name = name where id = 'same'")
    applied.execute("begin; insert into task_lists (id) values ('never'); rollback")
    applied.execute("insert into sessions (id) values ('after')")
    assert next_event(client)[0] == "session.created"


def test_an_unprivileged_role(applied: PostgresServer, client: ClientConnection, tmp_path: Path) -> None:
    """
    Who may do no more than INSERT causes events all the same; and cannot run init-db, which says so and changes
    nothing.
    """
    applied.execute("drop role if exists plain")
    applied.execute("create role plain login")
    applied.execute("grant insert on task_lists to plain")
    url = applied.url.replace("dcm@", "plain@")
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("insert into task_lists (name) values ('by plain')")
    assert next_event(client)[1]["name"] == "by plain"
    done = run(tmp_path, "init-db", "--remove", "--apply", DATABASE_URL=url)
    assert done.returncode == 1 and "nothing was changed" in done.stderr
    assert applied.execute("select count(*) from pg_trigger where tgname = 'dcm_ws_notify'") == [(4,)]
    applied.execute("drop owned by plain")
    applied.execute("drop role plain")


def test_an_error_in_the_trigger_does_not_abort(applied: PostgresServer, client: ClientConnection) -> None:
    """
    Tables of another shape, with values that are no times, do not make the user's statements fail.
    """
    applied.execute("create table odd (id int, expires_at text)")
    applied.execute("create trigger t after insert or update on odd for each row"
                    " execute function dcm_ws_notify('agent_messages')")  # fmt: skip
    applied.execute("insert into odd values (1, 'whenever')")
    assert next_event(client)[0] == "message.new"
    applied.execute("update odd set expires_at = 'never at all'")
    assert applied.execute("select expires_at from odd") == [("never at all",)]
    applied.execute("drop table odd")


def test_a_row_that_is_no_jsonb_does_not_abort(applied: PostgresServer) -> None:
    """
    Not even a row that cannot be told at all makes the user's statement fail.
    """
    applied.execute("create table odder (id int, told json)")
    applied.execute("create trigger t after insert or update on odder for each row"
                    " execute function dcm_ws_notify('task_lists')")  # fmt: skip
    applied.execute("insert into odder values (1, %s)", '"\\u0000"')
    applied.execute("update odder set id = 2")
    assert applied.execute("select id from odder") == [(2,)]
    applied.execute("drop table odder")


def test_empty_names(applied: PostgresServer, running: Service) -> None:
    """
    An empty column names nobody: the event goes to whom the next one names, or to all.
    """
    running.read_log_until("listening to dcm_events")
    client = running.connect()
    client.send(json.dumps({"type": "subscribe", "channel": "topics/e", "id": 1}))
    assert hear(client)["success"]
    for sql, channels in (
        ("insert into agent_messages (to_agent_id, topic) values ('', 'e')", ["topics/e", "global"]),
        ("insert into agent_messages (to_agent_id, topic) values ('', '')", ["global"]),
        ("insert into subtasks (agent_id) values ('')", ["global"]),
        ("insert into sessions (id) values ('')", ["global"]),
    ):
        applied.execute(sql)
        assert [hear(client)["channel"] for _ in channels] == channels, sql
    client.close()


def test_a_column_that_is_no_time(applied: PostgresServer) -> None:
    """
    Where expires_at is a number, an UPDATE warns of nothing.
    """
    with closing(psycopg2.connect(applied.url)) as connection, connection.cursor() as cursor:
        cursor.execute("create temp table numbered (id int, expires_at bigint)")
        cursor.execute("create trigger t after insert or update on numbered for each row"
                       " execute function dcm_ws_notify('agent_messages')")  # fmt: skip
        cursor.execute("insert into numbered values (1, 1790000000000)")
        cursor.execute("update numbered set expires_at = 1")
        assert connection.notices == []


def test_again_and_back(tmp_path: Path, server: PostgresServer) -> None:
    """
    Applying twice changes nothing; removing leaves the tables, and nothing else.
    """
    variables = {"DATABASE_URL": server.url}

    def init(*arguments: str) -> dict[str, int]:
        done = run(tmp_path, "init-db", "--apply", "--json", "--without-log", *arguments, **variables)
        assert done.returncode == 0, done.stderr
        answer: dict[str, int] = json.loads(done.stdout)
        return answer

    objects = "select count(*), max(xmin::text) from pg_trigger where tgname = 'dcm_ws_notify'"
    assert init() == {"before": 0, "version": VERSION}
    made = server.execute(objects)
    assert init() == {"before": VERSION, "version": VERSION}
    assert server.execute(objects) == made and made[0][0] == 4
    assert init("--remove") == {"before": VERSION, "version": 0}
    assert init("--remove") == {"before": 0, "version": 0}
    assert server.execute("select count(*) from pg_trigger where tgname = 'dcm_ws_notify'") == [(0,)]
    assert server.execute("select to_regprocedure('dcm_ws_notify()')") == [(None,)]
    assert server.execute("select count(*) from task_lists") == [(0,)]


def test_tables_that_were_there(tmp_path: Path, server: PostgresServer) -> None:
    """
    Tables of an installation's own keep their columns, and get triggers.
    """
    server.execute("create table sessions (id int primary key, started_at timestamptz, ended_at timestamptz)")
    assert run(tmp_path, "init-db", "--apply", DATABASE_URL=server.url).returncode == 0
    server.execute("insert into sessions values (7)")
    assert server.execute("select id from sessions") == [(7,)]


def apply(folder: Path, server: PostgresServer, *arguments: str) -> str:
    """
    What init-db --apply says of the triggers; it must succeed.
    """
    done = run(folder, "init-db", "--apply", "--without-log", *arguments, DATABASE_URL=server.url)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def triggers(server: PostgresServer) -> list[str]:
    rows = server.execute(
        "select tgrelid::regclass::text from pg_trigger where tgname = 'dcm_ws_notify' and not tgisinternal order by 1"
    )
    return [row[0] for row in rows]


def test_tables_of_a_later_schema(tmp_path: Path, server: PostgresServer) -> None:
    """
    Tables that the search path finds get the triggers, and no empty ones are put before them; what was made is found
    again, though a nearer schema appears.
    """
    server.execute("create table public.sessions (id int primary key, ended_at timestamptz)")
    server.execute("create schema dcm")
    apply(tmp_path, server)
    assert server.execute("select to_regclass('sessions')::text") == [("sessions",)]
    assert server.execute("select to_regclass('dcm.sessions')") == [(None,)]
    assert "sessions" in triggers(server) and len(triggers(server)) == 4
    apply(tmp_path, server, "--remove")
    assert (triggers(server), server.execute("select to_regprocedure('dcm.dcm_ws_notify()')")) == ([], [(None,)])

    server.execute("alter schema dcm rename to other")
    server.execute(f"alter database {server.name} set search_path = '$user', public, other")
    apply(tmp_path, server)
    server.execute("create schema dcm")
    server.execute("comment on function public.dcm_ws_notify() is 'dcm-ws triggers, version 1'")
    assert apply(tmp_path, server) == f"triggers, version {VERSION}: installed"
    assert server.execute("select count(*) from pg_proc where proname = 'dcm_ws_notify'") == [(1,)]
    server.execute("create schema hidden; alter function public.dcm_ws_notify() set schema hidden")
    assert apply(tmp_path, server) == f"triggers, version {VERSION}: already installed, unchanged"
    apply(tmp_path, server, "--remove")
    assert server.execute("select count(*) from pg_proc where proname = 'dcm_ws_notify'") == [(0,)]


def test_an_older_schema(tmp_path: Path, server: PostgresServer) -> None:
    """
    Tables that lack columns, or have keys of another type, are taken as they are.
    """
    server.execute("create table task_lists (id uuid primary key, status text)")
    server.execute("create table agent_messages (id serial primary key)")
    server.execute("create table actions (id serial primary key)")
    apply(tmp_path, server)
    assert len(triggers(server)) == 4
    server.execute("insert into agent_messages default values")
    indexed = "select tablename, count(*) from pg_indexes where schemaname = 'public' group by 1 order by 1"
    assert server.execute(indexed) == [
        *[("actions", 1), ("agent_messages", 1), ("sessions", 1), ("subtasks", 3), ("task_lists", 1)]
    ]


def test_a_table_made_anew(tmp_path: Path, server: PostgresServer) -> None:
    """
    What a table lost, or a database lost, is made again, and what is there is left alone.
    """
    apply(tmp_path, server)
    kept = "select oid from pg_trigger where tgname = 'dcm_ws_notify' and tgrelid = 'sessions'::regclass"
    before = server.execute(kept)
    server.execute("drop table subtasks; create table subtasks (id int); drop table actions")
    assert apply(tmp_path, server) == f"triggers, version {VERSION}: created what was missing: subtasks, actions"
    assert (triggers(server).count("subtasks"), server.execute(kept)) == (1, before)
    assert server.execute("select count(*) from actions") == [(0,)]
    assert apply(tmp_path, server) == f"triggers, version {VERSION}: already installed, unchanged"


def test_removing_from_where_they_are(tmp_path: Path, server: PostgresServer) -> None:
    """
    Tables that were renamed, moved or divided since are found all the same.
    """
    server.execute("create table subtasks (id int, status text) partition by list (status)")
    server.execute("create table pending partition of subtasks for values in ('pending')")
    apply(tmp_path, server)
    server.execute("create table running partition of subtasks for values in ('running')")
    server.execute('alter table sessions rename to "Old sessions"')
    server.execute("create schema archive; alter table task_lists set schema archive")
    assert apply(tmp_path, server, "--remove") == "triggers removed; the tables stay"
    assert server.execute("select count(*) from pg_trigger where tgname = 'dcm_ws_notify'") == [(0,)]
    assert server.execute("select count(*) from pg_proc where proname = 'dcm_ws_notify'") == [(0,)]
    assert apply(tmp_path, server, "--remove") == "there were no triggers"


@pytest.mark.parametrize("arguments", [(), ("--remove",)])
def test_a_table_in_use(tmp_path: Path, arguments: tuple[str, ...], server: PostgresServer) -> None:
    """
    Where a long transaction holds a table, it gives up, so that nobody has to wait behind it.
    """
    apply(tmp_path, server)
    before = triggers(server)
    server.execute("comment on function dcm_ws_notify() is 'dcm-ws triggers, version 1'")
    server.execute("drop trigger dcm_ws_notify on sessions")
    with closing(psycopg2.connect(server.url)) as other, other.cursor() as cursor:
        cursor.execute("insert into sessions (id) values ('long')")
        cursor.execute("insert into subtasks (id) values ('long')")
        done = run(tmp_path, "init-db", "--apply", *arguments, DATABASE_URL=server.url)
    assert done.returncode == 1 and "nothing was changed" in done.stderr and "try again" in done.stderr
    assert triggers(server) == [table for table in before if table != "sessions"]


def test_an_older_version_is_replaced(tmp_path: Path, server: PostgresServer) -> None:
    """
    --apply brings what an older dcm-ws made to this version.
    """
    apply(tmp_path, server)
    server.execute(
        "create or replace function dcm_ws_notify() returns trigger language plpgsql as"
        " 'begin return null; end'; comment on function dcm_ws_notify() is 'dcm-ws triggers, version 1'"
    )
    done = json.loads(apply(tmp_path, server, "--json"))
    assert done == {"before": 1, "version": VERSION} and VERSION > 1
    with service("--database-url", server.url) as running:
        running.read_log_until("listening to dcm_events")
        client = running.connect()
        server.execute("insert into sessions (id) values ('s')")
        assert next_event(client)[0] == "session.created"
        client.close()


def test_a_newer_version_is_left_alone(tmp_path: Path, server: PostgresServer) -> None:
    """
    Triggers that a newer dcm-ws made are not replaced.
    """
    assert run(tmp_path, "init-db", "--apply", DATABASE_URL=server.url).returncode == 0
    server.execute("comment on function dcm_ws_notify() is 'dcm-ws triggers, version 999'")
    done = run(tmp_path, "init-db", "--apply", DATABASE_URL=server.url)
    assert done.returncode == 1 and "999" in done.stderr


def test_what_is_shown_can_be_run(tmp_path: Path, server: PostgresServer) -> None:
    """
    Without --apply the SQL is printed, nothing is touched, and no database is needed.
    """
    shown = run(tmp_path, "init-db")
    assert shown.returncode == 0
    server.execute(shown.stdout.replace("%", "%%"))
    assert server.execute("select count(*) from pg_trigger where tgname = 'dcm_ws_notify'") == [(4,)]
    server.execute(run(tmp_path, "init-db", "--remove").stdout.replace("%", "%%"))
    assert server.execute("select count(*) from pg_trigger where tgname = 'dcm_ws_notify'") == [(0,)]
