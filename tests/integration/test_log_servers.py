"""
The log in databases that are more than one server: a primary with a replica, and a connection pool in between.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.integration.clients import answer_to, hear, say
from tests.integration.databases import PostgresServer, pgbouncer, postgres
from tests.integration.machine import until
from tests.integration.owed import make_tables
from tests.integration.running import Service, service

pytestmark = pytest.mark.integration

TOPIC = "topics/t"


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    with postgres() as server:
        make_tables(server)
        yield server


def publish(server: PostgresServer, data: object) -> None:
    server.execute("select dcm_ws.publish(%s, 'session.created', %s)", TOPIC, json.dumps(data))


def subscribed(running: Service) -> ClientConnection:
    client = running.connect()
    say(client, type="subscribe", channel=TOPIC, id="s")
    assert answer_to(client, "s")["success"] is True
    return client


def row(client: ClientConnection) -> dict[str, Any]:
    """
    The next event that was published in SQL, on the channel where that was: C{global} has it, too.
    """
    while (frame := hear(client)).get("event") != "session.created" or frame["channel"] != TOPIC:
        assert frame.get("type") != "gap", frame
    return frame


def replicated(primary: PostgresServer, replica: PostgresServer) -> None:
    """
    Wait until the replica has replayed what the primary has committed.
    """
    ((end,),) = primary.execute("select pg_current_wal_flush_lsn()::text")
    until(lambda: replica.execute("select pg_last_wal_replay_lsn() >= %s::pg_lsn", end) == [(True,)])


@contextlib.contextmanager
def service_of(*servers: PostgresServer) -> Iterator[Service]:
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    with service("--database-url", f"postgresql://dcm@{hosts}/postgres", "--log", "postgres") as running:
        yield running


def log(running: Service) -> dict[str, Any]:
    found: dict[str, Any] = running.stats()["log"]
    return found


def test_replica_without_the_last_commits(primary: PostgresServer) -> None:
    """
    If the new primary lacks an event that was delivered, the log gets another epoch there: clients that are connected
    are told of the gap and closed, and one that resumes in the old epoch is told, too.
    """
    with postgres(primary=primary) as replica, service_of(primary, replica) as running:
        client = subscribed(running)
        publish(primary, "replicated")
        kept = row(client)
        replicated(primary, replica)
        replica.stop()
        publish(primary, "lost")
        lost = row(client)
        assert (lost["data"], lost["pos"]) == ("lost", kept["pos"] + 1)
        old = log(running)["epoch"]
        primary.stop("immediate")
        replica.start()
        replica.promote()
        while (frame := hear(client)).get("type") != "gap":
            pass
        assert frame["reason"] == "epoch" and frame["epoch"] != old
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                hear(client)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
        until(lambda: log(running)["state"] == "up")
        assert log(running)["epoch"] == frame["epoch"]

        client = running.connect()
        say(client, type="resume", epoch=old, pos=lost["pos"], channels=[TOPIC], id="r")
        answer = answer_to(client, "r")
        assert (answer["resumed"], answer["gap"]["reason"]) == (False, "epoch")
        publish(replica, "after")
        after = row(client)
        assert (after["data"], after["pos"]) == ("after", lost["pos"])
        assert replica.execute("select epoch from dcm_ws.meta") == [(frame["epoch"],)]
        assert running.stop(signal.SIGTERM) == 0


def test_replica_with_every_commit(primary: PostgresServer) -> None:
    """
    If the new primary has the last event that was delivered, the epoch stays, and clients notice nothing.
    """
    with postgres(primary=primary) as replica, service_of(primary, replica) as running:
        client = subscribed(running)
        publish(primary, "before")
        before = row(client)
        epoch = log(running)["epoch"]
        replicated(primary, replica)
        primary.stop("immediate")
        replica.promote()
        until(lambda: log(running)["state"] == "up")
        publish(replica, "after")
        after = row(client)
        assert (after["data"], after["pos"]) == ("after", before["pos"] + 1)
        assert log(running)["epoch"] == epoch
        assert running.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("synchronous", [False, True])
def test_replica_of_which_nothing_is_heard(primary: PostgresServer, synchronous: bool) -> None:
    """
    Nobody notices, unless commits wait for it: then publishes are refused until it is heard again.
    """
    with postgres(primary=primary) as replica, service_of(primary) as running:
        client = subscribed(running)
        until(lambda: primary.execute("select 1 from pg_stat_replication where state = 'streaming'"))
        if synchronous:
            primary.execute("alter system set synchronous_standby_names = '*'")
            primary.execute("select pg_reload_conf()")
            until(lambda: primary.execute("select 1 from pg_stat_replication where sync_state = 'sync'"))
        ((receiver,),) = replica.execute("select pid from pg_stat_wal_receiver")
        os.kill(receiver, signal.SIGSTOP)
        try:
            event = {"type": "publish", "channel": TOPIC, "event": "session.created", "data": 1, "key": "k"}
            say(client, **event, id="silent")
            answer = answer_to(client, "silent")
            assert answer.get("code") == ("NOT_AVAILABLE" if synchronous else None)
        finally:
            os.kill(receiver, signal.SIGCONT)
        say(client, **event, id="heard")
        assert answer_to(client, "heard")["success"] is True
        until(lambda: log(running)["state"] == "up")
        assert len(primary.execute("select 1 from dcm_ws.log")) == 1
        assert running.stop(signal.SIGTERM) == 0


# a connection pool in between


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_publish_through_a_pool(primary: PostgresServer, mode: str) -> None:
    """
    C{dcm_ws.publish} works through a pool that lends connections for a transaction or a statement, if the service's own
    connections are direct; nothing of what it did stays behind in the pool.
    """
    with pgbouncer(primary, mode, 2) as where, service_of(primary) as running:
        client = subscribed(running)
        with contextlib.ExitStack() as stack:
            sessions = [stack.enter_context(contextlib.closing(psycopg2.connect(where))) for _ in range(4)]
            for session in sessions:
                session.autocommit = mode == "statement"
            for number in range(40):
                session = sessions[number % 4]
                session.cursor().execute("select dcm_ws.publish(%s, 'session.created', %s)", (TOPIC, str(number)))
                if mode == "transaction" and number % 10 == 9:
                    session.rollback()
                else:
                    session.commit()
            expected = [number for number in range(40) if mode == "statement" or number % 10 != 9]
            assert [row(client)["data"] for _ in expected] == expected
            held = primary.execute("select count(*) from pg_locks where locktype = 'advisory' and mode = 'ShareLock'")
            assert held == [(0,)]


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_service_behind_a_pool(primary: PostgresServer, mode: str) -> None:
    """
    The log is down behind such a pool, and says why; no lock of the service stays behind in the pool, so that a service
    with direct connections numbers the events.
    """
    with pgbouncer(primary, mode) as where:
        with service("--database-url", where, "--log", "postgres", wait="database down") as running:
            until(lambda: log(running)["state"] != "connecting")
            assert "a connection pool in transaction mode" in log(running)["reason"]
            assert log(running)["state"] == "down"
            assert running.stop(signal.SIGTERM) == 0
        # what the service did in the pool's connections, which stay open
        assert primary.execute("select count(*) from pg_locks where locktype = 'advisory'") == [(0,)]
        with service_of(primary) as running:
            until(lambda: log(running)["state"] == "up")


def test_database_that_hangs(primary: PostgresServer) -> None:
    """
    A service whose database does not answer any more, and does not end its connections either, can be stopped.
    """
    with service_of(primary) as running:
        client = subscribed(running)
        sessions = primary.execute("select pid from pg_stat_activity where application_name ~ '^dcm-ws'")
        for (pid,) in sessions:
            os.kill(pid, signal.SIGSTOP)
        try:
            say(client, type="publish", channel=TOPIC, event="task.created", data=1, id=1)
            assert answer_to(client, 1)["code"] == "NOT_AVAILABLE"
            assert running.stop() == 0
        finally:
            for (pid,) in sessions:
                os.kill(pid, signal.SIGCONT)
