"""
What tokens allow their clients, and what changes when a client gets another token.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.session import Origin
from dcm_ws.protocol.tokens import sign
from tests.core.clients import TASK, joined, only, stats, texts
from tests.fakes import SECRET, Client, make_core

AGENT = "Not authorized to subscribe to this agent channel"
SESSION = "Not authorized to subscribe to this session channel"


@pytest.fixture(params=[False, True], ids=["development", "production"])
def core(clock: Clock, request: pytest.FixtureRequest) -> Core:
    return make_core(clock, production=request.param, extra=("system.deploy",))


def scoped(core: Core, agent: str, *scope: str, session: str | None = None) -> str:
    return sign(SECRET, agent, session, core.world.wall_ms(), scope=scope)


def with_scope(core: Core, *scope: str, agent: str = "ann", **auth: Any) -> Client:
    client = Client(core)
    client.say(type="auth", token=scoped(core, agent, *scope), **auth)
    client.peer.take()
    return client


def channels(core: Core, client: Client) -> list[str]:
    return sorted(core.registry.channels(client.session))


def code(answers: list[dict[str, Any]]) -> str | None:
    return next((answer.get("code") for answer in answers if answer.get("type") == "ack" or "error" in answer), None)


def test_only_what_is_listed(core: Core) -> None:
    """
    With a scope, a client may subscribe to what it lists and to its own channels, and publish what it lists.
    """
    client = with_scope(core, "subscribe:topics/a*", "publish:topics/b:task.*")
    assert channels(core, client) == ["agents/ann"]
    for name, expected in (
        *(("topics/a1", None), ("agents/ann", None), ("topics/b", "NOT_AUTHORIZED"), ("global", "NOT_AUTHORIZED")),
        *(("metrics", "NOT_AUTHORIZED"), ("agents/bob", "NOT_AUTHORIZED"), ("sessions/s", "NOT_AUTHORIZED")),
    ):
        assert code(client.say(type="subscribe", channel=name, id=1)) == expected, name
    for name, event, expected in (
        *(("topics/b", "task.created", None), ("topics/b", "message.new", "NOT_AUTHORIZED")),
        *(("topics/a1", "task.created", "NOT_AUTHORIZED"), ("global", "task.created", "NOT_AUTHORIZED")),
        ("topics/b", "nonsense", "INVALID_EVENT"),
    ):
        assert code(client.say(type="publish", channel=name, event=event, id=1)) == expected, (name, event)
    # to leave a channel is no matter of rights
    assert code(client.say(type="unsubscribe", channel="global", id=1)) is None


def test_texts(core: Core) -> None:
    """
    The refusal says what is missing.
    """
    client = with_scope(core, "subscribe:global")
    refusals = [
        only(client.say(type="subscribe", channel=name, id=1))["error"]
        for name in ("topics/a", "agents/b", "sessions/c")
    ]
    assert refusals[1:] == [AGENT, SESSION]
    assert "the token's scope" in refusals[0]
    assert "the token's scope" in only(client.say(**TASK, id=1))["error"]


def test_global_by_scope(core: Core) -> None:
    """
    A client whose scope lists C{global} is subscribed to it without asking.
    """
    assert channels(core, with_scope(core, "subscribe:global")) == ["agents/ann", "global"]


def test_own_session(core: Core) -> None:
    """
    The session of the token is the client's own; one that the client only names is not.
    """
    client = Client(core)
    client.say(type="auth", token=scoped(core, "ann", session="s"))
    assert channels(core, client) == ["agents/ann", "sessions/s"]
    client = with_scope(core, session_id="s")
    assert channels(core, client) == ["agents/ann"]
    client = with_scope(core, "subscribe:sessions/*", session_id="s")
    assert channels(core, client) == ["agents/ann", "sessions/s"]


def test_operators(core: Core) -> None:
    """
    An operator's token allows everything.
    """
    client = with_scope(core, "operator")
    for name in ("agents/bob", "sessions/s", "topics/a", "metrics"):
        assert code(client.say(type="subscribe", channel=name, id=1)) is None
    for event in ("system.deploy", "task.created", "agent.connected"):
        assert code(client.say(type="publish", channel="agents/bob", event=event, id=1)) is None
    assert client.session.rights.operator


def test_reserved_events_need_an_operator(clock: Clock) -> None:
    """
    In production a scope that lists reserved events does not allow them.
    """
    core = make_core(clock, production=True)
    client = with_scope(core, "publish:*:*", "publish:*/*:*")
    refused = only(client.say(type="publish", channel="global", event="system.info", id=1))
    assert (refused["code"], refused["error"]) == (
        "NOT_AUTHORIZED",
        "Not authorized: publishing system.info takes an operator's token",
    )
    assert not client.session.rights.operator


def test_resume_needs_the_right_to_listen(core: Core) -> None:
    """
    C{resume}, alone or with C{auth}, names only channels that the client may subscribe to.
    """
    client = with_scope(core, "subscribe:topics/a")
    place = {"epoch": "epoch", "pos": 0}
    for names, expected in ((["topics/a"], None), (["topics/a", "topics/b"], "NOT_AUTHORIZED")):
        assert code(client.say(type="resume", channels=names, **place, id=1)) == expected
    other = Client(core)
    token = scoped(core, "bob", "subscribe:topics/b")
    for names, expected in ((["topics/a"], "NOT_AUTHORIZED"), (["topics/b", "agents/bob"], None)):
        answers = other.say(type="auth", token=token, resume={**place, "channels": names}, id=1)
        assert code([one for one in answers if one.get("id") == 1]) == expected


def test_a_refreshed_token_is_checked_again(core: Core) -> None:
    """
    With another token, the subscriptions end that it does not allow: the ack lists the others, and a gap says that
    events are missing from now on.
    """
    client = with_scope(core, "subscribe:topics/*", "subscribe:global")
    for name in ("topics/a", "topics/b"):
        client.say(type="subscribe", channel=name)
    answers = client.say(type="auth", token=scoped(core, "ann", "subscribe:topics/b"), id=1)
    assert answers[0]["subscriptions"] == ["agents/ann", "topics/b"]
    assert [(one["type"], one["reason"], one["pos"]) for one in answers if one.get("type") == "gap"] == [
        ("gap", "rights", 0)
    ]
    publisher = with_scope(core, "operator", agent="ops")
    for name in ("topics/a", "topics/b"):
        publisher.say(type="publish", channel=name, event="task.created", data=name)
    assert texts(client.peer.take()) == [("topics/b", "topics/b")]
    # nothing to tell if nothing ends
    answers = client.say(type="auth", token=scoped(core, "ann", "subscribe:topics/*"), id=1)
    assert not any(one.get("type") == "gap" for one in answers)


def test_the_first_token_causes_no_gap(clock: Clock) -> None:
    """
    In development a client is subscribed to C{global} until it has a token that does not allow that.
    """
    core = make_core(clock)
    client = Client(core)
    client.peer.take()
    answers = client.say(type="auth", token=scoped(core, "ann"), id=1)
    assert answers[0]["subscriptions"] == ["agents/ann"]
    assert not any(one.get("type") == "gap" for one in answers)


def test_a_token_with_the_connection(core: Core) -> None:
    """
    The token of the handshake counts as one in C{auth}.
    """
    client = Client(core, Origin(claims=core.identity.verify(scoped(core, "ann", "subscribe:topics/a"))))
    assert channels(core, client) == ["agents/ann"]


def test_restored_subscriptions(core: Core) -> None:
    """
    An agent that returns with fewer rights gets back the subscriptions that these allow.
    """
    client = with_scope(core, "subscribe:topics/*", "subscribe:global")
    for name in ("topics/a", "topics/b"):
        client.say(type="subscribe", channel=name)
    client.leave()
    assert channels(core, with_scope(core, "subscribe:topics/b")) == ["agents/ann", "topics/b"]


def owing(core: Core) -> Client:
    """
    An agent that is durable, and owes acks for events on two topics and on its own channel.
    """
    client = with_scope(core, "subscribe:topics/*", durable=True)
    publisher = with_scope(core, "operator", agent="ops")
    for name in ("topics/a", "topics/b", "agents/ann"):
        client.say(type="subscribe", channel=name)
        publisher.say(type="publish", channel=name, event="task.created", data=name)
    publisher.leave()
    return client


def letters(core: Core) -> list[tuple[str, str]]:
    return [(letter.channel, letter.reason) for letter in core.application_hub.dead_letters("ann")]


def test_what_is_owed(core: Core, clock: Clock) -> None:
    """
    What an agent owes acks for is sent again as far as its rights allow; the rest becomes dead letters.
    """
    owing(core).leave()
    returned = Client(core)
    token = scoped(core, "ann", "subscribe:topics/b")
    assert texts(returned.say(type="auth", token=token)) == [("topics/b", "topics/b"), ("agents/ann", "agents/ann")]
    assert letters(core) == [("topics/a", "rights")]
    # an operator cannot give it either
    core.application_hub.redrive("ann")
    assert texts(returned.peer.take()) == []
    assert letters(core) == [("topics/a", "rights")]
    returned.leave()
    core.application_hub.redrive("ann")
    returned = Client(core)
    received = returned.say(type="auth", token=scoped(core, "ann", "subscribe:topics/*"))
    assert ("topics/a", "topics/a") in texts(received)


def test_redelivery_after_the_rights_have_changed(core: Core, clock: Clock) -> None:
    """
    What was sent on the same connection is not sent again if a new token does not allow it.
    """
    client = owing(core)
    client.say(type="auth", token=scoped(core, "ann", "subscribe:topics/b"))
    clock.advance(5.1)
    for _ in core.retrying.sweep():
        pass
    assert texts(client.peer.take()) == [("topics/b", "topics/b"), ("agents/ann", "agents/ann")]
    assert letters(core) == [("topics/a", "rights")]
    assert stats(core)["pendingDeliveries"] == 2


def test_mirrored_events_are_owed_by_the_right_to_global(core: Core, clock: Clock) -> None:
    """
    What was sent on C{global} is sent again while the client may read C{global}.
    """
    client = with_scope(core, "subscribe:global", "subscribe:metrics", durable=True)
    joined(core, agent="x").leave() if not core.rules.production else None
    publisher = with_scope(core, "operator", agent="ops")
    publisher.say(type="publish", channel="topics/a", event="task.created", data=1)
    client.say(type="auth", token=scoped(core, "ann", "subscribe:global"))
    client.peer.take()
    clock.advance(5.1)
    for _ in core.retrying.sweep():
        pass
    assert texts(client.peer.take()) == [("global", 1)]


def test_what_another_connection_leaves(core: Core) -> None:
    """
    What a connection leaves to another one of its agent goes there as far as that one's rights allow.
    """
    old = owing(core)
    new = with_scope(core, "subscribe:topics/b")
    old.leave()
    assert texts(new.peer.take()) == []
    assert letters(core) == [("topics/a", "rights")]
