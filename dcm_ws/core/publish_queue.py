"""
Publishes that wait for the log to be written, and who may have how many of them there.

Each publisher has a lane, and a batch takes from all lanes in turn, so one that publishes very much delays itself most.
When there is no room, the one whose lane is largest loses its newest publishes.  Publishes that belong together are
taken, and lost, together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from dcm_ws.core.entries import Draft, Published

PATIENCE = 1.0
"""
Seconds for which a publisher waits for the log (protocol, section 10).
"""


class Waiting:
    """
    A publish that waits.

    @ivar until: monotonic seconds.
    @ivar weight: how much room it takes.
    @ivar rest: how many of those that belong together with it come behind it.
    @ivar queued: it has not been taken, and has not been given up.
    """

    __slots__ = ("draft", "published", "queued", "rest", "until", "weight")

    def __init__(self, draft: Draft, published: Published, until: float, weight: int, rest: int = 0) -> None:
        self.draft = draft
        self.published = published
        self.until = until
        self.weight = weight
        self.rest = rest
        self.queued = True


class PublishQueue:
    """
    Queues publishes, fairly.

    @param now: monotonic seconds.
    @param refused: called with a publisher for each of its publishes that there is no room for.
    @param max_events: publishes that may wait.
    @param max_bytes: bytes of their data.

    @ivar weight: how much room they take now.  Each takes the bytes of its data, and at least as much as lets no more
        than C{max_events} in.
    """

    def __init__(
        self,
        now: Callable[[], float],
        refused: Callable[[str], object],
        *,
        max_events: int,
        max_bytes: int,
    ) -> None:
        self._now = now
        self._refused = refused
        self._max = max_bytes
        self._least = max(1, max_bytes // max_events)
        self._lanes: dict[str, deque[Waiting]] = {}
        self._weights: dict[str, int] = {}
        # all that have not been answered as far as is known here, in the order of their deadlines
        self._unanswered: deque[Waiting] = deque()
        self._given_up: list[Waiting] = []
        self._length = 0
        self.weight = 0

    def __len__(self) -> int:
        """
        How many publishes are queued.
        """
        return self._length

    def put(self, draft: Draft, published: Published) -> bool:
        """
        Queue a publish.  False if there is no room for it.
        """
        return self.put_all(((draft, published),))

    def put_all(self, publishes: Sequence[tuple[Draft, Published]]) -> bool:
        """
        Queue publishes of one publisher that belong together.  False if there is no room for all of them.
        """
        publisher = publishes[0][0].publisher
        weights = [max(len(draft.data), self._least) for draft, _ in publishes]
        weight, rest = sum(weights), len(publishes)
        if self.weight + weight > self._max and not self._make_room(publisher, weight):
            self._refused(publisher)
            return False
        lane = self._lanes.get(publisher)
        if lane is None:
            lane = self._lanes[publisher] = deque()
            self._weights[publisher] = 0
        until = self._now() + PATIENCE
        for (draft, published), own in zip(publishes, weights, strict=True):
            rest -= 1
            waiting = Waiting(draft, published, until, own, rest)
            lane.append(waiting)
            self._unanswered.append(waiting)
        self._weights[publisher] += weight
        self.weight += weight
        self._length += len(publishes)
        return True

    def take(self, most: int, most_bytes: int) -> list[Waiting]:
        """
        Take the next publishes: from each publisher in turn, those of each in their order, and at once those that
        belong together.

        @param most: publishes, at most; more if the first ones belong together.
        @param most_bytes: bytes of their data, at most, if there is more than one.
        """
        batch: list[Waiting] = []
        size = 0
        lanes = self._lanes
        while lanes and len(batch) < most:
            publisher, lane = next(iter(lanes.items()))
            together = [lane[number] for number in range(lane[0].rest + 1)]
            length = sum(len(waiting.draft.data) for waiting in together)
            if batch and (size + length > most_bytes or len(batch) + len(together) > most):
                break
            size += length
            for waiting in together:
                lane.popleft()
                batch.append(waiting)
                self._left(publisher, waiting)
            if publisher in lanes:
                # to the end of the row
                lanes[publisher] = lanes.pop(publisher)
        return batch

    def next_deadline(self) -> float | None:
        """
        When the next publish has waited long enough; None if none waits.
        """
        unanswered = self._unanswered
        while unanswered and not unanswered[0].published.waiting:
            unanswered.popleft()
        if self._given_up:
            return self._now()
        return unanswered[0].until if unanswered else None

    def expire(self) -> list[Waiting]:
        """
        Take out what has waited long enough, or has had to make room for others: its publishers have to be answered
        that it could not be logged.
        """
        given_up, self._given_up = self._given_up, []
        over = [waiting for waiting in given_up if waiting.published.waiting]
        now, unanswered = self._now(), self._unanswered
        while unanswered and (unanswered[0].until <= now or not unanswered[0].published.waiting):
            waiting = unanswered.popleft()
            if not waiting.published.waiting:
                continue
            if waiting.queued:
                self._lanes[waiting.draft.publisher].remove(waiting)
                self._left(waiting.draft.publisher, waiting)
            over.append(waiting)
        return over

    def _make_room(self, publisher: str, weight: int) -> bool:
        """
        Give up the newest publishes of those that have most, until there is room.  False if C{publisher} would be the
        one that has most.
        """
        while self.weight + weight > self._max:
            largest = max(self._weights, key=self._weights.__getitem__, default=publisher)
            if self._weights.get(publisher, 0) + weight >= self._weights.get(largest, 0):
                return False
            lane, rest = self._lanes[largest], 0
            # the newest, and those before it that belong together with it
            while lane and lane[-1].rest == rest:
                loser = lane.pop()
                self._left(largest, loser)
                self._given_up.append(loser)
                rest += 1
            self._refused(largest)
        return True

    def _left(self, publisher: str, waiting: Waiting) -> None:
        waiting.queued = False
        self._length -= 1
        self.weight -= waiting.weight
        self._weights[publisher] -= waiting.weight
        if not self._lanes[publisher]:
            del self._lanes[publisher], self._weights[publisher]
