"""
What the measurements of the durable log need: a database that syncs, the service, writers, and clients.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import re
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2

from benchmarks.dcmbench import Pg
from benchmarks.returns import HEAD, said
from dcm_ws.postgres.install import BEGIN
from dcm_ws.postgres.migrations import log_sql
from tests.integration.databases import PostgresServer
from tests.integration.machine import free_port

CHANNEL = "topics/bench"
EVENT = "session.created"
"""
It is logged, and need not be acknowledged.
"""

PAD = "x" * 250
MOST = 4_000_000
"""
Events of one run.
"""

_number = re.compile(rb'"n":(\d+),')
_READ = 1 << 18


def data_of(number: str) -> str:
    """
    SQL for the data of an event, of about 300 bytes.

    @param number: SQL for its number.
    """
    return f"""'{{"n":' || ({number}) || ',"pad":"{PAD}"}}'"""


def durable(number: str) -> str:
    """
    SQL that publishes one event to the log.
    """
    return f"dcm_ws.publish('{CHANNEL}', '{EVENT}', {data_of(number)})"


def notified(number: str) -> str:
    """
    SQL that sends one event as a notification.
    """
    head = f'{{"channel":"{CHANNEL}","event":"{EVENT}","data":'
    return f"pg_notify('dcm_events', '{head}' || {data_of(number)} || '}}')"


def spread(seconds: Iterable[float]) -> dict[str, float]:
    """
    Percentiles, in ms.
    """
    values = sorted(seconds)
    if not values:
        return {}
    return {f"p{percent}": round(values[(len(values) - 1) * percent // 100] * 1000, 3) for percent in (50, 95, 99)}


def cpu_of(pids: Iterable[int]) -> float:
    """
    Seconds of CPU time that processes have used, with all their threads.
    """
    used = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                used += int(task.read_text().split()[0])
            except OSError:
                continue  # it has ended
    return used / 1e9


def fdatasync(folder: Path, times: int = 200) -> dict[str, float]:
    """
    How long the disk takes to sync 8 KiB, in ms.
    """
    took = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(times):
            file.write(b"x" * 8192)
            file.flush()
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begun)
    return spread(took)


@contextmanager
def syncing(parent: Path | None = None) -> Iterator[PostgresServer]:
    """
    A PostgreSQL that syncs its commits, in a folder of its own.

    @param parent: is on the disk that is measured.
    """
    with tempfile.TemporaryDirectory(prefix="dcm-ws-benchmark-", dir=parent, ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder), fsync=True)
        try:
            server.start()
            yield server
        finally:
            server.stop("immediate")


def install(database: PostgresServer) -> None:
    """
    Make the schema of the log, and a table for users' rows.
    """
    with closing(psycopg2.connect(database.url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(BEGIN + log_sql())
        cursor.execute("create table public.rows (id bigserial primary key, data text, at timestamptz default now())")


def backends(database: PostgresServer) -> list[int]:
    """
    The processes of the server.
    """
    (leader,) = (row[0] for row in database.execute("select pg_read_file('postmaster.pid')"))
    leader = int(leader.split()[0])
    found = [leader]
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == leader:
            found.append(int(status.parent.name))
    return found


class Rows:
    """
    What one run has found.

    @ivar found: by table, rows of named figures.
    """

    def __init__(self, database: PostgresServer, seconds: float) -> None:
        self.database = database
        self.seconds = seconds
        self.numbers = itertools.count()
        self.found: dict[str, list[dict[str, object]]] = {}

    def note(self, table: str, **row: object) -> None:
        """
        Add a row to a table.
        """
        self.found.setdefault(table, []).append(row)
        print(table, row, file=sys.stderr, flush=True)


def print_table(title: str, rows: list[dict[str, object]]) -> None:
    """
    One table, with the columns of all rows.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    print(f"\n**{title}**\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(_shown(row.get(name, '-')) for name in columns)} |")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return " / ".join(f"{figure:g}" for name, figure in value.items() if name != "p95")
    return f"{value:,}" if isinstance(value, int) else str(value)


