"""
The bus between nodes, over each of its engines.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_twisted

from dcm_ws.core.ports import Bus
from tests.brokers.rigs import MESSAGE, MemoryRig, NatsRig, PostgresRig, Rig, rig_servers
from tests.integration.conftest import stoppable

__all__ = ["stoppable"]

LARGEST = MESSAGE + 4096
TEXT = b"0123456789abcdef" * (LARGEST // 16)
BINARY = bytes(range(256)) * (LARGEST // 256)


@pytest.fixture(scope="module", params=["memory", "postgres", "nats"])
def servers(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    with rig_servers(request.param, lambda: request.getfixturevalue("stoppable")) as servers:
        yield request.param, servers


@pytest_twisted.async_yield_fixture
async def rig(servers: tuple[str, Any]) -> AsyncIterator[Rig]:
    engine, things = servers
    if engine == "memory":
        yield MemoryRig()
        return
    real = PostgresRig(things) if engine == "postgres" else NatsRig(things)
    yield real
    await real.end()


class Answers:
    """
    What was answered to questions.
    """

    def __init__(self) -> None:
        self.got: list[bytes | None] = []

    def ask(self, bus: Bus, node: str, message: bytes, timeout: float = 10.0) -> None:
        bus.ask(node, "questions", message, timeout, self.got.append)


async def test_casts_reach_all_others(rig: Rig) -> None:
    """
    A message to all reaches each other node once, and not the node that sent it.
    """
    nodes = [await rig.node(name) for name in ("17", "18", "node-a_B")]
    for node in nodes:
        node.hear("events")
    nodes[0].bus.cast("events", b"hello")
    await rig.until(lambda: all(node.heard["events"] for node in nodes[1:]))
    nodes[1].bus.cast("events", b"and back")
    await rig.until(lambda: nodes[0].heard["events"] and len(nodes[2].heard["events"]) == 2)
    assert [node.heard["events"] for node in nodes] == [
        [("18", b"and back")],
        [("17", b"hello")],
        [("17", b"hello"), ("18", b"and back")],
    ]


async def test_order_of_a_sender(rig: Rig) -> None:
    """
    What one node sends arrives in its order, to all and to one, whatever its size, on all topics.
    """
    one, two, three = [await rig.node(name) for name in ("1", "2", "3")]
    order: list[bytes] = []
    for topic in ("events", "presence"):
        two.bus.attach(topic, lambda sender, message: order.append(message[:6]))
    for number in range(600):
        topic = "presence" if number % 3 == 0 else "events"
        message = b"%06d" % number + b"x" * (20_000 if number % 50 == 0 else number)
        if number % 7 == 0:
            one.bus.tell("2", topic, message)
        else:
            one.bus.cast(topic, message)
        three.bus.cast("others", message)
    await rig.until(lambda: len(order) >= 600)
    assert order == [b"%06d" % number for number in range(600)]


@pytest.mark.parametrize("message", [b"", b"\0", b"\xff\xfe" * 5000, "Grüße ✓".encode() * 3000, TEXT, BINARY])
async def test_any_bytes_up_to_the_largest_message(rig: Rig, message: bytes) -> None:
    """
    A message may have any bytes, and be 4 KiB larger than a client's largest; so may an answer.
    """
    one, two = await rig.node("1"), await rig.node("2")
    one.hear("events")
    one.hear("questions", answer=message)
    two.bus.cast("events", message)
    two.bus.tell("1", "events", message)
    answers = Answers()
    answers.ask(two.bus, "1", message)
    await rig.until(lambda: answers.got)
    assert answers.got == [message]
    assert one.heard["events"] == [("2", message)] * 2
    report = one.bus.report()
    assert (report["heard"], report["heardBytes"], report["broken"]) == (3, 3 * len(message), 0)


async def test_too_large_is_dropped(rig: Rig) -> None:
    """
    A message that is larger is dropped and counted; a question that is, or whose answer is, has no answer.
    """
    one, two = await rig.node("1"), await rig.node("2")
    one.hear("events")
    one.hear("questions", answer=b"x" * (LARGEST + 1))
    answers = Answers()
    two.bus.cast("events", b"x" * (LARGEST + 1))
    answers.ask(two.bus, "1", b"x" * (LARGEST + 1))
    assert answers.got == []
    answers.ask(two.bus, "1", b"small")
    await rig.until(lambda: len(answers.got) == 2)
    assert answers.got == [None, None]
    assert (one.heard["events"], one.heard["questions"]) == ([], [("2", b"small")])
    assert (two.bus.report()["dropped"], one.bus.report()["dropped"]) == (2, 1)


async def test_questions(rig: Rig) -> None:
    """
    A question is answered at once, or later, or not; and each asker gets its own answers, also of itself.
    """
    one, two, three = [await rig.node(name) for name in ("1", "2", "3")]
    later: list[Callable[[bytes], object]] = []

    def answer(sender: str, message: bytes) -> Any:
        match message:
            case b"later":
                return later.append
            case b"not":
                return None
        return sender.encode() + b" " + message

    for node in (one, two):
        node.bus.attach("questions", answer)
    answers, others = Answers(), Answers()
    for message in (b"later", b"now", b"not"):
        answers.ask(two.bus, "1", message)
        others.ask(three.bus, "1", message)
    answers.ask(two.bus, "2", b"myself")
    # nobody listens to the topic there
    answers.ask(two.bus, "3", b"now")
    await rig.until(lambda: len(answers.got) == 4 and len(others.got) == 2 and len(later) == 2)
    assert (set(answers.got), set(others.got)) == ({b"2 now", b"2 myself", None}, {b"3 now", None})
    assert answers.got.count(None) == 2
    for send in later:
        send(b"here it is")
    await rig.until(lambda: answers.got[4:] == [b"here it is"] and others.got[2:] == [b"here it is"])


async def test_no_answer_in_time(rig: Rig) -> None:
    """
    A question without an answer in time ends, once; a late answer is ignored.
    """
    one, two = await rig.node("1"), await rig.node("2")
    later: list[Callable[[bytes], object]] = []
    one.bus.attach("questions", lambda sender, message: later.append)
    answers = Answers()
    answers.ask(two.bus, "1", b"?", 0.05)
    await rig.until(lambda: later and answers.got)
    later[0](b"too late")
    answers.ask(two.bus, "1", b"again", 10.0)
    await rig.until(lambda: len(later) == 2)
    later[1](b"in time")
    await rig.until(lambda: len(answers.got) == 2)
    assert answers.got == [None, b"in time"]
    assert two.bus.report()["unanswered"] == 1


async def test_node_that_is_gone(rig: Rig) -> None:
    """
    A node that is gone answers nothing, and harms nobody.
    """
    one, two, three = [await rig.node(name) for name in ("1", "2", "3")]
    for node in (one, three):
        node.hear("questions", answer=b"yes")
    answers = Answers()
    answers.ask(two.bus, "1", b"there?")
    await rig.until(lambda: answers.got == [b"yes"])
    await rig.lose(one)
    answers.ask(two.bus, "1", b"still?", 0.2)
    two.bus.tell("1", "questions", b"hello?")
    answers.ask(two.bus, "never-was", b"there?", 0.2)
    await rig.until(lambda: len(answers.got) == 3)
    answers.ask(two.bus, "3", b"there?")
    await rig.until(lambda: len(answers.got) == 4)
    assert answers.got == [b"yes", None, None, b"yes"]


async def test_another_name(rig: Rig) -> None:
    """
    A node that takes another name hears what is for that, and no longer what is for the one before.
    """
    one, two = await rig.node("1"), await rig.node("2")
    one.hear("events")
    one.bus.join("3", "tests")
    answers = Answers()
    one.bus.attach("questions", lambda sender, message: b"here")
    for _ in range(100):
        answers.got.clear()
        answers.ask(two.bus, "3", b"there?", 0.2)
        await rig.until(lambda: answers.got)
        if answers.got == [b"here"]:
            break
    two.bus.tell("1", "events", b"old name")
    two.bus.tell("3", "events", b"new name")
    one.bus.cast("events", b"own")
    await rig.until(lambda: ("2", b"new name") in one.heard["events"])
    assert one.heard["events"] == [("2", b"new name")]
    assert one.bus.report()["node"] == one.bus.node == "3"


async def test_engine_restarted(rig: Rig) -> None:
    """
    After the engine was away, the nodes hear each other again; nothing raises meanwhile, and what waited only a short
    time is sent.
    """
    one, two = await rig.node("1"), await rig.node("2")
    for node in (one, two):
        node.hear("events")
        node.hear("questions", answer=b"yes")
    await rig.stop()
    answers = Answers()
    answers.ask(one.bus, "2", b"?", 0.05)
    await rig.until(lambda: answers.got)
    assert answers.got == [None]
    one.bus.cast("events", b"meanwhile")
    assert one.bus.report()["waiting"] >= 1
    assert one.bus.report()["reason"] != ""
    await rig.start()
    for number in range(1000):
        one.bus.cast("events", b"%d" % number)
        answers.got.clear()
        answers.ask(two.bus, "1", b"?", 0.2)
        await rig.until(lambda: answers.got)
        if answers.got == [b"yes"] and two.heard["events"]:
            break
    assert answers.got == [b"yes"]
    assert two.heard["events"]
    assert (one.bus.report()["state"], one.bus.report()["reason"]) == ("up", "")
    assert one.bus.report()["reconnects"] >= 1


async def test_room_is_shared_fairly(rig: Rig) -> None:
    """
    While nothing can be sent, the topic that takes most room loses its oldest messages; the others lose nothing.  Each
    loss is counted, with the topic.
    """
    one, two = await rig.node("1", max_waiting=64 << 10), await rig.node("2")
    two.hear("events")
    two.hear("presence")
    await rig.stop()
    one.bus.cast("presence", b"joined")
    for number in range(1000):
        one.bus.cast("events", b"%04d" % number + b"x" * 1000)
    one.bus.cast("presence", b"left")
    one.bus.cast("events", b"x" * (65 << 10))
    report = one.bus.report()
    assert 60 << 10 < report["waitingBytes"] <= 64 << 10
    kept = report["waiting"] - 2
    assert report["dropped"] == 1001 - kept
    assert one.counts.limits.max_bus_waiting.take_losers() == {" the topic events": 1001 - kept}
    assert one.counts.limits.max_bus_waiting.value == 1001 - kept
    await rig.start()
    await rig.until(lambda: one.bus.report()["waiting"] == 0)


async def test_what_waits_too_long(rig: Rig) -> None:
    """
    What has waited for longer than it is of use is not sent.
    """
    one = await rig.node("1")
    await rig.stop()
    queue = one.bus._queue
    now = queue._now
    one.bus.cast("events", b"old")
    queue._now = lambda: now() + 5.1
    one.bus.cast("events", b"new")
    await rig.start()
    await rig.until(lambda: one.bus.report()["waiting"] == 0)
    assert (one.bus.report()["dropped"], one.bus.report()["sent"]) == (1, 1)


async def test_failures_of_listeners(rig: Rig, no_logged_failures: list[Any]) -> None:
    """
    A listener that fails is logged; the bus goes on, and a question that it was asked has no answer.
    """
    one, two = await rig.node("1"), await rig.node("2")
    two.hear("events")

    def fail(sender: str, message: bytes) -> bytes:
        raise ZeroDivisionError

    two.bus.attach("questions", fail)
    answers = Answers()
    answers.ask(one.bus, "2", b"?")
    one.bus.cast("events", b"goes on")
    await rig.until(lambda: answers.got and two.heard["events"])
    assert answers.got == [None]
    assert len(no_logged_failures) == 1
    no_logged_failures.clear()


async def test_without_a_name(rig: Rig) -> None:
    """
    Names are checked; a topic has one listener.
    """
    one = await rig.node("1")
    one.hear("events")
    for wrong in ("", "a.b", "a b", "*", "x" * 33, "1\n"):
        with pytest.raises(ValueError, match="cannot be the name"):
            one.bus.join(wrong, "tests")
        with pytest.raises(ValueError, match="that of a cluster"):
            one.bus.join("1", wrong)
        with pytest.raises(ValueError, match="cannot be the name"):
            one.bus.attach(wrong, lambda sender, message: None)
    with pytest.raises(ValueError, match="listener already"):
        one.bus.attach("events", lambda sender, message: None)
    assert one.bus.node == "1"
