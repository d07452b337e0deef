"""
Metrics, probes and the port for operators, on the real service.
"""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from tests.integration.clients import answer_to, ask_past_events, handshake, hear, say
from tests.integration.databases import PostgresServer, postgres
from tests.integration.machine import PATIENCE, free_port, until
from tests.integration.pages import get, http, metrics, names
from tests.integration.running import Service, service

ROOT = Path(__file__).parents[2]
CONTRIB = ROOT / "contrib"
OF_WORKERS = {"dcm_ws_workers", "dcm_ws_worker_restarts_total"}
"""
Only services with several workers have these; tests/integration/test_workers.py reads them.
"""


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    with postgres() as found:
        yield found


@pytest.fixture
def running(database: PostgresServer) -> Iterator[Service]:
    options = ("--ack-timeout", "0.2", "--retry-interval", "0.1", "--max-attempts", "2", "--max-depth", "5")
    with service("--database-url", database.url, *options) as found:
        yield found


def test_what_happens_is_counted(running: Service, database: PostgresServer) -> None:
    """
    Whatever clients, the database and the service do is in the metrics afterwards.
    """
    before = metrics(http(running))
    observer, client = running.connect("/ws?observer=1"), running.connect()
    ask_past_events(client, type="auth", agent_id="agent-name", id=1)
    ask_past_events(client, type="subscribe", channel="topics/t", id=2)
    ask_past_events(client, type="publish", channel="topics/t", event="task.created", id=3)
    for number in range(2):
        ask_past_events(
            client, type="publish", channel="topics/t", event="session.created", key="k", id=f"once {number}"
        )
    gap = ask_past_events(observer, type="resume", epoch="another", pos=0, id=1)
    ask_past_events(observer, type="resume", epoch=gap["epoch"], pos=0, channels=["topics/t"], id=2)
    say(client, type="nonsense")
    say(client, type="publish", channel="topics/t", event="system.info", data=[[[[[[1]]]]]], id=4)
    assert answer_to(client, 4)["success"] is False
    database.notify(json.dumps({"channel": "topics/t", "event": "pipeline.begun", "data": "secret-name"}))
    while hear(client).get("event") != "pipeline.begun":
        pass

    def changes() -> dict[str, float]:
        now = metrics(http(running))
        return {name: value - before.get(name, 0.0) for name, value in now.items()}

    # nobody acknowledges the task: it is sent again, and given up
    until(lambda: changes()["dcm_ws_deliveries_never_acknowledged_total"] == 1)
    found = changes()
    assert found["dcm_ws_deliveries_given_up_total"] == 0
    assert found['dcm_ws_connections{state="authenticated"}'] == 1
    assert found['dcm_ws_messages_received_total{type="publish"}'] == 4
    assert found['dcm_ws_messages_received_total{type="resume"}'] == 2
    assert found['dcm_ws_messages_received_total{type="invalid"}'] == 1
    assert found['dcm_ws_refusals_total{code="UNKNOWN_MESSAGE_TYPE"}'] == 1
    assert found['dcm_ws_events_total{category="task",source="client"}'] == 1
    assert found['dcm_ws_events_total{category="other",source="database"}'] == 1
    assert found['dcm_ws_events_total{category="agent",source="service"}'] == 1
    assert found["dcm_ws_observers"] == 1
    assert found["dcm_ws_deliveries_sent_total"] == 1
    assert found["dcm_ws_log_head"] == found["dcm_ws_log_events"] == 3
    assert found["dcm_ws_log_bytes"] > 200
    assert found["dcm_ws_publish_duplicates_total"] == found["dcm_ws_publish_keys"] == 1
    assert found["dcm_ws_log_replays_total"] == found["dcm_ws_log_gaps_total"] == 1
    assert found["dcm_ws_deliveries_retried_total"] == 1
    assert found['dcm_ws_limits_hit_total{limit="maxDepth"}'] == 1
    assert found["dcm_ws_notifications_total"] == 1
    assert found["dcm_ws_notify_seconds_count"] == 1
    assert found["dcm_ws_publish_seconds_count"] == 1
    assert found["dcm_ws_received_bytes_total"] > 200
    assert found["dcm_ws_sent_bytes_total"] > 1000
    assert metrics(http(running))['dcm_ws_database_state{state="up"}'] == 1
    assert metrics(http(running))["process_resident_memory_bytes"] > 1 << 20
    until(lambda: metrics(http(running))["dcm_ws_reactor_lag_seconds_count"] > 0)
    until(lambda: metrics(http(running))["dcm_ws_database_probe_seconds_count"] > 0)
    # nothing that somebody may choose
    text = get(f"{http(running)}/metrics")[1]
    assert not re.search("agent-name|pipeline|topics|secret-name", text)


def test_open_metrics(running: Service) -> None:
    """
    Clients that accept OpenMetrics receive it; all others receive the text format.
    """
    assert get(f"{http(running)}/metrics", Accept="application/openmetrics-text; version=1.0.0")[1].endswith("# EOF\n")
    assert "# EOF" not in get(f"{http(running)}/metrics")[1]
    request = urllib.request.Request(f"{http(running)}/metrics", method="POST", data=b"")
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(request, timeout=PATIENCE)


