"""
What nodes of a cluster cost and how soon one takes the lead over, in one run, as Markdown tables.

    python -m benchmarks.cluster

It starts a PostgreSQL that syncs to the disk, and nodes of dcm-ws on it.  On a disk that others use at the same time,
compare the figures of one run and never those of two.

    python -m benchmarks.cluster --only takeover latency --seconds 5 --folder /var/tmp

C{--only} takes one or more of the parts: takeover, latency, publish, idle.  C{--bus nats} starts a cluster of three
NATS servers for the messages of the nodes.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import psycopg2

from benchmarks.durable_rig import (
    CHANNEL,
    EVENT,
    PAD,
    Rows,
    Service,
    Subscriber,
    Writers,
    backends,
    cpu_of,
    durable,
    install,
    median,
    print_table,
    spread,
    syncing,
    until,
)
from benchmarks.returns import said
from tests.integration.databases import PostgresServer
from tests.integration.nats_servers import NatsServer, nats_cluster

_WINDOWS = (1, 100, 2000)
_TIMES = {signal.SIGKILL: 5, signal.SIGSTOP: 3}
_EACH = 0.005


class Node(Service):
    """
    A node of a cluster.
    """

    def _is_up(self) -> bool:
        return self.state() in ("up", "following")

    def state(self) -> str:
        """
        What its log does.
        """
        return str(self.health()["log"]["state"])

    def kill(self) -> None:
        """
        End it at once, also if it is stopped.
        """
        self.process.kill()
        self.process.wait(30)


class Run(Rows):
    """
    One run, and its nodes.

    @param nats: servers for the messages of the nodes; none to send them through PostgreSQL.
    """

    def __init__(self, database: PostgresServer, seconds: float, nats: Sequence[NatsServer]) -> None:
        super().__init__(database, seconds)
        self._bus = [option for one in nats for option in ("--nats", one.url)]

    @contextmanager
    def nodes(self, number: int) -> Iterator[list[Node]]:
        """
        So many nodes; the first one leads.
        """
        running: list[Node] = []
        try:
            for _ in range(number):
                running.append(Node(self.database, "--cluster", *self._bus, "--max-send-buffer", "67108864"))
            yield running
        finally:
            for node in running:
                node.kill()


def takeover(run: Run) -> None:
    """
    How long a client of another node gets nothing while SQL publishes all the time, after the leader was killed or
    frozen.
    """
    for how, times in _TIMES.items():
        silences = []
        for _ in range(times):
            with run.nodes(2) as (leader, other):
                subscriber = Subscriber(other)
                sent, stop = list[int](), threading.Event()
                writer = threading.Thread(target=_publish_slowly, args=(run, sent, stop))
                writer.start()
                time.sleep(1.0)
                leader.process.send_signal(how)
                until(lambda node=other: node.state() == "up", "the other node leads")
                time.sleep(1.0)
                stop.set()
                writer.join()
                _until_arrived([subscriber], sent)
                arrivals = sorted(subscriber.arrivals[number] for number in sent)
                silences.append(max(b - a for a, b in itertools.pairwise(arrivals)) / 1e6)
                subscriber.stop()
        run.note(
            "takeover", how=how.name, times=times, **{"median ms": round(median(silences))},
            **{"longest ms": round(max(silences))},
        )  # fmt: skip


def _publish_slowly(run: Run, sent: list[int], stop: threading.Event) -> None:
    with closing(psycopg2.connect(run.database.url)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        while not stop.is_set():
            number = next(run.numbers)
            cursor.execute(f"select {durable(str(number))}")
            sent.append(number)
            time.sleep(_EACH)


def _until_arrived(subscribers: list[Subscriber], numbers: list[int]) -> None:
    # a client gets each event twice, because it is subscribed to global, too; so a count says nothing
    until(lambda: all(all(one.arrivals[number] for number in numbers) for one in subscribers), "everything has arrived")


def _note_end(ends: list[float], begun: float, ended: float) -> None:
    ends.append(ended)


def latency(run: Run) -> None:
    """
    From COMMIT to a client of the leader and to one of another node, of the same events.
    """
    for rate in (100, 1000):
        with run.nodes(2) as (leader, other):
            subscribers = {"leader": Subscriber(leader), "other node": Subscriber(other)}
            writers, order = Writers(run.database, 8), list[int]()

            def transaction(order: list[int] = order) -> str:
                order.append(next(run.numbers))
                return f"select {durable(str(order[-1]))}"

            ends = list[float]()

            writers.run(transaction, 1.0, rate=rate)
            first = len(order)
            cpu = {"leader": leader.cpu(), "other node": other.cpu(), "database": cpu_of(backends(run.database))}
            begun = time.monotonic()
            writers.run(transaction, run.seconds, rate=rate, done=partial(_note_end, ends))
            took = time.monotonic() - begun
            _until_arrived(list(subscribers.values()), order)
            ends.sort()
            used = {"leader": leader.cpu(), "other node": other.cpu(), "database": cpu_of(backends(run.database))}
            for name, subscriber in subscribers.items():
                arrivals = sorted(subscriber.arrivals[number] / 1e9 for number in order[first:])
                waits = [arrival - end for arrival, end in zip(arrivals, ends, strict=True)]
                run.note(
                    "latency", at=name, rate=rate, **spread(max(0.0, wait) for wait in waits),
                    **{"CPU %": round(100 * (used[name] - cpu[name]) / took),
                       "database CPU %": round(100 * (used["database"] - cpu["database"]) / took),
                       "events": len(order) - first},
                )  # fmt: skip
                subscriber.stop()
            writers.close()


def publish(run: Run) -> None:
    """
    Events a second that one client publishes, with so many answers outstanding, at the leader and at another node.
    """
    with run.nodes(2) as (leader, other):
        for window in _WINDOWS:
            for name, node in (("leader", leader), ("other node", other)):
                took, count, seconds, failed = _published(node, run.seconds, window)
                run.note(
                    "publish", at=name, window=window, **{"events/s": round(count / seconds)}, failed=failed,
                    **spread(took),
                )  # fmt: skip


def _published(node: Node, seconds: float, window: int) -> tuple[list[float], int, float, int]:
    frame = said(type="publish", channel=CHANNEL, event=EVENT, data={"pad": PAD}, id=0)
    with node.connect() as client:
        client.settimeout(20)
        tail, waiting, took, failed, begun = b"", list[float](), list[float](), 0, time.monotonic()
        client.recv(1 << 18)
        while (now := time.monotonic()) - begun < seconds or waiting:
            if now - begun < seconds and len(waiting) < window:
                more = min(window - len(waiting), 500)
                client.sendall(frame * more)
                waiting += [now] * more
                continue
            chunk = tail + client.recv(1 << 18)
            tail = chunk[-11:]
            answers = chunk.count(b'"type":"ack"') - tail.count(b'"type":"ack"')
            failures = chunk.count(b'"NOT_AVAILABLE"')
            failed += failures
            ended = time.monotonic()
            took += [ended - since for since in waiting[: answers + failures]]
            del waiting[: answers + failures]
        return took, len(took) - failed, time.monotonic() - begun, failed


def idle(run: Run) -> None:
    """
    What one more node costs while nothing happens.
    """
    for number in (1, 2, 4):
        with run.nodes(number) as nodes:
            time.sleep(2.0)
            before, began = _load(run), time.monotonic()
            cpus = [node.cpu() for node in nodes]
            time.sleep(run.seconds)
            after, took = _load(run), time.monotonic() - began
            used = [(node.cpu() - cpu) / took * 100 for node, cpu in zip(nodes, cpus, strict=True)]
            run.note(
                "idle", nodes=number, **{
                    "database CPU %": round((after[0] - before[0]) / took * 100, 1),
                    "transactions/s": round((after[1] - before[1]) / took),
                    "connections": after[2],
                    "leader CPU %": round(used[0], 1),
                    "others CPU % each": round(sum(used[1:]) / max(1, number - 1), 1),
                },
            )  # fmt: skip


def _load(run: Run) -> tuple[float, int, int]:
    ((transactions,),) = run.database.execute(
        "select sum(xact_commit)::bigint from pg_stat_database where datname = current_database()"
    )
    ((connections,),) = run.database.execute(
        "select count(*) from pg_stat_activity where application_name like 'dcm-ws %%'"
    )
    return cpu_of(backends(run.database)), transactions, connections


PARTS: dict[str, Callable[[Run], None]] = {
    "takeover": takeover,
    "latency": latency,
    "publish": publish,
    "idle": idle,
}
"""
What can be measured.
"""


def main() -> None:
    """
    Measure, and print the tables.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--bus", choices=("postgres", "nats"), default="postgres")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with syncing(given.folder) as database, nats_cluster() if given.bus == "nats" else nullcontext([]) as nats:
        install(database)
        run = Run(database, given.seconds, nats)
        for part in given.only:
            PARTS[part](run)
    for table, rows in run.found.items():
        print_table(table, rows)


if __name__ == "__main__":
    main()
