"""
Three nodes of dcm-ws, with each bus, next to a cluster of three NATS servers, in one run, as Markdown tables.

    python -m benchmarks.across --rounds 3

Clients of all of them use WebSockets.  One client publishes at a node that does not lead (with JetStream: that does not
lead the stream), and the subscribers are at the other two.  In each round, every system is measured in turn: the most
events that it carries to two subscribers, and then how long events take at a fixed rate, to more subscribers, and what
processor time they cost.  The figures are medians of the rounds.

Events that are not logged are compared with NATS alone, and logged ones with JetStream on files.  C{sync} means that
JetStream syncs each message to the disk before it answers, as PostgreSQL does with each commit.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.across_clients import Crowd, Dcm, Dialect, JetStream, Nats, made_stream
from benchmarks.cluster import Node
from benchmarks.durable_rig import backends, cpu_of, fdatasync, install, print_table, spread, syncing, until
from tests.integration.databases import PostgresServer
from tests.integration.machine import free_port
from tests.integration.nats_servers import NatsServer, start_cluster

NODES = 3
KINDS = ("not logged", "logged")

STREAM = "EVENTS"
_WARM_SECONDS = 1.0
_SETTLE_SECONDS = 1.0


class Cluster(NamedTuple):
    """
    What is measured.

    @ivar ports: of its nodes, for WebSockets; the first one leads.
    @ivar cpu: the processor time that each part has used, in seconds.
    """

    ports: list[int]
    cpu: dict[str, Callable[[], float]]


class System(NamedTuple):
    """
    A way to run a cluster, and what clients say to it.

    @ivar dialects: by the kind of events.
    """

    name: str
    running: Callable[[], AbstractContextManager[Cluster]]
    dialects: Mapping[str, Callable[[], Dialect]]


class Servers:
    """
    Starts the clusters.

    @param folder: is on the disk that is measured.
    """

    def __init__(self, database: PostgresServer, folder: Path) -> None:
        self._database = database
        self._folder = folder

    @contextmanager
    def dcm(self, bus: str) -> Iterator[Cluster]:
        """
        Nodes of dcm-ws.

        @param bus: C{postgres} or C{nats}.
        """
        self._database.execute("drop schema if exists dcm_ws cascade; drop table if exists public.rows")
        install(self._database)
        with ExitStack() as stack:
            options, cpu = ["--cluster", "--max-send-buffer", "67108864"], dict[str, Callable[[], float]]()
            if bus == "nats":
                servers, _ = stack.enter_context(self._nats())
                options += [option for one in servers for option in ("--nats", one.url)]
                cpu["NATS"] = lambda: cpu_of(one.pid for one in servers)
            nodes = []
            for number in range(NODES):
                nodes.append(Node(self._database, *options, "--node-name", f"n{number}"))
                stack.callback(nodes[-1].kill)
            until(lambda: all(node.health()["bus"]["state"] == "up" for node in nodes), "the bus is up")
            cpu["nodes"] = lambda: sum(node.cpu() for node in nodes)
            cpu["PostgreSQL"] = lambda: cpu_of(backends(self._database))
            yield Cluster([node.port for node in nodes], cpu)

    @contextmanager
    def nats(self, replicas: int, sync: bool = False) -> Iterator[Cluster]:
        """
        NATS servers.

        @param replicas: of the stream; 0 without JetStream.
        """
        with self._nats(jetstream=replicas > 0, sync=sync) as (servers, ports):
            if replicas:
                leader = made_stream(ports[0], STREAM, replicas)
                ports.insert(0, ports.pop(int(leader.removeprefix("n"))))
            yield Cluster(ports, {"NATS": lambda: cpu_of(one.pid for one in servers)})

    @contextmanager
    def _nats(self, jetstream: bool = False, sync: bool = False) -> Iterator[tuple[list[NatsServer], list[int]]]:
        with tempfile.TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True) as name:
            folder = Path(name)
            routes, ports = ([free_port() for _ in range(NODES)] for _ in range(2))
            others = ", ".join(f"nats://127.0.0.1:{port}" for port in routes)
            servers = []
            for number, (route, port) in enumerate(zip(routes, ports, strict=True)):
                lines = [
                    f"server_name: n{number}",
                    f"cluster {{ name: benchmark, listen: 127.0.0.1:{route}, routes: [{others}] }}",
                    f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true, compression: false }}',
                ]
                if jetstream:
                    always = "sync_interval: always" if sync else ""
                    lines.append(f'jetstream {{ store_dir: "{folder}/{number}", {always} }}')
                servers.append(NatsServer(folder, "\n".join(lines) + "\n"))
            try:
                start_cluster(servers)
                yield servers, ports
            finally:
                for server in servers:
                    server.stop(kill=True)


def systems(servers: Servers) -> list[System]:
    """
    All that is compared, in the order of the tables.
    """
    both = {
        KINDS[0]: partial(Dcm, "system.info", is_logged=False),
        KINDS[1]: partial(Dcm, "session.created", is_logged=True),
    }
    found = [
        System("dcm-ws on PostgreSQL", partial(servers.dcm, "postgres"), both),
        System("dcm-ws on NATS", partial(servers.dcm, "nats"), both),
        System("NATS", partial(servers.nats, 0), {KINDS[0]: Nats}),
    ]
    for sync in (False, True):
        for replicas in (1, 3):
            name = f"JetStream, R={replicas}" + (", sync" if sync else "")
            stream = {KINDS[1]: partial(JetStream, STREAM)}
            found.append(System(name, partial(servers.nats, replicas, sync), stream))
    return found


class Run:
    """
    The figures of all rounds.

    @ivar found: by the kind of events and the name of the system, what each round has found.
    """

    def __init__(self, seconds: float, window: int, rate: float, subscribers: int) -> None:
        self.found: dict[str, dict[str, list[dict[str, float]]]] = {kind: {} for kind in KINDS}
        self._seconds = seconds
        self._window = window
        self._rate = rate
        self._subscribers = subscribers

    def measure(self, system: System) -> None:
        """
        Start a system, and measure it once.
        """
        with system.running() as cluster:
            for kind, dialect in system.dialects.items():
                figures = self._most(cluster, dialect()) | self._steady(cluster, dialect())
                self.found[kind].setdefault(system.name, []).append(figures)
                print(kind, system.name, {name: round(value, 2) for name, value in figures.items()}, file=sys.stderr)

    def _most(self, cluster: Cluster, dialect: Dialect) -> dict[str, float]:
        crowd = _crowd(cluster, dialect, NODES - 1)
        crowd.most(_WARM_SECONDS, self._window)
        meter = Meter(cluster)
        sent, missing, took = crowd.most(self._seconds, self._window)
        used = meter.stop()
        crowd.close()
        return {
            "events/s": sent / took,
            "most missing": missing,
            "most CPU": sum(used.values()) - used["clients"],
            "most clients": used["clients"],
        }

    def _steady(self, cluster: Cluster, dialect: Dialect) -> dict[str, float]:
        crowd = _crowd(cluster, dialect, self._subscribers)
        crowd.steady(_WARM_SECONDS, self._rate)
        meter = Meter(cluster)
        begun = time.monotonic()
        sent, missing, took = crowd.steady(self._seconds, self._rate)
        seconds = time.monotonic() - begun
        used = meter.stop()
        crowd.close()
        times = spread(took)
        deliveries = max(1, sent * self._subscribers - missing)
        costs = {part: share * seconds / 100 / deliveries * 1e6 for part, share in used.items()}
        return {
            "p50": times["p50"],
            "p99": times["p99"],
            "missing": missing,
            "clients": used["clients"],
            "µs": sum(costs.values()) - costs["clients"],
            **{f"µs of {part}": cost for part, cost in costs.items() if part != "clients"},
        }


def _crowd(cluster: Cluster, dialect: Dialect, subscribers: int) -> Crowd:
    """
    A publisher at the second node, and subscribers at the first and the third one in turn.
    """
    leader, second, third = cluster.ports
    crowd = Crowd(dialect, second, [(third, leader)[number % 2] for number in range(subscribers)])
    # the nodes tell each other what their clients want
    time.sleep(_SETTLE_SECONDS)
    return crowd


class Meter:
    """
    The processor time that is used from now on.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._parts = {**cluster.cpu, "clients": lambda: cpu_of([os.getpid()])}
        self._before = {part: cpu() for part, cpu in self._parts.items()}
        self._begun = time.monotonic()

    def stop(self) -> dict[str, float]:
        """
        Percent of a core that each part has used.
        """
        took = time.monotonic() - self._begun
        return {part: (cpu() - self._before[part]) / took * 100 for part, cpu in self._parts.items()}


