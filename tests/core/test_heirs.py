"""
What waits in the log for a connection that ends goes to another connection of its agent.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from tests.core.clients import TASK, joined, stats, texts
from tests.fakes import Client, make_core


@pytest.fixture
def core(clock: Clock) -> Core:
    """
    A core in which one event may be in flight to a client.
    """
    return make_core(clock, max_pending=1)


def connection(core: Core, *channels: str) -> Client:
    client = joined(core, quiet=True)
    client.receive(b'{"type":"auth","agent_id":"ann","durable":true}')
    for channel in channels:
        client.receive(b'{"type":"subscribe","channel":"%b"}' % channel.encode())
    return client


def publish(core: Core, *data: Any, channel: str = "topics/t", event: str = "task.created") -> None:
    publisher = joined(core, quiet=True)
    for one in data:
        publisher.say(**(TASK | {"channel": channel, "event": event}), data=one)


def read(client: Client) -> list[tuple[str, Any]]:
    """
    What a client gets that acknowledges each event.
    """
    found: list[tuple[str, Any]] = []
    while messages := client.peer.take():
        found += texts(messages)
        for message in messages:
            if "event" in message:
                client.receive(b'{"type":"ack","message_id":"%b"}' % message["id"].encode())
        if client.peer.replaying is not None:
            client.peer.read()
    return found


def test_heir_that_is_not_subscribed(core: Core) -> None:
    """
    It gets the tracked events, and what is published later only in its own channels.
    """
    old, heir = connection(core, "topics/t"), connection(core, "topics/u")
    publish(core, 0, 1)
    publish(core, 9, event="session.created")
    publish(core, 2)
    old.leave()
    publish(core, 3)
    publish(core, 4, channel="topics/u")
    assert read(heir) == [("topics/t", 0), ("topics/t", 1), ("topics/t", 2), ("topics/u", 4)]
    assert heir.session.behind is None
    publish(core, 5)
    assert read(heir) == []


def test_heir_that_has_subscribed_later(core: Core) -> None:
    """
    It gets each event once.
    """
    old = connection(core, "topics/t")
    publish(core, 0, 1)
    heir = connection(core, "topics/t")
    publish(core, 2)
    old.leave()
    assert [data for _, data in read(heir)] == [0, 1, 2]


def test_events_of_global(core: Core) -> None:
    old, heir = connection(core, "global"), connection(core)
    publish(core, 0, 1)
    old.leave()
    # what was sent before comes as the frame of its channel
    assert read(heir) == [("topics/t", 0), ("global", 1)]


def test_several_that_end(core: Core) -> None:
    """
    Also one that has inherited itself.  If the last of them ends before it has been sent everything, the agent counts
    as subscribed to the channel when it returns.
    """
    first, second, heir = connection(core, "topics/t"), connection(core, "topics/t"), connection(core)
    publish(core, 0, 1)
    first.leave()
    publish(core, 2)
    second.leave()
    publish(core, 3)
    last = connection(core, "topics/u")
    heir.leave()
    last.leave()
    back = joined(core, quiet=True)
    back.receive(b'{"type":"auth","agent_id":"ann"}')
    assert [data for _, data in read(back)] == [0, 1, 2, 3]


def test_heir_that_unsubscribes(core: Core) -> None:
    """
    It wants nothing of that channel any more, but for what was sent before.
    """
    old, heir = connection(core, "topics/t"), connection(core)
    publish(core, 0, 1)
    old.leave()
    heir.receive(b'{"type":"unsubscribe","channel":"topics/t"}')
    assert read(heir) == [("topics/t", 0)]


def test_heir_that_becomes_another_agent(core: Core) -> None:
    old, heir = connection(core, "topics/t"), connection(core)
    publish(core, 0, 1)
    old.leave()
    heir.peer.take()
    heir.receive(b'{"type":"auth","agent_id":"bob"}')
    assert read(heir) == []
    assert [data for _, data in read(connection(core))] == [0, 1]


def test_newer_connection_gets_what_waits_first(core: Core) -> None:
    """
    What waits for an old connection comes before what is published from now on, and not only when the old one ends.
    """
    connection(core, "topics/t").leave()
    old = connection(core)
    publish(core, 0, 1)
    heir = connection(core)
    publish(core, 2)
    assert [data for _, data in read(heir)] == [0, 1, 2]
    old.leave()
    assert read(heir) == []


def test_newer_connection_that_subscribes_later(core: Core) -> None:
    """
    It takes over what waits for the old one in the channel when it subscribes to that.
    """
    old, heir = connection(core, "topics/t"), connection(core)
    publish(core, 0, 1)
    heir.receive(b'{"type":"subscribe","channel":"topics/t"}')
    publish(core, 2)
    assert [data for _, data in read(heir)] == [1, 2]
    old.leave()
    assert read(heir) == [("topics/t", 0)]
    assert stats(core)["log"]["takeovers"] == 2


def test_newer_connection_that_resumes(core: Core) -> None:
    """
    It takes over also what is before the position that it resumes from: that may be another program's.
    """
    old, heir = connection(core, "topics/t"), connection(core)
    publish(core, 0, 1, 2)
    place = core.log.head - 1
    resume = {"type": "resume", "epoch": core.log.epoch, "pos": place, "channels": ["topics/t"]}
    heir.receive(json.dumps(resume).encode())
    publish(core, 3)
    old.leave()
    assert sorted(data for _, data in read(heir)) == [0, 1, 2, 3]


def test_what_another_connection_resumes_is_not_taken_over(core: Core) -> None:
    """
    The agent has had it, and a client that resumes does so again.
    """
    publish(core, 0, 1)
    old = joined(core, quiet=True)
    resume = {"epoch": core.log.epoch, "pos": 0, "channels": ["topics/t"]}
    old.receive(json.dumps({"type": "auth", "agent_id": "ann", "durable": True, "resume": resume}).encode())
    heir = connection(core, "topics/t")
    assert read(heir) == [("topics/t", 0)]
    publish(core, 2)
    old.leave()
    assert [data for _, data in read(heir)] == [2]


def test_newer_connection_that_gets_a_channel_by_another_auth(core: Core) -> None:
    """
    The channel of the DCM session that it names then.
    """
    old, heir = connection(core, "sessions/s"), connection(core)
    publish(core, 0, 1, channel="sessions/s")
    heir.receive(b'{"type":"auth","agent_id":"ann","session_id":"s"}')
    publish(core, 2, channel="sessions/s")
    assert [data for _, data in read(heir)] == [1, 2]
    old.leave()
    assert read(heir) == [("sessions/s", 0)]


def test_what_a_newer_connection_took_over_is_not_lost_with_it(core: Core) -> None:
    """
    It ends before it has been sent that; so does the old one, in one order or the other.
    """
    connection(core, "topics/t").leave()
    for first in (0, 1):
        pair = [connection(core), connection(core)]
        publish(core, 0, 1, 2)
        pair.pop(first).leave()
        last = connection(core)
        pair.pop().leave()
        assert [data for _, data in read(last)] == [0, 1, 2]
        last.leave()


def test_third_connection(core: Core) -> None:
    """
    The second one has taken over what waits for the first one, and has handled it: that does not come again.
    """
    connection(core, "topics/t").leave()
    first = connection(core)
    publish(core, 0, 1)
    second = connection(core)
    assert [data for _, data in read(second)] == [0, 1]
    third = connection(core)
    publish(core, 2)
    assert [data for _, data in read(third)] == [2]
    first.leave()
    second.leave()
    assert read(third) == []


def test_heir_that_catches_up_already(core: Core) -> None:
    """
    What it has had of what it inherited does not come again when there is more.
    """
    first, second = connection(core, "topics/t"), connection(core, "topics/u")
    heir = connection(core)
    publish(core, 0, 1)
    publish(core, 2, 3, channel="topics/u")
    first.leave()
    *_, message = heir.peer.take()
    heir.receive(b'{"type":"ack","message_id":"%b"}' % message["id"].encode())
    heir.peer.read()
    second.leave()
    heir.peer.read()
    assert [data for _, data in read(heir)] == [1, 2, 3]
