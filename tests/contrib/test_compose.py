"""
Three nodes with Docker Compose: contrib/compose.yaml and contrib/haproxy.cfg.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest

from dcm_ws.app.modes import drain_delay
from dcm_ws.app.supervisor import GRACE
from dcm_ws.http.addresses import TrustedProxies
from tests.contrib.files import CONTRIB, argument, compose, options_of, own_services, read, seconds
from tests.contrib.test_dockerfile import SECRET, VARIABLES

NODES = ("node1", "node2", "node3")
HAPROXY = (CONTRIB / "haproxy.cfg").read_text()


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    return compose()


@pytest.fixture
def environment(file: dict[str, Any], tmp_path: Path) -> dict[str, str]:
    """
    The variables of a node, with files where its secrets are.
    """
    found: dict[str, str] = file["services"]["node1"]["environment"]
    for name in file["secrets"]:
        (tmp_path / name).write_text(f"{SECRET}\n")
        (tmp_path / name).chmod(0o400)
    return {name: value.replace("/run/secrets/", f"{tmp_path}/") for name, value in found.items()}


def test_services(file: dict[str, Any]) -> None:
    """
    There are three nodes that differ only in their names, a job, a proxy and a database.
    """
    services = file["services"]
    assert set(services) == {*NODES, "init-db", "haproxy", "postgres"}
    nodes = [services[name] for name in NODES]
    assert [one.pop("hostname") for one in nodes] == list(NODES)
    assert nodes[0] == nodes[1] == nodes[2]
    for one in own_services(file).values():
        assert (CONTRIB / "Dockerfile").samefile(Path(one["build"]["context"]) / one["build"]["dockerfile"])
        assert one["read_only"] and one["cap_drop"] == ["ALL"] and "privileged" not in one


def test_variables_are_settings(file: dict[str, Any]) -> None:
    """
    dcm-ws reads each variable that its containers have.
    """
    for one in own_services(file).values():
        assert set(one["environment"]) <= VARIABLES


def test_settings_of_the_nodes(file: dict[str, Any], environment: dict[str, str]) -> None:
    """
    The service understands the command of a node: it is a node of a cluster in production, and nothing is overridden.
    """
    settings, sources = read(file["services"]["node1"]["command"], environment)
    assert sources.ignored == sources.warnings == ()
    assert settings.cluster and settings.production and not settings.nats
    assert settings.secret == SECRET
    assert settings.database is not None and SECRET in settings.database


def test_nats(environment: dict[str, str]) -> None:
    """
    With the profile and the variable there is a NATS server, which the nodes use and reach.
    """
    documented = re.search(r'COMPOSE_PROFILES=(\w+) DCM_WS_MORE="(.*)"', (CONTRIB / "compose.yaml").read_text())
    assert documented is not None
    file = compose("--profile", documented[1], DCM_WS_MORE=documented[2])
    settings, _ = read(file["services"]["node1"]["command"], environment)
    command = file["services"]["nats"]["command"]
    assert settings.nats == (f"nats://nats:{command[command.index('--port') + 1]}",)
    assert set(file["services"]["nats"]["networks"]) <= set(file["services"]["node1"]["networks"])
    assert file["networks"]["back"]["internal"]


def test_job(file: dict[str, Any]) -> None:
    """
    The job is a command that exists, with options that exist, on the database of the nodes; they wait for its success.
    """
    job = file["services"]["init-db"]
    name, *options = job["command"]
    assert set(options) <= options_of(name)
    node = file["services"]["node1"]
    assert job["environment"].items() <= node["environment"].items()
    assert node["depends_on"]["init-db"]["condition"] == "service_completed_successfully"


def test_time_to_stop(file: dict[str, Any], environment: dict[str, str]) -> None:
    """
    A node is not killed before it has sent its clients away, also if it has workers.
    """
    settings, _ = read(file["services"]["node1"]["command"], environment)
    assert seconds(file["services"]["node1"]["stop_grace_period"]) > drain_delay(settings) + settings.drain + GRACE
    # two checks of HAProxy
    assert drain_delay(settings) >= 2 and "check inter 1s fall 2 " in HAPROXY


def test_secrets_are_elsewhere(file: dict[str, Any]) -> None:
    """
    Secrets come from files that Git ignores, and each service gets only those that it reads.
    """
    for name, secret in file["secrets"].items():
        assert Path(secret["file"]) == CONTRIB / "secrets" / name
    assert "contrib/secrets/" in (CONTRIB.parent / ".gitignore").read_text().splitlines()
    for one in file["services"].values():
        given = {secret["target"] for secret in one.get("secrets", ())}
        read_there = {value for value in (one.get("environment") or {}).values() if value.startswith("/run/secrets/")}
        assert given == read_there
        for name in one.get("environment") or {}:
            assert name.endswith("_FILE") or not re.search("SECRET|PASSWORD|TOKEN", name)
    # the command that makes them names all of them
    (made,) = re.findall(r"for name in (.*); do openssl", (CONTRIB / "compose.yaml").read_text())
    assert set(made.split()) == set(file["secrets"])
    assert f"chown {argument('USER')} " in (CONTRIB / "compose.yaml").read_text()


def test_database(file: dict[str, Any]) -> None:
    """
    PostgreSQL makes the database and the role that the nodes use, and keeps its data.
    """
    database, node = file["services"]["postgres"], file["services"]["node1"]["environment"]
    made = database["environment"]
    assert (made["POSTGRES_DB"], made["POSTGRES_USER"]) == (node["DB_NAME"], node["DB_USER"])
    assert made["POSTGRES_PASSWORD_FILE"] == node["DB_PASSWORD_FILE"]
    assert node["DB_HOST"] == "postgres"
    (volume,) = database["volumes"]
    assert volume["source"] in file["volumes"]


def test_proxy(file: dict[str, Any], environment: dict[str, str]) -> None:
    """
    HAProxy has exactly the nodes, at their ports, asks for a page that there is, is trusted, and is what is published.
    """
    assert re.findall(r"^    server (\w+) (\S+)$", HAPROXY, re.MULTILINE) == [
        (node, f"{node}:{argument('EXPOSE')}") for node in NODES
    ]
    assert "option httpchk GET /readyz\n" in HAPROXY
    settings, _ = read(file["services"]["node1"]["command"], environment)
    (subnet,) = file["networks"]["front"]["ipam"]["config"]
    assert settings.trusted_proxies == (subnet["subnet"],)
    assert ipaddress.ip_network(subnet["subnet"]).is_private
    assert TrustedProxies(settings.trusted_proxies)
    published = {name: one["ports"] for name, one in file["services"].items() if "ports" in one}
    ((port,),) = published.values()
    assert port["host_ip"] == "127.0.0.1"
    assert f"bind :{port['target']}\n" in HAPROXY
    assert float(re.findall(r"timeout tunnel (\d+)s", HAPROXY)[0]) > settings.heartbeat_interval
    (metrics,) = settings.admin_listen
    assert metrics.removeprefix("tcp:") not in HAPROXY
