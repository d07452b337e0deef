"""
What one step of numbering costs, by the plans of PostgreSQL: it must not grow with the log.
"""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from dcm_ws.postgres.statements import statement
from tests.integration.databases import PostgresServer

pytestmark = pytest.mark.integration

OLD = 100_000
NOW_MS = 1_795_000_000_000


def fill(cursor: Any) -> None:
    """
    Put events without keys into the log, and tell the planner nothing of them, as in a log that has just grown.
    """
    cursor.execute("alter table dcm_ws.log_1 set (autovacuum_enabled = off)")
    cursor.execute(
        "insert into dcm_ws.log (pos, event_id, channel, event, data, at, mirrored, logged_at, key)"
        " select n, 'msg_' || n, 'topics/a', 'task.created', '{}', %s, true, now(),"
        " case when n %% 1000 = 0 then 'key ' || n end from generate_series(1, %s) as n",
        (NOW_MS, OLD),
    )


def with_keys(cursor: Any, keys: list[str]) -> None:
    """
    Publish events into the inbox.
    """
    for key in keys:
        cursor.execute(
            "insert into dcm_ws.inbox (slot, event_id, channel, event, data, at, key)"
            " values (0, 'msg_' || gen_random_uuid(), 'topics/a', 'task.created', '{}', %s, %s)",
            (NOW_MS, key),
        )


def parts_of(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """
    A plan and all its parts.
    """
    return [plan, *(part for each in plan.get("Plans", ()) for part in parts_of(each))]


def looked_at(plan: dict[str, Any]) -> int:
    """
    How many rows are looked at in vain.
    """
    return round(
        sum(part["Actual Loops"] * part.get(f"Rows Removed by {what}", 0) for part in parts_of(plan)
            for what in ("Filter", "Join Filter", "Index Recheck"))
    )  # fmt: skip


def explained(cursor: Any, clients: list[dict[str, object]]) -> dict[str, Any]:
    """
    Take a step that numbers everything, and return its plan.
    """
    step = statement("numbering/step")
    values = {"xmax": "0", "xip": [], "head": OLD, "old": 0, "clients": json.dumps(clients)}
    limits = {"rows": 1000, "bytes": 1_000_000, "tell": False}
    cursor.execute(f"explain (analyze, format json) {step}", values | limits)
    plan: dict[str, Any] = cursor.fetchone()[0][0]["Plan"]
    return plan


def of_client(number: int, key: str) -> dict[str, object]:
    """
    What a client has published.
    """
    return {
        "event_id": f"msg_c{number}", "channel": "topics/a", "event": "task.created", "data": "{}", "at": NOW_MS,
        "sender": None, "named": "topics/a", "publisher": "ann", "key": key, "mirrored": True,
    }  # fmt: skip


def test_keys_are_looked_up_in_their_index(tables: PostgresServer) -> None:
    """
    Events with keys do not make a step read the log from an hour ago on.
    """
    with closing(psycopg2.connect(tables.url)) as connection, connection.cursor() as cursor:
        fill(cursor)
        cursor.execute(statement("numbering/session"))
        cursor.execute(statement("numbering/prepare"))
        with_keys(cursor, [f"new {number}" for number in range(20)] + ["key 1000", "key 2000"])
        plan = explained(cursor, [of_client(number, f"of a client {number}") for number in range(20)])
        assert looked_at(plan) < 1000
        cursor.execute("select count(*) from dcm_ws.log")
        assert cursor.fetchone() == (OLD + 40,)


def test_repeated_keys_are_compared_once(tables: PostgresServer) -> None:
    """
    What clients repeat does not make a step look through all its events once for each of them.
    """
    with closing(psycopg2.connect(tables.url)) as connection, connection.cursor() as cursor:
        cursor.execute(statement("numbering/session"))
        cursor.execute(statement("numbering/prepare"))
        with_keys(cursor, [f"new {number}" for number in range(500)])
        plan = explained(cursor, [of_client(number, f"new {number % 500}") for number in range(1000)])
        assert looked_at(plan) < 5000
        cursor.execute("select count(*) from dcm_ws.log")
        assert cursor.fetchone() == (500,)
