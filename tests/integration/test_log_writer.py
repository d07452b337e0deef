"""
The log never holds up the service: pipes that nobody reads, disks that are full.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest
from websockets.sync.client import connect

from dcm_ws.app.logs import missing_line
from dcm_ws.app.writer import Descriptor, LogWriter
from tests.integration.clients import handshake
from tests.integration.machine import PATIENCE, until
from tests.integration.running import report, service, unread_service

pytestmark = pytest.mark.integration


def test_a_pipe_that_nobody_reads() -> None:
    """
    2,000 connections later, the service still answers, and it ends when it is asked to.
    """
    reading, writing = os.pipe()
    try:
        with unread_service(writing) as port:
            for _ in range(2000):
                # the service's work is the point, not that of a client's library
                with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as raw:
                    raw.sendall(handshake())
                    assert raw.recv(1 << 16).startswith(b"HTTP/1.1 101 ")
            assert report(port, "health")["status"] == "healthy"
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("where", ["/dev/full", "a pipe without a reader"])
def test_nowhere_to_write_to(where: str) -> None:
    """
    A disk that is full, and a reader that has gone, cost the lines and nothing else, and they are counted.
    """
    if where == "/dev/full":
        writing = os.open(where, os.O_WRONLY)
    else:
        reading, writing = os.pipe()
        os.close(reading)
    try:
        with unread_service(writing) as port:
            with connect(f"ws://127.0.0.1:{port}/", proxy=None):
                pass
            until(lambda: report(port, "stats")["limits"]["logBuffer"] > 0)
    finally:
        os.close(writing)


def test_lines_beyond_the_limit() -> None:
    """
    What does not fit is dropped, counted, and said where it is missing; what waits is written in order.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    dropped: list[int] = []
    writer = LogWriter(Descriptor(writing), lambda: dropped.append(1), lambda count: f"{count} missing\n", 300_000)
    writer.write("first\n")
    writer.start()
    for number in range(1000):
        writer.write(f"{number} {'x' * 993}\n"[:1000])
    assert len(dropped) > 500
    read = b""
    writer_done = False
    with open(reading, "rb") as pipe:
        while not writer_done:
            read += pipe.read1()
            writer_done = read.count(b"\n") >= 1 + 1000 - len(dropped)
        writer.write("last\n")
        writer.stop(30)
        writer.write("after\n")
        os.close(writing)
        read += pipe.read()
    lines = read.decode().splitlines()
    numbers = [int(line.split()[0]) for line in lines if "x" in line]
    assert lines[0] == "first" and lines[-2:] == ["last", "after"]
    assert numbers == sorted(numbers) and len(numbers) == 1000 - len(dropped)
    # in one place, or in several if the thread wrote meanwhile
    assert sum(int(line.split()[0]) for line in lines if line.endswith(" missing")) == len(dropped)


class Sink:
    """
    Keeps what is written to it.
    """

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, text: str) -> None:
        self.written.append(text)

    def flush(self) -> None:
        pass


def test_lines_of_a_burst_are_written_together() -> None:
    """
    The writing thread is not woken up for each line.
    """
    sink = Sink()
    writer = LogWriter(sink, lambda: None, str)
    writer.start()
    lines = [f"line {number}\n" for number in range(2000)]
    for line in lines:
        writer.write(line)
        # a thread that had been woken up would write now
        time.sleep(0)
    writer.stop(30)

    assert "".join(sink.written) == "".join(lines)
    assert len(sink.written) < 200


def test_half_a_buffer_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The writing thread does not wait for more lines until there is no room for them.
    """
    monkeypatch.setattr("dcm_ws.app.writer._GATHER_SECONDS", 3600.0)
    sink = Sink()
    writer = LogWriter(sink, lambda: None, str, 1000)
    writer.start()
    writer.write("x" * 400)
    writer.write("y" * 200)
    until(lambda: len("".join(sink.written)) == 600)
    writer.stop(30)


def test_the_last_lines_are_given_up() -> None:
    """
    A writer that is stuck is not waited for longer than it is said.
    """
    reading, writing = os.pipe()
    writer = LogWriter(Descriptor(writing), lambda: None, str)
    writer.start()
    writer.write("x" * 500_000)
    writer.stop(0.1)
    writer.write("not written\n")
    with open(reading, "rb") as pipe:
        until(lambda: len(pipe.read1(1 << 20)) > 0)
        os.set_blocking(reading, False)
    os.close(writing)


@pytest.mark.parametrize("format", ["text", "json"])
def test_the_notice_is_a_line_of_the_log(format: str) -> None:
    """
    It has the format of the others.
    """
    line = missing_line(7, format)
    assert line.endswith("\n") and line.count("\n") == 1 and "7 lines" in line
    if format == "json":
        assert json.loads(line)["count"] == 7


@pytest.mark.parametrize("host,warned", [("0.0.0.0", True), ("127.0.0.1", False)])
def test_development_that_others_can_reach(host: str, warned: bool) -> None:
    """
    Development mode on an address that others can reach is worth a line.
    """
    with service("--host", host) as running:
        running.read_log_until("] ready")
        assert ("may read and publish everything" in running.log) == warned


def test_a_secret_file_that_others_may_read(tmp_path: Path) -> None:
    """
    The service says so when it starts.
    """
    file = tmp_path / "secret"
    file.write_text("s" * 40)
    file.chmod(0o644)
    with service("--ws-auth-secret-file", str(file)) as running, closing(running.socket()):
        running.read_log_until(f"{file} holds secrets, and everybody may read it")
