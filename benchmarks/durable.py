"""
What the durable log costs, beside the log in memory with NOTIFY, in one run, as Markdown tables.

    python -m benchmarks.durable

It starts a PostgreSQL that syncs to the disk, and dcm-ws twice: with C{--log memory}, to which events are sent with
C{pg_notify}, and with C{--log postgres}, to which they are published with C{dcm_ws.publish}.  On a disk that others use
at the same time, compare the columns of one run and never two runs.

    python -m benchmarks.durable --only latency --seconds 5 --folder /var/tmp

C{--only} takes one or more of the parts: latency, rate, clients, replay, users, bytes, idle.
"""

from __future__ import annotations

import argparse
import json
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

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
    fdatasync,
    install,
    notified,
    print_table,
    spread,
    syncing,
    until,
)
from benchmarks.returns import said
from tests.integration.databases import PostgresServer

ENGINES = {"memory": notified, "postgres": durable}
"""
How events are published for each engine.
"""

INSERT = "insert into public.rows (data) values ('x')"
"""
A row of a user's.
"""

_WINDOW = 20_000
_MANY = 256
_REPLAYED = 10_000
_MARK = b'"event":"'


class Run(Rows):
    """
    One run, and its services.
    """

    @contextmanager
    def serving(self, engine: str, *options: str) -> Iterator[Service]:
        """
        A service with an engine.
        """
        service = Service(self.database, "--log", engine, "--max-send-buffer", "67108864", *options)
        try:
            yield service
        finally:
            service.stop()


def latency(run: Run) -> None:
    """
    From COMMIT to the client, at a fixed rate, also with a long writing transaction open.
    """
    for rate in (100, 1000):
        for engine, publish, held in (
            ("bare commit", None, False),
            ("memory", notified, False),
            ("postgres", durable, False),
            ("postgres", durable, True),
        ):
            if publish is None:
                run.note("latency", engine=engine, rate=rate, **_commits(run, rate))
                continue
            with run.serving(engine) as service, _held(run.database, held):
                label = engine + (", long transaction" if held else "")
                run.note("latency", engine=label, rate=rate, **_latency(run, service, rate, publish))


@contextmanager
def _held(database: PostgresServer, held: bool) -> Iterator[None]:
    """
    A transaction that has written, and published, and stays open.
    """
    if not held:
        yield
        return
    with closing(psycopg2.connect(database.url)) as connection:
        connection.cursor().execute("insert into public.rows (data) values ('long')")
        connection.cursor().execute(f"select dcm_ws.publish('{CHANNEL}', '{EVENT}', 'null')")
        yield
        connection.rollback()


def _commits(run: Run, rate: float) -> dict[str, object]:
    writers, took = Writers(run.database, 8), list[float]()

    def transaction() -> str:
        return INSERT

    writers.run(transaction, 1.0, rate=rate)
    done, seconds = writers.run(
        transaction, run.seconds, rate=rate, done=lambda begun, ended: took.append(ended - begun)
    )
    writers.close()
    return {"commit ms": spread(took), "achieved/s": round(done / seconds)}


def _latency(run: Run, service: Service, rate: float, publish: Callable[[str], str]) -> dict[str, object]:
    subscriber, writers = Subscriber(service), Writers(run.database, 8)
    # in the order in which they were sent
    sent: list[int] = []
    times: list[tuple[float, float]] = []

    def transaction() -> str:
        number = next(run.numbers)
        sent.append(number)
        return f"select {publish(str(number))}"

    def done(begun: float, ended: float) -> None:
        times.append((begun, ended))

    writers.run(transaction, 1.0, rate=rate)
    sent.clear()
    used, steps = (service.cpu(), cpu_of(backends(run.database))), _steps(service)
    ended, seconds = writers.run(transaction, run.seconds, rate=rate, done=done)
    _wait_for(subscriber, sent)
    cpu, database_cpu = service.cpu() - used[0], cpu_of(backends(run.database)) - used[1]
    steps = _steps(service) - steps
    times.sort()
    pairs = list(zip(times, sent, strict=True))
    arrived = [subscriber.arrivals[number] / 1e9 for _, number in pairs]
    subscriber.stop()
    writers.close()
    return {
        "commit ms": spread(end - begin for (begin, end), _ in pairs),
        "after commit ms": spread(at - end for at, ((_, end), _) in zip(arrived, pairs, strict=True)),
        "call to client ms": spread(at - begin for at, ((begin, _), _) in zip(arrived, pairs, strict=True)),
        "achieved/s": round(ended / seconds),
        "service us/event": round(cpu / ended * 1e6),
        "database us/event": round(database_cpu / ended * 1e6),
        "steps/s": round(steps / seconds),
    }


def _steps(service: Service) -> int:
    log: dict[str, Any] = service.health().get("log", {})
    return int(log.get("steps", 0))


def _wait_for(subscriber: Subscriber, sent: list[int]) -> None:
    until(lambda: all(map(subscriber.arrivals.__getitem__, sent)), "all events have arrived", 60)


