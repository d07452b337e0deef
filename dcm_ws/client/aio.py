"""
The client for asyncio, on the package C{websockets}.

    async with DCMClient("ws://127.0.0.1:3849/ws", channels=["global"]) as client:
        async for event in client.events("task.*"):
            print(event.event, event.data)
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import ssl
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from dcm_ws.client.base import Client
from dcm_ws.client.core import ALIVE, QUEUE_MAX, SILENCE, STABLE, ClientCore, State
from dcm_ws.client.errors import ClosedError, DCMError, RefusedError, RequestTimeoutError, TokenFailedError
from dcm_ws.client.events import Event, Inbox, Queue
from dcm_ws.client.reasons import reason_of
from dcm_ws.client.subscriptions import Subscriptions
from dcm_ws.client.urls import as_observer, is_loopback, is_proxied, place_of

Token = str | Callable[[], str | Awaitable[str]]
Handler = Callable[[Event], object]

_MESSAGE_MAX = 16 << 20

_log = logging.getLogger(__name__)


class DCMClient(Client):
    """
    A connection that is restored whenever it is lost, until the client is closed.

    @param url: C{ws://} or C{wss://}.
    @param token: or what gets one, which is asked for each connection.
    @param agent_id: who to be without a token, which only development allows.
    @param channels: subscribed to now and after each reconnection.
    @param timeout: seconds that an answer, or a connection, may take.
    @param queue_max: events that wait for their listeners; beyond that nothing is read, and the server waits, except
        while an answer is awaited.
    @param observer: receive events without acknowledging them, and without being the agent's presence.
    @param tls: for C{wss}; the system's certificates are trusted where it is None.

    @ivar retry_at: when it tries again (seconds since the epoch), while it is C{waiting}.
    """

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
        tls: ssl.SSLContext | None = None,
    ) -> None:
        _, host, _ = place_of(url, tls=tls is not None)
        super().__init__(
            ClientCore(
                agent_id=agent_id,
                session_id=session_id,
                channels=channels,
                fresh_tokens=callable(token),
                queue_max=queue_max,
                random=random.random,
                room=lambda: self._room.set(),
                wall_ms=lambda: time.time_ns() // 1_000_000,
                observer=observer,
            )
        )
        self.url = as_observer(url) if observer else url
        self.retry_at: float | None = None
        self._token = token
        self._timeout = timeout
        self._options: dict[str, Any] = {
            "open_timeout": timeout,
            "close_timeout": 1,
            "max_size": _MESSAGE_MAX,
            # the server pings
            "ping_interval": None,
        }
        if is_loopback(host):
            # a proxy in the environment cannot reach it
            self._options["proxy"] = None
        if tls is not None:
            self._options["ssl"] = tls
        self._running: asyncio.Task[None] | None = None
        self._error: ClosedError | None = None
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._workers: set[asyncio.Task[None]] = set()
        self._streams: weakref.WeakSet[Events] = weakref.WeakSet()

    # connecting

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """
        Connect, and stay connected.  Returns at the first connection.

        @raise ClosedError: none is possible, since a token was refused.
        """
        if self._running is None or self._running.done():
            self._error = None
            self._become(State.CONNECTING)
            self._running = asyncio.create_task(self._run())
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
        while self.state is not State.CONNECTED:
            if self.state is State.CLOSED:
                raise self._error or ClosedError("the client is closed")
            await self._changed.wait()

    async def close(self) -> None:
        """
        End the connection, for good or until C{connect} is called again.
        """
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            # requests that still wait for an answer fail
            self._core.lost(None, "closed")
        for worker in list(self._workers):
            # a handler may close the client, and go on
            if worker is not asyncio.current_task():
                worker.cancel()
        if self.state is not State.IDLE:
            self._become(State.CLOSED)

    def _become(self, state: State) -> None:
        if state is not self.state:
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
        super()._become(state)
        if state is State.CLOSED:
            for stream in list(self._streams):
                stream._wake()

    def _warn(self, text: str) -> None:
        _log.warning("%s: %s", self.url, text)

    def _debug(self, text: str) -> None:
        _log.debug("%s: %s", self.url, text)

    def _report(self, text: str) -> None:
        _log.exception("%s: %s", self.url, text)

    async def _run(self) -> None:
        while True:
            self._become(State.CONNECTING)
            error: DCMError | None = None
            code: int | None = None
            reason = ""
            self.last_error = None
            try:
                async with connect(self.url, **self._options) as socket:
                    try:
                        error = await self._converse(socket)
                    except asyncio.CancelledError:
                        # by its user; the package websockets would call it an internal error (1011)
                        await socket.close()
                        raise
                code, reason = socket.close_code, socket.close_reason or ""
            except (OSError, TimeoutError, WebSocketException) as failed:
                self.last_error = failed
                reason = reason_of(failed, proxied=is_proxied(self.url))
            except Exception as failed:
                self._report("the client broke; it will connect again")
                reason = type(failed).__name__
            reason = reason or str(error or "")
            self.last_close = (code, reason)
            verdict = self._core.lost(code, reason, error)
            self._lost(self._core.ended, verdict.delay, time.monotonic())
            if verdict.delay is None:
                self._error = verdict.error
                self._become(State.CLOSED)
                return
            self.retry_at = time.time() + verdict.delay
            self._become(State.WAITING)
            await asyncio.sleep(verdict.delay)
            self.retry_at = None

    async def _converse(self, socket: ClientConnection) -> DCMError | None:
        """
        Talk until the connection ends; answers why this side ended it, if it did.
        """
        outgoing: asyncio.Queue[str] = asyncio.Queue()
        self._core.opened(outgoing.put_nowait)
        greeted = asyncio.Event()
        tasks = [
            asyncio.create_task(self._write(socket, outgoing)),
            asyncio.create_task(self._read(socket, greeted)),
            asyncio.create_task(self._greet(greeted)),
        ]
        stable = asyncio.get_running_loop().call_later(STABLE, self._core.stable)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done() and not task.cancelled():
                    problem = task.exception()
                    if isinstance(problem, DCMError):
                        return problem
                    if problem is not None and not isinstance(problem, ConnectionClosed):
                        raise problem
            return None
        finally:
            stable.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, socket: ClientConnection, outgoing: asyncio.Queue[str]) -> None:
        while True:
            await socket.send(await outgoing.get())

    async def _read(self, socket: ClientConnection, greeted: asyncio.Event) -> None:
        while True:
            # a greeting there must be, however much waits from the connection before
            if greeted.is_set() and self._core.full:
                await self._until_room(socket)
            try:
                # wait_for() may swallow a cancellation, before Python 3.12
                async with asyncio.timeout(SILENCE):
                    text = await socket.recv()
            except TimeoutError:
                raise DCMError("nothing was heard for too long") from None
            said = self._core.received(text)
            if said is True:
                greeted.set()
            elif isinstance(said, DCMError):
                self._complain(said)

    async def _until_room(self, socket: ClientConnection) -> None:
        """
        Wait until fewer events wait, or an answer is awaited, which may be what a listener waits for.
        """
        ended = asyncio.create_task(socket.wait_closed())
        try:
            while self._core.full and not ended.done():
                self._room.clear()
                room = asyncio.create_task(self._room.wait())
                done, _ = await asyncio.wait((ended, room), timeout=ALIVE, return_when=asyncio.FIRST_COMPLETED)
                room.cancel()
                if not done:
                    self._core.alive()
        finally:
            ended.cancel()

    async def _greet(self, greeted: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await greeted.wait()
        except TimeoutError:
            raise RequestTimeoutError("the server does not greet") from None
        message = self._core.auth(await self._get_token())
        if message is not None:
            await self._request(message)
        await self._settle()
        self._core.subscriptions.end()
        self._become(State.CONNECTED)

    async def _get_token(self) -> str | None:
        if not callable(self._token):
            return self._token
        try:
            token = self._token()
            if not inspect.isawaitable(token):
                return token
            async with asyncio.timeout(self._timeout):
                return await token
        except TimeoutError:
            raise TokenFailedError(f"there is no token: none came in {self._timeout:g} s") from None
        except Exception as error:
            raise TokenFailedError(f"there is no token: {error}") from error

    async def _settle(self) -> None:
        """
        Subscribe to what is wanted, some at a time: very many at once would be over the server's rate limit.
        """
        subscriptions = self._core.subscriptions
        subscriptions.begin()
        # the user may want something else meanwhile
        while subscriptions.unsettled:
            await asyncio.gather(
                *(self._settle_some(subscriptions, number) for number in range(subscriptions.settlers))
            )

    async def _settle_some(self, subscriptions: Subscriptions, number: int) -> None:
        while number < subscriptions.settlers:
            if subscriptions.pause:
                await asyncio.sleep(subscriptions.pause)
            message = subscriptions.next_message()
            if message is None:
                return
            try:
                await self._request(message)
            except RefusedError as error:
                if not subscriptions.refused(message, error):
                    self._complain(error)

    # asking

    async def _request(self, message: dict[str, Any]) -> dict[str, Any]:
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        name = self._core.request(message, _settler(answer))
        # reading may be waiting for room
        self._room.set()
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError:
            raise RequestTimeoutError(f"no answer to {message['type']} in {self._timeout:g} s") from None
        finally:
            self._core.give_up(name)

    async def subscribe(self, channel: str) -> None:
        """
        Subscribe: now if connected, and after each reconnection.

        @raise RefusedError: the server does not allow it.
        """
        self._core.subscriptions.wants(channel, True)
        if self.state is State.CONNECTED:
            await self._request({"type": "subscribe", "channel": channel})

    async def unsubscribe(self, channel: str) -> None:
        """
        Leave a channel, which an agent is not given back either.
        """
        self._core.subscriptions.wants(channel, False)
        if self.state is State.CONNECTED:
            await self._request({"type": "unsubscribe", "channel": channel})

    async def publish(self, channel: str, event: str, data: object = None) -> str:
        """
        Publish an event; answers its id.

        @raise RefusedError: the server's reason, in a class for each code.
        @raise RequestTimeoutError: it may have been published.
        @raise TypeError: C{data} is nothing that JSON has.
        @raise ValueError: a number in C{data} is not finite.
        @raise NotConnectedError: there is no connection; or it ended before the answer, and it may have been published.
        """
        answer = await self._request({"type": "publish", "channel": channel, "event": event, "data": data})
        return str(answer["message_id"])

    async def ping(self) -> float:
        """
        Seconds there and back.
        """
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        name = self._core.ping(_settler(answer))
        self._room.set()
        try:
            async with asyncio.timeout(self._timeout):
                await answer
        except TimeoutError:
            raise RequestTimeoutError(f"no answer to a ping in {self._timeout:g} s") from None
        finally:
            self._core.give_up(name)
        return time.monotonic() - began

    # events

    def on(self, pattern: str, handler: Handler, *, channel: str | None = None) -> Callable[[], None]:
        """
        Call C{handler} with each event whose name fits C{pattern} (C{*} stands for anything), one after the other.  An
        event is acknowledged when all who wanted it are done; where one raised, it is not, and comes again.

        @param handler: a function, or a coroutine function.
        @param channel: only those of such channels; without it each event comes once, on whatever channel.
        @return: what ends it.
        """
        worker: asyncio.Task[None] | None = None

        def arrived() -> None:
            nonlocal worker
            if len(queue) and (worker is None or worker.done()):
                worker = asyncio.create_task(self._work(queue, handler))
                # the loop itself does not keep it
                self._workers.add(worker)
                worker.add_done_callback(self._workers.discard)

        queue = Queue(self._core.events, pattern, channel, arrived)
        return queue.end

    async def _work(self, queue: Queue, handler: Handler) -> None:
        while (taken := queue.take()) is not None:
            event, done = taken
            well = False
            try:
                result = handler(event)
                if inspect.isawaitable(result):
                    await result
                well = True
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                # it was something that the handler waited for
                self._report(f"a handler of {event.event} was cancelled; the event is not acknowledged")
            except Exception:
                self._report(f"a handler of {event.event} failed; the event is not acknowledged")
            finally:
                done(well)

    def events(self, pattern: str = "*", *, channel: str | None = None) -> Events:
        """
        The events from now on, for C{async for}.  Each is acknowledged when the next one is asked for: one at which the
        loop ends, by an error or C{break}, is not.  Ends when the client is closed.
        """
        return Events(self, pattern, channel)


class Events:
    """
    An asynchronous iterator over events.  It takes them until it is closed with C{aclose}, or nobody has it any more.
    """

    def __init__(self, client: DCMClient, pattern: str, channel: str | None) -> None:
        self._client = client
        self._arrived = asyncio.Event()
        # nothing in it is of this object, which it would keep
        self._inbox = Inbox(client._core.events, pattern, channel, self._arrived.set)
        client._streams.add(self)
        weakref.finalize(self, self._inbox.end).atexit = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while (event := self._inbox.next()) is None:
            if self._inbox.ended or self._client.state is State.CLOSED:
                self._inbox.end()
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return event

    async def aclose(self) -> None:
        """
        No more; the last event that was taken is not acknowledged.
        """
        self._inbox.end()

    def _wake(self) -> None:
        self._arrived.set()


def _settler(answer: asyncio.Future[dict[str, Any]]) -> Callable[[dict[str, Any] | DCMError], None]:
    def settle(result: dict[str, Any] | DCMError) -> None:
        if answer.done():
            return
        if isinstance(result, DCMError):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    return settle
