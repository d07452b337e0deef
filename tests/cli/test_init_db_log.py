"""
dcm-ws init-db with the durable log: its triggers publish there, and what it says about the schema.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from dcm_ws.postgres.migrations import VERSION
from tests.cli.installing import init, init_db, sent
from tests.cli.running import check, run
from tests.integration.clients import hear
from tests.integration.databases import PostgresServer
from tests.integration.machine import until
from tests.integration.running import service

pytestmark = pytest.mark.integration

FAKE = "create function dcm_ws.publish(text, text, text, text) returns text language plpgsql as"


@pytest.fixture(scope="module")
def server(server: PostgresServer) -> PostgresServer:
    """
    The module's own database, with roles.
    """
    server.execute("create role svc login; create role mallory login; create role app login")
    return server


@pytest.fixture
def fresh(server: PostgresServer) -> PostgresServer:
    """
    The database without anything in it.
    """
    server.execute("drop schema if exists dcm_ws cascade; drop schema public cascade; create schema public")
    server.execute("grant usage on schema public to app")
    return server


def in_use(server: PostgresServer) -> None:
    """
    What a service does when it opens the log.
    """
    server.execute("update dcm_ws.meta set opened_at = now()")


def logged(server: PostgresServer) -> list[tuple[str, str, dict[str, Any]]]:
    """
    What has been published since the last time.
    """
    rows = server.execute("select channel, event, data from dcm_ws.inbox order by id")
    server.execute("truncate dcm_ws.inbox")
    return [(channel, event, json.loads(data)) for channel, event, data in rows]


def test_triggers_publish(tmp_path: Path, fresh: PostgresServer) -> None:
    """
    Events go to the log in the transaction of the row, without a notification; also those of more than 8,000 bytes.
    """
    init_db(tmp_path, fresh, "--include-column", "payload")
    in_use(fresh)
    payload = {"text": "é" * 100_000, "n": 9_007_199_254_740_993}
    statement = f"insert into agent_messages (id, to_agent_id, payload) values ('m', 'a', '{json.dumps(payload)}')"
    assert sent(fresh, statement) == []
    ((channel, event, data),) = logged(fresh)
    assert (channel, event, data["payload"]) == ("agents/a", "message.new", payload | {"n": str(payload["n"])})
    assert "truncated" not in data
    assert sent(fresh, "begin; insert into sessions (id) values ('never'); rollback") == []
    assert logged(fresh) == []


def test_a_log_that_no_service_has_opened(tmp_path: Path, fresh: PostgresServer) -> None:
    """
    A service that keeps its log in memory goes on to hear notifications until it is restarted.
    """
    init_db(tmp_path, fresh)
    assert len(sent(fresh, "insert into sessions (id) values ('s')")) == 1
    in_use(fresh)
    assert sent(fresh, "insert into sessions (id) values ('t')") == []
    assert len(logged(fresh)) == 1


def test_rows_beyond_the_limit(tmp_path: Path, fresh: PostgresServer) -> None:
    """
    They are cut as for NOTIFY; and what no channel can be named after goes to global.
    """
    init_db(tmp_path, fresh, "--include-column", "payload")
    in_use(fresh)
    fresh.execute(
        "insert into agent_messages (id, to_agent_id, payload) values"
        " ('large', 'a', to_jsonb(repeat('x', 1048576))), ('name', repeat('n', 129), null)"
    )
    (cut, named) = logged(fresh)
    assert cut[0] == "agents/a" and cut[2].items() >= {"id": "large", "truncated": True, "to_agent_id": "a"}.items()
    assert named[0] == "global" and named[2]["id"] == "name" and "truncated" not in named[2]
    fresh.execute("update dcm_ws.meta set max_bytes = 20")
    fresh.execute("insert into agent_messages (id) values ('small')")
    assert logged(fresh) == [("global", "message.new", {"truncated": True})]


def test_an_error_in_the_log_does_not_abort(tmp_path: Path, fresh: PostgresServer) -> None:
    """
    A schema that somebody has damaged causes a warning.
    """
    init_db(tmp_path, fresh)
    in_use(fresh)
    fresh.execute("drop table dcm_ws.inbox")
    with closing(psycopg2.connect(fresh.url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("insert into sessions (id) values ('s')")
        assert any("no event for this change of sessions" in notice for notice in connection.notices)
    assert fresh.execute("select id from sessions") == [("s",)]


def test_who_may_not_publish(tmp_path: Path, fresh: PostgresServer) -> None:
    """
    What such a role writes is notified.
    """
    init_db(tmp_path, fresh, "--grant", "svc")
    in_use(fresh)
    fresh.execute("grant insert on sessions to app")
    ((event),) = sent(fresh, "set role app", "insert into sessions (id) values ('s')")
    assert event["event"] == "session.created"
    assert logged(fresh) == []


def test_from_the_row_to_a_client(tmp_path: Path, fresh: PostgresServer) -> None:
    """
    A service that is started with the schema delivers what the triggers publish, at any usual size.
    """
    init_db(tmp_path, fresh, "--include-column", "payload")
    with service("--database-url", fresh.url) as running:
        until(lambda: fresh.execute("select dcm_ws.in_use()") == [(True,)])
        client = running.connect()
        fresh.execute("insert into agent_messages (id, payload) values ('m', to_jsonb(repeat('x', 100000)))")
        frame = hear(client)
        client.close()
    assert (frame["event"], frame["channel"]) == ("message.new", "global")
    assert len(frame["data"]["payload"]) == 100_000 and frame["pos"] == 1


@pytest.mark.parametrize("definer", ["", "security definer"])
def test_a_function_of_somebody_else(tmp_path: Path, fresh: PostgresServer, definer: str) -> None:
    """
    The triggers do not call dcm_ws.publish() of a role that could not change the triggers anyway.
    """
    init(tmp_path, fresh)
    fresh.execute("create schema dcm_ws authorization mallory; create table public.caught (by text)")
    fresh.execute("grant all on public.caught to public; grant usage on schema dcm_ws to public")
    fresh.execute(f"{FAKE} $$ begin insert into public.caught values (current_user); return ''; end $$ {definer}")
    fresh.execute(f"create function dcm_ws.in_use() returns boolean language sql as 'select true' {definer}")
    for name in ("publish(text, text, text, text)", "in_use()"):
        fresh.execute(f"alter function dcm_ws.{name} owner to mallory")
    assert len(sent(fresh, "insert into sessions (id) values ('s')")) == 1
    assert fresh.execute("select * from public.caught") == []


def test_the_owner_that_is_named(tmp_path: Path, fresh: PostgresServer) -> None:
    """
    With --owner, the triggers publish in the schema of that role.
    """
    said = init_db(tmp_path, fresh, "--owner", "svc")
    assert f"log, version {VERSION}: installed in the schema dcm_ws of svc; everybody may publish" in said
    in_use(fresh)
    assert sent(fresh, "insert into sessions (id) values ('s')") == []
    assert [event for _, event, _ in logged(fresh)] == ["session.created"]
    assert "already installed, unchanged\nlog" in init_db(tmp_path, fresh, "--owner", "svc")
    done = run(tmp_path, "init-db", "--apply", DATABASE_URL=fresh.url)
    assert done.returncode == 1 and "--owner svc" in done.stderr and "nothing was changed" in done.stderr


def test_what_it_says(tmp_path: Path, fresh: PostgresServer) -> None:
    """
    Each run says what happened to the schema, and removing it what was in it.
    """

    def log_line(*arguments: str) -> str:
        line = init_db(tmp_path, fresh, *arguments).splitlines()[-1]
        return line.removeprefix(f"log, version {VERSION}: ")

    assert log_line("--grant", "app") == "installed in the schema dcm_ws of dcm; app may publish"
    assert log_line() == "already installed, unchanged"
    assert log_line("--grant", "app", "--grant", "svc") == "changed; app, svc may publish"
    fresh.execute("drop function dcm_ws.head()")
    assert log_line() == "functions replaced"
    fresh.execute(
        """insert into dcm_ws.agent (agent, state) values ('a', '{}'), ('b', '{}');
        insert into dcm_ws.log (pos, event_id, channel, event, data, at, mirrored)
        select n, n, 'global', 'x', '1', 0, false from generate_series(101, 107) as n"""
    )
    assert log_line("--remove") == "log removed, with 7 events, 2 agents' states and 0 dead letters"
    assert log_line("--remove") == "there was no log"
    reports = [json.loads(init_db(tmp_path, fresh, *arguments, "--json")) for arguments in ((), ("--remove",))]
    counts = {"events": 0, "agents": 0, "dead": 0}
    assert [report["log"] for report in reports] == [
        {"before": 0, "version": VERSION},
        {"before": VERSION, "version": 0} | counts,
    ]


def test_removing_only_the_triggers(tmp_path: Path, fresh: PostgresServer) -> None:
    """
    The log stays with --without-log.
    """
    init_db(tmp_path, fresh)
    init_db(tmp_path, fresh, "--remove", "--without-log")
    fresh.execute("select dcm_ws.publish('global', 'x')")
    assert len(logged(fresh)) == 1


def test_a_busy_log(tmp_path: Path, fresh: PostgresServer) -> None:
    """
    The log is not removed while a transaction uses it; a second run of the installation does not wait for that.
    """
    init_db(tmp_path, fresh)
    with closing(psycopg2.connect(fresh.url)) as connection, connection.cursor() as cursor:
        cursor.execute("select dcm_ws.publish('global', 'x')")
        assert "already installed" in init_db(tmp_path, fresh)
        done = run(tmp_path, "init-db", "--apply", "--remove", DATABASE_URL=fresh.url)
        assert done.returncode == 1 and "nothing was changed: the tables are in use" in done.stderr


def test_check(tmp_path: Path, fresh: PostgresServer) -> None:
    """
    check says where the log is, or why it is not there.
    """

    def line(role: str = "dcm") -> dict[str, Any]:
        url = fresh.url.replace("dcm@", f"{role}@")
        found: dict[str, Any] = check(tmp_path, "--ws-port", "0", DATABASE_URL=url)[1]["log"]
        return found

    init(tmp_path, fresh)
    absent = line()
    assert absent["good"] and "not installed" in absent["text"] and absent["hint"] == "dcm-ws init-db --apply"
    init_db(tmp_path, fresh)
    assert (line()["good"], line()["text"]) == (True, f"durable, version {VERSION}, in the schema dcm_ws of dcm")
    stranger = line("app")
    assert not stranger["good"] and "app is not a member of it" in stranger["text"]
    fresh.execute("drop function dcm_ws.head()")
    altered = line()
    assert not altered["good"] and "dcm_ws.head()" in altered["text"]
    fresh.execute("comment on schema dcm_ws is 'dcm-ws log, version 99'")
    newer = line()
    assert not newer["good"] and "version 99" in newer["text"] and "kept in memory" in newer["text"]


@pytest.mark.parametrize(
    "arguments",
    [("--remove", "--grant", "app"), ("--without-log", "--grant", "app"), ("--without-log", "--owner", "svc")],
)
def test_invalid_combinations(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """
    They are usage errors.
    """
    assert run(tmp_path, "init-db", *arguments).returncode == 2
