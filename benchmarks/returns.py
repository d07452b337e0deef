"""
What agents that return at once do to the other clients: the longest turn of the reactor, and what a return costs.

    python -m benchmarks.returns --acks --server 'now=. --log-max-bytes 268435456' --server before=../before

Starts dcm-ws of each checkout, which has an environment in C{.venv}, as a process of its own, with the options after
the checkout.  The agents authenticate, subscribe to one topic each, and leave; events are published to the topics, and
the agents return, all at once.  The service reports its longest turn, as CPU time and by the clock
(L{benchmarks.turns}).  The figures are the medians of the rounds, in which the servers take turns.
"""

from __future__ import annotations

import argparse
import json
import select
import signal
import socket
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.slow_consumers import frame
from tests.integration.machine import free_port

TURNS = Path(__file__).resolve().with_name("turns.py")
HEAD = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PATIENCE = 5.0
"""
Seconds without anything after which no more is expected.
"""

MARK = b'"data":{"pad"'


def said(**message: object) -> bytes:
    """
    A message as a client sends it.
    """
    return frame(json.dumps(message).encode())


class Service:
    """
    dcm-ws of a checkout, without a database, in a process of its own.
    """

    def __init__(self, checkout: Path, *options: str) -> None:
        self.port = free_port()
        python = checkout.resolve() / ".venv/bin/python"
        command = [python, TURNS, "-n", "--pidfile=", "--logfile=/dev/null", "dcm-ws", "--no-database"]
        command += ["--ws-port", str(self.port), *options]
        self.process = subprocess.Popen(command, cwd=checkout, stderr=subprocess.PIPE, text=True)
        for _ in range(200):
            try:
                self.connect().close()
                break
            except OSError:
                time.sleep(0.05)

    def connect(self) -> socket.socket:
        """
        A client that has sent its handshake.
        """
        client = socket.create_connection(("127.0.0.1", self.port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(HEAD)
        return client

    def longest_turn(self) -> dict[str, float]:
        """
        Milliseconds, since the last call.
        """
        assert self.process.stderr is not None
        self.process.send_signal(signal.SIGUSR1)
        for line in self.process.stderr:
            if line.startswith("{"):
                found: dict[str, float] = json.loads(line)
                return found
        raise AssertionError("the service ended")

    def cpu(self) -> float:
        """
        Seconds of CPU time that it has used.
        """
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9

    def rss(self) -> int:
        """
        Bytes of memory that it has.
        """
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096

    def stop(self) -> None:
        """
        End it.
        """
        self.process.terminate()
        self.process.wait(30)


class Crowd:
    """
    Clients that read what they get, and acknowledge it.
    """

    def __init__(self) -> None:
        self._clients: dict[int, tuple[socket.socket, bytearray]] = {}
        self._epoll = select.epoll()

    def add(self, client: socket.socket, first: bytes = b"") -> None:
        """
        C{client} sends C{first}.
        """
        client.sendall(first)
        client.setblocking(False)
        self._clients[client.fileno()] = (client, bytearray())
        self._epoll.register(client, select.EPOLLIN)

    def read(self, mark: bytes, number: int, *, acks: bool = False) -> int:
        """
        Read until C{mark} has come that often, or nothing comes for a while.  Returns how often it has not come.

        @param acks: acknowledge each event that comes.
        """
        seen, last = 0, time.monotonic()
        while seen < number and time.monotonic() < last + PATIENCE:
            for file, _ in self._epoll.poll(0.5):
                client, tail = self._clients[file]
                data = client.recv(1 << 20)
                if not data:
                    # the service has closed it
                    self._epoll.unregister(file)
                    continue
                last = time.monotonic()
                tail += data
                whole = _whole(tail)
                seen += whole.count(mark)
                if acks:
                    ids = [part.split(b'"', 1)[0].decode() for part in whole.split(b'{"id":"')[1:]]
                    client.setblocking(True)
                    client.sendall(b"".join(said(type="ack", message_id=one) for one in dict.fromkeys(ids)))
                    client.setblocking(False)
        return number - seen

    def close(self) -> None:
        """
        All leave.
        """
        for client, _ in self._clients.values():
            client.close()
        self._epoll.close()


def _whole(tail: bytearray) -> bytes:
    """
    Take what ends with a whole message.
    """
    end = tail.rfind(b"}") + 1
    whole = bytes(tail[:end])
    del tail[:end]
    return whole


def publish(service: Service, events: int, family: str, topics: int, size: int) -> None:
    """
    Publish, a window at a time, and return when the service has them all.
    """
    crowd, client = Crowd(), service.connect()
    crowd.add(client, said(type="unsubscribe", channel="global", id="left"))
    crowd.read(b'"id":"left"', 1)
    pad = {"pad": "x" * size}
    for start in range(0, events, 500):
        batch = [
            said(type="publish", channel=f"topics/{family}{number % topics}", event="task.updated", data=pad)
            for number in range(start, min(events, start + 500))
        ]
        client.setblocking(True)
        client.sendall(b"".join(batch) + said(type="ping"))
        client.setblocking(False)
        crowd.read(b'"type":"pong"', 1)
    crowd.close()


def measure(server: str, choice: argparse.Namespace) -> dict[str, Any]:
    """
    One round on one server.
    """
    checkout, *options = server.split()
    service = Service(Path(checkout), "--log-level", "warn", "--max-connections", "5000", *options)
    try:
        crowd = Crowd()
        leave = said(type="unsubscribe", channel="global")
        for number in range(choice.agents):
            topic = f"topics/{number % choice.topics}"
            auth = said(type="auth", agent_id=f"agent-{number}", id="auth")
            crowd.add(service.connect(), auth + leave + said(type="subscribe", channel=topic, id="sub"))
        crowd.read(b'"id":"sub"', choice.agents)
        # an agent that has acknowledged something is one that wants everything
        publish(service, choice.topics, "", choice.topics, choice.size)
        crowd.read(MARK, choice.agents, acks=True)
        crowd.close()
        time.sleep(1)
        before = service.rss()
        cpu = service.cpu()
        publish(service, choice.events, "other-" if choice.irrelevant else "", choice.topics, choice.size)
        logged, growth = service.cpu() - cpu, service.rss() - before
        service.longest_turn()
        crowd = Crowd()
        cpu, began = service.cpu(), time.monotonic()
        for number in range(choice.agents):
            crowd.add(service.connect(), leave + said(type="auth", agent_id=f"agent-{number}", id="auth"))
        missed = 0 if choice.irrelevant else choice.events // choice.topics * choice.agents
        lost = crowd.read(MARK if missed else b'"id":"auth"', missed or choice.agents, acks=choice.acks)
        seconds = time.monotonic() - began
        turn = service.longest_turn()
        used = service.cpu() - cpu
        crowd.close()
        return {
            "longest turn, CPU ms": turn["cpu_ms"],
            "longest turn, clock ms": turn["clock_ms"],
            "CPU us a return": used / choice.agents * 1e6,
            "CPU us an event replayed": used / missed * 1e6 if missed else 0.0,
            "events or replies missing": lost,
            "seconds": seconds,
            "CPU us an event logged": logged / choice.events * 1e6,
            "bytes an event logged": growth / choice.events,
        }
    finally:
        service.stop()


def main() -> None:
    """
    Run what was asked for, and print a table.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", required=True, metavar="NAME=CHECKOUT OPTIONS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--topics", type=int, default=1000, help="to which the agents are subscribed, in turn")
    parser.add_argument("--size", type=int, default=300, help="bytes of an event's data")
    parser.add_argument("--acks", action="store_true", help="the agents acknowledge what they get")
    parser.add_argument("--irrelevant", action="store_true", help="the events are for nobody")
    choice = parser.parse_args()
    servers = {name: server for name, _, server in (pair.partition("=") for pair in choice.server)}
    results: dict[str, list[dict[str, float]]] = {}
    for _ in range(choice.rounds):
        for name, server in servers.items():
            results.setdefault(name, []).append(measure(server, choice))
    print(f"| figure | {' | '.join(servers)} |\n|---|{'---:|' * len(servers)}")
    for figure in results[next(iter(servers))][0]:
        cells = [f"{statistics.median(run[figure] for run in results[name]):.4g}" for name in servers]
        print(f"| {figure} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
