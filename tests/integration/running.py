"""
dcm-ws as a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from tests.forking import Popen
from tests.integration.clients import Client, RawClient
from tests.integration.databases import UNREACHABLE
from tests.integration.machine import PATIENCE, free_port, until
from tests.integration.tokens import DEVELOPMENT_SECRET, SECRET

TWISTD = (
    str(Path(sys.executable).with_name("twistd")),
    *([f"--reactor={os.environ['DCM_WS_TEST_REACTOR']}"] if "DCM_WS_TEST_REACTOR" in os.environ else []),
)
"""
The service's program; C{DCM_WS_TEST_REACTOR} names another reactor, such as asyncio.
"""


class Service:
    """
    dcm-ws as its users run it.

    @param program: starts the service in the foreground, and takes its options.
    @param host: the address at which it is reached.

    @ivar port: what it listens on.
    @ivar secret: what its tokens are signed with, if the environment says so.
    """

    def __init__(
        self,
        *options: str,
        env: dict[str, str] | None = None,
        wait: str = "] ready",
        program: Sequence[str] = (*TWISTD, "-n", "--pidfile=", "dcm-ws"),
        host: str = "127.0.0.1",
    ) -> None:
        self.host = host
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DB_", "DATABASE_", "WS_"))}
        elsewhere = "WS_PORT" in (env or {}) or any(option.startswith("--listen") for option in options)
        listen = [] if elsewhere else ["--ws-port", "0"]
        self.log = ""
        self.secret = (env or {}).get("WS_AUTH_SECRET", DEVELOPMENT_SECRET)
        self._clients = contextlib.ExitStack()
        self.process: subprocess.Popen[str] = Popen(
            [*program, *listen, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean | (env or {}),
        )
        # read all the time: a full pipe would hold the service up
        self._grown = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
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
        with self._grown:
            came = self._grown.wait_for(lambda: text in self.log or self._ended, timeout=60)
            assert came and text in self.log, f"dcm-ws did not say {text!r}:\n{self.log}"

    def _read_log(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._grown:
                self.log += line
                self._grown.notify_all()
        with self._grown:
            self._ended = True
            self._grown.notify_all()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """
        Signal it, and wait for its end; returns its exit status.
        """
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            status = self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(timeout=10)
        return status

    def forget_clients(self) -> None:
        """
        Close the clients that L{connect} made, and wait up to 5 s until the service has noticed, so that later tests do
        not hear of them.  Other clients may stay: those that a failing test has left must not make the next tests fail.
        """
        self._clients.close()
        if self.process.poll() is None:
            with contextlib.suppress(AssertionError):
                until(lambda: self.health()["connectedClients"] == 0, 5)

    def connect(self, path: str = "/", **options: Any) -> Client:
        """
        A client that has read its C{connected} frame.
        """
        options = {"open_timeout": PATIENCE} | options
        opening = connect(f"ws://{self.host}:{self.port}{path}", create_connection=Client, **options)
        client = self._clients.enter_context(opening)
        assert isinstance(client, Client)
        client.connected = json.loads(client.recv(timeout=PATIENCE))
        return client

    def socket(self) -> socket.socket:
        """
        A TCP connection, on which nothing has been sent.
        """
        plain = socket.create_connection((self.host, self.port), timeout=PATIENCE)
        return self._clients.enter_context(plain)

    def connect_raw(self, path: str = "/", *, more: bytes = b"") -> RawClient:
        """
        A client that has read its C{connected} frame, and does nothing of its own accord.

        @param more: sent along with the handshake, at once.
        """
        client = RawClient(self.socket(), path, more)
        client.connected = client.hear()
        return client

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """
        The status, headers and body of an HTTP response.
        """
        request = urllib.request.Request(f"http://{self.host}:{self.port}{path}", method=method, headers=headers)
        try:
            with _opener.open(request, timeout=PATIENCE) as response:
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    def health(self) -> dict[str, Any]:
        """
        What /health says.
        """
        answer: dict[str, Any] = json.loads(self.get("/health")[2])
        return answer

    def stats(self) -> dict[str, Any]:
        """
        What /stats says.
        """
        answer: dict[str, Any] = json.loads(self.get("/stats")[2])
        return answer


@contextlib.contextmanager
def killed_at_the_end(running: Service) -> Iterator[Service]:
    """
    A running dcm-ws, which must not have logged an exception.
    """
    try:
        yield running
    finally:
        running.stop(signal.SIGKILL)
        running.forget_clients()
        assert "Traceback" not in running.log, running.log
        assert "Unhandled" not in running.log, running.log


@contextlib.contextmanager
def service(*options: str, env: dict[str, str] | None = None, wait: str = "] ready") -> Iterator[Service]:
    """
    A running dcm-ws, without a database unless the options or the environment name one.
    """
    named = any("database" in option for option in options)
    named = named or any(name.startswith(("DATABASE_URL", "DB_", "DCM_DATA_DIR")) for name in env or {})
    running = Service(*options, *(() if named else ("--no-database",)), env=env, wait=wait)
    with killed_at_the_end(running):
        yield running


def production_service(database: str = UNREACHABLE, *options: str) -> contextlib.AbstractContextManager[Service]:
    """
    A running dcm-ws in production, for which L{make_token} makes tokens.  It is ready once it listens if its database
    does not answer.
    """
    wait = "] ready"
    if database == UNREACHABLE:
        # nobody can know whether there is a log
        wait, options = "listening on", ("--log", "memory", *options)
    return service("--production", "--database-url", database, *options, env={"WS_AUTH_SECRET": SECRET}, wait=wait)


@contextlib.contextmanager
def unread_service(stdout: int) -> Iterator[int]:
    """
    A running dcm-ws whose output nobody reads; yields its port.

    @param stdout: the file descriptor that it writes its log to.
    """
    port = free_port()
    process = Popen(
        [*TWISTD, "-n", "--pidfile=", "dcm-ws", "--no-database", "--ws-port", str(port), "--log-level", "debug"],
        stdout=stdout,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        try:
            return bool(report(port, "health"))
        except OSError:
            return False

    try:
        until(answers)
        yield port
        process.terminate()
        assert process.wait(timeout=PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


def report(port: int, page: str) -> dict[str, Any]:
    """
    The JSON of a page of the service on this port.
    """
    with _opener.open(f"http://127.0.0.1:{port}/{page}", timeout=PATIENCE) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: object) -> None:
        return None


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
