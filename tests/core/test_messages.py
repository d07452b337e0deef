from __future__ import annotations

import json
from typing import Any

import pytest

from dcm_ws.errors import ErrorCode, ProtocolError
from dcm_ws.frames import PING_FRAME
from dcm_ws.messages import (
    TOKEN_MAX,
    Ack,
    Auth,
    Command,
    Ping,
    Pong,
    Publish,
    Subscribe,
    Unsubscribe,
    agent_of,
    authenticated_frame,
    connected_frame,
    decode_command,
    decode_notification,
    done_frame,
    event_frame,
    heartbeat_frames,
    is_nested_deeper,
    pong_frame,
    published_frame,
    refused_frame,
    to_json,
)
from tests.fakes import split_frames

NOW = 1_706_000_000_000
DEEP = "[" * 100_000
DATA = '{"channel":"global","event":"a.b","data":'


def refusal(message: str | bytes) -> ProtocolError:
    with pytest.raises(ProtocolError) as refused:
        decode_command(message)
    return refused.value


def notification_refusal(payload: str) -> ErrorCode:
    with pytest.raises(ProtocolError) as refused:
        decode_notification(payload)
    return refused.value.code


def read(frames: bytes) -> dict[str, Any]:
    """
    The message in a stream of just one text frame.
    """
    ((opcode, payload),) = split_frames(frames)
    assert opcode == 1
    message: dict[str, Any] = json.loads(payload)
    return message


# commands that are well formed


@pytest.mark.parametrize(
    ("message", "command"),
    [
        ({"type": "subscribe", "channel": "global"}, Subscribe("global")),
        ({"type": "subscribe", "channel": "global", "id": "r1"}, Subscribe("global", "r1")),
        ({"type": "unsubscribe", "channel": "global", "id": 7}, Unsubscribe("global", 7)),
        ({"type": "auth", "token": "t"}, Auth("t")),
        ({"type": "auth", "agent_id": "ann", "session_id": "s", "id": 1}, Auth(None, "ann", "s", 1)),
        ({"type": "auth", "agent_id": "x" * 128, "session_id": "x" * 128}, Auth(None, "x" * 128, "x" * 128)),
        ({"type": "auth", "token": "x" * TOKEN_MAX}, Auth("x" * TOKEN_MAX)),
        ({"type": "auth"}, Auth()),
        ({"type": "auth", "token": None, "agent_id": None, "session_id": None}, Auth()),
        ({"type": "ping"}, Ping()),
        ({"type": "ping", "id": "r1", "timestamp": NOW}, Ping("r1", NOW)),
        ({"type": "pong", "timestamp": NOW + 0.5}, Pong(None, NOW + 0.5)),
        ({"type": "ack", "message_id": "msg_1"}, Ack("msg_1")),
        ({"type": "ack", "message_id": "x" * 128}, Ack("x" * 128)),
        ({"type": "ack", "message_id": ""}, Ack("")),
    ],
    ids=str,
)
@pytest.mark.parametrize("binary", [False, True])
def test_commands(message: dict[str, Any], command: Command, binary: bool) -> None:
    """
    Each command is read as what it says, from text and binary frames alike.
    """
    text = json.dumps(message)

    assert decode_command(text.encode() if binary else text) == command


@pytest.mark.parametrize("extra", [{"timestamp": None}, {"timestamp": 0}, {"x": {"y": [1]}}, {"data": 1}], ids=str)
def test_unknown_extra_fields_are_ignored(extra: dict[str, Any]) -> None:
    """
    A client may say more than it was asked.
    """
    command = decode_command(json.dumps({"type": "subscribe", "channel": "global"} | extra))

    assert isinstance(command, Subscribe)
    assert command.channel == "global"


@pytest.mark.parametrize(
    "data",
    [
        "null",
        "true",
        "0",
        "-1.5e300",
        "123456789012345678901234567890",
        '""',
        '"é\\n"',
        "[]",
        '{"a": [1, {"b": null}]}',
    ],
)
def test_data_travels_as_it_was_written(data: str) -> None:
    """
    Any JSON value may be published, and no digit of it changes.
    """
    command = decode_command(f'{{"type":"publish","channel":"global","event":"task.created","data":{data}}}')

    assert isinstance(command, Publish)
    assert bytes(command.data) == data.encode()


