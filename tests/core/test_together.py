"""
Events that are published together: all of them, or none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.entries import Published
from dcm_ws.core.log import MemoryLog
from dcm_ws.core.session import Session
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from tests.core.latelog import LateLog
from tests.fakes import Client, make_core

LATER: list[Callable[[], object]] = []
"""
What is to be done in later turns.
"""


def publish(core: Any, session: Session, *events: str, keys: dict[int, str] | None = None) -> list[Published]:
    """
    Publish events to C{topics/a} together; some with keys, by their number.
    """
    keys = keys or {}
    checked = [
        core.publishing.check(session, "topics/a", event, b"%d" % number, keys.get(number))
        for number, event in enumerate(events)
    ]
    published: list[Published] = core.publishing.publish_all(session, checked, LATER.append)
    return published


def caller(core: Any, agent: str | None = None) -> Session:
    """
    A caller over HTTP.
    """
    session: Session = core.callers.admit(None, agent, "192.0.2.1")
    return session


def heard(client: Client) -> list[tuple[str, Any]]:
    """
    What a client has received in C{topics/a}.
    """
    return [(frame["event"], frame["data"]) for frame in client.peer.take() if frame.get("channel") == "topics/a"]


def listener(core: Any) -> Client:
    """
    A client of C{topics/a}.
    """
    client = Client(core)
    client.say(type="subscribe", channel="topics/a")
    return client


def test_log_in_memory(clock: Clock) -> None:
    """
    The events get positions one after the other, in their order; what is not logged has none, and comes last.
    """
    core = make_core(clock)
    client = listener(core)
    published = publish(core, caller(core), "task.created", "agent.blocked", "metric.update", "task.completed")
    assert [one.pos for one in published] == [1, 2, 0, 3]
    assert not any(one.waiting for one in published)
    assert len({one.id for one in published}) == 4
    assert heard(client) == [
        ("task.created", 0),
        ("agent.blocked", 1),
        ("task.completed", 3),
        ("metric.update", 2),
    ]


def test_nothing_that_is_logged(clock: Clock) -> None:
    """
    Events that are not logged can be published together, too.
    """
    core = make_core(clock)
    client = listener(core)
    assert [one.pos for one in publish(core, caller(core), "metric.update", "metric.update")] == [0, 0]
    assert len(heard(client)) >= 1


def test_many_that_are_not_logged(clock: Clock) -> None:
    """
    Many events are delivered in several turns.
    """
    core = make_core(clock)
    client = listener(core)
    published = publish(core, caller(core), *["metric.update"] * 40)
    assert [one.waiting for one in published] == [False] * 32 + [True] * 8
    LATER.pop()()
    assert not LATER
    assert [one.pos for one in published] == [0] * 40
    assert heard(client) == [("metric.update", number) for number in range(40)]


def test_delivery_that_takes_long(clock: Clock) -> None:
    """
    If the delivery takes long, other clients have their turns in between; the order stays, and all are answered.
    """
    core = make_core(clock, now=iter(range(1 << 20)).__next__)
    client = listener(core)
    log: Any = core.log
    log._now = iter(range(1 << 20)).__next__
    published = publish(core, caller(core), "task.created", "task.updated", "metric.update", "task.completed")
    assert core.log.head == 1
    assert all(one.waiting for one in published)
    turns = 0
    while LATER:
        LATER.pop()()
        turns += 1
    assert turns == 2
    assert [one.pos for one in published] == [1, 2, 0, 3]
    assert heard(client)[:2] == [("task.created", 0), ("task.updated", 1)]


def test_log_that_answers_later(clock: Clock) -> None:
    """
    All events are answered when the last one is in the log, and those that are not logged are delivered then.
    """
    core = make_core(clock, log=LateLog)
    log: Any = core.log
    client = listener(core)
    published = publish(core, caller(core), "task.created", "metric.update", "task.completed")
    assert all(one.waiting for one in published)
    log.commit()
    log.commit()
    log.answer()
    assert all(one.waiting for one in published)
    assert ("metric.update", 1) not in heard(client)
    log.answer()
    assert [one.pos for one in published] == [1, 0, 2]
    assert heard(client) == [("metric.update", 1)]


def test_log_that_fails(clock: Clock) -> None:
    """
    If the events cannot be logged, nothing is published, and their keys may be used again.
    """
    core = make_core(clock, log=LateLog)
    log: Any = core.log
    client = listener(core)
    published = publish(core, caller(core), "task.created", "metric.update", keys={0: "k"})
    log.refuse()
    assert [one.pos for one in published] == [None, None]
    assert heard(client) == []
    assert not publish(core, caller(core), "task.created", keys={0: "k"})[0].duplicate


def test_log_that_has_no_room(clock: Clock) -> None:
    """
    The same if the log refuses them at once.
    """
    core = make_core(clock, log=LateLog)
    log: Any = core.log
    log.most_waiting = 0
    assert [one.pos for one in publish(core, caller(core), "task.created", "metric.update")] == [None, None]


@pytest.mark.parametrize("late", [False, True])
def test_keys(clock: Clock, late: bool) -> None:
    """
    An event that was published before with the same key, or with the key of another event of the same call, is not
    published again.
    """
    core = make_core(clock, log=LateLog if late else MemoryLog)
    log: Any = core.log

    def settle() -> None:
        while late and log.appends:
            log.commit()
            log.answer()

    (first,) = publish(core, caller(core), "task.created", keys={0: "k"})
    settle()
    published = publish(core, caller(core), "task.created", "task.failed", "task.failed", keys={0: "k", 1: "l", 2: "l"})
    settle()
    assert [(one.pos, one.duplicate) for one in published] == [(1, True), (2, False), (2, True)]
    assert published[0].id == first.id
    assert published[1].id == published[2].id
    assert core.log.head == 2


def test_key_that_the_log_knows(clock: Clock) -> None:
    """
    The log may know of a publish that is not remembered here.
    """
    core = make_core(clock, log=LateLog)
    log: Any = core.log
    published = publish(core, caller(core), "task.created", "task.failed", keys={0: "k"})
    log.again("msg_before", 7)
    log.commit()
    log.answer()
    first = published[0]
    assert (first.id, first.pos, first.duplicate) == ("msg_before", 7, True)
    assert published[1].pos == 1


def test_service_that_stops(clock: Clock) -> None:
    """
    A service that is about to stop publishes nothing more.
    """
    core = make_core(clock)
    core.hub.drain()
    with pytest.raises(ProtocolError) as error:
        publish(core, caller(core), "task.created")
    assert error.value.code is ErrorCode.NOT_AVAILABLE


def test_other_nodes(clock: Clock) -> None:
    """
    Other nodes get the events that are not logged, too.
    """
    bus = RecordingBus()
    core = make_core(clock, bus=bus)  # type: ignore[arg-type]
    publish(core, caller(core), "task.created", "metric.update")
    assert len(bus.cast_messages) == 1


class RecordingBus:
    """
    Keeps what is cast.
    """

    def __init__(self) -> None:
        self.cast_messages: list[bytes] = []

    def attach(self, topic: str, heard: object) -> None:
        pass

    def cast(self, topic: str, message: bytes) -> None:
        self.cast_messages.append(message)
