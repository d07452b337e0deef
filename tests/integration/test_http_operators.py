"""
The calls for operators, asked at any node of a cluster and at any worker.
"""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from tests.integration.clients import hear_event
from tests.integration.databases import PostgresServer
from tests.integration.machine import PATIENCE, until
from tests.integration.nodes import agent, cluster
from tests.integration.owed import bury, schema
from tests.integration.pages import http
from tests.integration.running import Service, service

pytestmark = pytest.mark.integration

__all__ = ["schema"]


def call(running: Service, path: str, body: Any = None) -> Any:
    """
    The JSON that a call returns.
    """
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(http(running) + path, data, timeout=PATIENCE) as answer:
        return json.loads(answer.read())


def test_nodes(schema: PostgresServer) -> None:
    """
    Each node answers for all: who is connected where, what agents are owed, and what is dead and redriven.
    """
    with cluster(schema, 2) as nodes:
        one, two = nodes
        client = agent(one)
        agent(two, "bob")
        agent(two, "cy").close()
        published = call(two, "/v1/publish", {"channel": "topics/t", "event": "task.created"})
        assert hear_event(client, "task.created")["id"] == published["id"]
        for node in nodes:
            until(
                lambda node=node: (
                    [one["agent_id"] for one in call(node, "/v1/agents")["agents"]] == ["ann", "bob", "cy"]
                )
            )
            until(lambda node=node: call(node, "/v1/channels/topics/t/presence")["total"] == 2)
            presence = call(node, "/v1/channels/topics/t/presence")
            assert (presence["total"], presence["missing"]) == (2, [])
            assert len({connection["node"] for connection in presence["connections"]}) == 2
            until(lambda node=node: call(node, "/v1/agents/ann")["unacknowledged"])
            ann = call(node, "/v1/agents/ann")
            assert (ann["connected"], ann["connections"], ann["owed"]) == (True, 1, 1)
            assert ann["clients"][0]["subscriptions"] == ["agents/ann", "topics/t"]
            until(lambda node=node: call(node, "/v1/agents/cy")["left"])
        event_id = bury(schema, "ann", published["pos"])
        assert [letter["agent_id"] for letter in call(two, "/v1/dead")["letters"]] == ["ann"]
        assert call(two, "/v1/dead/redrive", {"ids": [event_id]}) == {"letters": 1}


def test_workers(schema: PostgresServer) -> None:
    """
    Each worker answers for all.
    """
    with service("--database-url", schema.url, "--workers", "2") as running:
        clients = [agent(running, name) for name in ("ann", "bob", "cy", "dan")]
        for _ in range(4):
            until(lambda: call(running, "/v1/channels/topics/t/presence")["total"] == 4)
            until(lambda: len(call(running, "/v1/agents")["agents"]) == 4)
        del clients
