"""
dcm-ws init-db in a database where other roles may create objects.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.running import check, run
from tests.integration.databases import TOOLS, PostgresServer

pytestmark = pytest.mark.integration

FAKE = "create function {}dcm_ws_notify() returns trigger language plpgsql as 'begin return null; end'"


@pytest.fixture(scope="module")
def server(server: PostgresServer) -> PostgresServer:
    """
    The module's own database, with roles that may create objects and roles that may not.
    """
    server.execute("create role mallory login; create role app login; create role stranger login")
    return server


@pytest.fixture
def fresh(server: PostgresServer) -> PostgresServer:
    """
    The database without anything in it; mallory may create in its schema.
    """
    schemas = server.execute("select nspname from pg_namespace where nspname !~ '^(pg_|information_schema)'")
    for (name,) in schemas:
        server.execute(f'drop schema "{name}" cascade')
    server.execute("create schema public; grant create, usage on schema public to mallory, app")
    server.execute("grant usage on schema public to stranger")
    server.execute("grant create on database postgres to mallory; alter database postgres reset search_path")
    return server


def as_role(server: PostgresServer, role: str) -> str:
    return server.url.replace("dcm@", f"{role}@")


def init(folder: Path, server: PostgresServer, *arguments: str, role: str = "dcm") -> subprocess.CompletedProcess[str]:
    return run(folder, "init-db", "--apply", *arguments, DATABASE_URL=as_role(server, role))


def psql(server: PostgresServer, sql: str, role: str = "dcm") -> subprocess.CompletedProcess[str]:
    """
    The SQL, as people run it.
    """
    command = [str(TOOLS / "psql"), "-X", "-v", "ON_ERROR_STOP=1", "-q", as_role(server, role)]
    return subprocess.run(command, input=sql, capture_output=True, text=True, check=False, timeout=60)


def refused(folder: Path, server: PostgresServer, *named: str, role: str = "dcm") -> None:
    """
    Neither --apply nor the SQL that is shown does anything, and what they say names the object and its owner.
    """
    before = server.execute("select count(*), max(xmin::text::bigint) from pg_trigger")
    done = init(folder, server, role=role)
    assert done.returncode == 1 and "nothing was changed" in done.stderr, done
    shown = psql(server, run(folder, "init-db").stdout, role)
    assert shown.returncode != 0
    for said in (done.stderr, shown.stderr):
        assert all(name in said for name in named), said
    assert server.execute("select count(*), max(xmin::text::bigint) from pg_trigger") == before


def by_mallory(server: PostgresServer, sql: str) -> None:
    done = psql(server, sql, "mallory")
    assert done.returncode == 0, done.stderr


def triggers_line(folder: Path, server: PostgresServer, role: str = "dcm") -> dict[str, object]:
    line: dict[str, object] = check(folder, "--ws-port", "0", DATABASE_URL=as_role(server, role))[1]["triggers"]
    return line


def test_a_function_of_somebody_else(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    A function of our name is not adopted: its owner could replace what a superuser's INSERT then runs.
    """
    by_mallory(fresh, FAKE.format("public."))
    refused(tmp_path, fresh, "public.dcm_ws_notify()", "mallory")
    line = triggers_line(tmp_path, fresh)
    assert not line["good"] and "mallory" in str(line["text"])
    done = init(tmp_path, fresh, "--remove")
    assert done.returncode == 1 and "mallory" in done.stderr
    assert fresh.execute("select count(*) from pg_proc where proname = 'dcm_ws_notify'") == [(1,)]


