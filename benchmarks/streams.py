"""
Event streams beside WebSockets, in one process of the service: memory of a connection, and CPU of a delivery.

    python -m benchmarks.streams --clients 5000 --rounds 3

Both kinds of clients are connected all the time.  In each round the same events are published to the channel of the
one, and then to that of the other, one at a time and in bursts; what the service's process has used of the processor
meanwhile is divided by what arrived.  It prints a Markdown table of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from tests.integration.running import Service, service

KINDS = ("WebSocket", "Durable Streams", "EventSource")
_MARKER = b'"event":"session.created"'
_MASK = bytes(4)


class Far:
    """
    The far end of one connection, which counts events.
    """

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(request)
        self._end = b""
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(4096)
        assert head.split()[1] in (b"101", b"200"), head
        self.socket.setblocking(False)

    def read(self) -> int:
        """
        How many events have come.
        """
        data = self._end + self.socket.recv(1 << 20)
        self._end = data[-(len(_MARKER) - 1) :]
        return data.count(_MARKER)

    def fileno(self) -> int:
        return self.socket.fileno()


def text(payload: bytes) -> bytes:
    """
    A client's WebSocket frame.
    """
    size = len(payload)
    head = bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0xFE)) + size.to_bytes(2)
    return head + _MASK + payload


def connect(kind: str, port: int) -> Far:
    """
    Connect a client that gets the events of its kind's channel only.
    """
    host = b"Host: 127.0.0.1:%d\r\n" % port
    if kind == "WebSocket":
        handshake = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        key = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        far = Far(port, b"GET /ws?observer=1 HTTP/1.1\r\n" + host + handshake + key + b"\r\n")
        far.socket.sendall(
            text(b'{"type":"unsubscribe","channel":"global"}')
            + text(b'{"type":"subscribe","channel":"topics/WebSocket"}')
        )
        return far
    query, accept = (b"?offset=now&live=sse", b"") if kind == KINDS[1] else (b"", b"Accept: text/event-stream\r\n")
    channel = kind.replace(" ", "%20").encode()
    return Far(port, b"GET /v1/streams/topics/" + channel + query + b" HTTP/1.1\r\n" + host + accept + b"\r\n")


class Measured:
    """
    The service, and what it uses.
    """

    def __init__(self, running: Service) -> None:
        self._tasks = Path(f"/proc/{running.process.pid}/task")
        self._status = Path(f"/proc/{running.process.pid}/statm")

    def cpu(self) -> float:
        """
        Seconds of the processor that it has used.
        """
        return sum(int((task / "schedstat").read_text().split()[0]) for task in self._tasks.iterdir()) / 1e9

    def memory(self) -> int:
        """
        Bytes of it that are in memory.
        """
        return int(self._status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Room:
    """
    All clients of one kind.
    """

    def __init__(self) -> None:
        self.clients: list[Far] = []
        self.selector = selectors.DefaultSelector()
        self.arrived = 0

    def add(self, far: Far) -> None:
        """
        One more client.
        """
        self.clients.append(far)
        self.selector.register(far, selectors.EVENT_READ)

    def wait(self, wanted: int) -> None:
        """
        Read until so many events have arrived in all.
        """
        end = time.monotonic() + 60
        while self.arrived < wanted:
            assert time.monotonic() < end, f"{self.arrived} of {wanted} events have arrived"
            for key, _ in self.selector.select(0.1):
                far = key.fileobj
                assert isinstance(far, Far)
                self.arrived += far.read()


def publish_to(port: int) -> Callable[[str, int], None]:
    """
    Returns a function that publishes so many events to the channel of a kind at once.
    """
    far = Far(
        port,
        b"GET /ws?observer=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    )
    far.socket.setblocking(True)
    far.socket.sendall(text(b'{"type":"unsubscribe","channel":"global"}'))

    def publish(kind: str, count: int) -> None:
        message = {
            "type": "publish",
            "channel": f"topics/{kind}",
            "event": "session.created",
            "data": {"text": "x" * 64},
        }
        far.socket.sendall(text(json.dumps(message).encode()) * count)

    return publish


def measure(clients: int, rounds: int, singles: int, bursts: int, burst: int) -> dict[str, dict[str, float]]:
    """
    The figures of each kind.
    """
    results: dict[str, dict[str, list[float]]] = {kind: {} for kind in KINDS}
    more = ("--max-connections", str(4 * clients), "--max-http-connections", str(4 * clients))
    # these clients do not answer pings
    patient = ("--heartbeat-interval", "600", "--heartbeat-timeout", "1200")
    with service("--no-database", *more, *patient) as running:
        measured, publish = Measured(running), publish_to(running.port)
        rooms = {kind: Room() for kind in KINDS}
        for kind, room in rooms.items():
            before, cpu = measured.memory(), measured.cpu()
            for _ in range(clients):
                room.add(connect(kind, running.port))
            time.sleep(1)
            results[kind]["KiB a connection"] = [(measured.memory() - before) / clients / 1024]
            results[kind]["CPU µs a connection"] = [(measured.cpu() - cpu) / clients * 1e6]
        for _ in range(rounds):
            for kind, room in rooms.items():
                for name, times, count in (("one at a time", singles, 1), (f"{burst} at a time", bursts, burst)):
                    time.sleep(0.5)
                    cpu, start = measured.cpu(), room.arrived
                    for number in range(times):
                        publish(kind, count)
                        room.wait(start + (number + 1) * count * clients)
                    used = measured.cpu() - cpu
                    figures = results[kind].setdefault(f"CPU µs a delivery, {name}", [])
                    figures.append(used / (times * count * clients) * 1e6)
    return {
        kind: {name: statistics.median(values) for name, values in figures.items()} for kind, figures in results.items()
    }


def main() -> None:
    """
    Measure, and print the table.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=5000, help="of each kind")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--singles", type=int, default=20, help="events of a round that come one at a time")
    parser.add_argument("--bursts", type=int, default=4)
    parser.add_argument("--burst", type=int, default=20, help="events of a burst")
    choice = parser.parse_args()
    figures = measure(choice.clients, choice.rounds, choice.singles, choice.bursts, choice.burst)
    print(f"| {choice.clients:,} clients of each kind | {' | '.join(KINDS)} |")
    print("| --- " * (1 + len(KINDS)) + "|")
    for name in figures[KINDS[0]]:
        print(f"| {name} | " + " | ".join(f"{figures[kind][name]:.3g}" for kind in KINDS) + " |")


if __name__ == "__main__":
    main()
