from __future__ import annotations

import json

import pytest

from dcm_ws.protocol.errors import NO_REQUEST, ErrorCode, ProtocolError
from dcm_ws.protocol.frames import PING_FRAME
from dcm_ws.protocol.replies import (
    Gap,
    authenticated_frame,
    connected_frame,
    done_frame,
    event_frame,
    from_field,
    gap_frame,
    heartbeat_frames,
    logged_event,
    mirror_frame,
    place_fields,
    pong_frame,
    published_frame,
    refused_frame,
    to_json,
)
from tests.protocol.reading import read, request

NOW = 1_706_000_000_000


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


@pytest.mark.parametrize("request_id", ["r1", 'quo"te', "\N{GRINNING FACE}", 0, -(2**63), 7.5, True])
def test_success(request_id: str | float) -> None:
    """
    Success echoes the id as it was.
    """
    done = {"type": "ack", "id": request_id, "success": True, "timestamp": NOW}

    assert read(done_frame(request(request_id), NOW)) == done
    assert read(authenticated_frame(request(request_id), ["global"], NOW)) == done | {"subscriptions": ["global"]}


def test_success_of_an_auth_without_an_id() -> None:
    """
    It is answered all the same, with C{null} for the id.
    """
    assert read(authenticated_frame(NO_REQUEST, [], NOW))["id"] is None


def test_success_of_a_publish() -> None:
    """
    The publisher learns the id of its event.
    """
    assert read(published_frame(request(7), "msg_1", NOW)) == {
        "type": "ack",
        "id": 7,
        "success": True,
        "message_id": "msg_1",
        "timestamp": NOW,
    }


def test_success_of_a_publish_that_repeats_one() -> None:
    frame = read(published_frame(request(7), "msg_1", NOW, 5, duplicate=True))
    assert (frame["message_id"], frame["pos"], frame["duplicate"]) == ("msg_1", 5, True)


@pytest.mark.parametrize("request_id", ["r1", 0])
def test_failure_with_an_id(request_id: str | int) -> None:
    """
    Failure of a request with an id is an ack that says so.
    """
    assert read(refused_frame(ProtocolError(ErrorCode.INVALID_EVENT, 'no "such"', request(request_id)), NOW)) == {
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
    Both the WebSocket library and the application of a client are asked whether they live, the library first: some
    return the text and leave a Ping behind it unread.
    """
    frames = heartbeat_frames(NOW)

    assert frames.startswith(PING_FRAME)
    assert read(frames.removeprefix(PING_FRAME)) == {"type": "ping", "timestamp": NOW}


def test_event() -> None:
    """
    An event as a subscriber gets it.
    """
    assert read(event_frame("msg_1", b'"topics/a/b"', "task.created", '{"é": 1}'.encode(), NOW)) == {
        "id": "msg_1",
        "channel": "topics/a/b",
        "event": "task.created",
        "data": {"é": 1},
        "timestamp": NOW,
    }


@pytest.mark.parametrize("size", [1, 100, 70_000])
@pytest.mark.parametrize("pos", [0, 7])
def test_mirrored_event(size: int, pos: int) -> None:
    """
    The frame for global is the other one, with its own channel, and the name of the other one as the origin.
    """
    frame = event_frame(
        "msg_1", '"topics/ä"'.encode(), "task.created", b'"%b"' % (b"1" * size), NOW, from_field("é"), pos
    )

    mirror = read(mirror_frame(frame, "msg_1", '"topics/ä"'.encode()))
    assert mirror == read(frame) | {"channel": "global", "origin": "topics/ä"}
    assert (mirror["from"], mirror.get("pos", 0)) == ("é", pos)


def test_json_of_our_own_is_compact() -> None:
    """
    What the service says itself is JSON without white space.
    """
    assert to_json({"a": [1, None, "é"]}) == '{"a":[1,null,"é"]}'.encode()


@pytest.mark.parametrize("request_id", ["r1", None])
def test_failure_may_say_when_to_try_again(request_id: str | None) -> None:
    """
    An error that asks the client to wait says for how long.
    """
    error = ProtocolError(ErrorCode.RATE_LIMITED, "slower", request(request_id))
    error.retry_after_ms = 250
    message = read(refused_frame(error, NOW))

    assert (message["code"], message["retry_after_ms"], message.get("id")) == ("RATE_LIMITED", 250, request_id)


def test_place() -> None:
    """
    Frames that tell a client how far it is have the epoch and the position.
    """
    place = place_fields("k3v9", 131)
    both = {"epoch": "k3v9", "pos": 131}

    assert read(done_frame(request("r1"), NOW, place)).items() >= both.items()
    assert read(published_frame(request("r1"), "msg_1", NOW, 5))["pos"] == 5
    assert (
        read(authenticated_frame(request("r1"), [], NOW, place, resumed=True)).items()
        >= {
            "resumed": True,
            **both,
        }.items()
    )
    refused = read(authenticated_frame(request("r1"), [], NOW, place, gap=Gap("expired", 9)))
    assert (refused["resumed"], refused["gap"]) == (False, {"reason": "expired", "first": 9})
    assert read(gap_frame(Gap("expired", 9), place)) == {"type": "gap", "reason": "expired", "first": 9, **both}


@pytest.mark.parametrize("channel", ["topics/a", 'topics/"x",\\"pos\\":7}', "topics/\\", "topics/é,"])
@pytest.mark.parametrize("sender", ["", "ann", 'a","pos":9}', "\\"])
@pytest.mark.parametrize(
    "data", [b"null", b'{"pos":5}', b'"x,\\"pos\\":5}"', b'{"a":1,"pos":5}', b"[1,\n2]" + b" " * 70_000]
)
def test_position_of_a_logged_event(channel: str, sender: str, data: bytes) -> None:
    """
    The position is found in the frame of any logged event, whatever its publisher has put into it, and in no other.
    """
    name, sent = to_json(channel), from_field(sender) if sender else b""
    frame = event_frame("msg_1", name, "task.created", data, 5, sent, 118)
    mirror = mirror_frame(frame, "msg_1", name)
    for logged in (frame, mirror):
        pos, payload = logged_event(logged)
        assert pos == 118
        assert json.loads(payload)["data"] == json.loads(data)
    unlogged = event_frame("msg_1", name, "metric.update", data, 5, sent)
    assert logged_event(unlogged)[0] == 0
    assert logged_event(mirror_frame(unlogged, "msg_1", name))[0] == 0


def test_other_frames_have_no_event() -> None:
    """
    A gap, or a ping, is not an event, although it has a position.
    """
    place = place_fields("epoch", 118)
    for frame in (gap_frame(Gap("expired", 5), place), connected_frame("ws_1", "x", 1, place), heartbeat_frames(1)):
        assert logged_event(frame)[0] == 0
