"""
What reaches C{global}, and who may listen without a token in production.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.session import Origin
from dcm_ws.protocol.channels import GLOBAL, METRICS, parse_channel
from dcm_ws.protocol.errors import CloseCode
from dcm_ws.protocol.tokens import sign
from tests.core.living import events, live
from tests.fakes import SECRET, Client, make_core

PRIVATE = ("agents/ann", "sessions/s")


@pytest.fixture
def core(clock: Clock) -> Core:
    """
    A hub as in production, with anonymous listeners.
    """
    return make_core(clock, production=True, anonymous_listeners=True)


def stranger(core: Core, origin: Origin = Origin()) -> Client:  # noqa: B008 - immutable
    client = Client(core, origin)
    client.peer.take()
    return client


def known(core: Core, agent: str = "eve", observer: bool | None = None) -> Client:
    client = Client(core)
    client.say(type="auth", token=sign(SECRET, agent, None, core.world.wall_ms()), observer=observer)
    return client


def data(client: Client) -> list[tuple[str, Any]]:
    return [(frame["channel"], frame["data"]) for frame in client.peer.take() if "event" in frame]


# mirroring


@pytest.mark.parametrize("mirror", [True, False])
def test_mirror(clock: Clock, mirror: bool) -> None:
    """
    C{global} always has what the database publishes; what clients publish elsewhere only if it is to.
    """
    core = make_core(clock, mirror_clients=mirror)
    watcher, publisher = Client(core), Client(core)
    watcher.peer.take()
    for number, event in enumerate(("task.created", "system.info", "agent.heartbeat")):
        publisher.say(type="publish", channel="topics/t", event=event, data=number)
    publisher.say(type="publish", channel="global", event="task.created", data="global")
    core.router.notified('{"channel":"topics/t","event":"task.created","data":"database"}')
    core.router.announce(parse_channel("topics/t"), "system.info", "service")
    always = [("global", "global"), ("global", "database"), ("global", "service")]
    assert data(watcher) == [("global", number) for number in range(3) if mirror] + always


def test_agent_that_was_away_misses_no_more_than_others(clock: Clock) -> None:
    """
    What was not mirrored while an agent was away is not mirrored when it is back.
    """
    core = make_core(clock, mirror_clients=False)
    client = Client(core)
    client.auth("ann")
    client.leave()
    publisher = Client(core)
    publisher.say(type="publish", channel="topics/t", event="task.created", data="client")
    publisher.say(type="publish", channel="agents/ann", event="task.created", data="to ann")
    core.router.notified('{"channel":"topics/t","event":"task.created","data":"database"}')
    again = Client(core)
    again.peer.take()
    again.receive('{"type":"auth","agent_id":"ann"}')
    assert data(again)[:-1] == [("agents/ann", "to ann"), ("global", "database")]


# without a token


def test_stranger_hears_what_is_public(core: Core) -> None:
    """
    Without a token a client hears global, and topics and metrics if it asks.
    """
    client = stranger(core)
    for channel in ("topics/t", "metrics", "global"):
        assert client.say(type="subscribe", channel=channel, id=1)[-1]["success"]
    core.router.notified('{"channel":"topics/t","event":"task.created","data":1}')
    core.router.announce(METRICS, "metric.update", 2)
    core.router.announce(GLOBAL, "system.info", 3)
    assert data(client) == [("topics/t", 1), ("global", 1), ("metrics", 2), ("global", 3)]
    assert client.say(type="unsubscribe", channel="global", id=1)[-1]["success"]
    core.router.announce(GLOBAL, "system.info", 4)
    assert data(client) == []


@pytest.mark.parametrize("channel", ["agents/ann", "agents/bob", "sessions/s"])
@pytest.mark.parametrize("origin", [Origin(), Origin("ann", "s"), Origin("ann", observer=True)])
def test_stranger_may_not_listen_to_what_is_private(core: Core, channel: str, origin: Origin) -> None:
    """
    An agent's and a session's channel take a token, also for a client that claims to be that agent.
    """
    client = stranger(core, origin)
    refused = client.say(type="subscribe", channel=channel, id=1)[-1]
    assert (refused["code"], refused["success"]) == ("NOT_AUTHORIZED", False)
    position = {"epoch": core.log.epoch, "pos": 0, "channels": ["topics/t", channel]}
    refused = client.say(type="resume", **position, id=2)[-1]
    assert (refused["code"], refused["success"]) == ("NOT_AUTHORIZED", False)
    assert core.registry.channels(client.session) == {"global"}


@pytest.mark.parametrize("event", ["task.created", "system.info", "agent.heartbeat"])
@pytest.mark.parametrize(
    "channel",
    [
        *PRIVATE,
        *("agents/not\tvalid", "Agents/ann", " agents/ann", "sessions/", "AGENTS/" + "x" * 200),
        *("/agents/ann", "\ufeffagents/ann", "agents /ann", "agents\\/ann", "a\u200bgents//", "\uff21gents/ann"),
    ],
)
def test_stranger_does_not_hear_private_events_on_global(core: Core, channel: str, event: str) -> None:
    """
    What is published to an agent or a session does not reach strangers by way of C{global}, also where the name does
    not fit and the event goes to C{global} only; those with a token hear it there.
    """
    first, agent, second, observer = stranger(core), known(core), stranger(core), known(core, "dan", observer=True)
    for client in (first, agent, second, observer):
        client.peer.take()
    core.router.notified(json.dumps({"channel": channel, "event": event, "data": 1}))
    assert data(first) == data(second) == []
    assert data(agent) == data(observer) == [("global", 1)]
    if channel in PRIVATE:
        agent.say(type="publish", channel=channel, event="task.failed", data=2)
        core.router.announce(parse_channel(channel), event, 3)
        assert data(first) == data(second) == []
    for public in ("projects", "epic-sessions/x", "agents", "user/agents/x", ""):
        core.router.notified(json.dumps({"channel": public, "event": event, "data": 4}))
        assert data(first) == [("global", 4)]


@pytest.mark.parametrize("channel", [*PRIVATE, "agents/not\tvalid", " agents/ann"])
def test_stranger_resumes_what_is_public(core: Core, channel: str) -> None:
    """
    A stranger gets what it has missed, but for events that it would not have got.
    """
    core.router.notified(json.dumps({"channel": channel, "event": "task.created", "data": "private"}))
    core.router.notified('{"channel":"topics/t","event":"task.created","data":"public"}')
    client, agent = stranger(core), known(core)
    for reader, gets in ((client, ["public"]), (agent, ["private", "public"])):
        reader.say(type="unsubscribe", channel="global")
        answer, *events = reader.say(type="resume", epoch=core.log.epoch, pos=0, channels=["global"], id=1)
        assert answer["resumed"]
        assert [event["data"] for event in events] == gets


def test_stranger_may_not_publish(core: Core) -> None:
    """
    Listening is all that a client may do without a token.
    """
    client, watcher = stranger(core), known(core)
    watcher.peer.take()
    for channel in ("global", "topics/t", "agents/ann", "metrics"):
        refused = client.say(type="publish", channel=channel, event="task.created", id=1)[-1]
        assert refused["code"] == "NOT_AUTHORIZED"
    assert data(watcher) == []
    assert client.say(type="auth", agent_id="ann", id=1)[-1]["code"] == "TOKEN_REQUIRED"


def test_stranger_owes_nothing_and_may_stay(clock: Clock, core: Core) -> None:
    """
    A stranger is sent each event once, need not authenticate, and is closed only if it is silent.
    """
    client, mute = stranger(core), stranger(core)
    core.router.notified('{"channel":"topics/t","event":"task.created","data":1}')
    for _ in range(5):
        live(core, clock, 11)
        client.session.heard_at = clock.seconds()
    assert events(client.peer.take()) == [("global", "task.created")]
    assert core.counts.deliveries.begun == 0
    live(core, clock, 70)
    assert (mute.peer.closed, core.clients.strangers) == (CloseCode.PING_TIMEOUT, set())
    assert core.stats.report(names=True)["observers"] == 0


def test_stranger_that_authenticates(core: Core) -> None:
    """
    With a token it is a client like any other: it hears what is private, and owes acks; what it left stays left.
    """
    client = stranger(core)
    client.say(type="subscribe", channel="topics/t")
    client.say(type="unsubscribe", channel="global")
    ack = client.say(type="auth", token=sign(SECRET, "ann", None, core.world.wall_ms()))[-1]
    assert ack["subscriptions"] == ["agents/ann", "topics/t"]
    client.say(type="subscribe", channel="global")
    core.router.notified('{"channel":"sessions/s","event":"task.created","data":1}')
    assert data(client) == [("global", 1)]
    assert len(client.session.owed) == 1
    assert (core.clients.strangers, core.clients.observers) == (set(), set())

    claims = core.identity.verify(sign(SECRET, "bob", None, core.world.wall_ms()))
    Client(core, Origin(claims=claims))
    assert (core.clients.strangers, core.clients.observers) == (set(), set())


@pytest.mark.parametrize("production", [False, True])
def test_strangers_are_only_where_they_are_allowed(clock: Clock, production: bool) -> None:
    """
    In development the choice changes nothing; in production nobody listens without it.
    """
    core = make_core(clock, production=production, anonymous_listeners=not production)
    client = stranger(core)
    core.router.notified('{"channel":"sessions/s","event":"task.created","data":1}')
    assert data(client) == ([] if production else [("global", 1)])
    assert core.clients.strangers == set()
    live(core, clock, 11)
    assert client.peer.closed is (CloseCode.AUTHENTICATION_REQUIRED if production else None)


# from listening to taking part


def test_what_a_listener_was_not_shown_comes_when_it_resumes(core: Core) -> None:
    """
    A client that listens, and then authenticates and resumes, gets the private events that it was not shown before.
    """
    listener = stranger(core)
    core.router.notified('{"channel":"sessions/s","event":"session.created","data":1}')
    assert data(listener) == []

    token = sign(SECRET, "ann", None, core.world.wall_ms())
    frames = listener.say(type="auth", token=token, resume={"epoch": "epoch", "pos": 0, "channels": ["global"]})
    assert [frame["data"] for frame in frames if frame.get("event") == "session.created"] == [1]


def test_what_a_listener_was_sent_is_owed_to_its_agent(core: Core) -> None:
    """
    A listener owes no acks, so what its agent has missed comes again when it authenticates, until it is acknowledged.
    """
    known(core, "ann").leave()
    listener = stranger(core)
    core.router.notified('{"channel":"topics/t","event":"task.created","data":1}')
    assert data(listener) == [("global", 1)]

    listener.say(type="auth", token=sign(SECRET, "ann", None, core.world.wall_ms()))
    assert core.stats.report(names=True)["pendingDeliveries"] == 1
