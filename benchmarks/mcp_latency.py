"""
The time from a transaction in C{psql} to the notification on the standard output of C{dcm-ws mcp}, and on the stream of
a client over HTTP, next to the time to a plain WebSocket client.

    python -m benchmarks.mcp_latency --events 300 --every 0.1
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from benchmarks.durable_rig import Service, cpu_of, fdatasync, install, print_table, spread, syncing
from tests.cli.running import PROGRAM
from tests.integration.databases import TOOLS

CHANNEL = "topics/latency"
EVENT = "task.created"

_STAMP = re.compile(r'"at" ?: ?"(\d+\.\d+)", ?"n" ?: ?(\d+)')
_INITIALIZE = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}


class Arrivals:
    """
    Seconds from the call of C{dcm_ws.publish}, in its transaction, to the arrival of each event.
    """

    def __init__(self) -> None:
        self.took: dict[int, float] = {}

    def came(self, text: str) -> None:
        now = time.time()
        for at, number in _STAMP.findall(text.replace('\\"', '"')):
            self.took[int(number)] = now - float(at)


def model(port: int, arrivals: Arrivals) -> subprocess.Popen[str]:
    """
    A client of C{dcm-ws mcp} that is pushed the events.
    """
    options = ("--agent-id", "model", "--push", "channel", "--push-rate", "6000", CHANNEL)
    process = subprocess.Popen(
        [PROGRAM, "mcp", "--url", f"ws://127.0.0.1:{port}/", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert process.stdin is not None and process.stdout is not None
    lines = process.stdout

    def send(method: str, **fields: Any) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps({"jsonrpc": "2.0", "method": method, **fields}) + "\n")

    send("initialize", id=1, params=_INITIALIZE)
    assert "result" in json.loads(lines.readline())
    send("notifications/initialized")

    def read() -> None:
        for line in lines:
            arrivals.came(line)

    threading.Thread(target=read, daemon=True).start()
    return process


def model_over_http(port: int, arrivals: Arrivals) -> None:
    """
    A client over HTTP that is pushed the events.
    """
    url = f"http://127.0.0.1:{port}/mcp?agent_id=remote&push=channel&push_rate=6000&channel={CHANNEL}"
    headers = {"Accept": "application/json, text/event-stream"}

    def send(method: str, **fields: Any) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "method": method, **fields}).encode()
        return urllib.request.urlopen(urllib.request.Request(url, body, headers))

    with send("initialize", id=1, params=_INITIALIZE) as answer:
        headers["Mcp-Session-Id"] = answer.headers["Mcp-Session-Id"]
    send("notifications/initialized").close()
    stream = urllib.request.urlopen(urllib.request.Request(url, headers=headers))

    def read() -> None:
        for line in stream:
            arrivals.came(line.decode())

    threading.Thread(target=read, daemon=True).start()


def plain(port: int, arrivals: Arrivals) -> ClientConnection:
    """
    A client of the service itself.
    """
    client = connect(f"ws://127.0.0.1:{port}/", proxy=None)
    client.recv()
    for message in (
        {"type": "auth", "agent_id": "plain", "observer": True},
        {"type": "unsubscribe", "channel": "global"},
        {"type": "subscribe", "channel": CHANNEL},
    ):
        client.send(json.dumps(message | {"id": 1}))
        while json.loads(client.recv()).get("id") != 1:
            pass

    def read() -> None:
        for message in client:
            arrivals.came(str(message))

    threading.Thread(target=read, daemon=True).start()
    return client


def publish(url: str, events: int, every: float, arrived: Callable[[], bool]) -> None:
    """
    Publish events with C{psql}, each in a transaction of its own, one every C{every} seconds.
    """
    psql = subprocess.Popen(
        [TOOLS / "psql" if (TOOLS / "psql").exists() else "psql", "-XqAt", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        bufsize=1,
    )
    assert psql.stdin is not None
    begun = time.monotonic()
    for number in range(events):
        time.sleep(max(0.0, begun + number * every - time.monotonic()))
        psql.stdin.write(
            f"select dcm_ws.publish('{CHANNEL}', '{EVENT}', json_build_object("
            f"'at', extract(epoch from clock_timestamp())::text, 'n', {number})::text);\n"
        )
    psql.stdin.close()
    assert psql.wait() == 0
    deadline = time.monotonic() + 20
    while not arrived() and time.monotonic() < deadline:
        time.sleep(0.05)


def main() -> None:
    """
    Measure, and print the table.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mcp_latency")
    parser.add_argument("--events", type=int, default=300)
    parser.add_argument("--every", type=float, default=0.1, help="seconds between two events")
    parser.add_argument("--folder", type=Path, help="on the disk for the database")
    given = parser.parse_args()
    print(f"fdatasync of 8 KiB, ms: {fdatasync(given.folder or Path(tempfile.gettempdir()))}; load {os.getloadavg()}")
    with syncing(given.folder) as database:
        install(database)
        service = Service(database, "--mcp")
        pushed, remote, direct = Arrivals(), Arrivals(), Arrivals()
        model_over_http(service.port, remote)
        process = model(service.port, pushed)
        client = plain(service.port, direct)
        time.sleep(2)
        before = cpu_of([process.pid])
        arrivals = (pushed, remote, direct)
        publish(database.url, given.events, given.every, lambda: all(len(one.took) == given.events for one in arrivals))
        used = cpu_of([process.pid]) - before
        client.close()
        process.terminate()
        process.wait()
        service.stop()
    if any(len(one.took) != given.events for one in arrivals):
        sys.exit(f"{given.events} events, of which {[len(one.took) for one in arrivals]} came")
    rows = [
        {"arrives at": "a WebSocket client", **spread(direct.took.values())},
        {"arrives at": "the client of dcm-ws mcp", **spread(pushed.took.values())},
        {"arrives at": "a client over HTTP", **spread(remote.took.values())},
    ]
    print_table(f"ms from dcm_ws.publish in psql, one event every {given.every:g} s", rows)
    print(f"\nCPU of dcm-ws mcp: {1000 * used / given.events:.2f} ms for an event")


if __name__ == "__main__":
    main()
