"""
What the connection of an agent leaves behind when it ends, what the agent's next connection receives, and what clients
resume (protocol, sections 4, 5 and 10).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from msgspec import Raw

from dcm_ws.core.agents import Absence, AgentMemory
from dcm_ws.core.catchup import CatchUp
from dcm_ws.core.changed import Changed
from dcm_ws.core.clients import Clients
from dcm_ws.core.counts import Counts
from dcm_ws.core.dead_letters import DeadLetters
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.entitlement import Rights
from dcm_ws.core.other_nodes import OtherNodes
from dcm_ws.core.ports import World
from dcm_ws.core.registry import ChannelRegistry
from dcm_ws.core.rights import demand_right_to_listen, demand_right_to_read, too_many_subscriptions
from dcm_ws.core.rules import Rules
from dcm_ws.core.session import Session
from dcm_ws.core.tracked import Owed, Tracked
from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.commands import Position
from dcm_ws.protocol.replies import authenticated_frame


class Resumption:
    """
    Moves subscriptions and deliveries from connections to their agents, and back.
    """

    def __init__(
        self,
        world: World,
        rules: Rules,
        counts: Counts,
        *,
        channels: Channels,
        registry: ChannelRegistry[Session],
        deliveries: DeliveryQueue,
        memory: AgentMemory,
        clients: Clients,
        letters: DeadLetters,
        catch_up: CatchUp,
        changed: Changed,
        other_nodes: OtherNodes,
    ) -> None:
        self._wall_ms = world.wall_ms
        self._max_subscriptions = rules.max_subscriptions
        self._limits = counts.limits
        self._sent = counts.sent
        self._log_counts = counts.log
        self._parse_channel = channels.parse
        self._registry = registry
        self._deliveries = deliveries
        self._memory = memory
        self._clients = clients
        self._shared = clients.shared
        self._letters = letters
        self._catch_up = catch_up
        self._changed = changed
        self._other_nodes = other_nodes
        self._elsewhere = clients.elsewhere

    def keep(self, session: Session, *, stays: bool = False) -> None:
        """
        Keep what C{session} leaves behind for the agent that is present by it, if there is one: another connection of
        the agent gets what it owed at once.

        @param stays: its connection goes on, as another agent's or as an observer's.
        """
        agent = session.present
        others = [] if agent is None else self._clients.others(session, agent)
        events = self._deliveries.release(session, forget=agent is None)
        waiting, places = self._catch_up.end(session, stays=stays)
        if agent is None:
            return
        self._changed.agent(agent)
        owed = {event.seq: Owed(event.id, event.sends, event.earlier) for event in events} | waiting
        redriven = self._letters.redriven_of(agent)
        if not others and agent in self._elsewhere:
            self._other_nodes.left(agent, events, places)
            return
        if not others:
            for pos in redriven.keys() & owed.keys():
                # it waits where it is
                one = owed.pop(pos)
                self._letters.sent(redriven[pos], one.sends + one.earlier)
            kept = {pos: Owed(owed[pos].id, 0, owed[pos].sends + owed[pos].earlier) for pos in sorted(owed)}
            absence = Absence(places, kept, session.durable, self._wall_ms())
            self._memory.left(agent, absence, session.client_id)
            return
        if agent not in self._elsewhere:
            self._memory.remember(agent, frozenset(places), session.client_id, durable=session.durable)
        for pos in redriven.keys() & owed.keys():
            owed[pos] = owed[pos]._replace(event=redriven[pos].event)
        # the last one is the one that the agent opened when the others seemed dead
        heir = others[-1]
        if heir is next(reversed(self._clients.connections[agent])):
            # it has taken over what waited in its channels
            since = self._registry.since(heir)
            places = {name: pos for name, pos in places.items() if name not in since}
        self.inherit(heir, owed, places)

    def inherit(self, heir: Session, owed: Mapping[int, Owed], places: Mapping[str, int]) -> None:
        """
        Have a connection get what another one of its agent, which has ended, owed and was not sent.

        @param places: the position in each channel of that one after which it was not sent everything.
        """
        since, head = self._registry.since(heir), self._catch_up.head
        # what waits in the log for that one and not for the heir, which is not subscribed, or was not yet
        spans = {name: (pos, min(since.get(name, head), head)) for name, pos in places.items()}
        self._hand_over(heir, owed, {name: (pos, upto) for name, (pos, upto) in spans.items() if pos < upto})

    def _hand_over(
        self, heir: Session, owed: Mapping[int, Owed], inherited: Mapping[str, tuple[int, int]] | None = None
    ) -> None:
        waiting = heir.behind.owed if heir.behind is not None else {}
        new = {pos: one for pos, one in owed.items() if one.id not in heir.owed and pos not in waiting}
        if new or inherited:
            self._log_counts.takeovers += 1
            self._catch_up.begin(heir, owed=new, inherited=inherited)

    def pass_on(self, session: Session, event: Tracked, deliveries: int) -> None:
        """
        What a durable agent has not acknowledged on an old connection when it is sent there for the last time goes to
        its newest one as well, unless that one owes an ack for it, too: the old one may be dead.

        @param deliveries: how often it was sent.
        """
        agent = session.present
        if agent in self._shared and session.durable:
            newest = next(reversed(self._clients.connections[agent]))
            if newest is not session:
                self._hand_over(newest, {event.seq: Owed(event.id, deliveries - event.earlier, event.earlier)})

    def make_durable(self, session: Session) -> None:
        """
        C{session} has acknowledged something, or said that it will.  That holds for all connections of its agent.
        """
        if session.observer:
            return
        sessions = [session]
        if session.agent is not None:
            sessions += self._clients.others(session, session.agent)
        for one in sessions:
            one.durable = True
            one.is_silent = False
        self._changed.agent(session.agent)

    def take_over(self, session: Session, agent: str, *, says_durable: bool) -> None:
        """
        C{session} has authenticated as C{agent}: if the one is durable, so is the other.

        @param says_durable: it said so just now.
        """
        others = self._clients.others(session, agent)
        known = self._memory.is_durable(agent) or any(other.durable for other in others)
        # an agent that has dead letters was durable once
        if known or says_durable or session.durable or self._letters.redriven_of(agent):
            self.make_durable(session)

    def restore(self, session: Session, agent: str) -> Absence | None:
        """
        C{agent} is present by C{session}, and was not before: subscribe it to what the agent left behind, as far as
        the limit allows.

        @return: what else there is for it; None if nothing is known of the agent.
        """
        absence = self._memory.returned(agent)
        # in order: what the limit leaves out should be the same every time
        for channel in sorted(filter(session.rights.may_read, absence.channels if absence else ())):
            mine = self._registry.channels(session)
            if channel not in mine and len(mine) >= self._max_subscriptions:
                self._limits.max_subscriptions.add()
                break
            self._registry.join(session, channel)
        owed = dict(absence.owed) if absence else {}
        known = len(owed)
        for other in self._clients.others(session, agent):
            for delivery in other.owed.values():
                event = delivery.event
                owed[event.seq] = Owed(event.id, delivery.sends, event.earlier)
            if other.behind is not None:
                owed |= other.behind.owed
        if len(owed) > known:
            self._log_counts.takeovers += 1
        for pos, letter in self._letters.redriven_of(agent).items():
            taken_over = owed.get(pos, Owed(letter.event.id, 0, letter.deliveries))
            owed[pos] = taken_over._replace(event=letter.event)
        if absence is None and not owed:
            return None
        places = {} if absence is None else absence.channels
        return Absence(places, owed, session.durable)

    def give(self, session: Session, absence: Absence) -> None:
        """
        What the agent of C{session} left behind was not known when it connected: it gets that now.
        """
        for channel in sorted(filter(session.rights.may_read, absence.channels)):
            if len(self._registry.channels(session)) < self._max_subscriptions:
                self._registry.join(session, channel)
        self._settle_in(session, absence, absence.channels)

    def settle_in(self, session: Session, absence: Absence) -> None:
        """
        The agent of C{session} was at another node meanwhile, and is back: C{session} gets what the agent left behind
        there, as if another connection of it had ended here.
        """
        since, places = self._registry.since(session), self._catch_up.places(session)[1]
        missed = {name: pos for name, pos in absence.channels.items() if name in since and pos < places[name]}
        head = self._catch_up.head
        inherited = {name: (pos, head) for name, pos in absence.channels.items() if name not in since and pos < head}
        self._settle_in(session, absence, missed, inherited)

    def _settle_in(
        self,
        session: Session,
        absence: Absence,
        missed: Mapping[str, int],
        inherited: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        if absence.durable:
            self.make_durable(session)
        # what it has been sent it still has time to acknowledge
        owed = {pos: one for pos, one in absence.owed.items() if one.id not in session.owed}
        for pos, letter in self._letters.redriven_of(session.name).items():
            owed[pos] = Owed(letter.event.id, 0, letter.deliveries, letter.event)
        self._catch_up.begin(session, missed=missed, owed=owed, inherited=inherited)

    def subscribed(self, session: Session, channel: str) -> None:
        """
        C{session} has subscribed to a channel: if the tracked events of that still wait for another connection of its
        agent, it takes them over, before all that is published there from now on.
        """
        missed = self._waiting(session, {channel})
        if missed:
            self._log_counts.takeovers += 1
            self._catch_up.begin(session, missed=missed)
        if session.present in self._elsewhere:
            self._tell_other_nodes(session, {channel})

    def _tell_other_nodes(self, session: Session, channels: Iterable[str]) -> None:
        assert session.present is not None
        since = self._registry.since(session)
        self._other_nodes.subscribed(session.present, {name: since[name] for name in channels})

    def _waiting(self, session: Session, channels: Set[str]) -> dict[str, int]:
        agent = session.present
        if agent not in self._shared:
            return {}
        return self._catch_up.waiting(self._clients.others(session, agent), channels)

    def resume(
        self,
        session: Session,
        position: Position | None,
        absence: Absence | None,
        request: Raw,
        *,
        known: Set[str] | None = None,
    ) -> None:
        """
        Send C{session} the ack of an C{auth} or a C{resume}, and what follows it in one pass: what its agent owes and
        has missed, and what it asks for.

        @param position: what it asks for, which L{check} has allowed.
        @param absence: what its agent left behind.
        @param known: the channels to which it was subscribed before as a connection of its agent; None for those to
            which it is subscribed now.
        """
        if known is None:
            known = frozenset(self._registry.channels(session))
        gap = None
        resumed: dict[str, int] = {}
        if position is not None:
            self._changed.agent(session.present)
            for name in position.channels:
                self._registry.join(session, name)
            if session.present in self._elsewhere:
                self._tell_other_nodes(session, position.channels)
            resumed = dict.fromkeys(position.channels, position.pos)
            gap = self._catch_up.gap(position.epoch, position.pos, resumed)
            if gap is not None:
                self._log_counts.gaps += 1
                resumed = {}
        self._sent.ack += 1
        place = self._catch_up.place(session)
        subscriptions = sorted(self._registry.channels(session))
        wants = position is not None
        now_ms = self._wall_ms()
        session.peer.send(authenticated_frame(request, subscriptions, now_ms, place, resumed=wants, gap=gap))
        waiting = self._waiting(session, self._registry.channels(session) - known)
        if absence is not None or resumed or waiting:
            missed = dict(absence.channels) if absence is not None else {}
            for name, pos in waiting.items():
                missed[name] = min(pos, missed.get(name, pos))
            owed = absence.owed if absence is not None else {}
            if any(pos < self._catch_up.head for pos in (*missed.values(), *resumed.values())) or owed:
                self._catch_up.begin(session, resumed=resumed, missed=missed, owed=owed)

    def check(self, session: Session, position: Position, rights: Rights | None = None) -> None:
        """
        May C{session} subscribe to all channels that it resumes?

        @param rights: those that it has when it has authenticated, which it is about to do; None for those that it has.
        @raise ProtocolError: C{INVALID_CHANNEL}, C{NOT_AUTHORIZED} or C{TOO_MANY_SUBSCRIPTIONS}.
        """
        mine, names = self._registry.channels(session), position.channels
        most = max(len(mine), self._max_subscriptions)
        # a message has room for many more names than may be read in one turn
        if len(names) <= most:
            for name in names:
                channel = self._parse_channel(name)
                if rights is None:
                    demand_right_to_listen(session, channel)
                else:
                    demand_right_to_read(rights, channel)
        if len(names) > most or len(mine | set(names)) > most:
            self._limits.max_subscriptions.add()
            raise too_many_subscriptions(self._max_subscriptions)
