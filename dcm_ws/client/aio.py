"""
The client for asyncio, on the package C{websockets}::

    async with DCMClient("ws://127.0.0.1:3849/ws", channels=["global"]) as client:
        async for event in client.events("task.*"):
            print(event.event, event.data)
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Self, TypeVar

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from dcm_ws.client.aio_connection import Connection
from dcm_ws.client.backoff import STABLE
from dcm_ws.client.base import Client, Handler, Since, Store, Token
from dcm_ws.client.conversation import Ask, GetToken, Greeting, Pause, Request, Together, drive
from dcm_ws.client.core import QUEUE_MAX, State
from dcm_ws.client.errors import DCMError
from dcm_ws.client.events import Event
from dcm_ws.client.published import Published
from dcm_ws.client.queues import Queue
from dcm_ws.client.reasons import reason_of
from dcm_ws.client.requests import Reply
from dcm_ws.client.storage import SAVE_SECONDS
from dcm_ws.client.urls import is_loopback, is_proxied, place_of

_T = TypeVar("_T")

_MESSAGE_MAX = 16 << 20

_log = logging.getLogger(__name__)


class DCMClient(Client):
    """
    A connection that is restored whenever it is lost, until the client is closed.

    @param url: C{ws://} or C{wss://}.
    @param token: the token, or a function or coroutine function that returns one for each connection.
    @param agent_id: the agent to connect as without a token, which only development allows.
    @param session_id: the session to authenticate for.
    @param channels: subscribed to now and after each reconnection.
    @param timeout: maximum seconds for an answer, and for connecting.
    @param queue_max: maximum number of events that wait for their listeners.  At this number the client stops reading,
        and the server queues events; while an answer is awaited ten times as many may wait.
    @param observer: receive events without acknowledging them, and without being the agent's presence.
    @param durable: the server keeps what the agent does not acknowledge, even before its first acknowledgement.
    @param position: where the client keeps its position, to go on there when the program starts again: the path of a
        file, or an object with C{load} and C{save} (L{PositionStore<dcm_ws.client.storage.PositionStore>}).
    @param since: where to begin if nothing is stored: a position in the server's log, C{"EPOCH.POS"} or a L{Position}.
        Without it, the client begins with the events that are published after it has connected.
    @param tls: for C{wss}; by default the certificates of the system are trusted.
    @param unix: the path of a Unix socket where the server listens; it connects there, whatever the host in C{url}.
    @raise ValueError: C{url} is not the address of a WebSocket.
    """

    _elsewhere = frozenset({"startService", "stopService", "setServiceParent", "when_connected"})
    _hint = (
        "dcm_ws.client.aio.DCMClient is the client for asyncio, and needs its running event loop; "
        "for Twisted use `from dcm_ws.client import DCMClient`"
    )

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        agent_id: str | None = None,
        session_id: str | None = None,
        channels: Iterable[str] = ("global",),
        timeout: float = 10.0,
        queue_max: int = QUEUE_MAX,
        observer: bool = False,
        durable: bool = False,
        position: Store | None = None,
        since: Since | None = None,
        tls: ssl.SSLContext | None = None,
        unix: str | None = None,
    ) -> None:
        _, host, _ = place_of(url, tls=tls is not None)
        super().__init__(
            url,
            token=token,
            agent_id=agent_id,
            session_id=session_id,
            channels=channels,
            timeout=timeout,
            queue_max=queue_max,
            observer=observer,
            durable=durable,
            position=position,
            since=since,
            now=time.monotonic,
        )
        self._options: dict[str, Any] = {
            "open_timeout": timeout,
            "close_timeout": 1,
            "max_size": _MESSAGE_MAX,
            # the server sends pings
            "ping_interval": None,
        }
        if is_loopback(host):
            # a proxy named by the environment cannot reach it
            self._options["proxy"] = None
        if tls is not None:
            self._options["ssl"] = tls
        if unix is not None:
            self._options |= {"unix": True, "path": unix}
        self._running: asyncio.Task[None] | None = None
        self._reading = asyncio.Event()
        self._workers: set[asyncio.Task[None]] = set()

    # connecting

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """
        Connect, and stay connected.  Returns at the first connection.

        @raise ClosedError: the server refuses the authentication.
        @raise PositionError: the stored position cannot be used.
        @raise RuntimeError: this is not a task of asyncio.
        """
        self._check_loop()
        if self._running is None or self._running.done():
            self._load_position()
            self._error = None
            self._core.backoff.reset()
            self._become(State.CONNECTING)
            self._running = asyncio.create_task(self._run_and_save())
        try:
            await self.connected()
        except BaseException:
            await self.close()
            raise

    async def connected(self) -> None:
        """
        Wait until there is a connection.

        @raise ClosedError: there will be none.
        """
        await self._until_connected()

    async def close(self) -> None:
        """
        Close the connection.  C{connect} opens it again.
        """
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            # pending requests fail
            self._core.lost(None, "closed")
        for worker in list(self._workers):
            # a handler that closes the client goes on
            if worker is not asyncio.current_task():
                worker.cancel()
        if self.state is not State.IDLE:
            self._become(State.CLOSED)

    def _become(self, state: State) -> None:
        if state is not self.state:
            # what waits for a connection goes on before any task that a watcher of the state wakes
            self._changed.fire()
        super()._become(state)

    async def _run_and_save(self) -> None:
        saving = asyncio.create_task(self._save())
        try:
            await self._run()
        finally:
            saving.cancel()

    async def _save(self) -> None:
        while self._keeper is not None:
            await asyncio.sleep(SAVE_SECONDS)
            self._save_position()

    async def _run(self) -> None:
        while True:
            self._become(State.CONNECTING)
            error: DCMError | None = None
            code: int | None = None
            reason = ""
            self.last_error = None
            try:
                async with connect(self.url, **self._options) as socket:
                    connection = Connection(socket, self._core, room=self._reading, complain=self._complain)
                    try:
                        error = await connection.run(self._greet_and_settle())
                    except asyncio.CancelledError:
                        # the package websockets would report an internal error (1011) to the server
                        await socket.close()
                        raise
                code, reason = socket.close_code, socket.close_reason or ""
            except (OSError, TimeoutError, WebSocketException) as failed:
                self.last_error = failed
                reason = reason_of(failed, proxied=is_proxied(self.url))
            except Exception as failed:
                self._report("the client failed; it will connect again")
                reason = type(failed).__name__
            verdict = self._ended(code, reason, error)
            if verdict.delay is None:
                self._become(State.CLOSED)
                return
            self._become(State.WAITING)
            await asyncio.sleep(verdict.delay)

    async def _greet_and_settle(self) -> None:
        await self._converse(self._perform)
        self._become(State.CONNECTED)
        await asyncio.sleep(STABLE)
        self._core.backoff.reset()

    async def _perform(self, request: Request) -> object:
        match request:
            case Greeting():
                await self._greeting()
            case GetToken():
                return await self._get_token()
            case Ask(message):
                return await self._request(message)
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Together(parts):
                tasks = [asyncio.create_task(drive(part, self._perform)) for part in parts]
                try:
                    await asyncio.gather(*tasks)
                finally:
                    # after one has failed the others go on, and would do so on the next connection
                    for task in tasks:
                        task.cancel()
        return None

    # requests

    async def subscribe(self, channel: str) -> None:
        """
        Subscribe: now if connected, and after each reconnection.

        @raise RefusedError: the server does not allow it.
        """
        await self._subscribe(channel)

    async def unsubscribe(self, channel: str) -> None:
        """
        Unsubscribe from a channel.  The server does not restore the subscription either.
        """
        await self._unsubscribe(channel)

    async def publish(self, channel: str, event: str, data: object = None, *, key: str | None = None) -> Published:
        """
        Publish an event.

        @param key: 1 to 128 characters.  Of all calls of an agent with the same key within 10 minutes, only the first
            publishes an event, so a call that failed without an answer can be repeated.
        @return: the event's id, with its position and whether it had been published before.
        @raise RefusedError: the server's reason, in a class for each code.
        @raise RequestTimeoutError: the event may have been published.
        @raise NotConnectedError: there is no connection; or it ended before the answer, and the event may have been
            published.
        @raise TypeError: JSON cannot represent C{data}.
        @raise ValueError: a number in C{data} is not finite.
        """
        return await self._publish(channel, event, data, key)

    async def ping(self) -> float:
        """
        The round-trip time in seconds.
        """
        return await self._ping()

    # events

    def on(self, pattern: str, handler: Handler, *, channel: str | None = None) -> Callable[[], None]:
        """
        Call C{handler} with each event whose name matches C{pattern} (C{*} matches anything), one after the other.
        An event is acknowledged when all handlers that wanted it are done.  If one raises, the event is not
        acknowledged, and comes again.

        @param handler: a function, or a coroutine function.
        @param channel: a pattern of channel names; without it each event comes once, on any channel.
        @return: a function that stops it.
        """
        worker: asyncio.Task[None] | None = None

        def arrived() -> None:
            nonlocal worker
            if len(queue) and (worker is None or worker.done()):
                worker = asyncio.create_task(self._handle(queue, handler, _is_fatal))
                # the event loop has only a weak reference to it
                self._workers.add(worker)
                worker.add_done_callback(self._workers.discard)

        queue: Queue[Event] = Queue(self._core.events, pattern, channel, arrived)
        return queue.end

    # the event loop

    def _check_loop(self) -> None:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        if task is None:
            raise RuntimeError(self._hint)

    def _new_signal(self) -> _Signal:
        return _Signal()

    def _promise(self) -> tuple[asyncio.Future[dict[str, Any]], Reply]:
        self._check_loop()
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        def reply(result: dict[str, Any] | DCMError) -> None:
            if answer.done():
                return
            if isinstance(result, DCMError):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        return answer, reply

    async def _in_time(self, value: Awaitable[_T]) -> _T:
        async with asyncio.timeout(self._timeout):
            return await value

    def _room(self) -> None:
        self._reading.set()

    def _warn(self, text: str) -> None:
        _log.warning("%s: %s", self.url, text)

    def _debug(self, text: str) -> None:
        _log.debug("%s: %s", self.url, text)

    def _report(self, text: str) -> None:
        _log.exception("%s: %s", self.url, text)


class _Signal:
    """
    Wakes the tasks that wait for it.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()

    async def wait(self) -> None:
        self._event.clear()
        await self._event.wait()

    def fire(self) -> None:
        self._event.set()


def _is_fatal(error: BaseException) -> bool:
    """
    Whether an exception of a handler ends the task that calls it: one that cancels that task, and not one of something
    that the handler waited for.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return not isinstance(error, Exception)