def test_missing_data_is_null() -> None:
    """
    An event published without data has C{null} for it.
    """
    command = decode_command('{"type":"publish","channel":"global","event":"task.created"}')

    assert isinstance(command, Publish)
    assert bytes(command.data) == b"null"


# ids


@pytest.mark.parametrize("request_id", ["a", "x" * 128, "é" * 128, 0, 1, -1, 2**63 - 1, -(2**63), None])
def test_correlation_ids(request_id: str | int | None) -> None:
    """
    An id is a string of 1 to 128 characters or an integer; C{null} is none.
    """
    assert decode_command(json.dumps({"type": "ping", "id": request_id})) == Ping(request_id)


@pytest.mark.parametrize(
    "request_id",
    ["true", "false", "1.5", "1.0", "1e3", '""', '"' + "x" * 129 + '"', "[]", "{}", str(2**63), str(2**64), "9" * 5000],
    ids=lambda text: text[:20],
)
@pytest.mark.parametrize(
    "rest",
    ['"type":"ping"', '"type":"subscribe","channel":"global"', '"type":"ack","message_id":"m"'],
)
def test_what_is_no_correlation_id(request_id: str, rest: str) -> None:
    """
    Anything else is refused, naming the field, and not echoed.
    """
    error = refusal(f'{{{rest},"id":{request_id}}}')

    assert error.code is ErrorCode.INVALID_MESSAGE
    assert error.request is None
    assert "id" in error.reason


# what is not JSON


@pytest.mark.parametrize(
    "message",
    [
        "",
        " ",
        "hello",
        "{",
        "}",
        '{"type":',
        '{"type":"ping"',
        '{"type":"ping"}}',
        '{"type":"ping"} {"type":"ping"}',
        "{'type':'ping'}",
        '{"type":"ping",}',
        '{type:"ping"}',
        '\ufeff{"type":"ping"}',
        '{"type":"publish","channel":"global","event":"task.created","data":NaN}',
        '{"type":"publish","channel":"global","event":"task.created","data":Infinity}',
        '{"type":"publish","channel":"global","event":"task.created","data":01}',
        '{"type":"publish","channel":"global","event":"task.created","data":"\\q"}',
        '{"type":"publish","channel":"global","event":"task.created","data":"\x01"}',
        '{"type":"publish","channel":"global","event":"task.created","data":"\\ud83"}',
        '{"type":"publish","channel":"global","event":"task.created","data":["\\ud83d",NaN]}',
        DEEP,
        '{"a":' * 100_000,
        '{"type":"ping","x":' + DEEP,
        # the type is wrong, and then the rest is no JSON at all
        '{"type":5',
        '{"type":"x"',
        '{"type":"subscribe","channel":5,]',
        '{"type":5,"x":' + DEEP,
        '{"type":5,"x":"\\ud83d",}',
        "\ud800",
    ],
    ids=lambda text: ascii(text[-40:]),
)
def test_what_is_not_json(message: str) -> None:
    """
    What cannot be read is refused as that, whatever it begins with.
    """
    error = refusal(message)

    assert error.code is ErrorCode.PARSE_ERROR
    assert error.request is None


@pytest.mark.parametrize(
    "message", [b"\xff", b'{"type":"ping","x":"\xff"}', b'{"type":"\xc0\xaf"}', b'{"a":"\xed\xa0\x80"}']
)
def test_what_is_not_utf8(message: bytes) -> None:
    """
    A binary frame must be UTF-8.
    """
    assert refusal(message).code is ErrorCode.PARSE_ERROR


@pytest.mark.parametrize("message", ["[]", "null", "true", "1", "1.5", '"ping"', '[{"type":"ping"}]'])
def test_what_is_not_an_object(message: str) -> None:
    """
    JSON that is no object is no message.
    """
    error = refusal(message)

    assert error.code is ErrorCode.PARSE_ERROR
    assert "not a JSON object" in error.reason


# half characters


