"""
dcm_ws.publish(): what it accepts, what it refuses, and that it works in every transaction without waiting.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from unicodedata import category

import psycopg2
import pytest

from dcm_ws.postgres.install import in_transaction
from dcm_ws.postgres.migrations import log_sql
from dcm_ws.protocol.channels import is_identifier
from dcm_ws.protocol.errors import ProtocolError
from dcm_ws.protocol.events import is_event
from dcm_ws.protocol.rawjson import check_data, repair_surrogates
from tests.integration.databases import PostgresServer
from tests.postgres.schemas import GATE, as_role, execute, install, session
from tests.protocol.names import NAMES, NOT_NAMES

pytestmark = pytest.mark.integration

FAMILIES = ("agents/", "sessions/", "topics/")


@pytest.fixture(scope="module")
def installed(server: PostgresServer) -> PostgresServer:
    """
    A database with the schema, and with a role that may only publish.
    """
    server.execute("alter system set max_prepared_transactions = 5")
    server.stop()
    server.start()
    server.execute("create role app login; create role other login")
    install(server)
    return server


@pytest.fixture
def inbox(installed: PostgresServer) -> PostgresServer:
    """
    The same with an empty inbox.
    """
    installed.execute("truncate dcm_ws.inbox")
    return installed


@pytest.fixture
def app(inbox: PostgresServer) -> Iterator[Any]:
    """
    A session of the role that may only publish.
    """
    with session(as_role(inbox, "app")) as cursor:
        yield cursor


def published(server: PostgresServer, columns: str = "channel, event, data") -> list[tuple[Any, ...]]:
    return server.execute(f"select {columns} from dcm_ws.inbox order by id")


def publish(cursor: Any, channel: str | None, event: str | None, data: str | None = "{}", kind: str = "text") -> str:
    cursor.execute(f"select dcm_ws.publish(%s, %s, %s::{kind})", (channel, event, data))
    (made,) = cursor.fetchone()
    assert isinstance(made, str)
    return made


def is_refused(cursor: Any, *arguments: Any, **named: Any) -> bool:
    """
    Whether the arguments are refused.
    """
    try:
        publish(cursor, *arguments, **named)
    except (
        psycopg2.errors.InvalidParameterValue,
        psycopg2.errors.NumericValueOutOfRange,
        psycopg2.errors.ProgramLimitExceeded,
    ):
        return True
    return False


def test_each_type_of_data(inbox: PostgresServer, app: Any) -> None:
    """
    Text, json and jsonb are published as they are; a literal is text, and without data it is null.
    """
    before = time.time_ns() // 1_000_000
    app.execute(
        """select dcm_ws.publish('topics/a', 'task.created', '{"b": 1}'),
            dcm_ws.publish('agents/a', 'x', '{"b":  2}'::json),
            dcm_ws.publish('sessions/a', 'x.y:z-1', '{"c": [3], "b":  2}'::jsonb),
            dcm_ws.publish('global', 'x'),
            dcm_ws.publish('ci/builds', 'x', null::jsonb),
            dcm_ws.publish(event => 'x', channel => 'metrics', data => '1'::varchar)"""
    )
    ids = app.fetchone()
    assert published(inbox) == [
        ("topics/a", "task.created", '{"b": 1}'),
        ("agents/a", "x", '{"b":  2}'),
        ("sessions/a", "x.y:z-1", '{"b": 2, "c": [3]}'),
        ("global", "x", "null"),
        ("ci/builds", "x", "null"),
        ("metrics", "x", "1"),
    ]
    rows = published(inbox, "event_id, at, slot, sender, key")
    assert tuple(row[0] for row in rows) == ids and len(set(ids)) == 6
    assert all(len(made) == 36 and made.startswith("msg_") for made in ids)
    assert all(before <= row[1] <= time.time_ns() // 1_000_000 + 1 and row[2:] == (0, None, None) for row in rows)


@pytest.mark.parametrize("family", ["", *FAMILIES])
def test_channels(app: Any, family: str) -> None:
    """
    The grammar is that of the service.  Only characters that are not assigned are accepted: SQL does not know them.
    """
    wrong = []
    for name in [*NAMES, *NOT_NAMES]:
        # no database has U+0000 or half a character
        if any(character == "\0" or category(character) in ("Cn", "Cs") for character in name):
            continue
        channel = family + name
        rest = channel.partition("/")[2] if channel.startswith(FAMILIES) else channel
        if is_refused(app, channel, "x") is is_identifier(rest):
            wrong.append(channel)
    assert wrong == []


def test_events(app: Any) -> None:
    """
    The grammar is that of the service.
    """
    for name in ["task.created", "A-z_0:9.", "x" * 64, "x" * 65, "", " a", "a ", "a\n", "\na", "é", "a b", "a*", "a/b"]:
        assert is_refused(app, "global", name) is not is_event(name), ascii(name)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((None, "x"), "channel is null"),
        (("global", None), "event is null"),
        (("topics/", "x"), 'the channel "topics/" is invalid'),
        (("a\tb", "x"), 'the channel "a\\tb" is invalid'),
        (("global", "a b"), 'the event "a b" is invalid'),
        (("global", "x", "{"), "invalid input syntax for type json"),
        (("global", "x", "x" * 2_000_000), "data has 2000000 bytes; at most 1048576 are allowed"),
        (("global", "x", "[" * 101 + "]" * 101), "data is nested deeper than 100 levels"),
        (("global", "x", "[1e309]"), "data has a number beyond the range of a 64-bit float"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_errors_say_what_is_wrong(app: Any, arguments: tuple[str, ...], named: str) -> None:
    """
    They name the argument and what is wrong with it.
    """
    with pytest.raises(psycopg2.Error) as raised:
        publish(app, *arguments)
    assert named in raised.value.diag.message_primary
    assert raised.value.pgcode in ("22023", "22004", "22P02", "22003", "54000")


@pytest.mark.parametrize(
    "data",
    [
        *(
            "1e308",
            "1e309",
            "-1e309",
            "1E+309",
            "1e-400",
            "0.1e0400",
            "1.7976931348623157e308",
            "1.7976931348623159e308",
        ),
        *("17976931348623158e292", "1e00000000000000000001", "1e99999999", "1e-99999999", "9" * 308, "9" * 309),
        *("0." + "9" * 400, "9" * 309 + ".5", "1" + "0" * 308, "2" + "0" * 308, "[" + "1," * 300 + "1]"),
        *(f'"{"9" * 400}"', '"1e999"', '{"a": "\\\\", "b": 1e999}', '{"a": "\\"1e999"}', '{"1e999": 1}', '"5e12345"'),
        *(
            "[" * 100 + "]" * 100,
            "[" * 101 + "]" * 101,
            '{"a":' * 100 + "1" + "}" * 100,
            '{"a":' * 101 + "1" + "}" * 101,
        ),
        *("[" + "[]," * 1000 + "{}]", json.dumps("[" * 500), json.dumps(["{[" * 300, "\\", '"', [[]]])),
        *("[[" * 50 + ",".join(["[]"] * 3) + "]]" * 50, "[" * 50 + "[],[[]]" + "]" * 50),
        *('"\\u0000"', '"\\ud83d\\ude00"', '"é\\u00e9😀"', '"\\n\\/"', '"\x7f\u2028"', " \r\n\t[ ] "),
    ],
    ids=lambda data: ascii(data)[:30],
)
@pytest.mark.parametrize("kind", ["text", "json"])
def test_data_that_every_client_can_read(inbox: PostgresServer, app: Any, kind: str, data: str) -> None:
    """
    It is accepted exactly if the service accepts it from clients, and is not changed.
    """
    readable = True
    try:
        check_data(data.encode(), 100, lambda: None)
    except ProtocolError:
        readable = False
    assert is_refused(app, "global", "x", data, kind) is not readable
    assert published(inbox, "data") == ([(data,)] if readable else [])


@pytest.mark.parametrize("data", ["1e309", "9" * 309, "1e400", "[" * 101 + "]" * 101])
def test_jsonb_that_some_client_cannot_read(app: Any, data: str) -> None:
    """
    Numbers of jsonb have all their digits.
    """
    assert is_refused(app, "global", "x", data, "jsonb")
    assert not is_refused(app, "global", "x", "9" * 308, "jsonb")


@pytest.mark.parametrize(
    "data",
    [
        *('"\\ud83d"', '"\\ude00"', '"\\uD83D\\uD83D\\uDE00"', '"\\ud83d\\\\ude00"', '"\\\\\\ud83d"'),
        *('{"\\udfff":"\\\\ud800"}', '"\\ud83dx"', '"\\ud83d\\n\\ude00"'),
    ],
)
@pytest.mark.parametrize("kind", ["text", "json"])
def test_half_a_character(inbox: PostgresServer, app: Any, kind: str, data: str) -> None:
    """
    It is replaced as in NOTIFY payloads.
    """
    publish(app, "global", "x", data, kind)
    assert published(inbox, "data") == [(repair_surrogates(data),)]


def test_limits_of_the_service(inbox: PostgresServer, app: Any) -> None:
    """
    The sizes that the service has set are the limits, to the byte and to the level.
    """
    inbox.execute("update dcm_ws.meta set max_bytes = 100, max_depth = 3")
    try:
        assert not is_refused(app, "global", "x", json.dumps("é" * 49, ensure_ascii=False))
        assert is_refused(app, "global", "x", json.dumps("é" * 49 + "x", ensure_ascii=False))
        assert not is_refused(app, "global", "x", "[[[]], [[]], []]")
        assert is_refused(app, "global", "x", "[[[[]]]]")
    finally:
        inbox.execute("update dcm_ws.meta set max_bytes = default, max_depth = default")
    largest = json.dumps("x" * 1_048_574)
    publish(app, "global", "x", largest)
    assert published(inbox, "octet_length(data)")[-1] == (1_048_576,)


def test_keys(inbox: PostgresServer, app: Any) -> None:
    """
    The same key of the same role publishes once, also in one transaction, and is free again after a rollback.
    """
    sql = "select dcm_ws.publish('global', 'x', '1', key => 'order 7')"

    def made() -> str:
        app.execute(sql)
        (found,) = app.fetchone()
        return str(found)

    app.execute("begin")
    rolled_back = made()
    assert made() == rolled_back
    app.execute("rollback; begin")
    first = made()
    assert made() == first != rolled_back
    app.execute("commit")
    assert made() == first
    assert execute(as_role(inbox, "other"), sql) != [(first,)]
    assert len(published(inbox)) == 2
    inbox.execute("update dcm_ws.inbox set at = at - 600001")
    assert made() != first
    app.execute("select dcm_ws.publish('global', 'x', '1', ''), dcm_ws.publish('global', 'x', '1', '')")
    assert len(set(app.fetchone())) == 2
    with pytest.raises(psycopg2.errors.InvalidParameterValue, match="key has 129 characters"):
        app.execute("select dcm_ws.publish('global', 'x', '1', repeat('k', 129))")


def test_in_the_callers_transaction(inbox: PostgresServer, app: Any) -> None:
    """
    What is rolled back, wholly or to a savepoint, is not published; also in functions, triggers, blocks with an
    exception handler, and at each isolation level.
    """
    inbox.execute(
        """create table public.orders (id int); grant insert on public.orders to app;
        create function public.tell() returns trigger language plpgsql as $$
            begin perform dcm_ws.publish('topics/orders', 'order.created', to_jsonb(new)); return new; end $$;
        create trigger tell after insert on public.orders for each row execute function public.tell()"""
    )
    for level in ("read committed", "repeatable read", "serializable"):
        app.execute(f"begin isolation level {level}; select 1")
        publish(app, "global", level.replace(" ", "."))
        app.execute("savepoint s")
        publish(app, "global", "never")
        app.execute("rollback to s; insert into orders values (7), (8)")
        app.execute(
            """do $$ begin
                begin perform dcm_ws.publish('global', 'never'); raise exception 'x'; exception when others then end;
            end $$"""
        )
        app.execute("commit; begin")
        publish(app, "global", "never")
        app.execute("rollback")
        assert published(inbox) == [
            ("global", level.replace(" ", "."), "{}"),
            ("topics/orders", "order.created", '{"id": 7}'),
            ("topics/orders", "order.created", '{"id": 8}'),
        ]
        ((whole,),) = inbox.execute("select count(distinct xid) from dcm_ws.inbox")
        assert whole == 1
        inbox.execute("truncate dcm_ws.inbox")
    inbox.execute("drop table public.orders; drop function public.tell()")


def test_prepared_transactions(inbox: PostgresServer, app: Any) -> None:
    """
    PREPARE TRANSACTION works if the wake-up is turned off, or while the service polls.
    """
    app.execute("begin; set local dcm_ws.wake = off")
    publish(app, "global", "one")
    app.execute("prepare transaction 'one'")
    app.execute("commit prepared 'one'")
    with session(inbox.url) as service:
        service.execute(f"select pg_advisory_lock{GATE}")
        app.execute("begin")
        publish(app, "global", "two")
        app.execute("prepare transaction 'two'")
        app.execute("commit prepared 'two'")
    assert published(inbox, "event") == [("one",), ("two",)]


def test_a_read_only_transaction(app: Any) -> None:
    """
    The error is PostgreSQL's own.
    """
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        app.execute("begin read only; select dcm_ws.publish('global', 'x')")


def test_wake_up(inbox: PostgresServer, app: Any) -> None:
    """
    The service is notified after the commit, unless it polls.
    """
    with closing(psycopg2.connect(inbox.url)) as connection, session(inbox.url) as service:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("listen dcm_ws_wake")

        def woken() -> list[tuple[str, str]]:
            cursor.execute("select 1")
            connection.poll()
            found = [(notice.channel, notice.payload) for notice in connection.notifies]
            connection.notifies.clear()
            return found

        app.execute("begin")
        publish(app, "global", "x")
        publish(app, "global", "x")
        assert woken() == []
        app.execute("commit")
        assert woken() == [("dcm_ws_wake", "")]
        service.execute(f"select pg_advisory_lock{GATE}")
        publish(app, "global", "x")
        assert woken() == []
        # nothing is left of the test of the lock
        service.execute(f"select pg_advisory_unlock{GATE}, pg_try_advisory_lock{GATE}")
        assert service.fetchone() == (True, True)


def test_it_waits_for_nobody(inbox: PostgresServer) -> None:
    """
    Neither other publishers, with the same key or without, nor old snapshots, nor the emptying of a slot, nor a new
    partition of the log make it wait.
    """
    sql = "select dcm_ws.publish('global', 'x', '1', key => 'k')"
    with (
        session(as_role(inbox, "app")) as writer,
        session(as_role(inbox, "app")) as reader,
        session(inbox.url) as leader,
        session(as_role(inbox, "app")) as publisher,
    ):
        writer.execute("begin; select dcm_ws.publish('global', 'x', '1')")
        reader.execute("begin isolation level serializable; select dcm_ws.publish('global', 'x', '1')")
        leader.execute(
            """begin; truncate dcm_ws.inbox_1; alter table dcm_ws.log detach partition dcm_ws.log_1;
            alter table dcm_ws.log attach partition dcm_ws.log_1 for values from (minvalue) to (maxvalue);
            update dcm_ws.meta set base = base"""
        )
        publisher.execute("set lock_timeout = '1ms'; select dcm_ws.publish('global', 'x', '1')")
        leader.execute("rollback")
        for one in (writer, reader, publisher):
            one.execute(sql)
        for one in (writer, reader):
            one.execute("commit")
    assert len(published(inbox)) == 6


def test_what_others_define_is_not_called(inbox: PostgresServer, app: Any) -> None:
    """
    Functions, operators and tables of the caller, temporary ones and settings change nothing.
    """
    inbox.execute("create schema trap; grant all on schema trap to app")
    app.execute(
        """create temp table meta (slot int); create temp table inbox (slot int);
        create function trap.octet_length(text) returns int language plpgsql as 'begin raise exception ''trap''; end';
        create function trap.pg_notify(text, text) returns void language plpgsql
            as 'begin raise exception ''trap''; end';
        create function trap.differs(name, text) returns bool language plpgsql as 'begin raise exception ''trap''; end';
        create operator trap.<> (leftarg = name, rightarg = text, function = trap.differs);
        create domain trap.json as text check (false);
        set search_path = trap, pg_temp, pg_catalog; set enable_indexscan = off;
        set standard_conforming_strings = off; set escape_string_warning = off"""
    )
    for data in ('"\\ud83d"', "[" * 99 + "]" * 99, '{"a": "\\\\\\"5e123"}'):
        app.execute(f"select dcm_ws.publish('topics/é', 'x', $x${data}$x$, 'k' || length($x${data}$x$))")
    assert published(inbox, "data") == [('"\\ufffd"',), ("[" * 99 + "]" * 99,), ('{"a": "\\\\\\"5e123"}',)]
    inbox.execute("drop schema trap cascade")


def test_who_may_only_publish(inbox: PostgresServer, app: Any) -> None:
    """
    The role may not read or write the tables, nor call the other functions.
    """
    for sql in (
        "select * from dcm_ws.inbox",
        "select * from dcm_ws.log",
        "select * from dcm_ws.meta",
        "insert into dcm_ws.inbox (slot, event_id, channel, event, data, at) values (0, '', '', '', '', 0)",
        "select nextval('dcm_ws.inbox_id')",
        "select dcm_ws.redrive()",
        "select dcm_ws.new_epoch()",
        "select dcm_ws.known('', 0)",
        "create table dcm_ws.mine (id int)",
    ):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            app.execute(sql)
    app.execute("select dcm_ws.head()")
    assert app.fetchone()[0].keys() == {"epoch", "pos"}


def test_a_database_without_an_encoding(installed: PostgresServer) -> None:
    """
    SQL_ASCII holds any bytes, which nobody could read any more: there is no log in it.
    """
    installed.execute("create database plain encoding 'SQL_ASCII' locale 'C' template template0")
    url = installed.url.replace("/postgres", "/plain")
    with pytest.raises(psycopg2.Error, match="UTF8; this one is in SQL_ASCII"):
        execute(url, in_transaction(log_sql()))
