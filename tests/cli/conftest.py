from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.conftest import database, services, stoppable
from tests.integration.running import Service, production_service, service

__all__ = ["database", "services", "stoppable"]


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
