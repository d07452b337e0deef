"""
The tables of what agents are owed, in a database of a test's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from dcm_ws.postgres.install import BEGIN
from dcm_ws.postgres.migrations import log_sql
from tests.integration.databases import TOOLS, PostgresServer, debian_postgres, postgres


@pytest.fixture(scope="module", params=["embedded", "debian"])
def own(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """
    A server of the test's module, of either version.
    """
    tools: Path = TOOLS if request.param == "embedded" else debian_postgres()
    with postgres(tools) as server:
        yield server


@pytest.fixture
def tables(own: PostgresServer) -> PostgresServer:
    """
    The same with empty tables.
    """
    make_tables(own)
    return own


@pytest.fixture
def schema(database: PostgresServer) -> Iterator[PostgresServer]:
    """
    The database that all tests share, with an empty log until the end of the test.
    """
    make_tables(database)
    yield database
    database.execute("drop schema if exists dcm_ws cascade")


def make_tables(server: PostgresServer) -> None:
    """
    Install the schema of the durable log, with empty tables.
    """
    with closing(psycopg2.connect(server.url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("drop schema if exists dcm_ws cascade")
        cursor.execute(BEGIN)
        cursor.execute(log_sql())


def bury(
    server: PostgresServer,
    agent: str,
    pos: int,
    *,
    reason: str = "attempts",
    died_at: int = 1_795_000_000_000,
    data: object = None,
    event: str = "task.created",
) -> str:
    """
    Make a dead letter; returns the event's id.
    """
    event_id = f"msg_{pos}"
    server.execute(
        "insert into dcm_ws.dead (agent, event_id, pos, channel, event, data, at, deliveries, reason, died_at)"
        " values (%s, %s, %s, 'topics/a', %s, %s, %s, 3, %s, %s)",
        *(agent, event_id, pos, event, json.dumps(data), died_at - 60_000, reason, died_at),
    )
    return event_id
