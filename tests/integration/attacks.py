"""
What hostile clients are made of, and what must hold once they are gone.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

from tests.integration.clients import RawClient, ask, ask_past_events, handshake, hear, say, unsubscribe_global
from tests.integration.machine import until
from tests.integration.running import Service
from tests.integration.tokens import make_token

AT_ONCE = 2.0
"""
Seconds of processor time that the service may use until a well-behaved client has been served.
"""

_ORDINARY = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (?:debug|info|warn) +\[[\w.#-]+\] ")


def frame(
    payload: bytes = b"", opcode: int = 1, *, final: bool = True, rsv: int = 0, length: int | None = None
) -> bytes:
    """
    One frame of any length as a client sends it, masked.

    @param length: what the frame says its length is, where that is a lie.
    """
    size = len(payload) if length is None else length
    if size < 126:
        head = bytes((0x80 | size,))
    elif size < 1 << 16:
        head = b"\xfe" + size.to_bytes(2)
    else:
        head = b"\xff" + size.to_bytes(8)
    mask = b"\x12\x34\x56\x78"
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    masked = (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(len(payload))
    return bytes((0x80 * final | rsv << 4 | opcode,)) + head + mask + masked


def deflated(chunks: Iterator[bytes]) -> bytes:
    """
    The payload of a compressed message (RFC 7692, section 7.2.1).
    """
    deflate = zlib.compressobj(level=9, wbits=-15)
    data = b"".join(map(deflate.compress, chunks)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return data[:-4]


def push(plain: socket.socket, data: bytes) -> bool:
    """
    Send C{data}, reading nothing.  False where the connection ended meanwhile.
    """
    try:
        plain.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def read_to_the_end(plain: socket.socket) -> bytes:
    """
    All that still comes before the server ends the connection, in order or not.
    """
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while data := plain.recv(1 << 16):
            answer += data
    return answer


def status(answer: bytes) -> int:
    """
    The status of an HTTP answer.
    """
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    return int(answer[9:12])


class Attacker(RawClient):
    """
    A client that may send further headers, and has read nothing after the handshake.
    """

    def __init__(self, plain: socket.socket, *headers: str, path: str = "/") -> None:
        self.socket = plain
        self._data = b""
        plain.sendall(handshake(path, *headers))
        while b"\r\n\r\n" not in self._data:
            self._receive()
        self.head, _, self._data = self._data.partition(b"\r\n\r\n")
        assert status(self.head) == 101, self.head


def deaf(running: Service) -> RawClient:
    """
    A client that receives no events.
    """
    client = running.connect_raw()
    client.socket.sendall(frame(b'{"type":"unsubscribe","channel":"global","id":"left"}'))
    assert client.hear()["id"] == "left"
    return client


def narrow(running: Service) -> socket.socket:
    """
    A connection whose kernel holds little of what its program does not read.
    """
    plain = running.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return plain


def resident(running: Service) -> int:
    """
    Bytes of memory that the service has now.
    """
    text = Path(f"/proc/{running.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found
    return int(found.group(1)) << 10


def processor_seconds(running: Service) -> float:
    """
    Seconds of processor time that the service has used so far.
    """
    # after the name, which may have spaces and brackets in it: utime and stime, fields 14 and 15 of proc(5)
    fields = Path(f"/proc/{running.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def serve_at_once(running: Service, *, production: bool = False) -> None:
    """
    A well-behaved client connects, authenticates, subscribes, publishes, hears its event and leaves; /health answers.
    """
    started = processor_seconds(running)
    client = running.connect(f"/?token={make_token('good')}" if production else "/?agent_id=good")
    if production:
        assert "agents/good" in hear(client)["subscriptions"]
    else:
        # what others published meanwhile may come first
        ask_past_events(client, type="auth", agent_id="good", id="auth")
    ask_past_events(client, type="subscribe", channel="topics/good", id="subscribe")
    unsubscribe_global(client)
    event = ask(client, type="publish", channel="topics/good", event="message.new", data="well", id="publish")
    assert (event["channel"], event["data"]) == ("topics/good", "well")
    assert hear(client)["message_id"] == event["id"]
    say(client, type="ack", message_id=event["id"])
    assert ask(client, type="ping")["type"] == "pong"
    client.close()
    assert running.health()["status"] == "healthy"
    assert processor_seconds(running) - started < AT_ONCE


@contextlib.contextmanager
def besieged(running: Service, *, production: bool = False) -> Iterator[Service]:
    """
    For the time of an attack: at its end others are still served at once; and once the attackers are gone nothing of
    them is left, and the log has ordinary lines only.
    """
    said = len(running.log)
    try:
        yield running
        serve_at_once(running, production=production)
    finally:
        running.forget_clients()
    until(lambda: is_quiet(running))
    serve_at_once(running, production=production)
    assert running.process.poll() is None
    for line in running.log[said:].splitlines():
        assert _ORDINARY.match(line), line


def is_quiet(running: Service) -> bool:
    """
    Is nobody there, and nothing owed?
    """
    health = running.health()
    return not any(health[name] for name in ("connectedClients", "activeChannels", "pendingDeliveries"))
