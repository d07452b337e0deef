"""
Private channels with C{--private strict}.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.session import Origin
from dcm_ws.protocol.channels import parse_channel
from dcm_ws.protocol.tokens import sign
from tests.core.clients import codes, only
from tests.fakes import SECRET, Client, make_core

EVERY = ("operator",)


@pytest.fixture(params=[False, True], ids=["development", "production"])
def core(clock: Clock, request: pytest.FixtureRequest) -> Core:
    return make_core(clock, production=request.param, strict_private=True)


def make_client(
    core: Core, agent: str, session: str | None = None, scope: tuple[str, ...] | None = None, **auth: Any
) -> Client:
    client = Client(core)
    client.say(type="auth", token=sign(SECRET, agent, session, core.world.wall_ms(), scope=scope), **auth)
    client.peer.take()
    return client


def received(client: Client, data: object) -> list[str]:
    """
    The channels of the frames of one event.
    """
    return [frame["channel"] for frame in client.peer.take() if "event" in frame and frame.get("data") == data]


@pytest.mark.parametrize("event", ["task.created", "agent.blocked", "agent.heartbeat"])
@pytest.mark.parametrize("source", ["client", "database", "service"])
def test_private_events(core: Core, event: str, source: str) -> None:
    """
    An event of a private channel reaches only those that may subscribe to that channel, on C{global}, too.
    """
    ann, bob = make_client(core, "ann", "s"), make_client(core, "bob")
    unsubscribed = make_client(core, "ann")
    unsubscribed.say(type="unsubscribe", channel="agents/ann")
    operator = make_client(core, "ops", scope=EVERY)
    some = make_client(core, "some", scope=("subscribe:global", "subscribe:agents/a*", "subscribe:sessions/s"))
    none = make_client(core, "none", scope=("subscribe:global", "subscribe:topics/*"))
    everybody = {"ann": ann, "bob": bob, "unsubscribed": unsubscribed, "ops": operator, "some": some, "none": none}
    publisher, copy = make_client(core, "p", scope=EVERY), ["global"]
    for channel, expected in (
        ("agents/ann", {"ann": ["agents/ann", *copy], "unsubscribed": copy, "ops": copy, "some": copy}),
        ("sessions/s", {"ann": ["sessions/s", *copy], "ops": copy, "some": copy}),
        ("topics/t", dict.fromkeys(everybody, copy)),
    ):
        if source == "client":
            publisher.say(type="publish", channel=channel, event=event, data=channel)
        elif source == "database":
            core.router.notified(f'{{"channel":"{channel}","event":"{event}","data":"{channel}"}}')
        else:
            core.application_hub.announce(parse_channel(channel), event, channel)
        found = {name: received(client, channel) for name, client in everybody.items()}
        assert {name: channels for name, channels in found.items() if channels} == expected


def test_only_the_readers_of_a_private_channel(core: Core) -> None:
    """
    If nobody has a scope with a pattern, only its own agent and session read a private channel.
    """
    ann, bob = make_client(core, "ann"), make_client(core, "bob")
    make_client(core, "ann").leave()
    core.router.notified('{"channel":"agents/ann","event":"task.created","data":1}')
    assert (received(ann, 1), received(bob, 1)) == (["agents/ann", "global"], [])
    ann.leave()
    core.router.notified('{"channel":"agents/ann","event":"task.created","data":2}')
    assert received(bob, 2) == []


def test_names_that_only_look_private(core: Core) -> None:
    """
    A name that fits no channel, but looks private, is private: on C{global} only operators read it.
    """
    ann, operator = make_client(core, "ann"), make_client(core, "ops", scope=EVERY)
    for name in ("Agents/ann", "agents/ann ", "/sessions/s"):
        core.router.notified(f'{{"channel":"{name}","event":"task.created","data":"{name}"}}')
        assert (received(ann, name), received(operator, name)) == ([], ["global"])
    core.router.notified('{"channel":"other","event":"task.created","data":1}')
    assert (received(ann, 1), received(operator, 1)) == (["global"], ["global"])


def test_subscribing(core: Core) -> None:
    """
    Without a scope, private channels are only for their own agent and session.
    """
    client = make_client(core, "ann", "s")
    names = ("agents/ann", "sessions/s", "topics/t", "agents/bob", "sessions/x")
    answers = [only(client.say(type="subscribe", channel=name, id=1)) for name in names]
    assert [answer["success"] for answer in answers] == [True, True, True, False, False]
    assert [answer["error"] for answer in answers[3:]] == [
        "Not authorized to subscribe to this agent channel",
        "Not authorized to subscribe to this session channel",
    ]


def test_a_session_that_a_client_only_names(core: Core) -> None:
    """
    The session that a token does not name, but the client does, is not its own.
    """
    client = Client(core, Origin(session_id="q"))
    token = sign(SECRET, "ann", None, core.world.wall_ms())
    assert only_ack(client.say(type="auth", token=token, id=1))["subscriptions"] == ["agents/ann", "global"]
    assert only_ack(client.say(type="auth", token=token, session_id="m", id=1))["subscriptions"] == [
        "agents/ann",
        "global",
    ]


def only_ack(answers: list[dict[str, Any]]) -> dict[str, Any]:
    return only([answer for answer in answers if answer.get("type") == "ack"])


def test_clients_of_development(clock: Clock) -> None:
    """
    In development a client is who it says it is, and reads its own private channels only.
    """
    core = make_core(clock, strict_private=True)
    client, other = Client(core, Origin("ann", "s")), Client(core)
    client.peer.take()
    other.peer.take()
    names = ("agents/ann", "sessions/s", "agents/bob", "sessions/x", "topics/t")
    assert [codes(client, 1, type="subscribe", channel=name, id=1) for name in names] == [
        *([None], [None], ["NOT_AUTHORIZED"], ["NOT_AUTHORIZED"], [None]),
    ]
    core.router.notified('{"channel":"sessions/s","event":"task.created","data":1}')
    assert (received(client, 1), received(other, 1)) == (["sessions/s", "global"], [])
    other.auth("bob", session_id="s")
    other.peer.take()
    core.router.notified('{"channel":"sessions/s","event":"task.created","data":2}')
    assert received(other, 2) == ["sessions/s", "global"]


def test_listeners_without_a_token(clock: Clock) -> None:
    """
    Clients that need not authenticate to listen read no private events.
    """
    core = make_core(clock, production=True, anonymous_listeners=True, strict_private=True)
    client = Client(core, Origin("ann", "s"))
    for name in ("agents/ann", "sessions/s"):
        core.router.notified(f'{{"channel":"{name}","event":"task.created","data":1}}')
        assert codes(client, 1, type="subscribe", channel=name, id=1)[-1] == "NOT_AUTHORIZED"
    core.router.notified('{"channel":"topics/t","event":"task.created","data":1}')
    assert received(client, 1) == ["global"]


def test_replays(core: Core) -> None:
    """
    A client that catches up with C{global} gets the same events as one that was connected.
    """
    for name in ("agents/ann", "agents/bob", "topics/t", "Agents/ann"):
        core.router.notified(f'{{"channel":"{name}","event":"task.created","data":"{name}"}}')
    expected = {
        "ann": ["agents/ann", "topics/t"],
        "bob": ["agents/bob", "topics/t"],
        "ops": ["agents/ann", "agents/bob", "topics/t", "Agents/ann"],
    }
    for agent, names in expected.items():
        client = make_client(core, agent, scope=EVERY if agent == "ops" else None)
        place = {"epoch": "epoch", "pos": 0, "channels": ["global"]}
        events = [frame for frame in client.say(type="resume", **place) if "event" in frame]
        assert [frame["data"] for frame in events if frame["channel"] == "global"] == names


def test_another_agent_on_the_same_connection(core: Core) -> None:
    """
    What an agent may read it may not read any more as another one.
    """
    client = make_client(core, "ann", "s")
    token = sign(SECRET, "bob", None, core.world.wall_ms())
    assert only_ack(client.say(type="auth", token=token, id=1))["subscriptions"] == ["agents/bob", "global"]
    client.peer.take()
    for name in ("agents/ann", "sessions/s"):
        core.router.notified(f'{{"channel":"{name}","event":"task.created","data":1}}')
    assert received(client, 1) == []


def test_redelivery_on_global(core: Core, clock: Clock) -> None:
    """
    A private event that was sent on C{global} is not sent there again to a client that may not read it any more.
    """
    client = make_client(core, "x", scope=("subscribe:global", "subscribe:agents/ann"))
    core.router.notified('{"channel":"agents/ann","event":"task.created","data":1}')
    assert received(client, 1) == ["global"]
    client.say(type="auth", token=sign(SECRET, "x", None, core.world.wall_ms(), scope=("subscribe:global",)))
    client.peer.take()
    clock.advance(5.1)
    for _ in core.retrying.sweep():
        pass
    assert received(client, 1) == []


def test_reset(core: Core) -> None:
    """
    After the log has become another one, nothing is left of the clients that were closed.
    """
    make_client(core, "ann", "s")
    make_client(core, "ops", scope=EVERY)
    core.hub.reset()
    readers = core.clients.private_readers
    assert readers is not None
    assert not readers.among({Client(core).session}, "agents/ann")
