"""
Messages over the rate limit.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.session import State
from dcm_ws.protocol.errors import CloseCode
from tests.core.clients import codes, only
from tests.fakes import Client, make_core

# the rate limit


def limited(clock: Clock) -> tuple[Core, Client]:
    """
    A client that may send 2 messages a second, and 4 at once.
    """
    core = make_core(clock, rate_limit=2.0, rate_burst=4.0)
    client = Client(core)
    client.peer.take()
    return core, client


@pytest.mark.parametrize(
    "message",
    [
        {"type": "ping"},
        {"type": "subscribe", "channel": "global", "id": 1},
        {"type": "unsubscribe", "channel": "metrics", "id": 1},
        {"type": "publish", "channel": "metrics", "event": "metric.update", "id": 1},
        {"type": "auth", "token": "x", "id": 1},
        {"type": "hello", "id": 1},
    ],
    ids=lambda message: message["type"],
)
def test_messages_over_the_rate_are_refused(clock: Clock, message: dict[str, Any]) -> None:
    """
    Past the limit a message is refused, whatever it is and whether or not it is right, with the time to wait.
    """
    _, client = limited(clock)
    answers = [only(client.say(**message)) for _ in range(6)]

    assert [answer.get("code") == "RATE_LIMITED" for answer in answers] == [False] * 4 + [True] * 2
    assert answers[4]["retry_after_ms"] == answers[5]["retry_after_ms"] == 500
    assert answers[5].get("id") == message.get("id")
    assert client.peer.closed is None


@pytest.mark.parametrize("kind", ["resume", "auth"])
def test_resuming_costs_more_than_its_message(clock: Clock, kind: str) -> None:
    """
    A short message that has much sent cannot be repeated as often as others.
    """
    core = make_core(clock, rate_limit=2.0, rate_burst=4.0)
    client = Client(core)
    client.auth("ann")
    client.peer.take()
    position = {"epoch": "epoch", "pos": 0, "channels": [f"topics/{number}" for number in range(40)]}
    client.say(**({"type": "resume", **position} if kind == "resume" else auth_with(position)))
    # 4 were left, and 1 and 12 are taken
    clock.advance(4.5)
    answer = only(client.say(type="ping"))
    assert (answer["code"], answer["retry_after_ms"]) == ("RATE_LIMITED", 500)
    clock.advance(0.5)
    assert only(client.say(type="ping"))["type"] == "pong"


def auth_with(position: dict[str, Any]) -> dict[str, Any]:
    return {"type": "auth", "agent_id": "ann", "resume": position}


def test_waiting_as_told_is_enough(clock: Clock) -> None:
    """
    The next message is executed after the time that the refusal names, and not before.
    """
    _, client = limited(clock)
    codes(client, 4, type="ping")
    clock.advance(0.25)
    refused = only(client.say(type="ping"))
    assert (refused["code"], refused["retry_after_ms"]) == ("RATE_LIMITED", 250)
    clock.advance(0.25)

    assert client.say(type="ping")[0]["type"] == "pong"


def test_a_pause_gives_a_burst_and_no_more(clock: Clock) -> None:
    """
    However long a client was silent, it may send so many messages at once.
    """
    _, client = limited(clock)
    clock.advance(50)

    assert codes(client, 6, type="ping") == [None] * 4 + ["RATE_LIMITED"] * 2


def test_steady_client_is_never_refused(clock: Clock) -> None:
    """
    A client below the rate may continue indefinitely.
    """
    _, client = limited(clock)
    for _ in range(100):
        clock.advance(0.5)
        assert codes(client, 1, type="ping") == [None]


def test_what_the_server_asked_for_is_not_counted(clock: Clock) -> None:
    """
    Pongs, and acks that settle a delivery, cost nothing; acks of nothing do.
    """
    core, client = limited(clock)
    ids = [core.router.notified('{"channel":"global","event":"task.created"}') for _ in range(20)]
    client.peer.take()
    for event_id in ids:
        assert client.say(type="ack", message_id=event_id) == client.say(type="pong") == []

    assert codes(client, 6, type="ack", message_id="msg_unknown") == ["RATE_LIMITED"] * 2


def test_client_that_keeps_breaking_the_rate_is_closed(clock: Clock) -> None:
    """
    Ten times what it may send at once ends the connection.
    """
    core, client = limited(clock)
    assert codes(client, 39, type="ping").count("RATE_LIMITED") == 35
    assert client.peer.closed is None
    client.say(type="ping")

    assert client.peer.closed is CloseCode.TOO_MANY_MESSAGES
    assert client.session.state is State.CLOSED
    assert core.stats.report(names=False)["closes"] == {"4029": 1}
    assert client.say(type="ping") == []


def test_breaking_the_rate_now_and_then_is_forgiven(clock: Clock) -> None:
    """
    If a client pauses for a while, its earlier violations of the rate no longer count.
    """
    _, client = limited(clock)
    for _ in range(5):
        codes(client, 20, type="ping")
        clock.advance(20)

    assert client.peer.closed is None
