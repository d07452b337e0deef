"""
What the clients for asyncio and for Twisted have in common: everything that does not depend on the event loop.
"""

from __future__ import annotations

import inspect
import os
import random
import time
import weakref
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, overload

from dcm_ws.client.conversation import converse, drive
from dcm_ws.client.core import ClientCore, State, Verdict
from dcm_ws.client.errors import ClosedError, DCMError, InvalidChannelError, RequestTimeoutError
from dcm_ws.client.events import Event
from dcm_ws.client.gaps import Gap, Position, number_of
from dcm_ws.client.published import Published
from dcm_ws.client.queues import Queue
from dcm_ws.client.requests import Reply
from dcm_ws.client.status import Status
from dcm_ws.client.storage import Keeper, PositionStore, Saved
from dcm_ws.client.streams import Events, Signal
from dcm_ws.client.urls import as_observer

if TYPE_CHECKING:
    from dcm_ws.client.conversation import Request

Token = str | Callable[[], "str | Awaitable[str]"]
Handler = Callable[[Event], object]
Store = PositionStore | str | os.PathLike[str]
Since = int | str | Position
_T = TypeVar("_T")

_NACK_MAX_MS = 3_600_000


class Client(Status):
    """
    A client without its event loop: requests, handlers, and what happens when a connection ends.

    The parameters that are not listed here are documented in the subclasses.

    @param now: returns monotonic seconds.

    @ivar url: where it connects to.
    """

    _elsewhere: ClassVar[frozenset[str]] = frozenset()
    """
    Methods that only the client for the other event loop has.
    """

    _hint: ClassVar[str] = ""
    """
    Which client this is, and how to import the other one.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None,
        agent_id: str | None,
        session_id: str | None,
        channels: Iterable[str],
        timeout: float,
        queue_max: int,
        observer: bool,
        durable: bool,
        position: Store | None,
        since: Since | None,
        now: Callable[[], float],
    ) -> None:
        super().__init__()
        self.url = as_observer(url) if observer else url
        self._now = now
        self._token = token
        self._timeout = timeout
        self._core = ClientCore(
            agent_id=agent_id,
            session_id=session_id,
            channels=channels,
            fresh_tokens=callable(token),
            queue_max=queue_max,
            random=random.random,
            room=self._room,
            wall_ms=lambda: time.time_ns() // 1_000_000,
            gap=self._gapped,
            observer=observer,
            durable=durable,
            start=None if since is None else _start(since),
        )
        self._keeper = None if position is None else Keeper(position, self._warn)
        self._error: ClosedError | None = None
        self._changed = self._new_signal()
        self._streams: weakref.WeakSet[Events[Any]] = weakref.WeakSet()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """
            A name that this client does not have.
            """
            text = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name in self._elsewhere:
                text = f"{text}: {self._hint}"
            raise AttributeError(text, name=name, obj=self)

    @property
    def agent_id(self) -> str | None:
        """
        The agent that the client is connected as.
        """
        return self._core.agent_id

    @property
    def ended(self) -> str:
        """
        How the last connection ended, or why there was none; empty while there is one, and before the first.
        """
        return self._core.ended

    @property
    def close_code(self) -> int | None:
        """
        The close code of the last connection; None while there is one, and if the last attempt to connect failed.
        """
        return self._core.close_code

    @property
    def channels(self) -> list[str]:
        """
        The channels that it is, or will be, subscribed to.
        """
        return list(self._core.subscriptions.channels)

    @property
    def greeting(self) -> dict[str, Any]:
        """
        The server's last greeting, with its C{server}, C{timestamp}, C{epoch} and C{pos}; empty before the first.
        """
        return self._core.greeting

    @property
    def position(self) -> Position | None:
        """
        The position in the server's log up to which all events have been handled; None if there is none.
        """
        return self._core.places.position(self._core.events.unhandled)

    # connecting

    def _become(self, state: State) -> None:
        if state is State.CLOSED and state is not self.state:
            self._put_away()
        super()._become(state)
        self._changed.fire()
        if state is State.CLOSED:
            for stream in list(self._streams):
                stream.wake()

    def _load_position(self) -> None:
        """
        @raise PositionError: the stored position cannot be used.
        """
        if self._keeper is None:
            return
        saved = self._keeper.load(self._core.agent_id)
        if saved is not None:
            wanted = self._core.subscriptions.channels.keys() | saved.own
            self._core.places.load(saved.epoch, {name: pos for name, pos in saved.channels.items() if name in wanted})

    def _save_position(self) -> None:
        """
        Store the position, if there is a store and the position has changed.
        """
        if self._keeper is None:
            return
        state = self._core.places.state(self._core.events.unhandled)
        if state is not None:
            epoch, channels = state
            own = frozenset(channels) - self._core.subscriptions.channels.keys()
            self._keeper.save(Saved(epoch, channels, own, self._core.agent_id))

    def _put_away(self) -> None:
        """
        The client is closed.  What its user has not handled comes again if it is opened again.
        """
        self._save_position()
        if self._keeper is not None:
            self._keeper.close()
        state = self._core.places.state(self._core.events.unhandled)
        if state is not None:
            self._core.places.load(*state)

    def _gapped(self, gap: Gap) -> None:
        self._skipped(gap, is_known=self._core.events.skip(gap))

    async def _until_connected(self) -> None:
        """
        @raise ClosedError: there will be no connection.
        """
        while self.state is not State.CONNECTED:
            if self.state is State.CLOSED:
                raise self._error or ClosedError("the client is closed")
            await self._changed.wait()

    def _ended(self, code: int | None, reason: str, error: DCMError | None = None) -> Verdict:
        """
        The connection has ended, or the attempt to connect has failed.

        @param code: the close code; None if no connection was opened.
        @param error: why the client closed the connection by itself.
        """
        self.last_close = (code, str(error or reason))
        verdict = self._core.lost(code, reason, error)
        self._error = verdict.error
        if verdict.delay is not None:
            self.retry_at = time.time() + verdict.delay
        self._log_end(self._core.ended, verdict.delay, self._now())
        return verdict

    # requests

    async def _converse(self, perform: Callable[[Request], Awaitable[Any]]) -> None:
        await drive(converse(self._core, timeout=self._timeout, complain=self._complain), perform)

    async def _get_token(self) -> object:
        """
        @raise TimeoutError: it did not come in time.
        """
        token: Any = self._token() if callable(self._token) else self._token
        return await self._in_time(token) if inspect.isawaitable(token) else token

    async def _greeting(self) -> None:
        await self._answer(self._core.expect_greeting, "the server has not sent its greeting")

    async def _request(self, message: dict[str, Any]) -> dict[str, Any]:
        return await self._answer(lambda reply: self._core.request(message, reply), f"no answer to {message['type']}")

    async def _answer(self, ask: Callable[[Reply], str], late: str) -> dict[str, Any]:
        """
        Wait for an answer.

        @param ask: sends a request, given what to call with its answer; returns the request's id.
        @param late: the error if the answer does not come in time.
        """
        answer, reply = self._promise()
        name = ask(reply)
        # an answer is awaited: more events may wait than before
        self._room()
        try:
            return await self._in_time(answer)
        except TimeoutError:
            raise RequestTimeoutError(f"{late} in {self._timeout:g} s") from None
        finally:
            self._core.give_up(name)

    async def _subscribe(self, channel: str) -> None:
        self._core.wants(channel, True)
        if self.state is State.CONNECTED:
            try:
                await self._request({"type": "subscribe", "channel": channel})
            except InvalidChannelError:
                # the server would refuse it after each reconnection, too
                self._core.subscriptions.forget(channel)
                raise

    async def _unsubscribe(self, channel: str) -> None:
        self._core.wants(channel, False)
        if self.state is State.CONNECTED:
            await self._request({"type": "unsubscribe", "channel": channel})

    async def _publish(self, channel: str, event: str, data: object, key: str | None) -> Published:
        message = {"type": "publish", "channel": channel, "event": event, "data": data}
        return Published(await self._request(message if key is None else message | {"key": key}))

    async def _ping(self) -> float:
        began = self._now()
        await self._answer(self._core.ping, "no answer to a ping")
        return self._now() - began

    # events

    @overload
    def events(
        self, pattern: str = "*", *, channel: str | None = None, gaps: Literal[False] = False
    ) -> Events[Event]: ...

    @overload
    def events(self, pattern: str = "*", *, channel: str | None = None, gaps: Literal[True]) -> Events[Event | Gap]: ...

    def events(self, pattern: str = "*", *, channel: str | None = None, gaps: bool = False) -> Events[Any]:
        """
        The events from now on, for C{async for}.  An event is acknowledged when the next one is taken; the one at which
        the loop ends, by C{break} or by an error, is not.  The loop also ends when the client is closed.

        @param pattern: of event names; C{*} matches anything.
        @param channel: a pattern of channel names; without it each event comes once, on any channel.
        @param gaps: a L{Gap} comes in the place of events that the client does not receive.
        """
        stream: Events[Any] = Events(
            self._core.events, pattern, channel, self._new_signal(), lambda: self.state is State.CLOSED, gaps=gaps
        )
        self._streams.add(stream)
        return stream

    def queue(self, arrived: Callable[[], object], pattern: str = "*", *, channel: str | None = None) -> Queue[Event]:
        """
        The events from now on, to be acknowledged in any order: C{take} returns the next event, and a function to call
        when it has been handled, with whether that succeeded.

        @param arrived: called when an event waits in the queue, and when the queue has ended.
        @param pattern: of event names; C{*} matches anything.
        @param channel: a pattern of channel names; without it each event comes once, on any channel.
        """
        return Queue(self._core.events, pattern, channel, arrived)

    def acknowledge(self, message_id: str) -> None:
        """
        Acknowledge a tracked event before it has been handled, so that the server does not send it again; without a
        connection, or if the acknowledgement gets lost, as soon as it comes again.  The client's L{position} does not
        pass the event until it has been handled.
        """
        self._core.events.acknowledge(message_id)

    def nack(self, event: Event, delay: float = 0.0) -> None:
        """
        Do not acknowledge a tracked event, also if its handlers succeed: the server sends it again after C{delay}
        seconds, and handlers receive it again.  That counts as one of the times that the server sends it.

        @param delay: seconds, from 0 to 3,600.
        @raise ValueError: the event is not tracked, or the delay is out of range.
        """
        delay_ms = round(delay * 1000) if delay == delay else -1
        if not event.tracked:
            raise ValueError(f"the server does not send {event.event} again: only task.*, subtask.* and message.*")
        if not 0 <= delay_ms <= _NACK_MAX_MS:
            raise ValueError(f"the delay must be from 0 to {_NACK_MAX_MS // 1000} seconds, not {delay}")
        self._core.nack(event.id, delay_ms)

    async def _handle(self, queue: Queue[Event], handler: Handler, is_fatal: Callable[[BaseException], bool]) -> None:
        """
        Call C{handler} with the events of C{queue}, one after the other, until none waits.

        @param is_fatal: returns whether an exception ends this coroutine; any other one is only logged.
        """
        while (taken := queue.take()) is not None:
            event, done = taken
            success = False
            try:
                result = handler(event)
                if inspect.isawaitable(result):
                    await result
                success = True
            except BaseException as error:
                if is_fatal(error):
                    raise
                self._report(f"a handler of {event.event} failed; the event is not acknowledged")
            finally:
                done(success)

    # the event loop

    @abstractmethod
    def _new_signal(self) -> Signal:
        """
        A signal of this event loop.
        """

    @abstractmethod
    def _promise(self) -> tuple[Awaitable[dict[str, Any]], Reply]:
        """
        An answer to wait for, and what to call with it.
        """

    @abstractmethod
    def _in_time(self, value: Awaitable[_T]) -> Awaitable[_T]:
        """
        Wait for C{value}, for C{timeout} seconds at most.

        @raise TimeoutError: it did not come in time.
        """

    @abstractmethod
    def _room(self) -> None:
        """
        Fewer events wait, or more may: reading may go on.
        """


def _start(since: Since) -> tuple[str | None, int]:
    """
    @param since: a position in the server's log, C{EPOCH.POS} or a L{Position}.
    @raise ValueError: it is not a position.
    """
    epoch: str | None = None
    pos: object = since
    if isinstance(since, Position):
        epoch, pos = since
    elif isinstance(since, str):
        text, _, number = since.rpartition(".")
        epoch = text or None
        pos = int(number) if number.isdecimal() and number.isascii() else None
    number_ = number_of(pos)
    if number_ is None or epoch == "":
        raise ValueError(f"not a position: {since!r}; use a number, or EPOCH.POS")
    return epoch, number_
