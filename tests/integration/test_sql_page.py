"""
The SQL of the page about SQL, and of the pages that belong to it, run as it is printed.
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

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "sql.md").read_text()
# a line of psql, what it answers, and perhaps a hint
ERRORS = re.findall(r"^dcm=> (.*)\nERROR:  (.*)\n(?:HINT:  (.*)\n)?", PAGE, re.M)


def blocks(page: str, language: str = "sql") -> list[str]:
    """
    The blocks of a page in one language.
    """
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", page, re.M | re.S)
    return found


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
    A database with the schema of the log, after all the SQL of the page, which creates the table C{orders}.
    """
    with postgres() as server:
        run(server, in_transaction(log_sql()))
        for block in blocks(PAGE):
            run(server, block)
        yield server


def inbox(server: PostgresServer) -> list[tuple[str, str]]:
    """
    The event and the data of what was published, in its order.
    """
    return [(event, data) for event, data in server.execute("select event, data from dcm_ws.inbox order by id")]


def test_sql_of_the_page(orders: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each block of SQL, and the program, does what the page says; the function and the triggers are there afterwards.
    """
    published = [
        ("task.created", '{"order": 17}'),
        ("task.updated", '{"order": 17, "state": "paid"}'),
        # two events were rolled back
        ("task.updated", '{"order": 17, "state": "packed"}'),
        # with one key twice
        ("task.completed", '{"order": 17}'),
    ]
    assert inbox(orders) == published
    assert orders.execute("select state from orders") == [("paid",)]
    (program,) = blocks(PAGE, "python")
    monkeypatch.setenv("DATABASE_URL", orders.url)
    exec(program, {})
    packed = [("task.updated", '{"id": 17, "state": "packed"}'), ("task.updated", '{"order": 17, "state": "packed"}')]
    assert inbox(orders) == [*published, *packed]
    # the condition of the trigger
    orders.execute("update orders set state = state")
    orders.execute("insert into orders values (18, 'new')")
    orders.execute("delete from orders where id > 18")
    assert inbox(orders) == [*published, *packed]
    orders.execute("delete from orders")
    assert inbox(orders) == [*published, *packed, ("orders.removed", "[17, 18]")]


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
    assert len(ERRORS) >= 4


@pytest.mark.parametrize("page", ["log.md", "backup.md"])
def test_sql_of_other_pages(orders: PostgresServer, page: str) -> None:
    """
    Each block of SQL of the page is valid.
    """
    found = blocks((DOCS / page).read_text())
    assert found
    for block in found:
        run(orders, block)
