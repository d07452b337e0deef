"""
Any clients doing anything: what the core does is compared with a plain model of what the protocol says.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import count, zip_longest
from operator import itemgetter
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.session import Origin, Session
from dcm_ws.protocol.errors import CloseCode, ErrorCode, ProtocolError
from dcm_ws.protocol.tokens import sign
from tests.core.living import finish
from tests.examples import NIGHTLY, examples
from tests.fakes import SECRET, RecordingPeer, make_core
from tests.fakes import Client as FakeClient

AGENTS = ("ann", "bob")
CHANNELS = ("global", "metrics", "agents/ann", "agents/bob", "sessions/s", "topics/t", "topics/t/u")
TRACKED = ("task.created", "message.new")
LOGGED = (*TRACKED, "session.created")
EVENTS = (*LOGGED, "system.info", "agent.heartbeat")
RESERVED = ("system.info",)
EPOCH = "epoch"
MAX_PENDING = 3
POISON = 15
MAX_SUBSCRIPTIONS = 4

Message = tuple[Any, ...]
"""
What a client reads, without ids and times.
"""


class Happened(NamedTuple):
    """
    One event.

    @ivar pos: its position in the log; 0 if it is not logged.
    """

    pos: int
    channel: str
    event: str
    data: str
    sender: str | None


TURNS = count()


@dataclass
class Owed:
    """
    A tracked event that a client has not acknowledged.

    @ivar sends: how often it was sent to the agent since the agent was last away.
    @ivar earlier: how often before that.
    @ivar turn: orders the last sends of all that is owed.
    """

    number: int
    frames: list[Message]
    due: float
    sends: int
    earlier: int
    refused: bool = False
    turn: int = field(default_factory=lambda: next(TURNS))

    def sent_again(self, now: float) -> None:
        self.sends += 1
        self.refused = False
        self.due = now + 5
        self.turn = next(TURNS)


class Sends(NamedTuple):
    """
    How often an event was sent that an agent owes an ack for, as in L{Owed}.
    """

    sends: int
    earlier: int


@dataclass(eq=False)
class ModelClient:
    """
    @ivar channels: its subscriptions, each with the position of the log when it began.
    @ivar behind: it catches up with the log.
    @ivar full: so much is in flight that it gets no more of the log.
    @ivar waiting: the events that wait for it in the log, each with the channels on which it gets them.
    @ivar missed: the same, of what its agent missed while it was away.
    @ivar inherited: the events that its agent owes, and that it has not been sent yet.
    """

    name: str
    claimed: str | None
    joined_at: float
    heard_at: float
    ping_at: float
    pinged_at: float = -1
    excused_at: float = -1
    observer: bool = False
    durable: bool = False
    silent: bool = False
    agent: str | None = None
    session: str | None = None
    channels: dict[str, int] = field(default_factory=dict)
    owed: dict[int, Owed] = field(default_factory=dict)
    inbox: list[Message] = field(default_factory=list)
    behind: bool = False
    full: bool = False
    waiting: dict[int, set[str]] = field(default_factory=dict)
    missed: dict[int, set[str]] = field(default_factory=dict)
    inherited: dict[int, Sends] = field(default_factory=dict)

    @property
    def in_log(self) -> dict[int, set[str]]:
        """
        All that waits for it in the log.
        """
        numbers = {*self.waiting, *self.missed}
        return {number: self.waiting.get(number, set()) | self.missed.get(number, set()) for number in numbers}

    @property
    def present(self) -> str | None:
        """
        The agent that is connected by it.
        """
        return None if self.observer else self.agent


@dataclass
class ModelAbsence:
    """
    @ivar places: what the agent was subscribed to, and the position after which it has missed events there.
    """

    owed: dict[int, Sends]
    places: dict[str, int]
    until: float
    durable: bool


class Model:
    """
    The protocol's sections 2 to 6 and 10, in the simplest way that works: it looks at everything and forgets nothing.
    """

    def __init__(self, now: float, production: bool) -> None:
        self.now = now
        self.production = production
        self.clients: list[ModelClient] = []
        self.history: list[Happened] = []
        self.head = 0
        # the connections of each agent, the newest last
        self.connections: dict[str, list[ModelClient]] = {agent: [] for agent in AGENTS}
        # until when, the subscriptions, and whether the agent is durable
        self.remembered: dict[str, tuple[float, set[str], bool]] = {}
        self.absences: dict[str, ModelAbsence] = {}
        self.given_up = 0
        self.resumed_at = self.admits_since = now
        self.never_acknowledged = 0

    # connections

    def connect(self, claimed: str | None, observer: bool, name: str) -> ModelClient:
        client = ModelClient(name, claimed, self.now, self.now, self.now + 30, observer=observer)
        self.clients.append(client)
        client.inbox.append(("connected", None, self.place(client)))
        if not self.production:
            client.channels["global"] = self.head
        return client

    def disconnect(self, client: ModelClient) -> None:
        self.clients.remove(client)
        self.leave(client)
        client.behind = False
        if client.present is not None:
            self.end(client)

    def end(self, client: ModelClient) -> None:
        assert client.agent is not None
        self.connections[client.agent].remove(client)
        self.tell("agent.disconnected", client)

    def leave(self, client: ModelClient) -> None:
        """
        It is not a connection of its agent any more.
        """
        owed = what_is_owed(client)
        client.owed.clear()
        client.inherited = {}
        in_log, client.missed = client.in_log, {}
        agent = client.present
        if agent is None:
            return
        places = dict.fromkeys(client.channels, self.head) | self.places_of(in_log)
        self.remembered[agent] = (self.now + 86_400, set(client.channels), client.durable)
        others = [other for other in self.connections[agent] if other is not client]
        if others:
            heir = others[-1]
            new = {number: owed[number] for number in owed if number not in heir.owed}
            # a newer one has taken over what waits in its own channels
            newer = self.connections[agent][-1] is heir
            spans = {
                name: range(pos + 1, heir.channels.get(name, self.head) + 1)
                for name, pos in places.items()
                if not newer or name not in heir.channels
            }
            self.catch_up(heir, {}, self.logged(spans, spans, TRACKED), new)
            return
        owed = {number: Sends(0, sum(sends)) for number, sends in owed.items()}
        self.absences[agent] = ModelAbsence(owed, places, self.now + 300, client.durable)

    # commands

    def auth(
        self,
        client: ModelClient,
        agent: str,
        session: str | None,
        observer: bool | None,
        position: tuple[str, int, list[str]] | None,
        durable: bool,
    ) -> None:
        if position is not None and self.has_too_many(client, position[2]):
            client.inbox.append(("refused", None, "TOO_MANY_SUBSCRIPTIONS"))
            return
        former = client.agent
        if observer is None:
            observer = client.observer
        had = set(client.channels) if client.present == (None if observer else agent) else set()
        leaving = client.present is not None and (observer or former != agent)
        returning = not observer and client.present != agent
        if former is None and self.production:
            client.channels.setdefault("global", self.head)
        if leaving or (observer and not client.observer):
            self.leave(client)
        if former is not None and former != agent:
            self.unjoin(client, f"agents/{former}")
        if leaving:
            self.end(client)
        if returning:
            self.connections[agent].append(client)
        if len(client.channels) >= MAX_SUBSCRIPTIONS and client.session not in (None, session):
            self.unjoin(client, f"sessions/{client.session}")
        client.agent, client.session, client.observer = agent, session, observer
        until, channels, known = self.remembered.get(agent, (0.0, set[str](), False))
        others = [other for other in self.connections[agent] if other is not client]
        if durable or client.durable or (known and until > self.now) or any(other.durable for other in others):
            self.make_durable(client)
        client.channels.setdefault(f"agents/{agent}", self.head)
        if session is not None:
            client.channels.setdefault(f"sessions/{session}", self.head)
        missed: dict[str, int] = {}
        owed: dict[int, Sends] = {}
        if returning:
            if until > self.now:
                self.restore(client, channels)
            absence = self.absences.pop(agent, None)
            if absence is not None and absence.until > self.now:
                missed, owed = absence.places, dict(absence.owed)
            for other in others:
                owed |= what_is_owed(other)
        self.resume_from(client, position, missed, owed, had)
        if not observer:
            self.tell("agent.connected", client)

    def restore(self, client: ModelClient, channels: set[str]) -> None:
        for channel in sorted(channels):
            if channel not in client.channels and len(client.channels) >= MAX_SUBSCRIPTIONS:
                break
            client.channels.setdefault(channel, self.head)

    def resume(self, client: ModelClient, epoch: str, pos: int, channels: list[str]) -> None:
        if self.refused(client):
            pass
        elif any(self.is_private(client, channel) for channel in channels):
            client.inbox.append(("refused", None, "NOT_AUTHORIZED"))
        elif self.has_too_many(client, channels):
            client.inbox.append(("refused", None, "TOO_MANY_SUBSCRIPTIONS"))
        else:
            self.resume_from(client, (epoch, pos, channels), {}, {}, set(client.channels))

    def resume_from(
        self,
        client: ModelClient,
        position: tuple[str, int, list[str]] | None,
        missed: dict[str, int],
        owed: dict[int, Sends],
        known: set[str],
    ) -> None:
        """
        @param known: the channels to which the client was subscribed before as a connection of its agent.
        """
        gap, resumed = None, {}
        if position is not None:
            epoch, pos, channels = position
            for channel in channels:
                client.channels.setdefault(channel, self.head)
            if epoch != EPOCH:
                gap = "epoch"
            elif pos > self.head:
                gap = "ahead"
            else:
                resumed = dict.fromkeys(channels, pos)
        is_resumed = None if position is None else gap is None
        client.inbox.append(("authenticated", None, is_resumed, gap, *sorted(client.channels), self.place(client)))
        # what is later than the subscriptions has come directly, or waits already
        asked = {name: range(pos + 1, client.channels[name] + 1) for name, pos in resumed.items()}
        # what the agent has missed comes also to a client that it has come to before it authenticated
        lost = {name: range(pos + 1, self.head + 1) for name, pos in missed.items()}
        for name, pos in self.waiting_for_others(client, client.channels.keys() - known).items():
            lost[name] = range(min(pos + 1, lost.get(name, range(pos + 1, 0)).start), self.head + 1)
        mine = client.channels
        self.catch_up(client, self.logged(mine, asked, LOGGED), self.logged(mine, lost, TRACKED), owed)

    def waiting_for_others(self, client: ModelClient, channels: Collection[str]) -> dict[str, int]:
        """
        The position in each channel after which something waits for the other connections of the agent.  One that is
        subscribed has taken over what waits there for older ones.
        """
        places: dict[str, int] = {}
        wanted = set(channels)
        for other in reversed(self.connections.get(client.present or "", [])):
            if other is not client:
                for name, pos in self.places_of(self.kept(other)).items():
                    if name in wanted:
                        places[name] = min(pos, places.get(name, pos))
                wanted -= other.channels.keys()
        return places

    def kept(self, client: ModelClient) -> dict[int, set[str]]:
        """
        What waits for it in the log, without what it has resumed.
        """
        kept = {number: set(names) for number, names in client.missed.items()}
        for number, names in client.waiting.items():
            pos = self.history[number].pos
            kept.setdefault(number, set()).update(name for name in names if pos > client.channels[name])
        return kept

    def places_of(self, in_log: dict[int, set[str]]) -> dict[str, int]:
        """
        The position in each channel after which tracked events wait.
        """
        places: dict[str, int] = {}
        for number, names in in_log.items():
            happened = self.history[number]
            if happened.event in TRACKED:
                for name in names:
                    places[name] = min(places.get(name, happened.pos - 1), happened.pos - 1)
        return places

    def logged(
        self, channels: Collection[str], places: dict[str, range], events: Collection[str]
    ) -> dict[int, set[str]]:
        """
        The events of certain positions in some channels, each with the channels.
        """
        found = {}
        for number, happened in enumerate(self.history):
            names = self.heard_on(number, channels) if happened.event in events else ()
            some = {name for name in names if happened.pos in places.get(name, ())}
            if some:
                found[number] = some
        return found

    def subscribe(self, client: ModelClient, channel: str) -> None:
        if self.refused(client):
            pass
        elif self.is_private(client, channel):
            client.inbox.append(("refused", None, "NOT_AUTHORIZED"))
        elif self.has_too_many(client, [channel]):
            client.inbox.append(("refused", None, "TOO_MANY_SUBSCRIPTIONS"))
        else:
            new = channel not in client.channels
            client.channels.setdefault(channel, self.head)
            client.inbox.append(("subscribed", None, self.place(client)))
            if new:
                waiting = self.waiting_for_others(client, [channel])
                spans = {name: range(pos + 1, self.head + 1) for name, pos in waiting.items()}
                self.catch_up(client, {}, self.logged(spans, spans, TRACKED), {})

    def unsubscribe(self, client: ModelClient, channel: str) -> None:
        if not self.refused(client):
            self.unjoin(client, channel)
            client.inbox.append(("done", None))

    def unjoin(self, client: ModelClient, channel: str) -> None:
        client.channels.pop(channel, None)
        for waiting in (client.waiting, client.missed):
            for number in list(waiting):
                waiting[number].discard(channel)
                if not waiting[number]:
                    del waiting[number]

    def publish(self, client: ModelClient, channel: str, event: str, data: str) -> None:
        if self.refused(client):
            pass
        elif self.production and event in RESERVED:
            client.inbox.append(("refused", None, "NOT_AUTHORIZED"))
        else:
            self.event(channel, event, data, client.agent)
            number = len(self.history) - 1
            client.inbox.append(("published", number, self.history[number].pos))

    def ack(self, client: ModelClient, number: int) -> None:
        self.acknowledge(client, {number})

    def ack_all(self, client: ModelClient, pos: int) -> None:
        numbers = {number for number, happened in enumerate(self.history) if happened.pos <= pos}
        self.acknowledge(client, numbers)
        for each in {client, *self.connections.get(client.present or "", ())}:
            for number in numbers:
                each.missed.pop(number, None)

    def acknowledge(self, client: ModelClient, numbers: set[int]) -> None:
        if not client.durable:
            self.make_durable(client)
        for each in {client, *self.connections.get(client.present or "", ())}:
            for number in numbers:
                each.owed.pop(number, None)
                each.inherited.pop(number, None)

    def nack(self, client: ModelClient, number: int, delay: int) -> None:
        others = [other for other in self.connections.get(client.present or "", ()) if other is not client]
        for each in (client, *others):
            owed = each.owed.get(number)
            if owed is not None and not owed.refused:
                owed.refused = True
                owed.due = self.now + (delay if owed.sends < 3 else 0)
                if not client.durable:
                    self.make_durable(client)
                break

    def make_durable(self, client: ModelClient) -> None:
        if not client.observer:
            for each in {client, *self.connections.get(client.agent or "", ())}:
                each.durable = True
                each.silent = False

    def give_up(self, client: ModelClient, number: int) -> None:
        """
        The client does not get an event again.  That is no failure while another connection of its agent owes it.
        """
        others = [other for other in self.connections.get(client.present or "", ()) if other is not client]
        if not any(number in what_is_owed(other) for other in others):
            self.count_lost(client.durable, 1)

    def count_lost(self, durable: bool, deliveries: int) -> None:
        if durable:
            self.given_up += deliveries
        else:
            self.never_acknowledged += deliveries

    def refused(self, client: ModelClient) -> bool:
        if self.production and client.agent is None:
            client.inbox.append(("refused", None, "NOT_AUTHORIZED"))
            return True
        return False

    def is_private(self, client: ModelClient, channel: str) -> bool:
        own = channel.removeprefix("agents/") if channel.startswith("agents/") else None
        return own is not None and client.agent is None and own != client.claimed

    def has_too_many(self, client: ModelClient, channels: list[str]) -> bool:
        new = set(channels) - set(client.channels)
        return bool(new) and len(client.channels) + len(new) > MAX_SUBSCRIPTIONS

    # events

    def tell(self, event: str, client: ModelClient) -> None:
        data = {"agent_id": client.agent, "client_id": client.name, "session_id": client.session}
        self.event("global", event, json.dumps(data, sort_keys=True))

    def event(self, channel: str, event: str, data: str, sender: str | None = None) -> None:
        if event in LOGGED:
            self.head += 1
        self.history.append(Happened(self.head if event in LOGGED else 0, channel, event, data, sender))
        number = len(self.history) - 1
        for client in self.clients:
            names = set(self.heard_on(number, client.channels))
            if not names:
                continue
            if client.behind and event in LOGGED:
                client.waiting[number] = names
                continue
            self.deliver(client, number, self.frames_for(names, number))
            if len(client.owed) >= MAX_PENDING and event in TRACKED and not client.silent:
                client.behind = client.full = True

    def heard_on(self, number: int, channels: Collection[str]) -> list[str]:
        """
        Those of some channels whose subscribers get an event, the channel's own first.
        """
        channel = self.history[number].channel
        names = (channel,) if channel in ("global", "metrics") else (channel, "global")
        return [name for name in names if name in channels]

    def frames_for(self, channels: Collection[str], number: int) -> list[Message]:
        pos, channel, event, data, sender = self.history[number]
        return [
            ("event", number, name, event, data, sender, None if name == channel else channel, pos)
            for name in self.heard_on(number, channels)
        ]

    def deliver(
        self,
        client: ModelClient,
        number: int,
        frames: list[Message],
        sent: Sends = Sends(0, 0),  # noqa: B008
    ) -> None:
        client.inbox += frames
        if client.observer or self.history[number].event not in TRACKED:
            return
        client.owed.pop(number, None)
        client.owed[number] = Owed(number, frames, self.now + 5, sent.sends + 1, sent.earlier)
        if client.silent and len(client.owed) > MAX_PENDING:
            del client.owed[next(iter(client.owed))]
            self.count_lost(client.durable, 1)

    # the log

    def place(self, client: ModelClient) -> range:
        """
        The positions of which the client may be told that it has everything up to there.
        """
        if not client.behind:
            return range(self.head, self.head + 1)
        return range(min((self.history[number].pos for number in client.in_log), default=self.head + 1))

    def catch_up(
        self,
        client: ModelClient,
        resumed: dict[int, set[str]],
        missed: dict[int, set[str]],
        owed: dict[int, Sends],
    ) -> None:
        """
        Send a client what it resumes, and what its agent has missed and owes, before all that is still to come.
        """
        if not resumed and not missed and not owed:
            return
        for waiting, new in ((client.waiting, resumed), (client.missed, missed)):
            for number, names in new.items():
                waiting.setdefault(number, set()).update(names)
        client.inherited |= owed
        if not client.behind:
            client.behind = True
            self.send_waiting(client)

    def send_waiting(self, client: ModelClient) -> None:
        """
        Send a client what waits for it, in the order of the log, while there is room in flight.
        """
        while client.behind:
            if client.silent or len(client.owed) <= MAX_PENDING * 3 // 4:
                client.full = False
            elif len(client.owed) >= MAX_PENDING:
                client.full = True
            if client.full:
                return
            in_log = client.in_log
            if not in_log and not client.inherited:
                client.behind = False
                return
            number = min((*in_log, *client.inherited))
            client.waiting.pop(number, None)
            client.missed.pop(number, None)
            if number not in client.inherited:
                self.deliver(client, number, self.frames_for(in_log[number], number))
                continue
            sent = client.inherited.pop(number)
            if client.durable and sum(sent) >= POISON:
                self.give_up(client, number)
                continue
            # if it has left all channels that have the event, as a subscriber of the channel gets it
            names = self.heard_on(number, client.channels) or [self.history[number].channel]
            self.deliver(client, number, self.frames_for(names, number), sent)

    # time

    def sweep(self, since_last: int) -> dict[str, CloseCode]:
        """
        Ping who is due, and return whom to close, and why.

        @param since_last: seconds since the last sweep, which comes every second while the service runs.
        """
        if since_last > 2:
            self.admits_since = self.now
        if since_last > 6:
            self.resumed_at = self.now
        for agent, absence in list(self.absences.items()):
            if absence.until <= self.now:
                self.count_lost(absence.durable, len(absence.owed))
                del self.absences[agent]
        closing = {}
        for client in self.clients:
            silent_since = max(client.heard_at, self.resumed_at, client.excused_at)
            if self.now >= silent_since + 60:
                if client.pinged_at >= silent_since:
                    closing[client.name] = CloseCode.PING_TIMEOUT
                    continue
                client.excused_at = client.ping_at = self.now
            if self.production and client.agent is None and self.now >= max(client.joined_at, self.admits_since) + 10:
                closing[client.name] = CloseCode.AUTHENTICATION_REQUIRED
            elif self.now >= client.ping_at:
                client.inbox.append(("ping", None, self.place(client)))
                client.pinged_at = self.now
                client.ping_at = self.now + 30
        return closing

    def retry(self) -> None:
        late = [
            (not owed.refused, owed.turn, client, owed)
            for client in self.clients
            for owed in client.owed.values()
            if owed.due <= self.now
        ]
        # what was refused comes first, and all else in the order in which it was sent
        for _, _, client, owed in sorted(late, key=itemgetter(0, 1)):
            if client.owed.get(owed.number) is not owed:
                continue
            if owed.sends >= 3:
                del client.owed[owed.number]
                client.silent = not client.durable
                self.give_up(client, owed.number)
            else:
                owed.sent_again(self.now)
                client.inbox += owed.frames
                if owed.sends == 3:
                    self.pass_on(client, owed)

    def pass_on(self, client: ModelClient, owed: Owed) -> None:
        """
        What is sent for the last time to an old connection goes to the newest one, too.
        """
        newest = self.connections.get(client.present or "", [client])[-1]
        if client.durable and newest is not client and owed.number not in what_is_owed(newest):
            self.catch_up(newest, {}, {}, {owed.number: Sends(owed.sends, owed.earlier)})


def what_is_owed(client: ModelClient) -> dict[int, Sends]:
    """
    What the agent of a client owes acks for on this connection, whether it has been sent there or not.
    """
    return {number: Sends(owed.sends, owed.earlier) for number, owed in client.owed.items()} | client.inherited


class Peer(RecordingPeer):
    """
    A peer that is entered in a list when it is closed.
    """

    def __init__(self, closed: list[Peer]) -> None:
        super().__init__()
        self._closed = closed

    def close(self, code: CloseCode) -> None:
        super().close(code)
        self._closed.append(self)


class Client(NamedTuple):
    """
    One client, in the core and in the model.
    """

    core: Core

    peer: Peer
    session: Session
    twin: ModelClient


class Pair:
    """
    The core and its model, given the same.
    """

    def __init__(self, production: bool) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        # nothing leaves the log: test_promises tells what clients see of that
        self.core = make_core(
            self.clock,
            production=production,
            max_pending=MAX_PENDING,
            max_subscriptions=MAX_SUBSCRIPTIONS,
            keep=float("inf"),
        )
        self.model = Model(self.clock.seconds(), production)
        self.clients: list[Client] = []
        self.closed: list[Peer] = []
        # the number that the model has for an event, by its id
        self.numbers: dict[str, int] = {}
        self.published = 0

    def do(self, operation: tuple[Any, ...]) -> None:
        name, *arguments = operation
        if name == "connect":
            self.connect(*arguments)
        elif name == "advance":
            self.advance(*arguments)
        elif name == "hear":
            for client in self.clients:
                hear(client, self.clock.seconds())
        elif self.clients:
            which, *arguments = arguments
            client = self.clients[which % len(self.clients)]
            hear(client, self.clock.seconds())
            getattr(self, name)(client, *arguments)
        self.compare()

    def connect(self, claimed: str | None, observer: bool) -> None:
        peer = Peer(self.closed)
        session = self.core.hub.connect(peer, Origin(agent_id=claimed, observer=observer))
        assert session is not None
        self.clients.append(Client(self.core, peer, session, self.model.connect(claimed, observer, session.client_id)))

    def disconnect(self, client: Client) -> None:
        self.core.hub.disconnect(client.session)
        self.model.disconnect(client.twin)
        self.clients.remove(client)

    def auth(
        self,
        client: Client,
        agent: str,
        session: str | None,
        by_token: bool,
        observer: bool | None = None,
        position: tuple[str, int, list[str]] | None = None,
        durable: bool = False,
    ) -> None:
        more: dict[str, Any] = {"observer": observer, "durable": durable or None}
        if position is not None:
            epoch, back, channels = position
            position = epoch, max(0, self.model.head - back), channels
            more["resume"] = {"epoch": epoch, "pos": position[1], "channels": channels}
        if self.model.production or by_token:
            tell(client, type="auth", token=sign(SECRET, agent, session, self.core.world.wall_ms()), **more)
        else:
            tell(client, type="auth", agent_id=agent, session_id=session, **more)
        self.model.auth(client.twin, agent, session, observer, position, durable)

    def resume(self, client: Client, epoch: str, back: int, channels: list[str]) -> None:
        pos = max(0, self.model.head - back)
        tell(client, type="resume", id=1, epoch=epoch, pos=pos, channels=channels)
        self.model.resume(client.twin, epoch, pos, channels)

    def subscribe(self, client: Client, channel: str) -> None:
        tell(client, type="subscribe", id=1, channel=channel)
        self.model.subscribe(client.twin, channel)

    def unsubscribe(self, client: Client, channel: str) -> None:
        tell(client, type="unsubscribe", id=1, channel=channel)
        self.model.unsubscribe(client.twin, channel)

    def publish(self, client: Client, channel: str, event: str) -> None:
        self.published += 1
        tell(client, type="publish", id=1, channel=channel, event=event, data=self.published)
        self.model.publish(client.twin, channel, event, str(self.published))

    def burst(self, client: Client, events: list[str]) -> None:
        for event in events:
            self.publish(client, "topics/t", event)

    def ack(self, client: Client, which: int) -> None:
        number, event_id = self.owed_by(client, which)
        tell(client, type="ack", message_id=event_id)
        self.model.ack(client.twin, number)

    def nack(self, client: Client, which: int, delay: int) -> None:
        number, event_id = self.owed_by(client, which)
        tell(client, type="nack", message_id=event_id, delay_ms=delay * 1000)
        self.model.nack(client.twin, number, delay)

    def owed_by(self, client: Client, which: int) -> tuple[int, str]:
        """
        An event that the client owes an ack for, or else one that others do, if there is any: its number and its id.
        """
        ids = {number: event_id for event_id, number in self.numbers.items()}
        owed = list(client.twin.owed) or sorted({number for twin in self.model.clients for number in twin.owed})
        number = owed[which % len(owed)] if owed else -1
        return number, ids.get(number, "msg_unknown")

    def ack_all(self, client: Client, back: int) -> None:
        pos = max(0, self.model.head - back)
        tell(client, type="ack", pos=pos)
        self.model.ack_all(client.twin, pos)

    def advance(self, seconds: int) -> None:
        """
        Let time pass.  For long times the service stands still.
        """
        if seconds > 61:
            self.step(seconds)
            return
        for _ in range(seconds):
            self.step(1)

    def step(self, seconds: int) -> None:
        self.clock.advance(seconds)
        finish(self.core.hub.sweep())
        finish(self.core.retrying.sweep())
        self.model.now += seconds
        codes = self.model.sweep(seconds)
        twins = {id(client.peer): client.twin for client in self.clients}
        closed = [twins[id(peer)] for peer in self.closed]
        assert {twin.name: peer.closed for twin, peer in zip(closed, self.closed, strict=True)} == codes
        # in which order they are looked after is not laid down
        for twin in closed:
            self.model.disconnect(twin)
        self.model.retry()
        self.closed.clear()
        self.clients = [client for client in self.clients if client.twin not in closed]
        for client in self.clients:
            self.model.send_waiting(client.twin)
            self.same(sorted(read(client), key=in_any_order), sorted(client.twin.inbox, key=in_any_order))
            client.twin.inbox.clear()

    def compare(self) -> None:
        for client in self.clients:
            self.model.send_waiting(client.twin)
            self.same(read(client), client.twin.inbox)
            client.twin.inbox.clear()
        model, stats = self.model, self.core.stats.report(names=True)
        assert stats["connectedClients"] == len(model.clients)
        assert stats["pendingDeliveries"] == sum(len(client.owed) for client in model.clients)
        assert stats["channelStats"] == Counter(name for client in model.clients for name in client.channels)
        assert stats["activeChannels"] == len(self.core.registry)
        assert stats["failedDeliveries"] == model.given_up
        assert stats["deliveries"]["neverAcknowledged"] == model.never_acknowledged
        assert stats["observers"] == sum(client.observer for client in model.clients)
        assert stats["agentStats"] == Counter(client.present for client in model.clients if client.present)
        assert stats["authenticatedClients"] == sum(client.agent is not None for client in model.clients)
        assert self.core.memory.kept == sum(len(absence.owed) for absence in model.absences.values())
        assert self.core.memory.absent == len(model.absences)

    def same(self, heard: list[Message], expected: list[Message]) -> None:
        """
        The same messages in the same order; and an id belongs to one event, permanently and for all clients.
        """
        assert [unnumbered(message) for message in heard] == [
            unnumbered(settled(message, like)) for message, like in zip_longest(expected, heard, fillvalue=())
        ]
        for (_, event_id, *_rest), (_, number, *_rest) in zip(heard, expected, strict=True):
            if number is not None:
                assert self.numbers.setdefault(event_id, number) == number
        assert len(set(self.numbers.values())) == len(self.numbers)


def hear(client: Client, now: float) -> None:
    client.session.heard_at = client.twin.heard_at = now


def tell(client: Client, **message: Any) -> None:
    client.core.interpreter.receive(client.session, json.dumps(message))


def read(client: Client) -> list[Message]:
    """
    What a client reads, and all that comes because it reads.
    """
    if client.peer.replaying is not None:
        client.peer.read()
    return [simple(message) for message in client.peer.take()]


def simple(message: dict[str, Any]) -> Message:
    """
    What the model says of a message, with an event's id in place of its number.
    """
    place = message.get("pos")
    if "event" in message:
        data = json.dumps(message["data"], sort_keys=True)
        who = message.get("from"), message.get("origin")
        return "event", message["id"], message["channel"], message["event"], data, *who, place or 0
    if "code" in message:
        return "refused", None, message["code"]
    if "message_id" in message:
        return "published", message["message_id"], place or 0
    assert message.get("epoch", EPOCH) == EPOCH
    if "subscriptions" in message:
        gap = message.get("gap", {}).get("reason")
        return "authenticated", None, message.get("resumed"), gap, *message["subscriptions"], place
    if message["type"] == "ack":
        return ("done", None) if place is None else ("subscribed", None, place)
    return message["type"], None, place


def settled(message: Message, like: Message) -> Message:
    """
    What the model expects, with the position of what was heard if it is one of those that are right.
    """
    if message and like and isinstance(message[-1], range) and like[-1] in message[-1]:
        return (*message[:-1], like[-1])
    return message


def unnumbered(message: Message) -> Message:
    return message[:1] + message[2:]


def in_any_order(message: Message) -> str:
    return str(message[:1] if message[0] == "ping" else unnumbered(message))


which = st.integers(0, 3)
agents = st.sampled_from(AGENTS)
channels = st.sampled_from(CHANNELS)
sessions = st.none() | st.just("s")
epochs = st.sampled_from((EPOCH, EPOCH, EPOCH, "other"))
# how far the client is behind the log, or, for once, ahead of it
backs = st.integers(-1, 12)
several = st.lists(channels, max_size=3)
positions = st.tuples(epochs, backs, several)
# The times are those at which something ends, and some between; mostly short ones, which leave clients alive.
passing = st.tuples(st.just("advance"), st.sampled_from((1, 4, 5, 5, 10)))
waiting = st.tuples(st.just("advance"), st.sampled_from((29, 30, 59, 60, 61, 289, 299, 300, 86_399, 86_400)))
publishing = st.tuples(st.just("publish"), which, channels, st.sampled_from((*TRACKED, *EVENTS)))
# more than may be in flight
bursting = st.tuples(st.just("burst"), which, st.lists(st.sampled_from(LOGGED), min_size=2, max_size=6))
authenticating = st.tuples(st.just("auth"), which, agents, sessions, st.booleans())
operations = st.one_of(
    st.tuples(st.just("connect"), st.none() | agents, st.sampled_from((False, False, True))),
    st.tuples(st.just("disconnect"), which),
    authenticating,
    authenticating,
    st.tuples(st.just("auth"), which, agents, sessions, st.booleans(), st.booleans()),
    st.tuples(st.just("subscribe"), which, channels),
    st.tuples(st.just("unsubscribe"), which, channels),
    publishing,
    publishing,
    bursting,
    st.tuples(st.just("ack"), which, which),
    st.tuples(st.just("ack"), which, which),
    st.tuples(st.just("ack_all"), which, st.integers(0, 4)),
    st.tuples(st.just("nack"), which, which, st.sampled_from((0, 1, 6, 20))),
    st.tuples(st.just("resume"), which, epochs, backs, several),
    st.tuples(st.just("auth"), which, agents, sessions, st.booleans(), st.none(), st.none() | positions, st.booleans()),
    passing,
    passing,
    passing,
    st.just(("hear",)),
    waiting,
)


# half a minute of processor time, of which it gets a third beside other tests
@pytest.mark.timeout(300)
@settings(max_examples=examples(500), derandomize=not NIGHTLY, database=None)
@given(st.booleans(), st.lists(operations, min_size=20, max_size=60))
def test_hub_does_what_the_model_does(production: bool, todo: list[tuple[Any, ...]]) -> None:
    """
    Whatever clients do, and however long they wait, each receives what the protocol says, in its order.
    """
    pair = Pair(production)
    pair.do(("connect", None, False))
    pair.do(("connect", "ann", False))
    for operation in todo:
        pair.do(operation)
    while pair.clients:
        pair.do(("disconnect", 0))
    pair.do(("advance", 86_400))

    assert pair.core.stats.report(names=True)["channelStats"] == {}
    assert pair.core.memory.kept == pair.core.memory.absent == len(pair.core.memory) == 0


# anything at all


KINDS = ("subscribe", "unsubscribe", "publish", "auth", "resume", "ping", "pong", "ack", "nack", "hello")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
likely = json_values | st.sampled_from([*CHANNELS, *EVENTS, "x", "ann", "s", 0, ["global"]])
likenesses = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS) | json_values},
    optional=dict.fromkeys(
        (
            *("id", "channel", "event", "data", "token", "agent_id", "session_id", "message_id", "timestamp"),
            *("epoch", "pos", "channels", "resume", "observer", "durable", "key", "delay_ms"),
        ),
        likely,
    ),
)


@st.composite
def damaged(draw: st.DrawFn, messages: st.SearchStrategy[dict[str, Any]]) -> str:
    """
    A message with a part of its text cut out, and something else put in.
    """
    text = json.dumps(draw(messages), ensure_ascii=draw(st.booleans()))
    start = draw(st.integers(0, len(text)))
    end = start + draw(st.integers(0, 5) | st.just(len(text)))
    patch = draw(st.just("") | st.text(max_size=3) | st.sampled_from(['"', "\\", "\\ud83d", "{", "]", ",", "1e999"]))
    return text[:start] + patch + text[end:]


def receive(message: str | bytes) -> None:
    """
    Give a message to an authenticated client, whose answers must be JSON, and refusals ones of the protocol.
    """
    clock = Clock()
    clock.advance(1000)
    client = FakeClient(make_core(clock, extra=("x.*",)))
    client.auth("ann")
    client.receive(message)
    replies = client.peer.take()

    assert client.peer.closed is None
    for reply in replies:
        if "code" in reply:
            assert reply["code"] in set(ErrorCode)
            assert reply["error"]
            assert len(replies) == 1
    assert client.say(type="ping")[-1]["type"] == "pong"


@settings(max_examples=examples(2000), derandomize=not NIGHTLY, database=None)
@given(st.binary(max_size=200))
@example(b"\xff")
@example(b'{"type":5')
@example(b"[" * 200_000)
@example(b'{"type":"ping","id":' + b"9" * 5000 + b"}")
def test_any_bytes(message: bytes) -> None:
    """
    Whatever bytes a client sends, it is answered at most with a refusal, and may go on.
    """
    receive(message)


@settings(max_examples=examples(600), derandomize=not NIGHTLY, database=None)
@given(likenesses.map(json.dumps) | damaged(likenesses))
def test_anything_like_a_message(message: str) -> None:
    """
    The same goes for what looks like a message, or was one before it was damaged.
    """
    receive(message)


notifications = st.fixed_dictionaries(
    {}, optional={"channel": likely, "event": likely, "data": likely, "timestamp": likely}
)


@settings(max_examples=examples(2000), derandomize=not NIGHTLY, database=None)
@given(st.text(max_size=200) | notifications.map(json.dumps) | damaged(notifications))
@example("[" * 200_000)
@example('{"channel":"global","event":"a.b","data":' + "[" * 200_000)
@example('{"channel":"global","event":5')
def test_any_notification(payload: str) -> None:
    """
    Whatever the database says is an event, or refused and counted.
    """
    clock = Clock()
    clock.advance(1000)
    core = make_core(clock)
    client = FakeClient(core)
    client.peer.take()
    try:
        core.router.notified(payload)
    except ProtocolError as error:
        assert error.reason
        assert core.counts.events.bad_notifications == 1
        assert client.peer.take() == []
    else:
        assert core.counts.events.bad_notifications == 0
        assert len(client.peer.take()) == (json.loads(payload).get("channel") != "metrics")


@settings(max_examples=examples(500), derandomize=not NIGHTLY, database=None)
@given(json_values, st.booleans())
def test_any_data(value: object, ascii_only: bool) -> None:
    """
    Any JSON value comes out as it went in.
    """
    clock = Clock()
    clock.advance(1000)
    client = FakeClient(make_core(clock))
    client.peer.take()
    data = json.dumps(value, ensure_ascii=ascii_only)
    client.receive(f'{{"type":"publish","channel":"global","event":"task.created","data":{data}}}')

    (reply,) = client.peer.take()
    if "NaN" in data or "Infinity" in data:
        assert reply.get("code") == "PARSE_ERROR" or json.dumps(reply["data"]) == json.dumps(value)
    else:
        assert json.dumps(reply["data"]) == json.dumps(value)
