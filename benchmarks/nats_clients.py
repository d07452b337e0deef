"""
Compares clients of NATS: CPU for a message that is sent, and for one that is received, and how long a message takes.

    python -m benchmarks.nats_clients

Each measurement takes two processes with the same client, and one server.  The clients are

- C{own}: C{dcm_ws.nats}, on the epoll reactor;
- C{thread}: nats-py on a thread with a loop of its own, which hands messages to the epoll reactor and takes them from
  there, as many as there are at once;
- C{asyncio}: nats-py on the asyncio reactor.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.integration.nats_servers import nats

CLIENTS = ("own", "thread", "asyncio")
SIZE = 200
BULK, SINGLE, PINGS = 200_000, 30_000, 3000
WINDOW = 2000

Heard = Callable[[bytes], object]


class Own:
    """
    C{dcm_ws.nats}.
    """

    def __init__(self, reactor: Any, url: str, up: Callable[[], object]) -> None:
        from dcm_ws.nats.client import NatsClient
        from dcm_ws.nats.connection import Credentials
        from dcm_ws.nats.tls import tls_options
        from dcm_ws.nats.urls import read_urls

        self._client = NatsClient(
            reactor,
            read_urls([url]),
            name=lambda: "benchmark",
            credentials=Credentials,
            tls=tls_options(None),
            up=lambda server: up(),
            down=lambda reason: None,
            writable=lambda: None,
            probed=lambda seconds: None,
            now=time.monotonic,
            random=lambda: 0.5,
        )
        self.publish = self._client.publish

    def start(self) -> None:
        self._client.startService()

    def subscribe(self, subject: bytes, heard: Heard) -> None:
        self._client.subscribe(subject, lambda message: heard(message.payload))


class InThread:
    """
    nats-py on a thread.
    """

    def __init__(self, reactor: Any, url: str, up: Callable[[], object]) -> None:
        self._reactor = reactor
        self._url = url
        self._up = up
        self._loop = asyncio.new_event_loop()
        self._subjects: list[tuple[str, Heard]] = []
        self._out: deque[tuple[str, bytes]] = deque()
        self._in: deque[tuple[Heard, bytes]] = deque()

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def subscribe(self, subject: bytes, heard: Heard) -> None:
        self._subjects.append((subject.decode(), heard))

    def publish(self, subject: bytes, payload: bytes) -> None:
        self._out.append((subject.decode(), payload))
        if len(self._out) == 1:
            self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._write()))

    def _run(self) -> None:
        self._loop.run_until_complete(self._connect())
        self._loop.run_forever()

    async def _connect(self) -> None:
        import nats as nats_py

        self._nats = await nats_py.connect(self._url, no_echo=True)
        for subject, heard in self._subjects:
            await self._nats.subscribe(subject, cb=self._receiver(heard))
        await self._nats.flush()
        self._reactor.callFromThread(self._up)

    def _receiver(self, heard: Heard) -> Callable[[Any], Any]:
        async def receive(message: Any) -> None:
            self._in.append((heard, message.data))
            if len(self._in) == 1:
                self._reactor.callFromThread(self._read)

        return receive

    async def _write(self) -> None:
        while self._out:
            subject, payload = self._out[0]
            await self._nats.publish(subject, payload)
            self._out.popleft()

    def _read(self) -> None:
        while self._in:
            heard, payload = self._in[0]
            heard(payload)
            self._in.popleft()


class OnAsyncio:
    """
    nats-py on the reactor's loop.
    """

    def __init__(self, reactor: Any, url: str, up: Callable[[], object]) -> None:
        self._loop = asyncio.get_event_loop()
        self._url = url
        self._up = up
        self._subjects: list[tuple[str, Heard]] = []
        self._out: list[tuple[str, bytes]] = []

    def start(self) -> None:
        self._task = self._loop.create_task(self._connect())

    def subscribe(self, subject: bytes, heard: Heard) -> None:
        self._subjects.append((subject.decode(), heard))

    def publish(self, subject: bytes, payload: bytes) -> None:
        self._out.append((subject.decode(), payload))
        if len(self._out) == 1:
            self._writing = self._loop.create_task(self._write())

    async def _connect(self) -> None:
        import nats as nats_py

        self._nats = await nats_py.connect(self._url, no_echo=True)
        for subject, heard in self._subjects:

            async def receive(message: Any, heard: Heard = heard) -> None:
                heard(message.data)

            await self._nats.subscribe(subject, cb=receive)
        await self._nats.flush()
        self._up()

    async def _write(self) -> None:
        out, self._out = self._out, []
        for subject, payload in out:
            await self._nats.publish(subject, payload)


def run_part(client: str, part: str, url: str, number: int, batch: int) -> None:
    """
    One of the two processes.
    """
    if client == "asyncio":
        from twisted.internet import asyncioreactor

        asyncioreactor.install(asyncio.new_event_loop())
        asyncio.set_event_loop(asyncio.new_event_loop())
        from twisted.internet import reactor as installed

        asyncio.set_event_loop(installed._asyncioEventloop)  # type: ignore[attr-defined]
    from twisted.internet import reactor

    made = {"own": Own, "thread": InThread, "asyncio": OnAsyncio}[client]
    parts = {"send": send, "receive": receive, "ping": ping, "echo": echo}
    parts[part](reactor, lambda up: made(reactor, url, up), number, batch)
    reactor.run()  # type: ignore[attr-defined]


Make = Callable[[Callable[[], object]], Any]


def send(reactor: Any, make: Make, number: int, batch: int) -> None:
    """
    Send, and stay no more than L{WINDOW} messages in front of the receiver.
    """
    payload, sent, acknowledged, cpu = b"x" * SIZE, 0, 0, 0.0

    def go() -> None:
        nonlocal sent
        if sent < number:
            if sent - acknowledged < WINDOW:
                for _ in range(batch):
                    client.publish(b"down", payload)
                sent += batch
            reactor.callLater(0 if batch > 1 else 0.0001, go)

    def hear(message: bytes) -> None:
        nonlocal acknowledged, cpu
        if message == b"ready":
            cpu = time.process_time()
            go()
        acknowledged = int(message) if message.isdigit() else 0
        if acknowledged >= number:
            print(json.dumps({"cpu_us": (time.process_time() - cpu) / number * 1e6}), flush=True)
            reactor.callLater(0, reactor.stop)

    client = make(lambda: print("up", flush=True))
    client.subscribe(b"up", hear)
    client.start()


def receive(reactor: Any, make: Make, number: int, batch: int) -> None:
    """
    Receive.
    """
    got, cpu = 0, 0.0

    def hear(message: bytes) -> None:
        nonlocal got
        got += 1
        if got % (WINDOW // 4) == 0 or got == number:
            client.publish(b"up", b"%d" % got)
        if got == number:
            print(json.dumps({"cpu_us": (time.process_time() - cpu) / number * 1e6}), flush=True)
            reactor.callLater(0.2, reactor.stop)

    def begin() -> None:
        nonlocal cpu
        cpu = time.process_time()
        client.publish(b"up", b"ready")

    client = make(begin)
    client.subscribe(b"down", hear)
    client.start()


def ping(reactor: Any, make: Make, number: int, batch: int) -> None:
    """
    Send one message after the other to the other process, and wait for each.
    """
    times: list[float] = []
    begun = 0.0

    def go() -> None:
        nonlocal begun
        begun = time.perf_counter()
        client.publish(b"down", b"x" * SIZE)

    def hear(message: bytes) -> None:
        if message != b"ready":
            times.append((time.perf_counter() - begun) / 2 * 1e3)
        if len(times) < number:
            reactor.callLater(0.001, go)
        else:
            times.sort()
            print(json.dumps({"p50_ms": times[number // 2], "p99_ms": times[number * 99 // 100]}), flush=True)
            client.publish(b"down", b"end")
            reactor.callLater(0.1, reactor.stop)

    client = make(lambda: print("up", flush=True))
    client.subscribe(b"up", hear)
    client.start()


def echo(reactor: Any, make: Make, number: int, batch: int) -> None:
    """
    Send each message back.
    """

    def hear(message: bytes) -> None:
        if message == b"end":
            print(json.dumps({}), flush=True)
            reactor.callLater(0, reactor.stop)
        else:
            client.publish(b"up", message)

    client = make(lambda: client.publish(b"up", b"ready"))
    client.subscribe(b"down", hear)
    client.start()


def measure(client: str, parts: tuple[str, str], url: str, number: int, batch: int) -> list[dict[str, float]]:
    """
    Run both processes; returns what each has measured.
    """

    def begin(part: str) -> subprocess.Popen[str]:
        arguments = ["--part", part, "--client", client, "--url", url, "--number", str(number), "--batch", str(batch)]
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.nats_clients", *arguments], stdout=subprocess.PIPE, text=True
        )

    first = begin(parts[0])
    assert first.stdout is not None and first.stdout.readline() == "up\n"
    second = begin(parts[1])
    return [json.loads(one.communicate()[0].splitlines()[-1]) for one in (first, second)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    for name in ("part", "client", "url"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    for name in ("number", "batch"):
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        run_part(given.client, given.part, given.url, given.number, given.batch)
        return
    print("client  | sent µs | received µs | sent µs, one a turn | received µs | ms p50 | ms p99")
    with nats() as server:
        for _ in range(given.rounds):
            for client in CLIENTS:
                figures: list[float] = []
                for number, batch in ((BULK, 100), (SINGLE, 1)):
                    figures += [
                        one["cpu_us"] for one in measure(client, ("send", "receive"), server.url, number, batch)
                    ]
                times = measure(client, ("ping", "echo"), server.url, PINGS, 1)[0]
                figures += [times["p50_ms"], times["p99_ms"]]
                print(f"{client:<7} | " + " | ".join(f"{figure:.2f}" for figure in figures), flush=True)


if __name__ == "__main__":
    main()
