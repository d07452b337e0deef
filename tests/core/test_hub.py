from __future__ import annotations

import json
import re
from collections.abc import Generator
from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.ids import base36
from dcm_ws.core.limits import COUNTERS
from dcm_ws.core.session import Origin, State
from dcm_ws.core.stats import NAMES_SHOWN
from dcm_ws.protocol.channels import GLOBAL, METRICS, parse_channel
from dcm_ws.protocol.errors import CloseCode, ErrorCode, ProtocolError
from dcm_ws.protocol.events import CATALOGUE, SHEDDABLE, is_tracked
from dcm_ws.protocol.tokens import sign
from tests.core.living import events, finish, live
from tests.fakes import SECRET, WALL_MS, Client, RecordingPeer, make_core

TASK: dict[str, Any] = {"type": "publish", "channel": "topics/t", "event": "task.created"}


@pytest.fixture
def core(clock: Clock) -> Core:
    return make_core(clock)


def joined(core: Core, *channels: str, agent: str | None = None, quiet: bool = False) -> Client:
    """
    A client that is subscribed to some channels besides C{global}, or, where it is quiet, in place of it.
    """
    client = Client(core)
    if agent is not None:
        client.auth(agent)
    for channel in channels:
        client.say(type="subscribe", channel=channel)
    if quiet:
        client.say(type="unsubscribe", channel="global")
    client.peer.take()
    return client


def token(core: Core, agent: str, session: str | None = None) -> str:
    return sign(SECRET, agent, session, core.world.wall_ms())


