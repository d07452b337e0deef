"""
The client for Twisted, on Autobahn and C{ClientService}.

    client = DCMClient("ws://127.0.0.1:3849/ws", channels=["global"])
    client.on("task.*", lambda event: print(event.event, event.data))
    client.setServiceParent(application)
"""

from __future__ import annotations

import random
import re
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.application.internet import ClientService
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, fail, maybeDeferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from dcm_ws.client.base import Client
from dcm_ws.client.core import ALIVE, QUEUE_MAX, SILENCE, STABLE, ClientCore, State, Verdict
from dcm_ws.client.errors import ClosedError, DCMError, RefusedError, RequestTimeoutError, TokenFailedError
from dcm_ws.client.events import Event, Inbox, Queue
from dcm_ws.client.reasons import REFUSED
from dcm_ws.client.subscriptions import Subscriptions
from dcm_ws.client.urls import as_observer, place_of

Token = str | Callable[[], "str | Awaitable[str]"]
_T = TypeVar("_T")

# Autobahn's words around the reason
_UNCLEAN = re.compile(r'connection was closed uncleanly \("(.*)"\)', re.DOTALL)

_CLOSE_GRACE = 1.0
"""
Seconds that the server has to end a connection that the client has closed.
"""


class _Connection(WebSocketClientProtocol):
    client: DCMClient

    def onOpen(self) -> None:
        self.client._opened(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.client._received(self, payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.client._closed(self, code, _UNCLEAN.sub(r"\1", reason or ""))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)


@implementer(IStreamClientEndpoint)
class _Told:
    """
    An endpoint that tells why it did not connect.
    """

    def __init__(self, endpoint: Any, told: Callable[[str], object]) -> None:
        self._endpoint = endpoint
        self._told = told

    def connect(self, factory: Any) -> Deferred[Any]:
        def note(failure: Failure) -> Failure:
            if not failure.check(CancelledError):
                refused = failure.check(ConnectionRefusedError)
                self._told(REFUSED if refused else failure.getErrorMessage().rstrip("."))
            return failure

        connecting: Deferred[Any] = maybeDeferred(self._endpoint.connect, factory)
        return connecting.addErrback(note)


class DCMClient(Client, Service):
    """
    A connection that is restored whenever it is lost, until the service is stopped.

    @param url: C{ws://} or C{wss://}.
    @param token: or what gets one, which is asked for each connection; it may answer with a Deferred.
    @param agent_id: who to be without a token, which only development allows.
    @param channels: subscribed to now and after each reconnection.
    @param timeout: seconds that an answer, or a connection, may take.
    @param queue_max: events that wait for their listeners; beyond that nothing is read, and the server waits, except
        while an answer is awaited.
    @param observer: receive events without acknowledging them, and without being the agent's presence.
    @param tls: what C{optionsForClientTLS} makes for C{wss}; by default the system's certificates are trusted, and the
        server's must be for the host in the URL.
    @param reactor: the global one where it is None.
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
        observer: bool = False,
        tls: Any = None,
        reactor: Any = None,
    ) -> None:
        secure, host, port = place_of(url, tls=tls is not None)
        if reactor is None:
            from twisted.internet import reactor
        super().__init__(
            ClientCore(
                agent_id=agent_id,
                session_id=session_id,
                channels=channels,
                fresh_tokens=callable(token),
                queue_max=queue_max,
                random=random.random,
                room=self._read_or_not,
                wall_ms=lambda: time.time_ns() // 1_000_000,
                observer=observer,
            )
        )
        self.url = as_observer(url) if observer else url
        self._reactor: Any = reactor
        self._token = token
        self._timeout = timeout
        endpoint: Any = HostnameEndpoint(reactor, host, port, timeout=timeout)
        if secure:
            endpoint = wrapClientTLS(tls or optionsForClientTLS(host), endpoint)
        self._endpoint = _Told(endpoint, self._unreachable)
        self._connection: _Connection | None = None
        self._connections: ClientService | None = None
        self._verdict = Verdict(0.0)
        self._waiters: list[Deferred[DCMClient]] = []
        self._error: ClosedError | None = None
        self._problem: DCMError | None = None
        self._timers: list[Any] = []
        self._heard_at = 0.0
        self._paused = False
        self._streams: weakref.WeakSet[Events] = weakref.WeakSet()

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
        connection, self._connection = self._connection, None
        self._error = error
        self._forget_timers()
        patience: IDelayedCall | None = None
        if connection is not None:
            # requests that still wait for an answer fail
            self._core.lost(None, "closed")
            transport: Any = connection.transport
            if self._paused:
                # under TLS the end is something to be read, too
                transport.resumeProducing()
            connection.sendClose(connection.CLOSE_STATUS_CODE_NORMAL)
            patience = self._reactor.callLater(_CLOSE_GRACE, connection.dropConnection, abort=True)
        self._paused = False
        stopped: Deferred[None] = succeed(None) if connections is None else maybeDeferred(connections.stopService)
        self._become(State.CLOSED)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.errback(error)

        def forget(result: Any) -> Any:
            if patience is not None and patience.active():
                patience.cancel()
            return result

        return stopped.addBoth(forget)

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

    def _become(self, state: State) -> None:
        super()._become(state)
        if state is State.CLOSED:
            for stream in list(self._streams):
                stream._wake()

    def _warn(self, text: str) -> None:
        self._log.warn("{url}: {text}", url=self.url, text=text)

    def _debug(self, text: str) -> None:
        self._log.debug("{url}: {text}", url=self.url, text=text)

    def _report(self, text: str) -> None:
        self._log.failure("{url}: {text}", url=self.url, text=text)

    def _unreachable(self, reason: str) -> None:
        self.last_close = (None, reason)

    def _delay(self, attempt: int) -> float:
        """
        Seconds until the next attempt, for C{ClientService}.
        """
        if self._connection is None and self.state is State.CONNECTING:
            # there was no connection at all
            self._verdict = self._core.lost(None, self.last_close[1] if self.last_close else "")
        delay = self._verdict.delay or 0.0
        self._lost(self._core.ended, delay, self._reactor.seconds())
        # ClientService tells nobody when it tries
        self._timers.append(self._reactor.callLater(delay, self._become, State.CONNECTING))
        self._become(State.WAITING)
        return delay

    def _opened(self, connection: _Connection) -> None:
        self._connection = connection
        self._problem = None
        self._heard_at = self._reactor.seconds()
        self._core.opened(lambda text: connection.sendMessage(text.encode()))
        self._timers = [
            self._reactor.callLater(self._timeout, self._drop, RequestTimeoutError("the server does not greet")),
        ]

    def _received(self, connection: _Connection, payload: bytes) -> None:
        if connection is not self._connection:
            return
        self._heard_at = self._reactor.seconds()
        said = self._core.received(payload)
        if said is True:
            self._forget_timers()
            Deferred.fromCoroutine(self._greeted(connection)).addErrback(self._not_greeted, connection)
        elif isinstance(said, DCMError):
            self._complain(said)
        self._read_or_not()

    async def _greeted(self, connection: _Connection) -> None:
        message = self._core.auth(await self._get_token())
        if connection is not self._connection:
            return
        if message is not None:
            await self._request(message)
        await self._settle(connection)
        if connection is self._connection:
            self._core.subscriptions.end()
            self._timers = [
                self._reactor.callLater(STABLE, self._core.stable),
                self._reactor.callLater(ALIVE, self._check_life),
            ]
            self._become(State.CONNECTED)
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.callback(self)

    def _not_greeted(self, failure: Failure, connection: _Connection) -> None:
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
            if not hasattr(token, "__await__"):
                return str(token)
            clock: IReactorTime = self._reactor
            return str(await Deferred.fromCoroutine(_awaited(token)).addTimeout(self._timeout, clock))
        except TimeoutError:
            raise TokenFailedError(f"there is no token: none came in {self._timeout:g} s") from None
        except Exception as error:
            raise TokenFailedError(f"there is no token: {error}") from error

    async def _settle(self, connection: _Connection) -> None:
        """
        Subscribe to what is wanted, some at a time: very many at once would be over the server's rate limit.
        """
        subscriptions = self._core.subscriptions
        subscriptions.begin()
        # the user may want something else meanwhile
        while connection is self._connection and subscriptions.unsettled:
            numbers = range(subscriptions.settlers)
            workers = [Deferred.fromCoroutine(self._settle_some(connection, subscriptions, n)) for n in numbers]
            results: Any = await DeferredList(workers, consumeErrors=True)
            for well, result in results:
                if not well:
                    raise result.value

    async def _settle_some(self, connection: _Connection, subscriptions: Subscriptions, number: int) -> None:
        while connection is self._connection and number < subscriptions.settlers:
            if subscriptions.pause:
                await deferLater(self._reactor, subscriptions.pause)
            message = subscriptions.next_message() if connection is self._connection else None
            if message is None:
                return
            try:
                await self._request(message)
            except RefusedError as error:
                if not subscriptions.refused(message, error):
                    self._complain(error)

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
            if self._connections is not None:
                # it has never opened
                self._unreachable(reason)
            return
        self._connection = None
        self._paused = False
        self._forget_timers()
        self.last_close = (code, str(self._problem or reason))
        self._verdict = self._core.lost(code, reason, self._problem)
        if self._verdict.error is not None:
            self._lost(self._core.ended, None, self._reactor.seconds())
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
        try:
            name = self._core.request(message, _settler(answer))
        except (TypeError, ValueError):
            return fail()
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
        self._core.subscriptions.wants(channel, True)
        return self._ask_now({"type": "subscribe", "channel": channel})

    def unsubscribe(self, channel: str) -> Deferred[None]:
        """
        Leave a channel, which an agent is not given back either.
        """
        self._core.subscriptions.wants(channel, False)
        return self._ask_now({"type": "unsubscribe", "channel": channel})

    def _ask_now(self, message: dict[str, Any]) -> Deferred[None]:
        if self.state is not State.CONNECTED:
            return succeed(None)
        return self._request(message).addCallback(lambda _: None)

    def publish(self, channel: str, event: str, data: object = None) -> Deferred[str]:
        """
        Publish an event; fires with its id.  Fails with a L{RefusedError} in a class for each code of the server, with
        L{RequestTimeoutError}, or with L{NotConnectedError}; after the last two it may have been published.  Fails with
        C{TypeError} or C{ValueError} where C{data} cannot be said in JSON.
        """
        message = {"type": "publish", "channel": channel, "event": event, "data": data}
        return self._request(message).addCallback(lambda answer: str(answer["message_id"]))

    def ping(self) -> Deferred[float]:
        """
        Fires with the seconds there and back.
        """
        answer: Deferred[dict[str, Any]] = Deferred()
        began = self._reactor.seconds()
        name = self._core.ping(_settler(answer))
        self._read_or_not()
        timed = self._in_time(answer, "a ping", lambda: self._core.give_up(name))
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
        busy = False

        def arrived() -> None:
            nonlocal busy
            if len(queue) and not busy:
                busy = True
                Deferred.fromCoroutine(self._work(queue, handler)).addBoth(ended)

        def ended(result: object) -> None:
            nonlocal busy
            busy = False

        queue = Queue(self._core.events, pattern, channel, arrived)
        return queue.end

    async def _work(self, queue: Queue, handler: Callable[[Event], object]) -> None:
        while (taken := queue.take()) is not None:
            event, done = taken
            well = False
            try:
                result: Any = handler(event)
                if hasattr(result, "__await__"):
                    await result
                well = True
            except GeneratorExit:
                raise
            except BaseException:
                # a Deferred keeps whatever it is, and so it would be the end of this alone
                self._report(f"a handler of {event.event} failed; the event is not acknowledged")
            finally:
                done(well)

    def events(self, pattern: str = "*", *, channel: str | None = None) -> Events:
        """
        The events from now on, for C{async for}.  Each is acknowledged when the next one is asked for.  Ends when the
        client is closed.
        """
        return Events(self, pattern, channel)

    def _read_or_not(self) -> None:
        """
        Stop reading while too much waits, unless an answer may be what it waits for.
        """
        full = self._core.full
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
    An asynchronous iterator over events.  It takes them until it is closed, or nobody has it any more.
    """

    def __init__(self, client: DCMClient, pattern: str, channel: str | None) -> None:
        self._client = client
        self._asked: list[Deferred[None]] = []
        # nothing in it is of this object, which it would keep
        self._inbox = Inbox(client._core.events, pattern, channel, partial(_fire, self._asked))
        client._streams.add(self)
        weakref.finalize(self, self._inbox.end).atexit = False

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Event:
        while (event := self._inbox.next()) is None:
            if self._inbox.ended or self._client.state is State.CLOSED:
                self._inbox.end()
                raise StopAsyncIteration
            asked: Deferred[None] = Deferred()
            self._asked.append(asked)
            await asked
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
        self._inbox.end()

    def _wake(self) -> None:
        _fire(self._asked)


def _fire(asked: list[Deferred[None]]) -> None:
    while asked:
        asked.pop().callback(None)


async def _awaited(value: Awaitable[_T]) -> _T:
    return await value


def _settler(answer: Deferred[dict[str, Any]]) -> Callable[[dict[str, Any] | DCMError], None]:
    def settle(result: dict[str, Any] | DCMError) -> None:
        if answer.called:
            return
        if isinstance(result, DCMError):
            answer.errback(result)
        else:
            answer.callback(result)

    return settle
