"""
Events for C{async for}, in any event loop.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, Self

from dcm_ws.client.events import Dispatcher
from dcm_ws.client.queues import Inbox, T


class Signal(Protocol):
    """
    Wakes all that wait for it, in the event loop of a client.
    """

    def wait(self) -> Awaitable[object]:
        """
        Wait until it is fired the next time.
        """

    def fire(self) -> None:
        """
        Wake all that wait now.
        """


class Events(Generic[T]):
    """
    An asynchronous iterator over events.  It takes events until it is closed or garbage-collected.

    @param signal: used by this iterator only.
    @param closed: returns whether the client is closed, which ends the iterator.
    @param gaps: it also has gaps, in their place between the events.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        pattern: str,
        channel: str | None,
        signal: Signal,
        closed: Callable[[], bool],
        *,
        gaps: bool = False,
    ) -> None:
        self._signal = signal
        self._closed = closed
        # the inbox must not refer to this object: it would keep it from being garbage-collected
        self._inbox: Inbox[T] = Inbox(dispatcher, pattern, channel, signal.fire, gaps=gaps)
        weakref.finalize(self, self._inbox.end).atexit = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while (event := self._inbox.next()) is None:
            if self._inbox.ended or self._closed():
                self._inbox.end()
                raise StopAsyncIteration
            await self._signal.wait()
        return event

    def close(self) -> None:
        """
        Take no more events.  The last one that was taken is not acknowledged.
        """
        self._inbox.end()

    async def aclose(self) -> None:
        """
        The same as C{close}.
        """
        self.close()

    def wake(self) -> None:
        """
        The client was closed: end what waits for the next event.
        """
        self._signal.fire()
