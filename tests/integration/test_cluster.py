"""
Several nodes as real processes on one database.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.clients import (
    Client,
    answer_to,
    ask_past_events,
    close_of,
    hear,
    say,
    silence,
    unsubscribe_global,
)
from tests.integration.databases import PostgresServer
from tests.integration.machine import until
from tests.integration.nodes import cluster, node
from tests.integration.owed import make_tables
from tests.integration.running import Service

pytestmark = pytest.mark.integration


@pytest.fixture
def nodes(schema: PostgresServer) -> Iterator[list[Service]]:
    """
    Three nodes; the first one leads.  However slow the machine, none of them sends an event again for want of an ack.
    """
    with cluster(schema, 3, "--ack-timeout", "100") as nodes:
        yield nodes


def subscriber(service: Service, agent: str) -> Client:
    """
    An agent's connection that gets the events of C{topics/t}.
    """
    client = service.connect()
    ask_past_events(client, type="auth", agent_id=agent, id="in")
    unsubscribe_global(client)
    ask_past_events(client, type="subscribe", channel="topics/t", id="on")
    return client


def publish(client: Client, number: int, **options: Any) -> dict[str, Any]:
    """
    Publish an event; returns the answer.
    """
    message = {"type": "publish", "channel": "topics/t", "event": "task.created", "data": number, "id": f"p{number}"}
    return ask_past_events(client, **message, **options)


def heard(client: Client, most: int) -> list[tuple[int, Any]]:
    """
    The position and the data of the next events, each acknowledged.
    """
    events: list[Any] = []
    while len(events) < most:
        message = hear(client)
        if "pos" in message:
            events.append((message["pos"], message["data"]))
            say(client, type="ack", message_id=message["id"])
    return events


def leader(nodes: list[Service]) -> Service | None:
    """
    The node that numbers the events, as far as the others can tell.
    """
    return next((one for one in nodes if one.process.poll() is None and one.stats()["log"]["state"] == "up"), None)


def test_clients_of_all_nodes_get_every_event(schema: PostgresServer, nodes: list[Service]) -> None:
    """
    Whatever node an event is published at, all clients get it once, in the same order, with the same position.
    """
    assert [one.stats()["log"]["state"] for one in nodes] == ["up", "following", "following"]
    assert [one.get("/readyz")[0] for one in nodes] == [200, 200, 200]
    listeners = [subscriber(one, f"agent-{number}") for number, one in enumerate(nodes)]
    publishers = [subscriber(one, f"publisher-{number}") for number, one in enumerate(nodes)]
    for number in range(30):
        if number % 4 == 3:
            schema.execute("select dcm_ws.publish('topics/t', 'task.created', %s)", str(number))
        else:
            publish(publishers[number % 3], number)
    first, *others = (heard(client, 30) for client in listeners)
    assert sorted(data for _, data in first) == list(range(30))
    assert [pos for pos, _ in first] == list(range(1, 31))
    assert all(other == first for other in others)


def test_raw_notifications_are_logged_once(schema: PostgresServer, nodes: list[Service]) -> None:
    """
    All nodes hear them, and the one that leads logs them.
    """
    listeners = [subscriber(one, f"agent-{number}") for number, one in enumerate(nodes)]
    for number in range(3):
        event = {"channel": "topics/t", "event": "task.created", "data": number}
        schema.execute("select pg_notify('dcm_events', %s)", json.dumps(event))
    for client in listeners:
        assert heard(client, 3) == [(1, 0), (2, 1), (3, 2)]
        silence(client)


def test_resume_at_another_node(schema: PostgresServer, nodes: list[Service]) -> None:
    """
    A client that kept its position goes on at any node.
    """
    listener = subscriber(nodes[1], "ann")
    publisher = subscriber(nodes[0], "bob")
    publish(publisher, 1)
    ((pos, _),) = heard(listener, 1)
    epoch = listener.connected["epoch"]
    listener.close()
    for number in (2, 3):
        publish(publisher, number)
    back = nodes[2].connect()
    say(back, type="auth", agent_id="ann", resume={"epoch": epoch, "pos": pos, "channels": ["topics/t"]}, id="in")
    answer = answer_to(back, "in")
    assert answer["resumed"] is True and "gap" not in answer
    assert heard(back, 2) == [(2, 2), (3, 3)]


@pytest.mark.parametrize(("how", "limit"), [(signal.SIGKILL, 20.0), (signal.SIGSTOP, 40.0)])
def test_the_leader_is_gone(schema: PostgresServer, nodes: list[Service], how: signal.Signals, limit: float) -> None:
    """
    Another node leads soon, and the clients of the others lose nothing.

    @param limit: seconds in which that has to happen on a busy machine.
    """
    listener, publisher = subscriber(nodes[1], "ann"), subscriber(nodes[2], "bob")
    publish(publisher, 0)
    os.kill(nodes[0].process.pid, how)
    since = time.monotonic()
    number, took = 1, None
    while took is None:
        message = {"type": "publish", "channel": "topics/t", "event": "task.created", "data": number, "id": number}
        say(publisher, **message, key=f"k{number}")
        if answer_to(publisher, number)["success"]:
            took = time.monotonic() - since
    schema.execute("select dcm_ws.publish('topics/t', 'task.created', '2')")
    assert [data for _, data in heard(listener, 3)] == [0, 1, 2]
    assert leader(nodes[1:]) is not None
    assert took < limit


def test_a_service_without_cluster_does_not_start_beside_one(schema: PostgresServer, nodes: list[Service]) -> None:
    """
    It is on standby, and says what to do.
    """
    alone = Service("--database-url", schema.url, wait="listening on")
    try:
        until(lambda: alone.get("/readyz")[0] == 503)
        assert alone.stats()["log"]["state"] == "standby"
    finally:
        alone.stop(signal.SIGKILL)


def test_cluster_needs_the_log(database: PostgresServer) -> None:
    """
    Without the schema, a node does not start, and says why.
    """
    with pytest.raises(AssertionError, match="dcm-ws init-db --apply"):
        node(database, "n1")


def test_a_new_epoch_reaches_clients_of_all_nodes(schema: PostgresServer, nodes: list[Service]) -> None:
    """
    All of them are told of the gap and have to come again; then they get what is published.
    """
    listeners = [subscriber(one, f"agent-{number}") for number, one in enumerate(nodes)]
    before = listeners[0].connected["epoch"]
    schema.execute("select dcm_ws.new_epoch()")
    epochs = set()
    for client in listeners:
        while (message := hear(client))["type"] != "gap":
            pass
        epochs.add(message["epoch"])
        assert message["reason"] == "epoch"
        assert close_of(client)[0] == 1012
    assert len(epochs) == 1 and before not in epochs
    until(lambda: [one.stats()["log"]["state"] for one in nodes].count("following") == 2)
    again = [subscriber(one, f"agent-{number}") for number, one in enumerate(nodes)]
    publish(subscriber(nodes[1], "publisher"), 1)
    for client in again:
        assert heard(client, 1) == [(1, 1)]


def test_postgresql_restarts(stoppable: PostgresServer) -> None:
    """
    Clients of all nodes stay connected, and get what is published when it is back, once and in one order.
    """
    make_tables(stoppable)
    with cluster(stoppable, 2) as nodes:
        listeners = [subscriber(one, f"agent-{number}") for number, one in enumerate(nodes)]
        publish(subscriber(nodes[1], "publisher"), 0)
        stoppable.stop()
        until(lambda: all(one.stats()["log"]["state"] == "down" for one in nodes))
        assert [one.get("/readyz")[0] for one in nodes] == [503, 503]
        stoppable.start()
        until(lambda: sorted(one.stats()["log"]["state"] for one in nodes) == ["following", "up"])
        for number in (1, 2, 3):
            stoppable.execute("select dcm_ws.publish('topics/t', 'task.created', %s)", str(number))
        for client in listeners:
            assert heard(client, 4) == [(1, 0), (2, 1), (3, 2), (4, 3)]
        assert stoppable.execute("select name from dcm_ws.node where fenced") == []
    stoppable.execute("drop schema dcm_ws cascade")


def test_metrics(schema: PostgresServer) -> None:
    """
    The node that leads reads them only if a client of any node is subscribed, and all that are get them.
    """
    readers = "select count(*) from pg_stat_activity where application_name = 'dcm-ws metrics'"
    with cluster(schema, 2, "--metrics-interval", "0.1") as nodes:
        # one a second
        until(lambda: nodes[0].stats()["journal"]["flushes"] >= 2)
        assert schema.execute(readers) == [(0,)]
        clients = [one.connect() for one in reversed(nodes)]
        for client in clients:
            unsubscribe_global(client)
            ask_past_events(client, type="subscribe", channel="metrics", id="on")
            while hear(client).get("event") != "metric.update":
                pass
        assert schema.execute(readers) == [(1,)]
