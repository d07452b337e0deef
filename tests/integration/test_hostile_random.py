"""
Random hostile clients, all at once, against a service of its own process, in production and in development.

What must hold: a well-behaved client's ping costs less than 100 ms of reactor time; when the attackers are gone, the
memory is within 10 MiB of what it was, and every gauge is back to zero.

Reactor time is CPU time: what the service's main thread, which runs the reactor, has used between a ping and its pong
(C{/proc/PID/schedstat}, in nanoseconds).  Time on the wall would measure what else the machine is doing.  That thread
does nothing but what came before the pong, so this is what the attackers made the client wait for.  The same work takes
more of it where the processor is slower or shared: so next to each ping the test decodes a text, which takes
L{REFERENCE} of CPU time on the machine for which the 100 ms are meant, and a slower one has more in proportion.

Development has no rate limit unless it is given one, and here it is given that of production.

The attacks are drawn from a seed, C{DCM_WS_HOSTILE_SEED}, and last C{DCM_WS_HOSTILE_SECONDS} (6) for each mode.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from tests.integration.attacks import deflated, frame, resident
from tests.integration.clients import RawClient, handshake
from tests.integration.databases import PostgresServer
from tests.integration.machine import until
from tests.integration.running import Service, service
from tests.integration.tokens import SECRET, make_token

pytestmark = pytest.mark.integration

SECONDS = float(os.environ.get("DCM_WS_HOSTILE_SECONDS", "6"))
SEED = int(os.environ.get("DCM_WS_HOSTILE_SEED", "12"))
ATTACKERS = 16
PING_MAX = 0.1
REFERENCE = 0.9e-3
TEXT = json.dumps([{"number": number, "text": "x" * 20, "list": [1, 2, 3]} for number in range(300)])
MEMORY_MAX = 10 << 20


class Attack:
    """
    One hostile client after the other, until the time is up.

    @param chance: what decides what they do.
    """

    def __init__(self, running: Service, chance: random.Random, until_: float) -> None:
        self._port = running.port
        self._chance = chance
        self._until = until_
        self.made = 0
        self.errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """
        Wait until it is over.
        """
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert not self.errors, self.errors

    def _run(self) -> None:
        while time.monotonic() < self._until:
            kind = self._chance.choice(KINDS)
            try:
                with contextlib.closing(socket.create_connection(("127.0.0.1", self._port), timeout=1)) as plain:
                    kind(self, plain)
            except OSError:
                # refused, reset, or not read any more
                pass
            except BaseException as error:
                self.errors.append(error)
                return
            self.made += 1

    @property
    def going_on(self) -> bool:
        return time.monotonic() < self._until

    def pause(self) -> None:
        time.sleep(self._chance.random() * 0.05)

    def open(self, plain: socket.socket, *headers: str) -> None:
        """
        Open a WebSocket, now and then as somebody.
        """
        path = self._chance.choice(["/", "/ws", f"/?agent_id=a{self._chance.randrange(50)}", "/?token=x.y"])
        plain.sendall(handshake(path, *headers))
        plain.recv(1 << 12)
        if self._chance.random() < 0.5:
            name = f"hostile-{self._chance.randrange(20)}"
            auth = {"type": "auth", "agent_id": name, "token": make_token(name)}
            if self._chance.random() < 0.5:
                del auth["token"]
            plain.sendall(frame(json.dumps(auth).encode()))

    def flood(self, plain: socket.socket, *pieces: bytes) -> None:
        """
        Send pieces again and again, reading nothing.
        """
        data = b"".join(self._chance.choice(pieces) for _ in range(200))
        end = time.monotonic() + self._chance.random() * 2
        while self.going_on and time.monotonic() < end:
            plain.sendall(data)

    def slow_head(self, plain: socket.socket) -> None:
        for byte in handshake("/" + "x" * self._chance.randrange(200))[: self._chance.randrange(400)]:
            plain.sendall(bytes((byte,)))
            if self._chance.random() < 0.1:
                self.pause()

    def slow_body(self, plain: socket.socket) -> None:
        plain.sendall(b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        for _ in range(self._chance.randrange(30)):
            plain.sendall(b"x" * self._chance.randrange(1, 1000))
            self.pause()

    def http(self, plain: socket.socket) -> None:
        paths = ("/health", "/stats", "/metrics", "/live", "/", "/nothing", "/" + "x" * 5000)
        for _ in range(self._chance.randrange(1, 100)):
            if not self.going_on:
                break
            plain.sendall(f"GET {self._chance.choice(paths)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            if not plain.recv(1 << 16):
                break

    def pipeline(self, plain: socket.socket) -> None:
        plain.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * self._chance.randrange(1, 1000))
        if self._chance.random() < 0.5:
            self.pause()

    def messages(self, plain: socket.socket) -> None:
        self.open(plain)
        self.flood(
            plain,
            frame(b'{"type":"ping"}'),
            frame(b'{"type":"pong"}'),
            frame(b'{"type":"ack","message_id":"msg_unknown"}'),
            frame(b'{"type":"subscribe","channel":"topics/%d","id":1}' % self._chance.randrange(5000)),
            frame(b'{"type":"publish","channel":"global","event":"task.created","data":{}}'),
            frame(
                b'{"type":"publish","channel":"topics/1","event":"system.info","key":"%d"}'
                % self._chance.randrange(5000)
            ),
            frame(b'{"type":"publish","channel":"global","event":"agent.heartbeat","data":{"agent_id":"x"}}'),
            frame(b'{"type":"resume","epoch":"x","pos":0,"channels":["global"]}'),
            frame(b'{"type":"nack","message_id":"msg_unknown"}'),
            frame(b'{"type":"ack","pos":%d}' % self._chance.randrange(5000)),
            frame(b"nonsense"),
            frame(b'{"type":"ping","x":"\\ud83d"}'),
        )

    def control_frames(self, plain: socket.socket) -> None:
        self.open(plain)
        self.flood(plain, frame(b"", 9), frame(b"x" * 125, 9), frame(b"", 10), frame(b"pong", 10))

    def fragments(self, plain: socket.socket) -> None:
        self.open(plain)
        plain.sendall(frame(b"", final=False))
        self.flood(plain, frame(b"", 0, final=False), frame(b"x", 0, final=False))

    def half_frame(self, plain: socket.socket) -> None:
        self.open(plain)
        size = self._chance.randrange(1, 1 << 20)
        plain.sendall(frame(b"x" * self._chance.randrange(size), length=size))
        self.pause()

    def huge_names(self, plain: socket.socket) -> None:
        self.open(plain)
        for field in ("event", "channel", "agent_id", "id"):
            message = {"type": "publish", "channel": "global", "event": "a.b", field: "x" * 500_000}
            plain.sendall(frame(json.dumps(message).encode()))

    def escapes(self, plain: socket.socket) -> None:
        self.open(plain)
        body = self._chance.choice([rb"\u0041", rb"\\", rb"\ud83d\ude00", b"[", b'["\\\\"],'])
        plain.sendall(frame(b'{"type":"ping","x":"' + body * (900_000 // len(body)) + rb'\ud83d"}'))
        plain.recv(1 << 12)

    def never_reads(self, plain: socket.socket) -> None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.open(plain)
        for _ in range(self._chance.randrange(40)):
            data = b"x" * 9000
            plain.sendall(frame(b'{"type":"publish","channel":"global","event":"system.info","data":"%b"}' % data))
        self.pause()

    def bombs(self, plain: socket.socket) -> None:
        self.open(plain, "Sec-WebSocket-Extensions: permessage-deflate")
        plain.sendall(frame(BOMB, rsv=4))
        self.pause()

    def aborts(self, plain: socket.socket) -> None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        plain.sendall(handshake("/")[: self._chance.randrange(200)])

    def refused(self, plain: socket.socket) -> None:
        path = self._chance.choice(["/?agent_id=%00", "/?token=bad", "/ws/no"])
        plain.sendall(handshake(path, "Origin: https://evil.example"))
        plain.recv(1 << 12)


BOMB = deflated(iter([b"\0" * 1_000_000] * 20))
KINDS: list[Callable[[Attack, socket.socket], None]] = [
    *(Attack.slow_head, Attack.slow_body, Attack.http, Attack.pipeline, Attack.messages, Attack.control_frames),
    *(Attack.fragments, Attack.half_frame, Attack.huge_names, Attack.escapes, Attack.never_reads, Attack.bombs),
    *(Attack.aborts, Attack.refused),
]


def reactor_seconds(running: Service) -> float:
    """
    CPU time of the service's main thread.
    """
    return int(Path(f"/proc/{running.process.pid}/schedstat").read_text().split()[0]) / 1e9


def ping(running: Service, client: RawClient) -> float:
    """
    Seconds of reactor time between a ping and its pong.
    """
    before = reactor_seconds(running)
    client.socket.sendall(frame(b'{"type":"ping"}'))
    while client.hear().get("type") != "pong":
        pass
    return reactor_seconds(running) - before


def reference() -> float:
    """
    Seconds of CPU time that decoding L{TEXT} five times takes now.
    """
    before = time.thread_time()
    for _ in range(5):
        json.loads(TEXT)
    return time.thread_time() - before


def gauges(running: Service) -> dict[str, object]:
    """
    What must be zero when nobody is there.
    """
    stats = running.stats()
    # the connection that asks is one itself
    stats["connections"]["http"] -= 1
    return {
        **{name: stats[name] for name in ("connectedClients", "activeChannels", "pendingDeliveries", "partialBytes")},
        **stats["connections"],
        "authenticated": stats["authenticatedClients"],
        "agents": stats["agents"]["connected"],
    }


def attack(running: Service, seconds: float, seed: int, good: RawClient | None) -> tuple[list[float], float]:
    """
    Let the attackers do what they do for so long; returns what the pings of C{good} took meanwhile, and how many times
    slower than L{REFERENCE} the processor was.
    """
    end = time.monotonic() + seconds
    attacks = [Attack(running, random.Random(f"{seed}-{number}"), end) for number in range(ATTACKERS)]
    pings, references = [], []
    while time.monotonic() < end:
        if good is not None:
            pings.append(ping(running, good))
        references.append(reference())
        time.sleep(0.02)
    for each in attacks:
        each.join()
    return pings, max(1.0, median(references) / REFERENCE)


@pytest.mark.parametrize("mode", ["production", "development"])
def test_random_hostile_clients(mode: str, database: PostgresServer) -> None:
    """
    Memory, gauges and a well-behaved client's pings are as they should be, whatever hostile clients do.
    """
    # what is kept for agents that were there is limited, and no leak: so little here that it does not show
    options = ["--compression", "on", "--max-recent-bytes", "1000000", "--max-agents", "50", "--max-kept", "100"]
    options += ["--max-keys", "1000"]
    if mode == "production":
        options += ["--production", "--database-url", database.url, "--auth-timeout", "3"]
    else:
        # without a rate limit, which is the default there, who floods has all the time that there is
        options += ["--no-database", "--rate-limit", "100/s", "--rate-bytes", "2097152"]
    with service(*options, env={"WS_AUTH_SECRET": SECRET}) as running:
        attack(running, SECONDS / 3, SEED, None)
        until(lambda: not any(gauges(running).values()), 60)
        before = resident(running)
        good = running.connect_raw(f"/?token={make_token('good')}")
        good.socket.sendall(frame(b'{"type":"unsubscribe","channel":"global","id":"left"}'))
        while good.hear().get("id") != "left":
            pass
        pings, slowness = attack(running, SECONDS, SEED + 1, good)
        good.socket.close()
        until(lambda: not any(gauges(running).values()), 60)
        grown = resident(running) - before
        limits = {name: count for name, count in running.stats()["limits"].items() if count}
        figures = (
            f"{mode}: {len(pings)} pings, {max(pings) * 1000:.0f} ms at most, on a processor {slowness:.1f} times"
            f" slower than the reference; {grown >> 10} KiB grown; {limits}"
        )
        print(figures)
        assert pings and max(pings) < PING_MAX * slowness, figures
        assert grown < MEMORY_MAX, figures
