"""
A rolling restart of three nodes while events come and a thousand clients listen, as Markdown tables.

    python -m benchmarks.rolling

The clients are agents that owe acks; they come back at any node, with the delays of the clients of this project.  In
place of a load balancer, a thread asks C{/readyz} of each node twice a second.

    python -m benchmarks.rolling --how SIGTERM --clients 300 --rate 200
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.cluster import Node
from benchmarks.durable_rig import Rows, Writers, backends, cpu_of, install, print_table, syncing, until
from benchmarks.rolling_clients import EVENT, Flags, Found, run, topic_of
from tests.integration.databases import PostgresServer

NODES = 3
PROCESSES = 2
HOWS = (signal.SIGTERM, signal.SIGKILL)

_PAD = "x" * 250
_LOOK_SECONDS = 0.5
_SETTLE_SECONDS = 4.0


class Balancer(threading.Thread):
    """
    Knows which nodes take clients.
    """

    def __init__(self, flags: Flags) -> None:
        super().__init__(daemon=True)
        self._flags = flags
        self._ends = threading.Event()

    def run(self) -> None:
        while not self._ends.wait(_LOOK_SECONDS):
            for node, port in enumerate(self._flags.ports):
                self._flags.is_in[node] = is_ready(port)

    def stop(self) -> None:
        """
        End it.
        """
        self._ends.set()
        self.join()


def is_ready(port: int) -> bool:
    """
    Does the node take clients?
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(100)
    except OSError:
        return False


def write(database: PostgresServer, rate: float, stop: Any, flags: Flags, answer: Any) -> None:
    """
    Publish with SQL until C{stop} is set.
    """
    writers = Writers(database, 4)

    def transaction() -> str | None:
        number = flags.published.value
        flags.published.value += 1
        return f"select dcm_ws.publish('{topic_of(number)}', '{EVENT}', '{{\"n\":{number},\"pad\":\"{_PAD}\"}}')"

    while not stop.is_set():
        writers.run(transaction, 1.0, rate=rate)
    answer.send((writers.errors, time.process_time()))


class Course:
    """
    Nodes, clients and a writer.
    """

    def __init__(self, rows: Rows, clients: int, rate: float) -> None:
        self._rows = rows
        self._clients = clients
        self._rate = rate
        self._spent = 0.0
        self._refused = 0

    def run(self, how: signal.Signals) -> None:
        """
        Restart all nodes, one after the other, and note what the clients have found.

        @param how: how each node is ended.
        """
        database, self._refused = self._rows.database, 0
        database.execute("drop schema if exists dcm_ws cascade; drop table if exists public.rows")
        install(database)
        with ExitStack() as stack:
            nodes = [Node(database, *_options(number)) for number in range(NODES)]
            stack.callback(lambda: [node.kill() for node in nodes])
            flags = Flags([node.port for node in nodes])
            balancer = Balancer(flags)
            balancer.start()
            stack.callback(balancer.stop)
            stop, pipes, processes = multiprocessing.Event(), list[Any](), list[Any]()
            share = self._clients // PROCESSES
            for number in range(PROCESSES):
                pipes.append(_started(processes, run, number * share, share, flags, 3))
            for _ in range(share * PROCESSES):
                flags.ready.acquire(timeout=60)
            pipes.append(_started(processes, write, database, self._rate, stop, flags))
            time.sleep(_SETTLE_SECONDS)
            flags.phase.value = 1
            time.sleep(2 * _SETTLE_SECONDS)
            begun, before = time.monotonic(), [cpu_of([one.pid]) for one in processes]
            server, self._spent = cpu_of(backends(database)), -sum(node.cpu() for node in nodes)
            flags.phase.value = 2
            for number, node in enumerate(nodes):
                nodes[number] = self._restart(number, node, how)
            took = time.monotonic() - begun
            shares = [(cpu_of([one.pid]) - cpu) / took for one, cpu in zip(processes, before, strict=True)]
            cpu = {"clients": sum(shares[:-1]), "writer": shares[-1]}
            cpu |= {
                "nodes": (self._spent + sum(node.cpu() for node in nodes)) / took,
                "database": (cpu_of(backends(database)) - server) / took,
            }
            stop.set()
            errors, _ = pipes[-1].recv()
            flags.last.value = flags.published.value
            found = [one for pipe in pipes[:-1] for one in pipe.recv()[0]]
            self._refused += sum(node.health()["owners"]["refused"] for node in nodes)
            self._note(how, found, flags.last.value, errors, took)
            self._rows.note("CPU", how=how.name, **{f"{name} %": round(100 * value) for name, value in cpu.items()})

    def _restart(self, number: int, node: Node, how: signal.Signals) -> Node:
        stats = node.health()
        self._refused += stats["owners"]["refused"]
        begun = time.monotonic()
        self._spent += node.cpu()
        node.process.send_signal(how)
        node.process.wait(60)
        stopped = time.monotonic()
        again = Node(self._rows.database, *_options(number), port=node.port)
        until(lambda: is_ready(node.port), "the node is ready")
        ready = time.monotonic()
        time.sleep(_SETTLE_SECONDS)
        self._rows.note(
            "nodes", how=how.name, node=number + 1, clients=stats["connectedClients"],
            **{"stop s": round(stopped - begun, 1), "start s": round(ready - stopped, 1)},
            **{"clients then": again.health()["connectedClients"]},
        )  # fmt: skip
        return again

    def _note(self, how: signal.Signals, found: list[Found], events: int, errors: int, took: float) -> None:
        usual, silences = (sorted(one.silences[phase] for one in found) for phase in (1, 2))
        most = len(found) - 1
        self._rows.note(
            "clients", how=how.name, clients=len(found), events=events, **{"refused by the database": errors},
            **{"s": round(took), "closed with 1013": self._refused},
            connections=sum(one.connections for one in found) - len(found),
            lost=sum(one.missing for one in found), again=sum(one.again for one in found),
            **{"after its ack": sum(one.acknowledged_again for one in found)},
            **{f"silence {name} s": round(values[most * percent // 100], 2) for name, values, percent in (
                ("usual max", usual, 100), ("p50", silences, 50), ("p99", silences, 99), ("max", silences, 100))},
        )  # fmt: skip


def _options(number: int) -> tuple[str, ...]:
    return "--cluster", "--node-name", f"n{number + 1}"


def _started(processes: list[Any], call: Any, *arguments: Any) -> Any:
    """
    Start a process; returns the end of a pipe that receives its answer.
    """
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=call, args=(*arguments, there), daemon=True)
    process.start()
    processes.append(process)
    return here


def main() -> None:
    """
    Measure, and print the tables.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rolling")
    parser.add_argument("--how", nargs="+", choices=[how.name for how in HOWS], default=[how.name for how in HOWS])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with syncing(given.folder) as database:
        rows = Rows(database, 0.0)
        course = Course(rows, given.clients, given.rate)
        for name in given.how:
            course.run(signal.Signals[name])
    for table, found in rows.found.items():
        print_table(table, found)


if __name__ == "__main__":
    main()
