"""
The embedded PostgreSQL server on its data folder: started, found again and stopped with PostgreSQL's own programs.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.sql import SQL, Identifier
from twisted.internet.task import deferLater
from twisted.logger import Logger

from dcm_ws.postgres.cluster import ROLE
from dcm_ws.postgres.connection import (
    DatabaseConnection,
    DatabaseError,
    Place,
    connect,
    deadline,
    one_line,
)
from dcm_ws.postgres.data_folder import DataFolder, EmbeddedError, read_own, write_secret
from dcm_ws.postgres.install import in_transaction
from dcm_ws.postgres.migrations import log_sql
from dcm_ws.postgres.postmaster import has_children, has_ended, read_lines, ready_port
from dcm_ws.postgres.programs import Programs
from dcm_ws.postgres.schema import TABLES

# an operator may filter by this name
_log = Logger(namespace="dcm_ws.embedded.EmbeddedPostgres")

DATABASE = "dcm"
_HOST = "127.0.0.1"
_START_SECONDS = 60
_STOP_SECONDS = 30
_LOOK_SECONDS = 0.1
_DYING_SECONDS = 1.0
_SETUP_SECONDS = 30.0
_LOG_MAX = 1 << 20


def running_url(path: Path) -> str | None:
    """
    Returns the URL of the server that a service runs on the data folder C{path}; None if none runs, or if this account
    may not read the folder.
    """
    folder = DataFolder(path)
    try:
        lines = read_lines(folder.cluster)
        password = folder.password.read_text().strip()
    except OSError:
        return None
    if not lines or has_ended(lines[0], folder.cluster):
        return None
    port = ready_port(lines)
    return None if port is None else _url(password, port)


def _url(password: str, port: int) -> str:
    return f"postgresql://{ROLE}:{password}@{_HOST}:{port}/{DATABASE}"


class Server:
    """
    The server on a data folder whose cluster is prepared.

    @param password: of the cluster's role.
    @param given_up: returns True when waiting for the server has no purpose any more.
    """

    def __init__(
        self, reactor: Any, folder: DataFolder, programs: Programs, password: str, given_up: Callable[[], bool]
    ) -> None:
        self._reactor = reactor
        self._folder = folder
        self._programs = programs
        self._password = password
        self._given_up = given_up
        self._port: int | None = None

    async def place(self) -> Place:
        """
        Start the server if it does not run, and return where it is.

        @raise EmbeddedError: it cannot be started or used.
        """
        if not await self._runs():
            await self._start()
        assert self._port is not None
        return Place(_url(self._password, self._port), own=True)

    async def stop(self) -> None:
        """
        Stop the server, even if an earlier process started it.
        """
        for mode in ("fast", "immediate"):
            lines = read_lines(self._folder.cluster)
            if not lines or has_ended(lines[0], self._folder.cluster):
                return
            result = await self._programs.pg_ctl("-m", mode, "-w", "-t", str(_STOP_SECONDS), "stop")
            if result.code == 0:
                _log.info("embedded PostgreSQL stopped")
                return
            _log.error("the embedded PostgreSQL did not stop: {output}", output=result.gist)

    async def _runs(self) -> bool:
        """
        Whether a server runs on the data.  A server that a killed service left behind is used like our own.
        """
        port = await self._found()
        if port is None:
            return False
        if port != self._port:
            _log.info("found PostgreSQL running on port {port}", port=port)
            try:
                await self._set_up(port)
            except EmbeddedError:
                # it may have been killed together with its service, and be about to end
                await deferLater(self._reactor, _DYING_SECONDS)
                if await self._found() is not None:
                    raise
                return False
            self._port = port
        return True

    async def _found(self) -> int | None:
        """
        Wait until the server that runs on the data is ready, and return its port; None if none runs.
        """
        cluster = self._folder.cluster
        for _ in range(round(_START_SECONDS / _LOOK_SECONDS)):
            lines = read_lines(cluster)
            if not lines:
                return None
            if has_ended(lines[0], cluster):
                # PostgreSQL would take any process that now has the number for a server of its own, and not start
                if not has_children(lines):
                    (cluster / "postmaster.pid").unlink(missing_ok=True)
                    return None
            elif (await self._programs.pg_ctl("status")).code != 0:
                return None
            elif (port := ready_port(lines)) is not None:
                return port
            await deferLater(self._reactor, _LOOK_SECONDS)
            if self._given_up():
                break
        raise EmbeddedError("the embedded PostgreSQL neither starts nor stops")

    async def _start(self) -> None:
        log = self._folder.log
        if log.exists() and log.lstat().st_size > _LOG_MAX:
            log.unlink()
        # the port of last time, if it is free, so that URLs stay valid
        port = _free_port(self._last_port())
        options = f"-c listen_addresses={_HOST} -c unix_socket_directories='' -p {port}"
        result = await self._programs.pg_ctl("-l", str(log), "-o", options, "-w", "-t", str(_START_SECONDS), "start")
        if result.code != 0:
            raise EmbeddedError(f"the embedded PostgreSQL did not start; see {log}: {result.gist}")
        await self._set_up(port)
        self._port = port

    def _last_port(self) -> int:
        try:
            port = int(read_own(self._folder.port))
        except (OSError, ValueError):
            return 0
        # PostgreSQL's account may not be allowed to use lower ports
        return port if 1024 <= port <= 65_535 else 0

    async def _set_up(self, port: int) -> None:
        """
        Create the database, the tables that are missing in it, and the schema of the log.
        """
        server = f"host={_HOST} port={port} user={ROLE} password={self._password}"
        try:
            async with self._connected(f"{server} dbname=postgres") as connection:
                if not await connection.runQuery("select 1 from pg_database where datname = %s", (DATABASE,)):
                    await connection.runOperation(SQL("create database {}").format(Identifier(DATABASE)))
            async with self._connected(f"{server} dbname={DATABASE}") as connection:
                await self._add_tables(connection)
                await self._add_log(connection)
        except DatabaseError as error:
            raise EmbeddedError(f"the embedded PostgreSQL cannot be set up: {one_line(error)}") from None
        write_secret(self._folder.port, str(port))

    async def _add_tables(self, connection: DatabaseConnection) -> None:
        try:
            await connection.runOperation(TABLES)
        except psycopg2.ProgrammingError as error:
            _log.warn("the tables are left as they are: {reason}", reason=one_line(error))

    async def _add_log(self, connection: DatabaseConnection) -> None:
        try:
            await connection.runOperation(in_transaction(log_sql()))
        except psycopg2.Error as error:
            _log.warn("the schema of the log is left as it is: {reason}", reason=one_line(error))

    @asynccontextmanager
    async def _connected(self, dsn: str) -> AsyncIterator[DatabaseConnection]:
        connection = DatabaseConnection(self._reactor)
        try:
            await connect(connection, Place(dsn, own=True), "dcm-ws setup")
            with deadline(connection, _SETUP_SECONDS):
                yield connection
        finally:
            connection.close()


def _free_port(wanted: int) -> int:
    """
    Returns a port that is free: the wanted one, or else any.
    """
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise EmbeddedError("no port is free for PostgreSQL")
