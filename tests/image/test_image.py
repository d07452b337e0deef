"""
The image of contrib/Dockerfile as a container that runs with as little as possible: not as root, without capabilities,
on a file system that it cannot write to, with its secrets in files.  scripts/image builds the image and runs this.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dcm_ws.version import VERSION
from tests.contrib.files import argument
from tests.integration.databases import PostgresServer, postgres
from tests.integration.machine import free_port, until

IMAGE = os.environ.get("DCM_WS_TEST_IMAGE", "")
BASE = os.environ.get("DCM_WS_TEST_BASE", "")
# the runtime of Docker; crun refuses machines with both versions of cgroups
PODMAN = ("podman", "--runtime", "runc")
# podman's own are above what a process without CAP_SYS_RESOURCE may set
FILES = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 65536)
LIMITS = (f"--ulimit=nofile={FILES}:{FILES}", "--ulimit=nproc=4096:4096")
SECRET = "s" * 32
PASSWORD = "p" * 32

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not IMAGE, reason="scripts/image runs it"),
]


def podman(*arguments: str) -> str:
    """
    What a command prints.
    """
    # without systemd nobody would run the health check anyway
    environment = os.environ | {"DISABLE_HC_SYSTEMD": "true"}
    done = subprocess.run([*PODMAN, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def inspect(what: str) -> dict[str, Any]:
    """
    What podman knows of an image or a container.
    """
    (found,) = json.loads(podman("inspect", what))
    return found


def status(port: int, path: str) -> int:
    """
    The status of a page; 0 if nobody listens.
    """
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


class Container:
    """
    A service in a container.

    @ivar seconds: how long it took from the command that started it until it was ready.
    """

    def __init__(self, port: int, run: list[str]) -> None:
        self.name, self.port = f"dcm-ws-test-{port}", port
        self.seconds = self._ready_after("run", "--detach", "--name", self.name, *run)

    def _ready_after(self, *command: str) -> float:
        start = time.monotonic()
        podman(*command)
        until(lambda: status(self.port, "/readyz") == 200)
        return time.monotonic() - start

    def restart(self) -> tuple[float, int]:
        """
        Stop it in the time that Docker gives by default, and start it again; returns how long the first took, and the
        exit code.
        """
        start = time.monotonic()
        podman("stop", "--time", "10", self.name)
        seconds = time.monotonic() - start
        code = inspect(self.name)["State"]["ExitCode"]
        self._ready_after("start", self.name)
        return seconds, code

    def process(self) -> dict[str, str]:
        """
        What Linux says of its first process.
        """
        pid = inspect(self.name)["State"]["Pid"]
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: rest.strip() for name, _, rest in (line.partition(":") for line in lines)}


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    """
    A PostgreSQL that asks for a password.
    """
    with postgres() as server:
        server.execute("create role app login password %s", PASSWORD)
        server.execute("create database app owner app")
        ((file,),) = server.execute("show hba_file")
        Path(file).write_text("host app app 127.0.0.1/32 scram-sha-256\nhost all dcm 127.0.0.1/32 trust\n")
        server.execute("select pg_reload_conf()")
        yield server


@pytest.fixture(scope="module")
def secrets() -> Iterator[Path]:
    """
    A folder with secrets that only the account of the image may read.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file, content in (("db_password", PASSWORD), ("ws_auth_secret", SECRET)):
            (folder / file).write_text(f"{content}\n")
            (folder / file).chmod(0o400)
            os.chown(folder / file, int(argument("USER")), 0)
        yield folder


@pytest.fixture(scope="module")
def options(database: PostgresServer, secrets: Path) -> list[str]:
    """
    The options of C{podman run} for any command of the image, which has installed the durable log with them.
    """
    variables = {
        "DB_HOST": "127.0.0.1",
        "DB_PORT": str(database.port),
        "DB_NAME": "app",
        "DB_USER": "app",
        "DB_PASSWORD_FILE": "/run/secrets/db_password",
        "WS_AUTH_SECRET_FILE": "/run/secrets/ws_auth_secret",
        "HOST": "127.0.0.1",
    }
    found = [
        *(part for name, value in variables.items() for part in ("--env", f"{name}={value}")),
        *LIMITS,
        *("--network", "host", "--read-only", "--read-only-tmpfs=false"),
        *("--cap-drop", "all", "--security-opt", "no-new-privileges"),
        *("--volume", f"{secrets}:/run/secrets:ro"),
    ]
    podman("run", "--rm", *found, IMAGE, "init-db", "--apply", "--without-triggers")
    return found


