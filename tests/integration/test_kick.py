"""
Agents that an operator disconnects, with one process, with workers and with nodes.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from dcm_ws.protocol.tokens import sign
from tests.cli.running import run
from tests.integration.clients import Client, ask, close_of
from tests.integration.databases import PostgresServer
from tests.integration.machine import until
from tests.integration.nodes import cluster
from tests.integration.running import Service, production_service
from tests.integration.tokens import SECRET, make_token

pytestmark = pytest.mark.integration


def operator() -> str:
    return sign(SECRET, "ops", None, time.time_ns() // 1_000_000, scope=("operator",))


@contextlib.contextmanager
def processes(kind: str, schema: PostgresServer) -> Iterator[list[Service]]:
    """
    Services that a client may connect to.
    """
    if kind == "nodes":
        # each has the secret and the mode from its options
        with cluster(schema, 3, "--production", "--ws-auth-secret", SECRET) as nodes:
            yield nodes
    else:
        options = ("--workers", "2") if kind == "workers" else ()
        with production_service(schema.url, *options) as running:
            yield [running]


def connections(services: list[Service], token: str) -> list[Client]:
    """
    Clients of one agent at all processes, some with the token in the query and some with C{auth}.
    """
    clients = []
    for number in range(6):
        service = services[number % len(services)]
        client = service.connect(f"/?token={token}" if number % 2 else "/?observer=1")
        if not number % 2:
            assert ask(client, type="auth", token=token, id=1)["success"]
        clients.append(client)
    return clients


def number_of(service: Service, agent: str) -> int:
    """
    The connections of an agent, as a service sees them.
    """
    body = service.get(f"/v1/agents/{agent}", Authorization=f"Bearer {operator()}")[2]
    found: int = json.loads(body).get("connections", 0)
    return found


def refuses(service: Service, token: str) -> bool:
    """
    Is a token refused, in C{auth} and in the query?
    """
    with pytest.raises(InvalidStatus) as refused:
        service.connect(f"/?token={token}")
    answer = ask(service.connect(), type="auth", token=token, id=1)
    return refused.value.response.status_code == 401 and answer["code"] == "TOKEN_INVALID"


@pytest.mark.parametrize("kind", ["one", "workers", "nodes"])
def test_kick(kind: str, schema: PostgresServer, tmp_path: Path, agent: str) -> None:
    """
    C{dcm-ws kick} closes all connections of an agent with 4003, wherever they are, and with C{--revoke} its tokens are
    refused everywhere, until it has a new one.
    """
    with processes(kind, schema) as services:
        first, last = services[0], services[-1]
        given = {"DCM_WS_TOKEN": operator()}
        url = ("--url", f"ws://127.0.0.1:{first.port}/")
        token, other = make_token(agent), last.connect(f"/?token={make_token('other')}")
        clients = connections(services, token)
        # observers do not make it present
        until(lambda: number_of(first, agent) == 3)
        done = run(tmp_path, "kick", agent, *url, "--json", **given)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout).items() >= {"agent_id": agent, "closed": 6, "missing": []}.items()
        assert [close_of(client)[0] for client in clients] == [4003] * 6
        clients = connections(services, token)
        done = run(tmp_path, "kick", agent, "--revoke", *url, **given)
        assert (done.returncode, done.stdout) == (0, f"{agent}: 6 connections closed, tokens revoked\n")
        assert [close_of(client) for client in clients] == [(4003, "Disconnected by an operator")] * 6
        assert all(refuses(service, token) for service in services for _ in range(4))
        clients = connections(services, make_token(agent))
        for client in (*clients, other):
            client.send('{"type":"ping"}')
        for wrong in ({}, {"DCM_WS_TOKEN": make_token("ann")}, {"DCM_WS_TOKEN": "nonsense"}):
            done = run(tmp_path, "kick", agent, *url, **wrong)
            assert done.returncode == 1 and done.stderr.count("\n") == 1, done
    if kind == "one":
        with production_service(schema.url) as again:
            until(lambda: _refused(again, token))
            assert ask(again.connect(), type="auth", token=make_token(agent), id=1)["success"]


def _refused(service: Service, token: str) -> bool:
    return ask(service.connect(), type="auth", token=token, id=1).get("code") == "TOKEN_INVALID"


def test_what_the_bus_has_lost(schema: PostgresServer, agent: str) -> None:
    """
    A revocation that is only in the database holds at a service that starts, also for a client that was faster.
    """
    token = make_token(agent)
    with production_service(schema.url) as running:
        until(lambda: running.health()["database"]["state"] == "up")
    schema.execute(
        f"insert into dcm_ws.revoked (agent, revoked_at) values ('{agent}', {time.time_ns() // 1_000_000 + 1000})"
    )
    with production_service(schema.url) as running:
        with contextlib.suppress(InvalidStatus):
            assert close_of(running.connect(f"/?token={token}"))[0] == 4003
        assert _refused(running, token)


def test_without_a_database(agent: str) -> None:
    """
    If the database cannot be reached, an agent can be disconnected, and its tokens be revoked only in memory.
    """
    with production_service() as running:
        token = make_token(agent)
        client = running.connect(f"/?token={token}")
        headers = {"Authorization": f"Bearer {operator()}"}
        status, _, body = running.get(f"/v1/agents/{agent}/connections?revoke=true", "DELETE", **headers)
        assert (status, json.loads(body)["closed"]) == (200, 1)
        assert close_of(client)[0] == 4003
        assert refuses(running, token)


def test_invalid_usage(tmp_path: Path) -> None:
    """
    Invalid usage ends with 2, and a service that is not there with 1.
    """
    assert run(tmp_path, "kick", " a").returncode == 2
    assert run(tmp_path, "kick").returncode == 2
    done = run(tmp_path, "kick", "a", "--url", "ws://127.0.0.1:1/")
    assert done.returncode == 1 and "nothing listens" in done.stderr
