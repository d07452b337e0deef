"""
Agents that go from one node of a cluster to another, as real processes have it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.clients import Client, ask_past_events, hear_event, say, silence, unsubscribe_global
from tests.integration.databases import PostgresServer
from tests.integration.machine import until
from tests.integration.nodes import agent, cluster
from tests.integration.running import Service

pytestmark = pytest.mark.integration

TASK = "task.created"


@pytest.fixture
def nodes(schema: PostgresServer) -> Iterator[list[Service]]:
    """
    Two nodes that hear each other.
    """
    with cluster(schema, 2) as nodes:
        for one in nodes:
            until(lambda one=one: one.stats()["bus"]["heard"])
        yield nodes


def publish(service: Service, number: int) -> None:
    client = service.connect()
    unsubscribe_global(client)
    ask_past_events(client, type="publish", channel="topics/t", event=TASK, data=number, id="p")


def task(client: Client) -> dict[str, Any]:
    return hear_event(client, TASK)


def test_an_agent_comes_to_another_node(nodes: list[Service]) -> None:
    """
    It gets what it is owed and has missed, and nothing that it has acknowledged a moment before.
    """
    one, two = nodes
    client = agent(one)
    for number in (1, 2):
        publish(two, number)
    first, second = task(client), task(client)
    assert (first["data"], second["data"]) == (1, 2)
    say(client, type="ack", message_id=first["id"])
    silence(client)
    client.close()
    publish(one, 3)
    client = agent(two, channels=())
    assert [task(client)["data"] for _ in range(2)] == [2, 3]
    publish(one, 4)
    last = task(client)
    assert last["data"] == 4
    say(client, type="ack", pos=last["pos"])
    silence(client)
    # while the former connection is open
    again = agent(one, channels=())
    publish(two, 5)
    assert task(again)["data"] == 5


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_node_ends(nodes: list[Service], how: signal.Signals) -> None:
    """
    What its agents have acknowledged counts, if it was written.
    """
    one, two = nodes
    client = agent(two)
    for number in (1, 2):
        publish(one, number)
    first, _ = task(client), task(client)
    say(client, type="ack", message_id=first["id"])
    silence(client)
    flushes = two.stats()["journal"]["flushes"]
    until(lambda: two.stats()["journal"]["flushes"] >= flushes + 2)
    two.stop(how)
    publish(one, 3)
    client = agent(one, channels=())
    assert [task(client)["data"] for _ in range(2)] == [2, 3]


def test_who_leads_does_not_matter(nodes: list[Service]) -> None:
    """
    The node that leads ends, and its agents go on at the other one.
    """
    one, two = nodes
    client = agent(one)
    publish(two, 1)
    assert task(client)["data"] == 1
    one.stop(signal.SIGTERM)
    client = agent(two, channels=())
    assert task(client)["data"] == 1
    publish(two, 2)
    assert task(client)["data"] == 2
