"""
Hostile clients whose frames are in order and whose messages are not: nesting, numbers, floods, and never an ack.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.integration.attacks import (
    AT_ONCE,
    besieged,
    deaf,
    frame,
    processor_seconds,
    push,
    resident,
    serve_at_once,
)
from tests.integration.clients import RawClient, ask, close_of, hear, say
from tests.integration.machine import until
from tests.integration.running import Service, service
from tests.integration.sharing import SharedServices
from tests.integration.tokens import make_token

pytestmark = pytest.mark.integration

MIB = 1 << 20
LEAVE = {"type": "unsubscribe", "channel": "global", "id": "left"}


@pytest.fixture
def running(services: SharedServices) -> Iterator[Service]:
    with besieged(services.get("--ack-timeout", "60")) as running:
        yield running


def said(**message: Any) -> bytes:
    """
    A message as a frame.
    """
    return frame(json.dumps(message).encode())


def answers(client: RawClient, text: bytes) -> dict[str, Any]:
    """
    What C{text} is answered.
    """
    client.socket.sendall(frame(text))
    return client.hear()


# what is hard to read


@pytest.mark.parametrize("depth", [101, 1000, 100_000, 400_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deeply_nested_data(running: Service, opening: bytes, closing: bytes, depth: int) -> None:
    """
    Data that is nested deeper than 100 levels is refused, so that no subscriber has to follow it.
    """
    depth = min(depth, 170_000) if len(opening) > 1 else depth
    witness = running.connect()
    data = opening * depth + b"1" + closing * depth
    answer = answers(
        deaf(running), b'{"type":"publish","channel":"topics/t","event":"system.info","id":1,"data":%b}' % data
    )
    assert answer.get("code") in ("INVALID_MESSAGE", "PARSE_ERROR")
    say(witness, type="publish", channel="global", event="system.info", data="first")
    assert hear(witness)["data"] == "first"


@pytest.mark.parametrize(
    "text",
    [
        b"[" * MIB,
        b'{"type":' * (MIB // 8),
        b"{" * MIB,
        b"]" * MIB,
        b'{"type":"publish","channel":"global","event":"system.info","data":' + b"[" * (MIB - 100),
        b'{"type":"ping","x":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        b'{"type":"ping","id":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        b"[" + b"[]," * 300_000 + b"[]]",
    ],
    ids=["arrays", "types", "objects", "ends", "data", "extra", "id", "side by side"],
)
def test_mebibyte_of_brackets(running: Service, text: bytes) -> None:
    """
    A mebibyte of brackets is refused in its time, without a stack that overflows.
    """
    client = deaf(running)
    assert "code" in answers(client, text)
    assert answers(client, b'{"type":"ping"}')["type"] == "pong"


@pytest.mark.parametrize(
    "text",
    [
        b'{"type":"ping","timestamp":' + b"9" * 500_000 + b"}",
        b'{"type":"ping","id":' + b"9" * 500_000 + b"}",
        b'{"type":"ping","timestamp":1e' + b"9" * 100_000 + b"}",
        b'{"type":"ping","timestamp":0.' + b"1" * 1_000_000 + b"}",
        b'{"type":"ping","timestamp":-1e-' + b"9" * 100_000 + b"}",
        b'{"type":' + b"7" * 500_000 + b"}",
        b'{"type":"ack","message_id":' + b"1" * 500_000 + b"}",
    ],
    ids=["timestamp", "id", "exponent", "fraction", "small", "type", "message_id"],
)
def test_giant_numbers(running: Service, text: bytes) -> None:
    """
    Numbers with hundreds of thousands of digits are refused or passed over, and cost no more than their bytes.
    """
    client = deaf(running)
    client.socket.sendall(frame(text))
    serve_at_once(running)
    # at most one answer of its own, and the connection stays
    assert ("code" in (answer := answers(client, b'{"type":"ping"}'))) or answer["type"] == "pong"


def test_giant_numbers_in_data(running: Service) -> None:
    """
    A number in an event's data travels as it was written, however long; one beyond the range of a float is refused.
    """
    digits = b"1" * 100_000
    client = running.connect_raw()
    for number in (digits, b"1e" + digits, b"[1,-%b]" % digits):
        client.socket.sendall(frame(b'{"type":"publish","channel":"global","event":"system.info","data":%b}' % number))
        assert client.hear()["code"] == "INVALID_MESSAGE"
    for number in (b"-0." + digits, b"1.%be308" % digits, b"1e-" + digits):
        client.socket.sendall(frame(b'{"type":"publish","channel":"global","event":"system.info","data":%b}' % number))
        opcode, payload = client.read()
        assert opcode == 1 and b'"data":%b,' % number in payload


def test_duplicate_keys(running: Service) -> None:
    """
    Where a key is repeated the last one counts, for the check and for the deed alike; two types in one message are
    refused.
    """
    client = deaf(running)
    answer = answers(client, b'{"type":"subscribe","channel":"metrics","channel":"bad","id":1,"id":2}')
    assert (answer["id"], answer["code"]) == (2, "INVALID_CHANNEL")
    assert answers(client, b'{"type":"ping","type":"subscribe","channel":"metrics"}')["code"] == "INVALID_MESSAGE"
    many = b",".join(b'"x%d":1,"id":%d' % (n, n) for n in range(30_000))
    assert answers(client, b'{"type":"subscribe","channel":"metrics",' + many + b"}")["id"] == 29_999
    # an event's data is nobody's but the readers': it goes out as it came in
    answers(client, b'{"type":"subscribe","channel":"topics/t","id":3}')
    client.socket.sendall(frame(b'{"type":"publish","channel":"topics/t","event":"system.info","data":{"a":1,"a":2}}'))
    assert b'"data":{"a":1,"a":2}' in client.read()[1]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "x" * 1_000_000},
        {"type": "subscribe", "channel": "x" * 1_000_000},
        {"type": "publish", "channel": "global", "event": "x" * 1_000_000},
        {"type": "publish", "channel": "global", "event": "a." + "b" * 1_000_000},
        {"type": "ack", "message_id": "x" * 1_000_000},
        {"type": "auth", "token": "x" * 1_000_000},
        {"type": "auth", "agent_id": "x" * 1_000_000},
        {"type": "auth", "agent_id": "a", "session_id": "x" * 1_000_000},
        {"type": "ping", "id": "x" * 1_000_000},
    ],
    ids=lambda message: "-".join(map(str, message))[:40],
)
def test_enormous_names(running: Service, message: dict[str, Any]) -> None:
    """
    A name of a megabyte is refused with an answer that is short.
    """
    client = deaf(running)
    client.socket.sendall(said(**message))
    opcode, payload = client.read()
    assert opcode == 1 and len(payload) < 1000
    assert "code" in json.loads(payload)


@pytest.mark.parametrize("name", ["topics/a\0b", "topics/a\nb", "agents/\u202e", "topics/\x1b[2J", "agents/ "])
def test_names_with_tricks(running: Service, name: str) -> None:
    """
    Names with control characters and the like are no names.
    """
    client = deaf(running)
    answer = answers(client, json.dumps({"type": "subscribe", "channel": name}).encode())
    assert answer["code"] == "INVALID_CHANNEL"


# floods


def test_rate_limit_breaker() -> None:
    """
    A client that sends ten times what the rate limit allows is refused, then closed with 4029; others are not affected.
    """
    with service("--rate-limit", "50/s", "--log-level", "debug") as limited, besieged(limited):
        breaker = limited.connect()
        for _ in range(2000):
            try:
                say(breaker, type="ping")
            except ConnectionClosed:
                break
        heard = []
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                heard.append(hear(breaker))
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4029
        refused = [answer for answer in heard if answer.get("code") == "RATE_LIMITED"]
        assert len(refused) >= 400
        assert all(0 < answer["retry_after_ms"] <= 20 for answer in refused)
        limits = limited.stats()["limits"]
        assert (limits["rateLimit"] > 400, limits["rateLimitTenfold"]) == (True, 1)


def test_subscribing_to_everything(running: Service) -> None:
    """
    A client that subscribes to all the names it can think of has 1,000 of them; the channels go when it does.
    """
    client = running.connect_raw()
    before = resident(running)
    client.socket.sendall(
        b"".join(said(type="subscribe", channel=f"topics/{n}/{'x' * 100}", id=n) for n in range(5000))
    )
    codes = [client.hear().get("code") for _ in range(5000)]
    assert codes == [None] * 999 + ["TOO_MANY_SUBSCRIPTIONS"] * 4001
    assert running.stats()["activeChannels"] == 1000
    assert resident(running) - before < 16 * MIB


def test_never_acknowledging(running: Service) -> None:
    """
    A client owes 10,000 acks at most: more events wait in the log until it acknowledges, and nothing is left when it
    goes.
    """
    client, publisher = running.connect_raw(), deaf(running)
    given_up = running.stats()["deliveries"]["neverAcknowledged"]
    events = []
    for number in range(21):
        burst = said(type="publish", channel="global", event="task.created", data="x" * 50) * 500
        publisher.socket.sendall(burst)
        if number < 20:
            events += [client.hear() for _ in range(500)]
    # replies do not wait, and show that no event comes before them
    assert answers(publisher, b'{"type":"ping"}')["type"] == "pong"
    assert answers(client, b'{"type":"ping"}')["type"] == "pong"
    stats = running.stats()
    assert (stats["pendingDeliveries"], stats["deliveries"]["neverAcknowledged"] - given_up) == (10_000, 0)
    client.socket.sendall(said(type="ack", pos=events[-1]["pos"]))
    events += [client.hear() for _ in range(500)]
    assert {event["event"] for event in events} == {"task.created"}
    assert len({event["id"] for event in events}) == 10_500
    assert running.stats()["pendingDeliveries"] == 500


def test_flood_of_unknown_acks(running: Service) -> None:
    """
    Acks of what was never sent are read, and change nothing.
    """
    client, before = deaf(running), running.stats()["deliveries"]["acked"]
    for start in range(0, 30_000, 1000):
        acks = (said(type="ack", message_id=f"msg_{n}") for n in range(start, start + 1000))
        client.socket.sendall(b"".join(acks))
    assert answers(client, b'{"type":"ping"}')["type"] == "pong"
    assert running.stats()["deliveries"]["acked"] == before


def test_resuming_again_and_again(running: Service) -> None:
    """
    A client that resumes from the beginning of the log all the time, and reads nothing, gets no more than it may leave
    unread, and others are served.
    """
    publisher, client = deaf(running), deaf(running)
    event = {"type": "publish", "channel": "topics/t", "event": "session.created", "data": "x" * 1000}
    publisher.socket.sendall(said(**event) * 2000)
    assert answers(publisher, b'{"type":"ping"}')["type"] == "pong"
    position = {"epoch": client.connected["epoch"], "pos": 0, "channels": ["topics/t"]}
    before = resident(running)
    assert push(client.socket, said(type="resume", **position) * 1000)
    serve_at_once(running)
    assert resident(running) - before < 32 * MIB


def test_resuming_more_channels_than_there_may_be(running: Service) -> None:
    """
    A list of channels that is longer than the limit is refused before its names are read.
    """
    client = deaf(running)
    position = {"epoch": client.connected["epoch"], "pos": 0, "channels": [f"topics/{n}" for n in range(50_000)]}
    used = processor_seconds(running)
    for _ in range(10):
        answer = answers(client, json.dumps({"type": "resume", "id": 1, **position}).encode())
        assert answer["code"] == "TOO_MANY_SUBSCRIPTIONS"
    assert processor_seconds(running) - used < AT_ONCE
    assert running.health()["activeChannels"] == 0


def test_flood_of_bad_tokens(running: Service) -> None:
    """
    Thousands of bad tokens are refused one by one, and none of them by chance lets anybody in.
    """
    client = deaf(running)
    tokens = ["y", "x", "a.b", "." * 4096, make_token("eve", secret="guess"), "A" * 4000 + "." + "0" * 64]
    for _ in range(50):
        client.socket.sendall(b"".join(said(type="auth", token=tokens[n % 6], id=n) for n in range(60)))
        for n in range(60):
            answer = client.hear()
            assert (answer["id"], answer["success"], answer["code"]) == (n, False, "TOKEN_INVALID")
    assert running.stats()["authenticatedClients"] == 0


def test_agents_without_number(running: Service) -> None:
    """
    One that comes as ever new agents fills no memory: 10,000 of them are remembered.
    """
    client = deaf(running)
    before = resident(running)
    for start in range(0, 12_000, 500):
        client.socket.sendall(
            b"".join(said(type="auth", agent_id=f"agent-{n}", id=n) + said(**LEAVE) for n in range(start, start + 500))
        )
        for n in range(start, start + 500):
            answer = client.hear()
            while answer.get("id") != n:
                answer = client.hear()
            assert answer["success"] is True
    until(lambda: running.stats()["agents"]["remembered"] == 10_000)
    assert resident(running) - before < 64 * MIB


def test_agents_that_keep_coming_back(running: Service) -> None:
    """
    One that comes, is sent what must be acknowledged, and leaves, over and over, is owed no more each time.
    """
    publisher = deaf(running)
    for _ in range(20):
        client = running.connect(max_queue=None)
        say(client, type="auth", agent_id="restless", id="auth")
        while hear(client).get("id") != "auth":
            pass
        publisher.socket.sendall(said(type="publish", channel="agents/restless", event="message.new", id="sent"))
        assert publisher.hear()["id"] == "sent"
        client.close()
    # each is owed once on the private channel and once, by the same delivery, on global
    until(lambda: running.stats()["deliveries"]["keptForAbsentAgents"] == 20)
    client = running.connect()
    say(client, type="auth", agent_id="restless")
    acked: set[str] = set()
    while len(acked) < 20:
        event = hear(client)
        if event.get("event") == "message.new":
            acked.add(event["id"])
            say(client, type="ack", message_id=event["id"])
    until(lambda: running.stats()["pendingDeliveries"] == 0)


def test_largest_events_to_everybody(running: Service) -> None:
    """
    One that publishes the largest events it may, as fast as it can, does not push the readers out.
    """
    readers = [running.connect(max_size=2 * MIB) for _ in range(3)]
    client = deaf(running)
    for number in range(10):
        data = {"n": number, "fill": "x" * (MIB - 200)}
        assert push(client.socket, said(type="publish", channel="global", event="system.info", data=data))
        for reader in readers:
            assert hear(reader)["data"]["n"] == number


def test_message_over_the_limit(running: Service) -> None:
    """
    A message of one byte more than 1 MiB is refused with 1009, in whatever way it was going to be wrong.
    """
    client = running.connect()
    client.send(b"\xff" * (MIB + 1))
    assert close_of(client) == (1009, "Message too large")


def test_asking_and_not_reading(running: Service) -> None:
    """
    One that asks for answers without end and reads none is closed with 4008.
    """
    before = running.stats()["closes"].get("4008", 0)
    memory = resident(running)
    client = deaf(running)
    question = said(type="subscribe", channel="metrics", id="x" * 100) * 2000

    def closed() -> bool:
        return not push(client.socket, question) or running.stats()["closes"].get("4008", 0) > before

    until(closed, 60)
    until(lambda: running.stats()["closes"].get("4008", 0) == before + 1)
    assert resident(running) - memory < 24 * MIB
    assert ask(running.connect(), type="ping")["type"] == "pong"
