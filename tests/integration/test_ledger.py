"""
The ledger of an event, over everything that may happen to it.
"""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import run
from tests.integration.clients import hear_event, say
from tests.integration.databases import PostgresServer
from tests.integration.machine import PATIENCE, until
from tests.integration.nodes import agent, cluster
from tests.integration.owed import schema
from tests.integration.pages import http
from tests.integration.running import Service, service

pytestmark = pytest.mark.integration

__all__ = ["schema"]

QUICK = ("--ack-timeout", "0.4", "--retry-interval", "0.1", "--max-attempts", "3")


def call(running: Service, path: str, body: Any = None) -> Any:
    """
    The JSON that a call returns.
    """
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(http(running) + path, data, timeout=PATIENCE) as answer:
        return json.loads(answer.read())


def fate(running: Service, event_id: str, name: str = "ann") -> Any:
    """
    What became of an event at one agent; None if the ledger does not know.
    """
    return next(iter(call(running, f"/v1/events/{event_id}?agent={name}")["agents"]), None)


def history(running: Service, event_id: str) -> list[str]:
    return [entry["what"] for entry in fate(running, event_id)["history"]]


def publish(running: Service) -> str:
    event_id: str = call(running, "/v1/publish", {"channel": "topics/t", "event": "task.created"})["id"]
    return event_id


@pytest.mark.parametrize("durable", [False, True])
def test_retry_reconnect_and_redrive(schema: PostgresServer, durable: bool, tmp_path: Path) -> None:
    """
    An event is sent again, goes to the agent's next connection, dies, is redriven and acknowledged; with a log in the
    database also over a restart of the service, and dcm-ws event shows the same.
    """
    where = ("--database-url", schema.url) if durable else ("--no-database",)
    with service(*where, *QUICK) as running:
        client = agent(running)
        event_id = publish(running)
        for _ in range(2):
            hear_event(client, "task.created")
        client.close()
        client = agent(running)
        # it comes at once, before the answers that C{agent} waits for, and twice more
        until(lambda: fate(running, event_id)["state"] == "dead")
        assert call(running, "/v1/dead/redrive", {"agent": "ann"}) == {"letters": 1}
        until(lambda: fate(running, event_id)["state"] == "sent")
        say(client, type="ack", message_id=event_id)
        until(lambda: fate(running, event_id)["state"] == "acknowledged")
        expected = ["sent"] * 5 + ["dead", "redriven", "sent", "acknowledged"]
        assert history(running, event_id) == expected
        assert (fate(running, event_id)["sent"], fate(running, event_id)["reason"]) == (6, "attempts")
        times = [entry["at"] for entry in fate(running, event_id)["history"]]
        assert times == sorted(times)
        # what was noted in the last second is written at the end
        assert running.stop() == 0
    if durable:
        shown = run(tmp_path, "event", event_id, DATABASE_URL=schema.url, TZ="UTC")
        print(shown.stdout)
        assert [line.split()[3] for line in shown.stdout.splitlines()[-len(expected) :]] == expected
        with service(*where) as again:
            assert history(again, event_id) == expected


def test_takeover_between_nodes(schema: PostgresServer) -> None:
    """
    An agent that goes to another node while it owes an event, and back: each node notes what it has sent, also one
    that is killed, and any node shows all of it.
    """
    with cluster(schema, 3, *QUICK[:-2], "--max-attempts", "9") as nodes:
        one, two, three = nodes
        client = agent(two)
        event_id = publish(three)
        hear_event(client, "task.created")
        client.close()
        client = agent(three)
        hear_event(client, "task.created")
        hear_event(client, "task.created")
        # what the node has noted is written once a second
        until(lambda: len(history(one, event_id)) >= 3)
        three.stop(signal.SIGKILL)
        client = agent(two)
        hear_event(client, "task.created")
        say(client, type="ack", message_id=event_id)
        for node in (one, two):
            until(lambda node=node: fate(node, event_id)["state"] == "acknowledged")
            assert history(node, event_id)[-2:] == ["sent", "acknowledged"]
            assert fate(node, event_id)["sent"] >= 4
        assert len(schema.execute("select distinct node from dcm_ws.ledger")) >= 2
