from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.running import PostgresServer, postgres


@pytest.fixture(scope="session")
def database() -> Iterator[PostgresServer]:
    """
    A PostgreSQL that all tests share: whoever stops it starts it again.
    """
    with postgres() as server:
        yield server
