from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

import pytest

from tests.integration.certificates import Certificate
from tests.integration.databases import PostgresServer, postgres
from tests.integration.owed import schema
from tests.integration.sharing import SharedServices

__all__ = ["schema"]


@pytest.fixture(scope="session")
def database() -> Iterator[PostgresServer]:
    """
    A PostgreSQL that all tests share, and none disturbs.
    """
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def stoppable() -> Iterator[PostgresServer]:
    """
    A PostgreSQL whose connections a test may end, and which it may stop if it starts it again.
    """
    with postgres() as server:
        yield server


@pytest.fixture(scope="module")
def services() -> Iterator[SharedServices]:
    """
    Services that the tests of a module share.
    """
    with contextlib.ExitStack() as stack:
        yield SharedServices(stack)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """
    A certificate for localhost.
    """
    return Certificate(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture
def agent() -> str:
    """
    The name of an agent that no other test uses: the service keeps subscriptions and events for agents that are away.
    """
    return f"agent-{secrets.token_hex(4)}"
