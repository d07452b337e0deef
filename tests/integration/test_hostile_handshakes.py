"""
Hostile clients before there is a WebSocket: TCP, request heads, handshakes, and HTTP.
"""

from __future__ import annotations

import json
import os
import random
import resource
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from tests.integration.attacks import (
    besieged,
    narrow,
    push,
    read_to_the_end,
    resident,
    serve_at_once,
    status,
)
from tests.integration.clients import client_frame, handshake
from tests.integration.machine import until
from tests.integration.running import Service
from tests.integration.sharing import SharedServices

pytestmark = pytest.mark.integration

MIB = 1 << 20
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def running(services: SharedServices) -> Iterator[Service]:
    with besieged(services.get("--handshake-timeout", "1")) as running:
        yield running


def ask_for(running: Service, request: bytes) -> bytes:
    """
    What a connection of its own is answered, to its end.
    """
    plain = running.socket()
    push(plain, request)
    return read_to_the_end(plain)


def reset(plain: socket.socket) -> None:
    """
    End a connection with a RST.
    """
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    plain.close()


# connections


def test_half_open_connections(running: Service) -> None:
    """
    Hundreds of connections that send nothing are closed when their time is up; those who send are not kept waiting.
    """
    before = running.stats()["limits"]["handshakeTimeout"]
    silent = [running.socket() for _ in range(300)]
    serve_at_once(running)
    for plain in silent:
        assert status(read_to_the_end(plain)) == 408
    assert running.stats()["limits"]["handshakeTimeout"] == before + 300


def test_connect_and_reset(running: Service) -> None:
    """
    Connections that are reset as soon as they are made, or in the middle of anything, leave nothing behind.
    """
    files = len(os.listdir(f"/proc/{running.process.pid}/fd"))
    stages = (b"", b"G", HEALTH[:-2], HEALTH, handshake(), handshake() + b"\x81", handshake() + b"\x89\x80\0\0\0\0")
    for stage in stages:
        for _ in range(60):
            plain = running.socket()
            push(plain, stage)
            reset(plain)
    until(lambda: len(os.listdir(f"/proc/{running.process.pid}/fd")) <= files + 1)


def test_no_file_descriptors_left(services: SharedServices) -> None:
    """
    Where the system has no file left for one more connection, those that are there stay, and others come in later.
    """
    shared = services.get("--handshake-timeout", "1")
    with besieged(shared):
        pid = shared.process.pid
        client = shared.connect_raw()
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = len(os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 5, limits[1]))
        try:
            crowd = [shared.socket() for _ in range(30)]
            client.socket.sendall(b"\x81\x8f\0\0\0\0" + b'{"type":"ping"}')
            assert client.hear()["type"] == "pong"
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        for plain in crowd:
            plain.close()


# heads


def test_slow_loris(running: Service) -> None:
    """
    Heads that come byte by byte are cut off when their time is up, however many bytes have come.
    """
    slow = [running.socket() for _ in range(20)]
    request = handshake()
    done = threading.Event()

    def drip() -> None:
        for byte in request:
            for plain in slow:
                push(plain, bytes((byte,)))
            if done.wait(0.1):
                break

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        started = time.monotonic()
        serve_at_once(running)
        for plain in slow:
            assert status(read_to_the_end(plain)) == 408
        assert time.monotonic() - started > 0.5
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("chunk", [b"x" * 1000, b"a: b\r\n" * 500, b"\r\n"[:1] * 1000, b"\0" * 1000])
def test_head_without_end(running: Service, chunk: bytes) -> None:
    """
    A head that does not end is refused at 16 KiB, whatever it is made of.
    """
    before = running.stats()["limits"]["maxHeadSize"]
    plain = running.socket()
    push(plain, b"GET / HTTP/1.1\r\nHost: x\r\n")
    for _ in range(30):
        if not push(plain, chunk):
            break
    answer = read_to_the_end(plain)
    # the answer may be lost with what was sent behind it
    assert not answer or status(answer) == 431
    assert running.stats()["limits"]["maxHeadSize"] == before + 1


