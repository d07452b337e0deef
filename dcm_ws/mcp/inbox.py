"""
The events that wait until the model reads them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dcm_ws.client import Event
from dcm_ws.client.events import Done
from dcm_ws.mcp.rendering import Label, Rendered
from dcm_ws.mcp.wanted import EVERYTHING, Wanted

WAITING_MAX = 1_000
"""
Events that may wait; beyond that the oldest are dropped.  They are still in the service's log.
"""

BYTES_MAX = 16 << 20
"""
Maximum characters of data of all events that wait.
"""

TEXT_MAX = 32_000
"""
Maximum characters of events that are taken at once; at least one event is taken.
"""

LATE = 2.0
"""
Seconds after which an event that still waits is acknowledged: the service would send it again after 5 s.
"""

_SHOWN_MAX = 1_000
_NOTICES_MAX = 5


@dataclass(eq=False, slots=True)
class Item:
    """
    An event that waits.

    @ivar done: called with whether the model has read it.
    @ivar since: when it came, in monotonic seconds.
    @ivar owed: the service expects an acknowledgement, and has not got it.
    """

    rendered: Rendered
    done: Done
    since: float
    owed: bool

    @property
    def label(self) -> Label:
        """
        Where it comes from.
        """
        return self.rendered.label


class Inbox:
    """
    Events in the order in which they came.

    @param render: renders an event.
    @param acknowledge: called with the id of an event that has waited for L{LATE} seconds.
    @param now: returns monotonic seconds.
    @param wanted: the events that are kept; all others count as read.
    @param own: returns the agent whose own events are not kept.

    @ivar dropped: number of events that were dropped because too many waited.
    @ivar ignored: number of events that were not wanted.
    """

    def __init__(
        self,
        *,
        render: Callable[[Event], Rendered],
        acknowledge: Callable[[str], object],
        now: Callable[[], float],
        wanted: Wanted = EVERYTHING,
        own: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._render = render
        self._acknowledge = acknowledge
        self._now = now
        self._wanted = wanted
        self._own = own
        self._waiting: OrderedDict[str, Item] = OrderedDict()
        self._shown: OrderedDict[str, Label] = OrderedDict()
        self._size = 0
        self._arrival = asyncio.Event()
        self._notices: deque[str] = deque(maxlen=_NOTICES_MAX)
        self._unread_drops = 0
        self.dropped = 0
        self.ignored = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, event: Event, done: Done) -> None:
        """
        An event has come.

        @param done: called when it has been read.
        """
        rendered = self._render(event)
        sender = rendered.label.sender
        if not self._wanted.matches(rendered.label) or (sender is not None and sender == self._own()):
            self.ignored += 1
            done(True)
            return
        self._keep(Item(rendered, done, self._now(), event.tracked))
        while len(self._waiting) > 1 and (len(self._waiting) > WAITING_MAX or self._size > BYTES_MAX):
            self.read(self._remove(next(iter(self._waiting.values()))))
            self.dropped += 1
            self._unread_drops += 1
        arrival, self._arrival = self._arrival, asyncio.Event()
        arrival.set()

    def _keep(self, item: Item) -> None:
        self._waiting[item.label.id] = item
        self._size += item.rendered.size

    def _remove(self, item: Item) -> Item:
        del self._waiting[item.label.id]
        self._size -= item.rendered.size
        return item

    def note(self, text: str) -> None:
        """
        Keep a notice, which the model receives with the next events.
        """
        self._notices.append(text)

    def notices(self) -> list[str]:
        """
        The notices that the model has not received yet, and how many events wait.
        """
        notices = list(self._notices)
        self._notices.clear()
        if self._unread_drops:
            notices.append(f"{self._unread_drops} events were dropped because too many waited; see recent_events")
            self._unread_drops = 0
        if self._waiting:
            notices.append(f"{len(self._waiting)} more events wait; wait_for_event returns them")
        return notices

    async def arrival(self) -> None:
        """
        Wait for the next event.
        """
        await self._arrival.wait()

    def take(self, wanted: Wanted = EVERYTHING, limit: int = WAITING_MAX) -> list[Item]:
        """
        The oldest events that are wanted, at most C{limit}, and at most L{TEXT_MAX} characters of them.  They no longer
        wait: call L{read} or L{put_back}.
        """
        taken: list[Item] = []
        room = TEXT_MAX
        for item in [one for one in self._waiting.values() if wanted.matches(one.label)][:limit]:
            room -= len(item.rendered.text)
            if taken and room < 0:
                break
            taken.append(self._remove(item))
        return taken

    def put_back(self, items: Iterable[Item]) -> None:
        """
        Put back events that were taken and could not be shown: they wait again, before all others.
        """
        later = list(self._waiting.values())
        self._waiting.clear()
        self._size = 0
        for item in (*items, *later):
            self._keep(item)

    def read(self, *items: Item) -> None:
        """
        Events that were taken have been shown to the model.
        """
        for item in items:
            self._shown[item.label.id] = item.label
            item.done(True)
        while len(self._shown) > _SHOWN_MAX:
            self._shown.popitem(last=False)

    def discard(self, message_id: str) -> bool:
        """
        Remove an event that waits: it counts as read without being shown.

        @return: False if no such event waits.
        """
        item = self._waiting.get(message_id)
        if item is not None:
            self.read(self._remove(item))
        return item is not None

    def label(self, message_id: str) -> Label | None:
        """
        The label of an event that waits or was shown lately; None if there is no such event.
        """
        item = self._waiting.get(message_id)
        return self._shown.get(message_id) if item is None else item.label

    def labels(self) -> list[Label]:
        """
        The labels of the events that wait, the oldest first.
        """
        return [item.label for item in self._waiting.values()]

    def acknowledge_late(self) -> None:
        """
        Acknowledge the events that have waited for L{LATE} seconds, so that the service neither sends them again nor
        makes dead letters of them.  They still wait here.
        """
        before = self._now() - LATE
        for item in self._waiting.values():
            if item.owed and item.since <= before:
                item.owed = False
                self._acknowledge(item.label.id)
