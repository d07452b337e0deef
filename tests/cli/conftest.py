from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.conftest import certificate, database, services, stoppable
from tests.integration.databases import TOOLS, PostgresServer, debian_postgres, postgres
from tests.integration.running import Service, production_service, service

__all__ = ["certificate", "database", "services", "stoppable"]


@pytest.fixture(scope="module", params=["embedded", "debian"])
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """
    A PostgreSQL of the module's own: the embedded one, and Debian's, which is older.
    """
    with postgres(TOOLS if request.param == "embedded" else debian_postgres()) as started:
        yield started


@pytest.fixture
def fresh(server: PostgresServer) -> PostgresServer:
    """
    The module's own database, with an empty schema.
    """
    server.execute("drop schema public cascade; create schema public")
    return server


@pytest.fixture
def running() -> Iterator[Service]:
    """
    A service of the test's own, in development.
    """
    with service() as started:
        yield started


@pytest.fixture(scope="module")
def guarded() -> Iterator[Service]:
    """
    A service in production whose database does not answer.
    """
    with production_service() as started:
        yield started