@pytest.mark.parametrize(
    "head",
    [
        b"\0" * 100 + b"\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \0\r\nUpgrade: websocket\r\n\r\n",
        bytes(range(256)) + b"\r\n\r\n",
        b"\r\n\r\n",
        b"\r\n\r\n\r\n\r\n" + HEALTH,
        b"GET\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"\xff\xfe\xfd / HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1\r\n: no name\r\n\r\n",
        b"GET /health HTTP/1.1\r\n folded: at once\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost x\r\n\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n\r\n",
        b"EHLO mail.example.com\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        struct.pack("!II", 8, 80877103) + b"\r\n\r\n",
    ],
)
def test_garbage(running: Service, head: bytes) -> None:
    """
    What is no request gets an error or nothing, and the connection ends.
    """
    plain = running.socket()
    push(plain, head)
    plain.shutdown(socket.SHUT_WR)
    answer = read_to_the_end(plain)
    assert not answer or 200 <= status(answer) < 600


def test_tls_on_the_plain_port(running: Service) -> None:
    """
    A client that speaks TLS to the plain port is cut off in its time, and hears nothing that it could take for TLS.
    """
    context = ssl.create_default_context()
    plain = running.socket()
    with pytest.raises(OSError):
        context.wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize("upgrade", [b"", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"])
def test_thousands_of_headers(running: Service, upgrade: bytes) -> None:
    """
    As many headers as a head can hold are read, or refused.
    """
    request = b"GET / HTTP/1.1\r\nHost: x\r\n" + upgrade + b"".join(b"a%x:\r\n" % n for n in range(2000)) + b"\r\n"
    assert len(request) < 16 << 10
    assert status(ask_for(running, request)) in (400, 426)


# handshakes


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"GET", b"POST", 405),
        (b"GET", b"get", 405),
        (b"HTTP/1.1", b"HTTP/1.0", 505),
        (b"HTTP/1.1", b"HTTP/2.0", 505),
        (b"Version: 13", b"Version: 12", 426),
        (b"Version: 13", b"Version: 0", 426),
        (b"Version: 13", b"Version: -13", 426),
        (b"Version: 13", b"Version: thirteen", 400),
        (b"Version: 13", b"Version: " + b"1" * 5000, 400),
        (b"Version: 13", b"Version: 13\r\nSec-WebSocket-Version: 13", 400),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"", 400),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"short==", 400),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25j\xff\xff==", 400),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"x" * 10_000, 400),
        (b"Connection: Upgrade", b"Connection: close", 400),
        (b"Host: 127.0.0.1", b"Host: a\r\nHost: b", 400),
        (b"Host: 127.0.0.1", b"Host: a:b", 400),
        (b"Host: 127.0.0.1", b"Host: a:" + b"9" * 5000, 400),
        (b"Host: 127.0.0.1\r\n", b"", 400),
        (b"Host:", b"Origin: http://[::1\r\nHost:", 400),
        (b"Host:", b"Origin: a\r\nOrigin: b\r\nHost:", 400),
        (b"Host:", b"Origin: http://a:99999999\r\nHost:", 400),
        (b"GET /", b"GET /#fragment", None),
        (b"GET /", b"GET http://[::1", None),
        (b"GET /", b"GET http://[/ws", None),
        (b"GET /", b"GET http://\xe2\x84\x80/ws", 400),
        (b"GET /", b"GET http://evil.example/ws", 400),
        (b"GET /", b"GET http://127.0.0.1@evil.example/ws", 400),
        (b"GET /", b"GET /?%zz=%&;=&&&=" + b"&a" * 5000, 101),
        (b"GET /", b"GET /?agent_id=%ff%fe", 400),
        (b"GET /", b"GET /?agent_id=%00", 400),
        (b"GET /", b"GET /?token=%0d%0aSet-Cookie:%20x", 401),
        (b"Host:", b"Authorization: Bearer\r\nHost:", 101),
        (b"Host:", b"Authorization: Bearer \xff\xfe\r\nHost:", 401),
        (b"Host:", b"Sec-WebSocket-Protocol: a, a\r\nHost:", 400),
        (b"Host:", b"Sec-WebSocket-Protocol: ,,,\r\nHost:", 400),
        (b"Host:", b'Sec-WebSocket-Extensions: ;;;="\r\nHost:', 101),
        (b"Host:", b"Sec-WebSocket-Extensions: " + b"permessage-deflate," * 700 + b"\r\nHost:", 101),
    ],
)
def test_wrong_handshakes(running: Service, old: bytes, new: bytes, expected: int | None) -> None:
    """
    A handshake that is not as it should be is refused, by HTTP, with the status that says why.
    """
    plain = running.socket()
    request = handshake()
    assert old in request
    push(plain, request.replace(old, new, 1))
    if expected is None:
        plain.shutdown(socket.SHUT_WR)
    answer = plain.recv(1 << 16) if expected == 101 else read_to_the_end(plain)
    assert status(answer) == expected if expected else 400 <= status(answer) < 500
    assert b"Set-Cookie" not in answer
    if expected != 101:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert json.loads(body).keys() == {"error", "code", "timestamp"}, head


