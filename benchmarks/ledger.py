"""
What the ledger costs: tracked events to agents that acknowledge each, with the ledger and without it.

    python -m benchmarks.ledger --agents 100 --rounds 7

Two services run at the same time, one with C{--max-ledger 0}.  In each round the same events are published to the one
and then to the other, one at a time; what each process has used of the processor meanwhile is divided by the
deliveries, of which each has its ack.  It prints the medians, and their ratio.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import statistics
import time
from contextlib import ExitStack

from benchmarks.streams import Measured, text
from tests.integration.running import Service, service

_ID = re.compile(rb'"id":"(msg_[^"]+)"')
_HEAD = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Agent:
    """
    A durable agent on a connection of its own, which blocks.
    """

    def __init__(self, port: int, name: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = b""
        self._socket.sendall(_HEAD)
        self.say(type="auth", agent_id=name, durable=True, id="a")
        self.until(b'"success":true')
        self.say(type="unsubscribe", channel="global", id="u")
        self.say(type="subscribe", channel="topics/bench", id="s")
        self.until(b'"id":"s"')

    def say(self, **fields: object) -> None:
        """
        Send a message.
        """
        self._socket.sendall(text(json.dumps(fields).encode()))

    def until(self, mark: bytes) -> bytes:
        """
        Read until C{mark} has come; return what came until then.
        """
        while mark not in self._data:
            more = self._socket.recv(1 << 16)
            assert more, self._data
            self._data += more
        before, _, self._data = self._data.partition(mark)
        return before + mark

    def acknowledge(self) -> None:
        """
        Wait for an event, and acknowledge it.
        """
        found = _ID.findall(self.until(b'"event":"task.updated"'))
        self.say(type="ack", message_id=found[-1].decode())


class Side:
    """
    A service with its agents.
    """

    def __init__(self, running: Service, agents: int) -> None:
        self.measured = Measured(running)
        self._agents = [Agent(running.port, f"agent-{number}") for number in range(agents)]
        self._publisher = Agent(running.port, "publisher")
        self._publisher.say(type="unsubscribe", channel="topics/bench")
        self.figures: list[float] = []

    def run(self, events: int) -> None:
        """
        Publish events, each when the one before was acknowledged by all.
        """
        before = self.measured.cpu()
        for _ in range(events):
            data = {"text": "x" * 200}
            self._publisher.say(type="publish", channel="topics/bench", event="task.updated", data=data, id="p")
            for agent in self._agents:
                agent.acknowledge()
            self._publisher.until(b'"success":true')
        # what the acks and the sweeps cost
        time.sleep(1.2)
        self.figures.append((self.measured.cpu() - before) / (events * len(self._agents)) * 1e6)


def main() -> None:
    """
    Measure, and print the figures.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--deliveries", type=int, default=10_000, help="of a round")
    choice = parser.parse_args()
    patient = (
        "--no-database",
        "--heartbeat-interval",
        "600",
        "--heartbeat-timeout",
        "1200",
        "--max-connections",
        "5000",
    )
    print("| agents | without, µs a delivery with its ack | with the ledger | ratio |")
    print("| ---: | ---: | ---: | ---: |")
    for agents in choice.agents:
        with ExitStack() as stack:
            options = (("--max-ledger", "0"), ())
            sides = [Side(stack.enter_context(service(*patient, *more)), agents) for more in options]
            for _ in range(choice.rounds):
                for side in sides:
                    side.run(max(1, min(1000, choice.deliveries // agents)))
            without, with_it = (statistics.median(side.figures) for side in sides)
            ratio = statistics.median(b / a for a, b in zip(*(side.figures for side in sides), strict=True))
            print(f"| {agents:,} | {without:.1f} | {with_it:.1f} | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    main()
