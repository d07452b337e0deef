"""
A log that answers later, in any order, and not always.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dcm_ws.core.entries import Draft, Entry, Page, Published
from dcm_ws.core.log import MemoryLog
from dcm_ws.core.ports import Deliver, Reset


class Asked(NamedTuple):
    """
    A page that somebody waits for.
    """

    after: int
    channels: Mapping[str, int]
    most: int
    head: int
    ready: Callable[[Page | None], object]


class LateLog(MemoryLog):
    """
    The log of a database, as the core sees it: an event gets its position in a later turn, others publish, too, and
    pages take their time.  The test says when things happen.

    @ivar tail: pages are ready at once for who has everything but so many of the last positions.  Negative for never.
    @ivar most_waiting: appends beyond that are refused at once.
    @ivar span: pages go no further than so many positions.

    @ivar appends: events that are not in the log yet.
    @ivar answers: events that have been delivered, and their publishers not answered.
    @ivar pages: what is being read.
    @ivar finds_late: single events take their time, too.
    @ivar finds: those that are being read.
    """

    def __init__(self, *args: Any, **limits: Any) -> None:
        super().__init__(*args, **limits)
        self.tail = 0
        self.most_waiting = 1000
        self.span = 1000
        self.appends: list[tuple[Draft, Published]] = []
        self.answers: list[tuple[Published, int]] = []
        self.pages: list[Asked] = []
        self.finds_late = False
        self.finds: list[tuple[Sequence[int], Callable[[Mapping[int, Entry] | None], object]]] = []

    def attach(self, deliver: Deliver, reset: Reset) -> None:
        super().attach(deliver, reset)
        self._reset = reset

    def append(self, draft: Draft, published: Published) -> None:
        if len(self.appends) == self.most_waiting:
            published.pos = None
            return
        published.waiting = True
        self.appends.append((draft, published))

    def page(self, after: int, channels: Mapping[str, int], most: int, ready: Callable[[Page | None], object]) -> None:
        asked = Asked(after, channels, most, self.head, ready)
        if after >= self.head - self.tail:
            self._read_now(asked)
        else:
            self.pages.append(asked)

    def find(self, positions: Sequence[int], ready: Callable[[Mapping[int, Entry] | None], object]) -> None:
        if self.finds_late:
            self.finds.append((positions, ready))
        else:
            super().find(positions, ready)

    def _read_now(self, asked: Asked) -> None:
        upto = min(asked.head, asked.after + self.span)

        def ready(page: Page | None) -> None:
            assert page is not None
            entries = [entry for entry in page.entries if entry.pos <= upto]
            asked.ready(Page(entries, min(page.upto, upto), page.lost))

        super().page(asked.after, asked.channels, asked.most, ready)

    # what the test lets happen

    def commit(self, index: int = 0) -> None:
        """
        An event gets its position, and is delivered.
        """
        draft, published = self.appends.pop(index)
        placed = Published(draft.id)
        super().append(draft, placed)
        assert placed.pos is not None
        self.answers.append((published, placed.pos))

    def answer(self, index: int = 0) -> None:
        """
        The publisher of an event that was delivered is answered.
        """
        published, pos = self.answers.pop(index)
        published.answer(pos)

    def again(self, event_id: str, pos: int, index: int = 0) -> None:
        """
        An event is not logged, since one with the same key is in the log.
        """
        _, published = self.appends.pop(index)
        published.id, published.duplicate = event_id, True
        published.answer(pos)

    def renew(self, epoch: str, head: int) -> None:
        """
        The log becomes another one; what waits for it is not in it.
        """
        while self.appends:
            self.refuse()
        self.answers.clear()
        self.pages.clear()
        self.finds.clear()
        self.epoch = epoch
        self.start_at(head)
        self._reset()

    def refuse(self, index: int = 0) -> None:
        """
        An event could not be written within a second.
        """
        _, published = self.appends.pop(index)
        published.answer(None)

    def hear(self, draft: Draft) -> int:
        """
        Another process, or the database, has published an event.  Returns its position.
        """
        super().append(draft, Published(draft.id))
        return self.head

    def read(self, index: int = 0, *, fails: bool = False) -> None:
        """
        A page is ready.
        """
        asked = self.pages.pop(index)
        if fails:
            asked.ready(None)
        else:
            self._read_now(asked)

    def found(self, index: int = 0, *, fails: bool = False) -> None:
        """
        Single events have been read.
        """
        positions, ready = self.finds.pop(index)
        if fails:
            ready(None)
        else:
            super().find(positions, ready)

    def settle(self) -> None:
        """
        Everything that waits happens, in order.
        """
        while self.appends:
            self.commit()
        while self.answers:
            self.answer()
        while self.pages:
            self.read()
        while self.finds:
            self.found()