def test_page_lists_all_metrics(running: Service) -> None:
    """
    docs/monitoring.md has every metric that there is, and no other.
    """
    page = (ROOT / "docs" / "monitoring.md").read_text()
    listed = set(re.findall(r"^\| `(dcm_ws_\w+)`", page, re.MULTILINE))
    assert listed - OF_WORKERS == {name for name in names(http(running)) if name.startswith("dcm_ws_")}


def expressions(value: Any) -> Iterator[str]:
    """
    All queries in a dashboard.
    """
    if isinstance(value, dict):
        for name, part in value.items():
            if name in ("expr", "definition"):
                yield part
            yield from expressions(part)
    elif isinstance(value, list):
        for part in value:
            yield from expressions(part)


def test_alerts_are_yaml() -> None:
    """
    A text with a colon and a space in it must be quoted or folded.
    """
    lines = (CONTRIB / "prometheus-alerts.yml").read_text().splitlines()
    assert [line for line in lines if re.match(r" *[\w-]+: [^\s'\"{>].*: ", line) and " expr: " not in line] == []


@pytest.mark.parametrize("file", ["grafana-dashboard.json", "prometheus-alerts.yml"])
def test_dashboard_and_alerts_name_what_there_is(running: Service, file: str) -> None:
    """
    Every metric that the dashboard and the alerts ask for exists, and so do the labels and limits in them.
    """
    text = (CONTRIB / file).read_text()
    if file.endswith(".json"):
        queries = list(expressions(json.loads(text)))
    else:
        queries = re.findall(r"^ +expr: (.+)$", text, re.MULTILINE)
    assert len(queries) >= 9
    there = names(http(running)) | OF_WORKERS
    samples = get(f"{http(running)}/metrics")[1]
    for query in queries:
        asked = set(re.findall(r"\b((?:dcm_ws|process)_\w+)", query))
        assert asked or query.startswith("up{"), query
        assert {re.sub("_bucket$", "", name) for name in asked} <= there, query
        for label, value in re.findall(r'(\w+)="([\w]+)"', query):
            assert label == "job" or f'{label}="{value}"' in samples, query


def test_admin_port() -> None:
    """
    With a port for operators the metrics are there, and not on the other; everything else is on both.
    """
    admin = free_port()
    with service("--no-database", "--admin-listen", f"tcp:{admin}:interface=127.0.0.1") as running:
        for path in ("/live", "/dashboard", "/health", "/stats", "/livez", "/readyz"):
            assert get(f"{http(running)}{path}")[0] == get(f"http://127.0.0.1:{admin}{path}")[0] == 200
        assert get(f"{http(running)}/metrics")[0] == 404
        assert metrics(f"http://127.0.0.1:{admin}")["dcm_ws_draining"] == 0
        assert json.loads(get(f"http://127.0.0.1:{admin}/health")[1])["port"] == running.port


@pytest.mark.parametrize("path", ["/", "/ws"])
def test_no_websockets_on_the_admin_port(path: str) -> None:
    """
    The port for operators opens no WebSocket: it has no share of their limits, and may be reached by others.
    """
    admin = free_port()
    with service("--no-database", "--admin-listen", f"tcp:{admin}:interface=127.0.0.1") as running:
        with socket.create_connection(("127.0.0.1", admin), timeout=PATIENCE) as plain:
            plain.sendall(handshake(path))
            answer = HTTPResponse(plain)
            answer.begin()
            assert answer.status == 404
            assert json.loads(answer.read())["code"] == "NOT_FOUND"
        assert running.connect(path)
        assert running.health()["connectedClients"] == 1


def test_ready_without_the_database(database: PostgresServer) -> None:
    """
    With --ready-needs-database the service is ready only while it listens to the database; it lives all the same.
    """
    with (
        service("--database-url", database.url, "--ready-needs-database") as running,
        service("--no-database") as other,
    ):
        assert get(f"{http(running)}/readyz")[0] == 200
        database.stop()
        try:
            until(lambda: get(f"{http(running)}/readyz")[0] == 503)
            assert json.loads(get(f"{http(running)}/readyz")[1])["error"] == "the database is not connected"
            assert get(f"{http(running)}/livez")[0] == 200
            assert metrics(http(running))['dcm_ws_database_state{state="down"}'] == 1
            assert get(f"{http(other)}/readyz")[0] == 200
        finally:
            database.start()
        until(lambda: get(f"{http(running)}/readyz")[0] == 200)
        assert metrics(http(running))["dcm_ws_database_reconnects_total"] >= 1


def test_not_ready_while_draining() -> None:
    """
    A service that stops says so on the connections that it still has.
    """
    with service("--drain", "2") as running:
        # so many that closing them takes some time
        clients = [running.connect() for _ in range(200)]
        with socket.create_connection(("127.0.0.1", running.port)) as asking:
            asking.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in asking.recv(4096)
            running.process.terminate()
            assert hear(clients[0])["data"]["state"] == "draining"
            asking.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = asking.recv(4096)
        assert b" 503 " in answer
        assert b"draining" in answer
