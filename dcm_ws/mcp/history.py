"""
Reads the service's log, as an observer with a connection of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field

from dcm_ws.client import DCMError, Event, Gap
from dcm_ws.client.aio import DCMClient

MakeClient = Callable[[Iterable[str], "str | None"], DCMClient]
"""
Makes a client that observes channels from a position on; without one it gets new events.
"""

BACK = 2_000
"""
Number of positions before the end of the log that are searched for the latest events.
"""

SCAN_MAX = 5_000
"""
Maximum number of events that are read for one result.
"""

SECONDS = 10.0
"""
Maximum seconds for reading.
"""

QUIET = 0.5
"""
Seconds without an event after which reading ends.
"""


@dataclass(slots=True)
class Found:
    """
    What the log has.

    @ivar notes: what a reader should know about it.
    """

    events: list[Event] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class History:
    """
    The service's log.
    """

    def __init__(self, make_client: MakeClient) -> None:
        self._make_client = make_client

    async def end(self) -> tuple[str, int]:
        """
        The epoch and the last position of the log; the epoch is empty if there is no log.
        """
        async with asyncio.timeout(SECONDS), self._make_client((), None) as client:
            return str(client.greeting.get("epoch", "")), int(client.greeting.get("pos", 0))

    async def latest(self, channels: Iterable[str], wanted: Callable[[Event], bool], limit: int) -> Found:
        """
        The latest events of channels, the oldest first.
        """
        epoch, pos = await self.end()
        found = Found()
        if not epoch:
            return found
        start = max(0, pos - BACK)
        events: deque[Event] = deque(maxlen=limit)
        async for item in self.read(channels, f"{epoch}.{start}", pos):
            if isinstance(item, Gap):
                # that far back there may be nothing any more
                continue
            if wanted(item):
                events.append(item)
        found.events = list(events)
        if start and len(events) < limit:
            found.notes.append(f"only the last {BACK} events of the log were searched; for older ones give `since`")
        return found

    async def after(self, channels: Iterable[str], since: str, wanted: Callable[[Event], bool], limit: int) -> Found:
        """
        The first events of channels after a position.
        """
        found = Found()
        epoch, pos = await self.end()
        if not epoch:
            found.notes.append("this service keeps no log")
            return found
        scanned = 0
        async with aclosing(self.read(channels, since, pos)) as items:
            async for item in items:
                if isinstance(item, Gap):
                    found.notes.append(str(item))
                    continue
                scanned += 1
                if wanted(item):
                    found.events.append(item)
                if len(found.events) == limit or scanned == SCAN_MAX:
                    found.notes.append(f"there may be more: go on with since={epoch}.{item.pos}")
                    break
        return found

    async def read(self, channels: Iterable[str], since: str, until: int) -> AsyncGenerator[Event | Gap, None]:
        """
        The events and gaps of channels after one position and up to another one.

        @param since: C{EPOCH.POS}.
        @raise DCMError: the service does not let this agent read one of the channels.
        """
        client = self._make_client(channels, since)
        # before it connects, so that no event is missed
        stream = client.events(gaps=True)
        errors: list[DCMError] = []
        client.on_error(errors.append)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SECONDS
        async with asyncio.timeout(SECONDS), client:
            if errors:
                raise errors[0]
            while True:
                try:
                    async with asyncio.timeout_at(min(deadline, loop.time() + QUIET)):
                        item = await anext(stream)
                except (TimeoutError, StopAsyncIteration):
                    return
                if isinstance(item, Gap):
                    yield item
                    continue
                if item.pos is None:
                    continue
                if item.pos <= until:
                    yield item
                if item.pos >= until:
                    return
