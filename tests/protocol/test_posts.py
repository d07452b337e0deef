"""
What is published over HTTP.
"""

from __future__ import annotations

import pytest

from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.posts import Post, decode_posts


def test_one_event() -> None:
    """
    One event is an object; what a WebSocket message has besides is ignored.
    """
    post = decode_posts(b' {"type":"publish","channel":"global","event":"x","data":{"a": 1},"key":"k","id":7}\n')
    assert isinstance(post, Post)
    assert (post.channel, post.event, bytes(post.data), post.key) == ("global", "x", b'{"a": 1}', "k")
    bare = decode_posts(b'{"channel":"global","event":"x"}')
    assert isinstance(bare, Post)
    assert (bytes(bare.data), bare.key) == (b"null", None)


def test_several_events() -> None:
    """
    Several events are an array, which may be empty.
    """
    posts = decode_posts('[{"channel":"a","event":"x","data":"é"},{"channel":"b","event":"y"}]'.encode())
    assert isinstance(posts, list)
    assert [(post.channel, bytes(post.data)) for post in posts] == [("a", '"é"'.encode()), ("b", b"null")]
    assert decode_posts(b"[]") == []


def test_lone_surrogate() -> None:
    """
    A lone surrogate becomes a replacement character, as over WebSockets.
    """
    post = decode_posts(b'{"channel":"global","event":"x\\ud800"}')
    assert isinstance(post, Post)
    assert post.event == "x\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", ErrorCode.PARSE_ERROR),
        (b"channel=global", ErrorCode.PARSE_ERROR),
        (b"\xff", ErrorCode.PARSE_ERROR),
        (b'{"channel":"global","event":"x"', ErrorCode.PARSE_ERROR),
        (b"[" * 100_000, ErrorCode.INVALID_MESSAGE),
        (b"1", ErrorCode.INVALID_MESSAGE),
        (b"[1]", ErrorCode.INVALID_MESSAGE),
        (b'{"channel":"global"}', ErrorCode.INVALID_MESSAGE),
        (b'{"channel":1,"event":"x"}', ErrorCode.INVALID_MESSAGE),
        (b'{"channel":"global","event":"x","key":"%b"}' % (b"k" * 129), ErrorCode.INVALID_MESSAGE),
    ],
)
def test_bodies_that_are_invalid(body: bytes, code: ErrorCode) -> None:
    """
    The error says if the body is not JSON, or has a wrong field.
    """
    with pytest.raises(ProtocolError) as error:
        decode_posts(body)
    assert error.value.code is code
