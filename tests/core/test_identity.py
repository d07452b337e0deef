"""
Who a client is, and what it is entitled to.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.session import Origin, State
from dcm_ws.protocol.channels import GLOBAL, parse_channel
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.tokens import sign
from tests.core.clients import joined, stats, token
from tests.core.living import events
from tests.fakes import SECRET, WALL_MS, Client, make_core

# authentication


def test_development_takes_a_name(core: Core) -> None:
    """
    In development an C{agent_id} is enough; the ack lists what the client now has.
    """
    client = Client(core)
    client.peer.take()
    ack, event = client.auth("ann", id="r1")

    assert ack == {
        "type": "ack",
        "id": "r1",
        "success": True,
        "subscriptions": ["agents/ann", "global"],
        "timestamp": WALL_MS,
        "epoch": "epoch",
        "pos": 0,
    }
    assert (event["channel"], event["event"]) == ("global", "agent.connected")
    assert event["data"] == {
        "agent_id": "ann",
        "client_id": client.session.client_id,
        "session_id": None,
    }


def test_auth_is_acknowledged_without_an_id_too(core: Core) -> None:
    """
    Alone among the commands; its ack then has C{null} for the id.
    """
    client = Client(core)
    client.peer.take()

    ack = client.auth("ann")[0]
    assert (ack["type"], ack["id"], ack["success"]) == ("ack", None, True)


@pytest.mark.parametrize("production", [False, True])
def test_both_modes_take_a_token(clock: Clock, production: bool) -> None:
    """
    A good token says who the client is, whatever C{agent_id} stands beside it.
    """
    core = make_core(clock, production=production)
    client = Client(core)
    client.peer.take()

    ack = client.say(type="auth", token=token(core, "ann"), agent_id="bob", id=1)[0]
    assert ack["subscriptions"] == ["agents/ann", "global"]


@pytest.mark.parametrize(
    ("production", "fields", "code"),
    [
        (False, {}, "AGENT_ID_REQUIRED"),
        (False, {"session_id": "s"}, "AGENT_ID_REQUIRED"),
        (False, {"token": ""}, "AGENT_ID_REQUIRED"),
        (False, {"token": "x", "agent_id": "ann"}, "TOKEN_INVALID"),
        (False, {"token": sign(SECRET, "ann", None, 0), "agent_id": "ann"}, "TOKEN_EXPIRED"),
        (False, {"token": sign("another secret", "ann", None, WALL_MS)}, "TOKEN_INVALID"),
        (True, {}, "TOKEN_REQUIRED"),
        (True, {"agent_id": "ann"}, "TOKEN_REQUIRED"),
        (True, {"token": None, "agent_id": "ann"}, "TOKEN_REQUIRED"),
        (True, {"token": "x"}, "TOKEN_INVALID"),
        (True, {"token": sign(SECRET, "ann", None, 0)}, "TOKEN_EXPIRED"),
    ],
)
def test_failed_authentication(clock: Clock, production: bool, fields: dict[str, Any], code: str) -> None:
    """
    A client that fails to authenticate receives the reason, and stays who it was.
    """
    core = make_core(clock, production=production)
    client = Client(core)
    client.peer.take()
    (with_id,) = client.say(type="auth", **fields, id="r1")
    (without,) = client.say(type="auth", **fields)

    assert (with_id["type"], with_id["id"], with_id["success"], with_id["code"]) == ("ack", "r1", False, code)
    assert without == {"error": with_id["error"], "code": code, "timestamp": WALL_MS}
    assert client.session.state is (State.STRANGER if production else State.ANONYMOUS)
    assert client.peer.closed is None
    assert stats(core)["authenticatedClients"] == 0


def test_failed_authentication_keeps_the_former_one(core: Core) -> None:
    """
    Who was authenticated stays so when a second attempt fails.
    """
    client = joined(core, agent="ann")
    client.say(type="auth", token="x")

    assert client.session.agent == "ann"
    assert client.say(type="subscribe", channel="agents/bob", id=1)[0]["success"] is True


@pytest.mark.parametrize(
    ("in_token", "in_message", "in_query", "expected"),
    [
        ("s-token", "s-message", "s-query", "s-token"),
        (None, "s-message", "s-query", "s-message"),
        (None, None, "s-query", "s-query"),
        (None, None, None, None),
    ],
)
def test_session_comes_from_the_token_first(
    core: Core, in_token: str | None, in_message: str | None, in_query: str | None, expected: str | None
) -> None:
    """
    The session is the token's, else the message's, else the query's.
    """
    client = Client(core, Origin(session_id=in_query))
    client.peer.take()
    ack, event = client.say(type="auth", token=token(core, "ann", in_token), session_id=in_message)

    assert ack["subscriptions"] == ["agents/ann", "global"] + ([f"sessions/{expected}"] if expected else [])
    assert event["data"]["session_id"] == expected


def test_anonymous_client_in_production_hears_nothing(clock: Clock) -> None:
    """
    In production C{global} starts to count with the authentication.
    """
    core = make_core(clock, production=True)
    client = Client(core)
    client.peer.take()
    core.router.announce(GLOBAL, "system.info", {})
    core.router.announce(GLOBAL, "task.created", {})
    assert client.peer.take() == []
    assert stats(core)["pendingDeliveries"] == 0
    client.say(type="auth", token=token(core, "ann"))
    core.router.announce(GLOBAL, "system.info", {})

    assert events(client.peer.take()) == [("global", "system.info")]


@pytest.mark.parametrize("agent", ["ann", "bob"])
def test_global_stays_left_through_authentication(core: Core, agent: str) -> None:
    """
    A client that left C{global} does not get it back by authenticating, nor by doing so again.
    """
    client = joined(core, quiet=True)
    assert client.auth("ann")[0]["subscriptions"] == ["agents/ann"]

    assert client.auth(agent)[0]["subscriptions"] == [f"agents/{agent}"]


def test_authenticating_again_as_the_same_agent(core: Core) -> None:
    """
    A refresh changes nothing but is announced; no C{agent.disconnected} goes out.
    """
    client = joined(core, "topics/t", agent="ann")
    ack, event = client.auth("ann", session_id="s")

    assert ack["subscriptions"] == ["agents/ann", "global", "sessions/s", "topics/t"]
    assert event["event"] == "agent.connected"
    assert stats(core)["authenticatedClients"] == 1


def test_authenticating_as_another_agent(core: Core) -> None:
    """
    The second agent replaces the first, whose private channel is unsubscribed and whose disconnection is published.
    """
    watcher = joined(core)
    client = joined(core, "topics/t", agent="ann")
    client.auth("ann", session_id="s")
    watcher.peer.take()
    disconnected, ack, connected = client.auth("bob")

    assert ack["subscriptions"] == ["agents/bob", "global", "sessions/s", "topics/t"]
    assert [(e["event"], e["data"]) for e in watcher.peer.take()] == [
        ("agent.disconnected", {"agent_id": "ann", "client_id": client.session.client_id, "session_id": "s"}),
        ("agent.connected", {"agent_id": "bob", "client_id": client.session.client_id, "session_id": None}),
    ]
    assert (disconnected["event"], connected["event"]) == ("agent.disconnected", "agent.connected")
    assert stats(core)["authenticatedClients"] == 1
    core.router.announce(parse_channel("agents/ann"), "message.new", {})
    assert events(client.peer.take()) == [("global", "message.new")]


def test_agents_coming_and_going_is_told(core: Core) -> None:
    """
    Each authentication and each end of an authenticated connection is an event on C{global}.
    """
    watcher = joined(core)
    client = Client(core)
    client.auth("ann", session_id="s")
    client.leave()

    told = watcher.peer.take()
    assert events(told) == [("global", "agent.connected"), ("global", "agent.disconnected")]
    assert told[0]["data"] == told[1]["data"]
    assert told[0]["data"] == {"agent_id": "ann", "client_id": client.session.client_id, "session_id": "s"}
    assert stats(core)["authenticatedClients"] == 0


def test_agents_are_counted_by_their_connections(core: Core) -> None:
    """
    C{agentStats} names each agent that is connected, with its connections, and nobody who is only listened to.
    """
    first, second = joined(core, agent="ann"), joined(core, "agents/absent", agent="ann")
    joined(core)
    first.auth("ann")
    assert stats(core)["agentStats"] == {"ann": 2}
    second.auth("bob")
    assert stats(core)["agentStats"] == {"ann": 1, "bob": 1}
    assert stats(core)["agents"]["connected"] == 2
    assert "agentStats" not in core.stats.report(names=False)
    first.leave()
    second.leave()
    assert stats(core)["agentStats"] == {}


def test_own_channels_fit_beyond_the_limit(clock: Clock) -> None:
    """
    A client that has all the subscriptions it may have still gets the channels of its agent and its session.
    """
    core = make_core(clock, max_subscriptions=3)
    client = joined(core, "topics/a", "topics/b")
    (answer,) = (m for m in client.auth("ann", session_id="s", id=1) if m.get("type") == "ack")

    assert answer["subscriptions"] == ["agents/ann", "global", "sessions/s", "topics/a", "topics/b"]
    assert stats(core)["limits"]["maxSubscriptions"] == 0


# secrets


def test_any_of_the_secrets_will_do(clock: Clock) -> None:
    """
    While the secret is being changed, tokens under the new one and all older ones are good.
    """
    core = make_core(clock)
    core.identity.secrets = ("new secret", "middle secret", "old secret")
    for secret in core.identity.secrets:
        assert core.identity.verify(sign(secret, "ann", None, WALL_MS)).agent_id == "ann"
    for secret, issued, code in (
        ("new secret", 0, ErrorCode.TOKEN_EXPIRED),
        ("middle secret", 0, ErrorCode.TOKEN_EXPIRED),
        ("old secret", 0, ErrorCode.TOKEN_EXPIRED),
        (SECRET, WALL_MS, ErrorCode.TOKEN_INVALID),
    ):
        with pytest.raises(ProtocolError) as refusal:
            core.identity.verify(sign(secret, "ann", None, issued))
        assert refusal.value.code is code
