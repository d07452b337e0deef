"""
Tracked events that await an ack, and which of them are due to be sent again (protocol, section 4).

One L{Delivery} covers all clients that were sent the same frames at the same time.  All time-outs are equal, so
the order of sending is the order of due times, and a plain queue has the earliest in front.  Only what a client refuses
is due when the client says so; that is in a schedule of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Set
from itertools import chain
from typing import NamedTuple, Protocol

from dcm_ws.core.counts import Counts
from dcm_ws.core.fairness import fair_level
from dcm_ws.core.schedule import Schedule


class Recipient(Protocol):
    """
    A client, as far as deliveries go.
    """

    #: what the client has not acknowledged yet, by event id, oldest first
    owed: dict[str, Delivery]
    #: it has acknowledged something, on this connection or before, or has said that it will
    durable: bool
    #: it is not durable, although it has had time to acknowledge something
    is_silent: bool

    @property
    def name(self) -> str:
        """
        Its agent, or what stands for a client without one.
        """


class Tracked(NamedTuple):
    """
    A tracked event, as the frames that certain clients receive.

    @ivar seq: the event's position in the log.
    """

    seq: int
    id: str
    frames: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """
        Bytes of the frames.
        """
        return sum(map(len, self.frames))


class Delivery:
    """
    One sending of one event to all clients that receive the same frames.
    """

    __slots__ = ("due", "event", "refused", "sends", "waiting", "weight")

    def __init__(self, event: Tracked, sends: int, due: float) -> None:
        self.event = event
        self.waiting: set[Recipient] = set()
        self.sends = sends
        self.due = due
        #: bytes that count as held by it
        self.weight = 0
        #: its client has refused it, and gets it again when it is due
        self.refused = False


_GONE = Tracked(0, "", ())
_NOBODY: set[Recipient] = set()
_RESOLUTION = 0.25
_EMPTY_MIN = 1000
"""
Acknowledged deliveries that may always stay in the queue; beyond them, they may be half of it.
"""


class DeliveryQueue:
    """
    Deliveries that await an ack.  It returns what is due, and sends nothing.

    @param now: monotonic seconds.
    @param counts: receives its counts.
    @param ack_timeout: seconds.
    @param max_attempts: sends in all.
    @param max_pending: unacknowledged deliveries of a client, after which it has to get no more; of one that has never
        acknowledged anything although it has had time to, the oldest is given up.
    @param max_bytes: maximum bytes of frames held, in all; beyond it the clients that hold most lose their oldest
        deliveries.

    @ivar pending: deliveries awaiting an ack, one for each client and event.
    @ivar full: clients that have to get no more for now, with the position of the last event that they were sent.  The
        caller empties it.
    @ivar held: bytes of frames held now.
    """

    def __init__(
        self,
        now: Callable[[], float],
        counts: Counts,
        *,
        ack_timeout: float,
        max_attempts: int,
        max_pending: int,
        max_bytes: int,
    ) -> None:
        self._now = now
        self._counts = counts.deliveries
        self._overflowed = counts.limits.max_pending
        self._crowded_out = counts.limits.max_pending_bytes
        self._ack_timeout = ack_timeout
        self._max_attempts = max_attempts
        self._max_pending = max_pending
        self._max_bytes = max_bytes
        self._due: deque[Delivery] = deque()
        self._refused: Schedule[Delivery] = Schedule(_RESOLUTION)
        self._emptied = 0
        self.full: dict[Recipient, int] = {}
        self.held = 0
        self.pending = 0

    def sent(self, event: Tracked, audience: Set[Recipient]) -> None:
        """
        C{event} has just gone out to C{audience}, of which none owed an ack for it before.
        """
        delivery = Delivery(event, 1, self._now() + self._ack_timeout)
        delivery.waiting = waiting = set(audience)
        delivery.weight = self._hold(event)
        self._due.append(delivery)
        self.pending += len(waiting)
        self._counts.begun += len(waiting)
        name, most = event.id, self._max_pending
        full: list[Recipient] = []
        for client in waiting:
            owed = client.owed
            owed[name] = delivery
            if len(owed) >= most:
                full.append(client)
        for client in full:
            if not client.is_silent:
                self.full[client] = event.seq
                continue
            if len(client.owed) == most:
                continue
            self._settle(client, next(iter(client.owed)))
            self._give_up(client)
            self._overflowed.add()
        self._make_room(0)

    def ack(self, client: Recipient, event_id: str) -> bool:
        """
        C{client} has acknowledged the event.  False if it owed no ack for it.
        """
        delivery = client.owed.pop(event_id, None)
        if delivery is None:
            return False
        # as L{_strike} does: acks come by the thousand
        waiting = delivery.waiting
        waiting.remove(client)
        self.pending -= 1
        if not waiting:
            self._let_go(delivery)
        self._counts.acked += 1
        return True

    def ack_all(self, client: Recipient, pos: int) -> bool:
        """
        C{client} has acknowledged all events up to a position.  False if it owed no ack for any of them.
        """
        names = [name for name, delivery in client.owed.items() if delivery.event.seq <= pos]
        for name in names:
            self.ack(client, name)
        return bool(names)

    def nack(self, client: Recipient, event_id: str, delay: float) -> bool:
        """
        C{client} refuses the event, and gets it again after C{delay} seconds; at once it is given up if that was its
        last send.  False if it owed no ack for it, or has refused it since it was sent.
        """
        old = client.owed.get(event_id)
        if old is None or old.refused:
            return False
        event, sends = old.event, old.sends
        again = Delivery(event, sends, self._now() + (delay if sends < self._max_attempts else 0.0))
        again.refused = True
        again.waiting = {client}
        if len(old.waiting) == 1 and old.weight:
            again.weight, old.weight = old.weight, 0
        else:
            again.weight = self._hold(event)
        self._strike(old, client)
        self.pending += 1
        client.owed[event_id] = again
        self._refused.put(again, again.due)
        self._counts.nacked += 1
        return True

    def forget(self, client: Recipient, event_id: str) -> None:
        """
        C{client} will receive the event again, and owes no ack for it until then.
        """
        self._settle(client, event_id)

    def release(self, client: Recipient) -> list[Tracked]:
        """
        C{client} leaves; return what it still owed an ack for, the oldest first.
        """
        owed, client.owed = client.owed, {}
        events = [delivery.event for delivery in owed.values()]
        self.pending -= len(events)
        for delivery in owed.values():
            delivery.waiting.remove(client)
            if not delivery.waiting:
                self._let_go(delivery)
        return events

    def late(self) -> Iterator[tuple[Recipient, tuple[bytes, ...]]]:
        """
        Yield the frames to send again, with their clients; no frames if the delivery is given up instead.  The queue
        may change in any way between two steps.
        """
        now, queue = self._now(), self._due
        for refused in self._refused.take(now):
            refused.refused = False
            queue.appendleft(refused)
        while queue and queue[0].due <= now:
            old = queue.popleft()
            event, waiting = old.event, old.waiting
            if old.sends >= self._max_attempts:
                while waiting:
                    client = waiting.pop()
                    if not waiting:
                        self._let_go(old)
                    del client.owed[event.id]
                    self.pending -= 1
                    self._give_up(client)
                    yield client, ()
                continue
            if not waiting:
                continue
            again: Delivery | None = None
            while waiting:
                client = waiting.pop()
                if not waiting:
                    self._let_go(old)
                if again is None or not again.waiting:
                    # the first one, or the first after all before it have left, acknowledged it or been crowded out
                    again = Delivery(event, old.sends + 1, now + self._ack_timeout)
                    if not old.weight:
                        self._make_room(event.size)
                    # the bytes are the same, and count once
                    again.weight, old.weight = old.weight or self._hold(event), 0
                    queue.append(again)
                again.waiting.add(client)
                client.owed[event.id] = again
                self._counts.retried += 1
                yield client, event.frames

    def _give_up(self, client: Recipient) -> None:
        if client.durable:
            self._counts.given_up += 1
        else:
            client.is_silent = True
            self._counts.never_acknowledged += 1

    def _settle(self, client: Recipient, event_id: str) -> bool:
        delivery = client.owed.pop(event_id, None)
        if delivery is None:
            return False
        self._strike(delivery, client)
        return True

    def _strike(self, delivery: Delivery, client: Recipient) -> None:
        """
        Remove C{client} from those that a delivery waits for.
        """
        delivery.waiting.remove(client)
        self.pending -= 1
        if not delivery.waiting:
            self._let_go(delivery)

    def _make_room(self, size: int) -> None:
        """
        Give up the oldest deliveries of those clients that hold most, until there is room for C{size} bytes.
        """
        if self.held + size <= self._max_bytes:
            return
        weights: dict[Recipient, int] = {}
        for delivery in chain(self._due, self._refused):
            for client in delivery.waiting:
                weights[client] = weights.get(client, 0) + delivery.event.size
        # some more than is needed, so that this is done seldom
        level = fair_level(weights.values(), max(0, self._max_bytes - self._max_bytes // 64 - size))
        for client, weight in weights.items():
            while weight > level:
                name, delivery = next(iter(client.owed.items()))
                weight -= delivery.event.size
                self._settle(client, name)
                self._give_up(client)
                self._crowded_out.add_of(client.name)

    def _hold(self, event: Tracked) -> int:
        self.held += event.size
        return event.size

    def _let_go(self, delivery: Delivery) -> None:
        """
        The delivery waits for no client any more: release its frames now, and the delivery itself soon, not when it is
        due.
        """
        self.held -= delivery.weight
        delivery.weight = 0
        delivery.event = _GONE
        # an empty set keeps the memory of its largest size
        delivery.waiting = _NOBODY
        if delivery.refused:
            self._refused.drop(delivery)
            return
        self._emptied += 1
        if self._emptied > _EMPTY_MIN + len(self._due) // 2:
            self._emptied = 0
            waiting = [one for one in self._due if one.waiting]
            # in place: a pass over it may be under way
            self._due.clear()
            self._due.extend(waiting)
