"""
What the nodes of a cluster say to each other, as real processes, over each bus.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.clients import Client, ask_past_events, hear, silence
from tests.integration.databases import PostgresServer
from tests.integration.machine import until
from tests.integration.nats_servers import nats
from tests.integration.nodes import cluster
from tests.integration.running import Service

pytestmark = pytest.mark.integration


@pytest.fixture(params=["postgres", "nats"])
def nodes(request: pytest.FixtureRequest, schema: PostgresServer) -> Iterator[list[Service]]:
    """
    Two nodes that hear each other.
    """
    with nats("authorization { token: s3cret }") as server:
        url = f"nats://s3cret@127.0.0.1:{server.port}"
        options = ("--nats", url) if request.param == "nats" else ()
        with cluster(schema, 2, *options) as nodes:
            for one in nodes:
                until(lambda one=one: one.stats()["bus"]["state"] == "up" and one.stats()["bus"]["node"])
                assert one.stats()["bus"]["engine"] == request.param
            yield nodes
        assert not any("s3cret" in one.log for one in nodes)


def connect(service: Service, agent: str) -> Client:
    client = service.connect()
    ask_past_events(client, type="auth", agent_id=agent, id="in")
    return client


def events_until(client: Client, last: str) -> list[Any]:
    """
    The names and the data of events, up to one with the name C{last}.
    """
    found: list[Any] = []
    while not found or found[-1][0] != last:
        message = hear(client)
        if "event" in message:
            found.append((message["event"], message["data"]))
    return found


def test_connections_and_events_that_are_not_logged(nodes: list[Service]) -> None:
    """
    Clients of all nodes learn once that an agent is connected at any of them, and get events that are not logged.
    """
    listener = connect(nodes[0], "ann")
    # the nodes know each other when something of one reaches the other
    until(lambda: all(one.stats()["bus"]["heard"] for one in nodes))
    publisher = connect(nodes[1], "bob")
    message = {"type": "publish", "channel": "global", "event": "agent.heartbeat", "data": {"load": 1}}
    ask_past_events(publisher, **message, id="beat")
    events = events_until(listener, "agent.heartbeat")
    assert events[-1] == ("agent.heartbeat", {"load": 1})
    connected = [data["agent_id"] for event, data in events if event == "agent.connected" and data["agent_id"] == "bob"]
    assert connected == ["bob"]
    silence(listener)


def test_state_of_the_bus(nodes: list[Service]) -> None:
    """
    /stats and /metrics have the state of the bus; each node has a name of its own.
    """
    assert len({one.stats()["bus"]["node"] for one in nodes}) == 2
    until(lambda: all(one.stats()["bus"]["rtt"] is not None for one in nodes))
    _, _, body = nodes[0].get("/metrics")
    text = body.decode() if isinstance(body, bytes) else str(body)
    assert 'dcm_ws_bus_state{state="up"} 1.0' in text
