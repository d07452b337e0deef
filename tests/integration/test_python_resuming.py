"""
The Python clients go on where they were, against the real service: each test is one program, run with both.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from dcm_ws.client import Gap, PositionError, aio_connection, tx
from tests.integration.clients import ask_past_events
from tests.integration.machine import free_port
from tests.integration.running import Service, service
from tests.integration.test_python_clients import Way, at, fast, played, world

__all__ = ["fast", "world"]

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "client_position.py"


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    with service("--ack-timeout", "0.3", "--retry-interval", "0.1", "--heartbeat-interval", "0.2") as found:
        yield found


@pytest.fixture
def way(running: Service) -> Iterator[Way]:
    found = Way(running.port)
    yield found
    found.close()


def data_of(events: list[Any]) -> list[Any]:
    return [event.data for event in events]


@pytest.mark.parametrize(
    "options", [{"agent_id": "reader"}, {}, {"observer": True}], ids=["agent", "anonymous", "observer"]
)
@pytest_twisted.ensureDeferred
async def test_cut_in_a_burst(world: Any, running: Service, way: Way, options: dict[str, Any]) -> None:
    """
    The connection is cut again and again while events are published: each of them comes once, in order, without a gap.
    """
    events: list[Any] = []
    # agents get what was published while they were away
    topic = f"topics/{world.__name__}/{''.join(options)}"
    reader = world.client(way.url, channels=[topic, "global"], **options)
    reader.on("*", events.append, channel=topic)
    publisher = world.client(at(running), channels=[])

    async def program() -> None:
        await world.connect(reader)
        await world.connect(publisher)
        for number in range(300):
            if number % 60 == 30:
                way.cut()
            kind = "task.created" if number % 2 else "session.created"
            await publisher.publish(topic, kind, number)
        await world.until(lambda: len(events) >= 300)
        await publisher.publish(topic, "session.created", "end")
        await world.until(lambda: events[-1].data == "end")
        assert data_of(events) == [*range(300), "end"]
        assert (reader.gaps, reader.last_gap) == (0, None)
        await world.until(lambda: reader.position is not None and reader.position.pos >= events[-1].pos)

    await played(world, reader, publisher, program=program)


@pytest_twisted.ensureDeferred
async def test_half_open(world: Any, running: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The path of a connection dies without a reset: what was published meanwhile comes when the client has noticed.
    """
    monkeypatch.setattr(aio_connection, "SILENCE", 1.0)
    monkeypatch.setattr(tx, "SILENCE", 1.0)
    monkeypatch.setattr(tx, "ALIVE", 0.2)
    events: list[Any] = []
    way = Way(running.port)
    reader = world.client(way.url, channels=["topics/half"], agent_id=f"half-{world.__name__}")
    reader.on("*", events.append, channel="topics/half")
    publisher = world.client(at(running), channels=[])

    async def program() -> None:
        await world.connect(publisher)
        await world.connect(reader)
        way.stall()
        for number in range(20):
            await publisher.publish("topics/half", "task.created" if number % 2 else "session.created", number)
        await world.until(lambda: len(events) >= 20)
        assert data_of(events) == list(range(20))
        assert reader.gaps == 0

    with contextlib.closing(way):
        await played(world, reader, publisher, program=program)


@pytest_twisted.ensureDeferred
async def test_restart_of_the_server(world: Any) -> None:
    """
    A server without a database has another log after a restart: the client reports the gap, in the stream and to
    watchers, and gets new events.  A client that asks for no gaps logs a warning.
    """
    port = free_port()
    url = f"ws://127.0.0.1:{port}/ws"
    listen = ("--listen", f"tcp:{port}:interface=127.0.0.1", "--drain", "0.1")
    gaps: list[Gap] = []
    items: list[Any] = []
    client = world.client(url, channels=["topics/r"])
    other = world.client(url, channels=["topics/r"])
    heard: list[Any] = []
    other.on("*", heard.append, channel="topics/r")

    async def listened() -> None:
        async for item in client.events(channel="topics/r", gaps=True):
            items.append(item)

    async def program() -> None:
        with world.warnings() as warnings:
            client.on_gap(gaps.append)
            with service(*listen):
                await world.connect(client)
                await world.connect(other)
                listening = world.begin(listened())
                await client.publish("topics/r", "session.created", 1)
                await world.until(lambda: items and heard)
            await world.until(lambda: client.state != "connected" and other.state != "connected")
            with service(*listen):
                await world.until(lambda: client.state == other.state == "connected")
                await client.publish("topics/r", "session.created", 2)
                await world.until(lambda: len(items) == 3 and len(heard) == 2)
                await world.close(client)
                await world.close(other)
                await listening
        (gap,) = gaps
        assert (gap.reason, items[1], client.last_gap, other.last_gap.reason) == ("epoch", gap, gap, "epoch")
        assert [items[0].data, items[2].data] == data_of(heard) == [1, 2]
        assert sum("events may be missing: the server has another log" in text for text in warnings) == 1

    await played(world, client, other, program=program)


