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
import time
from collections.abc import Callable
from pathlib import Path

import pyte
import pytest
from rich.console import Console

from dcm_ws.cli.top_figures import Snapshot
from dcm_ws.cli.top_layout import layout
from dcm_ws.cli.top_report import Report
from dcm_ws.cli.top_screen import screen
from dcm_ws.cli.top_view import View
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


def test_control_characters() -> None:
    """
    They are escaped, and missing numbers are left out.
    """
    report: Report = {
        "health": {"status": "\x1b[31m"},
        "stats": {"connectedClients": 1, "events": {"client": 30}, "agentStats": {"\x9b": 1}, "limits": {"\x07": 2}},
    }
    text = printed(report)
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert any(row.startswith("events of clients 30") for row in rows), text
    assert any(row.startswith("clients 1") for row in rows) and "pending" not in text
    assert r"\x1b[31m" in text and r"\x9b" in text and r"limit hit: \x07" in text


def printed(report: Report) -> str:
    """
    What C{top --once} prints.
    """
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(screen(report, "http://127.0.0.1:3849"))
    return console.export_text()


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
    for loads in (value, {"ann": value, "bob": {"owed": value}}):
        report["stats"]["agentLoads"] = loads
        assert "clients" in printed(report)
        # with rates
        assert layout(Snapshot(report, report, 1.0), "", View(), 80, 24)


# before each drawing, the cursor is moved there
_HOME = b"\x1b[H"
# the alternate screen
_ENTERED = b"\x1b[?1049h"


class OnTerminal:
    """
    A program on a terminal of its own, and what the terminal shows.

    @ivar before: the terminal's settings, as they were.
    @ivar shown: all that was written to the terminal.
    """

    def __init__(self, folder: Path, *command: str) -> None:
        self._master, self._slave = pty.openpty()
        self.before = termios.tcgetattr(self._slave)
        self.shown = b""
        self._screen = pyte.Screen(80, 24)
        self._stream = pyte.ByteStream(self._screen)
        self.resize(80, 24)
        self.process = Popen(
            command,
            cwd=folder,
            # what a shell may export is not the size any more after the terminal gets another one
            env=clean(folder, TERM="xterm-256color", COLUMNS="80", LINES="24"),
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            preexec_fn=_own_terminal,
        )

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display]

    def wait_for(self, *texts: str) -> list[str]:
        """
        Read until all the texts are on the screen, and all that was drawn with them; returns its lines.
        """
        self.read_until(lambda: all(any(text in line for line in self.lines) for text in texts))
        drawn = self.shown.count(_HOME)
        self.read_until(lambda: self.shown.count(_HOME) > drawn)
        return self.lines

    def type(self, key: bytes) -> None:
        os.write(self._master, key)

    @property
    def has_settings_of_before(self) -> bool:
        return termios.tcgetattr(self._slave) == self.before

    def resize(self, columns: int, lines: int) -> None:
        """
        Give the terminal another size, of which the kernel notifies the program.
        """
        self._screen.resize(lines, columns)
        termios.tcsetwinsize(self._master, (lines, columns))

    def end(self) -> int:
        """
        Read until it ends; returns its exit code.
        """
        try:
            deadline = time.monotonic() + 60
            while self.process.poll() is None and time.monotonic() < deadline:
                self._read(0.05)
            while self._read(0):
                pass
            assert self.has_settings_of_before
            return self.process.wait(timeout=0)
        finally:
            self.process.kill()
            os.close(self._slave)
            os.close(self._master)

    def read_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert self.process.poll() is None and time.monotonic() < deadline, "\n".join(self.lines)
            self._read(0.1)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        data = os.read(self._master, 65_536)
        self.shown += data
        self._stream.feed(data)
        return True

    def has_restored_screen(self, times: int = 1) -> bool:
        """
        Whether it has switched to the alternate screen and back, so often, and shows the cursor again.
        """
        switched = self.shown.count(_ENTERED) == self.shown.count(b"\x1b[?1049l") == times
        return switched and self.shown.rindex(b"\x1b[?25h") > self.shown.rindex(b"\x1b[?25l")


