"""
Hostile clients that speak WebSocket, as far as it goes: fragments, control frames, lies, compression, and not reading.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.integration.attacks import (
    Attacker,
    besieged,
    deaf,
    deflated,
    frame,
    narrow,
    push,
    read_to_the_end,
    resident,
    serve_at_once,
)
from tests.integration.clients import ask, client_frame, hear, say, unsubscribe_global
from tests.integration.machine import until
from tests.integration.running import Service
from tests.integration.sharing import SharedServices

pytestmark = pytest.mark.integration

PING = b'{"type":"ping"}'
MIB = 1 << 20


@pytest.fixture
def running(services: SharedServices) -> Iterator[Service]:
    with besieged(services.get("--ack-timeout", "30")) as running:
        yield running


@pytest.fixture
def compressing(services: SharedServices) -> Iterator[Service]:
    with besieged(services.get("--compression", "on")) as running:
        yield running


def closes(running: Service, code: int) -> int:
    """
    How often the service has closed a connection with C{code}.
    """
    n: int = running.stats()["closes"].get(str(code), 0)
    return n


# fragments


def test_fragment_flood(running: Service) -> None:
    """
    Tens of thousands of tiny fragments count together: past 1 MiB the message is refused with 1009.
    """
    client = running.connect_raw()
    flood = frame(b"x" * 60, 1, final=False) + frame(b"x" * 60, 0, final=False) * (MIB // 60)
    push(client.socket, flood)
    assert client.close_code() == 1009


def test_message_in_ever_so_many_fragments(running: Service) -> None:
    """
    A message below the limit is read, in however many fragments it comes.
    """
    client = running.connect_raw()
    text = b'{"type":"subscribe","channel":"metrics","id":7' + b" " * 50_000 + b"}"
    pieces = [frame(text[:2], 1, final=False)]
    pieces += [frame(text[at : at + 2], 0, final=False) for at in range(2, len(text), 2)]
    client.socket.sendall(b"".join(pieces) + frame(b"", 0))
    assert client.hear()["id"] == 7


def test_message_that_never_ends(running: Service) -> None:
    """
    Empty fragments without end: they take no memory, and the client is read on.
    """
    clients = [running.connect_raw() for _ in range(4)]
    before = resident(running)
    for client in clients:
        client.socket.sendall(frame(b"{", 1, final=False) + frame(b"", 0, final=False) * 50_000)
    # a Ping may stand between two fragments: its answer says that all before it have been read
    for client in clients:
        client.socket.sendall(frame(b"read?", 9))
        assert client.read() == (10, b"read?")
    assert resident(running) - before < 4 * MIB


def test_frame_byte_by_byte(running: Service) -> None:
    """
    Who sends a frame byte by byte holds up nobody, and is answered when it is done.
    """
    client = deaf(running)
    for byte in frame(PING):
        client.socket.sendall(bytes((byte,)))
        serve_at_once(running)
    assert client.hear()["type"] == "pong"


# control frames


def test_ping_flood(running: Service) -> None:
    """
    A flood of Pings is answered, Ping by Ping, and leaves the others alone.
    """
    client = deaf(running)
    for _ in range(20):
        client.socket.sendall(frame(b"p" * 125, 9) * 500)
        serve_at_once(running)
        for _ in range(500):
            assert client.read() == (10, b"p" * 125)


def test_ping_flood_from_one_that_does_not_read(running: Service) -> None:
    """
    Who sends Pings and does not read the Pongs is closed with 4008: they must not pile up.
    """
    before, slow = resident(running), closes(running, 4008)
    client = Attacker(narrow(running))
    until(lambda: not push(client.socket, frame(b"p" * 125, 9) * 4000) or closes(running, 4008) > slow, 60)
    assert closes(running, 4008) == slow + 1
    assert resident(running) - before < 24 * MIB


def test_pong_flood(running: Service) -> None:
    """
    Pongs nobody asked for are read and forgotten, frames and messages alike.
    """
    client = running.connect_raw()
    before = resident(running)
    for _ in range(10):
        client.socket.sendall(frame(b"p" * 125, 10) * 1000 + frame(b'{"type":"pong"}') * 2000)
    client.socket.sendall(frame(PING))
    assert client.hear()["type"] == "pong"
    assert resident(running) - before < 8 * MIB


def test_close_flood(running: Service) -> None:
    """
    A client that says goodbye ten thousand times is answered once.
    """
    client = running.connect_raw()
    push(client.socket, client_frame((1000).to_bytes(2), 8) * 10_000)
    assert client.read() == (8, (1000).to_bytes(2))
    assert read_to_the_end(client.socket) == b""


@pytest.mark.parametrize("code", [0, 999, 1005, 1006, 1015, 2999, 5000, 65_535])
def test_close_code_that_must_not_be_sent(running: Service, code: int) -> None:
    """
    A goodbye with a code that no client may send (RFC 6455, section 7.4) is the end all the same.
    """
    client = running.connect_raw()
    client.socket.sendall(client_frame(code.to_bytes(2), 8))
    assert client.close_code() == 1002
    assert read_to_the_end(client.socket) == b""


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1009, 1011, 1012, 1014, 3000, 3999, 4000, 4001, 4999])
@pytest.mark.parametrize("reason", [b"", "à bientôt".encode()])
def test_close_code_is_echoed(running: Service, code: int, reason: bytes) -> None:
    """
    A goodbye is answered with its own code and reason (RFC 6455, section 5.5.1): clients look at the code.
    """
    client = running.connect_raw()
    client.socket.sendall(client_frame(code.to_bytes(2) + reason, 8))
    assert client.read() == (8, code.to_bytes(2) + reason)
    assert read_to_the_end(client.socket) == b""


def test_close_without_a_code(running: Service) -> None:
    """
    A goodbye without a code is answered without one.
    """
    client = running.connect_raw()
    client.socket.sendall(client_frame(b"", 8))
    assert client.read() == (8, b"")
    assert read_to_the_end(client.socket) == b""


def test_close_of_one_byte(running: Service) -> None:
    """
    Half a code is a breach of the protocol.
    """
    client = running.connect_raw()
    client.socket.sendall(client_frame(b"\x03", 8))
    assert client.close_code() == 1002


def test_goodbye_to_a_goodbye(running: Service) -> None:
    """
    The answers to what was sent before a goodbye come before its echo.
    """
    client = running.connect_raw()
    client.socket.sendall(client_frame(PING) * 3 + client_frame((4999).to_bytes(2), 8))
    assert [client.hear()["type"] for _ in range(3)] == ["pong"] * 3
    assert client.close_code() == 4999


# frames that are none


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *((0xC1, 0x80), (0xA1, 0x80), (0x91, 0x80), (0x83, 0x80), (0x87, 0x80), (0x8B, 0x80), (0x8F, 0x80)),
        *((0x81, 0x00), (0x81, 0x7F), (0x09, 0x80), (0x89, 0xFE), (0x80, 0x80)),
    ],
)
def test_broken_frames(running: Service, first: int, second: int) -> None:
    """
    Reserved bits and opcodes, no mask, control frames that are long or in pieces: closed with 1002.
    """
    client = running.connect_raw()
    push(client.socket, bytes((first, second)) + bytes(20))
    assert client.close_code() == 1002


@pytest.mark.parametrize(
    ("length", "code"),
    [
        (b"\xff" + (2**63 - 1).to_bytes(8), 1009),
        (b"\xff" + (2**63).to_bytes(8), 1002),
        (b"\xff" + (2**64 - 1).to_bytes(8), 1002),
        (b"\xff" + (MIB + 1).to_bytes(8), 1009),
        # not the shortest way to say it (RFC 6455, section 5.2)
        (b"\xff" + (5).to_bytes(8), 1002),
        (b"\xfe" + (5).to_bytes(2), 1002),
    ],
)
def test_lies_about_the_length(running: Service, length: bytes, code: int) -> None:
    """
    A frame that says it is enormous is refused at its head, and nothing is put by for it.
    """
    client = running.connect_raw()
    before = resident(running)
    push(client.socket, b"\x81" + length + bytes(4) + b"hello")
    assert client.close_code() == code
    assert resident(running) - before < 4 * MIB


@pytest.mark.parametrize("breach", [b"\xc1\x80\0\0\0\0", b"\x81\xff" + (2**62).to_bytes(8) + bytes(4)])
def test_talking_on_after_a_breach(running: Service, breach: bytes) -> None:
    """
    Who has broken the protocol and goes on sending is not listened to, and is cut off within seconds.
    """
    client = running.connect_raw()
    before = resident(running)
    client.socket.sendall(breach)
    most = 0
    while push(client.socket, b"\x81\x05hello" * 10_000):
        most = max(most, resident(running) - before)
    assert most < 32 * MIB


def test_invalid_utf8_split_over_fragments(running: Service) -> None:
    """
    Text that is not UTF-8 is refused with 1007, also where the break between two fragments hides it.
    """
    for pieces in ([b"\xf0\x9f", b"\x98A"], [b"\xc3", b""], [b"\xed", b"\xa0", b"\x80"], [b"ok" * 50_000, b"\xff"]):
        client = running.connect_raw()
        first, *others = pieces
        data = frame(first, 1, final=False) + b"".join(frame(piece, 0, final=False) for piece in others)
        push(client.socket, data + frame(b"", 0))
        assert client.close_code() == 1007
    # while a character that is merely cut in two is none
    client = running.connect_raw()
    text = json.dumps({"type": "subscribe", "channel": "metrics", "id": "\N{GRINNING FACE}"}, ensure_ascii=False)
    data = text.encode()
    cut = data.index(b"\xf0") + 2
    client.socket.sendall(frame(data[:cut], 1, final=False) + frame(data[cut:], 0))
    assert client.hear()["id"] == "\N{GRINNING FACE}"


# not reading


def test_clients_that_never_read(running: Service) -> None:
    """
    Clients that never read are closed with 4008, each by itself; one that reads misses nothing and waits for nobody.
    """
    slow, before = closes(running, 4008), resident(running)
    asleep = [Attacker(narrow(running)) for _ in range(5)]
    reader, publisher = running.connect(), running.connect()
    unsubscribe_global(publisher)
    published = 0
    while closes(running, 4008) < slow + len(asleep):
        for _ in range(10):
            data = {"n": published, "fill": "x" * 100_000}
            say(publisher, type="publish", channel="global", event="system.info", data=data)
            assert hear(reader)["data"]["n"] == published
            published += 1
        assert published < 1000
    assert resident(running) - before < (len(asleep) * 5 + 16) * MIB
    # what the kernel has, and no more
    for client in asleep:
        assert len(read_to_the_end(client.socket)) < 8 * MIB


def test_little_waits_in_the_kernel(running: Service) -> None:
    """
    A client with the usual buffers that does not read is found out after not much more than the limit, since the
    service's kernel does not take megabytes for it.
    """
    slow = closes(running, 4008)
    asleep = Attacker(running.socket())
    publisher = running.connect()
    unsubscribe_global(publisher)
    published = 0
    while closes(running, 4008) == slow:
        published += 1
        message = {"type": "publish", "channel": "global", "event": "system.info", "data": "x" * 100_000}
        ask(publisher, **message, id=published)
    assert published * 100_000 < 5.5 * MIB
    asleep.socket.close()


def test_client_that_reads_byte_by_byte(running: Service) -> None:
    """
    A client that reads one byte at a time is as slow as one that does not read at all.
    """
    slow = closes(running, 4008)
    trickle = narrow(running)
    Attacker(trickle)
    publisher = running.connect()
    unsubscribe_global(publisher)

    def closed() -> bool:
        for _ in range(10):
            say(publisher, type="publish", channel="global", event="system.info", data="x" * 100_000)
            trickle.recv(1)
        return closes(running, 4008) > slow

    until(closed)


def test_goodbye_from_one_that_never_reads(running: Service) -> None:
    """
    A client that has let much pile up, says goodbye and still does not read is cut off: its memory is free.
    """
    client = Attacker(narrow(running))
    publisher = running.connect()
    unsubscribe_global(publisher)
    for number in range(30):
        message = {"type": "publish", "channel": "global", "event": "system.info", "data": "x" * 100_000}
        ask(publisher, **message, id=number)
    assert running.stats()["connectedClients"] == 2
    client.socket.sendall(client_frame((1000).to_bytes(2), 8))
    # whatever it says now is not listened to, and keeps nothing alive
    until(lambda: not push(client.socket, frame(PING)))
    until(lambda: running.stats()["connectedClients"] == 1)


# compression


OFFER = "Sec-WebSocket-Extensions: permessage-deflate"


def connect_compressing(running: Service) -> Attacker:
    """
    A client whose C{permessage-deflate} was accepted; it reads compressed frames as they are.
    """
    plain = running.socket()
    client = Attacker(plain, OFFER)
    client.read()
    return client


@pytest.mark.parametrize("fragments", [1, 50])
def test_deflate_bomb(compressing: Service, fragments: int) -> None:
    """
    A message of some 100 KiB that inflates to 128 MiB is refused with 1009, before it has been inflated.
    """
    bomb = deflated(iter([bytes(MIB)] * 128))
    assert len(bomb) < MIB // 4
    client = connect_compressing(compressing)
    before = resident(compressing)
    size = -(-len(bomb) // fragments)
    pieces = [bomb[at : at + size] for at in range(0, len(bomb), size)]
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        push(client.socket, frame(piece, 0 if number else 1, final=last, rsv=0 if number else 4))
    assert client.close_code() == 1009
    assert resident(compressing) - before < 8 * MIB


def test_deflate_bombs_after_the_refusal(compressing: Service) -> None:
    """
    More bombs behind the one that was refused are not inflated either.
    """
    bomb = frame(deflated(iter([bytes(MIB)] * 64)), 1, rsv=4)
    client = connect_compressing(compressing)
    before = resident(compressing)
    most = 0
    while push(client.socket, bomb * 20):
        most = max(most, resident(compressing) - before)
    assert most < 32 * MIB


@pytest.mark.parametrize("payload", [b"\xff" * 100, b"\x07", b"\xed\xfd" * 1000])
def test_what_does_not_inflate(compressing: Service, payload: bytes) -> None:
    """
    Bytes that are no deflate stream are refused, with 1007.
    """
    client = connect_compressing(compressing)
    push(client.socket, frame(payload, 1, rsv=4))
    assert client.close_code() == 1007


def test_compressed_control_frame(compressing: Service) -> None:
    """
    Control frames are not compressed (RFC 7692, section 6.1): 1002.
    """
    client = connect_compressing(compressing)
    push(client.socket, frame(b"", 9, rsv=4))
    assert client.close_code() == 1002


def test_compression_that_nobody_offered(running: Service) -> None:
    """
    Where compression is off, an offer is passed over, and a compressed message is a breach of the protocol.
    """
    client = Attacker(running.socket(), OFFER)
    client.hear()
    push(client.socket, frame(deflated(iter([PING])), 1, rsv=4))
    assert client.close_code() == 1002
