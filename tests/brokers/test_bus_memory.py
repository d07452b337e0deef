"""
What goes wrong on the bus in memory, on purpose.
"""

from __future__ import annotations

from random import Random

import pytest
from twisted.internet.task import Clock

from dcm_ws.brokers.bus_memory import MemoryBus, MemoryHub
from dcm_ws.core.counts import Counts

Heard = list[tuple[str, bytes]]


def hub_of(clock: Clock, seed: int = 1, **faults: float) -> MemoryHub:
    return MemoryHub(clock.callLater, clock.seconds, Random(seed), delay=(0.001, 0.1), **faults)


def join(hub: MemoryHub, name: str) -> tuple[MemoryBus, Heard]:
    bus, heard = hub.bus(Counts()), Heard()
    bus.join(name, "tests")
    bus.attach("events", lambda sender, message: heard.append((sender, message)))
    return bus, heard


def run(clock: Clock, hub: MemoryHub) -> Heard:
    """
    Three nodes cast; returns what one of them heard.
    """
    one, two, three = (join(hub, name) for name in "123")
    for number in range(200):
        one[0].cast("events", b"%d" % number)
        two[0].tell("3", "events", b"%d" % number)
        clock.advance(0.001)
    clock.pump([0.01] * 20)
    return three[1]


def numbers(heard: Heard, sender: str) -> list[int]:
    return [int(message) for name, message in heard if name == sender]


def test_delays_keep_the_order_of_a_sender(clock: Clock) -> None:
    """
    Messages take different times; those of one sender stay in order, those of two are mixed.
    """
    heard = run(clock, hub_of(clock))
    assert numbers(heard, "1") == numbers(heard, "2") == list(range(200))
    assert heard != sorted(heard, key=lambda one: (int(one[1]), one[0]))


def test_same_seed_same_run() -> None:
    """
    A run can be repeated, and another seed gives another one.
    """
    runs = list[Heard]()
    for seed in (1, 1, 2):
        own = Clock()
        runs.append(run(own, hub_of(own, seed, loss=0.2, doubles=0.1)))
    assert runs[0] == runs[1] != runs[2]


def test_loss_and_doubles(clock: Clock) -> None:
    """
    Some messages are lost, and some come twice; what comes is in order.
    """
    heard = numbers(run(clock, hub_of(clock, loss=0.3, doubles=0.2)), "1")
    assert heard == sorted(heard)
    assert 100 < len(set(heard)) < 180
    assert len(heard) - len(set(heard)) > 10


def test_partition(clock: Clock) -> None:
    """
    While the nodes are parted, each hears only its side; what was said meanwhile is lost.
    """
    hub = hub_of(clock)
    buses = {name: join(hub, name) for name in "1234"}
    hub.part("12", "3")
    buses["1"][0].cast("events", b"parted")
    clock.pump([0.1] * 3)
    assert [name for name, (_, heard) in buses.items() if heard] == ["2"]
    answers: list[bytes | None] = []
    buses["4"][0].ask("1", "events", b"?", 0.2, answers.append)
    clock.pump([0.1] * 3)
    assert answers == [None]
    hub.heal()
    buses["1"][0].cast("events", b"healed")
    clock.pump([0.1] * 3)
    assert [len(heard) for _, heard in buses.values()] == [0, 2, 1, 1]


def test_node_that_ends(clock: Clock) -> None:
    """
    What was on its way to a node that ends is lost, also if another one takes its name.
    """
    hub = hub_of(clock)
    one, two = join(hub, "1"), join(hub, "2")
    one[0].cast("events", b"before")
    two[0].leave()
    assert two[0].report()["state"] == "down"
    clock.pump([0.1] * 3)
    assert two[1] == []
    again = join(hub, "3")
    one[0].cast("events", b"after")
    clock.pump([0.1] * 3)
    assert (two[1], again[1]) == ([], [("1", b"after")])


def test_before_it_has_a_name(clock: Clock) -> None:
    """
    A node without a name sends nothing, hears nothing, and gets no answers.
    """
    hub = hub_of(clock)
    bus = hub.bus(Counts())
    other = join(hub, "1")
    answers: list[bytes | None] = []
    bus.cast("events", b"nobody")
    bus.ask("1", "events", b"?", 5.0, answers.append)
    other[0].cast("events", b"hello")
    assert answers == []
    clock.advance(0.2)
    assert (answers, other[1]) == ([None], [])
    report = bus.report()
    assert (report["state"], report["node"], report["dropped"]) == ("connecting", "", 2)


def test_questions_have_a_limit(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of questions that wait for an answer there is a limited number; one more has no answer.
    """
    monkeypatch.setattr("dcm_ws.brokers.bus_base._QUESTIONS_MOST", 2)
    hub = hub_of(clock)
    bus, answers = join(hub, "1")[0], list[bytes | None]()
    for _ in range(3):
        bus.ask("2", "events", b"?", 1.0, answers.append)
    clock.advance(0)
    assert answers == [None]
    clock.advance(1.1)
    assert answers == [None] * 3
