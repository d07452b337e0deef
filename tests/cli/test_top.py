"""
dcm-ws top: its screen, and the services that it asks.
"""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import termios
import threading
from pathlib import Path

import pytest
from rich.console import Console

from dcm_ws.cli.top_report import Report
from dcm_ws.cli.top_screen import screen
from tests.cli.commands import another_service, answer, url
from tests.cli.running import PROGRAM, clean, run
from tests.forking import Popen
from tests.integration.clients import ask, say
from tests.integration.machine import free_port, until
from tests.integration.running import Service

pytestmark = pytest.mark.integration


def test_nothing_listens(tmp_path: Path) -> None:
    """
    If nothing listens, the error says so.
    """
    port = free_port()
    done = run(tmp_path, "top", "--url", f"ws://127.0.0.1:{port}/")
    assert (done.returncode, done.stderr) == (
        1,
        f"Error: nothing listens at http://127.0.0.1:{port} (connection refused)\n",
    )


def test_top(tmp_path: Path, running: Service) -> None:
    """
    --json prints both reports as JSON, and --once a screen.
    """
    client = running.connect()
    report = json.loads(run(tmp_path, "top", "--json", "--url", url(running)).stdout)
    assert report["health"]["status"] == "healthy" and report["stats"]["connectedClients"] == 1
    ask(client, type="auth", agent_id="ann", id=1)
    ask(client, type="publish", channel="global", event="task.created", id=2)
    say(client, type="nonsense")
    until(lambda: running.stats()["refusals"])
    page = run(tmp_path, "top", "--once", "--url", url(running)).stdout
    rows = [" ".join(line.split()) for line in page.splitlines()]
    assert "agents/ann" in page and any(row.startswith("clients 1 ") for row in rows), page
    for row in (
        "events of clients 1",
        "pending deliveries 1",
        "events in the log 1",
        "refused: UNKNOWN_MESSAGE_TYPE 1",
    ):
        assert any(line.startswith(row) for line in rows), page
    # its connections, and what it owes
    assert re.search(r"agent +owed\b", page), page
    client.close()


def test_rates() -> None:
    """
    Rates are computed from two reports; missing numbers are left out, and control characters are escaped.
    """
    then: Report = {"health": {}, "stats": {"connectedClients": 1, "events": {"client": 10}}}
    now: Report = {
        "health": {"status": "\x1b[31m"},
        "stats": {"connectedClients": 1, "events": {"client": 30}, "agentStats": {"\x9b": 1}, "limits": {"\x07": 2}},
    }
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(screen(now, then, 2.0, "no answer"))
    text = console.export_text()
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert any(row.startswith("events of clients 30 +10.0") for row in rows), text
    assert any(row.startswith("clients 1") for row in rows) and "pending" not in text and "no answer" in text
    assert r"\x1b[31m" in text and r"\x9b" in text and r"limit hit: \x07" in text


@pytest.mark.parametrize(
    "answers",
    [
        (b"\x1b[31mno HTTP\r\n",),
        (answer(b"<html>"),),
        (b"",),
        (answer(b"{}", 99), answer(b"{}", 99)),
        (answer(b"[" * 100_000),),
        (answer(b"[]"),),
        (answer(b'{"status": "UP"}'), answer(b'{"uptime": 1}')),
    ],
)
def test_top_of_another_service(tmp_path: Path, answers: tuple[bytes, ...]) -> None:
    """
    If the answer is not HTTP, is incomplete, or is from another service, it ends with 1 and one line.
    """
    with another_service(*answers) as where:
        done = run(tmp_path, "top", "--once", "--url", where)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "does not answer" in done.stderr and "\x1b" not in done.stderr


def test_top_when_a_proxy_says_503(tmp_path: Path) -> None:
    """
    A 503 without a report is an error; with a report it is from a service that is draining.
    """
    head = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n"
    with another_service(head + b"<html>") as where:
        done = run(tmp_path, "top", "--once", "--url", where)
    assert done.returncode == 1 and "the server answered HTTP 503 Service Unavailable" in done.stderr
    with another_service(head + b'{"status":"draining"}', answer(b'{"connectedClients":7}')) as where:
        done = run(tmp_path, "top", "--once", "--url", where)
    assert done.returncode == 0 and "draining" in done.stdout, done.stderr