@pytest_twisted.ensureDeferred
async def test_stored_position(world: Any, running: Service, tmp_path: Path) -> None:
    """
    A program that stores its position goes on there: what it has handled does not come again, and nothing is missing.
    """
    file = tmp_path / "position"
    publisher = world.client(at(running), channels=[])
    first = world.client(at(running), channels=["topics/p"], position=file)
    second = world.client(at(running), channels=["topics/p", "topics/q"], position=str(file))
    rival = world.client(at(running), position=file)
    foreign = world.client(at(running), agent_id="somebody", position=file)
    came: dict[str, list[Any]] = {"first": [], "second": []}

    async def program() -> None:
        await world.connect(publisher)
        await publisher.publish("topics/p", "session.created", 0)
        first.on("*", came["first"].append, channel="topics/p")
        await world.connect(first)
        for number in range(1, 4):
            await publisher.publish("topics/p", "session.created", number)
        await world.until(lambda: len(came["first"]) == 3)
        with pytest.raises(PositionError, match="is in use by another client"):
            await world.connect(rival)
        await world.close(first)
        for number in range(4, 7):
            await publisher.publish("topics/p", "session.created", number)
            await publisher.publish("topics/q", "session.created", "before")
        second.on("*", came["second"].append, channel="topics/*")
        await world.connect(second)
        await publisher.publish("topics/q", "session.created", 7)
        await world.until(lambda: len(came["second"]) >= 4)
        await second.ping()
        assert [data_of(came["first"]), data_of(came["second"])] == [[1, 2, 3], [4, 5, 6, 7]]
        await world.close(second)
        file.write_text(file.read_text().replace('"agent": null', '"agent": "indexer"'))
        with pytest.raises(PositionError, match="that of the agent 'indexer'"):
            await world.connect(foreign)
        file.write_text("[1]")
        with pytest.raises(PositionError, match="does not hold the position of a client: it is not a JSON object"):
            await world.connect(foreign)

    await played(world, publisher, first, second, program=program)


@pytest_twisted.ensureDeferred
async def test_unhandled_events_come_again(world: Any, running: Service, tmp_path: Path) -> None:
    """
    Events that a stream has not handed over when the client is closed come again with the stored position.
    """
    file = tmp_path / "position"
    publisher = world.client(at(running), channels=[])
    first = world.client(at(running), channels=["topics/u"], position=file)
    second = world.client(at(running), channels=["topics/u"], position=file)
    came: list[Any] = []

    async def program() -> None:
        await world.connect(publisher)
        await world.connect(first)
        stream = first.events(channel="topics/u")
        for number in range(5):
            await publisher.publish("topics/u", "session.created", number)
        assert [(await anext(stream)).data for _ in range(3)] == [0, 1, 2]
        await world.close(first)
        second.on("*", came.append, channel="topics/u")
        await world.connect(second)
        await world.until(lambda: len(came) == 3)
        # the last one was not handled: nothing has asked for the next
        assert data_of(came) == [2, 3, 4]

    await played(world, publisher, first, second, program=program)


@pytest_twisted.ensureDeferred
async def test_begin_at_a_position(world: Any, running: Service) -> None:
    """
    C{since} begins at a position of the log.
    """
    publisher = world.client(at(running), channels=[])
    came: list[Any] = []
    position = None

    async def program() -> None:
        nonlocal position
        await world.connect(publisher)
        for number in range(3):
            await publisher.publish("topics/s", "session.created", number)
            if number == 0:
                await publisher.subscribe("topics/none")
                position = publisher.position
        reader = world.client(at(running), channels=["topics/s"], since=position)
        reader.on("*", came.append, channel="topics/s")
        try:
            await world.connect(reader)
            await world.until(lambda: len(came) == 2)
            await reader.ping()
            assert (data_of(came), reader.gaps) == ([1, 2], 0)
        finally:
            await world.close(reader)

    await played(world, publisher, program=program)


def test_example(running: Service, tmp_path: Path) -> None:
    """
    The example of the documentation, killed and started again: nothing is missing, and what was stored does not come
    again.
    """
    client = running.connect("/?agent_id=writer")

    def publish(data: object) -> None:
        ask_past_events(
            client, type="publish", channel="topics/documents", event="session.created", data=data, id=str(data)
        )

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, str(EXAMPLE), at(running), str(tmp_path / "position")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process

    with start() as program:
        assert program.stdout is not None and program.stdout.readline() == "ready\n"
        publish("a")
        assert program.stdout.readline() == "a\n"
        publish("stop")
        assert program.stdout.read() == "stop\n"
    publish("b")
    with start() as program:
        assert program.stdout is not None
        assert sorted([program.stdout.readline(), program.stdout.readline()]) == ["b\n", "ready\n"]
        program.send_signal(signal.SIGKILL)
    publish("c")
    with start() as program:
        publish("stop")
        assert program.stdout is not None
        lines = [line for line in program.stdout.read().split() if line != "ready"]
    # b was handled less than a second before the end, so it may come again
    assert lines in (["b", "c", "stop"], ["c", "stop"])
