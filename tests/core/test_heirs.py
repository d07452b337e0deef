"""
What waits in the log for a connection that ends goes to another connection of its agent.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from tests.core.clients import TASK, joined, texts
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
