"""
Names of every kind, from one end of the service to the other: a name goes wherever names go, and comes back the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from websockets.sync.client import ClientConnection

from dcm_ws.protocol.tokens import sign
from tests.integration.clients import answer_to, ask, hear, say, silence, unsubscribe_global
from tests.integration.databases import PostgresServer
from tests.integration.machine import until
from tests.integration.running import Service
from tests.integration.sharing import SharedServices
from tests.integration.tokens import DEVELOPMENT_SECRET

pytestmark = pytest.mark.integration

NAMES = [
    *(
        "general purpose",
        "team/lead",
        "équipe",
        '"',
        "\\\\",
        'a "b" \\c',
        "<script>alert(1)</script>",
        "%",
        "%2F+&a=b#?",
        "{agent}",
    ),
    *("\N{ROCKET}", "\N{GRINNING FACE}" * 128, "; drop table tasks; --", "../..", "a//b/", "__proto__", "日本 語"),
]


@pytest.fixture
def running(services: SharedServices, database: PostgresServer) -> Iterator[Service]:
    channels = ("--extra-channel", "projects", "--extra-channel", "epic-sessions/*")
    with services.lend("--database-url", database.url, *channels) as running:
        yield running


def quiet(running: Service, path: str = "/") -> ClientConnection:
    """
    A client that is not on global.
    """
    client = running.connect(path)
    unsubscribe_global(client)
    return client


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("family", ["agents", "sessions", "topics"])
def test_events(running: Service, database: PostgresServer, family: str, name: str) -> None:
    """
    A channel of that name carries what clients and the database publish, and global says the same name as the origin.
    """
    channel = f"{family}/{name}"
    listener = quiet(running, f"/?agent_id={quote(name, safe='')}")
    assert ask(listener, type="subscribe", channel=channel, id=1)["success"] is True
    everything = running.connect()
    publisher = quiet(running)
    assert ask(publisher, type="publish", channel=channel, event="task.created", data=name, id=2)["success"] is True
    database.notify(json.dumps({"channel": channel, "event": "deploy", "data": name}))
    for event in ("task.created", "deploy"):
        frame, mirror = hear(listener), hear(everything)
        assert (frame["channel"], frame["event"], frame["data"]) == (channel, event, name)
        assert (mirror["channel"], mirror["origin"], mirror["id"]) == ("global", channel, frame["id"])
    until(lambda: running.stats()["channelStats"].get(channel) == 1)
    assert running.health()["channelStats"][channel] == 1
    assert running.get("/metrics")[0] == 200


@pytest.mark.parametrize("how", ["agent_id", "token", "query"])
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_agents(running: Service, name: str, how: str) -> None:
    """
    An agent and a session of that name authenticate, appear in events, counts and the log, and keep subscriptions.
    """
    name = f"{how} {name}"[:128]
    token = sign(DEVELOPMENT_SECRET, name, name, 1_706_000_000_000, 10**13)
    everything = running.connect()
    for attempt in range(2):
        client = running.connect(f"/?token={token}" if how == "query" else "/")
        if how == "token":
            say(client, type="auth", token=token, id=None)
        elif how == "agent_id":
            say(client, type="auth", agent_id=name, session_id=name)
        answer = answer_to(client, None)
        own = [f"agents/{name}", f"sessions/{name}"]
        assert answer["subscriptions"] == sorted([*own, "global", *([f"topics/{name}"] if attempt else [])])
        joined = hear(everything)
        assert (joined["event"], joined["data"]["agent_id"], joined["data"]["session_id"]) == (
            "agent.connected",
            name,
            name,
        )
        say(client, type="subscribe", channel=f"topics/{name}", id=1)
        assert answer_to(client, 1)["success"] is True
        until(lambda: running.stats()["agentStats"].get(name) == 1)
        client.close()
        left = hear(everything)
        assert (left["event"], left["data"]["agent_id"]) == ("agent.disconnected", name)
    running.read_log_until(f"({name}, close code")


@pytest.mark.parametrize("channel", ["projects", "epic-sessions/1", "epic-sessions/a b/é"])
def test_channels_that_the_operator_adds(running: Service, database: PostgresServer, channel: str) -> None:
    """
    They are public, and mirrored to global; others stay INVALID_CHANNEL.
    """
    everything, listener = running.connect(), quiet(running)
    assert ask(listener, type="subscribe", channel=channel, id=1)["success"] is True
    database.notify(json.dumps({"channel": channel, "event": "project.updated", "data": 1}))
    assert hear(listener)["channel"] == channel
    assert (mirror := hear(everything))["channel"] == "global" and mirror["origin"] == channel
    answer = ask(listener, type="subscribe", channel=f"{channel}\n", id=2)
    assert answer["error"] == f"Invalid channel format: {channel}\n"
    assert ask(listener, type="subscribe", channel="pipelines", id=3)["code"] == "INVALID_CHANNEL"
    silence(listener)
