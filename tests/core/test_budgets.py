"""
What agents, addresses and strangers may send.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.budgets import FRAGMENT, Allowance, Budget, Budgets
from dcm_ws.core.grants import CLIENTS_OF_AN_ADDRESS, STRANGERS_OF_AN_ADDRESS
from dcm_ws.core.session import Origin, State
from dcm_ws.protocol.errors import CloseCode
from dcm_ws.protocol.tokens import sign
from tests.fakes import SECRET, WALL_MS, Client, make_core


def client_of(core: Core, address: str = "192.0.2.1", **origin: Any) -> Client:
    client = Client(core, Origin(address=address, **origin))
    client.peer.take()
    return client


def allowed(client: Client, times: int, **message: Any) -> int:
    """
    Send a message so many times; how often it was not refused for the rate.
    """
    message = message or {"type": "ping"}
    return sum(all(answer.get("code") != "RATE_LIMITED" for answer in client.say(**message)) for _ in range(times))


# agents


def test_connections_of_an_agent_share_a_budget(clock: Clock) -> None:
    """
    However many connections an agent has, it may send as much as with one; other agents are not touched.
    """
    core = make_core(clock, rate_limit=10.0, rate_burst=5.0)
    anns = [client_of(core, f"192.0.2.{number}") for number in range(20)]
    for ann in anns:
        ann.auth("ann")
    bob = client_of(core)
    bob.auth("bob")
    assert sum(allowed(ann, 1) for ann in anns) == 5
    assert allowed(bob, 6) == 5
    clock.advance(0.2)
    assert sum(allowed(ann, 1) for ann in reversed(anns)) == 2


def test_reconnecting_does_not_help(clock: Clock) -> None:
    """
    What an agent has spent is spent on its next connection, too, until its budget is full again; then it is forgotten.
    """
    core = make_core(clock, rate_limit=10.0, rate_burst=5.0)
    for _ in range(3):
        ann = client_of(core)
        ann.auth("ann")
        allowed(ann, 10)
        ann.leave()
    assert len(core.grants.agents) == 1
    clock.advance(60)
    list(core.hub.sweep())
    assert (len(core.grants.agents), len(core.grants.addresses)) == (0, 0)
    ann = client_of(core)
    ann.auth("ann")
    assert allowed(ann, 10) == 5


def test_authenticating_as_another_agent_changes_the_budget(clock: Clock) -> None:
    """
    A client spends from the budget of the agent that it is.
    """
    core = make_core(clock, rate_limit=10.0, rate_burst=5.0)
    client, ann = client_of(core), client_of(core)
    ann.auth("ann")
    client.auth("ann")
    client.auth("bob")
    assert allowed(client, 10) == 5
    # the second auth was ann's
    assert allowed(ann, 10) == 4
    client.leave()
    ann.leave()
    clock.advance(60)
    list(core.hub.sweep())
    assert len(core.grants.agents) == 0


def test_without_limits_there_are_no_budgets(clock: Clock) -> None:
    """
    Where nothing is limited nothing is counted.
    """
    core = make_core(clock)
    ann = client_of(core)
    ann.auth("ann")
    assert ann.session.budgets == ()
    assert allowed(ann, 1000) == 1000
    assert core.charges.control(ann.session, 100)
    core.charges.fragment(ann.session, 1 << 20)
    assert len(core.grants.agents) == len(core.grants.addresses) == 0


# addresses


def test_clients_of_an_address_share_a_budget(clock: Clock) -> None:
    """
    Clients without an agent have a budget each, and together no more than ten of them.
    """
    core = make_core(clock, rate_limit=1.0, rate_burst=5.0)
    clients = [client_of(core) for _ in range(30)]
    assert sum(allowed(client, 10) for client in clients) == 5 * CLIENTS_OF_AN_ADDRESS
    assert allowed(client_of(core, "192.0.2.2"), 10) == 5
    # nothing is known of where those of a Unix socket are
    assert sum(allowed(client_of(core, ""), 10) for _ in range(30)) == 150


# strangers


def test_strangers_have_little(clock: Clock) -> None:
    """
    In production a client may send a few messages before it authenticates, and its agent's budget is another one.
    """
    core = make_core(clock, production=True, stranger_rate=2.0, rate_limit=100.0, rate_burst=50.0)
    client = client_of(core)
    assert client.session.is_stranger and not client.peer.trusted
    assert allowed(client, 14) == 10
    assert core.counts.limits.stranger_rate.value == 4
    assert (core.counts.limits.rate_limit.value, core.counts.limits.rate_bytes.value) == (0, 0)
    clock.advance(0.5)
    client.say(type="auth", token=sign(SECRET, "ann", None, WALL_MS))
    assert client.peer.trusted and client.session.state is State.AUTHENTICATED
    assert allowed(client, 60) == 50
    assert core.counts.limits.rate_limit.value == 10


def test_strangers_of_an_address(clock: Clock) -> None:
    """
    Very many strangers of one address have a common limit, too, which lets a whole installation come back at once.
    """
    core = make_core(clock, production=True, stranger_rate=1.0)
    assert sum(allowed(client_of(core), 6) for _ in range(30)) == 5 * STRANGERS_OF_AN_ADDRESS


def test_strangers_bytes(clock: Clock) -> None:
    """
    A stranger's bytes are limited like an agent's, and have their own counter.
    """
    core = make_core(clock, production=True, stranger_bytes=1000.0)
    client = client_of(core)
    assert allowed(client, 3, type="ping", fill="x" * 2000) == 1
    assert core.counts.limits.stranger_rate.value == 2


# bytes


def test_bytes_are_limited(clock: Clock) -> None:
    """
    What a message has too many bytes is made up for by waiting as long as told.
    """
    core = make_core(clock, rate_bytes=1000.0)
    client = client_of(core)
    client.auth("ann")
    (answer,) = client.say(type="ping", fill="x" * 3000)
    assert answer["type"] == "pong"
    (refused,) = client.say(type="subscribe", channel="topics/t", id="mine")
    assert (refused["id"], refused["code"]) == ("mine", "RATE_LIMITED")
    assert "1000 bytes a second" in refused["error"]
    clock.advance(refused["retry_after_ms"] / 1000 - 0.01)
    assert allowed(client, 1) == 0
    clock.advance(0.01)
    assert allowed(client, 1) == 1
    assert core.counts.limits.rate_bytes.value == 2


def test_refused_bytes_close(clock: Clock) -> None:
    """
    A client whose refused messages have ten times the bytes that it may send is closed.
    """
    core = make_core(clock, rate_bytes=1000.0)
    client = client_of(core)
    allowed(client, 1, type="ping", fill="x" * 2000)
    for _ in range(4):
        assert client.peer.closed is None
        client.say(type="ping", fill="x" * 2000)
    client.say(type="ping", fill="x" * 2000)
    assert client.peer.closed is CloseCode.TOO_MANY_MESSAGES


def test_nothing_is_read_of_what_is_refused(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Over the limit a message of some length is not decoded, whatever is in it; only its id is looked for.
    """
    core = make_core(clock, rate_limit=1.0, rate_burst=1.0)
    client = client_of(core)
    client.say(type="ping")
    decoded: list[Any] = []
    monkeypatch.setattr("dcm_ws.core.interpreter.decode_command", decoded.append)
    messages: tuple[str | bytes, ...] = (
        '{"type":"ping","x":"\\ud83d"}',
        "[" * 1000,
        '{"id":[]}',
        b"\xff",
        '{"type":"nonsense","id":7}',
    )
    for message in messages:
        client.receive(message + b" " * 512 if isinstance(message, bytes) else message + " " * 512)
    answers = client.peer.take()
    assert [answer["code"] for answer in answers] == ["RATE_LIMITED"] * 5
    assert [answer.get("id") for answer in answers] == [None] * 4 + [7]
    assert decoded == []


