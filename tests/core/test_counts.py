"""
Counting.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.counters import Histogram
from dcm_ws.core.counts import AUDIENCES, LATENCIES, SAMPLED, Received, Sent
from dcm_ws.protocol.events import CATALOGUE, CATEGORIES, traits_of
from tests.fakes import Client, make_core


def test_bounds_rise() -> None:
    """
    The bounds of the buckets are in order.
    """
    for bounds in (AUDIENCES, LATENCIES):
        assert all(one < other for one, other in pairwise(bounds))


def test_categories_are_a_closed_set() -> None:
    """
    What is not of the catalogue's families is C{other}: the database may publish any name.
    """
    assert CATEGORIES == ("agent", "message", "metric", "session", "subtask", "system", "task")
    assert {traits_of(name).category for name in CATALOGUE} == set(CATEGORIES)
    assert traits_of("pipeline.started").category == traits_of("other.x").category == "other"


def test_messages_and_events_are_counted() -> None:
    """
    Each message is counted as what it is, each event with its source, and each frame that goes out with its bytes.
    """
    core = make_core(Clock())
    client, other = Client(core), Client(core)
    counts = core.counts
    messages: list[dict[str, Any]] = [
        {"type": "subscribe", "channel": "topics/t", "id": 1},
        {"type": "ping"},
        {"type": "publish", "channel": "topics/t", "event": "task.created", "id": 2},
        {"type": "publish", "channel": "topics/t", "event": "no.such", "id": 3},
        {"type": "nonsense"},
    ]
    for message in messages:
        client.say(**message)
    core.router.notified(json.dumps({"channel": "global", "event": "pipeline.started"}))

    assert counts.received == Received(subscribe=1, publish=2, ping=1, invalid=1)
    assert (counts.events.client, counts.events.database, counts.events.service) == ({"task": 1}, {"other": 1}, {})
    assert counts.sent == Sent(ack=3, error=1)
    # on the topic and on global for one, on global for the other; and on global for both
    assert counts.events.audiences == {3: 1, 2: 1}
    assert Histogram(AUDIENCES, counts.events.audiences).counts[AUDIENCES.index(5)] == 1
    assert sum(counts.publish_seconds.counts) == 1
    assert core.counts.deliveries.begun == 2
    assert other.session in core.clients.sessions


@pytest.mark.parametrize(
    "message",
    [
        {"type": "ack", "message_id": "msg_of_nobody"},
        {"type": "auth", "agent_id": "ann"},
        {"type": "pong"},
        {"type": "publish", "channel": "global", "event": "system.info"},
        {"type": "subscribe", "channel": "topics/t"},
        {"type": "unsubscribe", "channel": "topics/t"},
    ],
    ids=lambda message: message["type"],
)
def test_each_type_is_counted(message: dict[str, str]) -> None:
    """
    A message of each type counts as that.
    """
    core = make_core(Clock())
    Client(core).say(**message)
    assert core.counts.received == Received(**{message["type"]: 1})


def test_what_is_over_the_rate_limit_is_counted_as_that() -> None:
    """
    Whatever it would have been.
    """
    core = make_core(Clock(), rate_limit=1.0, rate_burst=1.0)
    client = Client(core)
    client.say(type="ping")
    client.say(type="ping")
    client.say(type="nonsense")
    assert core.counts.received == Received(ping=1, limited=2)


def test_what_is_sent_again_is_counted_again() -> None:
    """
    Frames of a retry, of a heartbeat and of a replay are frames, too.
    """
    clock = Clock()
    core = make_core(clock)
    client = Client(core)
    client.auth("ann")
    client.say(type="publish", channel="global", event="task.created")
    clock.advance(5)
    list(core.retrying.sweep())
    assert core.counts.sent.again == 1
    clock.advance(25)
    list(core.hub.sweep())
    assert core.counts.sent.ping == 1
    client.leave()
    again = Client(core)
    again.auth("ann")
    assert core.counts.sent.again == 2


def test_one_of_some_publishings_is_timed() -> None:
    """
    The first, and so on.
    """
    core = make_core(Clock())
    client = Client(core)
    for _ in range(2 * SAMPLED + 1):
        client.say(type="publish", channel="global", event="system.info")
    assert sum(core.counts.publish_seconds.counts) == 3
