"""
What it costs the service to take an event: over HTTP, one in a request or 100, and over a WebSocket.

    python -m benchmarks.http_publish --rounds 5

Each way publishes the same events to a channel without subscribers, one request after the other.  What the service's
process has used of the processor meanwhile is divided by the events, and their number by the time that it took.  The
ways take turns in each round.  It prints a Markdown table of the medians, for the log in memory and the one in
PostgreSQL.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg2

from benchmarks.streams import Measured, text
from dcm_ws.postgres.install import BEGIN
from dcm_ws.postgres.migrations import log_sql
from tests.integration.databases import postgres
from tests.integration.running import Service, service

BATCH = 100
EVENT = {"channel": "topics/bench", "event": "session.created", "data": {"text": "x" * 200}}
_HOST = b"Host: 127.0.0.1\r\n"

Way = Callable[[int], None]
"""
Publishes so many events, and returns when all are acknowledged.
"""


class Caller:
    """
    One connection that is read until an answer is whole.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = b""

    def send(self, data: bytes) -> None:
        """
        Send, and wait for nothing.
        """
        self._socket.sendall(data)

    def until(self, mark: bytes, count: int = 1) -> bytes:
        """
        Read until C{mark} has come so often; return what came before its end.
        """
        found = 0
        for _ in range(count):
            while (at := self._data.find(mark, found)) < 0:
                more = self._socket.recv(1 << 16)
                assert more, self._data
                self._data += more
            found = at + len(mark)
        before, self._data = self._data[:found], self._data[found:]
        return before

    def response(self) -> None:
        """
        Read an HTTP response, which must be good.
        """
        head = self.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(self._data) < length:
            self._data += self._socket.recv(1 << 16)
        self._data = self._data[length:]

    def close(self) -> None:
        """
        Close the connection.
        """
        self._socket.close()


def request(value: object, *headers: bytes) -> bytes:
    """
    A request that publishes.
    """
    body = json.dumps(value).encode()
    lines = (b"POST /v1/publish HTTP/1.1", b"Host: 127.0.0.1", b"Content-Length: %d" % len(body), *headers)
    return b"\r\n".join((*lines, b"", body))


def ways(port: int) -> dict[str, Way]:
    """
    The ways to publish, on connections that stay open unless a way says otherwise.
    """
    kept = Caller(port)
    # a connection without a request is closed soon
    kept.send(request(EVENT))
    kept.response()
    client = Caller(port)
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    client.send(b"GET /ws?observer=1 HTTP/1.1\r\n" + _HOST + upgrade + key + b"\r\n")
    client.until(b'"type":"connected"')
    client.send(text(b'{"type":"unsubscribe","channel":"global","id":"u"}'))
    client.until(b'"success":true')
    message = text(json.dumps({"type": "publish", "id": "p", **EVENT}).encode())

    def websocket(events: int) -> None:
        for _ in range(events):
            client.send(message)
            client.until(b'"success":true')

    def websocket_at_once(events: int) -> None:
        for _ in range(events // BATCH):
            client.send(message * BATCH)
            client.until(b'"success":true', BATCH)

    def one_per_connection(events: int) -> None:
        for _ in range(events):
            caller = Caller(port)
            caller.send(request(EVENT, b"Connection: close"))
            caller.response()
            caller.close()

    def keep_alive(events: int) -> None:
        for _ in range(events):
            kept.send(request(EVENT))
            kept.response()

    def batches(events: int) -> None:
        for _ in range(events // BATCH):
            kept.send(request([EVENT] * BATCH))
            kept.response()

    return {
        "WebSocket, one after the other": websocket,
        f"WebSocket, {BATCH} at once": websocket_at_once,
        "HTTP, a connection for each event": one_per_connection,
        "HTTP, keep-alive, one after the other": keep_alive,
        f"HTTP, keep-alive, batches of {BATCH}": batches,
    }


@contextmanager
def in_memory(*options: str) -> Iterator[Service]:
    """
    A service with its log in memory.
    """
    with service("--no-database", *options) as running:
        yield running


@contextmanager
def in_postgresql(*options: str) -> Iterator[Service]:
    """
    A service with its log in PostgreSQL, on the same machine and without fsync.
    """
    with postgres() as server:
        connection = psycopg2.connect(server.url)
        with connection, connection.cursor() as cursor:
            cursor.execute(BEGIN + log_sql())
        connection.close()
        with service("--database-url", server.url, "--log", "postgres", *options) as running:
            yield running


def measure(running: Service, rounds: int, events: int) -> dict[str, tuple[float, float]]:
    """
    By way: the service's CPU for an event, in µs, and events a second.
    """
    measured = Measured(running)
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for name, way in ways(running.port).items():
            way(BATCH)
            cpu, began = measured.cpu(), time.monotonic()
            way(events)
            found.setdefault(name, []).append(
                ((measured.cpu() - cpu) / events * 1e6, events / (time.monotonic() - began))
            )
    return {
        name: (statistics.median(one for one, _ in values), statistics.median(one for _, one in values))
        for name, values in found.items()
    }


def main() -> None:
    """
    Measure, and print the table.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=2000, help="of one way in one round")
    choice = parser.parse_args()
    # nobody answers pings
    options = ("--heartbeat-interval", "600", "--heartbeat-timeout", "1200")
    results = []
    for log in (in_memory, in_postgresql):
        with log(*options) as running:
            results.append(measure(running, choice.rounds, choice.events))
    print("| way | log in memory: CPU µs an event | events/s | log in PostgreSQL: CPU µs an event | events/s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in results[0]:
        cells = (f"{cpu:,.0f} | {rate:,.0f}" for cpu, rate in (result[name] for result in results))
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