@pytest.mark.parametrize("half", ["\\ud83d", "\\uD83D", "\\ude00", "\\udE00\\ud83d"])
def test_half_a_character_is_read_as_browsers_do(half: str) -> None:
    """
    Text that JavaScript cut in the middle of an emoji is not refused: each half becomes U+FFFD.
    """
    command = decode_command(f'{{"type":"publish","channel":"global","event":"task.created","data":["{half}","é"]}}')

    assert isinstance(command, Publish)
    assert json.loads(bytes(command.data)) == ["\N{REPLACEMENT CHARACTER}" * (len(half) // 6), "é"]


def test_whole_characters_beside_halves_stay_whole() -> None:
    """
    A pair of halves is one character.
    """
    notification = decode_notification(r'{"channel":"global","event":"a.b","data":"\ud83d\ude00\ud83d"}')

    assert json.loads(bytes(notification.data)) == "\N{GRINNING FACE}\N{REPLACEMENT CHARACTER}"


def test_half_a_character_does_not_hide_another_mistake() -> None:
    """
    A message with a half character and a wrong field is refused for the field, to whom it belongs.
    """
    error = refusal(r'{"type":"subscribe","channel":5,"id":"r1","x":"\ud83d"}')

    assert error.code is ErrorCode.INVALID_MESSAGE
    assert error.request == "r1"
    assert "channel" in error.reason


# unknown types


@pytest.mark.parametrize(
    "type_",
    ['"hello"', '""', '"PING"', '"ping "', '"connected"', "null", "5", "true", "[]", "{}", '["ping"]', '"\\ud83d"'],
)
def test_unknown_types(type_: str) -> None:
    """
    A type outside the table is refused, to whom it belongs.
    """
    error = refusal(f'{{"type":{type_},"id":"r1"}}')

    assert error.code is ErrorCode.UNKNOWN_MESSAGE_TYPE
    assert error.request == "r1"


def test_missing_type() -> None:
    """
    So is a message without a type.
    """
    assert refusal("{}").code is ErrorCode.UNKNOWN_MESSAGE_TYPE
    assert refusal('{"id":7,"channel":"global"}').request == 7


def test_unknown_type_with_an_id_that_cannot_be_one() -> None:
    """
    An id that is none is not echoed.
    """
    error = refusal('{"type":"hello","id":1.5}')

    assert error.code is ErrorCode.UNKNOWN_MESSAGE_TYPE
    assert error.request is None


def test_unknown_type_is_named_in_part() -> None:
    """
    The text names the type, but not a megabyte of it.
    """
    assert refusal('{"type":"hello"}').reason == "Unknown message type: hello"
    assert len(refusal(json.dumps({"type": "x" * 1_000_000})).reason) < 100


# fields


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"type": "subscribe"}, "channel"),
        ({"type": "subscribe", "channel": None}, "channel"),
        ({"type": "subscribe", "channel": 5}, "channel"),
        ({"type": "subscribe", "channel": ["global"]}, "channel"),
        ({"type": "unsubscribe"}, "channel"),
        ({"type": "unsubscribe", "channel": {}}, "channel"),
        ({"type": "publish", "event": "task.created"}, "channel"),
        ({"type": "publish", "channel": "global"}, "event"),
        ({"type": "publish", "channel": "global", "event": None}, "event"),
        ({"type": "publish", "channel": "global", "event": 1}, "event"),
        ({"type": "publish", "channel": True, "event": "task.created"}, "channel"),
        ({"type": "auth", "token": 5}, "token"),
        ({"type": "auth", "token": "x" * (TOKEN_MAX + 1)}, "token"),
        ({"type": "auth", "agent_id": 5}, "agent_id"),
        ({"type": "auth", "agent_id": ""}, "agent_id"),
        ({"type": "auth", "agent_id": "x" * 129}, "agent_id"),
        ({"type": "auth", "agent_id": "a b"}, "agent_id"),
        ({"type": "auth", "agent_id": "a\n"}, "agent_id"),
        ({"type": "auth", "agent_id": "a", "session_id": "x" * 129}, "session_id"),
        ({"type": "auth", "agent_id": "a", "session_id": "a/b"}, "session_id"),
        ({"type": "auth", "agent_id": "a", "session_id": []}, "session_id"),
        ({"type": "ack"}, "message_id"),
        ({"type": "ack", "message_id": None}, "message_id"),
        ({"type": "ack", "message_id": 5}, "message_id"),
        ({"type": "ack", "message_id": "x" * 129}, "message_id"),
        ({"type": "ping", "timestamp": "now"}, "timestamp"),
        ({"type": "pong", "timestamp": {}}, "timestamp"),
        ({"type": "subscribe", "channel": "global", "timestamp": True}, "timestamp"),
    ],
    ids=lambda value: str(value)[:60],
)
@pytest.mark.parametrize("request_id", [None, "r1", 0])
def test_wrong_fields(message: dict[str, Any], field: str, request_id: str | int | None) -> None:
    """
    A field that is missing, of the wrong kind or too long is named, to whom it belongs.
    """
    error = refusal(json.dumps(message | ({} if request_id is None else {"id": request_id})))

    assert error.code is ErrorCode.INVALID_MESSAGE
    assert error.request == request_id
    assert f"`{field}`" in error.reason or f"$.{field}`" in error.reason


