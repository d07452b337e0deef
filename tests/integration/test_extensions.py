"""
Offers of extensions, legal, odd and malformed, by raw sockets: each opens the WebSocket, with the extension or without.
"""

from __future__ import annotations

import json
import zlib

import pytest

from tests.integration.attacks import Attacker, deflated, frame, push
from tests.integration.clients import client_frame, handshake
from tests.integration.running import Service
from tests.integration.sharing import SharedServices

pytestmark = pytest.mark.integration

ACCEPTED = [
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; client_max_window_bits=8",
    "permessage-deflate; server_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=15; client_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; server_max_window_bits=8, permessage-deflate",
    "permessage-deflate; unknown=1, permessage-deflate; server_max_window_bits=10",
    "x-webkit-deflate-frame, permessage-deflate; client_max_window_bits",
    "permessage-deflate\r\nSec-WebSocket-Extensions: x-other",
    "x-other; a=1\r\nSec-WebSocket-Extensions: permessage-deflate",
]
DECLINED = [
    "permessage-deflate; server_max_window_bits=8",
    "permessage-deflate; server_max_window_bits",
    "permessage-deflate; server_max_window_bits=7",
    "permessage-deflate; server_max_window_bits=abc",
    "permessage-deflate; client_max_window_bits=99",
    "permessage-deflate; client_no_context_takeover=1",
    "permessage-deflate; unknown",
    "permessage-deflate; client_max_window_bits; client_max_window_bits",
    "permessage-bzip2",
    "permessage-snappy; a; a",
    "x-webkit-deflate-frame",
    "",
    ";",
    "permessage-deflate; ; =",
    'permessage-deflate; a="',
    "permessage-deflate; \xff",
]


@pytest.fixture(params=["off", "on"])
def compression(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture
def compressing(services: SharedServices) -> Service:
    return services.get("--compression", "on")


def opened(running: Service, extensions: str) -> tuple[bytes, bytes]:
    """
    The head of the answer to a handshake with such offers, and the answer to a ping in the WebSocket.
    """
    with running.socket() as plain:
        plain.sendall(handshake("/", f"Sec-WebSocket-Extensions: {extensions}"))
        plain.sendall(client_frame(b'{"type":"ping"}'))
        data = b""
        while b'"pong"' not in data:
            piece = plain.recv(1 << 16)
            assert piece, data
            data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


@pytest.mark.parametrize("extensions", [*ACCEPTED, *DECLINED], ids=ascii)
def test_offers(services: SharedServices, compression: str, extensions: str) -> None:
    """
    An offer that can be accepted is, where compression is on; every other one is declined, and never refused.
    """
    running = services.get("--compression", compression)
    head, _ = opened(running, extensions)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert (b"permessage-deflate" in head) is (compression == "on" and extensions in ACCEPTED)


@pytest.mark.parametrize("bits", [9, 10, 15])
def test_small_windows_are_kept_to(compressing: Service, bits: int) -> None:
    """
    A client that asked for a small window can inflate what it is sent, and what it sends is inflated.
    """
    offer = f"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits={bits}"
    client = Attacker(compressing.socket(), offer)
    # `connected`, which is compressed as well
    client.read()
    data = json.dumps([f"item {n} of many" for n in range(2000)])
    message = f'{{"type":"publish","channel":"global","event":"system.info","data":{data}}}'
    push(client.socket, frame(deflated(iter([message.encode()])), 1, rsv=4))
    _, payload = client.read()
    inflate = zlib.decompressobj(wbits=-bits)
    assert json.loads(inflate.decompress(payload + b"\x00\x00\xff\xff"))["data"] == json.loads(data)
