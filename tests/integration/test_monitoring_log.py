"""
What is reported of a log in the database, on the real service.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.integration.clients import answer_to, ask, hear, say
from tests.integration.databases import PostgresServer, postgres
from tests.integration.machine import until
from tests.integration.owed import make_tables
from tests.integration.pages import get, http, metrics
from tests.integration.running import Service, production_service, service

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring.md"
PUBLISH = "select dcm_ws.publish('topics/t', 'task.created', '1')"


@pytest.fixture
def database() -> Iterator[PostgresServer]:
    with postgres() as found:
        yield found


@pytest.fixture
def running(database: PostgresServer) -> Iterator[Service]:
    make_tables(database)
    with service("--database-url", database.url, "--ready-needs-database") as found:
        yield found


def ready(running: Service) -> tuple[int, str]:
    """
    The status of /readyz, and why it is not 200.
    """
    status, text = get(f"{http(running)}/readyz")
    return status, json.loads(text).get("error", "")


def log(running: Service) -> dict[str, Any]:
    """
    The log in /stats.
    """
    found: dict[str, Any] = running.stats()["log"]
    return found


def test_log_in_the_database(running: Service, database: PostgresServer) -> None:
    """
    Where the log is, how large, and what its engine does, in all reports.
    """
    client = running.connect()
    ask(client, type="subscribe", channel="topics/t", id=1)
    database.execute(PUBLISH)
    while hear(client).get("event") != "task.created":
        pass
    say(client, type="publish", channel="topics/t", event="task.failed", id=2)
    assert answer_to(client, 2)["success"]

    health = running.health()
    assert health["status"] == "healthy"
    assert health["log"] == {"engine": "postgres", "state": "up", "reason": ""}
    assert ready(running) == (200, "")
    found = log(running)
    assert (found["engine"], found["state"], found["fallback"], found["reason"]) == ("postgres", "up", False, "")
    assert (found["head"], found["events"], found["numbered"], found["lagged"]) == (2, 2, 2, 1)
    assert 0 < found["lagSeconds"] < 60
    assert found["steps"] > 0 and found["stepSeconds"] > 0
    assert (found["waiting"], found["refused"], found["partitions"], found["heldSince"]) == (0, 0, 1, None)
    assert found["keep"] == 86_400 and found["maxBytes"] == 4 << 30

    # the sizes are looked at every few seconds
    until(lambda: log(running)["oldest"] is not None)
    found, samples = log(running), metrics(http(running))
    assert samples["dcm_ws_log_oldest_timestamp_seconds"] == pytest.approx(found["oldest"] / 1000, abs=60)
    assert samples["dcm_ws_log_bytes"] == found["bytes"] > 8192
    assert samples["dcm_ws_log_inbox_bytes"] == found["inboxBytes"] > 8192
    assert samples['dcm_ws_log_engine{engine="postgres"}'] == samples['dcm_ws_log_state{state="up"}'] == 1
    assert samples["dcm_ws_log_lag_seconds_count"] == 1
    assert samples["dcm_ws_log_numbered_total"] == 2
    assert samples["dcm_ws_log_step_seconds_count"] >= found["steps"]
    assert samples["dcm_ws_log_fallback"] == samples["dcm_ws_publishes_refused_total"] == 0


def test_database_that_is_down(running: Service, database: PostgresServer) -> None:
    """
    While the log cannot be written, the reports say why, and publishes are refused and counted.
    """
    client = running.connect()
    database.stop()
    try:
        until(lambda: log(running)["state"] == "down")
        health = running.health()
        assert health["status"] == "degraded"
        assert health["log"]["reason"]
        assert ready(running) == (503, "the database is not connected")
        say(client, type="publish", channel="topics/t", event="task.created", id=1)
        assert answer_to(client, 1)["code"] == "NOT_AVAILABLE"
        assert log(running)["refused"] == metrics(http(running))["dcm_ws_publishes_refused_total"] == 1
        assert metrics(http(running))['dcm_ws_log_state{state="down"}'] == 1
    finally:
        database.start()
    until(lambda: ready(running) == (200, ""))
    assert running.health()["log"] == {"engine": "postgres", "state": "up", "reason": ""}


def test_standby(running: Service, database: PostgresServer) -> None:
    """
    A second service on the same database is not ready, whatever its options, until the first one has stopped.
    """
    with service("--database-url", database.url, wait="another dcm-ws") as second:
        assert ready(second) == (503, "another dcm-ws has the log of the database")
        health = second.health()
        assert (health["status"], health["log"]["state"]) == ("degraded", "standby")
        assert "another dcm-ws" in health["log"]["reason"]
        assert metrics(http(second))['dcm_ws_log_state{state="standby"}'] == 1
        running.stop()
        until(lambda: ready(second) == (200, ""))
        assert second.health()["log"] == {"engine": "postgres", "state": "up", "reason": ""}


def test_database_without_a_log(database: PostgresServer) -> None:
    """
    A log that is in memory because the database has none is not a fault; the reports say why, and so does the service's
    log, once.
    """
    with service("--database-url", database.url, "--ready-needs-database") as running:
        health = running.health()
        assert (health["status"], health["log"]["engine"], health["log"]["state"]) == ("healthy", "memory", "up")
        assert "schema dcm_ws" in health["log"]["reason"]
        assert log(running)["fallback"] and log(running)["reason"] == health["log"]["reason"]
        assert metrics(http(running))["dcm_ws_log_fallback"] == 1
        assert ready(running) == (200, "")
        running.stop()
        assert running.log.count(health["log"]["reason"]) == 1, running.log
    with service("--database-url", database.url, "--log", "memory") as running:
        assert running.health()["log"] == {"engine": "memory", "state": "up", "reason": ""}
        assert metrics(http(running))["dcm_ws_log_fallback"] == 0


def test_production(database: PostgresServer) -> None:
    """
    Without a token, nobody learns in production where the log is, and why.
    """
    with production_service(database.url) as running:
        assert not {"log", "journal"} & running.health().keys()
        assert "schema dcm_ws" not in json.dumps([running.health(), running.stats()])


def test_query_of_the_runbook(running: Service, database: PostgresServer) -> None:
    """
    The query that docs/monitoring.md prints finds the transaction that holds the tables of the log, not the service.
    """
    (query,) = re.findall(r"```sql\n(.*?)```", MONITORING.read_text(), re.DOTALL)
    query = query.replace("%", "%%")
    until(lambda: log(running)["partitions"] == 1)
    assert database.execute(query) == []
    with closing(psycopg2.connect(database.url, application_name="billing")) as connection:
        connection.cursor().execute(PUBLISH)
        ((pid, user, application, state, _, last),) = database.execute(query)
        assert (pid, user, application) == (connection.get_backend_pid(), "dcm", "billing")
        assert (state, last) == ("idle in transaction", PUBLISH)
