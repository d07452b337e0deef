"""
The bridge to databases that are more than one server: a primary with a standby, and a connection pool in between.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import POLL_OK
from websockets.sync.client import ClientConnection

from dcm_ws.postgres.schema import TABLES
from tests.integration.clients import ask, hear
from tests.integration.databases import PostgresServer, pgbouncer, postgres
from tests.integration.machine import free_port, until
from tests.integration.running import Service, service

pytestmark = pytest.mark.integration

EVENT = json.dumps({"channel": "global", "event": "row.sent", "data": 1})


@pytest.fixture(scope="module")
def primary() -> Iterator[PostgresServer]:
    """
    A server with the tables of the metrics.
    """
    with postgres() as server:
        server.execute(TABLES)
        server.execute("insert into task_lists (status) values ('pending')")
        yield server


def url(*servers: PostgresServer, more: str = "") -> str:
    """
    A URL with all of the servers, in this order.
    """
    return f"postgresql://dcm@{','.join(f'127.0.0.1:{server.port}' for server in servers)}/postgres{more}"


def assert_bridges(running: Service, server: PostgresServer) -> None:
    """
    A notification on the server reaches a client.
    """
    client = running.connect()
    server.notify(EVENT)
    while hear(client).get("event") != "row.sent":
        pass


def figures(client: ClientConnection) -> dict[str, Any]:
    """
    The next snapshot of the metrics.
    """
    while (frame := hear(client)).get("event") != "metric.update":
        pass
    data: dict[str, Any] = frame["data"]
    return data


def states(running: Service) -> str:
    state: str = running.health()["database"]["state"]
    return state


def test_standby_first(primary: PostgresServer) -> None:
    """
    Of a standby and its primary, the primary is listened to, whatever their order is; when the standby has become the
    primary, that one is. The metrics may come from either.
    """
    with postgres() as first:
        first.execute(TABLES)
        with postgres(primary=first) as standby:
            assert standby.execute("select pg_is_in_recovery()") == [(True,)]
            where = url(standby, first)
            with service("--database-url", where, "--metrics-interval=0.1") as running:
                assert_bridges(running, first)
                client = running.connect()
                assert ask(client, type="subscribe", channel="metrics", id=1)["success"] is True
                assert figures(client)["pending_tasks"] == 0
                first.stop("immediate")
                until(lambda: states(running) == "down")
                standby.promote()
                until(lambda: states(running) == "up")
                assert_bridges(running, standby)
                assert running.stop(signal.SIGTERM) == 0


def test_server_that_takes_no_writes(primary: PostgresServer) -> None:
    """
    Of several servers one that takes no writes by default is passed by; a URL that says otherwise is followed, and so
    is one with a single server.
    """
    with postgres() as other:
        other.execute("alter role dcm set default_transaction_read_only = on")
        with service("--database-url", url(other, primary)) as running:
            assert_bridges(running, primary)
        with service("--database-url", url(other, primary, more="?target_session_attrs=any")) as running:
            assert_bridges(running, other)
        with service("--database-url", url(other)) as running:
            assert_bridges(running, other)
        with service("--database-url", url(other, primary), env={"PGTARGETSESSIONATTRS": "read-only"}) as running:
            assert_bridges(running, other)


def test_standby_alone(primary: PostgresServer) -> None:
    """
    A standby cannot be listened to: the database is down, with PostgreSQL's reason, until the standby is promoted.
    Metrics can be read from it all the while.
    """
    with (
        postgres(primary=primary) as standby,
        service("--database-url", standby.url, "--metrics-interval=0.1", wait="database down") as running,
    ):
        assert "cannot execute LISTEN during recovery" in running.log
        client = running.connect()
        assert ask(client, type="subscribe", channel="metrics", id=1)["success"] is True
        assert figures(client)["pending_tasks"] == 1
        standby.promote()
        running.read_log_until("database up")
        assert_bridges(running, standby)


# a connection pool in between


@pytest.mark.parametrize("mode,size", [("transaction", 5), ("transaction", 1), ("statement", 5)])
def test_pool_that_loses_notifications(primary: PostgresServer, mode: str, size: int) -> None:
    """
    Behind a connection pool in which notifications get lost, the database is down, and the log and /readyz say so.
    """
    with (
        pgbouncer(primary, mode, size) as where,
        service("--database-url", where, "--ready-needs-database", wait="database down") as running,
    ):
        assert "a connection pool in transaction mode may be in between" in running.log
        assert running.health()["status"] == "degraded"
        assert running.get("/readyz")[0] == 503
        # it asks again and again, and other statements may come last in a connection of the pool
        until(lambda: primary.execute("select 1 from pg_stat_activity where query ~ '^notify dcm_ws_echo'"))
        assert running.stop(signal.SIGTERM) == 0
        assert running.log.count("database down") == 1


@pytest.mark.parametrize("size", [20, 1])
def test_pool_in_session_mode(primary: PostgresServer, size: int) -> None:
    """
    Behind a pool that keeps a connection to each client, notifications arrive, though the pool has only one.
    """
    with pgbouncer(primary, "session", size) as where, service("--database-url", where) as running:
        assert_bridges(running, primary)
        assert states(running) == "up"
        assert running.stop(signal.SIGTERM) == 0


def test_probes_disturb_nobody(primary: PostgresServer) -> None:
    """
    Another listener of the same channel hears nothing of the service's own notifications, and they count for nothing.
    """
    with contextlib.closing(psycopg2.connect(primary.url)) as other:
        other.autocommit = True
        other.cursor().execute("listen dcm_events")
        with service("--database-url", primary.url) as running:
            until(lambda: b"dcm_ws_database_probe_seconds_count 1.0" in running.get("/metrics")[2])
            assert running.health()["database"]["notifications"] == 0
            assert_bridges(running, primary)
        until(lambda: other.poll() == POLL_OK and other.notifies)
        assert [notify.payload for notify in other.notifies] == [EVENT]


def test_no_server_takes_writes() -> None:
    """
    Where none of several servers can be reached, the service goes on trying.
    """
    nowhere = f"postgresql://dcm@127.0.0.1:{free_port()},127.0.0.1:{free_port()}/postgres"
    with service("--database-url", nowhere, wait="database down") as running:
        assert running.stop(signal.SIGTERM) == 0
