"""
Any clients doing anything: what the core does is compared with a plain model of what the protocol says.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.session import Origin, Session
from dcm_ws.protocol.errors import CloseCode, ErrorCode, ProtocolError
from dcm_ws.protocol.tokens import sign
from tests.core.living import finish
from tests.fakes import SECRET, RecordingPeer, make_core
from tests.fakes import Client as FakeClient

AGENTS = ("ann", "bob")
CHANNELS = ("global", "metrics", "agents/ann", "agents/bob", "sessions/s", "topics/t", "topics/t/u")
TRACKED = ("task.created", "message.new")
EVENTS = (*TRACKED, "system.info", "agent.heartbeat")
RESERVED = ("system.info",)
MAX_PENDING = 3
MAX_SUBSCRIPTIONS = 4

Message = tuple[Any, ...]
"""
What a client reads, without ids and times.
"""


@dataclass
class Owed:
    """
    A tracked event that a client has not acknowledged.
    """

    number: int
    frames: list[Message]
    due: float = 0
    sends: int = 1


@dataclass(eq=False)
class ModelClient:
    name: str
    claimed: str | None
    joined_at: float
    heard_at: float
    ping_at: float
    pinged_at: float = -1
    excused_at: float = -1
    observer: bool = False
    acknowledges: bool = False
    agent: str | None = None
    session: str | None = None
    channels: set[str] = field(default_factory=set)
    owed: dict[int, Owed] = field(default_factory=dict)
    inbox: list[Message] = field(default_factory=list)

    @property
    def present(self) -> str | None:
        """
        The agent that is connected by it.
        """
        return None if self.observer else self.agent


@dataclass
class ModelAbsence:
    owed: dict[int, Owed]
    since: int
    until: float
    acknowledges: bool


class Model:
    """
    The protocol's sections 2 to 6, in the simplest way that works: it looks at everything and forgets nothing.
    """

    def __init__(self, now: float, production: bool) -> None:
        self.now = now
        self.production = production
        self.clients: list[ModelClient] = []
        self.history: list[tuple[str, str, str, str | None]] = []
        self.remembered: dict[str, tuple[float, set[str]]] = {}
        self.absences: dict[str, ModelAbsence] = {}
        self.given_up = 0
        self.resumed_at = self.admits_since = now
        self.never_acknowledged = 0
        self.acknowledging: dict[str, float] = {}

    # connections

    def connect(self, claimed: str | None, observer: bool, name: str) -> ModelClient:
        client = ModelClient(name, claimed, self.now, self.now, self.now + 30, observer=observer)
        self.clients.append(client)
        client.inbox.append(("connected", None))
        if not self.production:
            client.channels.add("global")
        return client

    def disconnect(self, client: ModelClient) -> None:
        self.clients.remove(client)
        self.leave(client)
        if client.present is not None:
            self.tell("agent.disconnected", client)

    def leave(self, client: ModelClient) -> None:
        owed, client.owed = client.owed, {}
        if client.present is None:
            return
        self.remembered[client.agent] = (self.now + 86_400, set(client.channels))
        acknowledges = client.acknowledges
        if acknowledges:
            self.acknowledging[client.agent] = self.now + 86_400
        earlier = self.absences.pop(client.agent, None)
        if earlier is not None:
            owed = earlier.owed | owed
            acknowledges = acknowledges or earlier.acknowledges
        owed = dict(sorted(owed.items()))
        self.absences[client.agent] = ModelAbsence(owed, len(self.history), self.now + 300, acknowledges)

    # commands

    def auth(self, client: ModelClient, agent: str, session: str | None, observer: bool | None) -> None:
        former = client.agent
        if observer is None:
            observer = client.observer
        leaving = client.present is not None and (observer or former != agent)
        returning = not observer and client.present != agent
        if former is None and self.production:
            client.channels.add("global")
        if leaving or observer:
            self.leave(client) if leaving else client.owed.clear()
        if former is not None and former != agent:
            client.channels.discard(f"agents/{former}")
        if leaving:
            self.tell("agent.disconnected", client)
        if len(client.channels) >= MAX_SUBSCRIPTIONS and client.session not in (None, session):
            client.channels.discard(f"sessions/{client.session}")
        client.agent, client.session, client.observer = agent, session, observer
        if client.acknowledges:
            self.acknowledging[agent] = self.now + 86_400
        client.acknowledges = self.acknowledging.get(agent, 0) > self.now
        client.channels.add(f"agents/{agent}")
        if session is not None:
            client.channels.add(f"sessions/{session}")
        catching_up: list[Owed] = []
        if returning:
            until, channels = self.remembered.get(agent, (0.0, set()))
            if until > self.now:
                self.restore(client, channels)
            absence = self.absences.pop(agent, None)
            if absence is not None and absence.until > self.now:
                catching_up += absence.owed.values()
                for number in range(absence.since, len(self.history)):
                    frames = self.frames_for(channels, number)
                    if frames and self.history[number][1] in TRACKED:
                        catching_up.append(Owed(number, frames))
        client.inbox.append(("authenticated", None, *sorted(client.channels)))
        for owed in catching_up:
            client.owed.pop(owed.number, None)
            self.deliver(client, owed.number, owed.frames)
        if not observer:
            self.tell("agent.connected", client)

    def restore(self, client: ModelClient, channels: set[str]) -> None:
        for channel in sorted(channels):
            if channel not in client.channels and len(client.channels) >= MAX_SUBSCRIPTIONS:
                break
            client.channels.add(channel)

    def subscribe(self, client: ModelClient, channel: str) -> None:
        own = channel.removeprefix("agents/") if channel.startswith("agents/") else None
        if self.refused(client):
            pass
        elif own is not None and client.agent is None and own != client.claimed:
            client.inbox.append(("refused", None, "NOT_AUTHORIZED"))
        elif channel not in client.channels and len(client.channels) >= MAX_SUBSCRIPTIONS:
            client.inbox.append(("refused", None, "TOO_MANY_SUBSCRIPTIONS"))
        else:
            client.channels.add(channel)
            client.inbox.append(("done", None))

    def unsubscribe(self, client: ModelClient, channel: str) -> None:
        if not self.refused(client):
            client.channels.discard(channel)
            client.inbox.append(("done", None))

    def publish(self, client: ModelClient, channel: str, event: str, data: str) -> None:
        if self.refused(client):
            pass
        elif self.production and event in RESERVED:
            client.inbox.append(("refused", None, "NOT_AUTHORIZED"))
        else:
            self.event(channel, event, data, client.agent)
            client.inbox.append(("published", len(self.history) - 1))

    def ack(self, client: ModelClient, number: int) -> None:
        client.owed.pop(number, None)
        if not client.observer and not client.acknowledges:
            client.acknowledges = True
            if client.agent is not None:
                self.acknowledging[client.agent] = self.now + 86_400

    def give_up(self, whose: ModelClient | ModelAbsence, deliveries: int = 1) -> None:
        if whose.acknowledges:
            self.given_up += deliveries
        else:
            self.never_acknowledged += deliveries

    def refused(self, client: ModelClient) -> bool:
        if self.production and client.agent is None:
            client.inbox.append(("refused", None, "NOT_AUTHORIZED"))
            return True
        return False

    # events

    def tell(self, event: str, client: ModelClient) -> None:
        data = {"agent_id": client.agent, "client_id": client.name, "session_id": client.session}
        self.event("global", event, json.dumps(data, sort_keys=True))

    def event(self, channel: str, event: str, data: str, sender: str | None = None) -> None:
        self.history.append((channel, event, data, sender))
        number = len(self.history) - 1
        for client in self.clients:
            frames = self.frames_for(client.channels, number)
            if not frames:
                continue
            if event in TRACKED:
                self.deliver(client, number, frames)
            else:
                client.inbox += frames

    def frames_for(self, channels: set[str], number: int) -> list[Message]:
        channel, event, data, sender = self.history[number]
        heard_on = [(channel, None)]
        if channel not in ("global", "metrics"):
            heard_on.append(("global", channel))
        return [("event", number, name, event, data, sender, origin) for name, origin in heard_on if name in channels]

    def deliver(self, client: ModelClient, number: int, frames: list[Message]) -> None:
        client.inbox += frames
        if client.observer:
            return
        client.owed[number] = Owed(number, frames, self.now + 5)
        while len(client.owed) > MAX_PENDING:
            del client.owed[next(iter(client.owed))]
            self.give_up(client)

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
                self.give_up(absence, len(absence.owed))
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
                client.inbox.append(("ping", None))
                client.pinged_at = self.now
                client.ping_at = self.now + 30
        return closing

    def retry(self) -> None:
        for client in self.clients:
            for owed in list(client.owed.values()):
                if owed.due > self.now:
                    continue
                if owed.sends == 3:
                    del client.owed[owed.number]
                    self.give_up(client)
                else:
                    owed.sends += 1
                    owed.due = self.now + 5
                    client.inbox += owed.frames


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
        self.core = make_core(
            self.clock, production=production, max_pending=MAX_PENDING, max_subscriptions=MAX_SUBSCRIPTIONS
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
        self, client: Client, agent: str, session: str | None, by_token: bool, observer: bool | None = None
    ) -> None:
        if self.model.production or by_token:
            tell(client, type="auth", token=sign(SECRET, agent, session, self.core.world.wall_ms()), observer=observer)
        else:
            tell(client, type="auth", agent_id=agent, session_id=session, observer=observer)
        self.model.auth(client.twin, agent, session, observer)

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

    def ack(self, client: Client, which: int) -> None:
        ids = {number: event_id for event_id, number in self.numbers.items()}
        owed = list(client.twin.owed)
        number = owed[which % len(owed)] if owed else -1
        tell(client, type="ack", message_id=ids.get(number, "msg_unknown"))
        self.model.ack(client.twin, number)

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
        finish(self.core.hub.retry())
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
            self.same(sorted(read(client), key=unnumbered), sorted(client.twin.inbox, key=unnumbered))
            client.twin.inbox.clear()

    def compare(self) -> None:
        for client in self.clients:
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
        assert [unnumbered(message) for message in heard] == [unnumbered(message) for message in expected]
        for (_, event_id, *_rest), (_, number, *_rest) in zip(heard, expected, strict=True):
            if number is not None:
                assert self.numbers.setdefault(event_id, number) == number
        assert len(set(self.numbers.values())) == len(self.numbers)


def hear(client: Client, now: float) -> None:
    client.session.heard_at = client.twin.heard_at = now


def tell(client: Client, **message: Any) -> None:
    client.core.interpreter.receive(client.session, json.dumps(message))


def read(client: Client) -> list[Message]:
    return [simple(message) for message in client.peer.take()]


def simple(message: dict[str, Any]) -> Message:
    """
    What the model says of a message, with an event's id in place of its number.
    """
    if "event" in message:
        data = json.dumps(message["data"], sort_keys=True)
        who = message.get("from"), message.get("origin")
        return "event", message["id"], message["channel"], message["event"], data, *who
    if "code" in message:
        return "refused", None, message["code"]
    if "message_id" in message:
        return "published", message["message_id"]
    if "subscriptions" in message:
        return "authenticated", None, *message["subscriptions"]
    return {"ack": "done"}.get(message["type"], message["type"]), None


def unnumbered(message: Message) -> Message:
    return message[:1] + message[2:]


which = st.integers(0, 3)
agents = st.sampled_from(AGENTS)
channels = st.sampled_from(CHANNELS)
sessions = st.none() | st.just("s")
# The times are those at which something ends, and some between; mostly short ones, which leave clients alive.
passing = st.tuples(st.just("advance"), st.sampled_from((1, 4, 5, 5, 10)))
waiting = st.tuples(st.just("advance"), st.sampled_from((29, 30, 59, 60, 61, 289, 299, 300, 86_399, 86_400)))
publishing = st.tuples(st.just("publish"), which, channels, st.sampled_from((*TRACKED, *EVENTS)))
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
    publishing,
    st.tuples(st.just("ack"), which, which),
    passing,
    passing,
    passing,
    st.just(("hear",)),
    waiting,
)


@settings(max_examples=500, derandomize=True, database=None)
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


KINDS = ("subscribe", "unsubscribe", "publish", "auth", "ping", "pong", "ack", "hello")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
likely = json_values | st.sampled_from([*CHANNELS, *EVENTS, "x", "ann", "s"])
likenesses = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS) | json_values},
    optional=dict.fromkeys(
        ("id", "channel", "event", "data", "token", "agent_id", "session_id", "message_id", "timestamp"), likely
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


@settings(max_examples=2000, derandomize=True, database=None)
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


@settings(max_examples=600, derandomize=True, database=None)
@given(likenesses.map(json.dumps) | damaged(likenesses))
def test_anything_like_a_message(message: str) -> None:
    """
    The same goes for what looks like a message, or was one before it was damaged.
    """
    receive(message)


notifications = st.fixed_dictionaries(
    {}, optional={"channel": likely, "event": likely, "data": likely, "timestamp": likely}
)


@settings(max_examples=2000, derandomize=True, database=None)
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


@settings(max_examples=500, derandomize=True, database=None)
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
