"""
The short cut for plain handshakes against Autobahn's own: the same request gets the same answer from both.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import txaio
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from dcm_ws.websocket.connection import WebSocketConnection
from dcm_ws.websocket.extensions import settle_offers
from dcm_ws.websocket.shortcuts import plain_handshake, short_message
from tests.examples import examples
from tests.fakes import make_connections, make_core
from tests.websocket.test_short_messages import HANDSHAKE, AutobahnOnly, Transport, frame

LINES = HANDSHAKE.removesuffix(b"\r\n\r\n").split(b"\r\n")


def answer(kind: type[WebSocketConnection], request: bytes) -> tuple[bytes, object]:
    """
    What a connection answers to a request, without what changes with every answer, and its state.
    """
    clock = Clock()
    clock.advance(1000)
    before = txaio.config.loop  # type: ignore[attr-defined]
    txaio.config.loop = clock  # type: ignore[attr-defined]
    try:
        core = make_core(clock)
        factory = make_connections(core, clock, connection=kind)
        connection: Any = factory.buildProtocol(None)
        transport = Transport()
        connection.makeConnection(transport)
        connection.dataReceived(request)
        clock.advance(0)
        return re.sub(rb'"error":"[^"]*"', b"", transport.value()), connection.state
    finally:
        txaio.config.loop = before  # type: ignore[attr-defined]


CHANGES = st.sampled_from(
    [
        (b"GET / ", b"GET /ws?agent_id=a&session_id=b "),
        (b"GET / ", b"GET /?agent_id=a%20b "),
        (b"GET / ", b"GET /?token=x "),
        (b"GET / ", b"GET /#x "),
        (b"GET / ", b"POST / "),
        (b"GET / ", b"GET  / "),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"HTTP/1.1", b"HTTP/1.1 "),
        (b"Host: localhost", b"Host: localhost:80"),
        (b"Host: localhost", b"Host: localhost:x"),
        (b"Host: localhost", b"Host: [::1]:80"),
        (b"Host: localhost", b"Host: a\r\nHost: b"),
        (b"Host: localhost\r\n", b""),
        (b"Upgrade: websocket", b"Upgrade: WebSocket"),
        (b"Upgrade: websocket", b"Upgrade: h2c, websocket"),
        (b"Upgrade: websocket", b"UPGRADE:websocket"),
        (b"Upgrade: websocket", b"Upgrade : websocket"),
        (b"Connection: Upgrade", b"Connection: keep-alive, Upgrade"),
        (b"Connection: Upgrade", b"Connection: close"),
        (b"AAAAAAAAAAAAAAAAAAAAAA==", b"AAAAAAAAAAAAAAAAAAAAA==="),
        (b"AAAAAAAAAAAAAAAAAAAAAA==", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"AAAAAAAAAAAAAAAAAAAAAA==", b"AAAA"),
        (b"Version: 13", b"Version: 8"),
        (b"Version: 13", b"Version: 13, 8"),
        (b"Version: 13", b"Version: x"),
        (b"Version: 13", b"Version: 13\r\nOrigin: http://a"),
        (b"Version: 13", b"Version: 13\r\nOrigin: http://a:b:c"),
        (b"Version: 13", b"Version: 13\r\nSec-WebSocket-Protocol: a, b"),
        (b"Version: 13", b"Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate"),
        (b"Version: 13", b"Version: 13\r\nAuthorization: Bearer x"),
        (b"Version: 13", b"Version: 13\r\nX-Y: \xff"),
        (b"Version: 13", b"Version: 13\r\nX-Y: \x85Z: a"),
        (b"Version: 13", b"Version: 13\r\nX-Y"),
        (b"Version: 13", b"Version: 13\r\nUser-Agent: some thing/1.0 (x; y)"),
    ]
)


@settings(max_examples=examples(400))
@given(changes=st.lists(CHANGES, max_size=4), more=st.sampled_from([b"", b"\x81\x80\0\0\0\0", b"\x88\x80\0\0\0\0"]))
def test_both_ways_of_shaking_hands_agree(changes: list[tuple[bytes, bytes]], more: bytes) -> None:
    """
    Whatever is usual or odd about a request, the answer is the one that Autobahn gives.
    """
    request = HANDSHAKE
    for old, new in changes:
        request = request.replace(old, new, 1)

    # what Autobahn reads by itself has been settled before
    settled = settle_offers(request.removesuffix(b"\r\n\r\n"), compression=False) + b"\r\n\r\n"
    assert answer(WebSocketConnection, request + more) == answer(AutobahnOnly, settled + more)


def test_the_customary_handshakes_are_plain() -> None:
    """
    What programs send is read directly, with its path, query and headers.
    """
    handshake = plain_handshake(
        b"GET /ws?agent_id=a HTTP/1.1\r\nHost: 127.0.0.1:3849\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer a.b"
    )

    assert handshake is not None
    assert handshake.target == "/ws?agent_id=a"
    assert handshake.headers["authorization"] == "Bearer a.b"
    # the example of RFC 6455, section 1.3
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in handshake.response("test")


@pytest.mark.parametrize("line", LINES)
def test_nothing_may_be_missing(line: bytes) -> None:
    """
    A request without one of its lines is not plain.
    """
    assert plain_handshake(b"\r\n".join(LINES)) is not None
    assert plain_handshake(b"\r\n".join(other for other in LINES if other is not line)) is None


@pytest.mark.parametrize(
    "name", ["", " ", "X Y", " X-Y", "X-Y ", "X\tY", "X_Y", "X(Y)", "X/Y", "X\x00Y", "X\x7fY", '"X"', "@"]
)
def test_header_names_are_tokens(name: str) -> None:
    """
    A request with a header whose name is unusual is not plain.
    """
    assert plain_handshake(b"\r\n".join((*LINES, b"X-Y: v"))) is not None
    assert plain_handshake(b"\r\n".join((*LINES, f"{name}: v".encode()))) is None


@pytest.mark.parametrize("character", ["\x00", "\x01", "\t", "\n", "\x0b", "\x0c", "\r", "\x1b", "\x1f", "\x7f"])
@pytest.mark.parametrize("value", ["%s", "a%s", "%sa", "a%sb", "a%sX-Forwarded-For: 192.0.2.1"])
def test_header_values_have_no_control_characters(value: str, character: str) -> None:
    """
    A request with a control character in a header is not plain.
    """
    assert plain_handshake(b"\r\n".join((*LINES, f"X-Y: {value % character}".encode()))) is None


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 1000, 65_535])
def test_size_limit_of_short_messages(size: int) -> None:
    """
    A message may be as long as the limit, and not one byte longer.
    """
    data = frame(0x81, b"x" * size)
    for longest in (size, size + 1):
        assert short_message(data, 0, longest) == ("x" * size, len(data))
    assert short_message(data, 0, size - 1) is None
