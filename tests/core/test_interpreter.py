"""
How commands are executed.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.session import Origin, State
from dcm_ws.protocol.errors import CloseCode
from dcm_ws.protocol.tokens import sign
from tests.core.clients import ack, only, refusal
from tests.core.living import events
from tests.fakes import SECRET, WALL_MS, Client, make_core

# subscribe and unsubscribe


@pytest.mark.parametrize("channel", ["global", "metrics", "sessions/s", "topics/t", "topics/a/b"])
def test_subscribe(core: Core, client: Client, channel: str) -> None:
    """
    A client may listen to any channel that is nobody's own; twice is a success and changes nothing.
    """
    for request in (1, 2):
        assert client.say(type="subscribe", channel=channel, id=request) == [ack(request, epoch="epoch", pos=0)]

    assert core.stats.sizes(names=True)["channelStats"] == {"global": 1, channel: 1}


@pytest.mark.parametrize("type_", ["subscribe", "unsubscribe"])
def test_nothing_is_answered_without_an_id(client: Client, type_: str) -> None:
    """
    Success without an id is silent.
    """
    assert client.say(type=type_, channel="topics/t") == []


@pytest.mark.parametrize("channel", ["topics/t", "topics/never", "global", "agents/somebody"])
def test_unsubscribe(core: Core, client: Client, channel: str) -> None:
    """
    A client may leave any channel, also C{global}, also one it never joined.
    """
    client.say(type="subscribe", channel="topics/t")

    assert client.say(type="unsubscribe", channel=channel, id="r1") == [ack("r1")]
    assert client.session not in core.registry.members(channel)


def test_left_channel_is_heard_no_more(client: Client) -> None:
    """
    After leaving C{global} its events do not come.
    """
    client.say(type="unsubscribe", channel="global")

    assert client.say(type="publish", channel="global", event="system.info") == []


@pytest.mark.parametrize(
    "channel", ["", "projects", "topics/", "agents/ a", "topics/a\u202e", "sessions/" + "x" * 129, "GLOBAL"]
)
@pytest.mark.parametrize("type_", ["subscribe", "unsubscribe", "publish"])
def test_bad_channels(client: Client, type_: str, channel: str) -> None:
    """
    A channel that is none is refused, with the text that says which.
    """
    message = {"type": type_, "channel": channel, "event": "system.info"}
    error = f"Invalid channel format: {channel}"

    assert client.say(**message, id="r1") == [refusal("r1", "INVALID_CHANNEL", error)]
    assert client.say(**message) == [{"error": error, "code": "INVALID_CHANNEL", "timestamp": WALL_MS}]


def test_subscriptions_are_limited(clock: Clock) -> None:
    """
    Past the limit a subscription is refused, until another one ends; what is subscribed already may be again.
    """
    client = Client(make_core(clock, max_subscriptions=3))
    client.peer.take()
    assert client.say(type="subscribe", channel="topics/1", id=1) == [ack(1, epoch="epoch", pos=0)]
    assert client.say(type="subscribe", channel="topics/2", id=2) == [ack(2, epoch="epoch", pos=0)]
    refused = only(client.say(type="subscribe", channel="topics/3", id=3))
    assert (refused["code"], refused["success"], refused["id"]) == ("TOO_MANY_SUBSCRIPTIONS", False, 3)
    assert "3" in refused["error"]
    assert client.say(type="subscribe", channel="topics/1", id=4) == [ack(4, epoch="epoch", pos=0)]

    client.say(type="unsubscribe", channel="global")
    assert client.say(type="subscribe", channel="topics/3", id=5) == [ack(5, epoch="epoch", pos=0)]


def test_a_thousand_subscriptions(client: Client) -> None:
    """
    The limit is 1,000 where nobody set another, C{global} among them.
    """
    codes = [
        only(client.say(type="subscribe", channel=f"topics/{number}", id=number)).get("code") for number in range(1001)
    ]

    assert codes == [None] * 999 + ["TOO_MANY_SUBSCRIPTIONS"] * 2


# private channels


def test_anonymous_client_may_not_listen_to_an_agent(client: Client) -> None:
    """
    An agent's channel is for those who have authenticated.
    """
    error = "Not authorized to subscribe to this agent channel"

    assert client.say(type="subscribe", channel="agents/ann", id=1) == [refusal(1, "NOT_AUTHORIZED", error)]
    assert only(client.say(type="subscribe", channel="agents/ann")) == {
        "error": error,
        "code": "NOT_AUTHORIZED",
        "timestamp": WALL_MS,
    }


def test_claiming_an_agent_opens_its_channel_in_development(core: Core) -> None:
    """
    In development C{?agent_id=ann} is enough for C{agents/ann}, and for no other.
    """
    client = Client(core, Origin(agent_id="ann"))
    client.peer.take()

    assert client.say(type="subscribe", channel="agents/ann", id=1) == [ack(1, epoch="epoch", pos=0)]
    assert only(client.say(type="subscribe", channel="agents/bob", id=2))["code"] == "NOT_AUTHORIZED"


def test_claiming_an_agent_leaves_the_other_channels_open(core: Core) -> None:
    """
    In development, a client that claims an agent may listen to everything that is not another agent's.
    """
    client = Client(core, Origin("ann"))
    client.peer.take()
    for channel in ("topics/t", "sessions/s", "metrics", "agents/ann"):
        assert client.say(type="subscribe", channel=channel, id=1) == [ack(1, epoch="epoch", pos=0)]
    assert client.say(type="subscribe", channel="agents/bob", id=2)[0]["code"] == "NOT_AUTHORIZED"


def test_authenticated_client_may_listen_to_any_agent(client: Client) -> None:
    """
    Who has authenticated, as any agent, may listen to all.
    """
    client.auth("ann")

    assert client.say(type="subscribe", channel="agents/bob", id=1) == [ack(1, epoch="epoch", pos=0)]


def test_anonymous_client_may_publish_to_an_agent(core: Core, client: Client) -> None:
    """
    In development everybody may write to an agent's channel.
    """
    ann = Client(core)
    ann.auth("ann")
    client.peer.take()

    assert "message_id" in client.say(type="publish", channel="agents/ann", event="message.new", id=1)[-1]
    assert events(ann.peer.take(), "message") == [("agents/ann", "message.new"), ("global", "message.new")]


# publish


def test_publish(client: Client) -> None:
    """
    The ack of a publish names the event, which the publisher gets itself where it listens.
    """
    event, done = client.say(type="publish", channel="global", event="system.info", data={"n": [1, "é"]}, id="r1")

    assert event == {
        "id": event["id"],
        "channel": "global",
        "event": "system.info",
        "data": {"n": [1, "é"]},
        "timestamp": WALL_MS,
    }
    assert done == ack("r1", message_id=event["id"])


def test_publish_without_an_id(client: Client) -> None:
    """
    Without an id the event goes out and nothing else comes back.
    """
    assert events(client.say(type="publish", channel="topics/t", event="system.info")) == [("global", "system.info")]


def test_missing_data_arrives_as_null(client: Client) -> None:
    """
    An event published without data has C{null}.
    """
    assert only(client.say(type="publish", channel="global", event="system.info"))["data"] is None


@pytest.mark.parametrize("event", ["", "task", "task.exploded", "TASK.created", "pipeline.started", "a b.c"])
def test_events_outside_the_catalogue(client: Client, event: str) -> None:
    """
    What is in no catalogue is refused, with the text that says what it was.
    """
    message = {"type": "publish", "channel": "global", "event": event}
    error = f"Invalid event type: {event}"

    assert client.say(**message, id=1) == [refusal(1, "INVALID_EVENT", error)]
    assert client.say(**message) == [{"error": error, "code": "INVALID_EVENT", "timestamp": WALL_MS}]


def test_refusal_of_a_huge_event_is_short(client: Client) -> None:
    """
    An event name of a megabyte is not sent back whole.
    """
    refused = only(client.say(type="publish", channel="global", event="x" * 1_000_000))

    assert refused["error"].startswith("Invalid event type: xxx")
    assert len(refused["error"]) < 200


def test_events_of_the_operators(clock: Clock) -> None:
    """
    What the operator added may be published.
    """
    client = Client(make_core(clock, extra=("pipeline.*",)))
    client.peer.take()

    assert events(client.say(type="publish", channel="global", event="pipeline.x")) == [("global", "pipeline.x")]


def test_channel_is_looked_at_before_the_event(client: Client) -> None:
    """
    Where both are wrong the channel is named.
    """
    assert only(client.say(type="publish", channel="x", event="x"))["code"] == "INVALID_CHANNEL"


# ping, pong, ack


@pytest.mark.parametrize("request_id", [{}, {"id": "r1"}, {"id": 0}, {"timestamp": 5}])
def test_ping(client: Client, request_id: dict[str, Any]) -> None:
    """
    A ping is answered with a pong, whatever else it says.
    """
    assert client.say(type="ping", **request_id) == [{"type": "pong", "timestamp": WALL_MS}]


@pytest.mark.parametrize("request_id", [{}, {"id": "r1"}])
def test_pong_and_ack_are_not_answered(client: Client, request_id: dict[str, Any]) -> None:
    """
    A pong, or an ack of whatever event, is taken in silence.
    """
    assert client.say(type="pong", **request_id) == []
    assert client.say(type="ack", message_id="msg_unknown", **request_id) == []


# what is wrong with the message itself


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("hello", "PARSE_ERROR"),
        (b"\xff", "PARSE_ERROR"),
        ("[]", "PARSE_ERROR"),
        ('{"type":5', "PARSE_ERROR"),
        ("{}", "UNKNOWN_MESSAGE_TYPE"),
        ('{"type":"hello"}', "UNKNOWN_MESSAGE_TYPE"),
        ('{"type":"ping","id":[true]}', "INVALID_MESSAGE"),
        ('{"type":"subscribe"}', "INVALID_MESSAGE"),
    ],
)
def test_failure_without_an_id(core: Core, client: Client, message: str | bytes, code: str) -> None:
    """
    A message that is wrong is answered once, counted, and survived.
    """
    client.receive(message)

    refused = only(client.peer.take())
    assert refused == {"error": refused["error"], "code": code, "timestamp": WALL_MS}
    assert core.stats.report(names=False)["refusals"] == {code: 1}
    assert client.peer.closed is None
    assert client.say(type="ping") == [{"type": "pong", "timestamp": WALL_MS}]


@pytest.mark.parametrize("request_id", ["r1", 0, 2**63 - 1])
@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "hello"}, "UNKNOWN_MESSAGE_TYPE"),
        ({"type": "subscribe"}, "INVALID_MESSAGE"),
        ({"type": "subscribe", "channel": "x"}, "INVALID_CHANNEL"),
        ({"type": "unsubscribe", "channel": "x"}, "INVALID_CHANNEL"),
        ({"type": "publish", "channel": "x", "event": "x"}, "INVALID_CHANNEL"),
        ({"type": "publish", "channel": "global", "event": "x"}, "INVALID_EVENT"),
        ({"type": "subscribe", "channel": "agents/ann"}, "NOT_AUTHORIZED"),
        ({"type": "auth"}, "AGENT_ID_REQUIRED"),
        ({"type": "auth", "token": "x"}, "TOKEN_INVALID"),
        ({"type": "auth", "token": sign(SECRET, "ann", None, 0)}, "TOKEN_EXPIRED"),
    ],
)
def test_failure_with_an_id(client: Client, message: dict[str, Any], code: str, request_id: str | int) -> None:
    """
    A refusal goes to the request that it answers.
    """
    refused = only(client.say(**message, id=request_id))

    assert refused == refusal(request_id, code, refused["error"])
    assert refused["error"]


# every state and every command


NEEDING_RIGHTS: list[dict[str, Any]] = [
    {"type": "subscribe", "channel": "topics/t"},
    {"type": "unsubscribe", "channel": "global"},
    {"type": "publish", "channel": "global", "event": "agent.blocked"},
]


@pytest.mark.parametrize("message", NEEDING_RIGHTS, ids=lambda message: message["type"])
@pytest.mark.parametrize("request_id", [None, 1])
def test_anonymous_client_in_production(clock: Clock, message: dict[str, Any], request_id: int | None) -> None:
    """
    In production who has not authenticated may not publish, subscribe, or unsubscribe.
    """
    client = Client(make_core(clock, production=True))
    client.peer.take()
    refused = only(client.say(**message | ({} if request_id is None else {"id": request_id})))

    assert refused["code"] == "NOT_AUTHORIZED"
    assert refused.get("id") == request_id


def test_anonymous_client_in_production_may_ping(clock: Clock) -> None:
    """
    Pings are answered, and pongs and acks taken, before authentication too.
    """
    client = Client(make_core(clock, production=True))
    client.peer.take()

    assert client.say(type="ping") == [{"type": "pong", "timestamp": WALL_MS}]
    assert client.say(type="pong") == client.say(type="ack", message_id="msg_1") == []


@pytest.mark.parametrize("message", NEEDING_RIGHTS, ids=lambda message: message["type"])
def test_authenticated_client_in_production(clock: Clock, message: dict[str, Any]) -> None:
    """
    With a token it may.
    """
    client = Client(make_core(clock, production=True))
    client.say(type="auth", token=sign(SECRET, "ann", None, WALL_MS))

    assert client.say(**message, id=1)[-1]["success"] is True


COMMANDS: list[dict[str, Any]] = [
    *NEEDING_RIGHTS,
    {"type": "auth", "agent_id": "ann"},
    {"type": "ping"},
    {"type": "pong"},
    {"type": "ack", "message_id": "msg_1"},
    {"type": "hello"},
]


@pytest.mark.parametrize("message", COMMANDS, ids=lambda message: message["type"])
@pytest.mark.parametrize("production", [False, True])
@pytest.mark.parametrize("authenticated", [False, True])
def test_closed_client(clock: Clock, message: dict[str, Any], production: bool, authenticated: bool) -> None:
    """
    What still comes from a client after the server closed its connection has no effect whatever.
    """
    core = make_core(clock, production=production)
    watcher = Client(core)
    client = Client(core)
    for each in (watcher, client) if authenticated else (watcher,):
        each.say(type="auth", token=sign(SECRET, "ann", None, WALL_MS))
    core.hub.close(client.session, CloseCode.PING_TIMEOUT)
    client.peer.take()
    watcher.peer.take()
    before = core.stats.report(names=True)

    assert client.say(**message, id=1) == []
    assert core.stats.report(names=True) == before
    assert watcher.peer.take() == []
    assert client.session.state is State.CLOSED
    assert client.session.owed == {}


# authentication in time


def test_text_and_binary_are_read_alike(client: Client) -> None:
    """
    A client may send bytes as well as text.
    """
    for message in ('{"type":"ping"}', b'{"type":"ping"}'):
        client.receive(message)

    assert [message["type"] for message in client.peer.take()] == ["pong", "pong"]


# depth


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def test_deep_data_is_refused(client: Client) -> None:
    """
    Data that other programs might not be able to read is not passed on.
    """
    message = {"type": "publish", "channel": "global", "event": "system.info"}
    assert client.say(**message, data=nested(100))[0]["data"] == nested(100)
    refused = only(client.say(**message, data=nested(101), id="r1"))

    assert (refused["code"], refused["id"]) == ("INVALID_MESSAGE", "r1")
    assert "`data`" in refused["error"]
    assert "100" in refused["error"]
