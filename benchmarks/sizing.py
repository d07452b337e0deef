"""
What one client and one event take: memory, file descriptors, and disk.

    python -m benchmarks.sizing --clients 1000

Each kind of client has a service of its own, with its log in memory.  The clients connect, wait until the service has
answered the last of them, and stay; what the service's process has grown by is divided by their number.  Then events
with data of several sizes are published by SQL to a service with the durable log, and the tables are looked at.  It
prints two Markdown tables.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import socket
import ssl
import string
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg2

from benchmarks.durable_rig import install, print_table
from benchmarks.returns import said
from tests.integration.certificates import Certificate
from tests.integration.databases import PostgresServer, postgres
from tests.integration.machine import free_port
from tests.integration.running import Service, report, service

SIZES = (100, 300, 1_000, 10_000)
"""
Bytes of data.
"""

_HEAD = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
)
_DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
_CHANNELS = 10


def _nothing(_number: int) -> bytes:
    return b""


def _as_agent(number: int) -> bytes:
    """
    The messages of an agent that subscribes to its topics.  It leaves C{global}, where it would hear of all the others.
    """
    topics = (said(type="subscribe", channel=f"topics/{number}-{topic}") for topic in range(_CHANNELS))
    begun = said(type="unsubscribe", channel="global") + said(type="auth", agent_id=f"agent-{number}")
    return begun + b"".join(topics)


def _compressed(number: int) -> bytes:
    """
    A message in a frame with C{permessage-deflate}.
    """
    squeezer = zlib.compressobj(wbits=-15)
    text = squeezer.compress(b'{"type":"ping","id":%d}' % number) + squeezer.flush(zlib.Z_SYNC_FLUSH)
    payload = text.removesuffix(b"\0\0\xff\xff")
    return bytes((0xC1, 0x80 | len(payload))) + bytes(4) + payload


def _until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def _files(running: Service) -> int:
    return len(list(Path(f"/proc/{running.process.pid}/fd").iterdir()))


def _memory(running: Service) -> int:
    """
    KiB that are in memory.
    """
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def measure_clients(
    kind: str,
    clients: int,
    *options: str,
    messages: Callable[[int], bytes] = _nothing,
    headers: bytes = b"",
    event: bytes = b"",
    tls: ssl.SSLContext | None = None,
) -> dict[str, object]:
    """
    One kind of client.

    @param messages: returns what a client sends, by its number.
    @param event: a client publishes it, and all read it, before the service is looked at.
    """
    plain = free_port()
    # the clients answer no pings
    always = ("--heartbeat-timeout", "3600", "--listen", f"tcp:{plain}:interface=127.0.0.1")
    opened: list[socket.socket] = []
    with service("--no-database", *options, *always) as running, contextlib.ExitStack() as open_ones:
        scheme = "ws" if tls is None else "wss"
        port = int(re.findall(rf"listening on {scheme}://[^ ]*?:(\d+)/", running.log)[0])

        def connect(number: int) -> None:
            made: socket.socket = socket.create_connection(("127.0.0.1", port))
            if tls is not None:
                made = tls.wrap_socket(made, server_hostname="127.0.0.1")
            open_ones.enter_context(made)
            made.sendall(_HEAD % headers)
            answer = made.recv(4096)
            assert b" 101 " in answer, answer
            assert not headers or b"permessage-deflate" in answer, answer
            made.sendall(messages(number))
            opened.append(made)

        def hear() -> None:
            if event:
                time.sleep(1)
                for one in opened:
                    one.recv(1 << 16)
                opened[0].sendall(event)
                for one in opened:
                    one.recv(1 << 16)

        empty = _memory(running)
        # the first ones pay for what is made once
        for number in range(50):
            connect(number)
        _until(lambda: report(plain, "stats")["connectedClients"] == 50, "the first clients are there")
        hear()
        time.sleep(1)
        memory, files = _memory(running), _files(running)
        for number in range(50, 50 + clients):
            connect(number)
        _until(lambda: report(plain, "stats")["connectedClients"] == 50 + clients, "all clients are there")
        time.sleep(2)
        hear()
        if messages is _as_agent:
            wanted = (50 + clients) * _CHANNELS
            _until(lambda: report(plain, "stats")["activeChannels"] > wanted, "all channels are there")
        return {
            "clients": kind,
            "MiB without clients": round(empty / 1024),
            "KiB a client": round((_memory(running) - memory) / clients, 1),
            "file descriptors a client": round((_files(running) - files) / clients, 2),
        }


def _text(size: int) -> str:
    """
    JSON of so many bytes, of letters that PostgreSQL cannot compress well.
    """
    return '{"pad":"' + "".join(random.choices(string.ascii_letters + string.digits, k=size - 10)) + '"}'


def _tables(database: PostgresServer) -> tuple[int, int]:
    """
    Bytes of the log and of the inbox, with their indexes.
    """
    ((log, inbox),) = database.execute(
        "select (select sum(pg_total_relation_size(relid)) from pg_partition_tree('dcm_ws.log')),"
        " (select sum(pg_total_relation_size(relid)) from pg_partition_tree('dcm_ws.inbox'))"
    )
    return int(log), int(inbox)


def measure_events(size: int, events: int) -> dict[str, object]:
    """
    Events of one size.
    """
    with postgres() as database:
        install(database)
        with service("--database-url", database.url, "--log-max-bytes", "100000000000") as running:
            memory = _memory(running)
            log, inbox = _tables(database)
            ((wal,),) = database.execute("select pg_current_wal_lsn()")
            with closing(psycopg2.connect(database.url)) as connection, connection.cursor() as cursor:
                for number in range(events):
                    cursor.execute("select dcm_ws.publish('topics/size', 'task.created', %s)", (_text(size),))
                    if number % 20 == 19:
                        connection.commit()
                connection.commit()
            _until(
                lambda: database.execute("select dcm_ws.head() ->> 'pos'") == [(str(events),)], "all have a position"
            )
            ((written,),) = database.execute("select pg_wal_lsn_diff(pg_current_wal_lsn(), %s)", wal)
            log_now, inbox_now = _tables(database)
    return {
        "bytes of data": size,
        "MiB of the service before": round(memory / 1024),
        "bytes in the log": round((log_now - log) / events),
        "bytes in the inbox": round((inbox_now - inbox) / events),
        "bytes of WAL": round(int(written) / events),
    }


def _kinds(clients: int) -> Iterator[dict[str, object]]:
    yield measure_clients("subscribed to global", clients)
    yield measure_clients(f"agent with {_CHANNELS} topics of its own", clients, messages=_as_agent)
    with tempfile.TemporaryDirectory() as folder:
        own = Certificate(Path(folder))
        yield measure_clients("with TLS", clients, "--listen", own.endpoint(), tls=own.trusting)
    event = said(type="publish", channel="global", event="session.created", data={"pad": "x" * 1_000})
    options = ("--compression", "on")
    kind = "with compression, after a message each way"
    yield measure_clients(kind, clients, *options, messages=_compressed, headers=_DEFLATE, event=event)


def main() -> None:
    """
    Measure, and print the tables.
    """
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--events", type=int, default=10_000)
    arguments = parser.parse_args()
    print_table("One client", list(_kinds(arguments.clients)))
    print_table("One event", [measure_events(size, arguments.events) for size in SIZES])


if __name__ == "__main__":
    main()
