"""
Commands that are clients, as tests run them, and the servers that they connect to.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tests.cli.running import PROGRAM, clean, run
from tests.forking import Popen
from tests.integration.running import Service


class Tail:
    """
    A C{dcm-ws tail} that runs, and what it has printed.
    """

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        self.lines: list[str] = []
        self.errors: list[str] = []
        self.process: subprocess.Popen[str] = Popen(
            [PROGRAM, "tail", *arguments],
            cwd=folder,
            env=clean(folder, PYTHONFAULTHANDLER="1", **variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.lines), (self.process.stderr, self.errors))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        for line in stream:
            lines.append(line.rstrip("\n"))

    def end(self) -> int | None:
        """
        Wait until it ends by itself; returns its exit code, or None if it does not end.
        """
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            # it prints its stack
            self.stop(signal.SIGABRT)
            return None
        return self.stop()

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout=20)
        finally:
            self.process.kill()
            for reader in self._readers:
                reader.join(timeout=5)


def url(running: Service) -> str:
    return f"ws://127.0.0.1:{running.port}/"


def subscribers(running: Service, channel: str = "global") -> int:
    count: int = running.stats()["channelStats"].get(channel, 0)
    return count


def publish(folder: Path, running: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "publish", "--url", url(running), *arguments)


def lines_of(*events: object) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)


def start(folder: Path, *arguments: str, stdin: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """
    Start a command whose standard input is a pipe.
    """
    return Popen(
        [PROGRAM, *arguments],
        cwd=folder,
        env=clean(folder),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """
    Wait until it ends by itself; returns its exit code and its standard error.
    """
    try:
        return process.wait(timeout=20), process.stderr.read() if process.stderr else ""
    finally:
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


@contextlib.contextmanager
def another_service(*answers: bytes, asked: list[bytes] | None = None) -> Iterator[str]:
    """
    A server that answers each connection with the next of these bytes, whatever the request is; yields its URL.

    @param asked: the requests are appended to it.
    """
    requests = [] if asked is None else asked
    with socket.create_server(("127.0.0.1", 0)) as server:

        def work() -> None:
            for answer in answers:
                with contextlib.suppress(OSError), server.accept()[0] as client:
                    requests.append(client.recv(65_536))
                    client.sendall(answer)
            # later connections are refused, so that no client waits for an answer
            server.close()

        where = f"ws://127.0.0.1:{server.getsockname()[1]}/"
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        yield where


def answer(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (size, body)
