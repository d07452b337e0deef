"""
The service of C{dcm-ws demo}: a process with an embedded PostgreSQL, in a folder that is removed at the end.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import click

from dcm_ws.app.options import BY_NAME
from dcm_ws.postgres.data_folder import DataFolder
from dcm_ws.postgres.postmaster import has_ended, read_lines
from dcm_ws.postgres.server import running_url

_HOST = "127.0.0.1"
# where the commands look for a service
_USUAL_PORT: int = BY_NAME["ws-port"].default
_LINES = 20
_LOOK_SECONDS = 0.05
_STOP_SECONDS = 120.0
_POSTGRES_SECONDS = 30.0
# not the modules of whatever folder the demo is started in
_PROGRAM = (sys.executable, "-P", "-c", "from dcm_ws.cli.main import main; main()", "serve")


class Service:
    """
    The service, which runs.

    @ivar folder: its data folder.
    @ivar url: of its WebSockets.
    @ivar page: the URL of its live page.
    @ivar database: the URL of its database.
    """

    def __init__(self, process: Process, folder: Path, log: Path) -> None:
        self._process = process
        self._log = log
        self.folder = folder
        self.url = ""
        self.page = ""
        self.database = ""

    async def wait_until_ready(self) -> None:
        """
        Wait until it serves clients.

        @raise click.ClickException: it has ended.
        """
        while not re.search(r"(?m)\] ready$", log := self._log.read_text(errors="replace")):
            if self._process.returncode is not None:
                raise click.ClickException(self._why())
            await asyncio.sleep(_LOOK_SECONDS)
        self.url = _found(r"listening on (ws:\S+)", log)
        self.page = _found(r"live page: (\S+)", log)
        self.database = running_url(self.folder) or ""

    async def watch(self) -> None:
        """
        Wait until it has ended by itself.

        @raise click.ClickException: it has.
        """
        await self._process.wait()
        raise click.ClickException(self._why())

    async def stop(self) -> None:
        """
        Stop it, and its PostgreSQL.
        """
        if self._process.returncode is None:
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._stop_postgres()

    async def _stop_postgres(self) -> None:
        """
        Stop what a service that was killed has left behind.
        """
        cluster = DataFolder(self.folder).cluster
        for _ in range(round(_POSTGRES_SECONDS / _LOOK_SECONDS)):
            lines = read_lines(cluster)
            if not lines or has_ended(lines[0], cluster):
                return
            with suppress(OSError, ValueError):
                # a fast shutdown; a second one changes nothing
                os.kill(int(lines[0]), signal.SIGINT)
            await asyncio.sleep(_LOOK_SECONDS)

    def _why(self) -> str:
        if reason := _found(r"dcm-ws cannot start: (.*)", self._log.read_text(errors="replace")):
            return f"the service cannot start: {reason}"
        with self._log.open(errors="replace") as lines:
            last = deque(lines, maxlen=_LINES)
        return f"the service has ended; its log ends with:\n{''.join(last).rstrip()}"


@asynccontextmanager
async def running_service(port: int | None, metrics_seconds: float) -> AsyncIterator[Service]:
    """
    A service that is ready, and is stopped at the end.

    @param port: to listen on, on the loopback address; 0 for any; None for the usual one if it is free.
    @param metrics_seconds: time between two snapshots of the key figures.
    @raise click.ClickException: it cannot start.
    """
    above = Path(tempfile.mkdtemp(prefix="dcm-ws-demo-"))
    try:
        if os.geteuid() == 0:
            # PostgreSQL runs under another account
            above.chmod(0o711)
        settings = above / "dcm-ws.toml"
        settings.write_text(
            f'host = "{_HOST}"\nws-port = {_port() if port is None else port}\ndcm-data-dir = "data"\n'
            f'name = "demo"\nmetrics-interval = {metrics_seconds}\n'
        )
        log = above / "service.log"
        service = Service(await _start(settings, log), above / "data", log)
        try:
            await service.wait_until_ready()
            yield service
        finally:
            await service.stop()
    finally:
        shutil.rmtree(above, ignore_errors=True)


async def _start(settings: Path, log: Path) -> Process:
    # not a pipe: until a pipe is closed, which PostgreSQL may keep open, Python 3.11 takes the process for running
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            *_PROGRAM,
            "--config",
            str(settings),
            cwd=settings.parent,
            env=_environment(),
            stdin=DEVNULL,
            stdout=output,
            stderr=STDOUT,
            # Ctrl-C is for the demo, which stops it in order
            start_new_session=True,
        )


def _environment() -> dict[str, str]:
    """
    The environment without what configures a service or names a database.
    """
    named = {name for row in BY_NAME.values() for name in (row.variable, row.old_variable)}
    return {name: value for name, value in os.environ.items() if name not in named and not name.startswith("PG")}


def _port() -> int:
    """
    The usual port, or 0 if it is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, _USUAL_PORT))
        except OSError:
            return 0
    return _USUAL_PORT


def _found(pattern: str, line: str) -> str:
    found = re.search(pattern, line)
    return found[1] if found else ""
