"""
Clients that catch up with the log: what they missed, what their agent owes, and what is too much to be in flight
(protocol, sections 4 and 10).

While a client catches up, new events of its channels wait in the log and not in its connection's queue.  The connection
takes them in the order of the log, as fast as the client reads and acknowledges; the turn in which nothing is left is
the one from which on the client gets events directly again, so nothing is missing and nothing comes twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from dcm_ws.core.behind import NEVER, Behind
from dcm_ws.core.changed import Changed
from dcm_ws.core.clients import Clients
from dcm_ws.core.counts import Counts
from dcm_ws.core.delivery import CROWDED, DeliveryQueue
from dcm_ws.core.giving_up import GivingUp
from dcm_ws.core.ledger import Ledger
from dcm_ws.core.ports import Log
from dcm_ws.core.registry import ChannelRegistry
from dcm_ws.core.replay import Replay
from dcm_ws.core.session import Session
from dcm_ws.core.tracked import Owed
from dcm_ws.protocol.replies import Gap, place_fields


class CatchUp:
    """
    Knows how far each client is, and has those that are behind get what is in the log for them.
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
        changed: Changed,
        ledger: Ledger,
        max_pending: int,
    ) -> None:
        self._counts = counts.log
        self._log = log
        self._behind = clients.behind
        self._registry = registry
        self._deliveries = deliveries
        self._giving_up = giving_up
        self._changed = changed
        self._replay = Replay(
            counts,
            log=log,
            clients=clients,
            registry=registry,
            deliveries=deliveries,
            giving_up=giving_up,
            ledger=ledger,
            max_pending=max_pending,
            wait=self.wait,
        )

    @property
    def knows_log(self) -> bool:
        """
        False until it is found which log there is.
        """
        return self._log.is_known

    @property
    def head(self) -> int:
        """
        The last position of the log.
        """
        return self._log.head

    def place(self, session: Session) -> bytes:
        """
        The fields that tell C{session} how far it is.
        """
        return place_fields(self._log.epoch, self.sent_upto(session))

    def sent_upto(self, session: Session) -> int:
        """
        The position up to which C{session} has been sent everything.
        """
        behind = session.behind
        return self._log.head if behind is None else min(behind.after, self._log.head)

    def new_epoch(self) -> bytes:
        """
        The frame that tells a client that the log has become another one.
        """
        return self._replay.tell_gap("epoch")

    def gap_of_rights(self) -> bytes:
        """
        The frame that tells a client that it has been unsubscribed from channels, because its new token does not allow
        them.
        """
        return self._replay.tell_gap("rights")

    def gap(self, epoch: str, pos: int, channels: Mapping[str, int]) -> Gap | None:
        """
        Why a client that has everything up to C{pos} cannot go on from there; None if it can.
        """
        log = self._log
        if epoch != log.epoch:
            return Gap("epoch", log.first)
        if pos > log.head:
            return Gap("ahead", log.first)
        return None if log.complete(pos, channels) else Gap("expired", log.first)

    def begin(
        self,
        session: Session,
        *,
        live: int | None = None,
        resumed: Mapping[str, int] | None = None,
        missed: Mapping[str, int] | None = None,
        owed: Mapping[int, Owed] | None = None,
        inherited: Mapping[str, tuple[int, int]] | None = None,
        go_on: int = NEVER,
    ) -> None:
        """
        Send C{session} some things from the log, before all events that are still to come.

        @param live: up to where it has been sent the events of its subscriptions; None for the end of the log.
        @param resumed: the positions that it has in some channels.
        @param missed: the position in each channel after which it gets tracked events.
        @param owed: what its agent has not acknowledged, by position.
        @param inherited: as in L{Behind}.
        @param go_on: as in L{Behind}.
        """
        self._changed.agent(session.present)
        behind = session.behind
        begins = behind is None
        if behind is None:
            session.behind = behind = Behind(self._log.head if live is None else live)
            self._behind.add(session)
        else:
            behind.move_back(self._registry.since(session))
        behind.go_on = min(behind.go_on, go_on)
        behind.resumed.update(resumed or {})
        behind.missed.update(missed or {})
        behind.inherit(inherited or {})
        if owed:
            behind.owe(owed)
        places = (*(resumed or {}).values(), *(missed or {}).values(), *(pos for pos, _ in (inherited or {}).values()))
        behind.after = min(behind.after, *places) if places else behind.after
        if begins:
            self._counts.replays += 1
            session.peer.replay(self._replay.frames(session, behind))

    def leave(self, session: Session, channel: str) -> None:
        """
        Unsubscribe C{session} from a channel.
        """
        self._changed.agent(session.present)
        self._registry.leave(session, channel)
        if session.behind is not None:
            session.behind.leave(channel)

    def wait(self) -> None:
        """
        Have the clients to which so much is in flight that they get no more catch up from there.
        """
        full = self._deliveries.full
        while full:
            session, pos = full.popitem()
            assert isinstance(session, Session)
            if pos == CROWDED:
                # until it has acknowledged a quarter of what it holds
                self.begin(session, go_on=len(session.owed) * 3 // 4)
            elif session.behind is None:
                self.begin(session, live=pos)
        dropped, self._deliveries.dropped = self._deliveries.dropped, []
        for client, _, event, deliveries in dropped:
            assert isinstance(client, Session)
            self._giving_up.give_up(client, event, deliveries, "overflow")

    def places(self, session: Session) -> tuple[int, dict[str, int]]:
        """
        The position up to which C{session} has been sent everything, and that in each of its channels.
        """
        subscriptions, behind, head = self._registry.since(session), session.behind, self._log.head
        if behind is None:
            return head, dict.fromkeys(subscriptions, head)
        after = min(behind.after, head)
        return after, {name: max(after, since) for name, since in behind.lanes(subscriptions).items()}

    def waiting(self, others: Sequence[Session], channels: Set[str]) -> dict[str, int]:
        """
        The position in each of some channels after which something waits for other connections of an agent, so that one
        which is subscribed there now has to be sent it first.  What those have resumed is for them alone.

        @param others: these connections, the oldest first.
        """
        places: dict[str, int] = {}
        for other in reversed(others):
            if other.behind is not None:
                after, lanes = other.behind.after, other.behind.lanes(self._registry.since(other), resumed=False)
                for name in channels & lanes.keys():
                    pos = max(after, lanes[name])
                    if pos < self._log.head:
                        places[name] = min(pos, places.get(name, pos))
            # what waits there for the older ones it had taken over itself
            channels = channels - self._registry.channels(other)
        return places

    def end(self, session: Session, *, stays: bool = False) -> tuple[dict[int, Owed], dict[str, int]]:
        """
        C{session} is not a connection of its agent any more: what it has not been sent of what its agent owed, and the
        position in each of its channels after which it has not been sent anything.

        @param stays: it goes on without the agent, and gets what else waits for it.
        """
        behind, (_, places) = session.behind, self.places(session)
        if behind is None:
            return {}, places
        owed = behind.owed
        if stays:
            behind.owed, behind.missed, behind.inherited = {}, {}, {}
        else:
            session.behind = None
            self._behind.discard(session)
        return owed, places

    def disown(self, session: Session) -> None:
        """
        Another node has the agent of C{session}, and sends what the agent owes.  What the agent has missed is still
        sent here as well, or it would come after newer events.
        """
        if session.behind is not None:
            session.behind.owed = {}
