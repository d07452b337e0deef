"""
Three nodes behind a load balancer: what the containers of contrib/compose.yaml run, as processes.

The commands, the variables and the secrets are those of the Compose file, but for ports, addresses and the database.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed

from tests import forking
from tests.contrib.files import SCRIPTS, argument, compose, image_environment, own_services
from tests.contrib.test_kubernetes import NODE, environment, settings_file
from tests.integration.balancers import NAMES, Balancer, balancers
from tests.integration.clients import Client, close_of, hear, say
from tests.integration.databases import PostgresServer
from tests.integration.machine import PATIENCE, free_port, until
from tests.integration.running import Service, report
from tests.integration.tokens import SECRET

pytestmark = pytest.mark.integration

FILE = compose()
SERVICES = own_services(FILE)
NODES = ("node1", "node2", "node3")


class Containers:
    """
    The containers of dcm-ws, as processes on one database.

    @ivar ports: of the nodes, by name.
    """

    def __init__(self, database: PostgresServer, folder: Path) -> None:
        url = urlsplit(database.url)
        self._database = {"DB_HOST": url.hostname or "", "DB_PORT": str(url.port), "DB_USER": url.username or ""}
        self._database["DB_NAME"] = url.path.strip("/")
        self._folder = folder
        for name in FILE["secrets"]:
            (folder / name).write_text(f"{SECRET}\n")
            (folder / name).chmod(0o400)
        self.ports = {name: free_port() for name in NODES}
        self.running: dict[str, Service] = {}

    def variables(self, name: str, **more: str) -> dict[str, str]:
        """
        The environment of a container.
        """
        found = image_environment() | SERVICES[name]["environment"] | self._database
        found = {key: value.replace("/run/secrets/", f"{self._folder}/") for key, value in found.items()}
        found |= {"HOST": "127.0.0.1", "PATH": os.environ["PATH"]}
        if name in self.ports:
            found["WS_PORT"] = str(self.ports[name])
        return found | more

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        """
        Run a container that ends.
        """
        command = [*self.entrypoint(), *SERVICES[name]["command"]]
        return forking.run(command, input="", env=self.variables(name), timeout=60)

    def start(self, name: str, wait: str = '"message": "ready"', **more: str) -> Service:
        """
        Run a node.
        """
        replaced = {"tcp:9849": f"tcp:{free_port()}:interface=127.0.0.1", "10.89.39.0/24": "127.0.0.1"}
        command = SERVICES[name]["command"]
        assert set(replaced) <= set(command)
        serve, *options = (replaced.get(one, one) for one in command)
        self.running[name] = node = Service(
            *options,
            env=self.variables(name, **more),
            wait=wait,
            program=(*self.entrypoint(), serve),
        )
        return node

    def entrypoint(self) -> list[str]:
        program, *options = json.loads(argument("ENTRYPOINT"))
        return [str(SCRIPTS / program), *options]

    def is_healthy(self, name: str) -> bool:
        """
        What the health check of the image says.
        """
        _, _, command = argument("HEALTHCHECK").partition("CMD ")
        return self._check(name, json.loads(command))

    def is_ready(self, name: str) -> bool:
        """
        What the health check of the Compose file says.
        """
        cmd, *command = SERVICES[name]["healthcheck"]["test"]
        assert cmd == "CMD"
        return self._check(name, command)

    def _check(self, name: str, command: list[str]) -> bool:
        program, *arguments = command
        assert program == "python"
        done = forking.run([sys.executable, *arguments], input="", env=self.variables(name), timeout=60)
        return done.returncode == 0

    def clients(self) -> dict[str, int]:
        """
        How many clients each node has.
        """
        return {name: report(self.ports[name], "health")["connectedClients"] for name in self.running}

    def stop(self) -> None:
        for one in self.running.values():
            one.stop(signal.SIGKILL)
            assert "Traceback" not in one.log, one.log


@pytest.fixture
def containers(database: PostgresServer, tmp_path: Path) -> Iterator[Containers]:
    """
    The database is made ready by the job of the Compose file.
    """
    found = Containers(database, tmp_path)
    try:
        done = found.run("init-db")
        assert done.returncode == 0, done.stderr
        yield found
    finally:
        found.stop()
        database.execute("drop schema if exists dcm_ws cascade")


@contextlib.contextmanager
def in_front(containers: Containers, *names: str) -> Iterator[list[Balancer]]:
    """
    Load balancers in front of three nodes that run.
    """
    for name in NODES:
        containers.start(name)
    with balancers(names, list(containers.ports.values())) as running:
        # until their checks know the nodes
        for front in running:
            until(lambda front=front: front.status("/readyz") == 200)
        yield running
        for front in running:
            assert "token" not in front.logs()


def has_taken_out(front: Balancer) -> bool:
    """
    Whether the load balancer sends nobody to the one of three nodes that is not ready.

    Caddy chooses at random among nodes with as many clients: not to choose one of them so often would be a chance of
    one in 10^10.
    """
    return all(front.status("/readyz") == 200 for _ in range(60))


def is_open(client: Client) -> bool:
    with contextlib.suppress(ConnectionClosed):
        say(client, type="ping")
        while hear(client).get("type") != "pong":
            pass
        return True
    return False


def test_nodes_stop_and_are_killed(containers: Containers) -> None:
    """
    Each load balancer divides clients among the nodes.  A node that stops sends its clients away with 1012, and one
    that is killed loses them; all of them connect again at once.  When a node runs again, it gets clients.
    """
    with in_front(containers, *NAMES) as fronts:
        clients = {front.connect(f"{front.name}-{number}"): front for front in fronts for number in range(6)}
        until(lambda: sum(containers.clients().values()) == 18)
        assert all(containers.clients().values())
        # the address of a client, not that of the load balancer
        nodes = list(containers.running.values())
        until(lambda: sum(one.log.count("joined from 127.0.0.9") for one in nodes) == 18)
        for front in fronts:
            assert [front.status(path) for path in ("/health", "/metrics", "/stats")] == [200, 404, 404]

        stopped = containers.running.pop("node2")
        stopped.process.send_signal(signal.SIGTERM)
        assert stopped.process.wait(PATIENCE) == 0
        left = [client for client in clients if not is_open(client)]
        assert left and all(close_of(client)[0] == 1012 for client in left)
        again = [clients[client].connect(f"again-{number}") for number, client in enumerate(left)]
        assert all(is_open(client) for client in again)

        containers.running.pop("node1").stop(signal.SIGKILL)
        after = [front.connect(f"{front.name}-late-{number}") for front in fronts for number in range(4)]
        assert all(is_open(client) for client in after)

        for name in ("node1", "node2"):
            containers.start(name)
        for front in fronts:
            before = containers.clients()

            def has_clients(front: Balancer = front, before: dict[str, int] = before) -> bool:
                front.connect(f"{front.name}-new")
                now = containers.clients()
                return all(now[name] > before[name] for name in ("node1", "node2"))

            until(has_clients)


def test_node_without_the_database(containers: Containers) -> None:
    """
    A node that does not reach the database is healthy, and not ready: it gets no clients until it is.
    """
    with in_front(containers, "haproxy", "caddy") as fronts:
        containers.running.pop("node3").stop(signal.SIGKILL)
        away = containers.start("node3", wait="listening on", DB_PORT="1")
        until(lambda: away.get("/readyz")[0] == 503)
        assert containers.is_healthy("node3") and not containers.is_ready("node3")
        for front in fronts:
            until(lambda front=front: has_taken_out(front))
            for number in range(6):
                front.connect(f"{front.name}-{number}")
        until(lambda: sum(containers.clients().values()) == 12)
        assert containers.clients()["node3"] == 0

        away.stop(signal.SIGKILL)
        assert not containers.is_healthy("node3") and not containers.is_ready("node3")
        containers.start("node3")
        assert containers.is_healthy("node3") and containers.is_ready("node3")
        for front in fronts:
            before = containers.clients()["node3"]

            def has_clients(front: Balancer = front, before: int = before) -> bool:
                front.connect(f"{front.name}-late")
                return containers.clients()["node3"] > before

            until(has_clients)


def test_pod(containers: Containers, tmp_path: Path) -> None:
    """
    What a pod of the manifests for Kubernetes runs is a node of the same cluster.
    """
    containers.start("node1")
    (serve, *options), file = settings_file(tmp_path)
    text = file.read_text()
    (own,) = [line for line in text.splitlines() if line.startswith("admin-listen")]
    file.write_text(text.replace(own, f'admin-listen = ["tcp:{free_port()}:interface=127.0.0.1"]'))
    given = environment(NODE)
    variables = containers.variables("node2")
    variables = {name: variables[name] for name in (*given, *image_environment()) if name in variables} | {
        name: value for name, value in given.items() if not name.startswith("DB_")
    }
    pod = Service(*options, env=variables, wait='"message": "ready"', program=(*containers.entrypoint(), serve))
    containers.running["pod"] = pod
    assert report(containers.ports["node2"], "stats")["log"]["state"] == "following"
    assert pod.get(NODE["readinessProbe"]["httpGet"]["path"])[0] == 200
    assert pod.get(NODE["livenessProbe"]["httpGet"]["path"])[0] == 200