@pytest.mark.parametrize("seed", range(5))
def test_mutated_handshakes(running: Service, seed: int) -> None:
    """
    Hundreds of handshakes with bytes changed, lost and repeated by chance break nothing.
    """
    chance = random.Random(seed)
    text = handshake(
        "/ws?agent_id=a&session_id=b",
        "Origin: http://example.com",
        "Authorization: Bearer x",
        "X-Forwarded-For: 192.0.2.1, 192.0.2.2",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "Sec-WebSocket-Protocol: a, b",
    )
    for _ in range(60):
        request = bytearray(text)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(request) - 4)
            match chance.randrange(4):
                case 0:
                    request[at] = chance.choice(b"\0\t\n\r :;,=/?#[]@%\x85\xa0\xff0A")
                case 1:
                    del request[at : at + chance.randrange(1, 20)]
                case 2:
                    request[at:at] = request[at : at + chance.randrange(1, 40)]
                case 3:
                    request[at:at] = chance.choice(
                        [b"\r\n", b"%00", b"\xe2\x80\xa8", b"\x1c", b"[", b"://", b"9" * 300]
                    )
        if not request.endswith(b"\r\n\r\n"):
            request += b"\r\n\r\n"
        plain = running.socket()
        push(plain, bytes(request))
        plain.shutdown(socket.SHUT_WR)
        answer = read_to_the_end(plain)
        plain.close()
        assert not answer or 100 < status(answer) < 600


# HTTP


