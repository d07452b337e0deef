from __future__ import annotations

import json

import pytest

from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.notifications import END_MS, FIRST_MS, decode_notification

NOW = 1_706_000_000_000
DEEP = "[" * 100_000
DATA = '{"channel":"global","event":"a.b","data":'


def refusal(payload: str) -> ErrorCode:
    with pytest.raises(ProtocolError) as refused:
        decode_notification(payload)
    return refused.value.code


def test_notification() -> None:
    """
    The database says where, what, and what about.
    """
    notification = decode_notification(
        '{"channel":"projects","event":"a.b","data":{"n": 1},"timestamp":1706000000000,"x":1}'
    )

    assert (notification.channel, notification.event, notification.timestamp) == ("projects", "a.b", NOW)
    assert bytes(notification.data) == b'{"n": 1}'


def test_only_the_event_is_needed() -> None:
    """
    All else may be missing.
    """
    notification = decode_notification('{"event":"deploy"}')

    assert (notification.channel, notification.event, notification.timestamp) == ("", "deploy", None)
    assert bytes(notification.data) == b"null"


@pytest.mark.parametrize(
    "channel", ["null", "5", "1e400", "9" * 5000, "true", "[]", '["global"]', "{}", '""'], ids=lambda text: text[:20]
)
def test_odd_channels(channel: str) -> None:
    """
    A channel that is not a string is none; nothing else is lost.
    """
    notification = decode_notification(f'{{"channel":{channel},"event":"a","data":[1],"timestamp":{NOW}}}')

    assert (notification.channel, notification.event, notification.timestamp) == ("", "a", NOW)
    assert bytes(notification.data) == b"[1]"


@pytest.mark.parametrize(
    "timestamp",
    [
        *("null", '""', '"now"', '"2026-11-25T18:00:00Z"', f'"{NOW}"', "true", "[]", "{}", "[1706000000000]"),
        *(
            "0",
            "-1",
            "1706000000",
            "1706000000.5",
            str(FIRST_MS - 1),
            str(END_MS),
            "1706000000000000",
            "-1706000000000",
        ),
        *("1e300", "1e400", "-1e999", "9" * 5000, str(2**64)),
    ],
    ids=lambda text: text[:24],
)
def test_odd_timestamps(timestamp: str) -> None:
    """
    A timestamp that is not a plausible number of milliseconds is none; nothing else is lost.
    """
    notification = decode_notification(f'{{"channel":"global","event":"a","data":"é","timestamp":{timestamp}}}')

    assert (notification.channel, notification.event, notification.timestamp) == ("global", "a", None)
    assert json.loads(bytes(notification.data)) == "é"


@pytest.mark.parametrize(
    ("timestamp", "ms"),
    [
        (str(NOW), NOW),
        (f"{NOW}.9", NOW),
        ("1.706e12", NOW),
        (str(FIRST_MS), FIRST_MS),
        (str(END_MS - 1), END_MS - 1),
    ],
)
def test_plausible_timestamps(timestamp: str, ms: int) -> None:
    """
    A fraction, as SQL makes it, is cut off.
    """
    assert decode_notification(f'{{"event":"a","timestamp":{timestamp}}}').timestamp == ms


@pytest.mark.parametrize(
    "payload", ["", "hello", "{", '{"channel":"global","event":"a.b"', DATA + DEEP, '"\\ud83d', "\ud800"]
)
def test_payload_that_is_not_json(payload: str) -> None:
    """
    A payload that is no JSON is refused as that.
    """
    assert refusal(payload) is ErrorCode.PARSE_ERROR


@pytest.mark.parametrize(
    "payload",
    [
        *("[]", "null", "5", '"deploy"', '[{"event":"a"}]', "{}", '{"channel":"global"}'),
        *(f'{{"channel":"global","event":{event}}}' for event in ("null", "5", "true", "[]", "{}", '["a"]')),
        '{"channel":5,"timestamp":"now","data":"\\ud83d"}',
    ],
)
def test_payload_without_an_event(payload: str) -> None:
    """
    Without a text for its event a payload is refused.
    """
    assert refusal(payload) is ErrorCode.INVALID_MESSAGE


@pytest.mark.parametrize("odd", ["", ',"channel":5,"timestamp":"now"'])
def test_halves_of_characters(odd: str) -> None:
    """
    Each becomes U+FFFD, as in clients' messages.
    """
    notification = decode_notification('{"event":"a.b","data":"\\ud83d\\ude00\\ud83d"' + odd + "}")

    assert json.loads(bytes(notification.data)) == "\N{GRINNING FACE}\N{REPLACEMENT CHARACTER}"