def texts(messages: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    """
    The channel and the data of each tracked event.
    """
    return [(m["channel"], m["data"]) for m in messages if "event" in m and is_tracked(m["event"])]


def stats(core: Core) -> dict[str, Any]:
    return core.stats.report(names=True)


# connecting


def test_connected_comes_first(core: Core) -> None:
    """
    The first frame tells the client who it is, and to whom it speaks.
    """
    (connected,) = Client(core).peer.take()

    assert connected == {
        "type": "connected",
        "client_id": connected["client_id"],
        "timestamp": WALL_MS,
        "authenticated": False,
        "server": "dcm-ws/test",
    }
    assert re.fullmatch("ws_[0-9a-z]+_[0-9a-z]{6,}", connected["client_id"])
    assert int(connected["client_id"].split("_")[1], 36) == WALL_MS


def test_client_ids_are_unique(core: Core) -> None:
    """
    No two clients of a server are called alike.
    """
    assert len({Client(core).session.client_id for _ in range(100)}) == 100


def test_client_hears_global_without_asking(core: Core) -> None:
    """
    In development every client is subscribed to C{global} from the start.
    """
    client = Client(core)
    client.peer.take()
    core.router.announce(GLOBAL, "system.info", {})

    assert events(client.peer.take()) == [("global", "system.info")]


@pytest.mark.parametrize("origin", [Origin(), Origin("ann"), Origin("ann", "s")])
def test_claiming_an_agent_tells_nobody(core: Core, origin: Origin) -> None:
    """
    A client that only claims an agent causes no events, and is subscribed to nothing more.
    """
    watcher = Client(core)
    watcher.peer.take()
    client = Client(core, origin)
    client.leave()

    assert watcher.peer.take() == []
    assert stats(core)["channelStats"] == {"global": 1}


def test_token_in_the_query_authenticates_at_once(core: Core) -> None:
    """
    It is as if an C{auth} message had followed, without an id.
    """
    claims = core.identity.verify(token(core, "ann", "s-1"))
    client = Client(core, Origin("bob", "s-2", claims))
    connected, ack, event = client.peer.take()

    assert (connected["type"], connected["authenticated"]) == ("connected", False)
    assert ack == {
        "type": "ack",
        "id": None,
        "success": True,
        "subscriptions": ["agents/ann", "global", "sessions/s-1"],
        "timestamp": WALL_MS,
    }
    assert event["event"] == "agent.connected"
    assert event["data"] == {
        "agent_id": "ann",
        "client_id": connected["client_id"],
        "session_id": "s-1",
    }


def test_connections_are_limited(clock: Clock) -> None:
    """
    Past the limit a client is closed with 1013 and told nothing; there is room again when another leaves.
    """
    core = make_core(clock, max_connections=2)
    first = Client(core)
    Client(core)
    peer = RecordingPeer()

    assert core.hub.connect(peer, Origin()) is None
    assert peer.closed is CloseCode.TRY_AGAIN_LATER
    assert peer.frames == []
    assert (stats(core)["connectedClients"], stats(core)["closes"]) == (2, {"1013": 1})
    first.leave()
    assert Client(core).peer.closed is None


def test_leaving_twice_is_leaving_once(core: Core) -> None:
    """
    A connection ends once, whoever notices first.
    """
    watcher = Client(core)
    client = joined(core, agent="ann")
    watcher.peer.take()
    client.leave()
    client.leave()
    core.hub.close(client.session, CloseCode.RESTART)

    assert events(watcher.peer.take()) == [("global", "agent.disconnected")]
    assert client.peer.closed is None
    assert stats(core)["connectedClients"] == 1
    assert stats(core)["closes"] == {}


def test_one_who_left_with_many_makes_room(clock: Clock) -> None:
    """
    Clients whose end has not been dealt with yet keep nobody out.
    """
    core = make_core(clock, max_connections=2)
    first, second = Client(core), Client(core)
    core.hub.leave(first.session)
    core.hub.leave(second.session)
    assert stats(core)["connectedClients"] == 2
    assert Client(core).peer.closed is None
    assert stats(core)["connectedClients"] == 1


def test_one_who_left_with_many_comes_back(core: Core) -> None:
    """
    An agent that is back before its end has been dealt with gets what it still owed an ack for.
    """
    client = joined(core, "topics/t", agent="ann")
    missed = client.say(**TASK, data=1)
    core.hub.leave(client.session)
    _, *replayed, connected = joined_again(core, "ann")
    assert (replayed, connected["event"]) == (missed, "agent.connected")
    client.leave()
    assert stats(core)["connectedClients"] == 1


# authentication


def test_development_takes_a_name(core: Core) -> None:
    """
    In development an C{agent_id} is enough; the ack lists what the client now has.
    """
    client = Client(core)
    client.peer.take()
    ack, event = client.auth("ann", id="r1")

    assert ack == {
        "type": "ack",
        "id": "r1",
        "success": True,
        "subscriptions": ["agents/ann", "global"],
        "timestamp": WALL_MS,
    }
    assert (event["channel"], event["event"]) == ("global", "agent.connected")
    assert event["data"] == {
        "agent_id": "ann",
        "client_id": client.session.client_id,
        "session_id": None,
    }


def test_auth_is_acknowledged_without_an_id_too(core: Core) -> None:
    """
    Alone among the commands; its ack then has C{null} for the id.
    """
    client = Client(core)
    client.peer.take()

    ack = client.auth("ann")[0]
    assert (ack["type"], ack["id"], ack["success"]) == ("ack", None, True)


@pytest.mark.parametrize("production", [False, True])
def test_both_modes_take_a_token(clock: Clock, production: bool) -> None:
    """
    A good token says who the client is, whatever C{agent_id} stands beside it.
    """
    core = make_core(clock, production=production)
    client = Client(core)
    client.peer.take()

    ack = client.say(type="auth", token=token(core, "ann"), agent_id="bob", id=1)[0]
    assert ack["subscriptions"] == ["agents/ann", "global"]


@pytest.mark.parametrize(
    ("production", "fields", "code"),
    [
        (False, {}, "AGENT_ID_REQUIRED"),
        (False, {"session_id": "s"}, "AGENT_ID_REQUIRED"),
        (False, {"token": ""}, "AGENT_ID_REQUIRED"),
        (False, {"token": "x", "agent_id": "ann"}, "TOKEN_INVALID"),
        (False, {"token": sign(SECRET, "ann", None, 0), "agent_id": "ann"}, "TOKEN_EXPIRED"),
        (False, {"token": sign("another secret", "ann", None, WALL_MS)}, "TOKEN_INVALID"),
        (True, {}, "TOKEN_REQUIRED"),
        (True, {"agent_id": "ann"}, "TOKEN_REQUIRED"),
        (True, {"token": None, "agent_id": "ann"}, "TOKEN_REQUIRED"),
        (True, {"token": "x"}, "TOKEN_INVALID"),
        (True, {"token": sign(SECRET, "ann", None, 0)}, "TOKEN_EXPIRED"),
    ],
)
def test_failed_authentication(clock: Clock, production: bool, fields: dict[str, Any], code: str) -> None:
    """
    A client that fails to authenticate is told why, and stays who it was.
    """
    core = make_core(clock, production=production)
    client = Client(core)
    client.peer.take()
    (with_id,) = client.say(type="auth", **fields, id="r1")
    (without,) = client.say(type="auth", **fields)

    assert (with_id["type"], with_id["id"], with_id["success"], with_id["code"]) == ("ack", "r1", False, code)
    assert without == {"error": with_id["error"], "code": code, "timestamp": WALL_MS}
    assert client.session.state is (State.STRANGER if production else State.ANONYMOUS)
    assert client.peer.closed is None
    assert stats(core)["authenticatedClients"] == 0


def test_failed_authentication_keeps_the_former_one(core: Core) -> None:
    """
    Who was authenticated stays so when a second attempt fails.
    """
    client = joined(core, agent="ann")
    client.say(type="auth", token="x")

    assert client.session.agent == "ann"
    assert client.say(type="subscribe", channel="agents/bob", id=1)[0]["success"] is True


@pytest.mark.parametrize(
    ("in_token", "in_message", "in_query", "expected"),
    [
        ("s-token", "s-message", "s-query", "s-token"),
        (None, "s-message", "s-query", "s-message"),
        (None, None, "s-query", "s-query"),
        (None, None, None, None),
    ],
)
def test_session_comes_from_the_token_first(
    core: Core, in_token: str | None, in_message: str | None, in_query: str | None, expected: str | None
) -> None:
    """
    The session is the token's, else the message's, else the query's.
    """
    client = Client(core, Origin(session_id=in_query))
    client.peer.take()
    ack, event = client.say(type="auth", token=token(core, "ann", in_token), session_id=in_message)

    assert ack["subscriptions"] == ["agents/ann", "global"] + ([f"sessions/{expected}"] if expected else [])
    assert event["data"]["session_id"] == expected


def test_anonymous_client_in_production_hears_nothing(clock: Clock) -> None:
    """
    In production C{global} starts to count with the authentication.
    """
    core = make_core(clock, production=True)
    client = Client(core)
    client.peer.take()
    core.router.announce(GLOBAL, "system.info", {})
    core.router.announce(GLOBAL, "task.created", {})
    assert client.peer.take() == []
    assert stats(core)["pendingDeliveries"] == 0
    client.say(type="auth", token=token(core, "ann"))
    core.router.announce(GLOBAL, "system.info", {})

    assert events(client.peer.take()) == [("global", "system.info")]


@pytest.mark.parametrize("agent", ["ann", "bob"])
def test_global_stays_left_through_authentication(core: Core, agent: str) -> None:
    """
    A client that left C{global} does not get it back by authenticating, nor by doing so again.
    """
    client = joined(core, quiet=True)
    assert client.auth("ann")[0]["subscriptions"] == ["agents/ann"]

    assert client.auth(agent)[0]["subscriptions"] == [f"agents/{agent}"]


def test_authenticating_again_as_the_same_agent(core: Core) -> None:
    """
    A refresh changes nothing but is announced; no C{agent.disconnected} goes out.
    """
    client = joined(core, "topics/t", agent="ann")
    ack, event = client.auth("ann", session_id="s")

    assert ack["subscriptions"] == ["agents/ann", "global", "sessions/s", "topics/t"]
    assert event["event"] == "agent.connected"
    assert stats(core)["authenticatedClients"] == 1


def test_authenticating_as_another_agent(core: Core) -> None:
    """
    The second agent replaces the first, whose private channel is left and whose leaving is told.
    """
    watcher = joined(core)
    client = joined(core, "topics/t", agent="ann")
    client.auth("ann", session_id="s")
    watcher.peer.take()
    disconnected, ack, connected = client.auth("bob")

    assert ack["subscriptions"] == ["agents/bob", "global", "sessions/s", "topics/t"]
    assert [(e["event"], e["data"]) for e in watcher.peer.take()] == [
        ("agent.disconnected", {"agent_id": "ann", "client_id": client.session.client_id, "session_id": "s"}),
        ("agent.connected", {"agent_id": "bob", "client_id": client.session.client_id, "session_id": None}),
    ]
    assert (disconnected["event"], connected["event"]) == ("agent.disconnected", "agent.connected")
    assert stats(core)["authenticatedClients"] == 1
    core.router.announce(parse_channel("agents/ann"), "message.new", {})
    assert events(client.peer.take()) == [("global", "message.new")]


def test_agents_coming_and_going_is_told(core: Core) -> None:
    """
    Each authentication and each end of an authenticated connection is an event on C{global}.
    """
    watcher = joined(core)
    client = Client(core)
    client.auth("ann", session_id="s")
    client.leave()

    told = watcher.peer.take()
    assert events(told) == [("global", "agent.connected"), ("global", "agent.disconnected")]
    assert told[0]["data"] == told[1]["data"]
    assert told[0]["data"] == {"agent_id": "ann", "client_id": client.session.client_id, "session_id": "s"}
    assert stats(core)["authenticatedClients"] == 0


def test_agents_are_counted_by_their_connections(core: Core) -> None:
    """
    C{agentStats} names each agent that is connected, with its connections, and nobody who is only listened to.
    """
    first, second = joined(core, agent="ann"), joined(core, "agents/absent", agent="ann")
    joined(core)
    first.auth("ann")
    assert stats(core)["agentStats"] == {"ann": 2}
    second.auth("bob")
    assert stats(core)["agentStats"] == {"ann": 1, "bob": 1}
    assert stats(core)["agents"]["connected"] == 2
    assert "agentStats" not in core.stats.report(names=False)
    first.leave()
    second.leave()
    assert stats(core)["agentStats"] == {}


# subscriptions that come back


def test_subscriptions_come_back(core: Core) -> None:
    """
    An agent that connects anew gets what its last connection had, and hears it.
    """
    joined(core, "topics/t", "sessions/s", "agents/bob", "metrics", agent="ann").leave()
    client = Client(core)
    client.peer.take()

    ack = client.auth("ann")[0]
    assert ack["subscriptions"] == ["agents/ann", "agents/bob", "global", "metrics", "sessions/s", "topics/t"]
    assert events(client.say(**TASK), "task") == [("topics/t", "task.created"), ("global", "task.created")]


def test_left_channels_do_not_come_back(core: Core) -> None:
    """
    What an agent left, it left; also after it had come back once.
    """
    joined(core, "topics/t", "topics/u", agent="ann").leave()
    client = joined(core, agent="ann")
    client.say(type="unsubscribe", channel="topics/t")
    client.leave()

    assert Client(core).auth("ann")[-2]["subscriptions"] == ["agents/ann", "global", "topics/u"]


def test_anonymous_clients_are_not_remembered(core: Core) -> None:
    """
    What a client had that never authenticated is gone with it.
    """
    client = Client(core, Origin("ann"))
    client.say(type="subscribe", channel="topics/t")
    client.leave()

    assert Client(core).auth("ann")[-2]["subscriptions"] == ["agents/ann", "global"]


def test_subscriptions_are_each_agents_own(core: Core) -> None:
    """
    One agent does not get another's.
    """
    joined(core, "topics/t", agent="ann").leave()

    assert Client(core).auth("bob")[-2]["subscriptions"] == ["agents/bob", "global"]


@pytest.mark.parametrize(("away", "back"), [(86_399, True), (86_400, False)])
def test_subscriptions_come_back_within_a_day(clock: Clock, core: Core, away: int, back: bool) -> None:
    """
    Restored subscriptions are kept for 24 h.
    """
    joined(core, "topics/t", agent="ann").leave()
    clock.advance(away)

    assert ("topics/t" in Client(core).auth("ann")[-2]["subscriptions"]) is back


def test_subscriptions_of_so_many_agents_are_remembered(clock: Clock) -> None:
    """
    Past the limit the longest unseen agent's are forgotten.
    """
    core = make_core(clock, max_agents=2)
    for agent in ("ann", "bob", "cid"):
        joined(core, "topics/t", agent=agent).leave()

    assert stats(core)["agents"] == {"connected": 0, "absent": 2, "remembered": 2}
    assert "topics/t" not in Client(core).auth("ann")[-2]["subscriptions"]
    assert "topics/t" in Client(core).auth("cid")[-2]["subscriptions"]


def test_replaced_agent_is_remembered(core: Core) -> None:
    """
    An agent that another one replaced on its connection gets back what it had there.
    """
    client = joined(core, "topics/t", agent="ann")
    client.auth("bob")

    assert "topics/t" in Client(core).auth("ann")[-2]["subscriptions"]


# publishing


@pytest.mark.parametrize("channel", ["topics/t", "sessions/s", "agents/ann"])
@pytest.mark.parametrize("event", ["task.created", "system.info"])
def test_global_carries_all(core: Core, channel: str, event: str) -> None:
    """
    What is published to a session, an agent or a topic is mirrored to C{global}, with the same id.
    """
    specific = joined(core, channel, agent="x", quiet=True)
    everything = joined(core)
    both = joined(core, channel, agent="y")
    everything.peer.take()
    core.router.publish(parse_channel(channel), event, b'{"n":1}')

    (one,) = specific.peer.take()
    (other,) = everything.peer.take()
    assert one == {"id": one["id"], "channel": channel, "event": event, "data": {"n": 1}, "timestamp": WALL_MS}
    assert other == one | {"channel": "global", "origin": channel}
    assert both.peer.take() == [one, other]


@pytest.mark.parametrize("event", ["task.created", "system.info"])
def test_global_is_delivered_once(core: Core, event: str) -> None:
    """
    What is published to C{global} itself comes once.
    """
    client = joined(core)

    assert events(client.say(type="publish", channel="global", event=event)) == [("global", event)]


@pytest.mark.parametrize("event", ["task.created", "metric.update"])
def test_metrics_are_not_mirrored(core: Core, event: str) -> None:
    """
    What is published to C{metrics} is for its own subscribers.
    """
    listener, watcher = joined(core, "metrics"), joined(core)
    core.router.publish(METRICS, event, b"{}")

    assert events(listener.peer.take()) == [("metrics", event)]
    assert watcher.peer.take() == []


@pytest.mark.parametrize("event", sorted(CATALOGUE))
def test_whole_catalogue_may_be_published(core: Core, event: str) -> None:
    """
    Every event of the catalogue reaches its subscribers.
    """
    client = joined(core, "topics/t")

    assert events(client.say(type="publish", channel="topics/t", event=event)) == [
        ("topics/t", event),
        ("global", event),
    ]


def test_application_that_embeds_the_service_publishes(core: Core) -> None:
    """
    It announces events of the service's own, and publishes events as a client would.
    """
    client = joined(core, "topics/t", quiet=True)
    first = core.hub.announce(parse_channel("topics/t"), "system.info", {"n": 1})
    second = core.hub.publish(parse_channel("topics/t"), "task.created", b'{"n":2}')
    assert [(m["id"], m["data"]) for m in client.peer.take()] == [(first, {"n": 1}), (second, {"n": 2})]
    assert (core.counts.events.service["system"], core.counts.events.client["task"]) == (1, 1)


def test_nobody_else_hears(core: Core) -> None:
    """
    Who is subscribed to neither channel gets nothing.
    """
    publisher, other = joined(core, quiet=True), joined(core, "topics/u", quiet=True)

    assert publisher.say(**TASK) == []
    assert other.peer.take() == []
    assert stats(core)["pendingDeliveries"] == 0


def test_order_is_that_of_publishing(core: Core) -> None:
    """
    The events of one publisher on one channel come in its order, tracked and untracked mixed.
    """
    publisher, listener = joined(core, quiet=True), joined(core, "topics/t")
    for number in range(50):
        event = "task.updated" if number % 3 else "system.info"
        publisher.say(type="publish", channel="topics/t", event=event, data=number)

    heard = [(message["channel"], message["data"]) for message in listener.peer.take()]
    assert heard == [(channel, number) for number in range(50) for channel in ("topics/t", "global")]


def test_event_ids_are_unique_across_restarts(clock: Clock) -> None:
    """
    No two events are called alike, though the server restarts; no id is too long.
    """
    ids = []
    for _ in range(2):
        core = make_core(clock)
        ids += [core.router.announce(GLOBAL, "system.info", {}) for _ in range(100)]
        clock.advance(1)

    assert len(set(ids)) == 200
    assert all(event_id.startswith("msg_") and len(event_id) <= 64 for event_id in ids)


# at-least-once delivery


def test_unacknowledged_event_comes_three_times(clock: Clock, core: Core) -> None:
    """
    A tracked event that nobody acknowledges comes again after 5 s and after 10 s, the same frame, and is given up.
    """
    client = joined(core)
    first = client.say(**TASK)
    heard = {}
    for second in range(1, 31):
        live(core, clock, 1)
        if again := [message for message in client.peer.take() if "event" in message]:
            heard[second] = again

    assert heard == {5: first, 10: first}
    assert stats(core)["deliveries"]["neverAcknowledged"] == 1
    assert stats(core)["deliveries"]["retried"] == 2
    assert stats(core)["pendingDeliveries"] == 0


def test_acknowledged_event_comes_once(clock: Clock, core: Core) -> None:
    """
    After its ack an event does not come again.
    """
    client = joined(core)
    (event,) = client.say(**TASK)
    live(core, clock, 4)
    assert client.say(type="ack", message_id=event["id"]) == []
    live(core, clock, 20)

    assert events(client.peer.take()) == []
    assert stats(core)["pendingDeliveries"] == stats(core)["failedDeliveries"] == 0
    assert stats(core)["deliveries"]["acked"] == 1


@pytest.mark.parametrize("event", sorted(event for event in CATALOGUE if not is_tracked(event)))
def test_other_events_come_once(clock: Clock, core: Core, event: str) -> None:
    """
    What is not a task, a subtask or a message need not be acknowledged.
    """
    client = joined(core)
    client.say(type="publish", channel="topics/t", event=event)
    live(core, clock, 20)

    assert events(client.peer.take()) == []
    assert stats(core)["pendingDeliveries"] == 0


def test_both_frames_are_one_delivery(clock: Clock, core: Core) -> None:
    """
    Who is subscribed to the channel and to C{global} gets both frames again, in their order; one ack settles both.
    """
    client = joined(core, "topics/t")
    first = client.say(**TASK)
    assert stats(core)["pendingDeliveries"] == 1
    live(core, clock, 5)
    assert client.peer.take() == first
    client.say(type="ack", message_id=first[0]["id"])
    assert stats(core)["pendingDeliveries"] == 0
    live(core, clock, 20)

    assert events(client.peer.take()) == []


def test_ack_is_ones_own(clock: Clock, core: Core) -> None:
    """
    One subscriber's ack does not settle another's delivery.
    """
    ann, bob = joined(core), joined(core)
    (event,) = ann.say(**TASK)
    bob.peer.take()
    ann.say(type="ack", message_id=event["id"])
    live(core, clock, 5)

    assert events(ann.peer.take()) == []
    assert bob.peer.take() == [event]


def test_leaving_a_channel_does_not_settle_its_deliveries(clock: Clock, core: Core) -> None:
    """
    An event that was sent must be acknowledged, also after the channel was left.
    """
    client = joined(core)
    (event,) = client.say(**TASK)
    client.say(type="unsubscribe", channel="global")
    live(core, clock, 5)

    assert client.peer.take() == [event]


def test_ten_thousand_deliveries_may_be_pending(clock: Clock, core: Core) -> None:
    """
    Past 10,000 the oldest delivery is given up and counted; the client still gets the new ones.
    """
    client = joined(core)
    for number in range(10_003):
        core.router.publish(GLOBAL, "task.created", b"%d" % number)

    assert len(client.peer.take()) == 10_003
    assert stats(core)["pendingDeliveries"] == 10_000
    assert stats(core)["deliveries"]["neverAcknowledged"] == stats(core)["limits"]["maxPending"] == 3
    live(core, clock, 5)
    assert [message["data"] for message in client.peer.take()] == list(range(3, 10_003))


def test_pending_deliveries_wait_for_their_agent(clock: Clock, core: Core) -> None:
    """
    What an agent owed an ack for when its connection ended is sent again when it comes back, and tracked anew.
    """
    client = joined(core, "topics/t", agent="ann")
    first = client.say(**TASK, data=1)
    (acknowledged, _) = client.say(**TASK, data=2)
    client.say(type="ack", message_id=acknowledged["id"])
    client.leave()
    assert stats(core)["pendingDeliveries"] == 0
    assert stats(core)["deliveries"]["keptForAbsentAgents"] == 1
    live(core, clock, 299)
    again = Client(core)
    again.peer.take()

    ack, *replayed, connected = again.auth("ann")
    assert ack["type"] == "ack"
    assert replayed == first
    assert connected["event"] == "agent.connected"
    assert stats(core)["pendingDeliveries"] == 1
    assert stats(core)["deliveries"]["keptForAbsentAgents"] == 0
    live(core, clock, 5)
    assert again.peer.take() == first


def test_pending_deliveries_wait_for_five_minutes(clock: Clock, core: Core) -> None:
    """
    After 5 minutes they are given up and counted.
    """
    client = joined(core, "topics/t", agent="ann")
    client.say(**TASK)
    client.leave()
    live(core, clock, 300)
    assert stats(core)["deliveries"]["neverAcknowledged"] == 1
    again = Client(core)
    again.peer.take()

    assert texts(again.auth("ann")) == []
    assert "topics/t" in again.say(type="auth", agent_id="ann")[0]["subscriptions"]


def test_pending_deliveries_of_anonymous_clients_are_dropped(clock: Clock, core: Core) -> None:
    """
    Who never authenticated leaves nothing behind, and no failure either.
    """
    client = Client(core, Origin("ann"))
    client.say(**TASK)
    client.leave()

    assert stats(core)["pendingDeliveries"] == stats(core)["failedDeliveries"] == 0
    assert stats(core)["deliveries"]["keptForAbsentAgents"] == 0
    assert texts(Client(core).auth("ann")) == []


def test_missed_events_are_replayed_in_order(core: Core) -> None:
    """
    What was published to an agent's channels while it was away comes after what it owed, in the order of publishing.
    """
    client = joined(core, "topics/t", agent="ann")
    client.say(**TASK, data=1)
    client.leave()
    publisher = joined(core, quiet=True)
    for number, channel in ((2, "topics/t"), (3, "topics/u"), (4, "global"), (5, "metrics"), (6, "agents/ann")):
        publisher.say(type="publish", channel=channel, event="task.created", data=number)
    publisher.say(type="publish", channel="topics/t", event="system.info", data=7)
    again = Client(core)
    again.peer.take()

    assert texts(again.auth("ann")) == [
        ("topics/t", 1),
        ("global", 1),
        ("topics/t", 2),
        ("global", 2),
        ("global", 3),
        ("global", 4),
        ("agents/ann", 6),
        ("global", 6),
    ]
    assert stats(core)["pendingDeliveries"] == 5


def test_missed_events_have_the_id_that_others_saw(core: Core) -> None:
    """
    A replayed event is the very event that was published.
    """
    joined(core, "topics/t", agent="ann").leave()
    watcher = joined(core)
    (seen,) = watcher.say(**TASK, data={"n": 1})
    again = Client(core)
    again.peer.take()

    specific, mirror = again.auth("ann")[1:3]
    assert mirror == specific | {"channel": "global", "origin": "topics/t"} == seen
    assert specific["channel"] == "topics/t"


def test_agent_with_another_connection_is_not_told_twice(core: Core) -> None:
    """
    What an agent's other connection was told while one was away is told once to the one that comes back.
    """
    joined(core, "topics/t", agent="ann", quiet=True).leave()
    joined(core, quiet=True).say(**TASK, data=1)
    assert texts(joined_again(core, "ann")) == [("topics/t", 1)]

    assert texts(joined_again(core, "ann")) == []


def joined_again(core: Core, agent: str) -> list[dict[str, Any]]:
    """
    What an agent is told that comes back and leaves C{global}.
    """
    client = joined(core, quiet=True)
    return client.auth(agent)


def test_missed_events_may_be_acknowledged(clock: Clock, core: Core) -> None:
    """
    A replayed event that is acknowledged does not come again, neither to this connection nor to the next.
    """
    joined(core, "topics/t", agent="ann").leave()
    joined(core, quiet=True).say(**TASK)
    again = Client(core)
    missed = again.auth("ann")[2]
    again.say(type="ack", message_id=missed["id"])
    live(core, clock, 20)
    assert texts(again.peer.take()) == []
    again.leave()

    assert texts(joined_again(core, "ann")) == []


class SlowPeer(RecordingPeer):
    """
    Reads a replay only when told to, and remembers all that it was given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.replays: list[Any] = []

    def replay(self, frames: Any) -> None:
        self.replaying = frames
        self.replays.append(frames)


def slow(core: Core, agent: str) -> Client:
    """
    A client of an agent that is back, and has read nothing of its replay.
    """
    client = joined(core, quiet=True)
    client.peer = client.session.peer = SlowPeer()
    client.auth(agent)
    return client


def away(core: Core, agent: str, count: int) -> None:
    """
    Have an agent miss so many events on C{topics/t}.
    """
    joined(core, "topics/t", agent=agent, quiet=True).leave()
    publisher = joined(core, quiet=True)
    for number in range(count):
        publisher.say(**TASK, data=number)
    publisher.leave()


def test_replay_is_as_fast_as_it_is_read(clock: Clock, core: Core) -> None:
    """
    What has not been sent yet is not awaiting an ack, and is not sent again for want of one.
    """
    away(core, "ann", 10)
    client = slow(core, "ann")
    assert stats(core)["pendingDeliveries"] == 0
    client.peer.read(3)
    assert texts(client.peer.take()) == [("topics/t", number) for number in range(3)]
    assert stats(core)["pendingDeliveries"] == 3
    live(core, clock, 5)
    assert texts(client.peer.take()) == [("topics/t", number) for number in range(3)]
    client.peer.read()

    assert texts(client.peer.take()) == [("topics/t", number) for number in range(3, 10)]
    assert stats(core)["pendingDeliveries"] == 10
    assert client.session.replaying is None


def test_what_was_not_replayed_is_kept_again(clock: Clock, core: Core) -> None:
    """
    A connection that ends during the replay leaves the rest, and what it did not acknowledge, to the next one.
    """
    away(core, "ann", 10)
    client = slow(core, "ann")
    client.peer.read(4)
    for event in client.peer.take()[-3:]:
        client.say(type="ack", message_id=event["id"])
    client.leave()
    client.peer.read()
    assert texts(client.peer.take()) == []
    assert stats(core)["deliveries"]["keptForAbsentAgents"] == 7
    assert stats(core)["pendingDeliveries"] == 0
    joined(core, quiet=True).say(**TASK, data="later")

    expected = [0, *range(4, 10), "later"]
    assert texts(joined_again(core, "ann")) == [("topics/t", data) for data in expected]


def test_what_was_not_replayed_waits_five_minutes_anew(clock: Clock, core: Core) -> None:
    """
    The time begins when the last connection ended.
    """
    away(core, "ann", 2)
    live(core, clock, 200)
    slow(core, "ann").leave()
    live(core, clock, 200)

    assert texts(joined_again(core, "ann")) == [("topics/t", 0), ("topics/t", 1)]


def test_order_survives_a_connection_that_ends_during_the_replay(core: Core) -> None:
    """
    What came live, during a replay that was not finished, stands after what was still to be replayed.
    """
    away(core, "ann", 3)
    client = slow(core, "ann")
    client.peer.read(1)
    joined(core, quiet=True).say(**TASK, data=3)
    client.leave()

    assert texts(joined_again(core, "ann")) == [("topics/t", number) for number in range(4)]


def test_acknowledged_events_are_not_missed(core: Core) -> None:
    """
    What an agent heard before it left is not told again, though another agent was away and missed it.
    """
    joined(core, "topics/t", agent="bob").leave()
    client = joined(core, "topics/t", agent="ann", quiet=True)
    (event,) = client.say(**TASK)
    client.say(type="ack", message_id=event["id"])
    client.leave()

    assert texts(joined_again(core, "ann")) == []


def test_second_connection_is_not_told_what_others_missed(core: Core) -> None:
    """
    An agent that is here already missed nothing, whoever else is away.
    """
    for agent in ("bob", "ann"):
        joined(core, "topics/t", agent=agent, quiet=True).leave()
    joined(core, quiet=True).say(**TASK)
    assert texts(joined_again(core, "ann")) == [("topics/t", None)]

    assert texts(joined_again(core, "ann")) == []


def test_replaced_agent_keeps_what_was_not_replayed(core: Core) -> None:
    """
    An agent that another one replaces in the midst of its replay loses nothing, nor does the other.
    """
    away(core, "ann", 3)
    away(core, "bob", 2)
    client = slow(core, "ann")
    assert isinstance(client.peer, SlowPeer)
    client.peer.read(1)
    client.auth("bob")
    anns, bobs = client.peer.replays
    assert list(anns) == []
    assert next(bobs)
    client.leave()
    assert list(bobs) == []

    assert texts(joined_again(core, "bob")) == [("topics/t", 0), ("topics/t", 1)]
    assert [data for _, data in texts(joined_again(core, "ann"))] == [0, 1, 2, 0, 1]


def test_event_that_came_live_and_is_replayed_is_owed_once(core: Core) -> None:
    """
    Who heard an event on C{global} before it authenticated owes one ack for it after the replay.
    """
    joined(core, "topics/t", agent="ann").leave()
    client = joined(core)
    client.say(**TASK, data=1)
    assert stats(core)["pendingDeliveries"] == 1

    assert texts(client.auth("ann")) == [("topics/t", 1), ("global", 1)]
    assert stats(core)["pendingDeliveries"] == 1
    assert stats(core)["failedDeliveries"] == stats(core)["deliveries"]["neverAcknowledged"] == 0


def test_replay_is_limited_as_all_deliveries_are(clock: Clock) -> None:
    """
    An agent that missed more than it may owe gets it all, and owes the newest.
    """
    core = make_core(clock, max_pending=5)
    away(core, "ann", 8)

    assert texts(joined_again(core, "ann")) == [("topics/t", number) for number in range(8)]
    assert stats(core)["pendingDeliveries"] == 5
    assert stats(core)["deliveries"]["neverAcknowledged"] == 3


def test_client_that_leaves_during_a_retry(clock: Clock, core: Core) -> None:
    """
    Clients may come, go and acknowledge between two steps of a retry; all others get their frames.
    """
    clients = [joined(core) for _ in range(4)]
    core.router.publish(GLOBAL, "task.created", b"1")
    for client in clients:
        client.peer.take()
    clock.advance(5)
    job = core.hub.retry()
    next(job)
    (served,) = [client for client in clients if client.peer.frames]
    served.leave()
    clients.remove(served)
    finish(job)
    assert [texts(client.peer.take()) for client in clients] == [[("global", 1)]] * 3
    clock.advance(5)
    finish(core.hub.retry())

    assert [texts(client.peer.take()) for client in clients] == [[("global", 1)]] * 3
    assert stats(core)["pendingDeliveries"] == 3


# the database


def test_notification_is_published(core: Core) -> None:
    """
    What the database says is an event like any other, mirror and tracking included.
    """
    client = joined(core, "topics/t")
    core.router.notified('{"channel":"topics/t","event":"task.created","data":{"n": 1},"timestamp":1700000000000.9}')
    specific, mirror = client.peer.take()

    assert specific == {
        "id": specific["id"],
        "channel": "topics/t",
        "event": "task.created",
        "data": {"n": 1},
        "timestamp": 1_700_000_000_000,
    }
    assert mirror == specific | {"channel": "global", "origin": "topics/t"}
    assert stats(core)["pendingDeliveries"] == 1


def test_notification_without_a_timestamp_has_the_servers(core: Core) -> None:
    """
    Where the database does not say when, it was now.
    """
    client = joined(core)
    core.router.notified('{"channel":"global","event":"row.inserted"}')

    (event,) = client.peer.take()
    assert (event["timestamp"], event["data"], event["event"]) == (WALL_MS, None, "row.inserted")


@pytest.mark.parametrize("channel", ["projects", "epic-sessions", "", "agents/ a", "é", None, 5, []])
def test_notification_on_an_unknown_channel_goes_to_global(core: Core, channel: object) -> None:
    """
    A channel that does not fit the grammar is C{global}, once.
    """
    client = joined(core)
    core.router.notified(json.dumps({"channel": channel, "event": "task.created", "data": 1}))

    assert events(client.peer.take()) == [("global", "task.created")]


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("hello", ErrorCode.PARSE_ERROR),
        ("{}", ErrorCode.INVALID_MESSAGE),
        ('{"channel":"global","event":""}', ErrorCode.INVALID_EVENT),
        ('{"channel":"global","event":"task created"}', ErrorCode.INVALID_EVENT),
        ('{"event":"a","data":1e400}', ErrorCode.INVALID_MESSAGE),
        ('{"event":"a","data":' + "9" * 4301 + "}", ErrorCode.INVALID_MESSAGE),
        ('{"event":"a","data":' + "[" * 101 + "]" * 101 + "}", ErrorCode.INVALID_MESSAGE),
        ('{"channel":"projects","event":"' + "x" * 64 + '.y"}', ErrorCode.INVALID_EVENT),
    ],
)
def test_bad_notification_is_counted(core: Core, payload: str, code: ErrorCode) -> None:
    """
    A payload that is no event reaches nobody, and is counted.
    """
    client = joined(core)
    with pytest.raises(ProtocolError) as refusal:
        core.router.notified(payload)

    assert refusal.value.code is code
    assert client.peer.take() == []
    assert stats(core)["events"] == {"client": 0, "database": 0, "badNotifications": 1}


# sweeping


def test_client_that_leaves_during_a_sweep(clock: Clock, core: Core) -> None:
    """
    Clients may leave between two steps of a sweep; all others are pinged, then and the next time.
    """
    clients = [joined(core) for _ in range(4)]
    clock.advance(30)
    job = core.hub.sweep()
    next(job)
    (served,) = [client for client in clients if client.peer.frames]
    others = [client for client in clients if client is not served]
    others[0].leave()
    finish(job)

    for second in (30, 60):
        assert all(client.peer.take() for client in (served, *others[1:])), second
        for client in clients:
            client.session.heard_at = clock.seconds()
        clock.advance(30)
        finish(core.hub.sweep())
    assert others[0].peer.take() == []


def test_closing_a_silent_agent_is_told(clock: Clock, core: Core) -> None:
    """
    An agent whose connection times out has left, as if it had closed it; its deliveries are kept.
    """
    watcher = joined(core)
    client = joined(core, agent="ann")
    live(core, clock, 55)
    client.say(**TASK)
    watcher.peer.take()
    live(core, clock, 4)
    watcher.session.heard_at = clock.seconds()
    live(core, clock, 1)

    assert client.peer.closed is CloseCode.PING_TIMEOUT
    assert ("global", "agent.disconnected") in events(watcher.peer.take())
    assert texts(Client(core).auth("ann")) == [("global", None)]


def test_sweep_costs_what_is_due(clock: Clock, core: Core) -> None:
    """
    A sweep has no steps for clients whose time has not come.
    """
    for _ in range(10):
        joined(core)
    clock.advance(29)
    assert finish(core.hub.sweep()) == 0
    clock.advance(1)

    assert finish(core.hub.sweep()) == 10
    assert finish(core.hub.retry()) == 0


def test_draining_is_told(core: Core) -> None:
    """
    Before the service stops it says so.
    """
    client = joined(core)
    assert not core.hub.draining
    core.hub.drain()

    (event,) = client.peer.take()
    assert core.hub.draining
    assert (event["channel"], event["event"]) == ("global", "system.info")
    assert event["data"] == {"component": "server", "state": "draining"}


# counts


def test_metrics_are_wanted_while_somebody_listens(core: Core) -> None:
    """
    Snapshots are taken only for somebody.
    """
    assert not core.registry.members(METRICS.name)
    client = joined(core, "metrics")
    assert core.registry.members(METRICS.name)
    client.leave()

    assert not core.registry.members(METRICS.name)


def test_counts(core: Core) -> None:
    """
    The numbers behind C{/health} and C{/stats} are those of the moment.
    """
    ann, bob = joined(core, "topics/t", agent="ann"), joined(core)
    ann.say(**TASK)
    core.router.notified('{"channel":"topics/t","event":"task.failed"}')
    bob.say(type="hello")

    assert core.stats.sizes(names=False) == {"connectedClients": 2, "activeChannels": 3, "pendingDeliveries": 4}
    assert core.stats.sizes(names=True)["channelStats"] == {"global": 2, "topics/t": 1, "agents/ann": 1}
    bob.leave()
    ann.leave()
    assert stats(core) == {
        "connectedClients": 0,
        "activeChannels": 0,
        "channelStats": {},
        "pendingDeliveries": 0,
        "failedDeliveries": 0,
        "authenticatedClients": 0,
        "observers": 0,
        "agentStats": {},
        "totalConnections": 2,
        "events": {"client": 1, "database": 1, "badNotifications": 0},
        "deliveries": {"acked": 0, "retried": 0, "givenUp": 0, "neverAcknowledged": 0, "keptForAbsentAgents": 2},
        "agents": {"connected": 0, "absent": 1, "remembered": 1},
        "refusals": {"UNKNOWN_MESSAGE_TYPE": 1},
        "closes": {},
        "limits": dict.fromkeys(COUNTERS, 0),
    }
    assert "channelStats" not in core.stats.report(names=False)


def test_so_many_channels_are_listed_at_most(clock: Clock) -> None:
    """
    A listing of channels is bounded; their number is not.
    """
    core = make_core(clock, max_subscriptions=5000)
    joined(core, *(f"topics/{number}" for number in range(NAMES_SHOWN + 5)))

    assert len(stats(core)["channelStats"]) == NAMES_SHOWN
    assert stats(core)["activeChannels"] == NAMES_SHOWN + 6


def test_recent_events_that_did_not_fit_are_counted(clock: Clock) -> None:
    """
    An operator sees that the log of recent events was too short.
    """
    core = make_core(clock, max_events=2)
    away(core, "ann", 5)

    assert stats(core)["limits"]["maxRecentEvents"] == 3
    assert texts(joined_again(core, "ann")) == [("topics/t", 3), ("topics/t", 4)]


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (1, "1"), (35, "z"), (36, "10"), (WALL_MS, "lrq4coow")])
def test_base36(number: int, text: str) -> None:
    """
    Ids are written in digits and lower-case letters.
    """
    assert base36(number) == text
    assert int(text, 36) == number


class Offered(RecordingPeer):
    """
    Keeps apart what it is offered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.offers: list[tuple[str, bytes]] = []

    def offer(self, name: str, frame: bytes) -> None:
        self.offers.append((name, frame))


@pytest.mark.parametrize("event", sorted(SHEDDABLE))
def test_what_need_not_arrive_is_offered(core: Core, event: str) -> None:
    """
    A client that is far behind may be spared a heartbeat or a snapshot where a later one takes its place: one of the
    same agent, on the same channel.
    """
    peer = Offered()
    session = core.hub.connect(peer, Origin())
    assert session is not None
    core.interpreter.receive(session, '{"type":"subscribe","channel":"topics/t"}')
    peer.take()
    for data in (b"1", b'{"agent_id":"ann"}', b'{"agent_id":"bob","n":1}', b'{"agent_id":"bob","n":2}'):
        core.router.publish(parse_channel("topics/t"), event, data)
    names = [name for name, _ in peer.offers]
    assert len(set(names[:6])) == 6
    assert names[4:6] == names[6:8]
    core.router.publish(parse_channel("topics/t"), "system.info", b"1")

    assert events(peer.take()) == [("topics/t", "system.info"), ("global", "system.info")]


def test_restored_subscriptions_are_limited_too(clock: Clock) -> None:
    """
    An agent that comes back to a client that has much already is given no more than the limit, always the same.
    """
    core = make_core(clock, max_subscriptions=4)
    joined(core, "topics/b", "topics/c", agent="ann").leave()
    for _ in range(2):
        client = joined(core, "topics/a")
        assert client.auth("ann")[0]["subscriptions"] == ["agents/ann", "global", "topics/a", "topics/b"]

    assert stats(core)["limits"]["maxSubscriptions"] == 2


def test_own_channels_fit_beyond_the_limit(clock: Clock) -> None:
    """
    A client that has all the subscriptions it may have still gets the channels of its agent and its session.
    """
    core = make_core(clock, max_subscriptions=3)
    client = joined(core, "topics/a", "topics/b")
    (answer,) = (m for m in client.auth("ann", session_id="s", id=1) if m.get("type") == "ack")

    assert answer["subscriptions"] == ["agents/ann", "global", "sessions/s", "topics/a", "topics/b"]
    assert stats(core)["limits"]["maxSubscriptions"] == 0


def test_one_broken_client_does_not_end_a_sweep(clock: Clock, core: Core) -> None:
    """
    Where a client cannot be looked after, the others are with the next sweep.
    """

    class Broken(RecordingPeer):
        def send(self, frame: bytes) -> None:
            raise RuntimeError("broken")

    clients = [joined(core) for _ in range(5)]
    clients[2].session.peer = Broken()
    clock.advance(30)
    with pytest.raises(RuntimeError):
        finish(core.hub.sweep())
    clock.advance(1)
    finish(core.hub.sweep())

    pinged = [message["type"] for client in clients for message in client.peer.take()]
    assert pinged == ["ping"] * 4


def test_sweep_that_is_broken_off_is_made_up_for(clock: Clock, core: Core) -> None:
    """
    Clients that a sweep did not come to are looked after in the next one.
    """
    clients = [joined(core) for _ in range(5)]
    clock.advance(30)
    job = core.hub.sweep()
    assert isinstance(job, Generator)
    next(job)
    job.close()
    clock.advance(1)

    assert finish(core.hub.sweep()) == 4
    assert [message["type"] for client in clients for message in client.peer.take()] == ["ping"] * 5


# secrets


def test_any_of_the_secrets_will_do(clock: Clock) -> None:
    """
    While the secret is being changed, tokens under the new one and all older ones are good.
    """
    core = make_core(clock)
    core.identity.secrets = ("new secret", "middle secret", "old secret")
    for secret in core.identity.secrets:
        assert core.identity.verify(sign(secret, "ann", None, WALL_MS)).agent_id == "ann"
    for secret, issued, code in (
        ("new secret", 0, ErrorCode.TOKEN_EXPIRED),
        ("middle secret", 0, ErrorCode.TOKEN_EXPIRED),
        ("old secret", 0, ErrorCode.TOKEN_EXPIRED),
        (SECRET, WALL_MS, ErrorCode.TOKEN_INVALID),
    ):
        with pytest.raises(ProtocolError) as refusal:
            core.identity.verify(sign(secret, "ann", None, issued))
        assert refusal.value.code is code


# limits that are counted


def test_limits_are_counted_by_name(clock: Clock) -> None:
    """
    An operator sees which limits were crossed, and how often.
    """
    core = make_core(clock, max_connections=2, max_subscriptions=1, max_depth=1, rate_limit=1.0, rate_burst=5.0)
    client, other = Client(core), Client(core)
    assert core.hub.connect(RecordingPeer(), Origin()) is None
    client.say(type="subscribe", channel="topics/t")
    client.say(type="publish", channel="global", event="system.info", data=[[]])
    for _ in range(10):
        client.say(type="ping")
    core.hub.close(client.session, CloseCode.TOO_SLOW)
    core.hub.close(other.session, CloseCode.RESTART)

    assert {name: count for name, count in stats(core)["limits"].items() if count} == {
        "maxConnections": 1,
        "maxSubscriptions": 1,
        "maxDepth": 1,
        "rateLimit": 7,
        "maxSendBuffer": 1,
    }


@pytest.mark.parametrize(
    ("code", "limit"),
    [
        (CloseCode.TOO_SLOW, "maxSendBuffer"),
        (CloseCode.TOO_MANY_MESSAGES, "rateLimitTenfold"),
        (CloseCode.PING_TIMEOUT, "heartbeatTimeout"),
        (CloseCode.AUTHENTICATION_REQUIRED, "authTimeout"),
    ],
)
def test_closes_for_a_limit_are_counted(core: Core, code: CloseCode, limit: str) -> None:
    """
    A connection that ends for a limit counts for that limit.
    """
    core.hub.close(Client(core).session, code)

    assert stats(core)["limits"][limit] == 1
    assert stats(core)["closes"] == {str(int(code)): 1}


# figures


@pytest.mark.parametrize(
    ("rules", "seconds"),
    [
        ({}, 1.0),
        ({"heartbeat_interval": 0.4, "heartbeat_timeout": 1.0}, 0.1),
        ({"heartbeat_interval": 30.0, "heartbeat_timeout": 2.0}, 0.5),
        ({"auth_timeout": 0.5}, 0.125),
    ],
)
def test_short_times_are_looked_after_often(clock: Clock, rules: dict[str, float], seconds: float) -> None:
    """
    A sweep comes every second, or four times in the shortest of the time-outs, so that none is enforced late.
    """
    assert make_core(clock, **rules).liveness.interval == seconds


def test_silence_is_noticed_within_one_sweep(clock: Clock) -> None:
    """
    A client that says nothing is closed by the first sweep after its time is up.
    """
    core = make_core(clock, heartbeat_interval=0.4, heartbeat_timeout=1.0)
    client = Client(core)
    live(core, clock, 0.9, step=core.liveness.interval)
    assert client.peer.closed is None
    live(core, clock, 0.2, step=core.liveness.interval)

    assert client.peer.closed is CloseCode.PING_TIMEOUT


def test_answers_are_counted(core: Core) -> None:
    """
    Every C{ack} that a client gets is counted once, an C{auth}'s as well.
    """
    client = Client(core)
    answers = [
        *client.auth("ann", id=1),
        *client.auth("ann"),
        *client.say(type="subscribe", channel="topics/t", id=2),
        *client.say(type="subscribe", channel="no channel", id=3),
    ]

    assert len([answer for answer in answers if answer.get("type") == "ack"]) == 4
    assert core.counts.sent.ack == 4


def test_publishing_is_timed(clock: Clock, core: Core) -> None:
    """
    What is measured begins with the client's message and ends when the frames are queued for all subscribers.
    """

    class Slow(RecordingPeer):
        def send(self, frame: bytes) -> None:
            clock.advance(0.25)
            super().send(frame)

    publisher = joined(core, quiet=True)
    for _ in range(2):
        joined(core, "topics/t", quiet=True).session.peer = Slow()
    publisher.say(type="publish", channel="topics/t", event="system.info")

    assert core.counts.publish_seconds.sum == 0.5


@pytest.mark.parametrize("event", ["metric.update", "agent.heartbeat"])
@pytest.mark.parametrize("depth", [100, 990, 3900])
@pytest.mark.parametrize("before", ["", '{"x":', '{"agent_id":', '{"agent_id":"a","x":'])
def test_deep_events_that_are_conflated(core: Core, event: str, depth: int, before: str) -> None:
    """
    An event of which only the latest of an agent matters may be nested as deep as NOTIFY can carry: it is delivered or
    refused, and nothing breaks.
    """
    client = joined(core)
    data = before + "[" * depth + "]" * depth + "}" * before.count("{")
    try:
        core.router.notified(f'{{"channel":"global","event":"{event}","data":{data}}}')
    except ProtocolError:
        assert client.peer.take() == []
    else:
        client.peer.frames.clear()
    core.router.announce(GLOBAL, "system.info", None)

    assert events(client.peer.take()) == [("global", "system.info")]