def test_enormous_body(running: Service) -> None:
    """
    A body of 64 MiB that nobody asked for is refused; it is not kept.
    """
    before = resident(running)
    plain = running.socket()
    push(plain, b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
    for _ in range(64):
        if not push(plain, bytes(MIB)):
            break
    assert status(plain.recv(1 << 16)) == 405
    assert resident(running) - before < 8 * MIB


def test_body_that_never_comes(running: Service) -> None:
    """
    Connections that announce a body and send none do not keep the others waiting.
    """
    for _ in range(50):
        push(running.socket(), b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n")
    serve_at_once(running)


def test_chunks_without_end(running: Service) -> None:
    """
    A chunked body without end is read and thrown away.
    """
    before = resident(running)
    plain = running.socket()
    push(plain, b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(200):
        assert push(plain, b"20000\r\n" + bytes(1 << 17) + b"\r\n")
    serve_at_once(running)
    assert resident(running) - before < 8 * MIB


@pytest.mark.parametrize("chunk", [b"f" * 20_000, b"1;" + b"x" * 20_000, b"-1\r\n", b"0x10\r\n", b" 5\r\nhello\r\n"])
def test_chunks_that_are_none(running: Service, chunk: bytes) -> None:
    """
    A chunk without a proper size ends the connection.
    """
    plain = running.socket()
    push(plain, b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
    answer = read_to_the_end(plain)
    assert not answer or status(answer) == 400


def test_pipelining(running: Service) -> None:
    """
    Ten thousand requests in one go are answered, each once, in their order, and the others do not wait for that.
    """
    plain = running.socket()
    paths = (b"/health", b"/nowhere", b"/ws")
    requests = [b"HEAD %b HTTP/1.1\r\nHost: x\r\n\r\n" % paths[n % 3] for n in range(9_999)]
    last = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    writer = threading.Thread(target=push, args=(plain, b"".join([*requests, last])))
    writer.start()
    serve_at_once(running)
    answer = read_to_the_end(plain)
    writer.join()
    codes = [int(piece[:3]) for piece in answer.split(b"HTTP/1.1 ")[1:]]
    assert codes == [200, 404, 426] * 3333 + [404]


def test_pipelining_without_reading(running: Service) -> None:
    """
    Who sends requests without end and reads no answer is not read any further: the answers do not pile up.
    """
    listener = running.connect_raw()
    for n in range(999):
        name = b"%d/%b" % (n, b"x" * 120)
        message = b'{"type":"subscribe","channel":"topics/%b"}' % name
        listener.socket.sendall(b"\x81\xfe" + len(message).to_bytes(2) + bytes(4) + message)
    until(lambda: running.stats()["activeChannels"] == 1000)
    before = resident(running)
    for _ in range(4):
        plain = narrow(running)
        plain.settimeout(1)
        with pytest.raises(TimeoutError):
            while push(plain, HEALTH * 1000):
                pass
        serve_at_once(running)
    assert resident(running) - before < 64 * MIB


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 6\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 5\n",
        b"Content-Length : 5\r\n",
        b"Content_Length: 5\r\nX: a\nContent-Length: 40\r\n",
    ],
)
def test_request_smuggling(running: Service, head: bytes) -> None:
    """
    A request whose length can be read in two ways is refused: no proxy in front can be made to see other requests.
    """
    smuggled = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    plain = running.socket()
    push(plain, b"POST /health HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n" + smuggled)
    answer = read_to_the_end(plain)
    assert status(answer) == 400
    assert answer.count(b"HTTP/1.1 ") == 1


def test_upgrade_with_a_body(running: Service) -> None:
    """
    A body behind a handshake is taken for frames, and is none: it is no second request.
    """
    request = handshake("/", "Content-Length: 30") + HEALTH
    answer = ask_for(running, request)
    assert status(answer) == 101
    assert answer.count(b"HTTP/1.1 ") == 1
    assert (1002).to_bytes(2) in answer


def test_upgrade_on_a_kept_connection(running: Service) -> None:
    """
    A connection that a proxy keeps for its next request can become a WebSocket once the last one is answered; it then
    counts as a client, and no longer as an HTTP connection.
    """
    plain = running.socket()
    for _ in range(3):
        push(plain, HEALTH)
        assert status(plain.recv(1 << 16)) == 200
    push(plain, handshake("/ws?agent_id=kept") + client_frame(b'{"type":"ping"}'))
    answer = b""
    while b"pong" not in answer:
        answer += plain.recv(1 << 16)
    assert status(answer) == 101
    # for a moment /health is what it was
    until(lambda: running.health()["connectedClients"] == 1)
    push(plain, client_frame(b'{"type":"ping","timestamp":1}'))
    assert b"pong" in plain.recv(1 << 16)
    plain.close()
    until(lambda: running.health()["connectedClients"] == 0)
    before = running.stats()["limits"]["allowedOrigin"]
    other = running.socket()
    push(other, HEALTH)
    assert status(other.recv(1 << 16)) == 200
    push(other, handshake("/ws", "Origin: http://[::1"))
    assert status(read_to_the_end(other)) == 400
    assert running.stats()["limits"]["allowedOrigin"] == before


@pytest.mark.parametrize("pieces", [2, 40])
def test_upgrade_on_a_kept_connection_in_pieces(running: Service, pieces: int) -> None:
    """
    The head of such a request may come in pieces, as long ones do.
    """
    plain = running.socket()
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = handshake("/ws", f"Cookie: {'c' * 15_000}") + client_frame(b'{"type":"ping"}')
    size = -(-len(request) // pieces)
    for data in (HEALTH, request):
        for start in range(0, len(data), size):
            push(plain, data[start : start + size])
            time.sleep(0.005)
        assert status(plain.recv(15)) == (200 if data is HEALTH else 101)
        if data is HEALTH:
            plain.recv(1 << 16)
    answer = b""
    while b"pong" not in answer:
        answer += plain.recv(1 << 16)


def test_upgrade_behind_a_request(running: Service) -> None:
    """
    A WebSocket cannot be opened by a request that is sent before the last one is answered.
    """
    plain = running.socket()
    push(plain, HEALTH + handshake().replace(b"Connection: Upgrade", b"Connection: Upgrade, close"))
    answer = read_to_the_end(plain)
    assert [int(piece[:3]) for piece in answer.split(b"HTTP/1.1 ")[1:]] == [200, 426]