def test_a_function_that_pretends(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    The comment and the body of ours do not make it ours.
    """
    assert init(tmp_path, fresh).returncode == 0
    (source,) = fresh.execute("select pg_get_functiondef('public.dcm_ws_notify()'::regprocedure)")[0]
    (comment,) = fresh.execute("select obj_description('public.dcm_ws_notify()'::regprocedure, 'pg_proc')")[0]
    assert init(tmp_path, fresh, "--remove").returncode == 0
    by_mallory(fresh, f"{source}; comment on function public.dcm_ws_notify() is '{comment}'")
    refused(tmp_path, fresh, "public.dcm_ws_notify()", "mallory")


def test_what_version_1_adopted(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    Triggers that call a function of somebody else are found by check, and --remove takes them away.
    """
    assert init(tmp_path, fresh).returncode == 0
    fresh.execute("alter function public.dcm_ws_notify() owner to mallory")
    refused(tmp_path, fresh, "public.dcm_ws_notify()", "mallory")
    line = triggers_line(tmp_path, fresh)
    assert not line["good"] and "mallory" in str(line["text"]) and "--remove" in str(line["hint"])
    assert init(tmp_path, fresh, "--remove").returncode == 0
    assert init(tmp_path, fresh).returncode == 0
    assert fresh.execute("select pg_get_userbyid(proowner) from pg_proc where proname = 'dcm_ws_notify'") == [("dcm",)]


def test_a_function_in_an_earlier_schema(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    A schema that bears the name of the role comes first in the search path, and may be anybody's.
    """
    by_mallory(fresh, f"create schema dcm; {FAKE.format('dcm.')}")
    refused(tmp_path, fresh, "dcm.dcm_ws_notify()", "mallory")


def test_a_schema_of_somebody_else(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    Nothing is created in a schema whose owner could replace it.
    """
    by_mallory(fresh, "create schema dcm")
    refused(tmp_path, fresh, "the schema dcm")


@pytest.mark.parametrize("table", ["sessions", "actions", "task_lists"])
def test_a_table_of_somebody_else(fresh: PostgresServer, tmp_path: Path, table: str) -> None:
    """
    One table of another owner among ours is not taken for ours.
    """
    by_mallory(fresh, f"create table public.{table} (id int)")
    refused(tmp_path, fresh, f"public.{table}", "mallory")


def test_tables_that_hide_others(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    Tables in an earlier schema, of another owner, are not taken for those that they hide.
    """
    assert init(tmp_path, fresh).returncode == 0
    assert init(tmp_path, fresh, "--remove").returncode == 0
    by_mallory(
        fresh, "create schema dcm; " + "".join(
            f"create table dcm.{name} (id int);"
            for name in ("sessions", "subtasks", "task_lists", "agent_messages", "actions")
        )
    )  # fmt: skip
    refused(tmp_path, fresh, "two tables", "dcm.")


@pytest.mark.parametrize(
    "sql",
    [
        "create view public.sessions as select 1 as id",
        "create materialized view public.sessions as select 1 as id",
    ],
)
def test_views(fresh: PostgresServer, tmp_path: Path, sql: str) -> None:
    """
    Only tables get a trigger: views are refused.
    """
    fresh.execute(sql)
    refused(tmp_path, fresh, "public.sessions is not a table")


def test_a_trigger_of_our_name(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    A trigger of our name that calls something else is not replaced.
    """
    assert init(tmp_path, fresh).returncode == 0
    assert init(tmp_path, fresh, "--remove").returncode == 0
    fresh.execute(
        "create function public.audit() returns trigger language plpgsql as 'begin return null; end';"
        "create trigger dcm_ws_notify after insert on sessions for each row execute function public.audit()"
    )
    refused(tmp_path, fresh, "dcm_ws_notify on public.sessions", "audit()")
    assert init(tmp_path, fresh, "--remove").returncode == 0
    assert fresh.execute("select count(*) from pg_trigger where tgname = 'dcm_ws_notify'") == [(1,)]


def test_operators_functions_and_types_of_somebody_else(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    Neither init-db, nor check, nor the trigger runs what others define under the names of PostgreSQL's own.
    """
    fresh.execute("create table public.told (by text); grant all on public.told to public")
    traps = [
        f"create function public.{name}({arguments}) returns {result} language plpgsql as"
        f" $x$ begin insert into public.told values (current_user); {'return' if result == 'void' else 'return null'};"
        " end $x$;"
        for name, arguments, result in (
            ("to_jsonb", "anyelement", "jsonb"),
            ("pg_notify", "text, text", "void"),
            ("set_config", "text, text, boolean", "text"),
            ("current_schemas", "boolean", "name[]"),
            ("current_setting", "text, boolean", "text"),
            ("format", "text, name, name", "text"),
            ("octet_length", "text", "int"),
            ("obj_description", "oid, name", "text"),
            ("same", "name, text", "boolean"),
            ("same_text", "text, text", "boolean"),
            ("pg_backend_pid", "", "int"),
            ("clock_timestamp", "", "timestamptz"),
        )
    ]
    operators = (
        "create operator public.= (leftarg = name, rightarg = text, function = public.same);"
        "create operator public.~ (leftarg = name, rightarg = text, function = public.same);"
        "create operator public.|| (leftarg = text, rightarg = text, function = public.same_text);"
        "create domain public.jsonb as text check (false); create domain public.text as int;"
    )
    by_mallory(fresh, "".join(traps) + operators)
    fresh.execute("alter database postgres set search_path = public, pg_catalog")
    assert init(tmp_path, fresh).returncode == 0
    line = triggers_line(tmp_path, fresh)
    assert line["good"], line
    assert psql(fresh, run(tmp_path, "init-db").stdout).returncode == 0
    fresh.execute("insert into sessions (id) values ('s')")
    fresh.execute("update sessions set ended_at = now()")
    assert init(tmp_path, fresh, "--remove").returncode == 0
    assert fresh.execute("select by from public.told") == []


def test_temporary_tables(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    A temporary table of the session is not taken for the real one.
    """
    sql = run(tmp_path, "init-db").stdout
    done = psql(fresh, f"create temp table sessions (id int); create temp table actions (id int);\n{sql}")
    assert done.returncode == 0, done.stderr
    # psql's session may still be dropping its temporary tables
    where = (
        "select relnamespace::regnamespace::text from pg_class"
        " where relname in ('sessions', 'actions') and relpersistence = 'p'"
    )
    assert fresh.execute(where) == [("public",), ("public",)]


def test_the_owner_of_the_tables(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    A role without privileges beyond its tables can do all of it but the log; a superuser may do it for it, and again.
    """
    assert init(tmp_path, fresh, "--without-log", role="app").returncode == 0
    line = triggers_line(tmp_path, fresh, "app")
    assert line["good"], line
    assert "already installed, unchanged" in init(tmp_path, fresh, "--without-log").stdout
    fresh.execute("comment on function dcm_ws_notify() is 'dcm-ws triggers, version 2'")
    assert "installed" in init(tmp_path, fresh, "--without-log").stdout
    assert init(tmp_path, fresh, "--remove", "--without-log").returncode == 0
    assert init(tmp_path, fresh, "--without-log").returncode == 0
    owners = "select pg_get_userbyid(proowner) from pg_proc where proname = 'dcm_ws_notify'"
    assert fresh.execute(owners) == [("dcm",)]
    fresh.execute("drop trigger dcm_ws_notify on sessions")
    done = init(tmp_path, fresh, "--without-log", role="app")
    assert done.returncode == 0 and "sessions" in done.stdout, done.stderr
    assert psql(fresh, "insert into sessions (id) values ('a')", "app").returncode == 0


def test_who_does_not_own_the_tables(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    The error for a role that may not create triggers on the tables names their owner.
    """
    assert init(tmp_path, fresh, "--without-log", role="app").returncode == 0
    assert init(tmp_path, fresh, "--remove", "--without-log", role="app").returncode == 0
    for role in ("stranger", "mallory"):
        refused(tmp_path, fresh, "belongs to app", role, "owner of the tables", role=role)


def test_others_may_not_use_the_function(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    Only the owners of the tables may put the function on a table.
    """
    assert init(tmp_path, fresh).returncode == 0
    granted = "select has_function_privilege('mallory', 'dcm_ws_notify()', 'execute')"
    assert fresh.execute(granted) == [(False,)]


def test_a_function_that_was_changed(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    check says so, and --apply restores it.
    """
    assert init(tmp_path, fresh).returncode == 0
    fresh.execute(FAKE.format("public.").replace("create", "create or replace", 1))
    line = triggers_line(tmp_path, fresh)
    assert not line["good"] and "changed" in str(line["text"])
    assert "changed" in init(tmp_path, fresh).stdout
    assert triggers_line(tmp_path, fresh)["good"]
    settings = fresh.execute("select proconfig from pg_proc where proname = 'dcm_ws_notify'")
    assert settings == [(['search_path=pg_catalog, pg_temp'],)]  # fmt: skip
