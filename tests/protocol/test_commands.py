from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from dcm_ws.protocol.commands import (
    TOKEN_MAX,
    Ack,
    AckUpTo,
    Auth,
    Command,
    Nack,
    Ping,
    Pong,
    Position,
    Publish,
    Resume,
    Subscribe,
    Unsubscribe,
    decode_command,
    request_of,
)
from dcm_ws.protocol.errors import NO_REQUEST, ErrorCode, ProtocolError
from dcm_ws.protocol.notifications import decode_notification
from dcm_ws.protocol.replies import (
    done_frame,
)
from tests.fakes import split_frames
from tests.protocol.reading import read, request

NOW = 1_706_000_000_000
DEEP = "[" * 100_000


def refusal(message: str | bytes) -> ProtocolError:
    with pytest.raises(ProtocolError) as refused:
        decode_command(message)
    return refused.value


# commands that are well formed


@pytest.mark.parametrize(
    ("message", "command"),
    [
        ({"type": "subscribe", "channel": "global"}, Subscribe("global")),
        ({"type": "subscribe", "channel": "global", "id": "r1"}, Subscribe("global", request("r1"))),
        ({"type": "unsubscribe", "channel": "global", "id": 7}, Unsubscribe("global", request(7))),
        ({"type": "auth", "token": "t"}, Auth("t")),
        ({"type": "auth", "agent_id": "ann", "session_id": "s", "id": 1}, Auth(None, "ann", "s", request(1))),
        ({"type": "auth", "agent_id": "x" * 128, "session_id": "x" * 128}, Auth(None, "x" * 128, "x" * 128)),
        ({"type": "auth", "token": "x" * TOKEN_MAX}, Auth("x" * TOKEN_MAX)),
        ({"type": "auth"}, Auth()),
        ({"type": "auth", "token": None, "agent_id": None, "session_id": None}, Auth()),
        ({"type": "auth", "durable": True}, Auth(durable=True)),
        ({"type": "auth", "durable": "", "observer": None}, Auth()),
        ({"type": "nack", "message_id": "m"}, Nack("m", 0)),
        ({"type": "nack", "message_id": "m", "delay_ms": 3_600_000, "id": 1}, Nack("m", 3_600_000, request(1))),
        ({"type": "nack", "message_id": "m", "delay_ms": ""}, Nack("m")),
        ({"type": "nack", "message_id": "m", "delay_ms": None}, Nack("m")),
        ({"type": "ping"}, Ping()),
        ({"type": "auth", "token": "", "agent_id": "", "session_id": "", "observer": "", "id": ""}, Auth()),
        ({"type": "auth", "agent_id": "a", "session_id": "", "id": "r1"}, Auth(None, "a", None, request("r1"))),
        ({"type": "auth", "token": "t", "agent_id": "", "session_id": ""}, Auth("t")),
        ({"type": "auth", "agent_id": "general purpose", "session_id": "a/b"}, Auth(None, "general purpose", "a/b")),
        ({"type": "ping", "id": "r1", "timestamp": NOW}, Ping(request("r1"))),
        ({"type": "pong", "timestamp": NOW + 0.5}, Pong()),
        ({"type": "ack", "message_id": "msg_1"}, Ack("msg_1")),
        ({"type": "ack", "message_id": "x" * 128}, Ack("x" * 128)),
        ({"type": "ack", "message_id": ""}, Ack("")),
    ],
    # not the commands: their raw ids show as an address, and test names must be the same in every process
    ids=lambda value: str(value)[:80] if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("binary", [False, True])
def test_commands(message: dict[str, Any], command: Command, binary: bool) -> None:
    """
    Each command is read as what it says, from text and binary frames alike.
    """
    text = json.dumps(message)

    assert decode_command(text.encode() if binary else text) == command


TIMESTAMPS: tuple[Any, ...] = (None, 0, "", "now", "2026-11-25T18:00:00Z", -1, 1e300, True, [], {"a": []})


@pytest.mark.parametrize(
    "extra",
    [
        {"x": {"y": [1]}},
        {"data": 1},
        *({"timestamp": odd} for odd in TIMESTAMPS),
    ],
    ids=str,
)
def test_unknown_extra_fields_are_ignored(extra: dict[str, Any]) -> None:
    """
    A client may say more than it was asked, and its C{timestamp} is never read.
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


@pytest.mark.parametrize(
    "text",
    [
        '"a"',
        '"' + "x" * 128 + '"',
        '"' + "é" * 128 + '"',
        '"' + "\N{GRINNING FACE}" * 128 + '"',
        '"' + "\\u0041" * 128 + '"',
        '"\\u0000\\"\\\\"',
        '" "',
        "0",
        "-0",
        "-1",
        "7.5",
        "1.0",
        "1e3",
        "1E+3",
        "-2.50e-7",
        str(2**63),
        "1" + "0" * 127,
        "1e308",
        "true",
        "false",
    ],
    ids=lambda text: text[:20],
)
@pytest.mark.parametrize(
    "rest", ['"type":"ping"', '"type":"subscribe","channel":"global"', '"type":"ack","message_id":"m"']
)
def test_ids_are_echoed_as_they_were_written(text: str, rest: str) -> None:
    """
    A string of 1 to 128 characters, a number or a boolean is an id, and comes back to the last digit.
    """
    command = decode_command(f'{{"id": {text} ,{rest}}}')

    assert bytes(command.id) == text.encode()
    ((_, payload),) = split_frames(done_frame(command.id, NOW))
    assert payload == f'{{"type":"ack","id":{text},"success":true,"timestamp":{NOW}}}'.encode()


@pytest.mark.parametrize("text", ["null", '""'])
def test_no_id(text: str) -> None:
    """
    C{null} and an empty string are no id.
    """
    assert decode_command(f'{{"type":"ping","id":{text}}}') == Ping()
    assert not refusal(f'{{"type":"subscribe","id":{text}}}').request


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=130) | st.integers() | st.floats(allow_nan=False))
def test_any_id(value: str | int | float) -> None:
    """
    Whatever fits comes back as the same value, and nothing else is taken for an id.
    """
    text = json.dumps(value)
    message = f'{{"type":"ping","id":{text}}}'
    if value == "":
        assert decode_command(message) == Ping()
    elif len(value if isinstance(value, str) else text) > 128:
        assert refusal(message).code is ErrorCode.INVALID_MESSAGE
    elif text in ("Infinity", "-Infinity"):
        assert refusal(message).code is ErrorCode.PARSE_ERROR
    else:
        assert read(done_frame(decode_command(message).id, NOW))["id"] == value


@pytest.mark.parametrize(
    "request_id",
    [
        '"' + "x" * 129 + '"',
        '"' + "é" * 129 + '"',
        "[]",
        "{}",
        '["r1"]',
        '{"id":1}',
        "9" * 129,
        "9" * 5000,
        "1e400",
        "-1e999",
    ],
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
    assert error.request == NO_REQUEST
    assert "`id`" in error.reason


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
    assert error.request == NO_REQUEST


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


def test_half_a_character_does_not_hide_another_mistake() -> None:
    """
    A message with a half character and a wrong field is refused for the field, to whom it belongs.
    """
    error = refusal(r'{"type":"subscribe","channel":5,"id":"r1","x":"\ud83d"}')

    assert error.code is ErrorCode.INVALID_MESSAGE
    assert error.request == request("r1")
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
    assert error.request == request("r1")


def test_missing_type() -> None:
    """
    So is a message without a type.
    """
    assert refusal("{}").code is ErrorCode.UNKNOWN_MESSAGE_TYPE
    assert refusal('{"id":7,"channel":"global"}').request == request(7)


def test_unknown_type_with_an_id_that_cannot_be_one() -> None:
    """
    An id that is none is not echoed.
    """
    error = refusal('{"type":"hello","id":[1.5]}')

    assert error.code is ErrorCode.UNKNOWN_MESSAGE_TYPE
    assert error.request == NO_REQUEST


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
        ({"type": "auth", "agent_id": "x" * 129}, "agent_id"),
        ({"type": "auth", "agent_id": " a"}, "agent_id"),
        ({"type": "auth", "agent_id": "a\n"}, "agent_id"),
        ({"type": "auth", "agent_id": "a", "session_id": "x" * 129}, "session_id"),
        ({"type": "auth", "agent_id": "a", "session_id": "a\u2028"}, "session_id"),
        ({"type": "auth", "agent_id": "a", "session_id": []}, "session_id"),
        ({"type": "ack"}, "message_id"),
        ({"type": "ack", "message_id": None}, "message_id"),
        ({"type": "ack", "message_id": 5}, "message_id"),
        ({"type": "ack", "message_id": "x" * 129}, "message_id"),
        ({"type": "auth", "durable": "yes"}, "durable"),
        ({"type": "nack"}, "message_id"),
        ({"type": "nack", "message_id": "x" * 129}, "message_id"),
        ({"type": "nack", "message_id": "m", "delay_ms": -1}, "delay_ms"),
        ({"type": "nack", "message_id": "m", "delay_ms": 3_600_001}, "delay_ms"),
        ({"type": "nack", "message_id": "m", "delay_ms": 0.5}, "delay_ms"),
        ({"type": "nack", "message_id": "m", "delay_ms": "5"}, "delay_ms"),
        ({"type": "auth", "agent_id": False}, "agent_id"),
        ({"type": "auth", "session_id": 0}, "session_id"),
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
    assert error.request == request(request_id)
    assert f"`{field}`" in error.reason or f"$.{field}`" in error.reason


@given(st.text(alphabet='\\ud83dDE0fFaA"x', max_size=40))
def test_halves_of_characters_are_read_as_browsers_do(text: str) -> None:
    """
    Whatever escapes stand next to one another: what Python reads as half a character is read as U+FFFD, and the rest as
    it is.
    """
    try:
        expected = json.loads(f'"{text}"')
    except json.JSONDecodeError:
        with pytest.raises(ProtocolError):
            decode_notification(f'{{"channel":"global","event":"a.b","data":"{text}"}}')
        return
    notification = decode_notification(f'{{"channel":"global","event":"a.b","data":"{text}"}}')
    found = json.loads(bytes(notification.data))
    assert found == "".join("\ufffd" if 0xD800 <= ord(letter) < 0xE000 else letter for letter in expected)


def test_nul_is_no_json() -> None:
    """
    A message with a NUL is refused like any that is not JSON, also where it has half a character.
    """
    assert refusal('{"type":"ping","x":"\0\\ud83d"}').code == "PARSE_ERROR"


def test_id_of_a_message_that_is_not_read() -> None:
    """
    The id is found wherever it is, and there is none where it cannot be found without reading more.
    """
    assert request_of('{"type":"publish","data":[[{"id":1}]],"id":"r"}') == Raw(b'"r"')
    assert request_of(b'{"id":7}') == Raw(b"7")
    for message in ("{}", "[]", "", '{"id":[]}', b"\xff", '{"x":"\\ud83d","id":1}', '{"id":1'):
        assert request_of(message) == NO_REQUEST


def test_resume_command() -> None:
    """
    A client says what it has, and of which channels.
    """
    command = decode_command('{"type":"resume","epoch":"k3v9","pos":118,"channels":["topics/a"],"id":7}')

    assert isinstance(command, Resume)
    assert (command.epoch, command.pos, command.channels, bytes(command.id)) == ("k3v9", 118, ["topics/a"], b"7")
    auth = decode_command('{"type":"auth","agent_id":"ann","resume":{"epoch":"k3v9","pos":3}}')
    assert isinstance(auth, Auth) and auth.resume == Position("k3v9", 3)


@pytest.mark.parametrize("empty", ["null", '""'])
def test_empty_fields_of_positions_are_absent(empty: str) -> None:
    """
    This holds for all optional fields.
    """
    resume = decode_command('{"type":"resume","epoch":"k3v9","pos":118,"channels":' + empty + "}")
    assert isinstance(resume, Resume) and resume.channels == []
    auth = decode_command('{"type":"auth","agent_id":"ann","resume":' + empty + "}")
    assert isinstance(auth, Auth) and auth.resume is None
    ack = decode_command('{"type":"ack","message_id":"m","pos":' + empty + "}")
    assert isinstance(ack, Ack) and ack.message_id == "m"
    assert isinstance(decode_command('{"type":"ack","pos":1,"message_id":' + empty + "}"), AckUpTo)


@pytest.mark.parametrize(
    "fields", ["", ',"message_id":null', ',"message_id":"m","pos":1', ',"pos":-1', ',"pos":9007199254740992']
)
def test_ack_is_of_a_message_or_of_a_position(fields: str) -> None:
    """
    It has exactly one of them.
    """
    with pytest.raises(ProtocolError) as caught:
        decode_command('{"type":"ack"' + fields + "}")

    assert caught.value.code is ErrorCode.INVALID_MESSAGE
    assert decode_command('{"type":"ack","pos":1}') == AckUpTo(1)
