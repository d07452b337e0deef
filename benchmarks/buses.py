"""
Measures the bus between nodes over PostgreSQL and over NATS: casts a second, CPU for a message, and how long it takes.

    python -m benchmarks.buses
    python -m benchmarks.buses --rounds 3 --only nats

Two processes with a bus each.  For the casts, one sends as fast as the other one hears; it is never more than C{WINDOW}
bytes in front.  For the times, one sends a message to the other every 2 ms, which sends it back; half of that is shown.
CPU is that of each process; C{server} is that of nats-server, or of all processes of PostgreSQL.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dcm_ws.brokers.bus_base import BaseBus
from dcm_ws.brokers.bus_nats import NatsBus
from dcm_ws.brokers.bus_postgres import PostgresBus
from dcm_ws.core.counts import Counts
from dcm_ws.nats.connection import Credentials
from dcm_ws.nats.tls import tls_options
from dcm_ws.nats.urls import read_urls
from dcm_ws.postgres.connection import Place
from tests.integration.databases import postgres
from tests.integration.nats_servers import nats

ENGINES = ("postgres", "nats")
SIZES = (200, 10_000)
SECONDS = 5.0
WINDOW = 2 << 20
PINGS = 2000
BATCH = 20
_TICKS = os.sysconf("SC_CLK_TCK")


def make(reactor: Any, url: str, node: str) -> Any:
    """
    A bus on the engine of a URL.
    """
    common: dict[str, Any] = {
        "counts": Counts(),
        "now": time.monotonic,
        "random": random.random,
        "max_message": 1 << 20,
        "max_waiting": 8 << 20,
    }
    if url.startswith("nats:"):
        bus: BaseBus = NatsBus(reactor, read_urls([url]), credentials=Credentials, tls=tls_options(None), **common)
    else:

        async def address() -> Place:
            return Place(url)

        bus = PostgresBus(reactor, address, **common)
    bus.join(node, "benchmark")
    return bus


def run_part(part: str, url: str, size: int) -> None:
    """
    One of the two processes.
    """
    from twisted.internet import reactor

    parts = {"send": send, "receive": receive, "ping": ping, "echo": echo}
    bus = make(reactor, url, "1" if part in ("send", "ping") else "2")
    parts[part](reactor, bus, size)
    bus.startService()
    reactor.run()  # type: ignore[attr-defined]


def say(**what: float) -> None:
    print(json.dumps(what), flush=True)


def send(reactor: Any, bus: Any, size: int) -> None:
    payload, sent, heard, cpu, begun = b"x" * size, 0, 0, 0.0, 0.0
    window = max(2 * BATCH, WINDOW // size)

    def go() -> None:
        nonlocal sent
        if time.monotonic() - begun > SECONDS:
            bus.cast("end", b"")
            return
        if sent - heard < window:
            for _ in range(BATCH):
                bus.cast("events", payload)
            sent += BATCH
        reactor.callLater(0, go)

    def ready(sender: str, message: bytes) -> None:
        nonlocal cpu, begun
        cpu, begun = time.process_time(), time.monotonic()
        go()

    def progress(sender: str, message: bytes) -> None:
        nonlocal heard
        heard = int(message)

    def end(sender: str, message: bytes) -> None:
        seconds = time.monotonic() - begun
        say(a_second=sent / seconds, cpu_us=(time.process_time() - cpu) / sent * 1e6, sent=sent)
        reactor.callLater(0, reactor.stop)

    bus.attach("ready", ready)
    bus.attach("progress", progress)
    bus.attach("end", end)


def receive(reactor: Any, bus: Any, size: int) -> None:
    heard, cpu = 0, 0.0
    step = max(2 * BATCH, WINDOW // size) // 8

    def hear(sender: str, message: bytes) -> None:
        nonlocal heard, cpu
        if not heard:
            cpu = time.process_time()
        heard += 1
        if heard % step == 0:
            bus.tell("1", "progress", b"%d" % heard)

    def end(sender: str, message: bytes) -> None:
        say(cpu_us=(time.process_time() - cpu) / heard * 1e6, heard=heard)
        bus.tell("1", "end", b"")
        reactor.callLater(0.5, reactor.stop)

    bus.attach("events", hear)
    bus.attach("end", end)
    when_up(reactor, bus, lambda: bus.tell("1", "ready", b""))


def ping(reactor: Any, bus: Any, size: int) -> None:
    times: list[float] = []
    payload, begun = b"x" * size, 0.0

    def go() -> None:
        nonlocal begun
        begun = time.perf_counter()
        bus.cast("events", payload)

    def back(sender: str, message: bytes) -> None:
        if message:
            times.append((time.perf_counter() - begun) / 2 * 1e3)
        if len(times) < PINGS:
            reactor.callLater(0.002, go)
        else:
            times.sort()
            say(p50_ms=times[PINGS // 2], p99_ms=times[PINGS * 99 // 100])
            bus.cast("end", b"")
            reactor.callLater(0.5, reactor.stop)

    bus.attach("back", back)


def echo(reactor: Any, bus: Any, size: int) -> None:
    def end(sender: str, message: bytes) -> None:
        say()
        reactor.callLater(0, reactor.stop)

    bus.attach("events", lambda sender, message: bus.cast("back", message))
    bus.attach("end", end)
    when_up(reactor, bus, lambda: bus.tell("1", "back", b""))


def when_up(reactor: Any, bus: Any, then: Callable[[], object]) -> None:
    if bus.report()["state"] == "up":
        # the other one has been up for a while
        reactor.callLater(0.2, then)
    else:
        reactor.callLater(0.05, when_up, reactor, bus, then)


def measure(parts: tuple[str, str], url: str, size: int) -> list[dict[str, float]]:
    """
    Run both processes; returns what each has measured.
    """
    processes = []
    for part in parts:
        arguments = ["--part", part, "--url", url, "--size", str(size)]
        processes.append(
            subprocess.Popen([sys.executable, "-m", "benchmarks.buses", *arguments], stdout=subprocess.PIPE, text=True)
        )
        time.sleep(2)
    return [json.loads(one.communicate()[0].splitlines()[-1]) for one in processes]


@contextlib.contextmanager
def server(engine: str) -> Iterator[tuple[str, Callable[[], float]]]:
    """
    A server; yields its URL, and a function that returns the CPU seconds that it has taken.
    """
    if engine == "nats":
        with nats() as one:
            yield one.url, lambda: cpu_of({one.pid})
    else:
        with postgres() as database:
            folder = database.execute("show data_directory")[0][0]
            postmaster = int(Path(folder, "postmaster.pid").read_text().split()[0])
            # that of processes that have ended is their parent's
            yield database.url, lambda: cpu_of({postmaster, *children(postmaster)}, ended=postmaster)


def children(parent: int) -> set[int]:
    return {int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()}


def cpu_of(pids: set[int], ended: int = 0) -> float:
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            if pid == ended:
                ticks += int(fields[13]) + int(fields[14])
    return ticks / _TICKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=ENGINES)
    for name in ("part", "url"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        run_part(given.part, given.url, given.size)
        return
    print("engine   |  bytes | casts/s | lost | sent µs | heard µs | server µs | ms p50 | ms p99")
    for _ in range(given.rounds):
        for engine in (given.only,) if given.only else ENGINES:
            with server(engine) as (url, cpu):
                for size in SIZES:
                    before = cpu()
                    sender, receiver = measure(("send", "receive"), url, size)
                    of_server = (cpu() - before) / sender["sent"] * 1e6
                    times = measure(("ping", "echo"), url, size)[0]
                    print(
                        f"{engine:<8} | {size:>6} | {sender['a_second']:>7.0f} |"
                        f" {sender['sent'] - receiver['heard']:>4} | {sender['cpu_us']:>7.1f} |"
                        f" {receiver['cpu_us']:>8.1f} | {of_server:>9.1f} |"
                        f" {times['p50_ms']:>6.2f} | {times['p99_ms']:>6.2f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
