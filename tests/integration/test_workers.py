"""
Several processes that serve clients together: C{--workers}.

Without a database the workers have nothing to pass on events with, and tests of what they have in common need none.
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
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect, unix_connect

from dcm_ws.app.commandline import SEPARATE_WORKERS
from tests import forking
from tests.forking import Popen
from tests.integration.certificates import Certificate
from tests.integration.clients import Client, RawClient, ask, close_of, handshake, hear, unsubscribe_global
from tests.integration.databases import PostgresServer
from tests.integration.machine import PATIENCE, free_port, until
from tests.integration.owed import make_tables
from tests.integration.running import TWISTD, Service, service
from tests.integration.tokens import make_token

pytestmark = pytest.mark.integration

SEPARATE = {SEPARATE_WORKERS: "1"}
PROGRAM = (*TWISTD, "-n", "--pidfile=", "dcm-ws")


def workers(*options: str, count: int = 2, **variables: str) -> contextlib.AbstractContextManager[Service]:
    """
    A running service with workers and without a database.
    """
    return service("--workers", str(count), *options, env=SEPARATE | variables)


@pytest.fixture(scope="module")
def _shared() -> Iterator[Service]:
    with workers() as running:
        yield running


@pytest.fixture
def shared(_shared: Service) -> Iterator[Service]:
    """
    Workers that several tests use one after the other, without clients of other tests.
    """
    yield _shared
    _shared.forget_clients()


def pids(running: Service) -> dict[int, int]:
    """
    The processes of the workers, by their numbers.
    """
    return {one["worker"]: one["pid"] for one in running.stats()["workers"] if one["pid"]}


def exists(pid: int) -> bool:
    """
    Does a process run?  One that has ended and that nobody has asked for counts as ended.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def clients_of(running: Service) -> dict[int, int]:
    """
    The number of clients of each worker that answers.
    """
    return {one["worker"]: one["connectedClients"] for one in running.stats()["workers"] if one["answered"]}


def worker_of(running: Service, client: Client) -> int:
    """
    The number of the worker that a client is connected to.
    """
    text = f": {client.connected['client_id']} joined from"
    running.read_log_until(text)
    found = re.search(rf"worker (\d+){re.escape(text)}", running.log)
    assert found
    return int(found.group(1))


def one_at_each(running: Service, count: int = 2) -> dict[int, Client]:
    """
    A client at each worker, by the number of the worker; there may be further ones.
    """
    found: dict[int, Client] = {}
    while len(found) < count:
        client = running.connect()
        unsubscribe_global(client)
        found[worker_of(running, client)] = client
    return found


def is_open(client: Client) -> bool:
    try:
        return bool(ask(client, type="ping", id=1)["type"] == "pong")
    except ConnectionClosed:
        return False


# connections


def test_connections_are_spread(shared: Service) -> None:
    """
    1,000 connections go to both workers, about half of them to each.
    """
    plain = [shared.socket() for _ in range(1000)]
    for one in plain:
        one.sendall(handshake("/"))
    until(lambda: shared.stats()["connectedClients"] == 1000)
    counts = clients_of(shared)
    assert sum(counts.values()) == 1000
    # with a fair coin for each, less than 1 in 10^9 runs would be outside
    assert all(400 < count < 600 for count in counts.values())


@contextlib.contextmanager
def everywhere(folder: Path, certificate: Certificate) -> Iterator[Service]:
    """
    Workers that listen on TLS, a Unix socket and IPv6, and for a proxy.
    """
    endpoints = (
        "tcp:0:interface=127.0.0.1",
        certificate.endpoint(),
        f"unix:{folder / 'dcm-ws.sock'}",
        "tcp:0:interface=\\:\\:1",
        "haproxy:tcp:0:interface=127.0.0.1",
    )
    # a busy machine takes long for some handshakes
    options = (*(f"--listen={endpoint}" for endpoint in endpoints), "--handshake-timeout", "60")
    with workers(*options) as running:
        yield running


