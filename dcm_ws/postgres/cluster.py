"""
The database cluster in the data folder: made by C{initdb}, and only used with programs of its version.
"""

from __future__ import annotations

import secrets
import shutil
from typing import Any

from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from dcm_ws.postgres.data_folder import DataFolder, EmbeddedError, read_own, write_secret
from dcm_ws.postgres.programs import Programs

# an operator may filter by this name
_log = Logger(namespace="dcm_ws.embedded.EmbeddedPostgres")

ROLE = "dcm"
"""
The cluster's only role, a superuser.
"""


async def prepare_cluster(reactor: Any, folder: DataFolder, programs: Programs) -> str:
    """
    Make the cluster if there is none, and return the password of its role.

    @raise EmbeddedError: the cluster cannot be made, or is of another version of PostgreSQL.
    """
    folder.home.mkdir(mode=0o700, exist_ok=True)
    folder.account.give(folder.home)
    # left behind by a service that was killed; its initdb may still write, so each one has a name of its own
    for old in folder.home.glob("unfinished-*"):
        if old.is_dir() and not old.is_symlink():
            await deferToThreadPool(reactor, reactor.getThreadPool(), shutil.rmtree, old, True)
        else:
            old.unlink(missing_ok=True)
    if not folder.cluster.exists():
        return await _make(folder, programs)
    password = read_own(folder.password).strip()
    await _check_version(folder, programs)
    return password


async def _make(folder: DataFolder, programs: Programs) -> str:
    _log.info("making a database in {folder}", folder=folder.cluster)
    password = secrets.token_urlsafe(24)
    write_secret(folder.password, password)
    unfinished = folder.home / f"unfinished-{secrets.token_hex(4)}"
    handed = unfinished.with_suffix(".password")
    write_secret(handed, password)
    folder.account.give(handed)
    try:
        result = await programs.run(
            "initdb",
            *("-D", str(unfinished), "-U", ROLE, "-E", "UTF8"),
            *("--locale=C", "-A", "scram-sha-256", f"--pwfile={handed}"),
        )
    finally:
        handed.unlink(missing_ok=True)
    if result.code != 0:
        raise EmbeddedError(f"initdb failed: {result.gist}")
    # so a folder with this name is always a complete cluster
    unfinished.rename(folder.cluster)
    return password


async def _check_version(folder: DataFolder, programs: Programs) -> None:
    made_by = (folder.cluster / "PG_VERSION").read_text().strip()
    result = await programs.run("postgres", "--version")
    if result.code != 0:
        raise EmbeddedError(f"PostgreSQL's programs do not run here: {result.gist}")
    installed = result.output.split()[2].partition(".")[0]
    if made_by != installed:
        raise EmbeddedError(
            f"the data in {folder.cluster} is of PostgreSQL {made_by}, but PostgreSQL {installed} is installed:"
            " move the data with pg_dump, or choose another folder with DCM_DATA_DIR"
        )
