"""
Notifies the client of new events: with their text, or only that they wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from dcm_ws.mcp.inbox import Inbox
from dcm_ws.mcp.pacing import Pace
from dcm_ws.mcp.rendering import escaped, join
from dcm_ws.mcp.wanted import channels_of

CHANNEL = "claude/channel"
"""
The experimental capability of servers that push events into a session.
"""

BATCH_MAX = 20
"""
Events in one notification.
"""

Notify = Callable[[str, dict[str, Any]], Awaitable[None]]
"""
Sends a notification, given its method and parameters, and returns when it has been written.
"""


class Pusher:
    """
    Sends events as C{notifications/claude/channel}, the oldest first.  A model has read an event when its notification
    has been written.

    @param pace: shared by all notifications of the client.
    """

    def __init__(self, inbox: Inbox, notify: Notify, pace: Pace, now: Callable[[], float]) -> None:
        self._inbox = inbox
        self._notify = notify
        self._pace = pace
        self._now = now

    async def run(self) -> None:
        """
        Push events until cancelled.
        """
        while True:
            while not len(self._inbox):
                await self._inbox.arrival()
                # what waits in a call of a tool is first
                await asyncio.sleep(0)
            delay = self._pace.delay(self._now())
            if delay:
                await asyncio.sleep(delay)
            items = self._inbox.take(limit=BATCH_MAX)
            if not items:
                continue
            self._pace.spend(self._now())
            meta = {"count": str(len(items))}
            if len(items) == 1:
                meta |= _attributes(items[0].label.fields())
            notes = "".join(f"\n({notice})" for notice in self._inbox.notices())
            text = join(item.rendered for item in items) + notes
            try:
                await self._notify(f"notifications/{CHANNEL}", {"content": text, "meta": meta})
            except BaseException:
                self._inbox.put_back(items)
                raise
            self._inbox.read(*items)


class Announcer:
    """
    Announces that events wait: C{notifications/resources/updated} for the resources of their channels, and a log
    message.  The events wait until a tool returns them.

    @param updated: sends that a channel has new events.
    @param log: sends a log message.
    """

    def __init__(
        self,
        inbox: Inbox,
        updated: Callable[[str], Awaitable[None]],
        log: Callable[[str], Awaitable[None]],
        pace: Pace,
        now: Callable[[], float],
    ) -> None:
        self._inbox = inbox
        self._updated = updated
        self._log = log
        self._pace = pace
        self._now = now

    async def run(self) -> None:
        """
        Announce events until cancelled.
        """
        announced: set[str] = set()
        while True:
            labels = [label for label in self._inbox.labels() if label.id not in announced]
            if not labels:
                await self._inbox.arrival()
                await asyncio.sleep(0)
                continue
            delay = self._pace.delay(self._now())
            if delay:
                await asyncio.sleep(delay)
            self._pace.spend(self._now())
            labels = [label for label in self._inbox.labels() if label.id not in announced]
            for channel in sorted(set().union(*map(channels_of, labels))):
                await self._updated(channel)
            if labels:
                await self._log(f"{len(self._inbox)} events wait; the tool wait_for_event returns them")
            announced = {label.id for label in self._inbox.labels()} & (announced | {label.id for label in labels})


def _attributes(fields: dict[str, str]) -> dict[str, str]:
    """
    A label as attributes of the tag that the client makes of a notification.
    """
    return {name: escaped(value).replace('"', "\\u0022") for name, value in fields.items()}
