"""
Nodes of a cluster that stop while others go on, as real processes.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.integration.clients import Client, ask_past_events, close_of, hear_event
from tests.integration.databases import PostgresServer
from tests.integration.machine import until
from tests.integration.nodes import agent, cluster
from tests.integration.running import Service

pytestmark = pytest.mark.integration

TASK = "task.created"
LONG = "600"


@pytest.fixture
def nodes(schema: PostgresServer) -> Iterator[list[Service]]:
    """
    Two nodes that wait before they close their clients.
    """
    with cluster(schema, 2, "--drain-delay", LONG) as nodes:
        yield nodes


def task(client: Client) -> object:
    return hear_event(client, TASK)["data"]


def publish(database: PostgresServer, number: int) -> None:
    database.execute("select dcm_ws.publish('topics/t', %s, %s)", TASK, str(number))


@pytest.mark.parametrize("which", [0, 1])
def test_a_node_is_taken_out(schema: PostgresServer, nodes: list[Service], which: int) -> None:
    """
    A node that is about to stop says so, serves old and new clients until the delay has passed or is skipped, and
    gives its agents back before it ends; no matter if it leads.
    """
    node, other = nodes[which], nodes[1 - which]
    client = agent(node, "ann")
    node.process.send_signal(signal.SIGTERM)
    until(lambda: node.get("/readyz")[0] == 503)
    assert b"draining" in node.get("/readyz")[2]
    draining = "select count(*) from dcm_ws.node where draining and not fenced and pid = %s"
    until(lambda: schema.execute(draining, node.process.pid) == [(1,)])
    assert other.get("/readyz")[0] == 200
    late = agent(node, "bob")
    # it does not answer the close, so that the node does not end before the agents are looked for
    stubborn = node.connect_raw()
    publish(schema, 1)
    assert (task(client), task(late)) == (1, 1)
    node.process.send_signal(signal.SIGTERM)
    assert [close_of(each)[0] for each in (client, late)] == [1012, 1012]
    until(
        lambda: schema.execute("select agent from dcm_ws.agent where node is null order by 1") == [("ann",), ("bob",)]
    )
    assert node.process.poll() is None
    client = agent(other, "ann")
    assert task(client) == 1
    assert other.stats()["log"]["state"] in ("up", "following")
    stubborn.socket.close()
    assert node.process.wait(timeout=30) == 0
    publish(schema, 2)
    assert task(client) == 2


def test_who_is_in_a_hurry(nodes: list[Service]) -> None:
    """
    The second signal skips the delay, and the third one ends the node at once.
    """
    _, node = nodes
    stubborn = node.connect_raw()
    node.process.send_signal(signal.SIGTERM)
    node.read_log_until("about to stop")
    node.process.send_signal(signal.SIGTERM)
    assert stubborn.close_code() == 1012
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(timeout=30) == -signal.SIGTERM


def test_publishing_while_it_closes_its_clients(schema: PostgresServer) -> None:
    """
    Clients that are not closed yet may publish, and what is acknowledged is in the log.
    """
    with cluster(schema, 2, "--drain", LONG) as (one, two):
        # so that it takes some seconds to close all of them
        for _ in range(300):
            one.connect_raw()
        clients = [agent(one, f"a{number}") for number in range(20)]
        reader = agent(two, "reader")
        one.process.send_signal(signal.SIGTERM)
        one.read_log_until("draining")
        published = []
        for number, client in enumerate(clients):
            try:
                ask_past_events(client, type="publish", channel="topics/t", event=TASK, data=number, id="p")
            except ConnectionClosed:
                continue
            published.append(number)
        assert published
        assert one.process.wait(timeout=30) == 0
        arrived: set[Any] = set()
        while not arrived.issuperset(published):
            arrived.add(task(reader))
