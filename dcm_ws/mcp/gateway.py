"""
The process that speaks MCP for the clients that a service has over HTTP.  The service starts it, keeps the connections
of the clients, and checks who they are; the process connects to the service as the agents that they are.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from websockets.exceptions import InvalidStatus

from dcm_ws.client import DCMError, PositionError, State
from dcm_ws.client.aio import DCMClient
from dcm_ws.client.storage import PositionStore
from dcm_ws.mcp.choice import Choice
from dcm_ws.mcp.exchange import Exchange
from dcm_ws.mcp.history import History
from dcm_ws.mcp.positions import Positions
from dcm_ws.mcp.session import Session
from dcm_ws.mcp.stats import connected_agents
from dcm_ws.mcp.wanted import Wanted
from dcm_ws.protocol.errors import CloseCode
from dcm_ws.protocol.gateway import (
    Close,
    Closed,
    FromGateway,
    Listening,
    Message,
    Open,
    Renew,
    Stop,
    Taken,
    ToGateway,
    encode,
    to_gateway,
)

CONTROL = 3
"""
The descriptor of the connection to the service.
"""

LINE_MAX = 64 << 20
"""
Bytes of a message of the service.
"""

END_SECONDS = 2.0
"""
Seconds in which the sessions have to end when the service has gone.
"""

_URL = "ws://localhost/"
# more than may wait in the inbox: what the model has not read does not keep the client from reading
_QUEUE_MAX = 2_000
_SERVER_ERROR = 500

_log = logging.getLogger("dcm_ws.mcp")

Send = Callable[[FromGateway], None]
"""
Sends a message to the service.
"""


class Gateway:
    """
    The sessions of all clients.

    @param path: the Unix socket of the service.
    @param folder: where the positions of agents are kept; None to keep them in memory.

    @ivar is_stopped: the service has said that it ends this process; otherwise it was killed.
    """

    def __init__(self, path: str, folder: Path | None, writer: asyncio.StreamWriter) -> None:
        self.is_stopped = False
        self._path = path
        self._positions = Positions(folder)
        self._writer = writer
        self._sessions: dict[int, _HttpSession] = {}

    async def run(self, reader: asyncio.StreamReader) -> None:
        """
        Execute the service's messages until it closes the connection.
        """
        while line := await reader.readline():
            self._received(to_gateway.decode(line))
        for session in self._sessions.values():
            session.end()
        tasks = [session.task for session in self._sessions.values()]
        if tasks:
            # they store their positions
            await asyncio.wait(tasks, timeout=END_SECONDS)

    def _received(self, message: ToGateway) -> None:
        if isinstance(message, Open):
            session = _HttpSession(message, self._path, self._positions, self._send)
            self._sessions[message.session] = session
            session.task.add_done_callback(lambda _: self._sessions.pop(message.session, None))
            return
        if isinstance(message, Stop):
            self.is_stopped = True
            return
        found = self._sessions.get(message.session)
        if found is None:
            # it has just ended
            return
        match message:
            case Renew(_, token):
                found.token = token
            case Message(_, text):
                found.exchange.received(text)
            case Listening(_, on):
                found.exchange.listening(on)
            case Taken(_, number, read):
                found.exchange.taken(number, read)
            case Close():
                found.end()

    def _send(self, message: FromGateway) -> None:
        if not self._writer.is_closing():
            self._writer.write(encode(message) + b"\n")


class _HttpSession:
    """
    The session of a client, until it is ended or the service does not accept its agent any more.

    @ivar token: the newest token of the agent.
    """

    def __init__(self, opened: Open, path: str, positions: Positions, send: Send) -> None:
        self.token = opened.token
        self._opened = opened
        self._path = path
        self._positions = positions
        self._send = send
        self._ended = asyncio.Event()
        self._reason = ""
        position = positions.take(opened.agent, opened.channels)
        self._client = self._make_client(opened.channels, position=position, durable=True, queue_max=_QUEUE_MAX)
        self._client.on_state(self._changed)
        self._client.on_error(lambda error: _log.warning("agent %s: %s", opened.agent, error))
        wanted = Wanted((), opened.events, opened.senders, opened.unnamed)
        session = Session(
            opened.agent,
            self._client,
            History(lambda channels, since: self._make_client(channels, observer=True, since=since)),
            lambda: connected_agents(path, self.token),
            # the service has checked it
            Choice(wanted, opened.push, opened.per_minute, opened.data_max),  # type: ignore[arg-type]
        )
        self.exchange: Exchange = session.over_http(opened.session, send)
        self.task = asyncio.create_task(self._run(session))

    def end(self) -> None:
        """
        The session is over.
        """
        self._ended.set()

    def _make_client(
        self,
        channels: Iterable[str],
        *,
        observer: bool = False,
        durable: bool = False,
        since: str | None = None,
        position: PositionStore | None = None,
        queue_max: int = 1_000,
    ) -> DCMClient:
        opened = self._opened
        return DCMClient(
            _URL,
            unix=self._path,
            token=None if opened.token is None else lambda: self.token or "",
            agent_id=opened.agent if opened.token is None else None,
            channels=channels,
            observer=observer,
            durable=durable,
            since=since,
            position=position,
            queue_max=queue_max,
        )

    def _changed(self, state: State) -> None:
        if state is State.CLOSED:
            self._refused(self._client.ended)
        elif state is State.WAITING:
            error = self._client.last_error
            if self._client.close_code == CloseCode.DISCONNECTED:
                self._refused(self._client.ended)
            elif isinstance(error, InvalidStatus) and error.response.status_code < _SERVER_ERROR:
                self._refused(str(error))

    def _refused(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._ended.set()

    async def _run(self, session: Session) -> None:
        connecting = asyncio.create_task(self._connect())
        serving = asyncio.create_task(session.serve(self.exchange))
        ending = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait({serving, ending}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
        except Exception:
            _log.exception("the session of agent %s failed", self._opened.agent)
        finally:
            for task in (connecting, serving, ending):
                task.cancel()
            await asyncio.gather(connecting, serving, ending, return_exceptions=True)
            # it stores its position
            await self._client.close()
            self._send(Closed(self._opened.session, self._reason or "the session is over"))

    async def _connect(self) -> None:
        try:
            await self._client.connect()
        except PositionError as error:
            self._refused(str(error))
        except DCMError:
            # reported by the state
            pass


async def _main(path: str, folder: Path | None) -> None:
    # whatever the reason, the service ends this process by closing the connection
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=CONTROL), limit=LINE_MAX)
    gateway = Gateway(path, folder, writer)
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        await gateway.run(reader)
    if not gateway.is_stopped:
        # the service was killed, and could not do it
        shutil.rmtree(os.path.dirname(path), ignore_errors=True)
    # tasks of sessions that are still waiting must not keep the process
    os._exit(0)


def main() -> None:
    """
    Run until the service closes the connection.
    """
    logging.basicConfig(format="mcp: %(message)s", level=logging.WARNING)
    # what goes wrong with a connection is in the state of its client
    logging.getLogger("dcm_ws.client").setLevel(logging.ERROR)
    path, folder = sys.argv[1:]
    asyncio.run(_main(path, Path(folder) if folder else None))


if __name__ == "__main__":
    main()
