"""
The schema of the log: installed, migrated while it is used, refused where it is not ours, and removed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest

from dcm_ws.postgres.install import BEGIN, in_transaction
from dcm_ws.postgres.log_schema import FIND, LogSchema, log_schema
from dcm_ws.postgres.migrations import FUNCTIONS, STEPS, VERSION, log_sql, remove_log_sql
from tests.integration.databases import PostgresServer
from tests.postgres.schemas import as_role, execute, install, session

pytestmark = pytest.mark.integration

STEP = "alter table dcm_ws.log add column extra int; create table dcm_ws.more (id int);"
NEXT = (*STEPS, STEP)
PUBLISH = "select dcm_ws.publish('global', 'x', '1')"


@pytest.fixture(scope="module")
def server_with_roles(server: PostgresServer) -> PostgresServer:
    """
    A PostgreSQL with roles that may create schemas, and one that may not.
    """
    server.execute("create role svc login; create role app login; create role mallory login")
    server.execute("grant create on database postgres to mallory")
    return server


@pytest.fixture
def empty(server_with_roles: PostgresServer) -> Iterator[PostgresServer]:
    """
    The same without the schema.
    """
    yield server_with_roles
    server_with_roles.execute("drop schema if exists dcm_ws cascade")


def found(url: str) -> LogSchema:
    """
    What a role finds in the database.
    """
    with session(url) as cursor:
        cursor.execute("begin")
        cursor.execute(BEGIN)
        cursor.execute(FIND)
        return log_schema(cursor.fetchone()[0])


def objects(server: PostgresServer) -> list[tuple[Any, ...]]:
    """
    The versions of all objects in the catalog that may be of the schema.
    """
    return server.execute(
        """select 'class', oid, xmin::text from pg_class where relnamespace::regnamespace::text = 'dcm_ws'
        union all select 'function', oid, xmin::text from pg_proc where pronamespace::regnamespace::text = 'dcm_ws'
        union all select 'schema', oid, xmin::text from pg_namespace where nspname = 'dcm_ws'
        union all select 'meta', 0, xmin::text from dcm_ws.meta order by 1, 2"""
    )


def test_installing_twice(empty: PostgresServer) -> None:
    """
    The second time changes nothing.
    """
    assert found(empty.url) == LogSchema(reason="the schema dcm_ws is not installed", hint="dcm-ws init-db --apply")
    install(empty)
    before = objects(empty)
    install(empty)
    assert objects(empty) == before
    assert found(empty.url) == LogSchema(VERSION, "dcm", usable=True, grantees=("public",))
    ((epoch, system, timeline),) = empty.execute("select epoch, system_id, timeline from dcm_ws.meta")
    assert len(epoch) == 8 and epoch.isalnum() and system.isdigit() and timeline == 1


def test_a_step_forward(empty: PostgresServer) -> None:
    """
    A step that this release does not have yet keeps what is in the tables; there is no way back.
    """
    install(empty)
    empty.execute(PUBLISH)
    install(empty, steps=NEXT)
    assert empty.execute("select count(*) from dcm_ws.inbox") == [(1,)]
    assert empty.execute("select version from dcm_ws.meta") == [(len(NEXT),)]
    install(empty, steps=NEXT)
    before = objects(empty)
    with pytest.raises(psycopg2.errors.RaiseException, match=f"is of version {len(NEXT)}") as raised:
        install(empty)
    assert raised.value.diag.message_hint == "use the newer dcm-ws that installed it"
    assert objects(empty) == before
    schema = found(empty.url)
    assert not schema.usable and f"knows versions up to {VERSION}" in schema.reason


def test_all_steps_at_once(empty: PostgresServer) -> None:
    """
    A new database gets all steps, and a step that fails leaves nothing.
    """
    with pytest.raises(psycopg2.errors.UndefinedTable):
        install(empty, steps=(*STEPS, "alter table dcm_ws.none add column extra int"))
    assert empty.execute("select 1 from pg_namespace where nspname = 'dcm_ws'") == []
    install(empty, steps=NEXT)
    assert empty.execute("select count(extra) from dcm_ws.log") == [(0,)]


def test_migrating_while_others_publish(empty: PostgresServer) -> None:
    """
    Writers go on, and lose nothing.
    """
    install(empty)
    stop, begun = threading.Event(), threading.Semaphore(0)
    made: list[str] = []

    def write() -> None:
        with session(empty.url) as cursor:
            while not stop.is_set():
                cursor.execute(PUBLISH)
                made.append(cursor.fetchone()[0])
                begun.release()

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(20):
            assert begun.acquire(timeout=30)
        install(empty, steps=NEXT)
        for _ in range(20):
            assert begun.acquire(timeout=30)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    stored = {event_id for (event_id,) in empty.execute("select event_id from dcm_ws.inbox")}
    assert stored == set(made) and len(made) >= 40


def test_a_table_in_use(empty: PostgresServer) -> None:
    """
    A step that needs a lock that somebody holds gives up after seconds and changes nothing.
    """
    install(empty)
    with session(empty.url) as cursor:
        cursor.execute("begin; select * from dcm_ws.log")
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            install(empty, steps=NEXT)
    assert empty.execute("select version from dcm_ws.meta") == [(VERSION,)]


def test_functions_that_were_changed(empty: PostgresServer) -> None:
    """
    They are found, and get the form that this release needs; who may publish stays.
    """
    install(empty, grantees=["app"])
    empty.execute(
        "create or replace function dcm_ws.head() returns jsonb language sql as 'select null::jsonb';"
        "drop function dcm_ws.publish(text, text, json, text)"
    )
    assert set(found(empty.url).altered) == {"dcm_ws.head()", "dcm_ws.publish(text,text,json,text)"}
    install(empty)
    assert found(empty.url).altered == ()
    url = as_role(empty, "app")
    assert execute(url, "select dcm_ws.head() is not null, dcm_ws.publish('global', 'x', '1'::json) is not null") == [
        (True, True)
    ]
    ((config, definer),) = empty.execute(
        "select proconfig, prosecdef from pg_proc where oid = 'dcm_ws.head()'::regprocedure"
    )
    assert (config, definer) == (["search_path=pg_catalog, pg_temp"], True)


def test_who_may_publish(empty: PostgresServer) -> None:
    """
    Everybody, or the roles that are named, until others are named.
    """

    def may(role: str) -> bool:
        try:
            execute(as_role(empty, role), f"{PUBLISH}, dcm_ws.head()")
        except psycopg2.errors.InsufficientPrivilege:
            return False
        return True

    install(empty)
    assert may("app") and may("svc")
    install(empty, grantees=["app"])
    assert may("app") and not may("svc")
    install(empty)
    assert found(empty.url).grantees == ("app",)
    install(empty, grantees=["svc", "mallory"])
    assert not may("app") and may("svc") and may("mallory")
    install(empty, grantees=["public"])
    assert may("app")


def test_another_owner(empty: PostgresServer) -> None:
    """
    All objects belong to the role that the service connects as, though it may not create a schema.  A superuser does
    not use them: that role could change what the superuser runs.
    """
    install(empty, owner="svc")
    owners = empty.execute(
        """select distinct pg_get_userbyid(owner) from (
            select relowner from pg_class where relnamespace = 'dcm_ws'::regnamespace
            union all select proowner from pg_proc where pronamespace = 'dcm_ws'::regnamespace
            union all select nspowner from pg_namespace where nspname = 'dcm_ws') as o (owner)"""
    )
    assert owners == [("svc",)]
    execute(as_role(empty, "app"), PUBLISH)
    assert found(as_role(empty, "svc")).usable
    assert "connect dcm-ws as svc" in found(empty.url).hint
    assert "app is not a member of it" in found(as_role(empty, "app")).reason
    execute(as_role(empty, "svc"), in_transaction(remove_log_sql()))
    assert found(empty.url).owner == ""


def test_a_role_that_may_not_create_a_schema(empty: PostgresServer) -> None:
    """
    The error names the right, and the way without the log.
    """
    server = as_role(empty, "app")
    with pytest.raises(psycopg2.errors.RaiseException, match="app may not create the schema dcm_ws") as raised:
        execute(server, in_transaction(log_sql()))
    hint = raised.value.diag.message_hint
    assert hint is not None and "grant create on database postgres to app" in hint and "--without-log" in hint


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("create schema dcm_ws", "the schema dcm_ws belongs to mallory"),
        ("create schema dcm_ws; comment on schema dcm_ws is 'dcm-ws log, version 1'", "belongs to mallory"),
    ],
)
def test_a_schema_of_somebody_else(empty: PostgresServer, sql: str, named: str) -> None:
    """
    It is neither used nor changed nor removed.
    """
    execute(as_role(empty, "mallory"), sql)
    for change in (install, lambda server: execute(server.url, in_transaction(remove_log_sql()))):
        with pytest.raises(psycopg2.errors.RaiseException, match=named):
            change(empty)
    assert not found(empty.url).usable
    assert empty.execute("select count(*) from pg_namespace where nspname = 'dcm_ws'") == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "drop function dcm_ws.publish(text, text, jsonb, text); create function dcm_ws.publish(text, text, jsonb, text)"
        " returns text language sql as 'select null::text'; alter function dcm_ws.publish(text, text, jsonb, text)",
        "create table dcm_ws.extra (id int); alter table dcm_ws.extra",
        "create function dcm_ws.publish(text, text, bytea) returns text language sql as 'select null::text';"
        "alter function dcm_ws.publish(text, text, bytea)",
    ],
)
def test_an_object_of_somebody_else(empty: PostgresServer, sql: str) -> None:
    """
    One object of another owner among ours is not taken for ours.
    """
    install(empty)
    execute(empty.url, f"{sql} owner to mallory")
    with pytest.raises(psycopg2.errors.RaiseException, match="belongs to mallory"):
        install(empty)
    assert "does not belong to dcm" in found(empty.url).reason


def test_a_schema_that_is_not_of_dcm_ws(empty: PostgresServer) -> None:
    """
    A schema of the name that somebody made for something else is refused.
    """
    empty.execute("create schema dcm_ws; create table dcm_ws.mine (id int)")
    for sql in (remove_log_sql(), log_sql()):
        with pytest.raises(psycopg2.errors.RaiseException, match="was not made by dcm-ws"):
            execute(empty.url, in_transaction(sql))
    assert not found(empty.url).usable


def test_removing(empty: PostgresServer) -> None:
    """
    The schema is removed with what the service added to it, unless objects of others depend on it.
    """
    install(empty)
    empty.execute("create table dcm_ws.log_old (like dcm_ws.log); create view public.mine as select * from dcm_ws.log")
    with pytest.raises(psycopg2.errors.DependentObjectsStillExist):
        execute(empty.url, in_transaction(remove_log_sql()))
    assert found(empty.url).usable
    empty.execute("drop view public.mine")
    for _ in range(2):
        execute(empty.url, in_transaction(remove_log_sql()))
        assert found(empty.url).owner == ""


def test_other_encodings(empty: PostgresServer) -> None:
    """
    A database in another encoding than UTF-8 gets no log.
    """
    empty.execute("create database latin encoding 'LATIN1' locale 'C' template template0")
    url = empty.url.replace("/postgres", "/latin")
    with pytest.raises(psycopg2.errors.RaiseException, match="this one is in LATIN1"):
        execute(url, in_transaction(log_sql()))
    assert "this one is in LATIN1" in found(url).reason


def test_a_standby(empty: PostgresServer) -> None:
    """
    A read-only server is told apart: it may become the primary.
    """
    install(empty)
    with session(empty.url) as cursor:
        cursor.execute("begin read only")
        cursor.execute(BEGIN)
        cursor.execute(FIND)
        schema = log_schema(cursor.fetchone()[0])
    assert schema == LogSchema(VERSION, "dcm", reason="the server is read-only", read_only=True, grantees=("public",))


def test_redrive(empty: PostgresServer) -> None:
    """
    It marks the letters that are chosen, the oldest first, and each once.
    """
    install(empty)
    empty.execute(
        """insert into dcm_ws.dead (agent, event_id, pos, channel, event, data, at, deliveries, reason, died_at)
        select a, 'msg_' || n, n, 'c', 'e', '1', 0, 3, 'r', 1000000 + n * 1000
        from unnest(array['a', 'b']) as a, generate_series(1, 3) as n"""
    )

    def chosen(arguments: str) -> tuple[int, list[str]]:
        ((many,),) = empty.execute(f"select dcm_ws.redrive({arguments})")
        marked = empty.execute("select agent || pos from dcm_ws.dead where request = 'redrive' order by 1")
        return many, [name for (name,) in marked]

    assert chosen("'none'") == (0, [])
    assert chosen("'a', most => 1") == (1, ["a1"])
    assert chosen("since => to_timestamp(1002), until => to_timestamp(1002)") == (0, ["a1"])
    assert chosen("since => to_timestamp(1002), until => to_timestamp(1003)") == (2, ["a1", "a2", "b2"])
    empty.execute("update dcm_ws.dead set redriven_at = 1 where agent = 'b' and pos = 3")
    assert chosen("") == (2, ["a1", "a2", "a3", "b1", "b2"])
    assert chosen("")[0] == 0
    for most in ("0", "null"):
        with pytest.raises(psycopg2.errors.InvalidParameterValue, match="most must be 1 or more"):
            chosen(f"most => {most}")


def test_head_and_epoch(empty: PostgresServer) -> None:
    """
    The head is that of the caller's snapshot; a new epoch keeps the positions.
    """
    install(empty)
    ((first,),) = empty.execute("select dcm_ws.head()")
    assert first["pos"] == 0
    empty.execute("update dcm_ws.meta set base = 41")
    empty.execute(
        """insert into dcm_ws.log (pos, event_id, channel, event, data, at, mirrored)
        values (42, 'msg_1', 'global', 'x', '1', 0, false)"""
    )
    ((epoch,),) = empty.execute("select dcm_ws.new_epoch()")
    assert epoch != first["epoch"] and len(epoch) == 8
    assert empty.execute("select dcm_ws.head()") == [({"epoch": epoch, "pos": 42},)]
    empty.execute("truncate dcm_ws.log")
    assert empty.execute("select dcm_ws.head()") == [({"epoch": epoch, "pos": 41},)]


def test_search_paths() -> None:
    """
    Every function has a fixed one, with the temporary schema at its end.
    """
    assert [name for name, sql in FUNCTIONS.items() if "set search_path = pg_catalog, pg_temp" not in sql] == []
