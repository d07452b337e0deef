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

from dcm_ws.schema import TABLES
from tests.integration.running import PostgresServer, Service, ask, hear, service, silence, until

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
insert into task_lists (id, name) values ('list', 'of the tasks');
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
            "running_tasks": 4,
            "completed_tasks_last_hour": 3,
            "messages_last_hour": 2,
            "actions_per_minute": 0.8,
            "avg_task_duration_ms": round((60_000 + 2_400_000 + 1) / 3),
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
        own.execute("insert into subtasks (status) values ('pending')")
        snapshot_where(client, lambda figures: figures["pending_tasks"] == 1)
        own.execute("update subtasks set status = 'running', agent_id = 'ann'")
        figures = snapshot_where(client, lambda figures: figures["running_tasks"] == 1)
        assert (figures["pending_tasks"], figures["active_agents"]) == (0, 1)


def test_missing_tables_give_zeros_and_one_warning_each(own: PostgresServer) -> None:
    """
    Without tables all figures are zeros, each missing table is logged once, and nothing else is wrong.
    """
    with polling(own) as running:
        client = subscribed(running)
        for _ in range(30):
            assert snapshot(client) == ZEROS
    for table in ("sessions", "subtasks", "agent_messages", "actions"):
        assert running.log.count(f'relation "{table}" does not exist') == 1
    assert running.log.count("metrics") == 4


def test_tables_made_later_are_found(own: PostgresServer) -> None:
    """
    Tables that are made while the service runs are read from soon after, the others meanwhile.
    """
    own.execute(TABLES + ROWS)
    own.execute("alter table actions rename to hidden; alter table subtasks rename to unseen")
    with polling(own) as running:
        client = subscribed(running)
        figures = snapshot(client)
        assert (figures["active_sessions"], figures["messages_last_hour"]) == (2, 2)
        assert (figures["actions_per_minute"], figures["pending_tasks"]) == (0, 0)
        own.execute("alter table hidden rename to actions; alter table unseen rename to subtasks")
        figures = snapshot_where(client, lambda figures: figures["pending_tasks"] == 2)
        assert (figures["active_sessions"], figures["actions_per_minute"]) == (3, 0.8)


def test_table_of_other_columns_gives_zeros(own: PostgresServer) -> None:
    """
    A table that has the name but not the columns, or that may not be read, costs its own figures alone.
    """
    own.execute(TABLES + ROWS)
    own.execute("alter table agent_messages rename created_at to sent_at")
    own.execute("alter table sessions alter id type jsonb using to_json(id)")
    with polling(own) as running:
        figures = snapshot(subscribed(running))
        assert (figures["messages_last_hour"], figures["active_sessions"], figures["pending_tasks"]) == (0, 2, 2)
    assert running.log.count("some metrics are given as 0") == 2


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
        own.execute("insert into subtasks (status) values ('pending')")
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
