"""
Counting.
"""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from dcm_ws.events import CATALOGUE, CATEGORIES, category_of
from dcm_ws.messages import Ping, Publish, Subscribe
from dcm_ws.tally import AUDIENCES, LATENCIES, Histogram
from tests.fakes import Client, make_hub


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 5))))
def test_histogram(values: list[tuple[float, int]]) -> None:
    """
    Each value is in the bucket whose bound is the first that is not below it.
    """
    histogram = Histogram((1, 5, 10))
    for value, times in values:
        histogram.observe(value, times)
    many = [value for value, times in values for _ in range(times)]
    assert histogram.counts == [
        sum(value <= 1 for value in many),
        sum(1 < value <= 5 for value in many),
        sum(5 < value <= 10 for value in many),
        sum(value > 10 for value in many),
    ]
    assert abs(histogram.sum - sum(many)) <= 1e-6 * (1 + sum(many))


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
    assert {category_of(name) for name in CATALOGUE} == set(CATEGORIES)
    assert category_of("pipeline.started") == category_of("other.x") == "other"


def test_messages_and_events_are_counted() -> None:
    """
    Each message is counted as what it is, each event with its source, and each frame that goes out with its bytes.
    """
    hub = make_hub(Clock())
    client, other = Client(hub), Client(hub)
    tally = hub.tally
    assert tally.sent == {"connected": 2}
    said = [
        {"type": "subscribe", "channel": "topics/t", "id": 1},
        {"type": "ping"},
        {"type": "publish", "channel": "topics/t", "event": "task.created", "id": 2},
        {"type": "publish", "channel": "topics/t", "event": "no.such", "id": 3},
        {"type": "nonsense"},
    ]
    for message in said:
        client.say(**message)
    hub.notified(json.dumps({"channel": "global", "event": "pipeline.started"}))

    assert tally.received == {Subscribe: 1, Ping: 1, Publish: 2, None: 1}
    assert tally.received_bytes == sum(len(json.dumps(message)) for message in said)
    assert tally.events == {("client", "task"): 1, ("database", "other"): 1}
    # on the topic and on global for one, on global for the other; and both again
    assert tally.sent == {"connected": 2, "ack": 3, "pong": 1, "error": 1, "event": 5}
    assert tally.fanout.counts[AUDIENCES.index(5)] == 1
    assert tally.fanout.counts[AUDIENCES.index(2)] == 1
    assert sum(tally.publish_seconds.counts) == 1
    assert all(size > 10 * tally.sent[kind] for kind, size in tally.sent_bytes.items())
    assert hub.deliveries.begun == 2
    assert other.session in hub.sessions


def test_what_is_sent_again_is_counted_again() -> None:
    """
    Frames of a retry, of a heartbeat and of a replay are frames, too.
    """
    clock = Clock()
    hub = make_hub(clock)
    client = Client(hub)
    client.auth("ann")
    client.say(type="publish", channel="global", event="task.created")
    before = hub.tally.sent["event"]
    clock.advance(5)
    list(hub.retry())
    assert hub.tally.sent["event"] == before + 1
    clock.advance(25)
    list(hub.sweep())
    assert hub.tally.sent["ping"] == 1
    client.leave()
    again = Client(hub)
    before = hub.tally.sent["event"]
    again.auth("ann")
    # the task, and that the agent is back
    assert hub.tally.sent["event"] == before + 2
