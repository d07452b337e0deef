"""
Protocol, section 5: who one is, in development and in production.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection

from dcm_ws.protocol.tokens import sign
from tests import forking
from tests.integration.clients import ask, ask_past_events, close_of, hear, say, silence
from tests.integration.databases import PostgresServer
from tests.integration.machine import until
from tests.integration.running import Service, production_service
from tests.integration.sharing import SharedServices
from tests.integration.tokens import DEVELOPMENT_SECRET, SECRET, make_token

pytestmark = pytest.mark.integration


@pytest.fixture
def development(services: SharedServices) -> Iterator[Service]:
    with services.lend() as running:
        yield running


@pytest.fixture
def production(services: SharedServices, database: PostgresServer) -> Iterator[Service]:
    with services.lend("--auth-timeout", "60", in_production=database) as running:
        yield running


def sdk_auth(token: str, agent: str) -> dict[str, str]:
    """
    What the TypeScript server's own client sends: empty texts for what is unset, and no timestamp.
    """
    return {"type": "auth", "token": token, "agent_id": agent, "session_id": "", "id": "msg_1_abc"}


def test_authentication_of_the_replaced_sdk_in_development(development: Service) -> None:
    """
    With an agent_id and an empty session_id, or with a token and the rest empty, it is authenticated.
    """
    by_name = development.connect("/?agent_id=&session_id=")
    answer = ask(by_name, **sdk_auth("", "lara"))
    assert (answer["id"], answer["success"]) == ("msg_1_abc", True)
    assert answer["subscriptions"] == ["agents/lara", "global"]
    message = {"type": "auth", "agent_id": "lara", "session_id": "", "id": "msg_2"}
    assert ask_past_events(by_name, **message)["subscriptions"] == ["agents/lara", "global"]
    by_token = development.connect("/?token=")
    answer = ask(by_token, **sdk_auth(make_token("tom", secret=DEVELOPMENT_SECRET), ""))
    assert answer["subscriptions"] == ["agents/tom", "global"]
    nobody = development.connect()
    assert ask(nobody, **sdk_auth("", ""))["code"] == "AGENT_ID_REQUIRED"


def test_authentication_of_the_replaced_sdk_in_production(production: Service) -> None:
    """
    A token is enough, with the rest empty; without one it is asked for.
    """
    client = production.connect("/?agent_id=&session_id=&token=")
    assert ask(client, **sdk_auth("", "lara"))["code"] == "TOKEN_REQUIRED"
    answer = ask(client, **sdk_auth(make_token("lara"), ""))
    assert (answer["success"], answer["subscriptions"]) == (True, ["agents/lara", "global"])


@pytest.fixture(scope="module")
def strict(database: PostgresServer) -> Iterator[Service]:
    """
    Production that waits for nobody.
    """
    with production_service(database.url, "--auth-timeout", "0.5", "--enforce-expiry") as running:
        yield running


@pytest.fixture(params=["development", "production"])
def both(request: pytest.FixtureRequest) -> Service:
    """
    Each of the two modes.
    """
    running: Service = request.getfixturevalue(request.param)
    return running


def quiet(running: Service) -> ClientConnection:
    """
    A client that is asked nothing and told nothing of global (in production it would not be anyway).
    """
    client = running.connect()
    say(client, type="unsubscribe", channel="global")
    return client


def answer_to(client: ClientConnection, **message: Any) -> dict[str, Any]:
    """
    The answer to a message, events left aside.
    """
    say(client, **message)
    while "event" in (answer := hear(client)):
        pass
    return answer


# in both modes


def test_token(both: Service, agent: str) -> None:
    """
    A good token says who its bearer is, and of which session, whatever else the message says.
    """
    client = both.connect("/?agent_id=query&session_id=query")
    token = make_token(agent, "sess-1", secret=both.secret)
    answer = ask(client, type="auth", token=token, agent_id="message", session_id="message", id="a")
    assert answer["success"] is True
    assert sorted(answer["subscriptions"]) == [f"agents/{agent}", "global", "sessions/sess-1"]


@pytest.mark.parametrize(
    ("of_token", "of_message", "of_query", "session"),
    [("t", "m", "q", "t"), (None, "m", "q", "m"), (None, None, "q", "q"), (None, None, None, None)],
)
def test_where_the_session_comes_from(
    both: Service, of_token: str | None, of_message: str | None, of_query: str | None, session: str | None
) -> None:
    """
    The session is the token's, else the message's, else the query's, if any.
    """
    client = both.connect(f"/?session_id={of_query}" if of_query else "/")
    message = {"session_id": of_message} if of_message else {}
    token = make_token(f"from-{of_token}-{of_message}-{of_query}", of_token, secret=both.secret)
    answer = ask(client, type="auth", token=token, **message)
    mine = [channel for channel in answer["subscriptions"] if channel.startswith("sessions/")]
    assert mine == ([f"sessions/{session}"] if session else [])


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("nonsense", "TOKEN_INVALID"),
        ("forged", "TOKEN_INVALID"),
        ("other case", "TOKEN_INVALID"),
        ("padded", "TOKEN_INVALID"),
        ("expired", "TOKEN_EXPIRED"),
    ],
)
def test_bad_tokens(both: Service, agent: str, token: str, code: str) -> None:
    """
    A bad token is refused, also where an agent_id stands beside it; the client stays and may try again.
    """
    good = make_token(agent, secret=both.secret)
    token = {
        "forged": make_token(agent, secret="x" * 40),
        "other case": good[:-64] + good[-64:].upper(),
        "padded": good.replace(".", "==."),
        "expired": make_token(agent, secret=both.secret, seconds=-0.001),
    }.get(token, token)
    client = both.connect()
    answer = ask(client, type="auth", token=token, agent_id=agent, id="a")
    assert (answer["type"], answer["id"], answer["success"], answer["code"]) == ("ack", "a", False, code)
    answer = ask(client, type="auth", token=token, agent_id=agent)
    assert answer.keys() == {"error", "code", "timestamp"}
    assert answer["code"] == code
    assert ask(client, type="auth", token=good, id="b")["success"] is True


def test_any_agent_may_listen_to_another(both: Service) -> None:
    """
    Who has authenticated, as any agent, may subscribe to an agent's channel, and hears what comes there.
    """
    client = both.connect()
    ask(client, type="auth", token=make_token("one", secret=both.secret))
    assert answer_to(client, type="subscribe", channel="agents/two", id=1)["success"] is True


def test_private_channel_without_authentication(both: Service) -> None:
    """
    Who has not authenticated may not subscribe to an agent's channel.
    """
    client = both.connect("/?agent_id=one") if both.secret == DEVELOPMENT_SECRET else both.connect()
    answer = ask(client, type="subscribe", channel="agents/two", id=1)
    assert answer["success"] is False
    assert answer["code"] == "NOT_AUTHORIZED"


def test_subscriptions_come_back(both: Service) -> None:
    """
    An agent that authenticates again gets back what it was subscribed to, but not what it had unsubscribed from.
    """
    token = make_token("returning", "s", secret=both.secret)
    client = both.connect()
    answer_to(client, type="auth", token=token)
    for channel in ("topics/kept", "topics/left", "metrics"):
        answer_to(client, type="subscribe", channel=channel, id=1)
    answer_to(client, type="unsubscribe", channel="topics/left", id=1)
    client.close()
    client = both.connect()
    answer = ask(client, type="auth", token=token)
    assert sorted(answer["subscriptions"]) == ["agents/returning", "global", "metrics", "sessions/s", "topics/kept"]
    for channel in ("metrics", "sessions/s"):
        answer_to(client, type="unsubscribe", channel=channel, id=1)
    client.close()
    client = both.connect()
    answer = ask(client, type="auth", token=make_token("returning", secret=both.secret))
    assert sorted(answer["subscriptions"]) == ["agents/returning", "global", "topics/kept"]


def test_missed_events_come_back(both: Service) -> None:
    """
    What an agent has not acknowledged when its connection ends is sent again when it is back, after the ack.
    """
    token = make_token("absent", secret=both.secret)
    client, other = both.connect(), both.connect()
    answer_to(client, type="auth", token=token)
    answer_to(other, type="auth", token=make_token("publisher", secret=both.secret))
    message = {"type": "publish", "channel": "agents/absent", "event": "message.new"}
    one = answer_to(other, **message, data=1, id=1)["message_id"]
    while (heard := hear(client)).get("channel") != "agents/absent":
        pass
    assert heard["id"] == one
    client.close()
    two = answer_to(other, **message, data=2, id=2)["message_id"]
    client = both.connect()
    assert ask(client, type="auth", token=token)["success"] is True
    events = [hear(client) for _ in range(5)]
    # what is not logged does not wait for what is
    assert [event["event"] for event in events].count("agent.connected") == 1
    assert [(event["id"], event["channel"], event["data"]) for event in events if "pos" in event] == [
        (one, "agents/absent", 1),
        (one, "global", 1),
        (two, "agents/absent", 2),
        (two, "global", 2),
    ]
    for event_id in (one, two):
        say(client, type="ack", message_id=event_id)
    silence(client)


def test_another_agent_on_the_same_connection(both: Service) -> None:
    """
    A second auth as another agent replaces the first, whose private channel is left and who is announced to be gone.
    """
    watcher, client = both.connect(), both.connect()
    answer_to(watcher, type="auth", token=make_token("watcher", secret=both.secret))
    answer_to(client, type="auth", token=make_token("first", secret=both.secret))
    answer = answer_to(client, type="auth", token=make_token("second", secret=both.secret), id=2)
    assert "agents/second" in answer["subscriptions"]
    assert "agents/first" not in answer["subscriptions"]
    told: list[tuple[str, str]] = []
    while ("agent.connected", "second") not in told:
        event = hear(watcher)
        if event["data"]["client_id"] == client.connected["client_id"]:
            told.append((event["event"], event["data"]["agent_id"]))
    assert told == [("agent.connected", "first"), ("agent.disconnected", "first"), ("agent.connected", "second")]


def test_the_same_agent_again(both: Service) -> None:
    """
    A second auth as the same agent is a success, and nobody is announced to be gone.
    """
    client = both.connect()
    ask(client, type="auth", token=make_token("same", secret=both.secret))
    assert hear(client)["event"] == "agent.connected"
    assert answer_to(client, type="auth", token=make_token("same", secret=both.secret), id=2)["success"] is True
    assert hear(client)["event"] == "agent.connected"
    silence(client)


def test_connection_outlives_its_token(both: Service) -> None:
    """
    When a token expires the connection stays, with all its rights, and a new auth refreshes it.
    """
    token = make_token("patient", secret=both.secret, seconds=1)
    client = both.connect(f"/?token={token}")
    other = both.connect()
    until(lambda: ask(other, type="auth", token=token).get("code") == "TOKEN_EXPIRED" or drain(other))
    assert answer_to(client, type="subscribe", channel="agents/other", id=1)["success"] is True
    new = make_token("patient", secret=both.secret)
    assert answer_to(client, type="auth", token=new, id=2)["success"] is True


def drain(client: ClientConnection) -> bool:
    """
    Read all that is there now; answers False.
    """
    say(client, type="ping")
    while hear(client).get("type") != "pong":
        pass
    return False


# development


def test_agent_id_is_enough_in_development(development: Service) -> None:
    """
    In development an agent_id without a token is believed.
    """
    client = development.connect()
    answer = ask(client, type="auth", agent_id="my-agent", session_id="sess-1", timestamp=1706000000000)
    assert sorted(answer["subscriptions"]) == ["agents/my-agent", "global", "sessions/sess-1"]
    assert answer["success"] is True


def test_agent_id_required(development: Service) -> None:
    """
    An auth with neither a token nor an agent_id is refused.
    """
    client = development.connect("/?agent_id=query")
    answer = ask(client, type="auth", id="a")
    assert (answer["id"], answer["success"], answer["code"]) == ("a", False, "AGENT_ID_REQUIRED")
    assert ask(client, type="auth")["code"] == "AGENT_ID_REQUIRED"


def test_private_channel_in_development(development: Service) -> None:
    """
    In development, having claimed an agent_id in the query is enough for that agent's channel, and for no other.
    """
    client = development.connect("/?agent_id=mine")
    assert ask(client, type="subscribe", channel="agents/mine", id=1)["success"] is True
    answer = ask(client, type="subscribe", channel="agents/other", id=2)
    assert answer["code"] == "NOT_AUTHORIZED"
    assert answer["error"] == "Not authorized to subscribe to this agent channel"
    stranger = development.connect()
    assert ask(stranger, type="subscribe", channel="agents/mine", id=3)["code"] == "NOT_AUTHORIZED"
    # private is who listens, not who speaks
    say(stranger, type="publish", channel="agents/mine", event="message.new", data="hello")
    assert hear(client)["channel"] == "agents/mine"


def test_everybody_may_speak_in_development(development: Service) -> None:
    """
    In development a client may publish and subscribe without having authenticated.
    """
    client = development.connect()
    assert ask(client, type="subscribe", channel="topics/x", id=1)["success"] is True
    say(client, type="publish", channel="topics/x", event="system.info")
    assert hear(client)["channel"] == "topics/x"


# production


def test_token_required(production: Service) -> None:
    """
    In production an agent_id alone is not believed.
    """
    client = production.connect("/?agent_id=lara")
    answer = ask(client, type="auth", agent_id="lara", id="a")
    assert (answer["id"], answer["success"], answer["code"]) == ("a", False, "TOKEN_REQUIRED")
    assert ask(client, type="auth")["code"] == "TOKEN_REQUIRED"


def test_development_token_in_production(production: Service) -> None:
    """
    A token signed with the default secret is worth nothing in production.
    """
    with pytest.raises(InvalidStatus) as refused:
        production.connect(f"/?token={make_token('lara', secret=DEVELOPMENT_SECRET)}")
    assert refused.value.response.status_code == 401


def test_listening_without_a_token(database: PostgresServer) -> None:
    """
    Where the operator allows it, a client without a token hears what is public and is not closed for want of one; what
    clients publish stays where it was published, if only the database is to be mirrored.
    """
    options = ("--auth-timeout", "0.2", "--anonymous", "listen", "--mirror", "database")
    with production_service(database.url, *options) as running:
        stranger = running.connect("/?agent_id=lara")
        assert ask(stranger, type="subscribe", channel="topics/t", id=1)["success"] is True
        for channel in ("agents/lara", "sessions/s"):
            assert ask(stranger, type="subscribe", channel=channel, id=2)["code"] == "NOT_AUTHORIZED"
        assert ask(stranger, type="publish", channel="topics/t", event="task.created", id=3)["code"] == "NOT_AUTHORIZED"
        agent = running.connect(f"/?token={make_token('speaker', secret=SECRET)}")
        assert hear(stranger)["event"] == "agent.connected"
        answer_to(agent, type="publish", channel="topics/t", event="task.created", data="client", id=4)
        for channel in ("agents/speaker", "sessions/s", "topics/t"):
            database.notify(json.dumps({"channel": channel, "event": "task.created", "data": channel}))
        heard = [hear(stranger) for _ in range(3)]
        assert [(event["channel"], event["data"]) for event in heard] == [
            ("topics/t", "client"),
            ("topics/t", "topics/t"),
            ("global", "topics/t"),
        ]
        until(lambda: running.health()["uptime_s"] >= 2)
        assert ask(stranger, type="ping")["type"] == "pong"


@pytest.mark.parametrize(
    "message",
    [
        {"type": "subscribe", "channel": "global"},
        {"type": "subscribe", "channel": "metrics"},
        {"type": "subscribe", "channel": "agents/lara"},
        {"type": "publish", "channel": "global", "event": "task.created"},
    ],
    ids=lambda message: f"{message['type']} {message['channel']}",
)
def test_strangers_have_no_rights(production: Service, message: dict[str, str]) -> None:
    """
    In production a client that has not authenticated may neither subscribe nor publish.
    """
    client = production.connect("/?agent_id=lara")
    answer = ask(client, **message, id="n")
    assert (answer["type"], answer["id"], answer["success"]) == ("ack", "n", False)
    assert answer["code"] == "NOT_AUTHORIZED"
    answer = ask(client, **message)
    assert answer.keys() == {"error", "code", "timestamp"}
    assert answer["code"] == "NOT_AUTHORIZED"
    assert ask(client, type="ping")["type"] == "pong"


def test_reserved_events_take_an_operators_token(production: Service) -> None:
    """
    In production an agent cannot speak for the service; an operator can, and is named.
    """
    agent, operator = production.connect(), production.connect()
    ask(agent, type="auth", token=make_token("speaker", secret=SECRET))
    refused = answer_to(agent, type="publish", channel="global", event="system.info", id=1)
    assert (refused["success"], refused["code"]) == (False, "NOT_AUTHORIZED")
    token = sign(SECRET, "ops", None, time.time_ns() // 1_000_000, scope=("operator",))
    ask(operator, type="auth", token=token)
    answer_to(operator, type="publish", channel="topics/t", event="system.info", id=1)
    while (event := hear(agent))["event"] != "system.info":
        pass
    assert (event["from"], event["origin"], event["channel"]) == ("ops", "topics/t", "global")


def test_strangers_hear_nothing(production: Service) -> None:
    """
    In production global starts to count when the client authenticates.
    """
    stranger, agent = production.connect(), production.connect()
    ask(agent, type="auth", token=make_token("speaker", secret=SECRET))
    answer_to(agent, type="publish", channel="global", event="agent.blocked", data="before", id=1)
    silence(stranger)
    answer = ask(stranger, type="auth", token=make_token("stranger", secret=SECRET))
    assert "global" in answer["subscriptions"]
    assert hear(stranger)["event"] == "agent.connected"
    answer_to(agent, type="publish", channel="global", event="agent.blocked", data="after", id=2)
    assert hear(stranger)["data"] == "after"


def test_token_while_connecting_in_production(production: Service, agent: str) -> None:
    """
    A client that brings a good token with the upgrade has all rights at once.
    """
    bearer = {"Authorization": f"Bearer {make_token(agent, secret=SECRET)}"}
    client = production.connect(additional_headers=bearer)
    assert hear(client)["success"] is True
    assert answer_to(client, type="subscribe", channel="metrics", id=1)["success"] is True


def test_authentication_timeout(strict: Service) -> None:
    """
    In production a client that does not authenticate in time is closed with 4001; one that does stays.
    """
    agent, stranger = strict.connect(), strict.connect()
    say(agent, type="auth", token=make_token("punctual", secret=SECRET))
    assert close_of(stranger) == (4001, "Authentication required")
    assert hear(agent)["success"] is True
    assert hear(agent)["event"] == "agent.connected"
    silence(agent)


def test_enforced_expiry(strict: Service) -> None:
    """
    With --enforce-expiry a connection is closed with 4001 when its token expires, unless a new auth came before.
    """
    refreshed, forgotten = (
        strict.connect(f"/?token={make_token(agent, secret=SECRET, seconds=3)}") for agent in ("refreshed", "forgotten")
    )
    say(refreshed, type="auth", token=make_token("refreshed", secret=SECRET))
    assert close_of(forgotten)[0] == 4001
    assert answer_to(refreshed, type="subscribe", channel="metrics", id=1)["success"] is True


@pytest.mark.parametrize(
    ("how", "secret"),
    [
        ("--production", None),
        ("--production", ""),
        ("--production", DEVELOPMENT_SECRET),
        ("--production", SECRET[:31]),
        ("DCM_ENV", None),
        ("NODE_ENV", None),
    ],
    ids=["unset", "empty", "default", "short", "DCM_ENV", "NODE_ENV"],
)
def test_production_refuses_a_bad_secret(how: str, secret: str | None) -> None:
    """
    Production does not start without a secret of its own of 32 characters or more, and says so in one line.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(("WS_", "DB_", "DATABASE_"))}
    if secret is not None:
        env["WS_AUTH_SECRET"] = secret
    options = ["--database-url", "postgresql://127.0.0.1:1/none"]
    if how == "--production":
        options.append(how)
    else:
        env[how] = "production"
    twistd = str(Path(sys.executable).with_name("twistd"))
    ended = forking.run([twistd, "-n", "--pidfile=", "dcm-ws", "-p", "0", *options], input="", timeout=20, env=env)
    assert ended.returncode != 0
    assert len(ended.stderr.splitlines()) == 1
    assert "WS_AUTH_SECRET" in ended.stderr
    assert ended.stdout == ""
