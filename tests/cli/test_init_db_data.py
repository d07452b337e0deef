"""
What the triggers of dcm-ws init-db send as data: payloads as NOTIFY carries them, always valid JSON, always small.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from dcm_ws.postgres.triggers import VALUE_MAX
from tests.cli.installing import init, sent
from tests.cli.running import check, run
from tests.integration.databases import PostgresServer

pytestmark = pytest.mark.integration

BIG = 9007199254740993


def rounded(value: Any) -> list[Any]:
    """
    The numbers in a value that JavaScript would round.
    """
    if isinstance(value, dict):
        return [found for one in value.values() for found in rounded(one)]
    if isinstance(value, list):
        return [found for one in value for found in rounded(one)]
    return [value] if isinstance(value, int | float) and abs(value) > 2**53 - 1 else []


def test_large_numbers_are_strings(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    A number that JavaScript would round is sent as a string, wherever it is in the row; others stay numbers.
    """
    fresh.execute(
        "create table subtasks (id bigint primary key, low bigint, edge bigint, negative bigint, exact numeric,"
        " fraction numeric, many bigint[], told jsonb, plain json, text text, status text, agent_id bigint)"
    )
    init(tmp_path, fresh)
    quoted = f'a"{BIG}\\'
    told = json.dumps({"a": [BIG, {"b": -BIG}, 10**30, 7], str(BIG): str(BIG), "q": quoted})
    (event,) = sent(
        fresh,
        f"insert into subtasks values ({BIG}, 5, {BIG - 2}, {-BIG}, 1e20, 0.5, array[1, {BIG}, {-BIG}],"
        f" $told${told}$told$, '[{BIG}]', '{BIG}', 'x', {BIG})",
    )
    data = event["data"]
    assert event["channel"] == f"agents/{BIG}"
    assert (data["id"], data["negative"], data["agent_id"]) == (str(BIG), str(-BIG), str(BIG))
    assert (data["low"], data["edge"], data["fraction"]) == (5, BIG - 2, 0.5)
    assert data["exact"] == "1" + 20 * "0"
    assert data["many"] == [1, str(BIG), str(-BIG)] and data["plain"] == [str(BIG)]
    assert data["told"] == {
        "a": [str(BIG), {"b": str(-BIG)}, "1" + 30 * "0", 7],
        str(BIG): str(BIG),
        "q": quoted,
    }
    assert data["text"] == str(BIG) and rounded(event) == []


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("number,kept", [(2**53 - 1, True), (2**53, False), (2**63 - 1, False), (10**15, True)])
def test_the_edge(fresh: PostgresServer, tmp_path: Path, number: int, kept: bool, sign: str) -> None:
    """
    The largest integer that JavaScript has exactly is still a number.
    """
    fresh.execute("create table sessions (id bigint)")
    init(tmp_path, fresh, "--table", "sessions")
    (event,) = sent(fresh, f"insert into sessions values ({sign}{number})")
    value = int(f"{sign}{number}")
    assert event["data"]["id"] == (value if kept else str(value))


