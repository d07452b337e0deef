"""
The service of C{dcm-ws demo}: a process with an embedded PostgreSQL, in a folder that is removed at the end.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import click

from dcm_ws.app.options import BY_NAME
from dcm_ws.postgres.server import running_url

USUAL_PORT = 3849
"""
The port of a service, where the commands look for it.
"""

_HOST = "127.0.0.1"
_LINES = 20
_STOP_SECONDS = 60.0
_LAST_SECONDS = 1.0
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

    def __init__(self, process: Process, folder: Path) -> None:
        self._process = process
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._reading: asyncio.Task[None] | None = None
        self.folder = folder
        self.url = ""
        self.page = ""
        self.database = ""

    async def read_until_ready(self) -> None:
        """
        Read its log until it serves clients.

        @raise click.ClickException: it has ended.
        """
        while (line := await self._line()) is not None:
            self.url = _found(r"listening on (ws:\S+)", line) or self.url
            self.page = _found(r"live page: (\S+)", line) or self.page
            if line.endswith("] ready"):
                self.database = running_url(self.folder) or ""
                self._reading = asyncio.create_task(self._read_on())
                return
        raise click.ClickException(self._why())

    async def watch(self) -> None:
        """
        Wait until it has ended by itself.

        @raise click.ClickException: it has.
        """
        await self._process.wait()
        await self._read_last()
        raise click.ClickException(self._why())

    async def stop(self) -> None:
        """
        Stop it, and its PostgreSQL.
        """
        if self._process.returncode is None:
            self._process.terminate()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_on())
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._read_last()

    async def _read_on(self) -> None:
        # a full pipe would stop it
        while await self._line() is not None:
            pass

    async def _read_last(self) -> None:
        assert self._reading is not None
        # what it has started may have the pipe, too
        await asyncio.wait((self._reading,), timeout=_LAST_SECONDS)
        self._reading.cancel()

    async def _line(self) -> str | None:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            return None
        text = line.decode(errors="replace").rstrip()
        self._lines.append(text)
        return text

    def _why(self) -> str:
        for line in self._lines:
            if reason := _found(r"dcm-ws cannot start: (.*)", line):
                return f"the service cannot start: {reason}"
        return "\n".join(("the service has ended; its log ends with:", *self._lines))


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
        service = Service(await _start(above, settings), above / "data")
        try:
            await service.read_until_ready()
            yield service
        finally:
            await service.stop()
    finally:
        shutil.rmtree(above, ignore_errors=True)


async def _start(folder: Path, settings: Path) -> Process:
    return await asyncio.create_subprocess_exec(
        *_PROGRAM,
        "--config",
        str(settings),
        cwd=folder,
        env=_environment(),
        stdin=DEVNULL,
        stdout=PIPE,
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
            probe.bind((_HOST, USUAL_PORT))
        except OSError:
            return 0
    return USUAL_PORT


def _found(pattern: str, line: str) -> str:
    found = re.search(pattern, line)
    return found[1] if found else ""
