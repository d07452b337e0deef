"""
Events on their way to the subscribers.
"""

from __future__ import annotations

import json

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.session import Origin
from dcm_ws.protocol.channels import GLOBAL, METRICS, parse_channel
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.events import CATALOGUE, SHEDDABLE
from tests.core.clients import TASK, joined, stats
from tests.core.living import events
from tests.fakes import WALL_MS, RecordingPeer, make_core

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
    place = {"pos": 1} if event != "system.info" else {}
    assert one == {
        "id": one["id"],
        "channel": channel,
        "event": event,
        "data": {"n": 1},
        "timestamp": WALL_MS,
        **place,
    }
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
    first = core.application_hub.announce(parse_channel("topics/t"), "system.info", {"n": 1})
    second = core.application_hub.publish(parse_channel("topics/t"), "task.created", b'{"n":2}')
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
        "pos": 1,
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
