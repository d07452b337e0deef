"""
What clients have published here, until the log answers.

It waits in a queue for the next numbering step.  What a step has taken may be in the log, and is answered when its
event is delivered here.  All that has waited long enough is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dcm_ws.core.counts import EngineCounts
from dcm_ws.core.entries import Draft, Published
from dcm_ws.core.publish_queue import PublishQueue, Waiting


class Publishes:
    """
    Publishes that have no answer yet.

    @param queue: has those that no step has taken.
    @param counts: receives those that are refused.
    @param later: calls something after so many seconds.
    @param now: monotonic seconds.
    """

    def __init__(
        self, queue: PublishQueue, counts: EngineCounts, *, later: Callable[..., Any], now: Callable[[], float]
    ) -> None:
        self._queue = queue
        self._refused = counts.refused
        self._later = later
        self._now = now
        # by the ids of their events
        self._taken: dict[str, Published] = {}
        self._timing = False

    def __len__(self) -> int:
        """
        How many no step has taken.
        """
        return len(self._queue)

    @property
    def weight(self) -> int:
        """
        How much room these take: see L{PublishQueue}.
        """
        return self._queue.weight

    def put(self, publishes: Sequence[tuple[Draft, Published]]) -> bool:
        """
        Have publishes of one publisher wait, which are logged together.  They are refused if there is no room for them.
        """
        if self._queue.put_all(publishes):
            for _, published in publishes:
                published.waiting = True
            self._watch()
            return True
        for draft, published in publishes:
            self._refused.add_of(draft.publisher)
            published.pos = None
        return False

    def take(self, most: int, most_bytes: int) -> list[Waiting]:
        """
        Take those that are to be logged with the next step.
        """
        batch = self._queue.take(most, most_bytes)
        for waiting in batch:
            self._taken[waiting.draft.id] = waiting.published
        return batch

    def withdraw(self) -> list[Waiting]:
        """
        Take all those that no step has taken: no step will log them.
        """
        return self._queue.take(len(self._queue), 1 << 62)

    def logged(self, event_id: str, pos: int) -> None:
        """
        An event, which may have been published elsewhere, is in the log.
        """
        published = self._taken.pop(event_id, None)
        if published is not None and published.waiting:
            published.answer(pos)

    def again(self, event_id: str, pos: int, first_id: str) -> None:
        """
        An event was not logged, because one was published before with the same key.

        @param pos: that one's position.
        @param first_id: its id.
        """
        published = self._taken.pop(event_id, None)
        if published is not None and published.waiting:
            published.id, published.duplicate = first_id, True
            published.answer(pos)

    def refuse(self, waiting: Waiting) -> None:
        """
        An event cannot be logged.
        """
        self._taken.pop(waiting.draft.id, None)
        if waiting.published.waiting:
            self._refused.add_of(waiting.draft.publisher)
            waiting.published.answer(None)

    def _watch(self) -> None:
        """
        See to it that what waits is answered in time.
        """
        if not self._timing:
            deadline = self._queue.next_deadline()
            if deadline is not None:
                self._timing = True
                self._later(max(0.01, deadline - self._now()), self._time_is_over)

    def _time_is_over(self) -> None:
        self._timing = False
        for waiting in self._queue.expire():
            self.refuse(waiting)
        self._watch()
