from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_twisted

from tests.brokers.engine import stop_all
from tests.integration.conftest import database
from tests.integration.databases import PostgresServer
from tests.integration.owed import make_tables, own, tables

__all__ = ["database", "own", "tables"]


@pytest_twisted.async_yield_fixture
async def schema(database: PostgresServer) -> AsyncIterator[PostgresServer]:
    """
    The database that all tests share, with an empty log until the end of the test, when no engine uses it any more.
    """
    make_tables(database)
    yield database
    await stop_all()
    database.execute("drop schema if exists dcm_ws cascade")
