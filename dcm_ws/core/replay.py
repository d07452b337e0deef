"""
What a client that catches up gets: events of the log, events that its agent owes an ack for, and gaps, in the order of
their positions (protocol, section 10).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from dcm_ws.core.behind import NEVER, Behind
from dcm_ws.core.clients import Clients
from dcm_ws.core.counts import Counts
from dcm_ws.core.dead_letters import POISON
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.entitlement import Rights
from dcm_ws.core.entries import Entry, Page
from dcm_ws.core.giving_up import GivingUp
from dcm_ws.core.ledger import Ledger
from dcm_ws.core.ports import Log
from dcm_ws.core.registry import ChannelRegistry
from dcm_ws.core.rights import may_receive
from dcm_ws.core.session import Session
from dcm_ws.core.tracked import Tracked
from dcm_ws.protocol.channels import GLOBAL, is_private
from dcm_ws.protocol.replies import Gap, gap_frame, place_fields

_GLOBAL = GLOBAL.name
_PAGE = 256


class Replay:
    """
    Makes the frames for clients that catch up.

    @param max_pending: deliveries that may be in flight to a client.
    @param wait: called when that many are in flight to some client: see L{CatchUp.wait
        <dcm_ws.core.catchup.CatchUp.wait>}.
    """

    def __init__(
        self,
        counts: Counts,
        *,
        log: Log,
        clients: Clients,
        registry: ChannelRegistry[Session],
        deliveries: DeliveryQueue,
        giving_up: GivingUp,
        ledger: Ledger,
        max_pending: int,
        wait: Callable[[], object],
    ) -> None:
        self._sent = counts.sent
        self._counts = counts.log
        self._log = log
        self._behind = clients.behind
        self._registry = registry
        self._deliveries = deliveries
        self._giving_up = giving_up
        self._ledger = ledger
        self._max_pending = max_pending
        self._wait = wait

    def tell_gap(self, reason: str) -> bytes:
        """
        The frame that tells a client that it may have missed something, and why.
        """
        self._counts.gaps += 1
        return gap_frame(Gap(reason, self._log.first), place_fields(self._log.epoch, self._log.head))

    def frames(self, session: Session, behind: Behind) -> Iterator[bytes | None]:
        """
        What C{session} gets, until nothing is left: then it is not behind any more.  Nothing is sent while there is no
        room in flight.
        """
        while session.behind is behind:
            if not self._fill(session, behind):
                yield b""
                continue
            if behind.lost > behind.told:
                yield self._tell_loss(behind, behind.lost)
                continue
            if self._is_full(session, behind):
                yield b""
                continue
            if not behind.page:
                if behind.upto < self._log.head:
                    continue
                if not behind.owed:
                    session.behind = None
                    self._behind.discard(session)
                    return
            pos = next(iter(behind.owed), None)
            if pos is None or (behind.page and behind.page[0].pos < pos):
                event, tracked = self._next(session, behind)
            elif not self._find(session, behind, pos):
                yield b""
                continue
            else:
                frame = self._next_owed(session, behind, pos)
                if frame:
                    yield frame
                continue
            if event.frames:
                yield self._send(session, event, tracked)
            elif not behind.page:
                # a log full of events that are not for the client must not stop the others
                yield None

    def _next_owed(self, session: Session, behind: Behind, pos: int) -> bytes:
        """
        What C{session} gets of the next event that its agent has not acknowledged; nothing if it gets it no more.
        """
        owed, entry = behind.owed.pop(pos), behind.found.get(pos)
        if behind.page and behind.page[0].pos == pos:
            behind.page.popleft()
        behind.after = max(behind.after, pos)
        if owed.event is not None:
            event = owed.event._replace(sends=owed.sends, earlier=owed.earlier)
        elif entry is not None and entry.frame:
            event = Tracked(pos, entry.id, self._frames_of(session, entry), owed.sends, owed.earlier)
        else:
            return self._lose(session, behind, pos)
        if not event.frames or not may_receive(session.rights, event):
            self._giving_up.give_up(session, event, owed.sends + owed.earlier, "rights")
            return b""
        if session.durable and owed.sends + owed.earlier >= POISON:
            self._giving_up.give_up(session, event, owed.sends + owed.earlier, "poison")
            return b""
        return self._send(session, event, tracked=True)

    def _frames_of(self, session: Session, entry: Entry) -> tuple[bytes, ...]:
        """
        What a client with these subscriptions gets of an event that its agent owes an ack for; what the subscribers of
        its channel get, if it is not subscribed to anything that has it any more.
        """
        since = self._registry.since(session)
        frames: tuple[bytes, ...] = (entry.mirror,) if entry.mirrored and _GLOBAL in since else ()
        return frames if frames and entry.channel not in since else (entry.frame, *frames)

    def _send(self, session: Session, event: Tracked, tracked: bool) -> bytes:
        if tracked and not session.observer:
            self._deliveries.forget(session, event.id)
            last = next(reversed(session.owed.values()), None)
            if last is not None and last.event.seq > event.seq:
                session.owes_in_order = False
            self._deliveries.sent(event, {session})
            if self._deliveries.full:
                self._wait()
        else:
            self._ledger.sent_to(session, event.seq)
        self._sent.again += len(event.frames)
        return b"".join(event.frames)

    def _lose(self, session: Session, behind: Behind, pos: int) -> bytes:
        """
        What is owed at C{pos} has left the log, and maybe more with it: that is one gap.
        """
        last = pos
        self._giving_up.count(session)
        for other, entry in behind.found.items():
            if other in behind.owed and (entry is None or not entry.frame) and behind.owed[other].event is None:
                del behind.owed[other]
                self._giving_up.count(session)
                last = other
        return self._tell_loss(behind, last) if last > behind.told else b""

    def _tell_loss(self, behind: Behind, lost: int) -> bytes:
        """
        @param lost: the last position that is gone.  If events beyond it leave the log later, there is another gap.
        """
        behind.told = lost
        return self.tell_gap("expired")

    def _find(self, session: Session, behind: Behind, pos: int) -> bool:
        """
        Look up in the log what is owed from C{pos} on.  False if the log has not answered yet, or could not.
        """
        if pos in behind.found or behind.owed[pos].event is not None:
            return True
        if behind.finding is None:
            positions = behind.to_find(_PAGE)
            finding = behind.finding = object()

            later = False

            def ready(found: Mapping[int, Entry] | None) -> None:
                if behind.finding is not finding:
                    # more is owed since
                    return
                behind.finding = None
                if found is not None:
                    behind.found = {pos: found.get(pos) for pos in positions}
                    if later:
                        session.peer.go_on()

            self._log.find(positions, ready)
            later = True
        return pos in behind.found

    def _fill(self, session: Session, behind: Behind) -> bool:
        """
        Have the next page of the log, or none if the client has everything up to the head.  False if the log has not
        answered yet, or could not: then it is asked again at the next look.
        """
        if behind.lost > behind.told:
            # it has to be told before it goes on
            return True
        if behind.page:
            if behind.page[0].frame:
                return True
            # it has left the log since it was read
            behind.read_again()
        elif behind.upto >= 0:
            behind.after = max(behind.after, behind.upto)
            if behind.upto >= self._log.head:
                return True
            behind.upto = -1
        if behind.reading is None:
            self._read(session, behind)
        return behind.upto >= 0

    def _read(self, session: Session, behind: Behind) -> None:
        reading = behind.reading = object()
        later = False

        def ready(page: Page | None) -> None:
            if behind.reading is not reading:
                # the client's place was moved
                return
            behind.reading = None
            if page is not None:
                behind.page.extend(page.entries)
                behind.upto, behind.lost = page.upto, page.lost
                if later:
                    session.peer.go_on()

        lanes = behind.lanes(self._registry.since(session))
        # a page costs what it has, and the number of channels: with many channels it has more
        self._log.page(behind.after, lanes, max(_PAGE, 2 * len(lanes)), ready)
        later = True

    def _is_full(self, session: Session, behind: Behind) -> bool:
        if session.is_silent:
            return False
        owed = len(session.owed)
        if owed >= self._max_pending:
            behind.go_on = min(behind.go_on, self._max_pending * 3 // 4)
        elif owed <= behind.go_on:
            behind.go_on = NEVER
        return owed > behind.go_on

    def _next(self, session: Session, behind: Behind) -> tuple[Tracked, bool]:
        """
        The next event, without frames if the client does not get it, and whether it is tracked.
        """
        entry = behind.as_owed(behind.page.popleft())
        behind.after = entry.pos
        frames: tuple[bytes, ...] = ()
        if _hides(session.rights, entry):
            return Tracked(entry.pos, entry.id, frames), entry.tracked
        since = self._registry.since(session)
        name, inherited = entry.channel, behind.inherited
        if (name in since and behind.wants(entry, name, since[name])) or (
            inherited and behind.inherits(entry, name) and session.rights.may_read(name)
        ):
            frames = (entry.frame,)
        if entry.mirrored and (
            (_GLOBAL in since and behind.wants(entry, _GLOBAL, since[_GLOBAL]))
            or (inherited and behind.inherits(entry, _GLOBAL) and session.rights.may_read(_GLOBAL))
        ):
            frames += (entry.mirror,)
        return Tracked(entry.pos, entry.id, frames), entry.tracked


def _hides(rights: Rights, entry: Entry) -> bool:
    """
    Is an event private to others, so that a client with these rights must not get it on C{global} either?
    """
    return rights.strict and is_private(entry.named) and not rights.may_read(entry.named)
