"""
What holds a hostile client back: the rate limit, depth, and bounds of memory.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from dcm_ws.app.testee import EchoHub, EchoInterpreter
from dcm_ws.core.agents import Absence
from dcm_ws.core.counts import Counts
from dcm_ws.core.limits import COUNTERS
from dcm_ws.core.liveness import Liveness
from dcm_ws.core.session import Origin, Session
from dcm_ws.core.tracked import Delivery, Tracked
from dcm_ws.protocol.errors import CloseCode
from dcm_ws.protocol.rawjson import agent_of, is_nested_deeper
from dcm_ws.protocol.replies import to_json
from tests.core.living import make_memory, make_queue
from tests.fakes import Client, RecordingPeer, make_core, split_frames

# the rate limit


def limited(clock: Clock, **rules: float) -> Client:
    """
    A client of a hub with a rate limit.
    """
    chosen: dict[str, Any] = {"rate_limit": 10.0, "rate_burst": 5.0} | rules
    client = Client(make_core(clock, **chosen))
    client.peer.take()
    return client


def send(client: Client, times: int) -> list[int | None]:
    """
    Send so many pings; for each, None where it was answered, or else when to try again.
    """
    answers = []
    for _ in range(times):
        (answer,) = client.say(type="ping")
        answers.append(answer.get("retry_after_ms"))
        assert answer.get("type") == "pong" or answer["code"] == "RATE_LIMITED"
    return answers


def test_burst_and_refill(clock: Clock, counts: Counts) -> None:
    """
    A burst goes through; then as many messages as the rate lets, each told when to try again.
    """
    client = limited(clock, rate_limit=8.0)
    assert send(client, 7) == [None] * 5 + [125, 125]
    clock.advance(1 / 16)
    assert send(client, 1) == [63]
    clock.advance(1 / 16)
    assert send(client, 2) == [None, 125]
    assert client.core.counts.limits.rate_limit.value == 4


def test_waiting_as_long_as_told_is_enough(clock: Clock) -> None:
    """
    Who waits for C{retry_after_ms} gets through, whatever fractions the rate makes.
    """
    client = limited(clock, rate_limit=7.3)
    send(client, 5)
    for _ in range(50):
        (wait,) = send(client, 1)
        assert wait is not None
        clock.advance(wait / 1000)
        assert send(client, 1) == [None]


def test_bucket_holds_no_more_than_a_burst(clock: Clock) -> None:
    """
    Hours of silence do not add up.
    """
    client = limited(clock)
    clock.advance(3600)
    assert send(client, 6) == [None] * 5 + [100]


def test_no_limit(clock: Clock, counts: Counts) -> None:
    """
    Without a limit nothing is counted.
    """
    client = limited(clock, rate_limit=0.0)
    assert send(client, 1000) == [None] * 1000
    assert client.core.counts.limits.rate_limit.value == 0


def test_steady_sender_within_the_rate_is_never_refused(clock: Clock) -> None:
    """
    Exactly the rate, for a long time, is within it.
    """
    client = limited(clock, rate_burst=1.0)
    for _ in range(1000):
        assert send(client, 1) == [None]
        clock.advance(0.1001)


def test_ten_times_over_is_the_end(clock: Clock, counts: Counts) -> None:
    """
    The fifth burst's worth on top of the nine closes with 4029, and the last answer is the close.
    """
    client = limited(clock)
    assert send(client, 49)[-1] == 100
    assert client.peer.closed is None
    assert client.say(type="ping") == []
    assert client.peer.closed is CloseCode.TOO_MANY_MESSAGES
    assert (client.core.counts.limits.rate_limit.value, client.core.counts.limits.rate_limit_tenfold.value) == (45, 1)
    assert client.say(type="ping") == []


def test_excess_is_forgiven_with_time(clock: Clock) -> None:
    """
    Who is over the limit now and then, and mends, stays; who goes on at ten times the rate does not.
    """
    client = limited(clock)
    for _ in range(20):
        send(client, 30)
        clock.advance(5)
    assert client.peer.closed is None
    for _ in range(100):
        if client.peer.closed is None:
            client.say(type="ping")
            clock.advance(0.01)
    assert client.peer.closed is CloseCode.TOO_MANY_MESSAGES


@pytest.mark.parametrize(
    "message",
    [
        {"type": "ping"},
        {"type": "subscribe", "channel": "metrics"},
        {"type": "subscribe", "channel": "nonsense"},
        {"type": "unsubscribe", "channel": "metrics"},
        {"type": "publish", "channel": "metrics", "event": "system.info"},
        {"type": "publish", "channel": "metrics", "event": "nonsense"},
        {"type": "auth", "token": "bad"},
        {"type": "auth"},
        {"type": "ack", "message_id": "msg_unknown"},
        {"type": "ack"},
        {"type": "nonsense"},
        {},
    ],
)
def test_what_counts(clock: Clock, message: dict[str, Any]) -> None:
    """
    Every message counts, also one that is refused, and so does an ack of nothing.
    """
    client = limited(clock)
    for _ in range(5):
        assert all(answer.get("code") != "RATE_LIMITED" for answer in client.say(**message))
    assert client.say(**message)[-1]["code"] == "RATE_LIMITED"
    if "type" in message and message["type"] not in ("ack", "nonsense"):
        (answer,) = client.say(**message, id="mine")
        assert (answer["id"], answer["success"]) == ("mine", False)


def test_what_does_not_count(clock: Clock, counts: Counts) -> None:
    """
    Pongs are free, and acks of what is owed; a message that was refused for its rate is not executed.
    """
    client = limited(clock)
    other = Client(client.core)
    events = []
    for _ in range(20):
        other.say(type="publish", channel="global", event="task.created")
        clock.advance(0.1)
        events += [message["id"] for message in client.peer.take()]
    send(client, 5)
    for event in events:
        assert client.say(type="pong") == []
        assert client.say(type="ack", message_id=event) == []
    assert client.core.counts.deliveries.acked == 20
    client.say(type="subscribe", channel="topics/t")
    assert "topics/t" not in client.core.registry.channels(client.session)


def test_nonsense_is_counted_too(clock: Clock) -> None:
    """
    What cannot be read counts like what can.
    """
    client = limited(clock)
    for _ in range(5):
        client.receive(b"\xff")
    assert {answer["code"] for answer in client.peer.take()} == {"PARSE_ERROR"}
    client.receive(b"\xff")
    (answer,) = client.peer.take()
    assert answer["code"] == "RATE_LIMITED"


# depth


def depth_of(value: object) -> int:
    """
    Arrays and objects inside one another, as anybody would count them.
    """
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


brackets = st.text(alphabet='[]{}"\\a\u00e9', max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | brackets,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(brackets, inner, max_size=4),
    max_leaves=30,
)


@given(values, st.integers(1, 8), st.booleans())
def test_depth_is_what_it_is(value: object, most: int, ascii_: bool) -> None:
    """
    Data is too deep exactly where a reader would say so, whatever brackets stand in its strings.
    """
    data = json.dumps(value, ensure_ascii=ascii_).encode()
    assert is_nested_deeper(data, most) is (depth_of(value) > most)


@pytest.mark.parametrize("depth", [1, 2, 50, 100, 101, 5000])
def test_depth_at_the_edge(depth: int) -> None:
    """
    The limit itself is allowed, and one more is not.
    """
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        data = opening * depth + b"1" + closing * depth
        assert not is_nested_deeper(data, depth)
        assert is_nested_deeper(data, depth - 1)
        assert is_nested_deeper(b"[%b,%b]" % (data, b"[],{}," * 100 + b"1"), depth)


# who an event is about


@pytest.mark.parametrize(
    ("data", "agent"),
    [
        ({"agent_id": "ann", "load": 1}, "ann"),
        ({"agent_id": ""}, ""),
        ({"agent_id": 7}, ""),
        ({"agent_id": None}, ""),
        ({}, ""),
        ([], ""),
        ("ann", ""),
        (None, ""),
    ],
)
def test_agent_of(data: object, agent: str) -> None:
    """
    An event is about the agent that its data names, if it names one.
    """
    assert agent_of(to_json(data)) == agent


def test_agent_of_data_that_is_not_utf8() -> None:
    """
    Half a character in a name is no name.
    """
    assert agent_of(b'{"agent_id":"\xff"}') == ""


@pytest.mark.parametrize("depth", [900, 3900, 100_000])
def test_agent_of_data_that_is_too_deep(depth: int) -> None:
    """
    Data that is nested deeper than the decoder goes names no agent, or the one that it names.
    """
    deep = b"[" * depth + b"]" * depth
    assert agent_of(b'{"x":%b}' % deep) == ""
    assert agent_of(b'{"agent_id":"ann","x":%b}' % deep) in ("", "ann")


# memory


class Reader:
    """
    A client, as far as deliveries go.
    """

    def __init__(self) -> None:
        self.owed: dict[str, Delivery] = {}
        self.durable = False
        self.is_silent = True
        self.number = 0
        self.has_unsent = False
        self.heard_at = 0.0
        self.owes_in_order = False
        self.name = f"client-{id(self)}"


@given(
    st.lists(
        st.tuples(st.sampled_from(["send", "ack", "release", "read", "late"]), st.integers(0, 3), st.integers(1, 40)),
        max_size=60,
    )
)
def test_bytes_held_are_those_of_what_is_owed(steps: list[tuple[str, int, int]]) -> None:
    """
    Whatever happens, the bytes held are those of what somebody owes, never over the limit, and 0 in the end.
    """
    clock = Clock()
    queue = make_queue(clock, max_pending=4, max_bytes=100)
    readers = [Reader() for _ in range(4)]
    for number, (step, which, size) in enumerate(steps):
        reader = readers[which]
        if step == "send":
            audience = set(readers[which:])
            queue.sent(Tracked(number, f"msg_{number}", (b"x" * size,)), audience)
        elif step == "ack":
            queue.ack(reader, next(iter(reader.owed), "msg_none"))
        elif step == "release":
            queue.release(reader)
        elif step == "read":
            reader.has_unsent = not reader.has_unsent
        else:
            clock.advance(size / 8)
            for _ in queue.late():
                assert queue.held <= 100
        owed = {id(delivery): delivery for reader in readers for delivery in reader.owed.values()}
        assert queue.held == sum(delivery.event.size for delivery in owed.values()) <= 100
        assert queue.pending == sum(len(reader.owed) for reader in readers)
    for reader in readers:
        queue.release(reader)
    assert (queue.held, queue.pending) == (0, 0)


def test_forgotten_agents_are_counted(clock: Clock, counts: Counts) -> None:
    """
    An agent forgotten because others came shows; one whose time was up does not.
    """
    memory = make_memory(clock, counts, max_agents=2, keep_subscriptions=10, keep_deliveries=10)
    for agent in ("ann", "bob", "cy"):
        memory.left(agent, Absence({}, {}))
    clock.advance(11)
    memory.expire()
    assert (counts.limits.max_agents.value, len(memory)) == (1, 0)


# the hub


def test_every_limit_is_there_from_the_start(clock: Clock) -> None:
    """
    The counters are there before anything was crossed, so that a graph begins at 0.
    """
    limits = make_core(clock).stats.report(names=False)["limits"]
    assert isinstance(limits, dict)
    assert set(COUNTERS) == limits.keys()
    assert set(limits.values()) == {0}


def test_restored_subscriptions_are_limited(clock: Clock, counts: Counts) -> None:
    """
    Coming back to a lower limit, an agent gets as many of its subscriptions as it may have, always the same ones.
    """
    core = make_core(clock, max_subscriptions=10)
    client = Client(core)
    client.auth("ann")
    for topic in "abcdefgh":
        client.say(type="subscribe", channel=f"topics/{topic}")
    client.leave()
    back = Client(core)
    for topic in "qrstu":
        back.say(type="subscribe", channel=f"topics/{topic}")
    for _ in range(2):
        answer = next(message for message in back.auth("ann") if message.get("type") == "ack")
        assert len(answer["subscriptions"]) == 10
    assert {"agents/ann", "global", "topics/a", "topics/c"} <= set(answer["subscriptions"])
    assert "topics/h" not in answer["subscriptions"]
    assert core.counts.limits.max_subscriptions.value == 1


def test_sweep_goes_on_after_one_that_cannot_be_looked_after(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A client whose check fails does not keep the others from being looked after, and they are not forgotten.
    """
    core = make_core(clock)
    clients = [Client(core) for _ in range(10)]
    broken = clients[4].session
    check = Liveness.check

    def check_or_fail(liveness: Liveness, session: Session, now: float, heartbeat: bytes) -> CloseCode | None:
        if session is broken:
            raise RuntimeError("broken")
        return check(liveness, session, now, heartbeat)

    monkeypatch.setattr(Liveness, "check", check_or_fail)
    for _ in range(62):
        clock.advance(core.liveness.interval)
        with suppress(RuntimeError):
            for _ in core.hub.sweep():
                pass
    assert {client.peer.closed for client in clients if client.session is not broken} == {CloseCode.PING_TIMEOUT}
    assert clients[4].peer.closed is None


# the testee


@pytest.mark.parametrize("message", ["", "text", "x" * 70_000, b"", b"bytes", b"\xff" * 70_000])
def test_testee_echoes(clock: Clock, message: str | bytes) -> None:
    """
    As a testee the service sends back what it gets, and says nothing of its own.
    """
    core = make_core(clock, hub=EchoHub, interpreter=EchoInterpreter)
    peer = RecordingPeer()
    session = core.hub.connect(peer, Origin())
    assert session is not None and peer.frames == []
    core.interpreter.receive(session, message)
    ((opcode, payload),) = split_frames(b"".join(peer.frames))
    assert (opcode, payload) == ((1, message.encode()) if isinstance(message, str) else (2, message))
    core.hub.disconnect(session)
    assert not core.clients.sessions
