"""
The clients for asyncio and for Twisted with a server that a test plays, in time that the test advances.
"""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from websockets.exceptions import ConnectionClosedError

from dcm_ws.client import aio, core, tx
from dcm_ws.client.errors import ClosedError, DCMError, RefusedError

NORMAL = 1000
LOST = 1006


class Player(ABC):
    """
    One client, and the server's side of its connections.

    @ivar sent: messages of the client that have not been checked yet.
    @ivar refused: channel and code of each subscription that the server refused while the client connected.
    @ivar failed: codes of the errors with which calls of the user failed.
    """

    client: Any

    def __init__(self, options: dict[str, Any]) -> None:
        self.sent: list[dict[str, Any]] = []
        self._asked: dict[str, str] = {}
        self.refused: list[list[str | None]] = []
        self.failed: list[str] = []
        settings = dict(options)
        if "tokens" in settings:
            settings["token"] = self._token_function(settings.pop("tokens"))
        self._settings = settings

    def _token_function(self, results: list[Any]) -> Callable[[], Any]:
        remaining = iter(results)

        def token() -> Any:
            result = next(remaining)
            if not isinstance(result, dict):
                return result
            if "fails" in result:
                raise ValueError(result["fails"])
            return self._never()

        return token

    def _watch(self, client: Any) -> None:
        self.client = client
        client.on_error(self._complained)

    def _complained(self, error: DCMError) -> None:
        assert isinstance(error, RefusedError)
        self.refused.append([error.channel, error.code])

    def _heard(self, text: str | bytes) -> None:
        message = json.loads(text)
        name = message.pop("id", None)
        self.sent.append(message)
        if name is not None:
            self._asked[f"{message['type']} {message.get('channel', '')}".strip()] = name

    async def answer(self, what: str, frame: dict[str, Any]) -> None:
        """
        Answer a request, which is named by its type and channel.
        """
        await self.hear({"type": "ack", "id": self._asked.pop(what), "timestamp": 1, **frame})

    def why_closed(self) -> ClosedError:
        """
        Why the client has given up.
        """
        assert self.client.state == "closed"
        error = self.client._error
        assert isinstance(error, ClosedError)
        return error

    @abstractmethod
    def _never(self) -> Any:
        """
        An awaitable that has no result.
        """

    @abstractmethod
    async def connect(self) -> None:
        """
        Have the client connect, and open the connection.
        """

    @abstractmethod
    async def close(self) -> None:
        """
        Close the client.
        """

    @abstractmethod
    async def reconnect(self) -> None:
        """
        Open the next connection, when the client wants it.
        """

    @abstractmethod
    async def hear(self, frame: dict[str, Any]) -> None:
        """
        The server sends a frame.
        """

    @abstractmethod
    async def end(self, code: int, reason: str) -> None:
        """
        The server closes the connection.
        """

    @abstractmethod
    async def wait(self, seconds: float) -> None:
        """
        Time passes.
        """

    @abstractmethod
    async def ask(self, method: str, channel: str) -> None:
        """
        The user subscribes or unsubscribes.
        """

    @abstractmethod
    def retry_seconds(self) -> float:
        """
        How long the client will wait before it connects again.
        """


# Twisted


class _TwistedConnection:
    """
    Takes the place of Autobahn's protocol.
    """

    def __init__(self, player: InTwisted) -> None:
        self.paused = False
        self._player = player

    def sendMessage(self, payload: bytes) -> None:
        self._player._heard(payload)

    def pause(self, paused: bool) -> None:
        self.paused = paused

    def finish(self, reactor: MemoryReactorClock) -> Any:
        return reactor.callLater(1, lambda: None)

    def dropConnection(self, abort: bool) -> None:
        self._player.ended(LOST, "")


class _Connections:
    """
    Takes the place of C{ClientService}.
    """

    def startService(self) -> None:
        pass

    def stopService(self) -> Deferred[None]:
        return succeed(None)