def test_values_that_json_has_not(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    What JSON cannot write as a number or a time is a string.
    """
    fresh.execute(
        "create type pair as (a bigint, b float8);"
        "create table task_lists (id int, n numeric, d float8, f float4, t timestamptz, s timestamp, day date, b bytea,"
        " r int8range, tr tstzrange, p pair, i interval, bits varbit, ip inet, odd text, m money, a float8[])"
    )
    init(tmp_path, fresh)
    (event,) = sent(
        fresh,
        "insert into task_lists values (1, 'NaN', 'Infinity', '-Infinity', 'infinity', '-infinity', 'infinity',"
        f" '\\x00ff', '[1,{BIG}]', '[2020-01-01,)', row({BIG}, 'NaN'), '1 year', '101', '::1', E'\\u2028\\x01\"\\\\',"
        " '12.5', '{NaN,Infinity,1}')",
    )
    data = event["data"]
    assert (data["n"], data["d"], data["f"], data["t"]) == ("NaN", "Infinity", "-Infinity", "infinity")
    assert (data["b"], data["p"]) == ("\\x00ff", {"a": str(BIG), "b": "NaN"})
    assert data["a"] == ["NaN", "Infinity", 1] and data["odd"] == '\u2028\x01"\\'


@pytest.mark.parametrize("digits", [309, 4301, 7000, 100_000])
def test_a_number_of_many_digits(fresh: PostgresServer, tmp_path: Path, digits: int) -> None:
    """
    No number is too long to be sent as a string, or to be left out.
    """
    fresh.execute("create table sessions (id int, n numeric)")
    init(tmp_path, fresh)
    (event,) = sent(fresh, f"insert into sessions values (1, {'9' * digits})")
    assert event["data"].get("n", "9" * digits) == "9" * digits
    assert ("n" in event["data"]) == (digits <= VALUE_MAX)


@pytest.mark.parametrize("text", ["x" * 9000, "\U0001f600" * 2500, "\\" * 5000, '"' * 5000, "7" * 600])
def test_large_values_are_left_out(fresh: PostgresServer, tmp_path: Path, text: str) -> None:
    """
    A value beyond 500 bytes is left out, whatever its type, and named; the others are sent.
    """
    init(tmp_path, fresh)
    result = json.dumps({"rows": ["y" * 300, "z" * 300]})
    (event,) = sent(
        fresh,
        f"insert into subtasks (id, agent_id, description, result) values ('big', 'a1', '{text}', '{result}')",
    )
    assert event["data"]["omitted"] == ["description", "result"] and len(json.dumps(event)) < 600
    assert (event["data"]["id"], event["data"]["status"], "description" in event["data"]) == ("big", "pending", False)
    (event,) = sent(fresh, "update subtasks set description = 'short', result = '{\"n\": 1}', status = 'completed'")
    assert (event["event"], event["data"]["description"]) == ("subtask.completed", "short")
    assert event["data"]["result"] == {"n": 1} and "omitted" not in event["data"]


def test_columns_that_are_chosen(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    A column that is excluded is never sent, one that is included is sent whatever its size, of one table or of all.
    """
    init(
        tmp_path,
        fresh,
        *("--exclude-column", "status", "--exclude-column", "agent_messages.payload"),
        *("--include-column", "subtasks.description", "--include-column", "name"),
    )
    for sql, present, absent in (
        ("insert into subtasks (description, result) values (repeat('d', 900), to_jsonb(repeat('r', 900)))",
         {"description"}, {"status", "result"}),
        ("insert into task_lists (name) values (repeat('n', 900))", {"name"}, {"status"}),
        ("insert into agent_messages (payload, topic) values ('{}', 't')", {"topic"}, {"payload"}),
    ):  # fmt: skip
        (event,) = sent(fresh, sql)
        assert present <= event["data"].keys() and not absent & event["data"].keys(), event
    # what is not sent still says what happened
    (event,) = sent(fresh, "update subtasks set status = 'failed'")
    assert event["event"] == "subtask.failed" and "status" not in event["data"]


def test_a_row_that_is_too_large_all_the_same(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    A row that NOTIFY does not accept is cut to its keys, and to nothing if these are too many.
    """
    init(tmp_path, fresh, "--include-column", "description")
    (event,) = sent(
        fresh, "insert into subtasks (id, agent_id, description) values ('big', 'a1', repeat(E'\\\\', 5000))"
    )
    assert event["data"] == {
        "id": "big",
        "agent_id": "a1",
        "status": "pending",
        "task_list_id": None,
        "truncated": True,
    }
    columns = ", ".join(f"c{n}_id text default repeat('k', 480)" for n in range(20))
    fresh.execute(f"create table wide (id text, {columns}); drop table sessions; alter table wide rename to sessions")
    init(tmp_path, fresh)
    (event,) = sent(fresh, "insert into sessions (id) values ('w')")
    assert event["data"] == {"truncated": True}


def test_around_the_limit(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    No length near the limit is an error, and the longest are cut; a number that becomes a string counts as one.
    """
    fresh.execute("create table task_lists (id int, n bigint[], name text)")
    init(tmp_path, fresh, "--include-column", "name")
    for numbers in ("{}", f"{{{BIG},{BIG},{BIG}}}"):
        cut = [
            "truncated"
            in sent(fresh, f"insert into task_lists values (1, '{numbers}', repeat('n', {size}))")[0]["data"]
            for size in range(7700, 7900, 3)
        ]
        assert cut == sorted(cut) and not cut[0] and cut[-1]


@pytest.mark.parametrize("key", ["ab" * 3500, "\U0001f600" * 120, "x" * 300])
def test_huge_keys(fresh: PostgresServer, tmp_path: Path, key: str) -> None:
    """
    An event for a name that no channel may have goes to all.
    """
    init(tmp_path, fresh)
    session, message = sent(
        fresh,
        f"insert into sessions (id) values ('{key}')",
        f"insert into agent_messages (to_agent_id, from_agent_id, topic) values ('{key}', 'me', 't')",
    )
    assert (session["channel"], message["channel"], message["data"]["from_agent_id"]) == ("global", "global", "me")


def test_events_that_are_chosen(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    Only the events that were chosen are sent, and tables without one get no trigger.
    """
    init(tmp_path, fresh, "--event", "subtask.completed", "--event", "message.new")
    statements = (
        "insert into sessions (id) values ('s')",
        "insert into subtasks (id) values ('u')",
        "update subtasks set status = 'running'",
        "update subtasks set status = 'completed'",
        "insert into agent_messages (id) values ('m')",
        "insert into task_lists (id) values ('t')",
    )
    assert [event["event"] for event in sent(fresh, *statements)] == ["subtask.completed", "message.new"]
    tables = fresh.execute("select tgrelid::regclass::text from pg_trigger where tgname = 'dcm_ws_notify' order by 1")
    assert tables == [("agent_messages",), ("subtasks",)]


def test_tables_that_are_chosen(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    Only the tables that were chosen are created and get triggers; another choice replaces the first.
    """
    init(tmp_path, fresh, "--table", "subtasks", "--table", "sessions")
    assert fresh.execute("select to_regclass('task_lists'), to_regclass('actions')") == [(None, None)]
    chosen = "select tgrelid::regclass::text from pg_trigger where tgname = 'dcm_ws_notify' order by 1"
    assert fresh.execute(chosen) == [("sessions",), ("subtasks",)]
    assert "already installed, unchanged" in init(tmp_path, fresh, "--table", "subtasks", "--table", "sessions")
    assert "changed" in init(tmp_path, fresh, "--table", "sessions")
    assert fresh.execute(chosen) == [("sessions",)]
    _, found = check(tmp_path, "--ws-port", "0", DATABASE_URL=fresh.url)
    assert found["triggers"]["good"], found
    assert "created what was missing" in init(tmp_path, fresh)
    assert len(fresh.execute(chosen)) == 4


@pytest.mark.parametrize(
    "arguments,said",
    [
        (("--table", "subtask"), "did you mean 'subtasks'"),
        (("--event", "subtask.done"), "there is no event 'subtask.done'"),
        (("--event", "message.red"), "did you mean 'message.read'"),
        (("--exclude-column", "subtask.result"), "did you mean 'subtasks'"),
        (("--include-column", "a'b"), "not the name of a column"),
        (("--exclude-column", ""), "not the name of a column"),
        (("--table", "actions", "--event", "message.new"), "none of the events"),
        (("--remove", "--table", "sessions"), "--remove"),
    ],
)
def test_choices_that_are_invalid(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """
    A choice that would do nothing is a usage error that says what there is.
    """
    done = run(tmp_path, "init-db", *arguments)
    assert done.returncode == 2 and said in done.stderr


def test_a_session_with_settings_of_its_own(fresh: PostgresServer, tmp_path: Path) -> None:
    """
    No setting of the session that writes changes what is sent.
    """
    init(tmp_path, fresh)
    with closing(psycopg2.connect(fresh.url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("set standard_conforming_strings = off; set escape_string_warning = off")
            cursor.execute("set bytea_output = escape; set extra_float_digits = -15; set search_path = pg_temp")
            cursor.execute("set datestyle = 'SQL, DMY'; set intervalstyle = iso_8601; listen dcm_events")
            cursor.execute(f"insert into public.subtasks (id, agent_type) values ('{BIG}', E'q\"\\\\{BIG}')")
            cursor.execute("select 1")
        data = json.loads(connection.notifies[0].payload)["data"]
    assert (data["id"], data["agent_type"]) == (str(BIG), f'q"\\{BIG}')
