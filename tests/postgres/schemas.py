"""
Databases with the schema of the log, as tests of its SQL use them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2

from dcm_ws.postgres.install import in_transaction
from dcm_ws.postgres.migrations import log_sql
from tests.integration.databases import PostgresServer

GATE = "(1684237687, 2)"
"""
The advisory lock that the service holds while it polls.
"""


def install(server: PostgresServer, **options: Any) -> None:
    """
    Install the schema of the log, or migrate it.
    """
    execute(server.url, in_transaction(log_sql(**options)))


def execute(url: str, sql: str) -> list[tuple[Any, ...]]:
    """
    Run SQL, which may have percent signs; returns the rows of the last statement.
    """
    with session(url) as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def session(url: str) -> Iterator[Any]:
    """
    A cursor in a session of its own, which commits each statement unless SQL begins a transaction.
    """
    with closing(psycopg2.connect(url, options="-c lock_timeout=10s")) as connection:
        connection.autocommit = True
        yield connection.cursor()


def as_role(server: PostgresServer, role: str) -> str:
    """
    The URL of the database for a role.
    """
    return server.url.replace("dcm@", f"{role}@")