def test_top_on_a_terminal(tmp_path: Path, running: Service) -> None:
    """
    On a terminal it has lists that keys choose, sort and scroll; it is drawn again when the terminal gets another size,
    and q ends it.
    """
    client = running.connect()
    ask(client, type="auth", agent_id="ann", id=1)
    for number in range(30):
        ask(client, type="subscribe", channel=f"topics/t-{number:02}", id=2)
    top = OnTerminal(tmp_path, PROGRAM, "top", "--interval", "0.2", "--url", url(running))
    lines = top.wait_for("[agents]", "ann", "q quit")
    assert lines[-1].startswith("q quit   Tab channels") and lines[0].startswith("dcm-ws "), lines
    top.type(b"\t")
    # global, the agent's own and 30 more
    lines = top.wait_for("[channels]", "1-11 of 32", "(s)ubscribers▼")
    assert len(lines) == 24
    top.type(b"\x1b[6~")
    top.wait_for("12-22 of 32")
    top.type(b"n\x1b[F")
    lines = top.wait_for("22-32 of 32", "(n)ame▲")
    assert lines[-2].startswith("topics/t-29 "), lines
    top.resize(60, 10)
    lines = top.wait_for("22-26 of 32")
    assert len(lines) == 10 and lines[-1].startswith("q quit") and lines[-2].startswith("topics/t-23 "), lines
    top.type(b"nq")
    assert top.end() == 0 and top.has_restored_screen()
    client.close()


def test_top_is_stopped_and_continued(tmp_path: Path, running: Service) -> None:
    """
    Ctrl-Z gives the terminal back to the shell as it was, and C{fg} shows the screen again, as does SIGCONT after a
    SIGSTOP, which no program can notice.
    """
    shell = OnTerminal(tmp_path, "sh", "-i")
    # its number, for the signal
    shell.type(f"sh -c 'echo $$ >number; exec {PROGRAM} top --interval 0.2 --url {url(running)}'\n".encode())
    shell.wait_for("[agents]", "q quit")
    shell.type(b"\t")
    shell.wait_for("[channels]")
    assert not shell.has_settings_of_before
    shell.type(b"\x1a")
    shell.read_until(lambda: b"Stopped" in shell.shown)
    assert shell.has_restored_screen() and shell.has_settings_of_before
    shell.type(b"fg\n")
    shell.read_until(lambda: shell.shown.count(_ENTERED) == 2)
    shell.wait_for("[channels]")
    os.kill(int((tmp_path / "number").read_text()), signal.SIGSTOP)
    shell.read_until(lambda: shell.shown.count(b"Stopped") == 2)
    shell.type(b"fg\n")
    shell.read_until(lambda: shell.shown.count(_ENTERED) == 3)
    shell.wait_for("[channels]")
    shell.type(b"q")
    shell.read_until(lambda: shell.has_restored_screen(3))
    shell.type(b"exit\n")
    assert shell.end() == 0


@pytest.mark.parametrize("how", [b"\x03", signal.SIGTERM])
def test_top_when_the_service_goes_away(tmp_path: Path, how: bytes | signal.Signals) -> None:
    """
    If the service goes away, it says so, shows what it knew, and tries again; Ctrl-C and SIGTERM end it, and leave the
    terminal as it was.
    """
    stats = b'{"connectedClients": 7, "agentStats": {"ann": 1}, "agentLoads": {}}'
    with another_service(answer(b'{"status": "healthy"}'), answer(stats)) as where:
        top = OnTerminal(tmp_path, PROGRAM, "top", "--interval", "0.2", "--url", where)
        lines = top.wait_for("nothing listens at", "[agents]")
    assert any(line.startswith("ann ") for line in lines) and lines[-1].startswith("q quit"), lines
    if isinstance(how, bytes):
        top.type(how)
    else:
        top.process.send_signal(how)
    assert top.end() == 0 and top.has_restored_screen()


def _own_terminal() -> None:
    import fcntl

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
