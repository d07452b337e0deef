"""
The events that wait until the model reads them.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.client import Event
from dcm_ws.mcp import inbox as module
from dcm_ws.mcp.inbox import LATE, Inbox
from dcm_ws.mcp.pacing import Pace
from dcm_ws.mcp.push import Pusher
from dcm_ws.mcp.rendering import Label, render
from dcm_ws.mcp.tasks import claim, first_claim
from dcm_ws.mcp.wanted import Wanted


class Rig:
    """
    @ivar read: the events that count as read.
    @ivar acknowledged: the events that were acknowledged before that.
    """

    def __init__(self, **options: object) -> None:
        self.clock = Clock()
        self.read: list[str] = []
        self.acknowledged: list[str] = []
        self.inbox = Inbox(
            render=lambda event: render(event, "e"),
            acknowledge=self.acknowledged.append,
            now=self.clock.seconds,
            **options,  # type: ignore[arg-type]
        )

    def add(
        self,
        name: str,
        event: str = "task.created",
        channel: str = "topics/t",
        sender: str | None = "bob",
        data: object = None,
    ) -> None:
        frame = {} if sender is None else {"from": sender}

        def done(success: bool) -> None:
            assert success
            self.read.append(name)

        self.inbox.add(Event(name, channel, event, data, 0, frame), done)


def names(items: list[module.Item]) -> list[str]:
    return [item.label.id for item in items]


def test_oldest_first() -> None:
    """
    Events are taken in the order in which they came, and count as read only when they have been shown.
    """
    rig = Rig()
    for name in "abc":
        rig.add(name)
    taken = rig.inbox.take(limit=2)
    assert (names(taken), len(rig.inbox), rig.read) == (["a", "b"], 1, [])
    rig.inbox.read(*taken)
    assert rig.read == ["a", "b"]
    assert names(rig.inbox.take()) == ["c"]


def test_put_back() -> None:
    """
    Events that could not be shown come first again.
    """
    rig = Rig()
    for name in "abc":
        rig.add(name)
    rig.inbox.put_back(rig.inbox.take(limit=2))
    assert names(rig.inbox.take()) == ["a", "b", "c"]


def test_chosen() -> None:
    """
    Channels, patterns and senders choose; what is not chosen still waits.
    """
    rig = Rig()
    rig.add("a", "task.created", "topics/t", "bob")
    rig.add("b", "message.new", "topics/t", "eve")
    rig.add("c", "message.new", "agents/me", None)
    assert names(rig.inbox.take(Wanted(events=["message.*"], senders=["eve"]))) == ["b"]
    assert names(rig.inbox.take(Wanted(channels=["agents/me"]))) == ["c"]
    assert names(rig.inbox.take()) == ["a"]


def test_global_has_all() -> None:
    """
    On global are the events of all channels but metrics.
    """
    rig = Rig()
    rig.add("a", channel="topics/t")
    rig.add("b", channel="global")
    rig.add("c", channel="metrics")
    assert names(rig.inbox.take(Wanted(channels=["global"]))) == ["a", "b"]


def test_not_trusted() -> None:
    """
    Events of others than those that are trusted, and the agent's own, are never shown, and are acknowledged.
    """
    rig = Rig(wanted=Wanted(senders=["bob"]), own=lambda: "me")
    for name, sender in (("a", "eve"), ("b", None), ("c", "me"), ("d", "bob")):
        rig.add(name, sender=sender)
    assert (rig.read, rig.inbox.ignored) == (["a", "b", "c"], 3)
    assert names(rig.inbox.take()) == ["d"]
    also = Wanted(senders=["bob"], unnamed=True)
    assert also.matches(Label("m", "global", "system.info", None, None))
    assert not also.matches(Label("m", "global", "system.info", "eve", None))


def test_late() -> None:
    """
    A tracked event that waits is acknowledged in time, once, and still waits.
    """
    rig = Rig()
    rig.add("a")
    rig.add("b", "session.created")
    rig.inbox.acknowledge_late()
    assert rig.acknowledged == []
    rig.clock.advance(LATE)
    rig.add("c")
    rig.inbox.acknowledge_late()
    rig.inbox.acknowledge_late()
    assert (rig.acknowledged, rig.read, len(rig.inbox)) == (["a"], [], 3)


def test_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    If too many events wait, the oldest are dropped, and counted.
    """
    monkeypatch.setattr(module, "WAITING_MAX", 3)
    rig = Rig()
    for name in "abcde":
        rig.add(name)
    assert (rig.inbox.dropped, rig.read) == (2, ["a", "b"])
    rig.inbox.note("events may be missing")
    assert rig.inbox.notices() == [
        "events may be missing",
        "2 events were dropped because too many waited; see recent_events",
        "3 more events wait; wait_for_event returns them",
    ]
    assert rig.inbox.notices() == ["3 more events wait; wait_for_event returns them"]
    assert names(rig.inbox.take(limit=9)) == ["c", "d", "e"]


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The same holds for the size of their data, before it is cut; the latest event is kept.
    """
    monkeypatch.setattr(module, "BYTES_MAX", 10_000)
    rig = Rig()
    for name in "abc":
        rig.add(name, data="x" * 6_000)
    assert (rig.inbox.dropped, names(rig.inbox.take())) == (2, ["c"])
    rig.add("d", data="x" * 20_000)
    assert (rig.inbox.dropped, names(rig.inbox.take())) == (2, ["d"])


def test_text_limit() -> None:
    """
    One result has a limited text, but at least one event.
    """
    rig = Rig()
    for number in range(20):
        rig.add(str(number), data="x" * 3_900)
    first = rig.inbox.take()
    assert 5 < len(first) < 9
    assert sum(len(item.rendered.text) for item in first) <= module.TEXT_MAX
    assert names(first) == [str(number) for number in range(len(first))]


def test_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An event can be read without being shown; where it came from is known for some time.
    """
    monkeypatch.setattr(module, "_SHOWN_MAX", 2)
    rig = Rig()
    for name in "abcd":
        rig.add(name)
    assert rig.inbox.discard("a") and not rig.inbox.discard("a")
    assert rig.read == ["a"]
    label = rig.inbox.label("a")
    assert label is not None and label.sender == "bob"
    assert rig.inbox.label("d") is not None and rig.inbox.label("x") is None
    assert rig.inbox.discard("b") and rig.inbox.discard("c")
    assert rig.inbox.label("a") is None
    assert [label.id for label in rig.inbox.labels()] == ["d"]