def test_endpoints(tmp_path: Path) -> None:
    """
    All kinds of endpoints are served by all workers, TLS by each; the file of a Unix socket is there until the end,
    also if a worker ends before.
    """
    path = tmp_path / "dcm-ws.sock"
    certificate = Certificate(tmp_path)
    with everywhere(tmp_path, certificate) as running:
        plain, secure, six, proxied = map(int, re.findall(r"listening on wss?://\S+:(\d+)/ ", running.log))
        assert running.health()["port"] == plain
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                raw = socket.create_connection(("127.0.0.1", secure), timeout=PATIENCE)
                tls = certificate.trusting.wrap_socket(raw, server_hostname="127.0.0.1")
                assert RawClient(stack.enter_context(tls), "/").hear()["type"] == "connected"
            assert min(clients_of(running).values()) > 0
        for _ in range(20):
            with unix_connect(str(path), "ws://localhost/") as client:
                assert hear(client)["type"] == "connected"
            with connect(f"ws://[::1]:{six}/") as client:
                assert hear(client)["type"] == "connected"
            with socket.create_connection(("127.0.0.1", proxied), timeout=PATIENCE) as raw:
                raw.sendall(b"PROXY TCP4 192.0.2.7 127.0.0.1 50000 80\r\n" + handshake())
                assert raw.recv(1 << 16).startswith(b"HTTP/1.1 101 ")
        assert "joined from 192.0.2.7\n" in running.log
        assert re.search(r"worker 1: \S+ joined from", running.log)
        assert re.search(r"worker 2: \S+ joined from", running.log)
        first = pids(running)[1]
        os.kill(first, signal.SIGTERM)
        until(lambda: pids(running).get(1, first) != first)
        assert path.is_socket()
        assert running.stop(signal.SIGTERM) == 0
        assert not path.exists()


def test_socket_of_systemd() -> None:
    """
    All workers serve a socket that systemd has opened, and leave it alone.
    """
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(100)
        port = listening.getsockname()[1]
        # systemd tells the process its own number, which only the process itself can know before it starts
        program = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3);"
            " os.environ |= {'LISTEN_FDS': '1', 'LISTEN_FDNAMES': 'dcm-ws.socket', 'LISTEN_PID': str(os.getpid())};"
            " os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
        )
        twistd = str(Path(sys.executable).with_name("twistd"))
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", program, str(listening.fileno()), twistd, "-n", "--pidfile=", "dcm-ws"),
                *("--no-database", "--workers", "2", "--listen", "systemd:domain=INET:index=0"),
            ],
            pass_fds=[listening.fileno()],
            env=os.environ | SEPARATE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            with contextlib.ExitStack() as stack:
                # they wait until there are workers
                for _ in range(20):
                    client = stack.enter_context(connect(f"ws://127.0.0.1:{port}/", open_timeout=PATIENCE))
                    assert hear(client)["type"] == "connected"
            process.terminate()
            assert process.wait(timeout=PATIENCE) == 0
            assert process.stdout is not None
            assert "Traceback" not in process.stdout.read()
            # still open: the next service would get it
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
        finally:
            process.kill()
            process.communicate()


def test_port_in_use(shared: Service) -> None:
    """
    A second service on the same port does not start, although its workers could share it.
    """
    command = [*PROGRAM, "--no-database", "--workers", "2", "--ws-port", str(shared.port)]
    ended = forking.run(command, env=os.environ | SEPARATE, input="", timeout=PATIENCE)
    assert ended.returncode == 1
    assert f"cannot listen on tcp:{shared.port}" in ended.stdout
    assert "Address already in use" in ended.stdout
    assert is_open(shared.connect())


# workers that die


def test_killed_worker() -> None:
    """
    A worker that is killed is started again; clients of the other one notice nothing, and nobody who connects meanwhile
    is turned away.
    """
    with workers() as running:
        at = one_at_each(running)
        first = pids(running)[1]
        os.kill(first, signal.SIGKILL)
        # about half of these wait for the next process
        late = [running.connect() for _ in range(20)]
        assert is_open(at[2])
        assert not is_open(at[1])
        assert all(is_open(client) for client in late)
        assert f"worker 1 (pid {first}) ended: killed by SIGKILL; it is started again in 0.1 s" in running.log
        assert pids(running)[1] != first
        assert min(clients_of(running).values()) > 0
        # those of the process that was killed are not counted any more
        stats = running.stats()
        assert stats["connections"]["websocket"] == stats["connectedClients"] == sum(clients_of(running).values())
        assert b"dcm_ws_worker_restarts_total 1.0" in running.get("/metrics")[2]