def test_token_is_not_sent_elsewhere(tmp_path: Path) -> None:
    """
    It follows a redirection without the token, which is only for the service.
    """
    asked: list[bytes] = []
    with another_service(answer(b"{}"), asked=asked) as elsewhere:
        target = elsewhere.replace("ws", "http", 1).encode()
        moved = b"HTTP/1.1 302 Found\r\nLocation: %s\r\nConnection: close\r\n\r\n" % target
        with another_service(moved, asked=asked) as where:
            run(tmp_path, "top", "--once", "--url", where, DCM_WS_TOKEN="a.b")
    assert [b"a.b" in request for request in asked] == [True, False]


@pytest.mark.parametrize("odd", ['"x"', "[1]", "NaN", "1e308", "-Infinity", '{"a": "b"}', '{"a": NaN}', "null", "true"])
def test_top_of_odd_values(odd: str) -> None:
    """
    Values of the wrong type in a report are left out.
    """
    value = json.loads(odd)
    stats = {
        "connectedClients": 1, "events": value, "channelStats": value, "agentStats": value, "refusals": value,
        "closes": {"a": value}, "pendingDeliveries": value, "agentLoads": value, "log": value,
    }  # fmt: skip
    report = {"health": {"status": value, "database": value, "uptime_s": value}, "stats": stats}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(screen(report, report, 1.0, ""))
    report["stats"]["agentLoads"] = {"ann": value, "bob": {"owed": value}}
    console.print(screen(report, report, 1.0, ""))
    assert "clients" in console.export_text()


class OnTerminal:
    """
    A C{dcm-ws top} on a terminal of its own, and what it has shown.

    @ivar before: the terminal's settings, as they were.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._master, self._slave = pty.openpty()
        self.before = termios.tcgetattr(self._slave)
        self.shown = b""
        self.process = Popen(
            [PROGRAM, "top", *arguments],
            cwd=folder,
            env=clean(folder, TERM="xterm-256color"),
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            preexec_fn=_own_terminal,
        )
        # reading ends when the process ends
        self._deadline = threading.Timer(60, self.process.kill)
        self._deadline.start()

    def read_until_refreshed(self) -> None:
        while self.shown.count(b"events of clients") < 3:
            self._read()

    def type(self, key: bytes) -> None:
        os.write(self._master, key)

    def end(self) -> int:
        """
        Read until it ends; returns its exit code.
        """
        while self.process.poll() is None:
            if select.select([self._master], [], [], 0.05)[0]:
                self._read()
        while select.select([self._master], [], [], 0)[0]:
            self._read()
        assert termios.tcgetattr(self._slave) == self.before
        self._deadline.cancel()
        os.close(self._slave)
        os.close(self._master)
        return self.process.returncode

    def _read(self) -> None:
        self.shown += os.read(self._master, 65_536)


@pytest.mark.parametrize("how", [b"q", b"\x03", signal.SIGTERM])
def test_top_on_a_terminal(tmp_path: Path, running: Service, how: bytes | signal.Signals) -> None:
    """
    On a terminal it is refreshed until q, Ctrl-C or SIGTERM, and leaves the terminal as it was.
    """
    top = OnTerminal(tmp_path, "--interval", "0.2", "--url", url(running))
    top.read_until_refreshed()
    if isinstance(how, bytes):
        top.type(how)
    else:
        top.process.send_signal(how)
    assert top.end() == 0
    # it switches to the alternate screen and back, and shows the cursor again
    assert top.shown.count(b"\x1b[?1049h") == top.shown.count(b"\x1b[?1049l") == 1
    assert top.shown.rindex(b"\x1b[?25h") > top.shown.rindex(b"\x1b[?25l")


def _own_terminal() -> None:
    import fcntl

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