def rate(run: Run) -> None:
    """
    The most events a second by SQL.
    """
    for engine, publish in ENGINES.items():
        for writers in (1, 32):
            for size in (1, 20, 200):
                with run.serving(engine) as service:
                    found = _rate(run, service, publish, writers, size)
                run.note("rate", engine=engine, writers=writers, **{"a transaction": size}, **found)


def _rate(run: Run, service: Service, publish: Callable[[str], str], number: int, size: int) -> dict[str, object]:
    subscriber, writers = Subscriber(service), Writers(run.database, number)
    sent = 0

    def transaction() -> str | None:
        nonlocal sent
        if sent - subscriber.count >= _WINDOW:
            return None
        sent += size
        return f"select {publish('i')} from generate_series({sent - size}, {sent - 1}) i"

    writers.run(transaction, 0.5)
    until(lambda: subscriber.count >= sent, "all events have arrived", 60)
    before, used, begun = sent, (service.cpu(), cpu_of(backends(run.database))), time.monotonic()
    writers.run(transaction, run.seconds)
    until(lambda: subscriber.count >= sent, "all events have arrived", 60)
    took, events = time.monotonic() - begun, sent - before
    cpu, database_cpu = service.cpu() - used[0], cpu_of(backends(run.database)) - used[1]
    subscriber.stop()
    writers.close()
    return {
        "events/s": round(events / took),
        "service us/event": round(cpu / events * 1e6, 1),
        "database us/event": round(database_cpu / events * 1e6, 1),
    }


def clients(run: Run) -> None:
    """
    The most events a second by clients' publishes, each with its ack.
    """
    for engine in ENGINES:
        for in_flight in (1, _MANY):
            with run.serving(engine) as service:
                run.note("clients", engine=engine, **{"in flight": in_flight}, **_clients(run, service, in_flight))


def _clients(run: Run, service: Service, in_flight: int) -> dict[str, object]:
    client = service.connect()
    client.sendall(said(type="ping"))
    begun = time.monotonic()
    sent = acked = 0
    asked: dict[int, float] = {}
    took: list[float] = []
    tail, used = b"", service.cpu()
    while True:
        over = time.monotonic() - begun >= run.seconds
        batch = []
        while not over and len(asked) < in_flight:
            sent += 1
            asked[sent] = time.monotonic()
            batch.append(said(type="publish", channel=CHANNEL, event=EVENT, data={"n": sent, "pad": PAD}, id=sent))
        if batch:
            client.sendall(b"".join(batch))
        if over and not asked:
            break
        chunk = client.recv(1 << 18)
        if not chunk:
            raise SystemExit("the service closed the connection")
        now = time.monotonic()
        *frames, tail = (tail + chunk).split(b"\x81")
        for text in (*frames, tail):
            if (found := text.find(b'"id":')) >= 0 and b'"type":"ack"' in text and text.rstrip().endswith(b"}"):
                number = int(text[found + 5 :].split(b",", 1)[0].split(b"}", 1)[0])
                if number in asked:
                    took.append(now - asked.pop(number))
                    acked += 1
    seconds = time.monotonic() - begun
    cpu = service.cpu() - used
    client.close()
    return {
        "events/s": round(acked / seconds),
        "ack ms": spread(took),
        "service us/event": round(cpu / acked * 1e6, 1),
    }


def replay(run: Run) -> None:
    """
    A client that resumes.
    """
    for engine, publish in ENGINES.items():
        with run.serving(engine) as service:
            start, epoch = _head(service)
            for first in range(0, _REPLAYED, 500):
                run.database.execute(f"select {publish('i')} from generate_series({first}, {first + 499}) i")
            while service.health()["log"]["head"] < start + _REPLAYED:
                time.sleep(0.05)
            for number in (300, _REPLAYED):
                run.note(
                    "replay", engine=engine, events=number, read="from memory", **_replay(service, start, epoch, number)
                )
        if engine == "postgres":
            with run.serving(engine) as service:
                for number in (300, _REPLAYED):
                    found = _replay(service, start, epoch, number)
                    run.note("replay", engine=engine, events=number, read="from the database", **found)


def _head(service: Service) -> tuple[int, str]:
    client = service.connect()
    client.sendall(said(type="subscribe", channel=CHANNEL, id=1))
    answer = _ack(client)
    client.close()
    return int(answer["pos"]), str(answer["epoch"])


def _ack(client: socket.socket) -> dict[str, Any]:
    data = b""
    while b'"type":"ack"' not in data or not data.endswith(b"}"):
        data += client.recv(1 << 16)
    text = data[data.index(b'{"type":"ack"') :]
    found, _ = json.JSONDecoder().raw_decode(text.decode())
    return dict(found)


def _replay(service: Service, start: int, epoch: str, number: int) -> dict[str, object]:
    took, used = [], service.cpu()
    for _ in range(5):
        client = service.connect()
        position = start + _REPLAYED - number
        begun = time.monotonic()
        client.sendall(said(type="resume", epoch=epoch, pos=position, channels=[CHANNEL], id=1))
        seen, tail = 0, b""
        while seen < number:
            chunk = client.recv(1 << 18)
            if not chunk:
                raise SystemExit("the service closed the connection")
            data = tail + chunk
            seen += data.count(_MARK)
            # it may come in two pieces
            tail = data[1 - len(_MARK) :]
        took.append(time.monotonic() - begun)
        client.close()
    return {"ms": spread(took)["p50"], "service us/event": round((service.cpu() - used) / 5 / number * 1e6, 2)}