def test_worker_that_is_told_to_end(shared: Service) -> None:
    """
    SIGTERM at one worker: it closes its clients in order, and another process takes its place.
    """
    at = one_at_each(shared)
    os.kill(pids(shared)[2], signal.SIGTERM)
    assert close_of(at[2])[0] == 1012
    shared.read_log_until("ended: exit status 0; it is started again")
    until(lambda: len(clients_of(shared)) == 2)
    assert is_open(at[1])


def test_stopped_worker(shared: Service) -> None:
    """
    While a worker is stopped, reports name it as missing, and its connections wait.
    """
    at = one_at_each(shared)
    second = pids(shared)[2]
    os.kill(second, signal.SIGSTOP)
    try:
        waiting = [shared.socket() for _ in range(20)]
        for one in waiting:
            one.sendall(handshake("/"))
        # one of the requests goes to a worker that answers
        health = ask_until_answered(shared, "health")
        assert health["status"] == "degraded"
        missing = [one for one in health["workers"] if not one["answered"]]
        assert missing == [{"worker": 2, "pid": second, "answered": False}]
        assert ask_until_answered(shared, "readyz")["status"] == "ok"
        assert is_open(at[1])
    finally:
        os.kill(second, signal.SIGCONT)
    assert all(one.recv(12) == b"HTTP/1.1 101" for one in waiting)
    assert is_open(at[2])
    until(lambda: shared.health()["status"] == "healthy")


def test_stopped_supervisor(shared: Service) -> None:
    """
    While the supervisor is stopped, the workers serve clients, and report what they know by themselves.
    """
    at = one_at_each(shared)
    shared.process.send_signal(signal.SIGSTOP)
    try:
        assert all(is_open(client) for client in at.values())
        assert is_open(shared.connect())
        health = shared.health()
        assert health["status"] == "degraded"
        assert sorted(one["answered"] for one in health["workers"]) == [False, True]
        assert b"dcm_ws_connections_opened_total" in shared.get("/metrics")[2]
    finally:
        shared.process.send_signal(signal.SIGCONT)
    until(lambda: shared.health()["status"] == "healthy")


def ask_until_answered(running: Service, page: str) -> dict[str, Any]:
    """
    A page of the service, of which one worker does not answer.
    """
    for _ in range(40):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/{page}", timeout=3) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except TimeoutError:
            pass
    raise AssertionError("no worker answers")


def test_missing_log(database: PostgresServer) -> None:
    """
    Workers whose database lacks the log do not start, and the service says why in one line.
    """
    options = ("--database-url", database.url, "--workers", "2", "--ws-port", "0", "--log", "postgres")
    ended = forking.run([*PROGRAM, *options], input="", timeout=PATIENCE)
    assert ended.returncode == 1
    assert ended.stdout.count("dcm-ws cannot start: ") == 1
    assert "Traceback" not in ended.stdout


# the end


def test_sigterm_drains_all() -> None:
    """
    SIGTERM closes the clients of all workers in order, and the status is 0.
    """
    with workers() as running:
        at = one_at_each(running)
        processes = pids(running).values()
        assert running.stop(signal.SIGTERM) == 0
        assert [close_of(client)[0] for client in at.values()] == [1012, 1012]
        assert not any(exists(pid) for pid in processes)
        assert running.log.count("killed") == 0


def test_drain_delay() -> None:
    """
    Before the delay has passed, all workers serve old and new clients, and are not ready.  The second signal skips it.
    """
    with workers("--drain-delay", "600") as running:
        at = one_at_each(running)
        running.process.send_signal(signal.SIGTERM)
        until(lambda: running.get("/readyz")[0] == 503)
        late = one_at_each(running)
        assert running.health()["status"] == "draining"
        assert all(is_open(client) for client in at.values())
        assert running.stop(signal.SIGTERM) == 0
        assert [close_of(client)[0] for client in (*at.values(), *late.values())] == [1012] * 4