@pytest.fixture(scope="module")
def container(options: list[str]) -> Iterator[Container]:
    """
    A service with the durable log.
    """
    port = free_port()
    # without the last option it is ready before it has the database
    command = ["serve", "--log-format", "json", "--ready-needs-database"]
    made = Container(port, [*options, "--env", f"WS_PORT={port}", IMAGE, *command])
    yield made
    print(podman("logs", made.name))
    podman("rm", "--force", made.name)


def test_description() -> None:
    """
    The image says which version it is, how its health is checked, and how it is stopped.
    """
    image = inspect(IMAGE)
    found = image["Config"]
    assert found["Labels"]["org.opencontainers.image.version"] == VERSION
    assert image["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    assert found["StopSignal"] == argument("STOPSIGNAL")
    assert found["User"] == argument("USER")


def test_contents() -> None:
    """
    In the image there is no compiler, nothing of the build, and no module that would be compiled at each start.
    """
    shell = """
        for name in gcc cc g++ make; do command -v $name; done
        for path in /src /opt/dcm-ws/bin/pip; do [ ! -e $path ] || echo $path; done
        find /opt/dcm-ws ! -user root
    """
    assert podman("run", "--rm", *LIMITS, "--entrypoint", "sh", IMAGE, "-c", shell) == ""
    modules = """
import sys, sysconfig
from importlib.util import cache_from_source
from pathlib import Path

packages = Path(sysconfig.get_path("purelib"))
for name in ("dcm_ws", "twisted", "autobahn", "msgspec"):
    found = [path for path in (packages / name).rglob("*.py") if "test" not in path.parts]
    assert found
    print(*(path for path in found if not Path(cache_from_source(str(path))).exists()))
"""
    assert podman("run", "--rm", *LIMITS, "--entrypoint", "python", IMAGE, "-c", modules).strip() == ""


def test_it_needs_a_secret() -> None:
    """
    Without a secret the service says so, and ends.
    """
    done = subprocess.run([*PODMAN, "run", "--rm", *LIMITS, "--network", "none", IMAGE], capture_output=True, text=True)
    assert done.returncode == 1
    assert "WS_AUTH_SECRET" in done.stdout + done.stderr


def test_account(container: Container) -> None:
    """
    The service is ready, although it is not root, has no capabilities and cannot get any, and can write nowhere.
    """
    found = container.process()
    assert set(found["Uid"].split()) == {argument("USER")}
    assert {int(found[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
    assert found["NoNewPrivs"] == "1"
    written = "import pathlib; pathlib.Path('/tmp/x').write_text('')"
    with pytest.raises(AssertionError, match="Read-only file system"):
        podman("exec", container.name, "python", "-c", written)


def test_event(container: Container, database: PostgresServer) -> None:
    """
    An event that the database publishes gets to a client; both are commands of the image.
    """
    token = podman("exec", container.name, "dcm-ws", "token", "ann")
    own = ["exec", "--env", f"DCM_WS_TOKEN={token}", "--env", f"DCM_WS_URL=ws://127.0.0.1:{container.port}/"]
    podman(*own, container.name, "dcm-ws", "publish", "topics/builds", "task.created", '{"id": "1"}')
    found = podman(*own, container.name, "dcm-ws", "tail", "--json", "--since", "0", "--count", "1", "topics/builds")
    assert json.loads(found)["data"] == {"id": "1"}


def test_health_check(container: Container) -> None:
    """
    The health check of the image succeeds.
    """
    podman("healthcheck", "run", container.name)


def test_figures(container: Container, capsys: pytest.CaptureFixture[str]) -> None:
    """
    It takes no more room, time and memory than could go unnoticed; the documentation has what was measured.
    """
    size, base = (inspect(name)["Size"] / 1e6 for name in (IMAGE, BASE))
    start = time.monotonic()
    podman("healthcheck", "run", container.name)
    health = time.monotonic() - start
    memory = int(container.process()["VmRSS"].split()[0]) / 1024
    with capsys.disabled():
        print(f"\nimage: {size:.0f} MB, of which {size - base:.0f} MB are above the base")
        print(f"ready {container.seconds:.1f} s after podman run, with {memory:.0f} MiB")
        print(f"a health check takes {health:.2f} s")
    assert size - base < 150
    assert memory < 150


def test_restart(container: Container, capsys: pytest.CaptureFixture[str]) -> None:
    """
    On SIGTERM it ends by itself, with the status 0, and the same container can be started again.
    """
    seconds, code = container.restart()
    with capsys.disabled():
        print(f"\nstopped after {seconds:.1f} s")
    assert code == 0
