"""
Protocol, section 3: events, and who hears them.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest
from websockets.sync.client import ClientConnection

from tests.integration.clients import ask, hear, say, silence, unsubscribe_global
from tests.integration.databases import PostgresServer
from tests.integration.running import Service, service
from tests.integration.sharing import SharedServices

pytestmark = pytest.mark.integration

CATALOGUE = [
    *("task.created", "task.updated", "task.completed", "task.failed"),
    *("subtask.created", "subtask.updated", "subtask.completed", "subtask.failed", "subtask.running"),
    *("message.new", "message.read", "message.expired"),
    *("agent.connected", "agent.disconnected", "agent.heartbeat", "agent.blocked", "agent.unblocked"),
    *("session.created", "session.ended"),
    "metric.update",
    *("system.error", "system.info"),
]


@pytest.fixture
def running(services: SharedServices, database: PostgresServer) -> Iterator[Service]:
    options = ("--extra-event", "pipeline.*", "--extra-event", "audit.logged", "--metrics-interval", "3600")
    with services.lend("--database-url", database.url, *options) as running:
        yield running


@pytest.fixture
def publisher(running: Service) -> ClientConnection:
    """
    A client that hears nothing by itself.
    """
    client = running.connect()
    unsubscribe_global(client)
    return client


def listener(running: Service, *channels: str) -> ClientConnection:
    """
    A client subscribed to these channels alone.
    """
    client = running.connect("/?agent_id=lara")
    for channel in channels:
        ask(client, type="subscribe", channel=channel, id=channel)
    if "global" not in channels:
        unsubscribe_global(client)
    return client


def test_event_frame(running: Service, publisher: ClientConnection) -> None:
    """
    An event has an id, a channel, its name, its data and a time, in milliseconds.
    """
    client = listener(running, "topics/x")
    before = time.time_ns() // 1_000_000
    say(publisher, type="publish", channel="topics/x", event="task.completed", data={"a": 1}, timestamp=1)
    event = hear(client)
    after = time.time_ns() // 1_000_000
    assert event.keys() == {"id", "channel", "event", "data", "timestamp", "pos"}
    assert type(event["timestamp"]) is int
    assert before <= event["timestamp"] <= after
    assert (event["channel"], event["event"], event["data"]) == ("topics/x", "task.completed", {"a": 1})


def test_event_ids(running: Service, publisher: ClientConnection) -> None:
    """
    Every event has an id of its own of at most 64 characters, also across servers.
    """
    ids = []
    for number in range(100):
        ids.append(ask(publisher, type="publish", channel="global", event="system.info", id=number)["message_id"])
    with service() as other:
        client = other.connect()
        for number in range(10):
            say(client, type="publish", channel="global", event="system.info", id=number)
            event, answer = hear(client), hear(client)
            assert event["id"] == answer["message_id"]
            ids.append(event["id"])
    assert len(set(ids)) == 110
    assert all(re.fullmatch(r"msg_[0-9a-zA-Z_-]{1,60}", event_id) for event_id in ids)


def test_catalogue(publisher: ClientConnection) -> None:
    """
    A client may publish each of the 22 events of the catalogue.
    """
    assert len(CATALOGUE) == 22
    for event in CATALOGUE:
        assert ask(publisher, type="publish", channel="global", event=event, id=event)["success"] is True


@pytest.mark.parametrize(
    ("event", "allowed"),
    [
        ("audit.logged", True),
        ("audit.other", False),
        ("pipeline.done", True),
        ("pipeline.step.done", True),
        ("pipeline", False),
        ("pipeline.", False),
        ("pipeline.Done", True),
        ("pipeline.é", False),
        ("pipelines.done", False),
        ("pipeline." + "x" * 55, True),
        ("pipeline." + "x" * 56, False),
    ],
)
def test_extra_events(publisher: ClientConnection, event: str, allowed: bool) -> None:
    """
    A client may publish the events that the operator adds, by name or by family.
    """
    answer = ask(publisher, type="publish", channel="global", event=event, id=1)
    assert answer["success"] is allowed
    if not allowed:
        assert answer["code"] == "INVALID_EVENT"


def test_database_may_publish_any_event(running: Service, database: PostgresServer) -> None:
    """
    The database may publish any event that fits the grammar; what does not is dropped.
    """
    client = running.connect()
    good = [
        "task.created",
        "deploy.step_2.all-done",
        "a.b",
        "0.1",
        "x." + "y" * 62,
        "task",
        "Task.created",
        "build:done",
    ]
    bad = ["task created", "tâche", "a/b", "a b.c", "a\n", "x." + "y" * 63, ""]
    for event in bad + good:
        database.notify(json.dumps({"channel": "global", "event": event, "data": None}))
    assert [hear(client)["event"] for _ in good] == good
    silence(client)
    assert running.stats()["events"]["badNotifications"] >= len(bad)


@pytest.mark.parametrize("channel", ["topics/mirror", "agents/lara", "sessions/s"])
@pytest.mark.parametrize("source", ["client", "database"])
def test_global_carries_all_events(
    running: Service,
    publisher: ClientConnection,
    database: PostgresServer,
    channel: str,
    source: str,
) -> None:
    """
    What is published on a topic, to an agent or to a session comes on global too, under the same id.
    """
    general, special = listener(running, "global"), listener(running, channel)
    message = {"channel": channel, "event": "task.created", "data": {"n": 1}}
    if source == "client":
        say(publisher, type="publish", **message)
    else:
        database.notify(json.dumps(message))
    mirrored, event = hear(general), hear(special)
    assert event["channel"] == channel
    assert mirrored == event | {"channel": "global", "origin": channel}
    silence(general)
    silence(special)


def test_metrics_are_not_mirrored(running: Service, publisher: ClientConnection) -> None:
    """
    What is published on metrics does not come on global.
    """
    general, special = listener(running, "global"), listener(running, "metrics")
    say(publisher, type="publish", channel="metrics", event="metric.update")
    assert hear(special)["channel"] == "metrics"
    silence(publisher)
    silence(general)


def test_global_event_comes_once(running: Service, publisher: ClientConnection) -> None:
    """
    What is published on global is delivered once.
    """
    client = listener(running, "global", "topics/x")
    say(publisher, type="publish", channel="global", event="task.created")
    assert hear(client)["channel"] == "global"
    silence(client)


def test_subscriber_of_both_gets_both(running: Service, publisher: ClientConnection) -> None:
    """
    A client subscribed to a channel and to global gets both frames, the channel's own first; one ack settles both.
    """
    client = listener(running, "global", "topics/both")
    say(publisher, type="publish", channel="topics/both", event="task.created")
    first, second = hear(client), hear(client)
    assert (first["channel"], second["channel"]) == ("topics/both", "global")
    assert first["id"] == second["id"]
    before = running.stats()
    say(client, type="ack", message_id=first["id"])
    silence(client)
    after = running.stats()
    assert after["pendingDeliveries"] == before["pendingDeliveries"] - 1
    assert after["deliveries"]["acked"] == before["deliveries"]["acked"] + 1


def test_publisher_hears_its_own_event(running: Service) -> None:
    """
    A publisher gets its own event where it is subscribed, and an ack besides.
    """
    client = listener(running, "topics/own")
    say(client, type="publish", channel="topics/own", event="system.info", id=1)
    event, answer = hear(client), hear(client)
    assert event["event"] == "system.info"
    assert answer["message_id"] == event["id"]


def test_order(running: Service, publisher: ClientConnection, database: PostgresServer) -> None:
    """
    The events of one publisher reach each subscriber in the order in which they were published.
    """
    clients = [listener(running, "global"), listener(running, "topics/order")]
    for number in range(500):
        say(publisher, type="publish", channel="topics/order", event="metric.update", data=number)
    for client in clients:
        assert [hear(client)["data"] for _ in range(500)] == list(range(500))
    payloads = [
        json.dumps({"channel": "topics/order", "event": "metric.update", "data": number}) for number in range(500)
    ]
    database.notify(*payloads)
    for client in clients:
        assert [hear(client)["data"] for _ in range(500)] == list(range(500))


def test_agent_comes_and_goes(running: Service) -> None:
    """
    global hears of each agent that authenticates, and of its leaving.
    """
    watcher, agent = listener(running, "global"), running.connect()
    ask(agent, type="auth", agent_id="worker", session_id="s-1")
    expected = {"agent_id": "worker", "client_id": agent.connected["client_id"], "session_id": "s-1"}
    event = hear(watcher)
    assert (event["channel"], event["event"], event["data"]) == ("global", "agent.connected", expected)
    agent.close()
    event = hear(watcher)
    assert (event["channel"], event["event"], event["data"]) == ("global", "agent.disconnected", expected)
    silence(watcher)


def test_agent_without_a_session(running: Service) -> None:
    """
    Where no session is known, the events about the agent say null.
    """
    watcher, agent = listener(running, "global"), running.connect()
    ask(agent, type="auth", agent_id="loner")
    assert hear(watcher)["data"]["session_id"] is None


def test_claimed_agent_is_not_announced(running: Service) -> None:
    """
    A client that only claims an agent_id in its query causes no events.
    """
    watcher = listener(running, "global")
    client = running.connect("/?agent_id=claimed&session_id=s")
    client.close()
    silence(watcher)