# what the server asked for


def test_answers_to_the_server_are_free(clock: Clock) -> None:
    """
    Acks that settle a delivery cost nothing, also over the limit; other messages are refused then.
    """
    core = make_core(clock, rate_limit=1.0, rate_burst=3.0)
    client = client_of(core)
    ids = [core.router.notified('{"channel":"global","event":"task.created"}') for _ in range(20)]
    client.peer.take()
    for event_id in ids[:10]:
        assert client.say(type="ack", message_id=event_id) == []
    assert allowed(client, 5) == 3
    for event_id in ids[10:19]:
        assert client.say(type="ack", message_id=event_id) == []
    for message in ({"type": "ack", "message_id": ids[0]}, {"type": "ping"}, {"type": "nonsense"}):
        assert client.say(**message)[-1]["code"] == "RATE_LIMITED"
    assert client.say(type="ack", message_id=ids[19], fill="x" * 600)[-1]["code"] == "RATE_LIMITED"
    assert client.say(type="ack", message_id=ids[19]) == []
    assert (core.counts.deliveries.acked, core.deliveries.pending) == (20, 0)
    # nothing is owed any more
    assert client.say(type="ack", message_id=ids[19])[-1]["code"] == "RATE_LIMITED"


def test_pongs_are_charged(clock: Clock) -> None:
    """
    A hundred pongs are free, and one more for each ping; the others cost what every message costs.
    """
    core = make_core(clock, rate_limit=1.0, rate_burst=5.0)
    client = client_of(core)
    for _ in range(105):
        assert client.say(type="pong") == []
    assert client.say(type="pong")[-1]["code"] == "RATE_LIMITED"
    clock.advance(31)
    list(core.hub.sweep())
    assert client.peer.take()[-1]["type"] == "ping"
    allowed(client, 5)
    assert client.say(type="pong") == []
    assert client.say(type="pong")[-1]["code"] == "RATE_LIMITED"
    for _ in range(60):
        client.say(type="pong")
    assert client.peer.closed is CloseCode.TOO_MANY_MESSAGES


