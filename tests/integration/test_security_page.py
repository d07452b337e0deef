"""
What SECURITY.md says that readers may find surprising: each sentence is true.

Its other sentences are held by the tests of hostile strangers, of limits and of secrets.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from tests.integration.clients import ask, close_of, hear, say, silence
from tests.integration.databases import PostgresServer, postgres
from tests.integration.running import Service, production_service, service
from tests.integration.tokens import make_token

pytestmark = pytest.mark.integration

PAGE = " ".join((Path(__file__).parents[2] / "SECURITY.md").read_text().split())
TEN_YEARS = 10 * 365 * 86_400


def says(sentence: str) -> None:
    """
    The page has the sentence that a test holds.
    """
    assert sentence in PAGE


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    with postgres() as server:
        yield server


@pytest.fixture
def production(database: PostgresServer) -> Iterator[Service]:
    with production_service(database.url) as running:
        yield running


def test_everyone_reads_what_is_published_to_an_agent_in_development() -> None:
    """
    A client that names nobody reads what is published to an agent's channel, on C{global}.
    """
    says("| anyone who can reach the port | reads every event, publishes every event")
    with service() as running:
        stranger, publisher = running.connect(), running.connect()
        say(publisher, type="publish", channel="agents/ann", event="message.new", data={"text": "private?"})
        heard = hear(stranger)
        assert (heard["channel"], heard["data"]) == ("global", {"text": "private?"})


def test_agents_read_what_is_published_to_other_agents(production: Service) -> None:
    """
    A token is no wall between agents: C{global} has it, and the channel itself can be subscribed to.
    """
    says("What is published to `agents/X` and `sessions/X` is also delivered on `global`")
    says("every authenticated client may subscribe to `agents/X` itself")
    bob, carol = production.connect(), production.connect()
    assert ask(bob, type="auth", token=make_token("bob"), id=1)["success"]
    while hear(bob)["event"] != "agent.connected":
        pass
    assert ask(carol, type="auth", token=make_token("carol"), id=1)["success"]
    while hear(bob)["data"]["agent_id"] != "carol":
        pass
    say(carol, type="publish", channel="agents/ann", event="message.new", data=1)
    assert hear(bob)["channel"] == "global"
    assert ask(bob, type="subscribe", channel="agents/ann", id=2)["success"]


def test_strangers_receive_nothing_of_it_in_production(production: Service) -> None:
    """
    A client without a token receives nothing that is published to an agent.
    """
    says("receives no events, unless you set `--anonymous listen`")
    stranger, carol = production.connect(), production.connect()
    assert ask(carol, type="auth", token=make_token("carol"), id=1)["success"]
    while hear(carol)["event"] != "agent.connected":
        pass
    assert ask(carol, type="publish", channel="agents/ann", event="message.new", id=2)["channel"] == "global"
    silence(stranger)


def test_any_role_that_may_connect_publishes(database: PostgresServer, production: Service) -> None:
    """
    A role that owns nothing, and may read nothing, publishes to any channel.
    """
    says("`NOTIFY` needs no other right than `CONNECT`")
    says("Events from the database have no `from`")
    database.execute("drop role if exists nothing_at_all")
    database.execute("create role nothing_at_all login nosuperuser nocreatedb nocreaterole noinherit")
    database.execute("revoke all on schema public from public")
    listener = production.connect()
    assert ask(listener, type="auth", token=make_token("ann"), id=1)["success"]
    while hear(listener)["event"] != "agent.connected":
        pass
    payload = json.dumps({"channel": "agents/ann", "event": "task.created", "data": 7, "from": "boss"})
    url = database.url.replace("dcm@", "nothing_at_all@")
    with contextlib.closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("select pg_notify('dcm_events', %s)", (payload,))
    heard = hear(listener)
    assert (heard["channel"], heard["data"], heard.get("from")) == ("agents/ann", 7, None)


def test_publishers_cannot_set_from(production: Service) -> None:
    """
    C{from} is the token's agent, whatever the publisher writes.
    """
    says("It is the agent of the token that published the event, and publishers cannot set it.")
    ann = production.connect()
    assert ask(ann, type="auth", token=make_token("ann"), id=1)["success"]
    while hear(ann)["event"] != "agent.connected":
        pass
    say(ann, **{"type": "publish", "channel": "topics/x", "event": "task.created", "from": "boss", "data": 1})
    assert hear(ann)["from"] == "ann"


def test_any_expiry_is_accepted(production: Service) -> None:
    """
    A token that somebody with the secret made for ten years is good.
    """
    says("the service accepts any expiry that a signed token names")
    client = production.connect()
    assert ask(client, type="auth", token=make_token("ann", seconds=TEN_YEARS), id=1)["success"]


def test_reserved_events_take_an_operator(production: Service) -> None:
    """
    A token without the scope C{operator} publishes no C{system.info}.
    """
    says("also publishes `system.*`, `metric.*`, `agent.connected` and `agent.disconnected`")
    ann = production.connect()
    assert ask(ann, type="auth", token=make_token("ann"), id=1)["success"]
    while hear(ann)["event"] != "agent.connected":
        pass
    answer = ask(ann, type="publish", channel="global", event="system.info", data={"state": "draining"}, id=2)
    assert (answer["success"], answer["code"]) == (False, "NOT_AUTHORIZED")


def test_connections_outlive_their_token_unless_told_otherwise(database: PostgresServer) -> None:
    """
    Without --enforce-expiry the connection stays; with it, it is closed with 4001.
    """
    says("Connections opened with it stay open after it has expired, unless `--enforce-expiry` is set.")
    with (
        production_service(database.url) as lenient,
        production_service(database.url, "--enforce-expiry") as strict,
    ):
        token = make_token("ann", seconds=3)
        stays, goes = lenient.connect(f"/?token={token}"), strict.connect(f"/?token={token}")
        assert close_of(goes)[0] == 4001
        say(stays, type="ping")
        while hear(stays).get("type") != "pong":
            pass