def users(run: Run) -> None:
    """
    What publishing costs the transactions that do it, with a service that listens.
    """
    # several statements in one query are one transaction
    ways = {
        "INSERT": ("postgres", INSERT),
        "INSERT and dcm_ws.publish": ("postgres", f"{INSERT}; select {durable('1')}"),
        "INSERT and pg_notify": ("memory", f"{INSERT}; select {notified('1')}"),
    }
    for number in (1, 32):
        for way, (engine, sql) in ways.items():
            with run.serving(engine):
                run.note("users", transaction=way, writers=number, **_transactions(run, sql, number))


def _transactions(run: Run, sql: str, number: int) -> dict[str, object]:
    writers, took = Writers(run.database, number), list[float]()
    writers.run(lambda: sql, 0.5)
    used = cpu_of(backends(run.database))
    done, seconds = writers.run(lambda: sql, run.seconds, done=lambda begun, ended: took.append(ended - begun))
    cpu = cpu_of(backends(run.database)) - used
    writers.close()
    return {
        "transactions/s": round(done / seconds),
        "ms": spread(took),
        "database us/transaction": round(cpu / done * 1e6),
    }


def sizes(run: Run) -> None:
    """
    Bytes on disk, and of WAL, for each event.
    """
    for engine, publish in ENGINES.items():
        with run.serving(engine) as service:
            run.note("bytes", engine=engine, **_bytes(run, service, publish))


def _bytes(run: Run, service: Service, publish: Callable[[str], str]) -> dict[str, object]:
    subscriber, writers = Subscriber(service), Writers(run.database, 4)
    run.database.execute("checkpoint")
    before, events = _disk(run.database), 0

    def transaction() -> str:
        nonlocal events
        events += 1
        return f"select {publish(str(events))}"

    writers.run(transaction, run.seconds, rate=500)
    until(lambda: subscriber.count >= events, "all events have arrived")
    after = _disk(run.database)
    subscriber.stop()
    writers.close()
    return {"events": events, **{name: round((after[name] - before[name]) / events) for name in before}}


def _disk(database: PostgresServer) -> dict[str, int]:
    ((wal, log, inbox),) = database.execute(
        """
        with part as (
            select inhparent::regclass::text as whole, pg_total_relation_size(inhrelid) as size from pg_inherits)
        select pg_current_wal_insert_lsn() - '0/0'::pg_lsn,
            (select sum(size) from part where whole = 'dcm_ws.log'),
            (select sum(size) from part where whole = 'dcm_ws.inbox')
        """
    )
    return {"WAL bytes": int(wal), "log bytes": int(log), "inbox bytes": int(inbox)}


def idle(run: Run) -> None:
    """
    What a service without events costs.
    """
    for engine in ("memory", "postgres"):
        with run.serving(engine) as service:
            subscriber = Subscriber(service)
            time.sleep(3)
            before, used = _activity(run.database), (service.cpu(), cpu_of(backends(run.database)))
            seconds = max(10.0, run.seconds)
            time.sleep(seconds)
            cpu, database_cpu = service.cpu() - used[0], cpu_of(backends(run.database)) - used[1]
            after = _activity(run.database)
            subscriber.stop()
        run.note(
            "idle",
            engine=engine,
            **{name: round((after[name] - before[name]) / seconds, 1) for name in before},
            **{
                "database ms/s": round(database_cpu / seconds * 1000, 2),
                "service ms/s": round(cpu / seconds * 1000, 2),
            },
        )


def _activity(database: PostgresServer) -> dict[str, int]:
    ((transactions, wal),) = database.execute(
        "select sum(xact_commit)::bigint, pg_current_wal_insert_lsn() - '0/0'::pg_lsn from pg_stat_database"
    )
    return {"transactions/s": int(transactions), "WAL bytes/s": int(wal)}


PARTS: dict[str, Callable[[Run], None]] = {
    "latency": latency,
    "rate": rate,
    "clients": clients,
    "replay": replay,
    "users": users,
    "bytes": sizes,
    "idle": idle,
}


def main() -> None:
    """
    Run what was asked for, and print the tables.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk that is measured")
    parser.add_argument("--out", default="", help="write everything to this file, as JSON")
    choice = parser.parse_args()
    with syncing(choice.folder) as database:
        install(database)
        run = Run(database, choice.seconds)
        run.note("disk", **{"fdatasync ms": fdatasync(choice.folder)})
        for part in choice.only or PARTS:
            PARTS[part](run)
        run.note("disk", **{"fdatasync ms": fdatasync(choice.folder)})
    if choice.out:
        Path(choice.out).write_text(json.dumps(run.found, indent=1))
    for table, rows in run.found.items():
        print_table(table, rows)


if __name__ == "__main__":
    main()
