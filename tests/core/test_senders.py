"""
Who published an event, and who may publish which.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.session import Origin
from dcm_ws.protocol.channels import GLOBAL, parse_channel
from dcm_ws.protocol.errors import ErrorCode
from dcm_ws.protocol.scopes import OPERATOR
from dcm_ws.protocol.tokens import sign
from tests.core.living import live
from tests.fakes import SECRET, Client, make_core

RESERVED = ("system.error", "system.info", "metric.update", "agent.connected", "agent.disconnected")


def listener(core: Core, *channels: str) -> Client:
    client = Client(core)
    for channel in channels:
        client.say(type="subscribe", channel=channel)
    client.peer.take()
    return client


def with_token(core: Core, agent: str, *scope: str) -> Client:
    client = Client(core)
    ack = client.say(type="auth", token=sign(SECRET, agent, None, core.world.wall_ms(), scope=scope or None))[-2]
    assert ack["success"], ack
    return client


def identities(client: Client) -> list[tuple[Any, ...]]:
    return [
        (frame["channel"], frame["data"], frame.get("from"), frame.get("origin"))
        for frame in client.peer.take()
        if "event" in frame and not frame["event"].startswith("agent.")
    ]


def publish(client: Client, channel: str, event: str, data: Any = 1) -> dict[str, Any]:
    return client.say(type="publish", channel=channel, event=event, data=data, id=1)[-1]


@pytest.mark.parametrize("observer", [False, True])
def test_events_of_clients_name_their_agent(core: Core, observer: bool) -> None:
    """
    The agent that authenticated is in each frame of what it publishes, and on C{global} the channel that it was for.
    """
    watcher = listener(core, "topics/t", "metrics")
    client = Client(core, Origin(observer=observer))
    publish(client, "topics/t", "task.created", "anonymous")
    client.auth("ann")
    publish(client, "topics/t", "task.created", "named")
    publish(client, "global", "system.info", "global")
    publish(client, "metrics", "metric.update", "metrics")
    client.auth("bob")
    publish(client, "sessions/s", "system.info", "bob's")
    assert identities(watcher) == [
        ("topics/t", "anonymous", None, None),
        ("global", "anonymous", None, "topics/t"),
        ("topics/t", "named", "ann", None),
        ("global", "named", "ann", "topics/t"),
        ("global", "global", "ann", None),
        ("metrics", "metrics", "ann", None),
        ("global", "bob's", "bob", "sessions/s"),
    ]


def test_claimed_agent_is_nobody(core: Core) -> None:
    """
    An agent that is only claimed in the query publishes nothing in its name, and neither does C{from} in a message.
    """
    watcher = listener(core)
    client = Client(core, Origin(agent_id="ann"))
    client.receive('{"type":"publish","channel":"topics/t","event":"system.info","data":1,"from":"ann"}')
    assert identities(watcher) == [("global", 1, None, "topics/t")]


def test_the_service_and_the_database_are_nobody(core: Core) -> None:
    """
    Events of the service and of the database name no agent, whatever the payload says.
    """
    watcher = listener(core, "topics/t")
    core.router.announce(GLOBAL, "system.info", 1)
    payload = {"channel": "topics/t", "event": "task.created", "data": 2, "from": "ann", "origin": "topics/x"}
    core.router.notified(json.dumps(payload))
    core.router.publish(parse_channel("topics/t"), "task.created", b"3")
    assert identities(watcher) == [
        ("global", 1, None, None),
        ("topics/t", 2, None, None),
        ("global", 2, None, "topics/t"),
        ("topics/t", 3, None, None),
        ("global", 3, None, "topics/t"),
    ]


def test_identity_is_the_same_in_every_repetition(clock: Clock, core: Core) -> None:
    """
    Retries and replays are the very bytes of the first sending.
    """
    client = Client(core)
    client.auth("bob")
    client.say(type="subscribe", channel="topics/t")
    client.peer.take()
    ann = Client(core)
    ann.auth("ann")
    client.peer.take()
    publish(ann, "topics/t", "task.created")
    first = list(client.peer.frames)
    client.peer.frames.clear()
    live(core, clock, 6)
    assert client.peer.frames == first
    client.leave()
    publish(ann, "topics/t", "task.failed")
    again = Client(core)
    again.receive('{"type":"auth","agent_id":"bob"}')
    assert b"".join(first) in b"".join(again.peer.frames)
    assert [row[2:] for row in identities(again)] == [("ann", None), ("ann", "topics/t")] * 2


@pytest.mark.parametrize("event", RESERVED)
def test_reserved_events_take_an_operator_in_production(clock: Clock, event: str) -> None:
    """
    What speaks for the service, an agent's token may not publish, on whatever channel; an operator's may.
    """
    core = make_core(clock, production=True)
    agent, operator = with_token(core, "ann"), with_token(core, "ops", OPERATOR)
    watcher = with_token(core, "eve")
    watcher.peer.take()
    for channel in ("global", "metrics", "topics/t", "agents/ann"):
        refused = publish(agent, channel, event)
        assert (refused["code"], refused["success"]) == ("NOT_AUTHORIZED", False)
        assert event in refused["error"] and "operator" in refused["error"]
    assert watcher.peer.take() == []
    assert publish(operator, "global", event)["success"]
    (frame,) = watcher.peer.take()
    assert (frame["event"], frame["from"]) == (event, "ops")
    # the token of an agent takes the right away again
    operator.say(type="auth", token=sign(SECRET, "ops", None, core.world.wall_ms()))
    assert publish(operator, "global", event)["code"] == "NOT_AUTHORIZED"
    assert publish(agent, "global", "agent.heartbeat")["success"]


@pytest.mark.parametrize("event", ["system.anything", "metric.x.y", "system.info.x"])
def test_extra_events_do_not_open_what_is_reserved(clock: Clock, event: str) -> None:
    """
    An operator who adds events of a reserved family adds them for operators.
    """
    core = make_core(clock, production=True, extra=("system.*", "metric.*", "agent.*", "systems.*"))
    agent = with_token(core, "ann")
    assert publish(agent, "global", event)["code"] == "NOT_AUTHORIZED"
    assert publish(agent, "global", "agent.connected")["code"] == "NOT_AUTHORIZED"
    assert publish(agent, "global", "agent.other")["success"]
    assert publish(agent, "global", "systems.info")["success"]
    assert publish(with_token(core, "ops", OPERATOR), "global", event)["success"]


def test_development_reserves_nothing(core: Core) -> None:
    """
    In development every client may publish all that is in the catalogue.
    """
    client = Client(core)
    assert all(publish(client, "global", event)["success"] for event in RESERVED)


@pytest.mark.parametrize("more", [(), ("another secret", "a third")])
def test_malformed_scopes_are_refused(clock: Clock, more: tuple[str, ...]) -> None:
    """
    A token with a malformed scope authenticates nobody, and the refusal says why.
    """
    core = make_core(clock, production=True)
    core.identity.secrets = (SECRET, *more)
    client = Client(core)
    token = sign(SECRET, "ann", None, core.world.wall_ms(), scope=("publish:topics/*",))
    refused = client.say(type="auth", token=token, id=1)[-1]
    assert (refused["code"], refused["success"]) == (ErrorCode.TOKEN_INVALID, False)
    assert "publish:topics/*" in refused["error"]
    assert client.session.agent is None
