"""
The SQL of the page about the log, run as it is printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from dcm_ws.postgres.install import in_transaction
from dcm_ws.postgres.migrations import log_sql
from tests.integration.databases import PostgresServer, postgres

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[2] / "docs" / "log.md").read_text()
BLOCKS = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.M | re.S)
# a line of psql, what it answers, and perhaps a hint
ERRORS = re.findall(r"^dcm=> (.*)\nERROR:  (.*)\n(?:HINT:  (.*)\n)?", PAGE, re.M)


def run(server: PostgresServer, sql: str) -> None:
    """
    Run a script as psql does, without a transaction around it.
    """
    with closing(psycopg2.connect(server.url)) as connection:
        connection.autocommit = True
        connection.cursor().execute(sql)


@pytest.fixture(scope="module")
def orders() -> Iterator[PostgresServer]:
    """
    A database with the schema of the log, and the table that the page writes to.
    """
    with postgres() as server:
        run(server, in_transaction(log_sql()))
        server.execute("create table orders (id int primary key, state text)")
        server.execute("insert into orders values (17, 'new')")
        yield server


def test_sql_of_the_page(orders: PostgresServer) -> None:
    """
    Each block of SQL does what the page says.
    """
    assert len(BLOCKS) >= 6
    for block in BLOCKS:
        run(orders, block)
    assert orders.execute("select event, data from dcm_ws.inbox order by id") == [
        ("task.created", '{"order": 17}'),
        ("task.updated", '{"order": 17, "state": "paid"}'),
    ]
    orders.execute("update orders set state = 'sent'")
    assert orders.execute("select data from dcm_ws.inbox order by id desc limit 1") == [
        ('{"id": 17, "state": "sent"}',),
    ]


@pytest.mark.parametrize(("statement", "message", "hint"), ERRORS)
def test_errors_of_the_page(orders: PostgresServer, statement: str, message: str, hint: str) -> None:
    """
    The errors are those that the page shows.
    """
    with pytest.raises(psycopg2.Error) as raised:
        run(orders, statement)
    assert raised.value.diag.message_primary == message
    assert (raised.value.diag.message_hint or "") == hint


def test_the_page_shows_errors() -> None:
    """
    The pattern above finds them.
    """
    assert len(ERRORS) >= 3
