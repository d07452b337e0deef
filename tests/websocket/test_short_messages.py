"""
The short cut for short messages against Autobahn's own reading: whatever comes, in whatever pieces, both must agree.
"""

from __future__ import annotations

from typing import Any

import pytest
import txaio
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from dcm_ws.websocket.connection import WebSocketConnection
from tests.examples import examples
from tests.fakes import CONNECTION_LIMITS, make_connections, make_core

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class AutobahnOnly(WebSocketConnection):
    """
    Leaves every frame to Autobahn.
    """

    def dataReceived(self, data: bytes) -> None:
        self._dataReceived(data)


class Transport(StringTransport):
    """
    A transport as forgiving as the real ones.
    """

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        self.producer = None


def answers(kind: type[WebSocketConnection], pieces: list[bytes], limit: int) -> tuple[bytes, object, object]:
    """
    What a connection answers to a stream of bytes, and the state it ends in.
    """
    clock = Clock()
    clock.advance(1000)
    before = txaio.config.loop  # type: ignore[attr-defined]
    txaio.config.loop = clock  # type: ignore[attr-defined]
    try:
        core = make_core(clock)
        factory = make_connections(core, clock, CONNECTION_LIMITS._replace(message=limit), kind)
        connection: Any = factory.buildProtocol(None)
        transport = Transport()
        connection.makeConnection(transport)
        connection.dataReceived(HANDSHAKE)
        clock.advance(0)
        for piece in pieces:
            if transport.disconnecting:
                break
            connection.dataReceived(piece)
            clock.advance(0)
        return transport.value(), connection.state, transport.disconnecting
    finally:
        txaio.config.loop = before  # type: ignore[attr-defined]


def frame(first: int, payload: bytes, mask: bytes = b"\x01\x02\x03\x04", masked: bool = True) -> bytes:
    """
    A client's frame, its length written the short way.
    """
    size, bit = len(payload), 0x80 if masked else 0
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 1 << 16:
        head = bytes((first, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, bit | 127)) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    return head + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))


MESSAGES = st.one_of(
    st.sampled_from(
        [
            b'{"type":"ping"}',
            b'{"type":"subscribe","channel":"metrics","id":1}',
            b'{"type":"publish","channel":"global","event":"task.created","data":{"x":1},"id":"p"}',
            '{"type":"subscribe","channel":"topics/ü","id":2}'.encode(),
            b'{"type":"ping","pad":"' + b"x" * 200 + b'"}',
            b'{"type":"ping","pad":"' + b"y" * 70_000 + b'"}',
            b"",
            b"\xff\xfe",
            b"\xed\xa0\x80",
        ]
    ),
    st.binary(max_size=140),
)
MASKS = st.sampled_from([b"\0\0\0\0", b"\x01\x02\x03\x04", b"\xff\xff\xff\xff"])
FRAMES = st.one_of(
    # nearly all that clients send
    st.builds(frame, st.just(0x81), MESSAGES, MASKS),
    # all else: binary, fragments, control frames, reserved bits and opcodes, no mask
    st.builds(frame, st.sampled_from([0x82, 0x01, 0x00, 0x80, 0x89, 0x8A, 0xC1, 0x83, 0x8B]), MESSAGES, MASKS),
    st.builds(frame, st.just(0x88), st.sampled_from([b"", b"\x03\xe8", b"\x03\xe8bye", b"\x00\x01"]), MASKS),
    st.builds(frame, st.just(0x81), MESSAGES, MASKS, st.just(False)),
    # a length that is not written the shortest way
    st.just(b"\x81\xfe\x00\x05\0\0\0\0hello"),
    st.just(b"\x81\xff" + (300).to_bytes(8, "big") + b"\0\0\0\0" + b"z" * 300),
)


@settings(max_examples=examples(400))
@given(
    frames=st.lists(FRAMES, max_size=8),
    cuts=st.lists(st.integers(1, 4000), max_size=40),
    limit=st.sampled_from([100, 1 << 20]),
)
def test_both_ways_of_reading_agree(frames: list[bytes], cuts: list[int], limit: int) -> None:
    """
    The same bytes in the same pieces get the same answers from the short cut and from Autobahn.
    """
    data, pieces = b"".join(frames), []
    for cut in cuts:
        pieces.append(data[:cut])
        data = data[cut:]
    pieces = [piece for piece in (*pieces, data) if piece]

    assert answers(WebSocketConnection, pieces, limit) == answers(AutobahnOnly, pieces, limit)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_messages_arrive_in_order_in_pieces_of_any_size(size: int) -> None:
    """
    A stream of messages cut into equal pieces is answered message by message.
    """
    stream = b"".join(frame(0x81, b'{"type":"subscribe","channel":"topics/t%d","id":%d}' % (n, n)) for n in range(60))
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    written: Any = answers(WebSocketConnection, pieces, 1 << 20)[0]

    places = [written.index(b'"id":%d,"success":true' % n) for n in range(60)]
    assert places == sorted(places)
