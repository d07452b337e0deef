from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_twisted

from tests.brokers.engine import stop_all
from tests.integration.conftest import database
from tests.integration.databases import PostgresServer
from tests.integration.owed import own, tables
from tests.integration.owed import schema as empty_log

__all__ = ["database", "empty_log", "own", "tables"]


@pytest_twisted.async_yield_fixture
async def schema(empty_log: PostgresServer) -> AsyncIterator[PostgresServer]:
    """
    The database that all tests share, with an empty log until the end of the test, when no engine uses it any more.
    """
    yield empty_log
    await stop_all()