# frames


def test_control_frames_are_charged(clock: Clock) -> None:
    """
    A WebSocket Ping or Pong counts as a message; over the limit it is ignored, and many too many end the connection.
    """
    core = make_core(clock, rate_limit=1.0, rate_burst=5.0)
    client = client_of(core)
    assert [core.charges.control(client.session, 4) for _ in range(7)] == [True] * 5 + [False] * 2
    assert client.peer.take() == []
    assert core.counts.limits.rate_limit.value == 2
    for _ in range(43):
        core.charges.control(client.session, 4)
    assert client.peer.closed is CloseCode.TOO_MANY_MESSAGES


def test_fragments_are_charged(clock: Clock) -> None:
    """
    An empty fragment counts as 1 KiB; who sends them without end is closed.
    """
    core = make_core(clock, rate_bytes=10.0 * FRAGMENT)
    client = client_of(core)
    for _ in range(10):
        core.charges.fragment(client.session, 0)
    assert core.counts.limits.rate_bytes.value == 0
    sent = 0
    while client.peer.closed is None and sent < 1000:
        core.charges.fragment(client.session, 0)
        sent += 1
    assert client.peer.closed is CloseCode.TOO_MANY_MESSAGES
    assert sent == 90


def test_fragmented_message_is_charged_once(clock: Clock) -> None:
    """
    A message whose fragments have been charged costs no bytes any more, and is read although they took the last ones.
    """
    core = make_core(clock, rate_bytes=2000.0)
    client = client_of(core)
    core.charges.fragment(client.session, 2500)
    client.receive(json.dumps({"type": "ping"}), 0)
    assert client.peer.take()[0]["type"] == "pong"
    assert allowed(client, 1) == 0


# budgets by name


def test_idle_budgets_are_bounded(clock: Clock) -> None:
    """
    Of very many names that come and go only the last ones are remembered.
    """
    budgets = Budgets(Allowance(rate=1.0, burst=10.0), clock.seconds, max_idle=3)
    for number in range(10):
        budget = budgets.hold(f"agent-{number}")
        assert budget is budgets.hold(f"agent-{number}")
        assert budget.spend(clock.seconds(), 1) is None
        budgets.release(f"agent-{number}")
        budgets.release(f"agent-{number}")
    assert len(budgets) == 3
    assert budgets.hold("agent-9") is not budgets.hold("agent-0")


def test_refunds(clock: Clock) -> None:
    """
    What is given back can be spent again.
    """
    budget = Budget(Allowance(rate=1.0, burst=1.0, bytes=10.0), clock.seconds())
    for _ in range(5):
        assert budget.spend(1000.0, 50) is None
        budget.give_back(50)
    assert budget.is_full(1000.0)
    assert budget.spend(1000.0, 50) is None
    assert not budget.is_full(1004.0)
    # a long wait fills it, and no more
    assert budget.is_full(1100.0)
    assert budget.spend(1100.0, 10) is None
    assert budget.spend(1100.5, 1) is not None


def test_allowance_of_bytes_alone(clock: Clock) -> None:
    """
    Without a limit of messages their number does not matter.
    """
    budget = Budget(Allowance(bytes=1000.0), clock.seconds())
    assert all(budget.spend(1000.0, 1) is None for _ in range(1000))
    refusal = budget.spend(1000.0, 1)
    assert refusal is not None and refusal.unit == "bytes"
    assert Allowance(1.0, 2.0, 3.0).times(2) == (2.0, 4.0, 6.0)
