"""
Protocol, section 2: what a client may say, and how it is answered.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.integration.attacks import frame
from tests.integration.clients import ask, close_of, hear, say, silence, unsubscribe_global
from tests.integration.machine import PATIENCE, until
from tests.integration.running import Service, service
from tests.integration.sharing import SharedServices

pytestmark = pytest.mark.integration

LIMIT = 1 << 20


@pytest.fixture
def running(services: SharedServices) -> Iterator[Service]:
    with services.lend("--max-subscriptions", "4") as running:
        yield running


@pytest.fixture
def limited(services: SharedServices) -> Iterator[Service]:
    """
    A service that accepts ten messages at once, and five per second.
    """
    with services.lend("--rate-limit", "5/s", "--rate-burst", "10") as running:
        yield running


@pytest.fixture
def client(running: Service) -> ClientConnection:
    return running.connect()


def without_time(answer: dict[str, Any]) -> dict[str, Any]:
    """
    The answer, whose timestamp was the present time in integer milliseconds.
    """
    timestamp = answer.pop("timestamp")
    assert type(timestamp) is int
    assert abs(timestamp - time.time() * 1000) < 10_000
    return answer


# what there is to say


def test_subscribe(client: ClientConnection) -> None:
    """
    A subscription is acknowledged under the request's id, and events come from then on.
    """
    answer = ask(client, type="subscribe", channel="topics/x", id="sub-1", timestamp=1706000000000)
    place = {"epoch": answer["epoch"], "pos": answer["pos"]}
    assert without_time(answer) == {"type": "ack", "id": "sub-1", "success": True, **place}
    say(client, type="publish", channel="topics/x", event="system.info")
    assert hear(client)["channel"] == "topics/x"


def test_subscribing_twice(client: ClientConnection) -> None:
    """
    Subscribing again is a success, and each event still comes once.
    """
    for number in (1, 2):
        assert ask(client, type="subscribe", channel="metrics", id=number)["success"] is True
    say(client, type="publish", channel="metrics", event="metric.update")
    assert hear(client)["event"] == "metric.update"
    silence(client)


def test_unsubscribe(client: ClientConnection) -> None:
    """
    After unsubscribing nothing comes from the channel any more.
    """
    ask(client, type="subscribe", channel="metrics", id=1)
    answer = ask(client, type="unsubscribe", channel="metrics", id="unsub-1", timestamp=1706000000000)
    assert without_time(answer) == {"type": "ack", "id": "unsub-1", "success": True}
    say(client, type="publish", channel="metrics", event="metric.update")
    silence(client)


def test_unsubscribing_from_what_one_never_heard(client: ClientConnection) -> None:
    """
    Unsubscribing is a success also where there was no subscription.
    """
    assert ask(client, type="unsubscribe", channel="topics/never", id=1)["success"] is True


def test_leaving_global(client: ClientConnection) -> None:
    """
    global may be left, and come back to.
    """
    assert ask(client, type="unsubscribe", channel="global", id=1)["success"] is True
    say(client, type="publish", channel="global", event="system.info")
    silence(client)
    assert ask(client, type="subscribe", channel="global", id=2)["success"] is True
    say(client, type="publish", channel="global", event="system.info")
    assert hear(client)["event"] == "system.info"


def test_publish(running: Service, client: ClientConnection) -> None:
    """
    The answer to a publish has the id of the event.
    """
    publisher = running.connect()
    unsubscribe_global(publisher)
    answer = ask(
        publisher,
        type="publish",
        channel="agents/frontend",
        event="message.new",
        data={"content": "hello"},
        id="pub-1",
        timestamp=1706000000000,
    )
    event = hear(client)
    assert without_time(answer) == {
        "type": "ack",
        "id": "pub-1",
        "success": True,
        "message_id": event["id"],
        "pos": event["pos"],
    }
    assert event["data"] == {"content": "hello"}


@pytest.mark.parametrize(
    "data", [None, True, 0, -1.5, 1e300, 2**53, "", "é😀\u2028\x00\\", [], [1, [2]], {}, {"a": {"b": [None]}}]
)
def test_publish_any_json_value(client: ClientConnection, data: object) -> None:
    """
    data may be any JSON value, and arrives as it was sent.
    """
    say(client, type="publish", channel="global", event="system.info", data=data)
    assert hear(client)["data"] == data


def test_publish_without_data(client: ClientConnection) -> None:
    """
    Missing data is null.
    """
    say(client, type="publish", channel="global", event="system.info")
    event = hear(client)
    assert "data" in event
    assert event["data"] is None


def test_auth(client: ClientConnection) -> None:
    """
    Success of an auth lists what the client is subscribed to.
    """
    answer = ask(client, type="auth", agent_id="me", session_id="s", id="a", timestamp=1706000000000)
    subscriptions = answer.pop("subscriptions")
    place = {"epoch": answer["epoch"], "pos": answer["pos"]}
    assert without_time(answer) == {"type": "ack", "id": "a", "success": True, **place}
    assert sorted(subscriptions) == ["agents/me", "global", "sessions/s"]


def test_auth_without_an_id(client: ClientConnection) -> None:
    """
    An auth is acknowledged also where it had no id: the seed's own client waits for that.
    """
    answer = ask(client, type="auth", agent_id="nameless")
    assert answer["id"] is None
    assert answer["success"] is True


def test_ping(client: ClientConnection) -> None:
    """
    A ping is answered with a pong, and with nothing else.
    """
    assert without_time(ask(client, type="ping", timestamp=1706000000000)) == {"type": "pong"}
    assert without_time(ask(client, type="ping", id="p")) == {"type": "pong"}


def test_pong(client: ClientConnection) -> None:
    """
    A pong is not answered.
    """
    say(client, type="pong", timestamp=1706000000000)
    say(client, type="pong", id="p")
    silence(client)


def test_ack(client: ClientConnection) -> None:
    """
    An ack is not answered, also where its message is unknown.
    """
    say(client, type="ack", message_id="msg_unknown", timestamp=1706000000000)
    say(client, type="ack", message_id="msg_unknown", id="a")
    silence(client)


@pytest.mark.parametrize("kind", ["subscribe", "unsubscribe"])
def test_success_without_an_id_is_silent(running: Service, client: ClientConnection, kind: str) -> None:
    """
    A request without an id is executed, and its success is not reported.
    """
    before = "topics/silent" if kind == "unsubscribe" else "topics/other"
    assert ask(client, type="subscribe", channel=before, id=1)["success"] is True
    say(client, type=kind, channel="topics/silent")
    silence(client)
    assert ("topics/silent" in running.stats()["channelStats"]) == (kind == "subscribe")


def test_publish_without_an_id_is_not_acknowledged(client: ClientConnection) -> None:
    """
    An event published without an id comes to its publisher as any event, without an ack.
    """
    say(client, type="publish", channel="global", event="system.info")
    assert "event" in hear(client)
    silence(client)


@pytest.mark.parametrize("request_id", ["a", "x" * 128, 'é"\\\n😀', " ", 0, -1, 2**63, 10**127, 7.5, True, False])
def test_correlation_ids(client: ClientConnection, request_id: object) -> None:
    """
    An id is a string of up to 128 characters or an integer, and comes back as it was.
    """
    assert ask(client, type="subscribe", channel="metrics", id=request_id)["id"] == request_id
    assert ask(client, type="subscribe", channel="no channel", id=request_id)["id"] == request_id


def test_null_id_is_none(client: ClientConnection) -> None:
    """
    An id of null is as good as none.
    """
    say(client, type="subscribe", channel="metrics", id=None)
    silence(client)


@pytest.mark.parametrize("timestamp", [None, 0, 1706000000000, 1706000000000.5, -1])
def test_timestamps_do_not_matter(client: ClientConnection, timestamp: object) -> None:
    """
    A client's clock may be wrong, or missing.
    """
    assert ask(client, type="subscribe", channel="metrics", id=1, timestamp=timestamp)["success"] is True


def test_unknown_fields_are_ignored(client: ClientConnection) -> None:
    """
    A newer client may say more than this server knows.
    """
    answer = ask(client, type="subscribe", channel="metrics", id=1, since="msg_1", options={"a": [1]})
    assert answer["success"] is True


@pytest.mark.parametrize("binary", [False, True])
def test_text_and_binary_frames(client: ClientConnection, binary: bool) -> None:
    """
    A message may come in a text or a binary frame; the answer is text.
    """
    message = json.dumps({"type": "subscribe", "channel": "metrics", "id": "é"}, ensure_ascii=False)
    client.send(message.encode(), text=not binary)
    answer = client.recv(timeout=PATIENCE)
    assert isinstance(answer, str)
    assert json.loads(answer)["id"] == "é"


def test_fragmented_message(client: ClientConnection) -> None:
    """
    A message may come in several frames.
    """
    client.send(iter(['{"type":"subs', 'cribe","channel":"met', 'rics","id":7}']))
    assert hear(client)["id"] == 7


# how it fails


def test_failure_with_an_id(client: ClientConnection) -> None:
    """
    A refusal is an ack without success, with a text and a code.
    """
    answer = ask(client, type="subscribe", channel="bad/channel/path", id="x")
    assert without_time(answer) == {
        "type": "ack",
        "id": "x",
        "success": False,
        "error": "Invalid channel format: bad/channel/path",
        "code": "INVALID_CHANNEL",
    }


def test_failure_without_an_id(client: ClientConnection) -> None:
    """
    A refusal of a request without an id is an error frame.
    """
    answer = ask(client, type="subscribe", channel="bad/channel/path")
    assert without_time(answer) == {
        "error": "Invalid channel format: bad/channel/path",
        "code": "INVALID_CHANNEL",
    }


@pytest.mark.parametrize(
    "message",
    ["", " ", "hello", "{", "[]", '"text"', "1", "null", "{'type':'ping'}", '{"type":"ping"}x', "[" * 100_000],
    ids=lambda message: message[:20],
)
def test_parse_error(client: ClientConnection, message: str) -> None:
    """
    What is not a JSON object is a PARSE_ERROR, which the connection survives.
    """
    client.send(message)
    answer = without_time(hear(client))
    assert answer.keys() == {"error", "code"}
    assert answer["code"] == "PARSE_ERROR"
    silence(client)


def test_repeated_keys(client: ClientConnection) -> None:
    """
    Of a key that is repeated the last value counts.  The type may not be two things.
    """
    client.send('{"type":"subscribe","channel":"topics/a","channel":"nowhere","id":1,"id":2}')
    answer = hear(client)
    assert (answer["id"], answer["error"]) == (2, "Invalid channel format: nowhere")
    client.send('{"type":"ping","type":"pong"}')
    assert hear(client)["code"] == "INVALID_MESSAGE"
    silence(client)


@pytest.mark.parametrize(
    "payload", [b"\xff", b'{"type":"ping","x":"\xff"}', b"\xed\xa0\x80", '{"type":"é'.encode()[:-1]]
)
def test_binary_frame_that_is_not_utf8(client: ClientConnection, payload: bytes) -> None:
    """
    Broken UTF-8 in a binary frame is a PARSE_ERROR.
    """
    client.send(payload)
    assert hear(client)["code"] == "PARSE_ERROR"
    silence(client)


@pytest.mark.parametrize("payload", [b"\xff", b'{"type":"ping","x":"\xff"}', b"\xed\xa0\x80", b"\xc3"])
def test_text_frame_that_is_not_utf8(client: ClientConnection, payload: bytes) -> None:
    """
    Broken UTF-8 in a text frame breaks the WebSocket protocol itself: 1007.
    """
    client.send(payload, text=True)
    assert close_of(client)[0] == 1007


@pytest.mark.parametrize("kind", [None, "", "Subscribe", "connected", "event", 1, [], {}, True, "é" * 500])
def test_unknown_message_type(client: ClientConnection, kind: object) -> None:
    """
    A type that is missing or not known is an UNKNOWN_MESSAGE_TYPE.
    """
    fields = {} if kind is None else {"type": kind}
    answer = ask(client, **fields, id="u")
    assert (answer["type"], answer["id"], answer["success"]) == ("ack", "u", False)
    assert answer["code"] == "UNKNOWN_MESSAGE_TYPE"
    assert ask(client, **fields).keys() == {"error", "code", "timestamp"}


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"type": "subscribe"}, "channel"),
        ({"type": "subscribe", "channel": None}, "channel"),
        ({"type": "subscribe", "channel": 1}, "channel"),
        ({"type": "unsubscribe"}, "channel"),
        ({"type": "unsubscribe", "channel": ["metrics"]}, "channel"),
        ({"type": "publish", "event": "task.created"}, "channel"),
        ({"type": "publish", "channel": "global"}, "event"),
        ({"type": "publish", "channel": "global", "event": 1}, "event"),
        ({"type": "auth", "agent_id": 1}, "agent_id"),
        ({"type": "auth", "agent_id": " a"}, "agent_id"),
        ({"type": "auth", "agent_id": "x" * 129}, "agent_id"),
        ({"type": "auth", "agent_id": "a", "session_id": "a\n"}, "session_id"),
        ({"type": "auth", "token": 1}, "token"),
        ({"type": "auth", "token": "x" * 4097}, "token"),
        ({"type": "ack"}, "message_id"),
        ({"type": "ack", "message_id": 1}, "message_id"),
        ({"type": "ack", "message_id": "x" * 129}, "message_id"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:60],
)
def test_invalid_message(client: ClientConnection, message: dict[str, object], field: str) -> None:
    """
    A field that is missing, of the wrong kind or too long is an INVALID_MESSAGE, and the text names it.
    """
    answer = ask(client, **message, id="i")
    assert (answer["type"], answer["id"], answer["success"]) == ("ack", "i", False)
    assert answer["code"] == "INVALID_MESSAGE"
    assert field in answer["error"]
    assert ask(client, **message).keys() == {"error", "code", "timestamp"}


@pytest.mark.parametrize(
    "text", ["7.5", "1e3", "1.50E+2", "-0", "true", "false", "9" * 100, '"\\u0041"', '"\\ud83d\\ude00"']
)
def test_correlation_ids_come_back_to_the_letter(running: Service, text: str) -> None:
    """
    An id is echoed as the JSON text that the client wrote, in success and in failure.
    """
    client = running.connect_raw()
    for channel in ("metrics", "nowhere"):
        client.socket.sendall(frame(f'{{"type":"subscribe","channel":"{channel}","id":{text}}}'.encode()))
        opcode, payload = client.read()
        assert opcode == 1
        assert payload.startswith(f'{{"type":"ack","id":{text},"success":'.encode())


@pytest.mark.parametrize("request_id", ["", None])
def test_empty_correlation_id_is_none(client: ClientConnection, request_id: object) -> None:
    """
    A request whose id is empty is one without an id: its success is silent, and its failure an error frame.
    """
    say(client, type="subscribe", channel="metrics", id=request_id)
    assert ask(client, type="subscribe", channel="nowhere", id=request_id).keys() == {"error", "code", "timestamp"}


@pytest.mark.parametrize("timestamp", ["", "now", "2026-11-25T18:00:00Z", 1706000000, -1, 1e300, True, [], {}, None])
def test_timestamps_are_never_read(client: ClientConnection, timestamp: object) -> None:
    """
    Whatever a client writes for the time, its message is executed.
    """
    assert ask(client, type="unsubscribe", channel="global", timestamp=timestamp, id=1)["success"] is True
    assert ask(client, type="subscribe", channel="topics/t", timestamp=timestamp, id=2)["success"] is True
    say(client, type="publish", channel="topics/t", event="system.info", timestamp=timestamp)
    assert hear(client)["event"] == "system.info"
    assert ask(client, type="ping", timestamp=timestamp)["type"] == "pong"


@pytest.mark.parametrize(
    "data", ["1e400", "-1e999", "9" * 4301, "[" * 101 + "]" * 101, '{"a":[1,1E+309]}'], ids=lambda text: text[:12]
)
def test_data_that_a_client_could_not_read(running: Service, data: str) -> None:
    """
    Data with a number beyond the range of a float, or nested too deeply, is refused, and the text names the field.
    """
    client = running.connect_raw()
    message = f'{{"type":"publish","channel":"global","event":"system.info","data":{data},"id":1}}'
    client.socket.sendall(frame(message.encode()))
    answer = client.hear()
    assert (answer["success"], answer["code"]) == (False, "INVALID_MESSAGE")
    assert "`data`" in answer["error"]


@pytest.mark.parametrize("request_id", ["x" * 129, [], {}, [1], {"a": 1}, 10**128])
def test_invalid_correlation_id(client: ClientConnection, request_id: object) -> None:
    """
    An id that cannot be one is refused, and not repeated.
    """
    answer = ask(client, type="subscribe", channel="metrics", id=request_id)
    assert answer.keys() == {"error", "code", "timestamp"}
    assert answer["code"] == "INVALID_MESSAGE"
    assert "id" in answer["error"]


@pytest.mark.parametrize("event", ["", "task", "task.unknown", "Task.created", "task.created ", "pipeline.done", "é.x"])
def test_invalid_event(client: ClientConnection, event: str) -> None:
    """
    An event outside the catalogue is an INVALID_EVENT, and the text repeats it.
    """
    answer = ask(client, type="publish", channel="global", event=event, id=1)
    assert answer["code"] == "INVALID_EVENT"
    assert answer["error"] == f"Invalid event type: {event}"
    silence(client)


def test_too_many_subscriptions(client: ClientConnection) -> None:
    """
    One subscription over the limit is refused; leaving another makes room.
    """
    for number in range(3):
        assert ask(client, type="subscribe", channel=f"topics/{number}", id=number)["success"] is True
    answer = ask(client, type="subscribe", channel="topics/more", id="more")
    assert answer["code"] == "TOO_MANY_SUBSCRIPTIONS"
    assert ask(client, type="subscribe", channel="topics/0", id="again")["success"] is True
    ask(client, type="unsubscribe", channel="topics/0", id="less")
    assert ask(client, type="subscribe", channel="topics/more", id="more")["success"] is True


def test_rate_limit(limited: Service) -> None:
    """
    A message over the rate limit is refused with the time to retry; after that time it is executed.
    """
    client = limited.connect()
    for number in range(10):
        assert ask(client, type="subscribe", channel="metrics", id=number)["success"] is True
    answer = ask(client, type="subscribe", channel="metrics", id="more")
    assert (answer["type"], answer["id"], answer["success"]) == ("ack", "more", False)
    assert answer["code"] == "RATE_LIMITED"
    assert 0 < answer["retry_after_ms"] <= 200
    answer = ask(client, type="subscribe", channel="metrics")
    assert answer.keys() == {"error", "code", "timestamp", "retry_after_ms"}
    due = time.monotonic() + answer["retry_after_ms"] / 1000
    until(lambda: time.monotonic() >= due)
    assert ask(client, type="subscribe", channel="metrics", id="later")["success"] is True


def test_rate_limit_leaves_others_alone(limited: Service) -> None:
    """
    Each client has its own limit.
    """
    loud, quiet = limited.connect(), limited.connect()
    answers = [ask(loud, type="subscribe", channel="metrics", id=number) for number in range(15)]
    assert answers[-1]["code"] == "RATE_LIMITED"
    assert ask(quiet, type="subscribe", channel="metrics", id=1)["success"] is True


def test_rate_limit_below_one_a_second() -> None:
    """
    A limit of less than one message a second lets one through, and then refuses.
    """
    with service("--rate-limit", "6/m") as running:
        client = running.connect()
        assert ask(client, type="subscribe", channel="metrics", id=1)["success"] is True
        answer = ask(client, type="subscribe", channel="metrics", id=2)
        assert answer["code"] == "RATE_LIMITED"
        assert 8000 < answer["retry_after_ms"] <= 10_000


def test_breaking_the_rate_limit(limited: Service) -> None:
    """
    A client that goes on and on over the limit is closed with 4029.
    """
    client = limited.connect()
    answers: list[dict[str, Any]] = []
    with pytest.raises(ConnectionClosed) as closed:
        while len(answers) < 500:
            answers.append(ask(client, type="subscribe", channel="metrics", id=len(answers)))
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4029
    assert len(answers) >= 100
    # on a busy machine, some of them are not over the limit
    refused = [answer for answer in answers if answer.get("code") == "RATE_LIMITED"]
    assert len(refused) >= 50 and answers[-1] is refused[-1]


def test_failures_do_not_close(client: ClientConnection) -> None:
    """
    However often a client is refused, it stays connected.
    """
    for _ in range(200):
        client.send("no JSON")
    for _ in range(200):
        assert hear(client)["code"] == "PARSE_ERROR"
    silence(client)


def test_largest_message(running: Service) -> None:
    """
    A message of exactly 1 MiB is taken, and reaches its subscribers whole.
    """
    client = running.connect(max_size=None)
    message = '{"type":"publish","channel":"global","event":"system.info","data":"%s"}'
    text = "x" * (LIMIT - len(message) + 2)
    client.send(message % text)
    assert hear(client)["data"] == text


@pytest.mark.parametrize("frames", [1, 3])
def test_message_over_the_limit(client: ClientConnection, frames: int) -> None:
    """
    A message of more than 1 MiB closes the connection with 1009, in one frame or in several.
    """
    if frames == 1:
        client.send("x" * (LIMIT + 1))
    else:
        client.send(iter(["x" * (LIMIT // 2)] * frames))
    assert close_of(client)[0] == 1009