def test_second_signal_kills() -> None:
    """
    The second signal ends all processes at once, however long the drain time is.
    """
    with workers("--drain", "60") as running:
        for _ in range(100):
            running.connect_raw()
        processes = pids(running).values()
        running.process.send_signal(signal.SIGTERM)
        running.read_log_until("draining")
        assert running.stop(signal.SIGTERM) == -signal.SIGTERM
        until(lambda: not any(exists(pid) for pid in processes))


def test_killed_supervisor() -> None:
    """
    If the supervisor is killed, the workers close their clients and end; the port is free at once.
    """
    with workers() as running:
        at = one_at_each(running)
        processes = pids(running).values()
        running.stop(signal.SIGKILL)
        assert [close_of(client)[0] for client in at.values()] == [1012, 1012]
        until(lambda: not any(exists(pid) for pid in processes))
        with workers("--ws-port", str(running.port)) as next_one:
            assert next_one.connect()


def test_interrupt_at_a_terminal() -> None:
    """
    Ctrl-C reaches all processes of a terminal: the service ends in order all the same.
    """
    with workers() as running:
        at = one_at_each(running)
        for pid in pids(running).values():
            os.kill(pid, signal.SIGINT)
        assert running.stop(signal.SIGINT) == 0
        assert [close_of(client)[0] for client in at.values()] == [1012, 1012]


# what all have in common


def test_secrets_are_changed_at_all_workers(tmp_path: Path) -> None:
    """
    SIGHUP makes all workers use the secrets that the file has now, also those that start later.
    """
    file = tmp_path / "secrets"
    old, new = "the-old-secret-of-forty-two-characters-long", "the-new-secret-of-forty-two-characters-long"
    file.write_text(old)
    file.chmod(0o600)
    with workers("--ws-auth-secret-file", str(file)) as running:
        at = one_at_each(running)
        assert ask(at[1], type="auth", token=make_token("ann", secret=old), id=1)["success"] is True
        file.write_text(new)
        running.process.send_signal(signal.SIGHUP)
        for worker, client in at.items():
            running.read_log_until(f"worker {worker}: secrets taken over")
            assert ask(client, type="auth", token=make_token("ann", secret=new), id=1)["success"] is True
            assert ask(client, type="auth", token=make_token("ann", secret=old), id=2)["code"] == "TOKEN_INVALID"
        os.kill(pids(running)[1], signal.SIGKILL)
        until(lambda: len(clients_of(running)) == 2)
        again = one_at_each(running)
        assert ask(again[1], type="auth", token=make_token("ann", secret=new), id=1)["success"] is True
        file.write_text("")
        running.process.send_signal(signal.SIGHUP)
        running.read_log_until("the secrets stay as they are")


# one service


@pytest.fixture(scope="module")
def _logged(database: PostgresServer) -> Iterator[Service]:
    make_tables(database)
    with service("--workers", "2", "--database-url", database.url) as running:
        yield running
    # the agents of other modules would get what the agents here are owed
    database.execute("drop schema dcm_ws cascade")


@pytest.fixture
def logged(_logged: Service) -> Iterator[Service]:
    """
    Workers that pass on events through a database, which several tests use one after the other.
    """
    yield _logged
    _logged.forget_clients()


def publish(client: Client, number: int) -> None:
    answer = ask(client, type="publish", id=number, channel="topics/news", event="session.created", data=number)
    assert answer["success"] is True, answer


def news(client: Client, count: int) -> list[tuple[int, int]]:
    """
    The next events that a client receives: position and data of each.
    """
    found: list[tuple[int, int]] = []
    while len(found) < count:
        message = hear(client)
        if message.get("event") == "session.created":
            found.append((message["pos"], message["data"]))
    return found


