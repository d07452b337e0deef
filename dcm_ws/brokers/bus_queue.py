"""
Messages that wait to be sent to other nodes, and which of them lose their place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from dcm_ws.brokers.bus_parcels import Parcel

PATIENCE = 5.0
"""
Seconds for which a message waits; later it would be of no use to anyone.
"""

_EACH = 256
"""
Bytes that a message takes in addition to its length.
"""


class BusQueue:
    """
    Queues messages in the order in which they are sent.  If there is no room, the topics that have most of it lose
    their oldest.

    @param now: monotonic seconds.
    @param crowded: called with the topic of each message that there was no room for.
    @param late: called for each message that has waited for too long.
    @param max_bytes: of all messages, with L{_EACH} for each.

    @ivar weight: the bytes that are taken now.
    """

    def __init__(
        self,
        now: Callable[[], float],
        crowded: Callable[[str], object],
        late: Callable[[], object],
        *,
        max_bytes: int,
    ) -> None:
        self._now = now
        self._crowded = crowded
        self._late = late
        self._max = max_bytes
        self._serial = 0
        # by topic: when each was queued, and as which one of all
        self._lanes: dict[str, deque[tuple[int, float, Parcel]]] = {}
        self._weights: dict[str, int] = {}
        self._length = 0
        self.weight = 0

    def __len__(self) -> int:
        return self._length

    def put(self, parcel: Parcel) -> None:
        """
        Queue a message.
        """
        topic, weight = parcel.topic, len(parcel.message) + _EACH
        if weight > self._max:
            self._crowded(topic)
            return
        lane = self._lanes.get(topic)
        if lane is None:
            lane = self._lanes[topic] = deque()
            self._weights[topic] = 0
        self._serial += 1
        lane.append((self._serial, self._now(), parcel))
        self._add(topic, weight)
        while self.weight > self._max:
            largest = max(self._weights, key=self._weights.__getitem__)
            self._crowded(largest)
            self._pop(largest)

    def take(self, most: int) -> list[Parcel]:
        """
        Take the next messages, and drop those that have waited for too long.

        @param most: bytes of them, at most, if there is more than one.
        """
        taken: list[Parcel] = []
        lanes, size, oldest = self._lanes, 0, self._now() - PATIENCE
        while lanes and size < most:
            topic = min(lanes, key=lambda topic: lanes[topic][0][0]) if len(lanes) > 1 else next(iter(lanes))
            _, at, parcel = lanes[topic][0]
            if at >= oldest:
                size += len(parcel.message)
                if taken and size > most:
                    break
                taken.append(parcel)
            else:
                self._late()
            self._pop(topic)
        return taken

    def _pop(self, topic: str) -> None:
        lane = self._lanes[topic]
        _, _, parcel = lane.popleft()
        self._add(topic, -len(parcel.message) - _EACH)
        self._length -= 1
        if not lane:
            del self._lanes[topic], self._weights[topic]

    def _add(self, topic: str, weight: int) -> None:
        self._weights[topic] += weight
        self.weight += weight
        self._length += weight > 0