def test_pace() -> None:
    """
    After a burst, notifications are spread evenly; after a pause there is a burst again.
    """
    pace = Pace(60, 3)
    delays = []
    for _ in range(5):
        delays.append(pace.delay(100.0))
        pace.spend(100.0)
    assert delays == [0, 0, 0, 1, 2]
    assert pace.delay(105.0) == 0
    assert [pace.delay(200.0), pace.delay(201.0)] == [0, 0]


def test_push_that_fails() -> None:
    """
    If a notification cannot be written, its events still wait, and are not acknowledged.
    """
    rig = Rig()
    rig.add("a")
    rig.add("b")

    async def fails(method: str, params: dict[str, Any]) -> None:
        raise BrokenPipeError

    pusher = Pusher(rig.inbox, fails, Pace(60, 10), rig.clock.seconds)
    with pytest.raises(BrokenPipeError):
        asyncio.run(pusher.run())
    assert (rig.read, names(rig.inbox.take())) == ([], ["a", "b"])


def test_claims() -> None:
    """
    The first claim of a task wins; claims of other tasks, without a sender or with other data are none.
    """

    def event(name: str, data: object, sender: str | None = "bob", kind: str = "task.updated") -> Event:
        return Event(name, "topics/t", kind, data, 0, {} if sender is None else {"from": sender})

    mine = claim("1")
    others = [
        event("a", claim("2")),
        event("b", mine, None),
        event("c", {"task_id": "1", "status": "running"}),
        event("d", "text"),
        event("e", mine, kind="task.created"),
    ]
    assert first_claim(others, "1") is None
    found = first_claim([*others, event("f", mine), event("g", mine, "eve")], "1")
    assert found is not None and found.id == "f"