def test_events_reach_clients_of_all_workers(database: PostgresServer, logged: Service) -> None:
    """
    What is published at one worker, or in the database, is received at all of them, in the same order.
    """
    at, publishers = one_at_each(logged), one_at_each(logged)
    for client in at.values():
        assert ask(client, type="subscribe", id=1, channel="topics/news")["success"] is True
    for number in range(20):
        publish(publishers[1 + number % 2], number)
    database.execute("select dcm_ws.publish('topics/news', 'session.created', '20'::jsonb)")
    first, second = (news(client, 21) for client in at.values())
    assert first == second
    assert sorted(data for _, data in first) == list(range(21))
    assert [pos for pos, _ in first] == sorted(pos for pos, _ in first)


def test_what_is_not_logged_reaches_all_workers(logged: Service) -> None:
    """
    Events that are not logged are received by the clients of all workers, too, and an agent that moves to another
    worker gets there what it has not acknowledged.
    """
    at = one_at_each(logged)
    assert ask(at[2], type="subscribe", id=1, channel="topics/news")["success"] is True
    message = {"channel": "topics/news", "event": "system.info", "data": {"component": "test"}}
    assert ask(at[1], type="publish", id=1, **message)["success"] is True
    assert hear(at[2])["event"] == "system.info"
    token = make_token("ann", secret=logged.secret)
    assert ask(at[1], type="auth", id=2, token=token, durable=True)["success"] is True
    task = {"channel": "agents/ann", "event": "task.created", "data": {"task_id": "t1"}}
    assert ask(at[2], type="publish", id=3, **task)["success"] is True
    first = hear(at[1])
    assert first["event"] == "task.created"
    at[1].close()
    again = one_at_each(logged)[2]
    assert ask(again, type="auth", id=4, token=token, durable=True)["success"] is True
    assert hear(again)["id"] == first["id"]


def test_leading_worker_is_killed(database: PostgresServer, logged: Service) -> None:
    """
    If the worker that numbers the events is killed, the clients of the others receive what is published then.
    """
    leader = next(one["worker"] for one in logged.stats()["workers"] if one["log"] == "up")
    at = one_at_each(logged)
    other = at[3 - leader]
    assert ask(other, type="subscribe", id=1, channel="topics/news")["success"] is True
    publish(at[leader], 1)
    os.kill(pids(logged)[leader], signal.SIGKILL)
    database.execute("select dcm_ws.publish('topics/news', 'session.created', '2'::jsonb)")
    assert [data for _, data in news(other, 2)] == [1, 2]
    until(lambda: {one.get("log") for one in logged.stats()["workers"]} == {"up", "following"})
    assert logged.stats()["log"]["state"] == "up"
    assert database.execute("select count(distinct name) from dcm_ws.node where not fenced") == [(2,)]
    until(lambda: logged.health()["status"] == "healthy")


def refused(running: Service) -> bool:
    """
    Is another connection refused?
    """
    try:
        running.connect()
    except InvalidStatus as error:
        assert error.response.status_code == 503
        return True
    return False


def test_limit_per_address() -> None:
    """
    An address has as many connections at all workers together as at one; those of a worker that was killed do not
    count.
    """
    with workers("--max-connections-per-ip", "10") as running:
        outcome = [refused(running) for _ in range(30)]
        assert outcome == [False] * 10 + [True] * 20
        counts = clients_of(running)
        assert sum(counts.values()) == 10
        assert running.stats()["limits"]["maxConnectionsPerIp"] == 20
        running.forget_clients()
        until(lambda: not refused(running))


def test_max_connections() -> None:
    """
    --max-connections holds for all workers together.
    """
    with workers("--max-connections", "10") as running:
        for _ in range(10):
            running.connect()
        for _ in range(10):
            with connect(f"ws://127.0.0.1:{running.port}/") as client:
                assert close_of(client)[0] == 1013
        assert sum(clients_of(running).values()) == 10


def test_places_of_a_killed_worker() -> None:
    """
    The connections of a worker that was killed make room for others.
    """
    with workers("--max-connections-per-ip", "12") as running:
        at = one_at_each(running)
        while not refused(running):
            pass
        gone = clients_of(running)[1]
        os.kill(pids(running)[1], signal.SIGKILL)
        until(lambda: not is_open(at[1]))
        until(lambda: len(clients_of(running)) == 2)
        assert sum(not refused(running) for _ in range(30)) == gone


