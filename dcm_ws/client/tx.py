"""
The client for Twisted, on Autobahn and C{ClientService}.

    client = DCMClient("ws://127.0.0.1:3849/ws", channels=["global"])
    client.on("task.*", lambda event: print(event.event, event.data))
    client.setServiceParent(application)
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.application.internet import ClientService
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, fail, maybeDeferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcm_ws.client.core import (
    ALIVE,
    AT_ONCE,
    SILENCE,
    ClientCore,
    ClosedError,
    DCMError,
    Event,
    Listener,
    RateLimitedError,
    RefusedError,
    RequestTimeoutError,
    State,
    TokenFailedError,
    Verdict,
)

Token = str | Callable[[], "str | Awaitable[str]"]

QUEUE_MAX = 1000
"""
Events that wait for their listeners; while there are more, nothing is read, and the server waits.
"""

_STABLE = 10.0


class _Connection(WebSocketClientProtocol):  # type: ignore[misc]
    client: DCMClient

    def onOpen(self) -> None:
        self.client._opened(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.client._received(payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.client._closed(self, code, reason or "")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)


class DCMClient(Service):  # type: ignore[misc]
    """
    A connection that is made again, for ever, until the service is stopped.

    @param url: C{ws://} or C{wss://}.
    @param token: or what gets one, which is asked for each connection; it may answer with a Deferred.
    @param agent_id: who to be without a token, which only development allows.
    @param channels: subscribed to now and after each reconnection.
    @param timeout: seconds that an answer, or a connection, may take.
    @param queue_max: events that wait for their listeners; beyond that nothing is read, and the server waits, except
        while an answer is awaited.
    @param tls: what C{optionsForClientTLS} makes for C{wss}; by default the system's certificates are trusted, and the
        server's must be for the host in the URL.
    @param reactor: the global one where it is None.

    @ivar state: what it is doing.
    @ivar last_close: the code and the reason of the last close.
    """

    _log = Logger()

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
        tls: Any = None,
        reactor: Any = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError(f"not the address of a WebSocket: {url!r}; use ws:// or wss://")
        if reactor is None:
            from twisted.internet import reactor
        self.url = url
        self.state = State.IDLE
        self.last_close: tuple[int | None, str] | None = None
        self._reactor: Any = reactor
        self._token = token
        self._timeout = timeout
        self._queue_max = queue_max
        self._core = ClientCore(
            agent_id=agent_id,
            session_id=session_id,
            channels=channels,
            fresh_tokens=callable(token),
            random=random.random,
        )
        self._endpoint: Any = HostnameEndpoint(
            reactor, parts.hostname, parts.port or (443 if parts.scheme == "wss" else 80)
        )
        if parts.scheme == "wss":
            self._endpoint = wrapClientTLS(tls or optionsForClientTLS(parts.hostname), self._endpoint)
        self._connection: _Connection | None = None
        self._connections: ClientService | None = None
        self._verdict = Verdict(0.0)
        self._watchers: list[Callable[[State], object]] = []
        self._waiters: list[Deferred[DCMClient]] = []
        self._error: ClosedError | None = None
        self._problem: DCMError | None = None
        self._timers: list[Any] = []
        self._heard_at = 0.0
        self._waiting = 0
        self._paused = False

    # connecting

    def startService(self) -> None:
        """
        Connect, and stay connected.
        """
        super().startService()
        self._error = None
        factory: Any = WebSocketClientFactory(self.url, reactor=self._reactor)
        factory.setProtocolOptions(openHandshakeTimeout=self._timeout, closeHandshakeTimeout=1)
        factory.noisy = False
        factory.protocol = type("_Connection", (_Connection,), {"client": self})
        self._connections = ClientService(self._endpoint, factory, retryPolicy=self._delay, clock=self._reactor)
        self._become(State.CONNECTING)
        self._connections.startService()

    def stopService(self) -> Deferred[None]:
        """
        End the connection, for good or until the service is started again.
        """
        super().stopService()
        return self._leave(ClosedError("the client is closed"))

    def _leave(self, error: ClosedError) -> Deferred[None]:
        connections, self._connections = self._connections, None
        self._error = error
        stopped: Deferred[None] = succeed(None) if connections is None else maybeDeferred(connections.stopService)
        self._become(State.CLOSED)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.errback(error)
        return stopped

    def when_connected(self) -> Deferred[DCMClient]:
        """
        Fires with the client once there is a connection; fails with L{ClosedError} where there will be none.
        """
        if self.state is State.CONNECTED:
            return succeed(self)
        if self.state is State.CLOSED and self._error is not None:
            return fail(self._error)
        waiter: Deferred[DCMClient] = Deferred()
        self._waiters.append(waiter)
        return waiter

    def on_state(self, watcher: Callable[[State], object]) -> Callable[[], None]:
        """
        Call C{watcher} with each new state; answers what ends that.
        """
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    @property
    def agent_id(self) -> str | None:
        """
        Who the server takes it for.
        """
        return self._core.agent_id

    @property
    def channels(self) -> list[str]:
        """
        What it is, or will be, subscribed to.
        """
        return list(self._core.channels)

    def _become(self, state: State) -> None:
        if state is self.state:
            return
        self.state = state
        for watcher in list(self._watchers):
            watcher(state)

    def _delay(self, attempt: int) -> float:
        """
        Seconds until the next attempt, for C{ClientService}.
        """
        if self._connection is None and self.state is State.CONNECTING:
            # there was no connection at all
            self._verdict = self._core.lost(None, "there was no connection")
        self._become(State.WAITING)
        # ClientService tells nobody when it tries
        delay = self._verdict.delay or 0.0
        self._reactor.callLater(delay, self._try)
        return delay

    def _try(self) -> None:
        if self.state is State.WAITING:
            self._become(State.CONNECTING)

    def _opened(self, connection: _Connection) -> None:
        self._connection = connection
        self._problem = None
        self._heard_at = self._reactor.seconds()
        self._core.opened(lambda text: connection.sendMessage(text.encode()))
        self._timers = [
            self._reactor.callLater(self._timeout, self._drop, RequestTimeoutError("the server does not greet")),
        ]

    def _received(self, payload: bytes) -> None:
        self._heard_at = self._reactor.seconds()
        said = self._core.received(payload)
        if said is True:
            self._forget_timers()
            connection = self._connection
            Deferred.fromCoroutine(self._greeted(connection)).addErrback(self._not_greeted, connection)
        elif isinstance(said, DCMError):
            self._log.warn("the server says: {error}", error=str(said))
        self._read_or_not()

    async def _greeted(self, connection: _Connection | None) -> None:
        message = self._core.auth(await self._get_token())
        if connection is not self._connection:
            return
        if message is not None:
            await self._request(message)
        await self._settle(connection)
        if connection is self._connection:
            self._core.settled()
            self._timers = [
                self._reactor.callLater(_STABLE, self._core.stable),
                self._reactor.callLater(ALIVE, self._check_life),
            ]
            self._become(State.CONNECTED)
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.callback(self)

    def _not_greeted(self, failure: Failure, connection: _Connection | None) -> None:
        if connection is not self._connection:
            # it has ended meanwhile, and there may be another
            return
        error = failure.value if isinstance(failure.value, DCMError) else DCMError(str(failure.value))
        if not failure.check(DCMError):
            self._log.failure("the client broke", failure)
        self._drop(error)

    async def _get_token(self) -> str | None:
        if not callable(self._token):
            return self._token
        try:
            token: Any = self._token()
            return str(await token if hasattr(token, "__await__") else token)
        except Exception as error:
            raise TokenFailedError(f"there is no token: {error}") from error

    async def _settle(self, connection: _Connection | None) -> None:
        """
        Subscribe to what is wanted, some at a time: very many at once would be over the server's rate limit.
        """
        self._core.begin_settling()
        # the user may want something else meanwhile
        while connection is self._connection and self._core.unsettled:
            workers = [Deferred.fromCoroutine(self._settle_some(connection)) for _ in range(AT_ONCE)]
            results: Any = await DeferredList(workers, consumeErrors=True)
            for well, result in results:
                if not well:
                    raise result.value

    async def _settle_some(self, connection: _Connection | None) -> None:
        while connection is self._connection and (message := self._core.next_to_settle()):
            try:
                await self._request(message)
            except RateLimitedError as error:
                self._core.not_settled(message, again=True)
                await deferLater(self._reactor, AT_ONCE * (error.retry_after or 0.01))
            except RefusedError as error:
                self._core.not_settled(message, again=False)
                self._log.warn("{type} {channel}: {error}", **message, error=str(error))

    def _check_life(self) -> None:
        now = self._reactor.seconds()
        if self._paused:
            # nothing can be heard
            self._heard_at = now
            self._core.alive()
        if now - self._heard_at >= SILENCE:
            self._drop(DCMError("nothing was heard for too long"))
        else:
            self._timers.append(self._reactor.callLater(ALIVE, self._check_life))

    def _drop(self, error: DCMError) -> None:
        self._problem = error
        if self._connection is not None:
            self._connection.dropConnection(abort=True)

    def _closed(self, connection: _Connection, code: int | None, reason: str) -> None:
        if connection is not self._connection:
            return
        self._connection = None
        self._paused = False
        self._forget_timers()
        self.last_close = (code, reason)
        self._verdict = self._core.lost(code, reason, self._problem)
        if self._verdict.error is not None:
            self._leave(self._verdict.error)
        elif self.state is not State.CLOSED:
            self._become(State.WAITING)

    def _forget_timers(self) -> None:
        timers, self._timers = self._timers, []
        for timer in timers:
            if timer.active():
                timer.cancel()

    # asking

    def _request(self, message: dict[str, Any]) -> Deferred[dict[str, Any]]:
        answer: Deferred[dict[str, Any]] = Deferred()
        name = self._core.request(message, _settler(answer))
        self._read_or_not()
        return self._in_time(answer, str(message["type"]), lambda: self._core.give_up(name))

    def _in_time(
        self, answer: Deferred[dict[str, Any]], what: str, give_up: Callable[[], object]
    ) -> Deferred[dict[str, Any]]:
        def late(result: object, seconds: float) -> Any:
            give_up()
            return Failure(RequestTimeoutError(f"no answer to {what} in {seconds:g} s"))

        clock: IReactorTime = self._reactor
        return answer.addTimeout(self._timeout, clock, onTimeoutCancel=late)

    def subscribe(self, channel: str) -> Deferred[None]:
        """
        Subscribe: now if connected, and after each reconnection.  Fails with L{RefusedError} where the server does not
        allow it.
        """
        self._core.wants(channel, True)
        return self._ask_now({"type": "subscribe", "channel": channel})

    def unsubscribe(self, channel: str) -> Deferred[None]:
        """
        Leave a channel, which an agent is not given back either.
        """
        self._core.wants(channel, False)
        return self._ask_now({"type": "unsubscribe", "channel": channel})

    def _ask_now(self, message: dict[str, Any]) -> Deferred[None]:
        if self.state is not State.CONNECTED:
            return succeed(None)
        return self._request(message).addCallback(lambda _: None)

    def publish(self, channel: str, event: str, data: object = None) -> Deferred[str]:
        """
        Publish an event; fires with its id.  Fails with a L{RefusedError} in a class for each code of the server, with
        L{RequestTimeoutError}, or with L{NotConnectedError}; after the last two it may have been published.
        """
        message = {"type": "publish", "channel": channel, "event": event, "data": data}
        return self._request(message).addCallback(lambda answer: str(answer["message_id"]))

    def ping(self) -> Deferred[float]:
        """
        Fires with the seconds there and back.
        """
        answer: Deferred[dict[str, Any]] = Deferred()
        began = self._reactor.seconds()
        self._core.ping(_settler(answer))
        self._read_or_not()
        timed = self._in_time(answer, "a ping", lambda: None)
        return timed.addCallback(lambda _: float(self._reactor.seconds() - began))

    # events

    def on(self, pattern: str, handler: Callable[[Event], object], *, channel: str | None = None) -> Callable[[], None]:
        """
        Call C{handler} with each event whose name fits C{pattern} (C{*} stands for anything), one after the other.  An
        event is acknowledged when all who wanted it are done; where one failed, it is not, and comes again.

        @param handler: may answer with a Deferred, or be a coroutine function.
        @param channel: only those of such channels; without it each event comes once, on whatever channel.
        @return: what ends it.
        """
        queue: deque[tuple[Event, Callable[[bool], None]]] = deque()
        busy = False

        def take(event: Event, dealt_with: Callable[[bool], None]) -> None:
            self._waiting += 1
            queue.append((event, dealt_with))
            if not busy:
                Deferred.fromCoroutine(work())

        async def work() -> None:
            nonlocal busy
            busy = True
            while queue:
                event, dealt_with = queue.popleft()
                well = False
                try:
                    result = handler(event)
                    if hasattr(result, "__await__"):
                        await result
                    well = True
                except Exception:
                    self._log.failure("a handler of {event} failed; it is not acknowledged", event=event.event)
                self._one_less()
                dealt_with(well)
            busy = False

        listener = Listener(pattern, channel, take)
        self._core.listeners[listener] = None

        def end() -> None:
            self._core.listeners.pop(listener, None)
            while queue:
                self._one_less()
                queue.popleft()[1](False)

        return end

    def events(self, pattern: str = "*", *, channel: str | None = None) -> Events:
        """
        The events from now on, for C{async for}.  Each is acknowledged when the next one is asked for.  Ends when the
        client is closed.
        """
        return Events(self, pattern, channel)

    def _one_less(self) -> None:
        self._waiting -= 1
        self._read_or_not()

    def _read_or_not(self) -> None:
        """
        Stop reading while too much waits, unless an answer may be what it waits for.
        """
        full = self._core.full(self._waiting, self._queue_max)
        if self._connection is None or full == self._paused:
            return
        self._paused = full
        transport: Any = self._connection.transport
        if full:
            transport.pauseProducing()
        else:
            transport.resumeProducing()


class Events:
    """
    An asynchronous iterator over events; also to be closed with C{aclose}.
    """

    def __init__(self, client: DCMClient, pattern: str, channel: str | None) -> None:
        self._client = client
        self._inbox: deque[tuple[Event, Callable[[bool], None]]] = deque()
        self._asked: Deferred[None] | None = None
        self._taken: Callable[[bool], None] | None = None
        self._listener = Listener(pattern, channel, self._take)
        client._core.listeners[self._listener] = None
        self._end = client.on_state(lambda state: self._wake())

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Event:
        self._finish(True)
        while not self._inbox:
            if self._client.state is State.CLOSED:
                self.close()
                raise StopAsyncIteration
            self._asked = Deferred()
            await self._asked
        event, self._taken = self._inbox.popleft()
        return event

    async def aclose(self) -> None:
        """
        No more; the last event that was taken is not acknowledged.
        """
        self.close()

    def close(self) -> None:
        """
        No more; the last event that was taken is not acknowledged.
        """
        if self._client._core.listeners.pop(self._listener, self) is self:
            return
        self._end()
        self._finish(False)
        while self._inbox:
            self._client._one_less()
            self._inbox.popleft()[1](False)

    def _take(self, event: Event, dealt_with: Callable[[bool], None]) -> None:
        self._client._waiting += 1
        self._inbox.append((event, dealt_with))
        self._wake()

    def _finish(self, well: bool) -> None:
        taken, self._taken = self._taken, None
        if taken is not None:
            self._client._one_less()
            taken(well)

    def _wake(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.callback(None)


def _settler(answer: Deferred[dict[str, Any]]) -> Callable[[dict[str, Any] | DCMError], None]:
    def settle(result: dict[str, Any] | DCMError) -> None:
        if answer.called:
            return
        if isinstance(result, DCMError):
            answer.errback(result)
        else:
            answer.callback(result)

    return settle
