"""
Three nodes in Kubernetes: contrib/kubernetes/.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from dcm_ws.app.modes import drain_delay
from dcm_ws.app.supervisor import GRACE
from dcm_ws.version import VERSION
from tests.contrib.files import CONTRIB, SCRIPTS, argument, manifests, options_of, read
from tests.contrib.test_dockerfile import SECRET, VARIABLES

OLDEST = "1.27"
"""
The oldest version of Kubernetes that knows all fields: C{matchLabelKeys} was new in it.
"""

FOUND = manifests()
NODES = FOUND["Deployment", "dcm-ws"]
POD = NODES["spec"]["template"]["spec"]
(NODE,) = POD["containers"]
JOB = FOUND["Job", "dcm-ws-init-db"]["spec"]["template"]["spec"]
PODS = {
    "nodes": POD,
    "job": JOB,
    "nats": FOUND["StatefulSet", "nats"]["spec"]["template"]["spec"],
}


def environment(container: dict[str, Any]) -> dict[str, str]:
    """
    The variables of a container; secrets have a value of the tests.
    """
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= FOUND["ConfigMap", source["configMapRef"]["name"]]["data"]
    for one in container["env"]:
        assert set(one) == {"name", "valueFrom"}, "a secret in the file?"
        assert one["valueFrom"]["secretKeyRef"]["name"] == "dcm-ws"
        found[one["name"]] = SECRET
    return found


def settings_file(folder: Path) -> tuple[list[str], Path]:
    """
    The command of a node, with the file of settings that it names in a folder of the test.
    """
    (volume,) = POD["volumes"]
    (mount,) = NODE["volumeMounts"]
    assert mount["name"] == volume["name"]
    for name, content in FOUND["ConfigMap", volume["configMap"]["name"]]["data"].items():
        (folder / name).write_text(content)
    return [one.replace(mount["mountPath"], str(folder)) for one in NODE["args"]], folder / "dcm-ws.toml"


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("what", FOUND, ids="-".join)
def test_valid(what: tuple[str, str], version: str) -> None:
    """
    Each resource is valid, and has no unknown field.
    """
    kubernetes_validate.validate(FOUND[what], version, strict=True)


def test_invalid_is_noticed() -> None:
    """
    A misspelled field is an error.
    """
    service = FOUND["Service", "dcm-ws"]
    wrong = service | {"spec": service["spec"] | {"port": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, OLDEST, strict=True)


def test_settings_of_the_nodes(tmp_path: Path) -> None:
    """
    The service understands the file and the variables: it is a node of a cluster in production, nothing is overridden.
    """
    command, _ = settings_file(tmp_path)
    given = environment(NODE)
    assert set(given) <= VARIABLES
    settings, sources = read(command, given)
    assert sources.ignored == sources.warnings == ()
    assert settings.cluster and settings.production
    assert settings.secret == SECRET
    assert settings.database is not None
    assert all(value in settings.database for value in given.values() if value != given["DB_PORT"])
    ports = {port["name"]: port["containerPort"] for port in NODE["ports"]}
    assert str(ports["ws"]) == argument("EXPOSE")
    assert settings.admin_listen == (f"tcp:{ports['metrics']}",)


def test_settings_that_are_comments(tmp_path: Path) -> None:
    """
    The settings that the file suggests are valid, too; NATS is the Service of the other manifest.
    """
    command, file = settings_file(tmp_path)
    lines = file.read_text().splitlines()
    file.write_text("\n".join(line.removeprefix("# ") if " = " in line else line for line in lines))
    settings, sources = read(command, environment(NODE))
    assert sources.ignored == ()
    assert settings.server_names
    (nats,) = settings.nats
    service = FOUND["Service", "nats"]
    assert nats == f"nats://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"


def test_job_is_on_the_same_database() -> None:
    """
    The job runs a command that exists, with options that exist, in the same image on the same database.
    """
    (job,) = JOB["containers"]
    name, *options = job["args"]
    assert set(options) <= options_of(name)
    assert job["image"] == NODE["image"]
    assert job["image"].endswith(f"/dcm-ws:{VERSION}")
    assert environment(job).items() <= environment(NODE).items()


def test_time_to_stop(tmp_path: Path) -> None:
    """
    A pod is not killed before its node has sent its clients away, also if it has workers.
    """
    settings, _ = read(settings_file(tmp_path)[0], environment(NODE))
    assert POD["terminationGracePeriodSeconds"] > drain_delay(settings) + settings.drain + GRACE
    # its readiness has failed by then, and the Service does not have it any more
    probe = NODE["readinessProbe"]
    assert drain_delay(settings) > probe["periodSeconds"] * probe["failureThreshold"]


@pytest.mark.parametrize("pod", PODS)
def test_least_privilege(pod: str) -> None:
    """
    No container is root, writes to its image, or may become more than it is.
    """
    assert PODS[pod]["securityContext"]["runAsNonRoot"]
    assert PODS[pod]["securityContext"]["runAsUser"] > 0
    assert not PODS[pod]["automountServiceAccountToken"]
    # they would be settings: DB_PORT=tcp://…
    assert not PODS[pod]["enableServiceLinks"]
    for container in PODS[pod]["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    if pod != "nats":
        assert PODS[pod]["securityContext"]["runAsUser"] == int(argument("USER"))


@pytest.mark.parametrize("name", ["dcm-ws", "nats"])
def test_selectors(name: str) -> None:
    """
    The Service, the budget for disruptions and the constraints select the pods, and their ports exist.
    """
    workload = NODES if name == "dcm-ws" else FOUND["StatefulSet", "nats"]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    selectors = [
        workload["spec"]["selector"]["matchLabels"],
        FOUND["Service", name]["spec"]["selector"],
        FOUND["PodDisruptionBudget", name]["spec"]["selector"]["matchLabels"],
    ]
    pod = workload["spec"]["template"]["spec"]
    selectors += [one["labelSelector"]["matchLabels"] for one in pod["topologySpreadConstraints"]]
    assert all(selector == labels for selector in selectors)
    (container,) = pod["containers"]
    ports = {port["name"] for port in container["ports"]}
    used = {one["targetPort"] for one in FOUND["Service", name]["spec"]["ports"]}
    used |= {container[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")}
    assert used <= ports


def test_configuration_of_nats(tmp_path: Path) -> None:
    """
    A NATS server accepts the configuration, and finds the other pods by their names; only the nodes reach it.
    """
    file = tmp_path / "nats.conf"
    file.write_text(FOUND["ConfigMap", "nats"]["data"]["nats.conf"])
    done = subprocess.run(
        [SCRIPTS / "nats-server", "-t", "-c", file],
        env={"PATH": os.defpath, "POD_NAME": "nats-0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    servers = FOUND["StatefulSet", "nats"]["spec"]
    for number in range(servers["replicas"]):
        assert f"nats://nats-{number}.{servers['serviceName']}:6222" in file.read_text()
    allowed = FOUND["NetworkPolicy", "nats"]["spec"]["ingress"]
    assert allowed[0]["from"][0]["podSelector"] == NODES["spec"]["selector"]


def test_no_secrets() -> None:
    """
    There is no Secret in the files; they say how to create the one that they use, with all its keys.
    """
    assert not any(kind == "Secret" for kind, _ in FOUND)
    text = (CONTRIB / "kubernetes" / "config.yaml").read_text()
    keys = {one["valueFrom"]["secretKeyRef"]["key"] for one in NODE["env"]}
    assert all(f"={key}=" in text for key in keys)
