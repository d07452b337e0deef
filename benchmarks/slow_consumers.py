"""
What clients that never read do to the others, and to the service's memory.

    python -m benchmarks.slow_consumers --clients 1000 --never-read 100 --rate 2000 --seconds 60

Runs the service twice as a process of its own, first with the readers alone and then with the clients that never read
beside the same readers, publishes at the given rate, and prints the service's largest RSS and the readers' latency,
from the publisher's C{send} to the reader's C{recv}.  Ends with status 1 where the memory or the latency is not within
bounds.

One topic with a thousand subscribers at 2,000 events a second would be two million deliveries a second, which is more
than two cores can read, let alone send.  So the events go round over topics, of which each client is subscribed to one:
with the defaults each event goes to ten clients, and each client is sent 200 kB a second, so that one that does not
read is over its send buffer before the end.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import gc
import re
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

MIB = 1 << 20
SEND_BUFFER = 4 * MIB
SPARE = 64 * MIB
TICK = 0.005

_mark = re.compile(rb'"t":"(\d{20})')
_MARK_SIZE = 25


class Result(NamedTuple):
    """
    @ivar before: bytes of RSS when all were connected and nothing had been published.
    @ivar most: the largest RSS after that.
    @ivar latencies: seconds, sorted.
    @ivar usual: the median, in ms, of each second's p99: what is left of it where the machine has other work.
    @ivar too_slow: clients closed with 4008.
    """

    before: int
    most: int
    published: int
    latencies: array.array[float]
    usual: float
    too_slow: int

    def percentile(self, share: float) -> float:
        """
        Milliseconds that so large a share of the deliveries took at most.
        """
        return 1000 * self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]

    def line(self, name: str) -> str:
        """
        For people.
        """
        return (
            f"{name:<10} {self.published} events, {len(self.latencies)} deliveries read,"
            f" p50 {self.percentile(0.5):.2f} ms, p99 {self.percentile(0.99):.2f} ms"
            f" (of each second, the median: {self.usual:.2f} ms),"
            f" RSS {self.before / MIB:.0f} MiB at first, {self.most / MIB:.0f} MiB at most"
            f" (+{(self.most - self.before) / MIB:.0f} MiB), closed with 4008: {self.too_slow}"
        )


def frame(payload: bytes) -> bytes:
    """
    A text frame with a mask of zeros: lawful, and cheap to make.
    """
    size = len(payload)
    if size < 126:
        return bytes((0x81, 0x80 | size)) + bytes(4) + payload
    return b"\x81\xfe" + size.to_bytes(2) + bytes(4) + payload


PONG = frame(b'{"type":"pong"}')
"""
A sign of life: not to read is one thing, to be dead another.
"""


class Service:
    """
    dcm-ws as a process, without a database.
    """

    def __init__(self) -> None:
        command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "dcm-ws", "--no-database"]
        options = ["--ws-port", "0", "--log-level", "info"]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = 0
        for line in self.process.stdout:
            if found := re.search(r"listening on ws://[^ ]*:(\d+)/", line):
                self.port = int(found.group(1))
            if "] ready" in line:
                break
        # the rest of the log is small: a line when a client joins and one when it leaves
        self._drain = subprocess.Popen(["cat"], stdin=self.process.stdout, stdout=subprocess.DEVNULL)

    def rss(self) -> int:
        """
        Bytes of memory it has now.
        """
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * 4096

    def connect(self, *messages: str) -> socket.socket:
        """
        A client that has said C{messages} and read the answer to the last, whose id is C{last}.
        """
        client = socket.create_connection(("127.0.0.1", self.port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = (
            "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        client.sendall(head.encode() + b"".join(frame(message.encode()) for message in messages))
        answer = b""
        while b'"id":"last"' not in answer:
            data = client.recv(1 << 16)
            assert data, answer
            answer += data
        return client

    def too_slow(self) -> int:
        """
        Clients closed with 4008, as /stats has it.
        """
        with socket.create_connection(("127.0.0.1", self.port)) as asking:
            asking.sendall(b"GET /stats HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := asking.recv(1 << 16):
                answer += data
        found = re.search(rb'"maxSendBuffer":(\d+)', answer)
        return int(found.group(1)) if found else 0

    def stop(self) -> None:
        """
        End it.
        """
        self.process.terminate()
        self.process.wait(30)
        self._drain.wait(30)


def measure(name: str, choices: argparse.Namespace, never_read: int) -> Result:
    """
    One run.
    """
    service = Service()
    try:
        return _run(name, choices, never_read, service)
    finally:
        service.stop()


def _run(name: str, choices: argparse.Namespace, never_read: int, service: Service) -> Result:
    leave = '{"type":"unsubscribe","channel":"global","id":"%s"}'
    asleep, readers = [], []
    epoll = select.epoll()
    by_file: dict[int, tuple[socket.socket, bytearray]] = {}
    for number in range(choices.clients - choices.never_read + never_read):
        join = f'{{"type":"subscribe","channel":"topics/{number % choices.topics}","id":"last"}}'
        client = service.connect(leave % "left", join)
        if number < never_read:
            asleep.append(client)
            continue
        client.setblocking(False)
        readers.append(client)
        by_file[client.fileno()] = (client, bytearray())
        epoll.register(client, select.EPOLLIN)
    publisher = service.connect(leave % "last")
    publisher.setblocking(False)
    epoll.register(publisher, select.EPOLLIN)
    before = most = service.rss()
    said(f"{name}: {len(readers)} readers and {len(asleep)} that never read are connected")

    seconds: list[array.array[float]] = [array.array("d")]
    pad = "x" * choices.size
    waiting = bytearray()
    buffer = bytearray(1 << 18)
    view = memoryview(buffer)
    published = 0
    started = time.monotonic()
    told = alive = started
    sampled = 0.0
    while True:
        now = time.monotonic()
        elapsed = now - started
        if elapsed < choices.seconds:
            due = int(elapsed * choices.rate)
            while published < due:
                message = (
                    f'{{"type":"publish","channel":"topics/{published % choices.topics}","event":"system.info",'
                    f'"data":{{"t":"{time.monotonic_ns():020}","pad":"{pad}"}}}}'
                )
                waiting += frame(message.encode())
                published += 1
        elif elapsed > choices.seconds + 2:
            break
        if waiting:
            with contextlib.suppress(BlockingIOError):
                del waiting[: publisher.send(waiting)]
        if elapsed > len(seconds):
            seconds.append(array.array("d"))
        if now - sampled > 0.1:
            sampled = now
            most = max(most, service.rss())
        if now - alive > 20:
            alive = now
            for client in (*asleep, *readers):
                # one that was closed with 4008 will notice when it reads, which is never
                with contextlib.suppress(OSError):
                    client.send(PONG)
        if now - told > 10:
            told = now
            said(f"{name}: {elapsed:.0f} s, {published} events, RSS {most / MIB:.0f} MiB at most")
        for file, _ in epoll.poll(TICK, 1024):
            if file not in by_file:
                publisher.recv(1 << 16)
                continue
            client, tail = by_file[file]
            size = client.recv_into(view)
            assert size, "the service closed a reader"
            arrived = time.monotonic_ns()
            # a mark may straddle two reads
            data = bytes(tail) + view[:size].tobytes()
            end = 0
            for mark in _mark.finditer(data):
                seconds[-1].append((arrived - int(mark.group(1))) / 1e9)
                end = mark.end()
            tail[:] = data[max(end, len(data) - _MARK_SIZE) :]
    too_slow = service.too_slow()
    for client in (*asleep, *readers, publisher):
        client.close()
    latencies = array.array("d", sorted(latency for second in seconds for latency in second))
    # the last ones, after the end, have few
    usual = median(
        1000 * sorted(second)[int(0.99 * len(second))] for second in seconds[: int(choices.seconds)] if second
    )
    return Result(before, most, published, latencies, usual, too_slow)


def said(text: str) -> None:
    """
    Progress.
    """
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """
    Both runs, and what they come to; the exit status.
    """
    parser = argparse.ArgumentParser(description="What clients that never read do to the others.")
    parser.add_argument("--clients", type=int, default=1000, help="of both kinds")
    parser.add_argument("--never-read", type=int, default=100, help="of those, the ones that never read")
    parser.add_argument("--rate", type=float, default=2000, help="events a second")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--topics", type=int, default=100, help="over which the events go round")
    parser.add_argument("--size", type=int, default=10_000, help="bytes of an event's data")
    choices = parser.parse_args()
    gc.disable()
    without = measure("without", choices, 0)
    print(without.line("without"), flush=True)
    among = measure("with", choices, choices.never_read)
    print(among.line("with"), flush=True)
    ratio = among.percentile(0.99) / without.percentile(0.99)
    growth = among.most - among.before
    bound = choices.never_read * SEND_BUFFER + SPARE
    memory_holds, latency_holds = growth <= bound, ratio <= 2
    print(f"RSS growth {growth / MIB:.0f} MiB, bound {bound / MIB:.0f} MiB: {'holds' if memory_holds else 'BROKEN'}")
    print(f"p99 with / without: {ratio:.2f}, bound 2: {'holds' if latency_holds else 'BROKEN'}")
    return 0 if memory_holds and latency_holds else 1


if __name__ == "__main__":
    sys.exit(main())
