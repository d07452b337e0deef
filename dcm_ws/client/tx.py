"""
The client for Twisted, on Autobahn and C{ClientService}::

    client = DCMClient("ws://127.0.0.1:3849/ws", channels=["global"])
    client.on("task.*", lambda event: print(event.event, event.data))
    client.setServiceParent(application)
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, NoReturn, TypeVar

from twisted.application.internet import ClientService
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, FirstError, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcm_ws.client.backoff import STABLE
from dcm_ws.client.base import Client, Handler, Since, Store, Token
from dcm_ws.client.conversation import Ask, GetToken, Greeting, Pause, Request, Together, drive
from dcm_ws.client.core import ALIVE, QUEUE_MAX, SILENCE, State, Verdict
from dcm_ws.client.errors import ClosedError, DCMError, NotConnectedError
from dcm_ws.client.events import Event
from dcm_ws.client.published import Published
from dcm_ws.client.queues import Queue
from dcm_ws.client.requests import Reply
from dcm_ws.client.storage import SAVE_SECONDS
from dcm_ws.client.tx_connection import Connection, make_endpoint, make_factory
from dcm_ws.client.urls import place_of

_T = TypeVar("_T")

_log = Logger(namespace="dcm_ws.client.tx.DCMClient")


class DCMClient(Client, Service):
    """
    A connection that is restored whenever it is lost, until the service is stopped.

    @param url: C{ws://} or C{wss://}.
    @param token: the token, or a function that returns one for each connection, or a Deferred or a coroutine of one.
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
    @param tls: for C{wss}, the result of C{optionsForClientTLS}; by default the certificates of the system are trusted,
        and the server's must match the host in the URL.
    @param reactor: the global one by default.
    @raise ValueError: C{url} is not the address of a WebSocket.
    @raise TypeError: asyncio runs here without Twisted's reactor.
    """

    _elsewhere = frozenset({"connect", "connected", "close"})
    _hint = (
        "dcm_ws.client.DCMClient is the client for Twisted, and needs its reactor; "
        "for asyncio use `from dcm_ws.client.aio import DCMClient`"
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
        tls: Any = None,
        reactor: Any = None,
    ) -> None:
        secure, host, port = place_of(url, tls=tls is not None)
        if reactor is None:
            # the import would install a reactor
            _check_reactor(sys.modules.get("twisted.internet.reactor"))
            from twisted.internet import reactor
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
            now=reactor.seconds,
        )
        self._reactor: Any = reactor
        self._endpoint = make_endpoint(
            host, port, tls=tls or secure, timeout=timeout, reactor=reactor, report=self._unreachable
        )
        self._connection: Connection | None = None
        self._connections: ClientService | None = None
        self._verdict: Verdict | None = None
        self._problem: DCMError | None = None
        self._timers: list[Any] = []
        self._heard_at = 0.0
        self._saving: LoopingCall | None = None

    # connecting

    def startService(self) -> None:
        """
        Connect, and stay connected.

        @raise PositionError: the stored position cannot be used.
        """
        _check_reactor(self._reactor)
        self._load_position()
        super().startService()
        self._error = self._verdict = None
        self._core.backoff.reset()
        make = partial(Connection, self._opened, self._received, self._closed)
        factory = make_factory(self.url, make, self._timeout, self._reactor)
        self._connections = ClientService(self._endpoint, factory, retryPolicy=self._delay, clock=self._reactor)
        self._become(State.CONNECTING)
        self._connections.startService()
        if self._keeper is not None:
            self._saving = LoopingCall(self._save_position)
            self._saving.clock = self._reactor
            self._saving.start(SAVE_SECONDS, now=False)

    def stopService(self) -> Deferred[None]:
        """
        Close the connection.  C{startService} opens it again.
        """
        super().stopService()
        return self._stop(ClosedError("the client is closed"))

    async def __aenter__(self) -> NoReturn:
        raise TypeError(self._hint)

    async def __aexit__(self, *_: object) -> None:
        pass

    def _stop(self, error: ClosedError) -> Deferred[None]:
        connections, self._connections = self._connections, None
        connection, self._connection = self._connection, None
        self._error = error
        self._cancel_timers()
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.stop()
        grace: IDelayedCall | None = None
        if connection is not None:
            # pending requests fail
            self._core.lost(None, "closed")
            grace = connection.finish(self._reactor)
        stopped: Deferred[None] = succeed(None) if connections is None else maybeDeferred(connections.stopService)
        self._become(State.CLOSED)

        def cancel_grace(result: Any) -> Any:
            if grace is not None and grace.active():
                grace.cancel()
            return result

        return stopped.addBoth(cancel_grace)

    def when_connected(self) -> Deferred[DCMClient]:
        """
        Fires with the client once there is a connection; fails with L{ClosedError} if there will be none.
        """
        _check_reactor(self._reactor)
        return Deferred.fromCoroutine(self._until_connected()).addCallback(lambda _: self)

    def _unreachable(self, reason: str) -> None:
        # an attempt that is given up because the client is closed may fail with any error
        if self._connections is not None:
            self.last_close = (None, reason)

    def _delay(self, attempt: int) -> float:
        """
        Seconds until the next attempt, for C{ClientService}.
        """
        # without a verdict there was no connection
        verdict, self._verdict = self._verdict, None
        if verdict is None:
            verdict = self._ended(None, self.last_close[1] if self.last_close else "")
        delay = verdict.delay or 0.0
        # ClientService does not report when it tries
        self._timers.append(self._reactor.callLater(delay, self._become, State.CONNECTING))
        self._become(State.WAITING)
        return delay

    def _opened(self, connection: Connection) -> None:
        self._connection = connection
        self._problem = None
        self._heard_at = self._reactor.seconds()
        self._core.opened(lambda text: connection.sendMessage(text.encode()))
        self._cancel_timers()
        Deferred.fromCoroutine(self._connect(connection)).addErrback(self._failed, connection)

    def _received(self, connection: Connection, payload: bytes) -> None:
        if connection is not self._connection:
            return
        self._heard_at = self._reactor.seconds()
        error = self._core.received(payload)
        if error is not None:
            self._complain(error)
        self._room()

    async def _connect(self, connection: Connection) -> None:
        await self._converse(partial(self._perform, connection))
        self._timers = [
            self._reactor.callLater(STABLE, self._core.backoff.reset),
            self._reactor.callLater(ALIVE, self._check_life),
        ]
        self._become(State.CONNECTED)

    def _failed(self, failure: Failure, connection: Connection) -> None:
        if connection is not self._connection:
            # it has ended meanwhile, and there may be another one
            return
        error = failure.value if isinstance(failure.value, DCMError) else DCMError(str(failure.value))
        if not failure.check(DCMError):
            _log.failure("the client failed", failure)
        self._drop(error)

    async def _perform(self, connection: Connection, request: Request) -> object:
        result: object = None
        match request:
            case Greeting():
                await self._greeting()
            case GetToken():
                result = await self._get_token()
            case Ask(message):
                result = await self._request(message)
            case Pause(seconds):
                await deferLater(self._reactor, seconds)
            case Together(parts):
                perform = partial(self._perform, connection)
                driven = [Deferred.fromCoroutine(drive(part, perform)) for part in parts]
                try:
                    await DeferredList(driven, fireOnOneErrback=True, consumeErrors=True)
                except FirstError as error:
                    error.subFailure.raiseException()
        if connection is not self._connection:
            # what goes on must not go on with the next connection
            raise NotConnectedError("the connection has ended")
        return result

    def _check_life(self) -> None:
        now = self._reactor.seconds()
        if self._connection is not None and self._connection.paused:
            # messages are not read
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

    def _closed(self, connection: Connection, code: int | None, reason: str) -> None:
        if connection is not self._connection:
            # it has never opened
            self._unreachable(reason)
            return
        self._connection = None
        self._cancel_timers()
        self._verdict = self._ended(code, reason, self._problem)
        if self._verdict.error is not None:
            self._stop(self._verdict.error)
        elif self.state is not State.CLOSED:
            self._become(State.WAITING)

    def _cancel_timers(self) -> None:
        timers, self._timers = self._timers, []
        for timer in timers:
            if timer.active():
                timer.cancel()

    # requests

    def subscribe(self, channel: str) -> Deferred[None]:
        """
        Subscribe: now if connected, and after each reconnection.  Fails with L{RefusedError
        <dcm_ws.client.errors.RefusedError>} if the server does not allow it.
        """
        return Deferred.fromCoroutine(self._subscribe(channel))

    def unsubscribe(self, channel: str) -> Deferred[None]:
        """
        Unsubscribe from a channel.  The server does not restore the subscription either.
        """
        return Deferred.fromCoroutine(self._unsubscribe(channel))

    def publish(self, channel: str, event: str, data: object = None, *, key: str | None = None) -> Deferred[Published]:
        """
        Publish an event; fires with its id, its position, and whether it had been published before.

        Fails with a L{RefusedError<dcm_ws.client.errors.RefusedError>} in a class for each code of the server, with
        L{RequestTimeoutError<dcm_ws.client.errors.RequestTimeoutError>}, or with L{NotConnectedError}; after the last
        two the event may have been published.  Fails with C{TypeError} or C{ValueError} if JSON cannot represent
        C{data}.

        @param key: 1 to 128 characters.  Of all calls of an agent with the same key within 10 minutes, only the first
            publishes an event, so a call that failed without an answer can be repeated.
        """
        return Deferred.fromCoroutine(self._publish(channel, event, data, key))

    def ping(self) -> Deferred[float]:
        """
        Fires with the round-trip time in seconds.
        """
        return Deferred.fromCoroutine(self._ping())

    # events

    def on(self, pattern: str, handler: Handler, *, channel: str | None = None) -> Callable[[], None]:
        """
        Call C{handler} with each event whose name matches C{pattern} (C{*} matches anything), one after the other.
        An event is acknowledged when all handlers that wanted it are done.  If one fails, the event is not
        acknowledged, and comes again.

        @param handler: a function, which may return a Deferred, or a coroutine function.
        @param channel: a pattern of channel names; without it each event comes once, on any channel.
        @return: a function that stops it.
        """
        busy = False

        def arrived() -> None:
            nonlocal busy
            if len(queue) and not busy:
                busy = True
                Deferred.fromCoroutine(self._handle(queue, handler, _is_fatal)).addBoth(ended)

        def ended(result: object) -> None:
            nonlocal busy
            busy = False

        queue: Queue[Event] = Queue(self._core.events, pattern, channel, arrived)
        return queue.end

    # the reactor

    def _new_signal(self) -> _Signal:
        return _Signal()

    def _promise(self) -> tuple[Deferred[dict[str, Any]], Reply]:
        _check_reactor(self._reactor)
        answer: Deferred[dict[str, Any]] = Deferred()

        def reply(result: dict[str, Any] | DCMError) -> None:
            if answer.called:
                return
            if isinstance(result, DCMError):
                answer.errback(result)
            else:
                answer.callback(result)

        return answer, reply

    def _in_time(self, value: Awaitable[_T]) -> Deferred[_T]:
        waiting = value if isinstance(value, Deferred) else Deferred.fromCoroutine(_awaited(value))
        clock: IReactorTime = self._reactor
        timed: Deferred[_T] = waiting.addTimeout(self._timeout, clock, onTimeoutCancel=_timed_out)
        return timed

    def _room(self) -> None:
        if self._connection is not None:
            self._connection.pause(self._core.full)

    def _warn(self, text: str) -> None:
        _log.warn("{url}: {text}", url=self.url, text=text)

    def _debug(self, text: str) -> None:
        _log.debug("{url}: {text}", url=self.url, text=text)

    def _report(self, text: str) -> None:
        _log.failure("{url}: {text}", url=self.url, text=text)


class _Signal:
    """
    Wakes the coroutines that wait for it.
    """

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []

    def wait(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def fire(self) -> None:
        woken, self._waiting = self._waiting, []
        for waiting in woken:
            waiting.callback(None)


def _check_reactor(reactor: Any) -> None:
    """
    @param reactor: the client's; None if there is none yet.
    @raise TypeError: asyncio runs here, and this reactor does not run it.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    from twisted.internet.asyncioreactor import AsyncioSelectorReactor

    # one that runs is in another thread
    if not (
        reactor is not None and (getattr(reactor, "running", False) or isinstance(reactor, AsyncioSelectorReactor))
    ):
        raise TypeError(DCMClient._hint)


def _is_fatal(error: BaseException) -> bool:
    """
    Whether an exception of a handler ends the coroutine that calls it.  A Deferred would keep any other, so that the
    client would take no more events and nobody would know.
    """
    return isinstance(error, GeneratorExit)


def _timed_out(result: object, seconds: float) -> Failure:
    return Failure(TimeoutError())


async def _awaited(value: Awaitable[_T]) -> _T:
    return await value
