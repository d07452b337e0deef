"""
Publishing once, however often it is repeated with the same key (protocol, sections 4 and 10).
"""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.counts import Counts
from dcm_ws.core.entries import Published
from dcm_ws.core.keys import PublishKeys
from dcm_ws.core.router import SERVICE
from dcm_ws.protocol.channels import GLOBAL
from dcm_ws.protocol.errors import ErrorCode
from tests.core.living import finish
from tests.fakes import Client, make_core


def publish(client: Client, key: object = "k", **more: Any) -> dict[str, Any]:
    """
    Publish an event; return its ack.
    """
    message = {"type": "publish", "channel": "topics/a", "event": "task.created", "data": 1, "id": 1, "key": key}
    [answer] = [frame for frame in client.say(**(message | more)) if frame.get("type") == "ack"]
    return answer


def agent(core: Core, name: str) -> Client:
    client = Client(core)
    client.auth(name)
    return client


def test_same_key_publishes_once(core: Core) -> None:
    """
    The second publish returns the id and the position of the first event, and nobody gets another one.
    """
    reader, ann = agent(core, "reader"), agent(core, "ann")
    reader.say(type="subscribe", channel="topics/a")
    first, second = publish(ann), publish(ann, data=2, event="task.failed", channel="global")
    assert second == first | {"duplicate": True}
    assert "duplicate" not in first
    assert [frame["data"] for frame in reader.peer.take() if frame.get("channel") == "topics/a"] == [1]
    assert core.log.head == first["pos"]
    assert core.stats.report(names=False)["keys"] == {"remembered": 1, "duplicates": 1}


def test_events_that_are_not_logged_have_keys_too(core: Core) -> None:
    ann = agent(core, "ann")
    first, second = (publish(ann, event="metric.update") for _ in range(2))
    assert second == first | {"duplicate": True}
    assert "pos" not in first


def test_other_keys_and_none(core: Core) -> None:
    """
    An empty key, and null, count as absent.
    """
    ann = agent(core, "ann")
    ids = {publish(ann, key)["message_id"] for key in ("k", "K", " ", "", "", None, None, "é", "x" * 128, "x" * 127)}
    assert len(ids) == 10


def test_unpaired_surrogates_in_a_key(core: Core) -> None:
    """
    They are replaced by U+FFFD, as in other texts.
    """
    ann = agent(core, "ann")
    assert publish(ann, "\ud83d")["message_id"] == publish(ann, "\ufffd")["message_id"]
    assert publish(ann, "\U0001f600" * 128)["success"] is True


@pytest.mark.parametrize("key", ["x" * 129, 1, True, ["k"]])
def test_invalid_key(core: Core, key: object) -> None:
    answer = publish(agent(core, "ann"), key)
    assert (answer["success"], answer["code"]) == (False, "INVALID_MESSAGE")
    assert "key" in answer["error"]


def test_keys_belong_to_their_agents(core: Core) -> None:
    """
    All connections of an agent share its keys, also later ones; other agents have theirs.
    """
    ann, other, bob = agent(core, "ann"), agent(core, "ann"), agent(core, "bob")
    first = publish(ann)
    core.hub.disconnect(ann.session)
    assert publish(other)["message_id"] == first["message_id"]
    assert publish(agent(core, "ann"))["message_id"] == first["message_id"]
    assert publish(bob)["message_id"] != first["message_id"]


def test_clients_without_an_agent_have_keys_of_their_own(core: Core) -> None:
    """
    Each connection has its own: none of them learns of the keys of another, or blocks one.
    """
    one, other = Client(core), Client(core)
    first = publish(one)
    assert publish(other)["message_id"] != first["message_id"]
    assert publish(one)["message_id"] == first["message_id"]
    one.auth("ann")
    assert publish(one)["message_id"] != first["message_id"]


def test_no_agent_has_the_name_of_a_connection(core: Core) -> None:
    one = Client(core)
    publish(one)
    thief = Client(core)
    thief.auth(f" {one.session.client_id}")
    assert thief.session.agent is None


