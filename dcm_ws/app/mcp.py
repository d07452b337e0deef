"""
The endpoint for MCP clients, and the process that speaks MCP for it (docs/mcp.md).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ProcessExitedAlready
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcm_ws.app.base import Base
from dcm_ws.app.control import Channel, open_channel
from dcm_ws.app.errors import StartError
from dcm_ws.app.relay import Lines
from dcm_ws.core.assembly import Core
from dcm_ws.http.api import Gate
from dcm_ws.http.mcp import McpPage
from dcm_ws.http.mcp_sessions import McpLimits, McpSessions
from dcm_ws.http.transport import unsent
from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.gateway import FromGateway, Stop, ToGateway, from_gateway

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""
Seconds before the process is started again after it has died, at first and at most.
"""

END_SECONDS = 4.0
"""
Seconds that the process has to end.
"""

_PROGRAM = "dcm_ws.mcp.gateway"
_CONTROL = 3

_log = Logger(namespace="dcm_ws.mcp")


class McpService(Service):
    """
    Keeps the process alive, and the sessions that depend on it.

    @param folder: where the process keeps positions; None for nowhere.

    @ivar sessions: all sessions.
    @ivar port: what the process connects to; set before the service is started.
    """

    port: IProtocolFactory

    def __init__(self, base: Base, core: Core, folder: Path | None) -> None:
        self.setName("mcp")
        settings = base.settings
        self.sessions = McpSessions(
            McpLimits(settings.max_mcp_sessions, settings.max_mcp_per_agent, settings.mcp_idle),
            core.counts.limits,
            send=self._send,
            waiting=self._waiting,
            now=base.world.now,
            chance=base.world.random,
        )
        self._reactor = base.reactor
        self._folder = folder
        self._channel: Channel | None = None
        self._transport: Any = None
        self._listening: Any = None
        self._place: tempfile.TemporaryDirectory[str] | None = None
        self._starting: Any = None
        self._pause = FIRST_PAUSE
        self._ended: Deferred[None] | None = None

    def check(self) -> None:
        """
        @raise StartError: the process cannot run.
        """
        if find_spec("mcp") is None:
            raise StartError("--mcp needs the package mcp: pip install 'dcm-ws[mcp]'")
        if self._folder is not None and not os.access(self._folder, os.W_OK | os.X_OK):
            raise StartError(f"--mcp-folder: {self._folder} is not a folder that can be written to")

    def startService(self) -> None:
        super().startService()
        # only this account may enter it
        self._place = tempfile.TemporaryDirectory(prefix="dcm-ws-mcp-")
        path = os.path.join(self._place.name, "socket")
        try:
            self._listening = self._reactor.listenUNIX(path, self.port, mode=0o600)
        except CannotListenError as error:
            raise StartError(f"--mcp: cannot listen on {path}: {error.socketError}") from None
        self._start(path)

    def stopService(self) -> Deferred[None]:
        """
        End all sessions and the process.
        """
        return Deferred.fromCoroutine(self._stop())

    def drain(self) -> None:
        """
        End all sessions.
        """
        self.sessions.close_all()

    async def _stop(self) -> None:
        super().stopService()
        self.drain()
        if self._starting is not None and self._starting.active():
            self._starting.cancel()
        if self._transport is not None:
            self._ended = Deferred()
            late = self._reactor.callLater(END_SECONDS, self._kill)
            if self._channel is not None and self._channel.transport is not None:
                self._channel.send(Stop())
                self._channel.transport.loseConnection()
            await self._ended
            if late.active():
                late.cancel()
        if self._listening is not None:
            await self._listening.stopListening()
        if self._place is not None:
            self._place.cleanup()

    def _kill(self) -> None:
        with suppress(ProcessExitedAlready):
            self._transport.signalProcess(signal.SIGKILL.name.removeprefix("SIG"))

    def _start(self, path: str) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs, open(os.devnull, "rb") as null:
            self._transport = self._reactor.spawnProcess(
                _Watcher(path, self),
                sys.executable,
                # without the working folder, which others may write to, in the path
                [sys.executable, "-P", "-m", _PROGRAM, path, str(self._folder or "")],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                childFDs={0: null.fileno(), 1: "r", 2: "r", _CONTROL: theirs.fileno()},
            )
            ours.setblocking(False)
            self._channel = Channel(from_gateway.decode, self._received, lambda: None)
            open_channel(self._reactor, ours.fileno(), ours.family, self._channel)

    def _send(self, message: ToGateway) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def _waiting(self) -> int | None:
        return None if self._channel is None else unsent(self._channel.transport)

    def _received(self, message: FromGateway) -> None:
        # what it says shows that it runs
        self._pause = FIRST_PAUSE
        self.sessions.received(message)

    def died(self, path: str, reason: Failure) -> None:
        """
        The process has ended.
        """
        self._transport = None
        if self._channel is not None and self._channel.transport is not None:
            self._channel.transport.loseConnection()
        self._channel = None
        if self._ended is not None:
            self._ended.callback(None)
            return
        _log.error(
            "the process for MCP ended: {why}; all MCP sessions are over, and it is started again in {pause} s",
            why=reason.getErrorMessage(),
            pause=self._pause,
        )
        self.sessions.close_all()
        self._starting = self._reactor.callLater(self._pause, self._start, path)
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)


class _Watcher(ProcessProtocol):
    """
    Writes the output of the process to the log, and notices its end.
    """

    def __init__(self, path: str, service: McpService) -> None:
        self._path = path
        self._service = service
        self._lines = Lines(lambda text: _log.warn("{text}", text=text.rstrip("\n")))

    def childDataReceived(self, descriptor: int, data: bytes) -> None:
        self._lines.received(descriptor, data)

    def processEnded(self, reason: Failure) -> None:
        self._lines.end()
        self._service.died(self._path, reason)


def make_mcp(base: Base, core: Core) -> McpService | None:
    """
    Make the service for MCP clients; None if it is not wanted.
    """
    settings = base.settings
    return McpService(base, core, settings.mcp_folder) if settings.mcp else None


def make_mcp_page(base: Base, core: Core, channels: Channels, gate: Gate, service: McpService) -> McpPage:
    """
    Make the endpoint.
    """
    return McpPage(base.world.wall_ms, gate, service.sessions, channels=channels, hub=core.hub, clock=base.reactor)