class InTwisted(Player):
    """
    With the client for Twisted.
    """

    def __init__(self, options: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
        super().__init__(options)
        self._clock = MemoryReactorClock()
        self._delay = 0.0
        self._connection: Any = None
        patch.setattr(tx, "ClientService", self._service)
        self._watch(tx.DCMClient("ws://127.0.0.1:1/ws", reactor=self._clock, **self._settings))

    def _service(self, endpoint: Any, factory: Any, *, retryPolicy: Callable[[int], float], clock: Any) -> Any:
        self._policy = retryPolicy
        return _Connections()

    def _never(self) -> Any:
        return Deferred()

    def _open(self) -> None:
        self._connection = _TwistedConnection(self)
        self.client._opened(self._connection)

    def ended(self, code: int, reason: str) -> None:
        """
        The connection has ended.
        """
        self.client._closed(self._connection, code, reason)
        if self.client.running and self.client.state != "closed":
            self._delay = self._policy(1)

    async def connect(self) -> None:
        self.client.startService()
        self._open()

    async def close(self) -> None:
        self.client.stopService()

    async def reconnect(self) -> None:
        self._clock.advance(self._delay)
        assert self.client.state == "connecting"
        self._open()

    async def hear(self, frame: dict[str, Any]) -> None:
        self.client._received(self._connection, json.dumps(frame).encode())

    async def end(self, code: int, reason: str) -> None:
        self.ended(code, reason)

    async def wait(self, seconds: float) -> None:
        self._clock.advance(seconds)

    async def ask(self, method: str, channel: str) -> None:
        answer = getattr(self.client, method)(channel)
        answer.addErrback(lambda failure: self.failed.append(failure.value.code))

    def retry_seconds(self) -> float:
        return self._delay


# asyncio


class VirtualLoop(asyncio.SelectorEventLoop):
    """
    An event loop whose time passes only when it would wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self._virtual = 0.0
        self._selector.select = self._select  # type: ignore[attr-defined]

    def _select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "nothing will ever happen"
        self._virtual += timeout
        return []

    def time(self) -> float:
        return self._virtual


class _AsyncioSocket:
    """
    Takes the place of a connection of the package C{websockets}, and of the context manager that opens it.
    """

    def __init__(self, player: InAsyncio) -> None:
        self._player = player
        self._frames: asyncio.Queue[str | None] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.close_code: int | None = None
        self.close_reason: str | None = None

    async def __aenter__(self) -> _AsyncioSocket:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end(NORMAL, "")

    async def send(self, text: str) -> None:
        self._player._heard(text)

    async def recv(self) -> str:
        frame = await self._frames.get()
        if frame is None:
            raise ConnectionClosedError(None, None)
        return frame

    async def close(self) -> None:
        self.end(NORMAL, "")

    async def wait_closed(self) -> None:
        await self.ended.wait()

    def hear(self, text: str) -> None:
        self._frames.put_nowait(text)

    def end(self, code: int, reason: str) -> None:
        if not self.ended.is_set():
            self.close_code, self.close_reason = code, reason
            self.ended.set()
            self._frames.put_nowait(None)


class InAsyncio(Player):
    """
    With the client for asyncio.
    """

    def __init__(self, options: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
        super().__init__(options)
        self._calls: set[asyncio.Future[Any]] = set()
        patch.setattr(aio, "connect", self._open)
        self._watch(aio.DCMClient("ws://127.0.0.1:1/ws", **self._settings))
        self._retry = 0.0
        self.client.on_state(self._became)

    def _became(self, state: str) -> None:
        if state == "waiting":
            # retry_at is a time of the system's clock, which goes on
            self._retry = self.client.retry_at - time.time()

    def _open(self, url: str, **options: Any) -> _AsyncioSocket:
        self._socket = _AsyncioSocket(self)
        return self._socket

    def _never(self) -> Any:
        return asyncio.get_running_loop().create_future()

    async def _settled(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    def _begin(self, call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(call)
        self._calls.add(task)
        return task

    async def connect(self) -> None:
        # nothing here awaits the first connection
        self._begin(self.client.connect()).add_done_callback(lambda task: task.cancelled() or task.exception())
        await self._settled()

    async def close(self) -> None:
        await self.client.close()
        await self._settled()

    async def reconnect(self) -> None:
        # the back-off may be a little longer than measured
        before = self._socket
        await asyncio.sleep(self._retry + 0.2)
        assert self._socket is not before

    async def hear(self, frame: dict[str, Any]) -> None:
        self._socket.hear(json.dumps(frame))
        await self._settled()

    async def end(self, code: int, reason: str) -> None:
        self._socket.end(code, reason)
        await self._settled()

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._settled()

    async def ask(self, method: str, channel: str) -> None:
        async def call() -> None:
            try:
                await getattr(self.client, method)(channel)
            except DCMError as error:
                self.failed.append(error.code)

        self._begin(call())
        await self._settled()

    def retry_seconds(self) -> float:
        return self._retry


def play(kind: type[Player], options: dict[str, Any], program: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """
    Run C{program} with a player of this kind, whose client is closed at the end.
    """
    with pytest.MonkeyPatch.context() as patch:
        # the longest delay that the back-off allows
        patch.setattr(core.ClientCore, "__init__", _without_chance(core.ClientCore.__init__))

        async def whole() -> None:
            player = kind(options, patch)  # type: ignore[call-arg]
            try:
                await player.connect()
                await program(player)
            finally:
                await player.close()

        if kind is InAsyncio:
            with asyncio.Runner(loop_factory=VirtualLoop) as runner:
                runner.run(whole())
        else:
            # nothing in it suspends
            with pytest.raises(StopIteration):
                whole().send(None)


def _without_chance(init: Callable[..., None]) -> Callable[..., None]:
    def replacement(self: core.ClientCore, **options: Any) -> None:
        init(self, **options | {"random": lambda: 1.0})

    return replacement