def test_key_is_free_again_after_ten_minutes(core: Core, clock: Clock) -> None:
    ann = agent(core, "ann")
    first = publish(ann)
    clock.advance(599)
    finish(core.hub.sweep())
    assert publish(ann)["message_id"] == first["message_id"]
    clock.advance(1)
    second = publish(ann)
    assert second["message_id"] != first["message_id"]
    clock.advance(1)
    finish(core.hub.sweep())
    assert (len(core.keys), publish(ann)["message_id"]) == (1, second["message_id"])
    clock.advance(600)
    finish(core.hub.sweep())
    assert len(core.keys) == 0


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"channel": "no such"}, "INVALID_CHANNEL"),
        ({"event": "no.such"}, "INVALID_EVENT"),
        ({"data": json.loads("[" * 101 + "]" * 101)}, "INVALID_MESSAGE"),
    ],
)
def test_refused_publish_does_not_use_the_key(core: Core, more: dict[str, Any], code: str) -> None:
    ann = agent(core, "ann")
    assert publish(ann, **more)["code"] == code
    assert "duplicate" not in publish(ann)


def test_rate_limit_does_not_use_the_key(clock: Clock) -> None:
    core = make_core(clock, rate_limit=1.0, rate_burst=1.0)
    ann = agent(core, "ann")
    publish(ann, "another")
    assert publish(ann)["code"] == "RATE_LIMITED"
    clock.advance(1)
    assert "duplicate" not in publish(ann)
    clock.advance(1)
    assert publish(ann)["duplicate"] is True


def test_stopping_service_answers_for_what_it_has_published(core: Core) -> None:
    """
    What is in the log is acknowledged; what is not is refused, and does not use the key.
    """
    ann = agent(core, "ann")
    first = publish(ann, "done")
    core.hub.drain()
    assert publish(ann, "new")["code"] == ErrorCode.NOT_AVAILABLE
    assert publish(ann, "done")["message_id"] == first["message_id"]
    assert len(core.keys) == 1


def test_application_has_keys_of_its_own(core: Core) -> None:
    ids = [core.application_hub.publish(GLOBAL, "task.created", b"1", key=key) for key in ("k", "k", "", "")]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert publish(agent(core, "ann"))["message_id"] != ids[0]
    assert " " in SERVICE


# how many are remembered


def remember(keys: PublishKeys, publisher: str, *names: object) -> list[bool]:
    """
    Publish under some keys; return which of them were known.
    """
    return [keys.once(publisher, str(name), lambda digest: Published("id", 1)).duplicate for name in names]


def test_publisher_with_most_keys_loses_its_oldest(clock: Clock, counts: Counts) -> None:
    keys = PublishKeys(clock.seconds, counts, max_keys=100)
    remember(keys, "victim", *range(10))
    remember(keys, "mallory", *range(1000))
    assert len(keys) <= 100
    assert counts.limits.max_keys.value == 1010 - len(keys)
    assert all(remember(keys, "victim", *range(10)))
    assert all(remember(keys, "mallory", *range(990, 1000)))
    assert remember(keys, "mallory", 0) == [False]


def test_many_publishers_lose_only_what_has_to_go(clock: Clock, counts: Counts) -> None:
    """
    Regression: with as many publishers as there is room for keys, all of them lost their only one.
    """
    keys = PublishKeys(clock.seconds, counts, max_keys=640)
    for number in range(641):
        remember(keys, f"a{number}", 1)
    assert len(keys) == 630


def test_forgotten_keys_leave_nothing_behind(clock: Clock, counts: Counts) -> None:
    keys = PublishKeys(clock.seconds, counts, max_keys=100)
    for number in range(5000):
        remember(keys, f"a{number % 7}", number)
        assert len(keys._order) <= 2 * 100 + 64
    clock.advance(600)
    assert keys.expire(10)
    assert not keys.expire(1000)
    assert (len(keys), len(keys._order), keys._shares, keys._known) == (0, 0, {}, {})


def test_long_keys_take_no_more_memory_than_short_ones(clock: Clock, counts: Counts) -> None:
    """
    The worst case: each key is of another publisher with a long name.
    """
    keys = PublishKeys(clock.seconds, counts, max_keys=1000)
    tracemalloc.start()
    try:
        for number in range(1000):
            remember(keys, f"{number:05}".ljust(128), "\N{GRINNING FACE}" * 128)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(keys) == 1000
    assert size / 1000 < 1000