# notifications


def test_notification() -> None:
    """
    The database says where, what, and what about.
    """
    notification = decode_notification('{"channel":"projects","event":"a.b","data":{"n": 1},"timestamp":5,"x":1}')

    assert (notification.channel, notification.event, notification.timestamp) == ("projects", "a.b", 5)
    assert bytes(notification.data) == b'{"n": 1}'


def test_notification_without_data_and_timestamp() -> None:
    """
    Both may be missing.
    """
    notification = decode_notification('{"channel":"global","event":"a.b","timestamp":null}')

    assert notification.timestamp is None
    assert bytes(notification.data) == b"null"


@pytest.mark.parametrize(
    "payload", ["", "hello", "{", '{"channel":"global","event":"a.b"', DATA + DEEP, '"\\ud83d', "\ud800"]
)
def test_notification_that_is_not_json(payload: str) -> None:
    """
    A payload that is no JSON is refused as that.
    """
    assert notification_refusal(payload) is ErrorCode.PARSE_ERROR


@pytest.mark.parametrize(
    "payload",
    [
        "[]",
        "null",
        "{}",
        '{"channel":"global"}',
        '{"event":"a.b"}',
        '{"channel":5,"event":"a.b"}',
        '{"channel":"global","event":null}',
        '{"channel":"global","event":"a.b","timestamp":"now"}',
        '{"channel":"global","event":"a.b","timestamp":-1}',
        '{"channel":"global","event":"a.b","timestamp":8640000000000001}',
        '{"channel":"global","event":"a.b","timestamp":1e300}',
        '{"channel":"global","event":"a.b","timestamp":true}',
        '{"channel":5,"event":"a.b","data":"\\ud83d"}',
    ],
)
def test_notification_with_wrong_fields(payload: str) -> None:
    """
    A payload that is no event is refused as that.
    """
    assert notification_refusal(payload) is ErrorCode.INVALID_MESSAGE


# replies


def test_connected() -> None:
    """
    The first frame of every connection.
    """
    assert read(connected_frame("ws_m1abc_x7k9f2", 'dcm-ws/"1"', NOW)) == {
        "type": "connected",
        "client_id": "ws_m1abc_x7k9f2",
        "timestamp": NOW,
        "authenticated": False,
        "server": 'dcm-ws/"1"',
    }


@pytest.mark.parametrize("request_id", ["r1", 'quo"te', "\N{GRINNING FACE}", 0, -(2**63), None])
def test_success(request_id: str | int | None) -> None:
    """
    Success echoes the id as it was.
    """
    done = {"type": "ack", "id": request_id, "success": True, "timestamp": NOW}

    assert read(done_frame(request_id, NOW)) == done
    assert read(authenticated_frame(request_id, ["global"], NOW)) == done | {"subscriptions": ["global"]}


def test_success_of_a_publish() -> None:
    """
    The publisher learns the id of its event.
    """
    assert read(published_frame(7, "msg_1", NOW)) == {
        "type": "ack",
        "id": 7,
        "success": True,
        "message_id": "msg_1",
        "timestamp": NOW,
    }