class Service:
    """
    dcm-ws in a process of its own.

    @param options: its command line.
    @param port: what it listens on, if that matters.
    """

    def __init__(
        self, database: PostgresServer, *options: str, checkout: Path | None = None, port: int | None = None
    ) -> None:
        self.port = port or free_port()
        command = ["twistd", "-n", "--pidfile="]
        command += ["--logfile=/dev/null", "dcm-ws", "--ws-port", str(self.port), "--database-url", database.url]
        path = {"PYTHONPATH": str(checkout)} if checkout else {}
        self.process = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL, env={**os.environ, **path})
        # clients that are there before the log was found are closed
        until(self._is_up, "the service is up")

    def _is_up(self) -> bool:
        health = self.health()
        return health["database"]["state"] == health["log"]["state"] == "up"

    def health(self) -> dict[str, Any]:
        """
        Its C{/stats}; without a service that answers, one whose database is down.
        """
        try:
            with socket.create_connection(("127.0.0.1", self.port)) as connection:
                connection.sendall(b"GET /stats HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
            found: dict[str, Any] = json.loads(answer.split(b"\r\n\r\n", 1)[1])
        except (OSError, ValueError, IndexError):
            return {"database": {"state": "unknown"}, "log": {"state": "unknown"}}
        return found

    def cpu(self) -> float:
        """
        Seconds of CPU time that it has used.
        """
        return cpu_of([self.process.pid])

    def rss(self) -> int:
        """
        Bytes of memory that it has.
        """
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096

    def connect(self) -> socket.socket:
        """
        A client that has sent its handshake.
        """
        client = socket.create_connection(("127.0.0.1", self.port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(HEAD)
        return client

    def stop(self) -> None:
        """
        End it.
        """
        self.process.terminate()
        self.process.wait(30)


def until(holds: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """
    Wait until something is the case.
    """
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"it is not the case that {what}")
        time.sleep(0.02)


class Subscriber:
    """
    A client in a process of its own, which notes when each event arrives.

    Events are told apart by the C{n} of their data.

    @ivar arrivals: by number, in ns of the monotonic clock; 0 for one that has not arrived.
    """

    def __init__(self, service: Service) -> None:
        self.arrivals = multiprocessing.RawArray("q", MOST)
        self._count = multiprocessing.RawValue("q", 0)
        ready = multiprocessing.Event()
        self._process = multiprocessing.Process(target=self._run, args=(service, ready), daemon=True)
        self._process.start()
        if not ready.wait(20):
            raise SystemExit("the subscriber did not get its ack")

    @property
    def count(self) -> int:
        """
        How many events have arrived.
        """
        return int(self._count.value)

    def _run(self, service: Service, ready: Any) -> None:
        client = service.connect()
        client.sendall(said(type="subscribe", channel=CHANNEL, id=1))
        tail, known = b"", False
        arrivals, count = self.arrivals, self._count
        while chunk := client.recv(_READ):
            now = time.monotonic_ns()
            chunk = tail + chunk
            if not known and b'"type":"ack"' in chunk:
                known = True
                ready.set()
            if b'"type":"ping"' in chunk:
                client.sendall(said(type="pong"))
            end = 0
            for found in _number.finditer(chunk):
                arrivals[int(found[1])] = now
                count.value += 1
                end = found.end()
            tail = chunk[end:][-64:]

    def stop(self) -> None:
        """
        End it.
        """
        self._process.terminate()
        self._process.join()


class Writers:
    """
    Connections to the database, each with one transaction at a time.
    """

    def __init__(self, database: PostgresServer, number: int) -> None:
        self._connections = [Pg(database.url) for _ in range(number)]
        self._poller = select.epoll()
        for connection in self._connections:
            self._poller.register(connection.s.fileno(), select.EPOLLIN)
        self._by_file = {connection.s.fileno(): connection for connection in self._connections}
        self.errors = 0

    def run(
        self,
        transaction: Callable[[], str | None],
        seconds: float,
        *,
        rate: float = 0.0,
        done: Callable[[float, float], object] = lambda begun, ended: None,
    ) -> tuple[int, float]:
        """
        Run transactions for so long; returns how many, and the seconds that they took.

        @param transaction: returns the SQL of the next one; None if there is none now.
        @param rate: transactions a second in all; 0 for as many as possible.
        @param done: called with when each transaction was sent and when its answer arrived.
        """
        free, asked = list(self._connections), dict[Pg, tuple[float, int]]()
        ended, count, begun = 0, 0, time.monotonic()
        while True:
            since = time.monotonic() - begun
            while free and since < seconds and (not rate or count <= since * rate):
                sql = transaction()
                if sql is None:
                    break
                connection = free.pop(0)
                asked[connection] = (time.monotonic(), connection.done)
                connection.query(sql)
                count += 1
            # the answer may have been read together with the question
            for connection in [one for one, (_, before) in asked.items() if one.done > before]:
                done(asked.pop(connection)[0], time.monotonic())
                free.append(connection)
                ended += 1
            if not asked and since >= seconds:
                break
            if len(asked) < len(self._connections) and not rate and since < seconds and free:
                pause = 0.001
            else:
                pause = max(0.0, min(0.02, count / rate - since)) if rate and free else 0.02
            for file, _ in self._poller.poll(pause):
                self._by_file[file].pump()
        self.errors = sum(connection.errors for connection in self._connections)
        return ended, time.monotonic() - begun

    def close(self) -> None:
        """
        Close the connections.
        """
        for connection in self._connections:
            connection.s.close()


def median(values: Sequence[float]) -> float:
    """
    The median; 0 of nothing.
    """
    return statistics.median(values) if values else 0.0
