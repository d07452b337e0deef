"""
The command as a process of its own, and a pgbouncer for it to look through.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.integration.running import PostgresServer, free_port, until

ROOT = Path(__file__).parents[2]
PROGRAM = str(Path(sys.executable).with_name("dcm-ws"))


def clean(folder: Path, **variables: str) -> dict[str, str]:
    """
    The environment without what would configure the service, with a config folder and a data folder of the test's own.
    """
    named = ("HOST", "NODE_ENV", "LOG_LEVEL")
    mine = {
        name: value
        for name, value in os.environ.items()
        if name not in named and not name.startswith(("WS_", "DB_", "DATABASE_", "DCM_", "PG"))
    }
    return mine | {"XDG_CONFIG_HOME": str(folder / "config"), "DCM_DATA_DIR": str(folder / "data")} | variables


def run(folder: Path, *arguments: str, stdin: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """
    What C{dcm-ws} says in a folder, and how it ends.
    """
    return subprocess.run(
        [PROGRAM, *arguments],
        cwd=folder,
        env=clean(folder, **variables),
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def debian_program(package: str, find: Callable[[], str | None]) -> str:
    """
    What C{find} finds, once the Debian package is installed; where that is not allowed, the test is skipped, except in
    CI.
    """
    found = find()
    if found is None:
        done = subprocess.run([ROOT / "scripts" / "install-debian", package], stderr=subprocess.PIPE, text=True)
        if done.returncode and not os.environ.get("CI"):
            pytest.skip(done.stderr.strip())
        assert done.returncode == 0, done.stderr
        found = find()
    assert found is not None
    return found


def pgbouncer_program() -> str:
    """
    Where pgbouncer is.
    """
    return debian_program("pgbouncer", lambda: shutil.which("pgbouncer", path=f"{os.defpath}:/usr/sbin"))


def debian_postgres() -> Path:
    """
    The folder with the programs of the PostgreSQL of Debian, which is older than the embedded one.
    """
    initdbs = Path("/usr/lib/postgresql")
    found = debian_program("postgresql", lambda: next(map(str, sorted(initdbs.glob("*/bin/initdb"))), None))
    return Path(found).parent


@contextlib.contextmanager
def pgbouncer(database: PostgresServer, mode: str, size: int = 5) -> Iterator[str]:
    """
    A pgbouncer in front of the database; answers the URL through it.
    """
    program = pgbouncer_program()
    folder, port = Path(tempfile.mkdtemp(prefix="dcm-ws-test-")), free_port()
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\npostgres = host=127.0.0.1 port={database.port} user=dcm\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = {mode}\ndefault_pool_size = {size}\n"
    )
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        entry = pwd.getpwnam("nobody")
        user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, str(settings)], stdout=log, stderr=log, cwd="/", **user)
    try:
        url = f"postgresql://dcm@127.0.0.1:{port}/postgres"

        def answers() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                psycopg2.connect(url).close()
            except psycopg2.Error:
                return False
            return True

        until(answers)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)
        shutil.rmtree(folder)
