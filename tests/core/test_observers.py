"""
Observers: clients that get events and owe nothing for them.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.session import Origin
from dcm_ws.protocol.channels import parse_channel
from dcm_ws.protocol.tokens import sign
from tests.core.living import events, live
from tests.fakes import SECRET, Client, make_core

TASK: dict[str, Any] = {"type": "publish", "channel": "topics/t", "event": "task.created"}


def observe(core: Core, agent: str | None = None, *channels: str) -> Client:
    """
    An observer that has read what it was sent so far.
    """
    client = Client(core, Origin(observer=True))
    if agent is not None:
        client.auth(agent)
    for channel in channels:
        client.say(type="subscribe", channel=channel)
    client.peer.take()
    return client


def owed(core: Core) -> Any:
    return core.stats.report(names=True)["pendingDeliveries"]


def test_observer_is_sent_events_once(clock: Clock, core: Core) -> None:
    """
    An observer gets each tracked event once, on all its channels, and nothing waits for its ack.
    """
    observer = observe(core, None, "topics/t")
    other = Client(core)
    other.say(**TASK, data=1)
    assert events(observer.peer.take()) == [("topics/t", "task.created"), ("global", "task.created")]
    assert owed(core) == 1
    live(core, clock, 30)
    assert events(observer.peer.take()) == []
    stats = core.stats.report(names=True)
    assert (stats["deliveries"]["neverAcknowledged"], stats["observers"], stats["connectedClients"]) == (1, 1, 2)


def test_nothing_is_held_for_observers_alone(core: Core) -> None:
    """
    Without anybody who owes an ack there is no delivery.
    """
    observer = observe(core)
    core.router.publish(parse_channel("topics/t"), "task.created", b"1")
    assert events(observer.peer.take()) == [("global", "task.created")]
    assert (owed(core), core.counts.deliveries.begun) == (0, 0)


def test_ack_of_an_observer_is_harmless(core: Core) -> None:
    """
    An ack that was not asked for changes nothing, also where others owe one for that event.
    """
    observer, other = observe(core), Client(core)
    (event,) = observer.say(**TASK, data=1)
    assert observer.say(type="ack", message_id=event["id"]) == []
    assert owed(core) == 1
    assert other.say(type="ack", message_id=event["id"])[-1]["id"] == event["id"]
    assert owed(core) == 0


def test_ack_of_an_observer_settles_nothing_for_its_agent(core: Core) -> None:
    """
    An observer that authenticates as an agent does not acknowledge for it.
    """
    agent, observer = Client(core), observe(core, "ann")
    agent.auth("ann")
    observer.peer.take()
    (event,) = observer.say(**TASK, data=1)
    observer.say(type="ack", message_id=event["id"])
    observer.say(type="ack", pos=event["pos"])
    assert owed(core) == 1
    agent.say(type="ack", message_id=event["id"])
    assert owed(core) == 0


def test_observer_is_not_present(core: Core) -> None:
    """
    Neither the coming nor the going of an observer is announced, and its agent does not count as connected.
    """
    watcher = Client(core)
    watcher.peer.take()
    claims = core.identity.verify(sign(SECRET, "ann", "s", core.world.wall_ms()))
    observer = Client(core, Origin(claims=claims, observer=True))
    ack = observer.peer.take()[-1]
    assert ack["subscriptions"] == ["agents/ann", "global", "sessions/s"]
    stats = core.stats.report(names=True)
    assert (stats["agentStats"], stats["agents"]["connected"], stats["authenticatedClients"]) == ({}, 0, 1)
    # a new token for the same agent
    observer.auth("ann")
    observer.leave()
    assert watcher.peer.take() == []
    stats = core.stats.report(names=True)
    assert (stats["authenticatedClients"], stats["observers"]) == (0, 0)


def test_nothing_is_kept_or_restored_for_an_observer(core: Core) -> None:
    """
    What an agent left behind waits for the agent and not for its observers, and an observer leaves nothing behind.
    """
    agent = Client(core)
    agent.auth("ann")
    agent.say(type="subscribe", channel="topics/t")
    agent.leave()
    core.router.publish(parse_channel("topics/t"), "task.created", b"1")

    observer = Client(core, Origin(observer=True))
    assert observer.auth("ann")[-1]["subscriptions"] == ["agents/ann", "global"]
    observer.say(type="subscribe", channel="topics/other")
    observer.leave()
    assert (core.memory.absent, len(core.memory)) == (1, 1)

    again = Client(core)
    _, ack, *missed = again.auth("ann")
    assert ack["subscriptions"] == ["agents/ann", "global", "topics/t"]
    assert events(missed) == [("topics/t", "task.created"), ("global", "task.created"), ("global", "agent.connected")]


def test_agent_of_an_observer_is_still_away(core: Core) -> None:
    """
    An agent that has only observers is away: what it misses is kept for it.
    """
    agent = Client(core)
    agent.auth("ann")
    observe(core, "ann")
    agent.leave()
    core.router.publish(parse_channel("agents/ann"), "message.new", b"1")
    again = Client(core)
    assert [frame["channel"] for frame in again.auth("ann") if frame.get("event") == "message.new"] == [
        "agents/ann",
        "global",
    ]


def test_observer_reads_what_its_agent_may(clock: Clock) -> None:
    """
    In production an observer authenticates like any other client, and has the rights of its token.
    """
    core = make_core(clock, production=True)
    observer = Client(core, Origin(observer=True))
    assert observer.say(type="subscribe", channel="topics/t", id=1)[-1]["code"] == "NOT_AUTHORIZED"
    ack = observer.say(type="auth", token=sign(SECRET, "ann", None, core.world.wall_ms()))[-1]
    assert ack["subscriptions"] == ["agents/ann", "global"]
    core.router.publish(parse_channel("agents/ann"), "task.created", b"1")
    assert events(observer.peer.take()) == [("agents/ann", "task.created"), ("global", "task.created")]


def test_observer_may_listen_to_the_agent_it_claims(core: Core) -> None:
    """
    In development the agent in the query is enough to listen to its channel.
    """
    observer = Client(core, Origin(agent_id="ann", observer=True))
    assert observer.say(type="subscribe", channel="agents/ann", id=1)[-1]["success"]
    assert observer.say(type="subscribe", channel="agents/bob", id=2)[-1]["code"] == "NOT_AUTHORIZED"


def test_becoming_an_observer(clock: Clock, core: Core) -> None:
    """
    A client that becomes an observer leaves its agent, which keeps what was owed; its subscriptions stay.
    """
    watcher = Client(core)
    client = Client(core)
    client.auth("ann")
    client.say(type="subscribe", channel="topics/t")
    client.say(**TASK, data=1)
    watcher.say(type="unsubscribe", channel="global")
    watcher.say(type="subscribe", channel="global")
    watcher.peer.take()
    *_, ack = client.auth("ann", observer=True)
    assert ack["subscriptions"] == ["agents/ann", "global", "topics/t"]
    assert events(watcher.peer.take()) == [("global", "agent.disconnected")]
    stats = core.stats.report(names=True)
    assert (stats["agentStats"], stats["observers"], stats["authenticatedClients"]) == ({}, 1, 1)
    assert (core.memory.kept, core.memory.absent) == (1, 1)

    # without the field a refreshed token changes nothing
    assert [frame["type"] for frame in client.auth("ann")] == ["ack"]
    core.router.publish(parse_channel("topics/t"), "task.created", b"2")
    assert len(client.peer.take()) == 2
    live(core, clock, 30)
    assert events(client.peer.take()) == []


def test_ceasing_to_observe(core: Core) -> None:
    """
    An observer that becomes a participant is its agent from then on: it gets what was kept, and owes acks.
    """
    first = Client(core)
    first.auth("ann")
    first.say(**TASK, data=1)
    first.leave()
    observer = observe(core, "ann")
    watcher = Client(core)
    watcher.peer.take()
    ack, *rest = observer.auth("ann", observer=False)
    assert ack["success"]
    assert events(rest) == [("global", "task.created"), ("global", "agent.connected")]
    assert events(watcher.peer.take()) == [("global", "agent.connected")]
    stats = core.stats.report(names=True)
    assert (stats["agentStats"], stats["observers"], stats["pendingDeliveries"]) == ({"ann": 1}, 0, 1)
    observer.leave()
    assert events(watcher.peer.take()) == [("global", "agent.disconnected")]
    assert core.memory.kept == 1


def test_becoming_an_observer_during_a_replay(core: Core) -> None:
    """
    What was not replayed yet is kept for the agent, and the observer is not sent the rest.
    """
    first = Client(core)
    first.auth("ann")
    for n in range(4):
        first.say(**TASK, data=n)
    first.leave()
    second = Client(core)
    second.peer.replay = lambda frames: setattr(second.peer, "replaying", frames)  # type: ignore[method-assign]
    second.auth("ann")
    second.peer.read(2)
    second.peer.take()
    second.auth("ann", observer=True)
    second.peer.read()
    assert events(second.peer.take()) == []
    assert (core.memory.kept, owed(core)) == (4, 0)


def test_becoming_an_observer_while_events_wait(clock: Clock) -> None:
    """
    What waits in the log for a client to which enough is in flight comes when it has become an observer.
    """
    client = Client(make_core(clock, max_pending=1))
    client.auth("ann")
    client.peer.take()
    client.say(**TASK, data=1)
    client.say(**TASK, data=2)
    client.say(type="publish", channel="topics/t", event="session.created")
    client.auth("ann", observer=True)
    client.peer.read()
    assert events(client.peer.take(), "task", "session") == [("global", "task.created"), ("global", "session.created")]
    assert client.core.memory.kept == 1


def test_anonymous_client_becomes_an_observer(core: Core) -> None:
    """
    What a client owed before it authenticated as an observer is dropped, as at the end of its connection.
    """
    client = Client(core)
    client.say(**TASK, data=1)
    assert owed(core) == 1
    client.auth("ann", observer=True)
    assert (owed(core), core.memory.kept) == (0, 0)


def test_observer_changes_its_agent(core: Core) -> None:
    """
    As another agent, an observer leaves the former one's channel, without a word to others.
    """
    watcher = Client(core)
    watcher.peer.take()
    observer = observe(core, "ann")
    assert observer.auth("bob")[-1]["subscriptions"] == ["agents/bob", "global"]
    assert watcher.peer.take() == []
    # a participant as another agent, and an observer as a third
    observer.auth("cid", observer=False)
    observer.auth("dan", observer=True)
    told = [(frame["event"], frame["data"]["agent_id"]) for frame in watcher.peer.take()]
    assert told == [("agent.connected", "cid"), ("agent.disconnected", "cid")]
    assert core.registry.channels(observer.session) == {"agents/dan", "global"}


@pytest.mark.parametrize("value", [1, "yes", "true", [], {}])
def test_malformed_observer(core: Core, value: Any) -> None:
    """
    In C{auth} the field is a boolean; anything else is refused, and the text names it.
    """
    client = Client(core)
    refused = client.auth("ann", observer=value)[-1]
    assert refused["code"] == "INVALID_MESSAGE"
    assert "observer" in refused["error"]


@pytest.mark.parametrize("production", [False, True])
def test_acks_of_those_who_owe_none_are_not_limited(clock: Clock, production: bool) -> None:
    """
    A library that acknowledges all that it gets may do so for an observer, or a listener without a token, too: one ack
    for each event costs nothing, and more than that are messages like any other.
    """
    rates: dict[str, Any] = {"stranger_rate" if production else "rate_limit": 1.0, "rate_burst": 5.0}
    core = make_core(
        clock,
        production=production,
        anonymous_listeners=production,
        **rates,
    )
    client = Client(core, Origin(observer=not production, address="192.0.2.1"))
    for _ in range(50):
        event_id = core.router.publish(parse_channel("global"), "task.created", b"1").id
        client.peer.take()
        assert client.say(type="ack", message_id=event_id) == []
    replies = [client.say(type="ack", message_id=event_id) for _ in range(10)]
    assert [reply[0]["code"] for reply in replies if reply] == ["RATE_LIMITED"] * 5


def test_acks_of_strangers_who_hear_nothing_are_limited(clock: Clock) -> None:
    """
    Who gets no events has nothing to acknowledge.
    """
    core = make_core(clock, production=True, stranger_rate=1.0)
    client = Client(core, Origin(observer=True, address="192.0.2.1"))
    client.peer.take()
    for _ in range(50):
        core.router.publish(parse_channel("global"), "task.created", b"1")
    replies = [client.say(type="ack", message_id="msg_1") for _ in range(10)]
    assert [reply[0]["code"] for reply in replies if reply] == ["RATE_LIMITED"] * 5