def test_rate_of_an_agent() -> None:
    """
    All connections of an agent spend from one budget, at whichever worker they are.
    """
    with workers("--rate-limit", "1/s", "--rate-burst", "80") as running:
        at = one_at_each(running)
        token = make_token("ann", secret=running.secret)
        for client in at.values():
            assert ask(client, type="auth", token=token, id=1)["success"] is True
        started = time.monotonic()
        answers = [ask(client, type="ping", id=number)["type"] for number in range(100) for client in at.values()]
        allowed = answers.count("pong")
        passed = time.monotonic() - started
        # what is added while the test runs, and a portion that one of them may have left
        assert 80 - 10 <= allowed <= 80 + passed + 1
        assert running.stats()["limits"]["rateLimit"] == 200 - allowed


def figures_of(running: Service) -> dict[str, float]:
    """
    What /metrics says.
    """
    text = running.get("/metrics")[2].decode()
    return {name: float(value) for name, value in re.findall(r"^(dcm_ws_\S+) (\S+)$", text, re.M)}


def test_reports_are_sums(shared: Service) -> None:
    """
    /stats and /metrics are those of all workers, whoever answers.
    """
    before = figures_of(shared).get('dcm_ws_messages_received_total{type="ping"}', 0)
    at = one_at_each(shared)
    for client in at.values():
        for number in range(5):
            assert ask(client, type="ping", id=number)["type"] == "pong"
    token = make_token("ann", secret=shared.secret)
    assert ask(at[2], type="auth", token=token, id=1)["success"] is True
    for _ in range(10):
        stats = shared.stats()
        assert stats["connectedClients"] == sum(clients_of(shared).values())
        assert stats["authenticatedClients"] == 1
        assert stats["agentStats"] == {"ann": 1}
        assert shared.health()["connectedClients"] == stats["connectedClients"]
    opened = stats["totalConnections"]
    figures = figures_of(shared)
    assert figures["dcm_ws_connections_opened_total"] == opened
    assert figures['dcm_ws_messages_received_total{type="ping"}'] == before + 10
    assert figures['dcm_ws_connections{state="authenticated"}'] == 1
    assert figures['dcm_ws_log_state{state="up"}'] == 1
    assert figures['dcm_ws_workers{state="ready"}'] == 2
    assert figures["dcm_ws_event_subscribers_count"] > 0
    assert shared.get("/health", "HEAD")[0] == 200
    assert shared.get("/livez")[0] == shared.get("/readyz")[0] == 200


def test_lines_of_the_log() -> None:
    """
    Each line of a worker has its number, as text and as JSON.
    """
    with (
        workers("--log-format", "json", wait="")
        if False
        else service("--workers", "2", "--log-format", "json", env=SEPARATE, wait='"message": "ready"') as running
    ):
        running.read_log_until('"logger": "dcm_ws.service.DCMService", "message": "ready", "worker": 2')
        assert running.stop(signal.SIGTERM) == 0
        lines = [json.loads(line) for line in running.log.splitlines()]
    stopped = [line.get("worker") for line in lines if line["message"] == "stopped"]
    assert sorted(stopped, key=str) == [1, 2, None]


@pytest.mark.parametrize("options", [["--no-database"], ["--log", "memory", "--database-url", "postgresql://db/x"]])
def test_workers_need_the_log(options: list[str]) -> None:
    """
    Without the durable log, clients of different workers would not hear of each other, so the service does not start.
    """
    command = str(Path(sys.executable).with_name("dcm-ws"))
    ended = forking.run([command, "serve", "--workers", "2", *options], input="", timeout=PATIENCE)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("dcm-ws: --workers needs a database with the durable log")


def test_serve() -> None:
    """
    dcm-ws serve runs workers, too.
    """
    port = free_port()
    process = Popen(
        [
            *(str(Path(sys.executable).with_name("dcm-ws")), "serve", "--workers", "2"),
            *("--no-database", "--ws-port", str(port)),
        ],
        env=os.environ | SEPARATE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        while "] ready" not in process.stdout.readline():
            pass
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=PATIENCE) as response:
            assert len(json.load(response)["workers"]) == 2
        process.terminate()
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    finally:
        process.kill()
