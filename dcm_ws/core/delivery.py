"""
Tracked events that await an ack, and which of them are due to be sent again (protocol, section 4).

One L{Delivery} covers all clients that were sent the same frames at the same time.  All time-outs are equal, so
the order of sending is the order of due times, and a plain queue has the earliest in front.  Only what a client refuses
is due when the client says so; that is in a schedule of its own.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Set
from itertools import chain

from dcm_ws.core.changed import Changed
from dcm_ws.core.counts import Counts
from dcm_ws.core.fairness import fair_level
from dcm_ws.core.ledger import Ledger, Noted
from dcm_ws.core.schedule import Schedule
from dcm_ws.core.tracked import Delivery, Late, Recipient, Tracked

_GONE = Tracked(0, "", ())
_NOBODY: set[Recipient] = set()
CROWDED = -1
"""
In place of a position: the client has been sent everything, and holds too much of what all clients may hold.
"""
PAIR_BYTES = 64
"""
Bytes that one delivery takes of one client, in addition to the frames, which all clients share.
"""

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
    @param changed: receives the clients whose deliveries change.
    @param ledger: notes what is sent and acknowledged.
    @param ack_timeout: seconds.
    @param max_attempts: sends in all.
    @param max_pending: unacknowledged deliveries of a client, after which it has to get no more; of one that has never
        acknowledged anything although it has had time to, the oldest is given up.
    @param max_bytes: maximum bytes of frames held, and some for each client of each delivery, in all; beyond it the
        agents that hold most have to get no more; if it is a quarter more, they lose their oldest deliveries.

    @ivar pending: deliveries awaiting an ack, one for each client and event.
    @ivar full: clients that have to get no more for now, with the position of the last event that they were sent, or
        L{CROWDED}.  The caller empties it, and C{dropped} then.
    @ivar dropped: what durable clients lost, because far too much was held.
    @ivar held: bytes of frames held now.
    """

    def __init__(
        self,
        now: Callable[[], float],
        counts: Counts,
        changed: Changed,
        ledger: Ledger,
        *,
        ack_timeout: float,
        max_attempts: int,
        max_pending: int,
        max_bytes: int,
    ) -> None:
        self._now = now
        self._counts = counts.deliveries
        self._changed = changed
        self._ledger = ledger
        self._overflowed = counts.limits.max_pending
        self._crowded_out = counts.limits.max_pending_bytes
        self._ack_timeout = ack_timeout
        self._max_attempts = max_attempts
        self._max_pending = max_pending
        self._max_bytes = max_bytes
        self._due: deque[Delivery] = deque()
        self._refused: Schedule[Delivery] = Schedule(_RESOLUTION)
        self._emptied = 0
        # bytes held at which to look again for those who hold most
        self._look_at = max_bytes
        self.full: dict[Recipient, int] = {}
        self.dropped: list[Late] = []
        self.held = 0
        self.pending = 0

    @property
    def used(self) -> int:
        """
        Bytes that count for the limit: many small events of many clients take more than their frames.
        """
        return self.held + PAIR_BYTES * self.pending

    def sent(self, event: Tracked, audience: Set[Recipient]) -> None:
        """
        C{event} has just gone out to C{audience}, of which none owed an ack for it before.
        """
        now = self._now()
        delivery = Delivery(event, event.sends + 1, now + self._ack_timeout)
        delivery.waiting = waiting = set(audience)
        self._ledger.sent(event.seq, waiting, now)
        changed = self._changed.clients
        if changed is not None:
            changed.update(waiting)
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
            self._drop_oldest(client)
            self._overflowed.add()
        # as in L{used}
        if self.held + PAIR_BYTES * self.pending > self._max_bytes:
            self._make_room()

    def ack(self, client: Recipient, event_id: str, at: float | None = None) -> bool:
        """
        C{client} has acknowledged the event.  False if it owed no ack for it.

        @param at: when that arrived (monotonic seconds), if not with what C{client} sent last.
        """
        delivery = client.owed.pop(event_id, None)
        if delivery is None:
            return False
        changed = self._changed.clients
        if changed is not None:
            changed.add(client)
        number = client.number
        if number:
            if at is None:
                at = client.heard_at
            acks = delivery.acks
            if acks is not None and at < acks.until:
                acks.numbers.append(number)
            else:
                if acks is None:
                    acks = delivery.acks = Noted()
                self._ledger.acked(number, acks, delivery.event.seq, at)
        # as L{_strike} does: acks come by the thousand
        waiting = delivery.waiting
        waiting.remove(client)
        self.pending -= 1
        if not waiting:
            self._let_go(delivery)
        self._counts.acked += 1
        return True

    def ack_all(self, client: Recipient, pos: int, at: float | None = None) -> bool:
        """
        C{client} has acknowledged all events up to a position.  False if it owed no ack for any of them.

        @param at: as in L{ack}.
        """
        names: list[str] = []
        for name, delivery in client.owed.items():
            if delivery.event.seq <= pos:
                names.append(name)
            elif client.owes_in_order:
                # one that acknowledges each of its events this way must not have all of them looked at each time
                break
        for name in names:
            self.ack(client, name, at)
        client.owes_in_order = client.owes_in_order or not client.owed
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
        self._change(client)
        self._refused.put(again, again.due)
        self._counts.nacked += 1
        return True

    def forget(self, client: Recipient, event_id: str) -> None:
        """
        C{client} will receive the event again, and owes no ack for it until then.
        """
        self._settle(client, event_id)

    def release(self, client: Recipient, *, forget: bool = False) -> list[Tracked]:
        """
        C{client} leaves; return what it still owed an ack for, and how often that was sent, the oldest first.

        @param forget: nobody wants to know; nothing is returned.
        """
        owed, client.owed = client.owed, {}
        events = [] if forget else [one.event._replace(sends=one.sends) for one in owed.values()]
        self.pending -= len(owed)
        for delivery in owed.values():
            delivery.waiting.remove(client)
            if not delivery.waiting:
                self._let_go(delivery)
        return events

    def clear(self) -> None:
        """
        Forget everything.  The caller has emptied what each client owes.
        """
        # not in place: a pass over it may be under way, and ends then
        self._due = deque()
        self._refused.clear()
        self.full.clear()
        self.dropped.clear()
        self.held = self.pending = self._emptied = 0
        self._look_at = self._max_bytes

    def late(self) -> Iterator[Late | None]:
        """
        Yield what is due.  The queue may change in any way between two steps.

        A client that has not read yet what it was sent cannot have acknowledged it: what it owes is put off, and None
        comes in its place.
        """
        now, queue = self._now(), self._due
        for refused in self._refused.take(now):
            refused.refused = False
            queue.appendleft(refused)
        while queue is self._due and queue and queue[0].due <= now:
            old = queue.popleft()
            event, waiting = old.event, old.waiting
            later: Delivery | None = None
            if old.sends >= self._max_attempts:
                while waiting and queue is self._due:
                    client = waiting.pop()
                    if not waiting:
                        self._let_go(old)
                    if client.has_unsent:
                        later = self._sent_again(client, event, old, later, old.sends, now)
                        yield None
                        continue
                    del client.owed[event.id]
                    self._change(client)
                    self.pending -= 1
                    client.is_silent = not client.durable
                    yield Late(client, (), event, old.sends + event.earlier)
                continue
            if not waiting:
                continue
            again: Delivery | None = None
            noted = Noted()
            while waiting and queue is self._due:
                client = waiting.pop()
                if not waiting:
                    self._let_go(old)
                if client.has_unsent:
                    later = self._sent_again(client, event, old, later, old.sends, now)
                    yield None
                    continue
                again = self._sent_again(client, event, old, again, old.sends + 1, now)
                self._counts.retried += 1
                if client.number:
                    if now < noted.until:
                        noted.numbers.append(client.number)
                    else:
                        self._ledger.resent(client.number, noted, event.seq, now)
                is_last = again.sends >= self._max_attempts
                yield Late(client, event.frames, event, again.sends + event.earlier if is_last else 0)

    def _sent_again(
        self, client: Recipient, event: Tracked, old: Delivery, again: Delivery | None, sends: int, now: float
    ) -> Delivery:
        """
        C{client} owes an ack from now on.

        @param again: the delivery of the clients before it.
        """
        if again is None or not again.waiting:
            # the first one, or the first after all before it have left, acknowledged it or been crowded out
            again = Delivery(event, sends, now + self._ack_timeout)
            # the bytes are the same, and count once
            again.weight, old.weight = old.weight or self._hold(event), 0
            self._due.append(again)
        again.waiting.add(client)
        client.owed[event.id] = again
        self._change(client)
        return again

    def _change(self, client: Recipient) -> None:
        if self._changed.clients is not None:
            self._changed.clients.add(client)

    def _settle(self, client: Recipient, event_id: str) -> bool:
        delivery = client.owed.pop(event_id, None)
        if delivery is None:
            return False
        self._change(client)
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

    def _make_room(self) -> None:
        """
        Have those clients get no more that hold most, all clients of an agent together.  What they hold is
        acknowledged or given up soon, so they lose nothing, unless there is a quarter too much; only those that never
        acknowledge anything lose their oldest deliveries at once.
        """
        if self.used < self._look_at:
            return
        weights: defaultdict[str, int] = defaultdict(int)
        clients: dict[Recipient, None] = {}
        for delivery in chain(self._due, self._refused):
            for client in delivery.waiting:
                clients[client] = None
                weights[client.name] += delivery.event.size + PAIR_BYTES
        level = fair_level(weights.values(), self._max_bytes - self._max_bytes // 64)
        far_too_much = self.used > self._max_bytes + self._max_bytes // 4
        for client in clients:
            name = client.name
            if weights[name] <= level:
                continue
            self._crowded_out.add_of(name)
            if not client.is_silent:
                self.full.setdefault(client, CROWDED)
            while (client.is_silent or far_too_much) and client.owed and weights[name] > level:
                weights[name] -= self._drop_oldest(client)
        if self.used > self._max_bytes:
            # to look again costs much, and changes little before there is much more
            self._look_at = self.used + self._max_bytes // 64 + 1

    def _drop_oldest(self, client: Recipient) -> int:
        """
        Give up the oldest delivery of a client, and return its bytes.
        """
        name, delivery = next(iter(client.owed.items()))
        event = delivery.event
        if client.durable:
            self.dropped.append(Late(client, (), event, delivery.sends + event.earlier))
        else:
            self._counts.never_acknowledged += 1
        self._settle(client, name)
        return event.size + PAIR_BYTES

    def _hold(self, event: Tracked) -> int:
        self.held += event.size
        return event.size

    def _let_go(self, delivery: Delivery) -> None:
        """
        The delivery waits for no client any more: release its frames now, and the delivery itself soon, not when it is
        due.
        """
        self.held -= delivery.weight
        if self._look_at > self._max_bytes and self.used <= self._max_bytes:
            self._look_at = self._max_bytes
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