def rows(found: dict[str, list[dict[str, float]]]) -> list[dict[str, object]]:
    """
    The table of one kind of events.
    """
    table = list[dict[str, object]]()
    for name, rounds in found.items():
        middle = {figure: statistics.median(one[figure] for one in rounds) for figure in rounds[0]}
        parts = {part.removeprefix("µs of "): cost for part, cost in middle.items() if part.startswith("µs of ")}
        table.append(
            {
                "": name,
                "most events/s": round(middle["events/s"]),
                "CPU % of servers": round(middle["most CPU"]),
                "of clients": round(middle["most clients"]),
                "p50 ms": round(middle["p50"], 2),
                "p99 ms": round(middle["p99"], 2),
                "CPU µs a delivery": round(middle["µs"], 1),
                "of these": ", ".join(f"{part} {cost:.1f}" for part, cost in parts.items()),
                "CPU % of clients": round(middle["clients"]),
                "deliveries missing": round(sum(one["missing"] + one["most missing"] for one in rounds)),
            }
        )
    return table


def main() -> None:
    """
    Measure, and print the tables.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.across")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--window", type=int, default=1000, help="events in flight at most, for the most events/s")
    parser.add_argument("--rate", type=float, default=500.0, help="events a second, for the times")
    parser.add_argument("--subscribers", type=int, default=20, help="at the fixed rate")
    parser.add_argument("--only", default="", help="systems whose name contains this")
    parser.add_argument("--folder", type=Path, help="on the disk for all servers")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.gettempdir())
    print(f"fdatasync of 8 KiB, ms: {fdatasync(folder)}")
    with syncing(given.folder) as database:
        run = Run(given.seconds, given.window, given.rate, given.subscribers)
        for _ in range(given.rounds):
            for system in systems(Servers(database, folder)):
                if given.only in system.name:
                    run.measure(system)
    for kind, found in run.found.items():
        if found:
            print_table(f"events that are {kind}", rows(found))


if __name__ == "__main__":
    main()
