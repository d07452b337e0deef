"""
Everything that has a connection to the database of its own, after the database was away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from dcm_ws import Settings, make_service
from dcm_ws.app.service import DCMService
from dcm_ws.brokers import bus_postgres, flushes, numberer
from dcm_ws.postgres import listener
from dcm_ws.postgres.backoff import Backoff
from tests.integration.databases import PostgresServer, postgres
from tests.integration.owed import make_tables

pytestmark = pytest.mark.integration

NEVER = 10_000.0
CONNECTIONS = {"dcm-ws listen", "dcm-ws log", "dcm-ws agents"}
LOST = ("database down", "the log cannot be written")
OF_A_NODE = CONNECTIONS | {"dcm-ws bus"}
LOST_BY_A_NODE = (*LOST, "bus down", "what agents are owed cannot be written")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as server:
        make_tables(server)
        yield server


class Eager(Backoff):
    """
    Waits very little before each attempt.
    """

    def next(self) -> float:
        return 0.1


class Patient(Backoff):
    """
    Waits for ever, unless it is hurried.
    """

    def next(self) -> float:
        return NEVER


@pytest_twisted.async_yield_fixture
async def running(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[DCMService]:
    """
    A service in which all wait very long after a failure, but for one.
    """
    from twisted.internet import reactor

    is_node, first = request.param
    for module in (listener, numberer, bus_postgres):
        monkeypatch.setattr(module, "Backoff", Eager if module is first else Patient)
    monkeypatch.setattr(flushes, "backoff", lambda *_: NEVER)
    choices: dict[str, Any] = {"cluster": True} if is_node else {}
    service = make_service(
        Settings(listen=("tcp:0:interface=127.0.0.1",), database=server.url, drain=0.0, drain_delay=0.0, **choices),
        reactor,
    )
    service.startService()
    yield service
    await service.stopService()


async def until_connected(server: PostgresServer, names: set[str]) -> None:
    """
    Wait until there are connections of these names, at least.
    """
    from twisted.internet import reactor

    while not names <= {name for (name,) in server.execute("select application_name from pg_stat_activity")}:
        await deferLater(reactor, 0.02)


async def until_noticed(warnings: list[str], *beginnings: str) -> None:
    """
    Wait until everybody has lost its connection.
    """
    from twisted.internet import reactor

    while not all(any(text.startswith(beginning) for text in warnings) for beginning in beginnings):
        await deferLater(reactor, 0.02)


@pytest.mark.parametrize(
    ("running", "names", "lost"),
    [
        pytest.param((False, listener), CONNECTIONS, LOST, id="alone, the listener"),
        pytest.param((False, numberer), CONNECTIONS, LOST, id="alone, the log"),
        pytest.param((True, listener), OF_A_NODE, LOST_BY_A_NODE, id="a node, the listener"),
        pytest.param((True, numberer), OF_A_NODE, LOST_BY_A_NODE, id="a node, the log"),
    ],
    indirect=["running"],
)
@pytest_twisted.ensureDeferred
async def test_who_connects_first_hurries_the_others(
    server: PostgresServer, running: DCMService, names: set[str], lost: tuple[str, ...], warnings: list[str]
) -> None:
    """
    Nobody waits longer for the database, as they do after it was away for long, when one of them has connected to it.
    """
    await until_connected(server, names)
    server.stop("immediate")
    try:
        await until_noticed(warnings, *lost)
    finally:
        server.start()
    await until_connected(server, names)