@pytest.mark.parametrize("request_id", ["r1", 0])
def test_failure_with_an_id(request_id: str | int) -> None:
    """
    Failure of a request with an id is an ack that says so.
    """
    assert read(refused_frame(ProtocolError(ErrorCode.INVALID_EVENT, 'no "such"', request_id), NOW)) == {
        "type": "ack",
        "id": request_id,
        "success": False,
        "error": 'no "such"',
        "code": "INVALID_EVENT",
        "timestamp": NOW,
    }


def test_failure_without_an_id() -> None:
    """
    Failure of any other is an error without a type.
    """
    assert read(refused_frame(ProtocolError(ErrorCode.PARSE_ERROR, "é"), NOW)) == {
        "error": "é",
        "code": "PARSE_ERROR",
        "timestamp": NOW,
    }


def test_pong() -> None:
    """
    The answer to a client's ping.
    """
    assert read(pong_frame(NOW)) == {"type": "pong", "timestamp": NOW}


def test_heartbeat_is_a_message_and_a_ping_frame() -> None:
    """
    Both the application and the WebSocket library of a client are asked whether they live.
    """
    frames = heartbeat_frames(NOW)

    assert frames.endswith(PING_FRAME)
    assert read(frames.removesuffix(PING_FRAME)) == {"type": "ping", "timestamp": NOW}


def test_event() -> None:
    """
    An event as a subscriber gets it.
    """
    assert read(event_frame("msg_1", "topics/a/b", "task.created", '{"é": 1}'.encode(), NOW)) == {
        "id": "msg_1",
        "channel": "topics/a/b",
        "event": "task.created",
        "data": {"é": 1},
        "timestamp": NOW,
    }


def test_json_of_our_own_is_compact() -> None:
    """
    What the service says itself is JSON without white space.
    """
    assert to_json({"a": [1, None, "é"]}) == '{"a":[1,null,"é"]}'.encode()


@pytest.mark.parametrize("request_id", ["r1", None])
def test_failure_may_say_when_to_try_again(request_id: str | None) -> None:
    """
    A client that is to wait is told for how long.
    """
    error = ProtocolError(ErrorCode.RATE_LIMITED, "slower", request_id)
    error.retry_after_ms = 250
    message = read(refused_frame(error, NOW))

    assert (message["code"], message["retry_after_ms"], message.get("id")) == ("RATE_LIMITED", 250, request_id)


# depth


@pytest.mark.parametrize(
    ("data", "depth"),
    [
        ("1", 0),
        ('"[[[["', 0),
        ("[]", 1),
        ("{}", 1),
        ('[[], {}, [1], {"a": 1}]', 2),
        ('{"a": [{"b": {}}]}', 4),
        ('["]]]]", "{{{{", "\\"[[[[", "\\\\", []]', 2),
        ('{"[": {"}": ["\\\\\\"]"]}}', 3),
        ("[" * 50 + "[],[[]]" + "]" * 50, 52),
        ("[" * 500 + "]" * 500, 500),
        ("[" + "[[]]," * 1000 + "{}]", 3),
        ("[" + "[]," * 1000 + "{}]", 2),
    ],
    ids=lambda value: str(value)[:30],
)
def test_depth_of_nesting(data: str, depth: int) -> None:
    """
    Depth is counted in arrays and objects inside one another; brackets in text are none.
    """
    json.loads(data)

    assert not is_nested_deeper(data.encode(), depth)
    assert not is_nested_deeper(data.encode(), depth + 1)
    assert depth == 0 or is_nested_deeper(data.encode(), depth - 1)


# whom data is about


@pytest.mark.parametrize(
    ("data", "agent"),
    [
        ('{"agent_id": "ann", "n": [1]}', "ann"),
        ('{"agent_id": "\\u00e9"}', "é"),
        ("{}", ""),
        ('{"agent_id": 5}', ""),
        ('{"agent_id": null}', ""),
        ('{"agent_id": "\\ud83d"}', ""),
        ('["agent_id"]', ""),
        ("null", ""),
        ('"ann"', ""),
    ],
)
def test_whom_data_is_about(data: str, agent: str) -> None:
    """
    A heartbeat is one agent's where its data says so.
    """
    assert agent_of(data.encode()) == agent
