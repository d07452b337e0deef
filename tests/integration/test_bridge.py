"""
The bridge from a real PostgreSQL: what NOTIFY says is what clients hear, and nothing that happens to the database ends
the service.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from websockets.sync.client import ClientConnection

from tests.event_types import fits
from tests.integration.clients import ask, hear, hear_event, say, silence
from tests.integration.databases import PostgresServer
from tests.integration.machine import free_port, until
from tests.integration.running import Service, service

pytestmark = pytest.mark.integration

GOOD = {"channel": "global", "event": "build.finished", "data": None}


@pytest.fixture(scope="module")
def bridge(database: PostgresServer) -> Iterator[Service]:
    """
    A service that all tests of payloads share.
    """
    with service("--database-url", database.url) as running:
        yield running
        assert running.stop(signal.SIGTERM) == 0


@pytest.fixture
def client(bridge: Service) -> Iterator[ClientConnection]:
    client = bridge.connect()
    yield client
    client.close()


def event(**fields: Any) -> str:
    return json.dumps(GOOD | fields)


def hear_state(client: ClientConnection, state: str) -> dict[str, Any]:
    """
    What the service says of its database, which must be this.
    """
    name = "system.info" if state == "up" else "system.error"
    told = hear_event(client, name)
    assert told["channel"] == "global"
    assert told["data"] == {"component": "database", "state": state}
    assert fits(name, told["data"], "service")
    return told


def bad_notifications(running: Service) -> int:
    number: int = running.stats()["events"]["badNotifications"]
    return number


def assert_bridges(database: PostgresServer, client: ClientConnection) -> None:
    """
    A notification sent now is heard, with what came before it left out.
    """
    mark = random.randrange(1 << 60)
    database.notify(event(event="probe.sent", data=mark))
    while hear_event(client, "probe.sent")["data"] != mark:
        pass


# what comes through


def test_notification_comes_out_as_an_event(
    database: PostgresServer, bridge: Service, client: ClientConnection
) -> None:
    """
    A NOTIFY reaches the subscribers of its channel, data and timestamp as they were sent; then those of global.
    """
    assert ask(client, type="subscribe", channel="topics/a/b", id=1)["success"] is True
    data = {"n": 1, "text": "žluťoučký 🐎 \u2028", "list": [1, 2.5, None, True], "nested": {"a": {}}}
    database.notify(event(channel="topics/a/b", event="subtask.running", data=data, timestamp=1706000000000))
    first, second = hear(client), hear(client)
    assert (first["channel"], second["channel"]) == ("topics/a/b", "global")
    assert first["id"] == second["id"]
    for frame in first, second:
        assert frame["event"] == "subtask.running"
        assert frame["data"] == data
        assert frame["timestamp"] == 1706000000000
    say(client, type="ack", message_id=first["id"])


@pytest.mark.parametrize(
    "channel", ["projects", "epic-sessions", "", "topics/", "agents/ a", "x" * 1000, "global/", None, 5, [], {}]
)
def test_channel_outside_the_grammar_goes_to_global_alone(
    database: PostgresServer, client: ClientConnection, channel: object
) -> None:
    """
    What existing installations send to channels that are none, such as projects, is delivered on global, once.
    """
    database.notify(event(channel=channel, event="project.updated", data=[channel]))
    frame = hear(client)
    assert (frame["channel"], frame["event"], frame["data"]) == ("global", "project.updated", [channel])
    silence(client)


def test_missing_data_is_null_and_missing_timestamp_is_now(database: PostgresServer, client: ClientConnection) -> None:
    """
    A payload needs neither data nor a timestamp; fields that nobody knows are ignored.
    """
    database.notify('{"event":"a.b","channel":"global","more":{"of":"it"}}', event(timestamp=None))
    frame = hear(client)
    assert frame["data"] is None
    assert frame["timestamp"] > 1706000000000
    assert "more" not in frame
    assert hear(client)["timestamp"] > 1706000000000


def test_half_a_character_is_read_as_browsers_do(database: PostgresServer, client: ClientConnection) -> None:
    """
    The escape of a lone surrogate, which JavaScript writes, becomes U+FFFD.
    """
    database.notify('{"channel":"global","event":"a.b","data":"cut \\ud83d here"}')
    assert hear(client)["data"] == "cut \ufffd here"


@pytest.mark.parametrize("name", ["deploy", "task.statusChanged", "build:done", "a", "A..b-_:", "x" * 64])
def test_event_names_of_existing_installations(database: PostgresServer, client: ClientConnection, name: str) -> None:
    """
    Any name of 1 to 64 letters, digits, dots, colons, hyphens and underscores is delivered.
    """
    database.notify(event(event=name))
    assert hear(client)["event"] == name


@pytest.mark.parametrize(
    "timestamp",
    [
        "null",
        '""',
        '"2024-01-23T00:00:00Z"',
        '"soon"',
        "-1",
        "0",
        "1706000000",
        "1706000000.25",
        "253402300800000",
        "1e999",
        "true",
        "[1]",
        "{}",
    ],
)
def test_odd_timestamp_is_now(database: PostgresServer, client: ClientConnection, timestamp: str) -> None:
    """
    An event whose time cannot be used is delivered with the time of its arrival.
    """
    database.notify(f'{{"channel":"global","event":"a.b","data":1,"timestamp":{timestamp}}}')
    frame = hear(client)
    assert frame["data"] == 1
    assert abs(frame["timestamp"] - time.time() * 1000) < 60_000


BAD = {
    "nothing": "",
    "no JSON": "hello",
    "half a JSON object": '{"channel":"global"',
    "an array": '["global","a.b",{}]',
    "an empty array": "[]",
    "a string": '"global"',
    "a number": "1",
    "null": "null",
    "an empty object": "{}",
    "no event": '{"channel":"global","data":{}}',
    "an event with a space": event(event="task created"),
    "an event with an accent": event(event="tâche"),
    "an event with a slash": event(event="task/created"),
    "an event with a line break": event(event="task.created\n"),
    "an event too long": event(event="a." + "b" * 63),
    "no event name": event(event=""),
    "an event that is a number": event(event=7),
    "an event that is null": event(event=None),
    "half a character for an event": '{"channel":"global","event":"a.\\ud800","data":{}}',
    "an infinite number": '{"channel":"global","event":"a.b","data":1e400}',
    "an integer of 4,301 digits": '{"channel":"global","event":"a.b","data":' + "9" * 4301 + "}",
    "nested deeper than 100 levels": '{"channel":"global","event":"a.b","data":' + "[" * 101 + "]" * 101 + "}",
    "NaN": '{"channel":"global","event":"a.b","data":NaN}',
    "JSON and more": event() + "x",
    "data cut short": '{"channel":"global","event":"a.b","data":{"a":}}',
    "a control character": '{"channel":"global","event":"a.b","data":"\x01"}',
    "too deep": '{"channel":"global","event":"a.b","data":' + "[" * 7900,
    "too deep for its half a character": '{"channel":"global","event":"a.b","data":["\\ud800",' + "[" * 7800,
    "as large as can be": "x" * 7999,
}


@pytest.mark.parametrize("payload", BAD.values(), ids=BAD.keys())
def test_bad_payload_is_dropped(database: PostgresServer, client: ClientConnection, payload: str) -> None:
    """
    A payload that is no event reaches nobody; the next one does.
    """
    database.notify(payload, event(data="next"))
    assert hear(client)["data"] == "next"


def test_bad_payloads_are_counted(database: PostgresServer) -> None:
    """
    Each payload that is no event is counted in /stats.
    """
    with service("--database-url", database.url) as running:
        client = running.connect()
        database.notify(*BAD.values(), event(data="next"))
        assert hear(client)["data"] == "next"
        until(lambda: bad_notifications(running) == len(BAD))


def test_large_payload_comes_through(database: PostgresServer, client: ClientConnection) -> None:
    """
    A payload as large as PostgreSQL takes it is delivered whole.
    """
    data = "x" * (7999 - len(event(data="")))
    database.notify(event(data=data))
    assert hear(client)["data"] == data


def test_a_burst_arrives_whole_and_in_order(
    database: PostgresServer, bridge: Service, client: ClientConnection
) -> None:
    """
    5,000 NOTIFYs of one transaction reach a subscriber, all of them, in order.
    """
    assert ask(client, type="subscribe", channel="topics/burst", id=1)["success"] is True
    database.notify(*(event(channel="topics/burst", event="burst.sent", data=n) for n in range(5000)))
    frames = [hear(client) for _ in range(10_000)]
    assert [frame["data"] for frame in frames if frame["channel"] == "topics/burst"] == list(range(5000))
    assert [frame["data"] for frame in frames if frame["channel"] == "global"] == list(range(5000))


def test_a_burst_larger_than_the_inbox_arrives_whole_and_in_order(
    database: PostgresServer, bridge: Service, client: ClientConnection
) -> None:
    """
    A burst of 30,000, three times what may wait to be published, is delivered without a gap.
    """
    database.execute(
        "select pg_notify('dcm_events', json_build_object('channel','global','event','burst.sent','data',n)::text)"
        " from generate_series(1, 30000) n"
    )
    assert [hear(client)["data"] for _ in range(30_000)] == list(range(1, 30_001))
    assert bridge.health()["status"] == "healthy"


def test_arbitrary_payloads_harm_nothing(database: PostgresServer, bridge: Service, client: ClientConnection) -> None:
    """
    2,000 payloads of chance, of which many are nearly right, leave the service healthy and its log free of errors.
    """
    chance = random.Random(3849)
    pieces = ['{"', '"}', ":", ",", "[", "]", "channel", "event", "data", "a.b", "global", "\\ud83d", "\\u0000", "1e9"]

    def value(depth: int = 0) -> Any:
        plain = (None, True, -1, 2**70, 1.5, "", "a.b", "global", "\ud83d", "\U0001f40e", "\x7f", "topics/x")
        if depth > 2 or chance.random() < 0.6:
            return chance.choice(plain)
        if chance.random() < 0.5:
            return [value(depth + 1) for _ in range(chance.randrange(4))]
        return {str(value(3)): value(depth + 1) for _ in range(chance.randrange(4))}

    def payload() -> str:
        kind = chance.randrange(4)
        if kind == 0:
            return "".join(chance.choice(pieces) for _ in range(chance.randrange(20)))
        if kind == 1:
            return "".join(chr(chance.choice((chance.randrange(1, 128), 0x20AC, 0x1F40E))) for _ in range(30))
        fields = GOOD | {chance.choice(("channel", "event", "data", "timestamp", "id")): value() for _ in range(kind)}
        text = json.dumps(fields)
        cut = chance.randrange(len(text)) if chance.random() < 0.2 else len(text)
        return text[:cut]

    before = bridge.stats()["events"]
    # PostgreSQL sends only one of two payloads that are alike
    payloads = list({payload(): None for _ in range(2300)})[:2000]
    assert len(payloads) == 2000
    database.notify(*payloads)
    assert_bridges(database, client)
    after = bridge.stats()["events"]
    bad = after["badNotifications"] - before["badNotifications"]
    good = after["database"] - before["database"] - 1
    assert (bad + good, bad > 500, good > 100) == (2000, True, True)
    assert bridge.health()["status"] == "healthy"


# what happens to the database


def test_lost_connection_is_told_and_comes_back(stoppable: PostgresServer) -> None:
    """
    When the database ends the connection, clients stay connected, are notified that it is down and up, and receive
    later events.
    """
    with service("--database-url", stoppable.url) as running:
        client = running.connect()
        assert stoppable.kill_backends() >= 1
        down = hear_state(client, "down")
        up = hear_state(client, "up")
        assert down["timestamp"] <= up["timestamp"]
        assert_bridges(stoppable, client)
        health = running.health()
        assert health["status"] == "healthy"
        assert health["database"]["reconnects"] == 1
        assert running.stop(signal.SIGTERM) == 0


@contextlib.contextmanager
def load(database: PostgresServer) -> Iterator[None]:
    """
    Somebody who notifies without a pause, as well as the database lets him.
    """
    over = threading.Event()

    def notify() -> None:
        while not over.is_set():
            try:
                with contextlib.closing(psycopg2.connect(database.url)) as connection:
                    connection.autocommit = True
                    cursor = connection.cursor()
                    while not over.wait(0.002):
                        cursor.execute("select pg_notify('dcm_events', %s)", (event(event="load.sent"),))
            except psycopg2.Error:
                over.wait(0.05)

    thread = threading.Thread(target=notify)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_database_restarted_under_load(stoppable: PostgresServer, mode: str) -> None:
    """
    While the database is stopped and started again, clients stay connected and /health says degraded; then events
    flow again, with the same service.
    """
    with service("--database-url", stoppable.url) as running, load(stoppable):
        client = running.connect()
        hear_event(client, "load.sent")
        stoppable.stop(mode)
        try:
            hear_state(client, "down")
            assert running.health()["status"] == "degraded"
            assert running.health()["database"]["state"] == "down"
            say(client, type="publish", channel="global", event="task.created", data=1, id=1)
            assert hear_event(client, "task.created")["data"] == 1
            assert hear(client)["success"] is True
        finally:
            stoppable.start()
        hear_state(client, "up")
        hear_event(client, "load.sent")
        until(lambda: running.health()["status"] == "healthy")
        assert running.health()["connectedClients"] == 1
        assert running.stop(signal.SIGTERM) == 0


def test_service_starts_before_its_database(stoppable: PostgresServer) -> None:
    """
    Started while the database is down, the service serves at once, says degraded, and is healthy once it is up.  Until
    then it does not know whether the log is in the database, so what would be logged is refused.
    """
    stoppable.stop()
    try:
        with service("--database-url", stoppable.url, wait="database down") as running:
            assert running.health()["status"] == "degraded"
            client = running.connect()
            refused = ask(client, type="publish", channel="global", event="task.created", id=1)
            assert (refused["success"], refused["code"]) == (False, "NOT_AVAILABLE")
            assert (
                ask(client, type="publish", channel="global", event="metric.update", id=2)["event"] == "metric.update"
            )
            assert hear(client)["success"] is True
            stoppable.start()
            running.read_log_until("] ready")
            hear_state(client, "up")
            assert_bridges(stoppable, client)
            until(lambda: running.health()["status"] == "healthy")
            assert running.log.count("database down") == 1
            assert running.stop(signal.SIGTERM) == 0
    finally:
        with contextlib.suppress(Exception):
            stoppable.start()


def test_service_stops_while_its_database_is_down() -> None:
    """
    SIGTERM ends the service at once though the database never came up.
    """
    url = f"postgresql://dcm@127.0.0.1:{free_port()}/postgres"
    with service("--database-url", url, wait="database down") as running:
        assert running.stop(signal.SIGTERM) == 0


class Link:
    """
    A TCP proxy in front of a database, which can go dead without a word.

    @ivar port: where it listens.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._dead = threading.Event()
        self._sockets: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def die(self) -> None:
        """
        Forward nothing more on the connections that there are, nor on new ones, and close none.
        """
        self._dead.set()

    def revive(self) -> None:
        """
        Forward what comes on new connections; the old ones stay dead.
        """
        self._dead = threading.Event()

    def close(self) -> None:
        self._server.close()
        for end in self._sockets:
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._sockets += near, far
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=(one, other, self._dead), daemon=True).start()

    def _forward(self, one: socket.socket, other: socket.socket, dead: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                if dead.is_set():
                    return
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


def test_dead_connection_that_does_not_say_so(database: PostgresServer) -> None:
    """
    A network that swallows everything and closes nothing is noticed within 30 seconds, and recovered from.
    """
    link = Link(database.port)
    try:
        url = f"postgresql://dcm@127.0.0.1:{link.port}/postgres"
        with service("--database-url", url) as running:
            client = running.connect()
            assert_bridges(database, client)
            link.die()
            hear_state(client, "down")
            assert running.health()["status"] == "degraded"
            link.revive()
            hear_state(client, "up")
            assert_bridges(database, client)
            assert running.stop(signal.SIGTERM) == 0
            assert "no answer within 3 s" in running.log
    finally:
        link.close()


@contextlib.contextmanager
def other_database(server: PostgresServer, name: str, options: str) -> Iterator[PostgresServer]:
    """
    One more database on the server.
    """
    server.execute(f"create database {name} {options}")
    other = copy.copy(server)
    other.url = server.url.replace("/postgres", f"/{name}")
    try:
        yield other
    finally:
        server.execute(f"drop database {name} with (force)")


def test_database_that_sends_what_is_not_utf8(database: PostgresServer) -> None:
    """
    From a database of encoding SQL_ASCII, UTF-8 comes through, and a payload that is not UTF-8 is counted as bad.
    """
    options = "template template0 encoding 'SQL_ASCII' locale 'C'"
    with (
        other_database(database, "raw", options) as raw,
        service("--database-url", raw.url) as running,
    ):
        client = running.connect()
        for payload in (b'{"channel":"global","event":"a.b","data":"\xff\xfe"}', b"\xc3(", b'{"event":"\xe9.b"}'):
            raw.execute("select pg_notify('dcm_events', convert_from(%s, 'SQL_ASCII'))", payload)
        text = json.dumps(GOOD | {"data": "žluťoučký 🐎"}, ensure_ascii=False).encode()
        raw.execute("select pg_notify('dcm_events', convert_from(%s, 'SQL_ASCII'))", text)
        assert hear(client)["data"] == "žluťoučký 🐎"
        assert bad_notifications(running) == 3
        assert running.health()["status"] == "healthy"
        assert running.stop(signal.SIGTERM) == 0
        assert "database down" not in running.log


def test_database_of_another_encoding(database: PostgresServer) -> None:
    """
    What a database of encoding LATIN1 sends arrives as the same characters.
    """
    options = "template template0 encoding 'LATIN1' locale 'C'"
    with (
        other_database(database, "latin", options) as latin,
        service("--database-url", latin.url) as running,
    ):
        client = running.connect()
        latin.notify('{"channel":"global","event":"a.b","data":"Ærøskøbing"}')
        assert hear(client)["data"] == "Ærøskøbing"


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "nonsense"])
def test_encoding_in_the_url(database: PostgresServer, encoding: str) -> None:
    """
    An encoding in the URL does not count: PostgreSQL would end the connection at the first character that it lacks.
    """
    with service("--database-url", f"{database.url}?client_encoding={encoding}") as running:
        client = running.connect()
        database.notify(json.dumps(GOOD | {"data": "žluťoučký 🐎"}, ensure_ascii=False))
        assert hear(client)["data"] == "žluťoučký 🐎"


def test_host_with_more_than_one_address(database: PostgresServer) -> None:
    """
    The database is found by a host name of which it answers on one address only.
    """
    url = database.url.replace("127.0.0.1", "localhost")
    with service("--database-url", url) as running:
        client = running.connect()
        assert_bridges(database, client)


def test_host_list(database: PostgresServer) -> None:
    """
    Of several hosts in the URL the one that answers is used.
    """
    url = f"postgresql://dcm@localhost:{free_port()},localhost:{database.port}/postgres"
    with service("--database-url", url) as running:
        client = running.connect()
        assert_bridges(database, client)


def test_unknown_host_is_retried(database: PostgresServer) -> None:
    """
    A host that cannot be found is a database that is down, and said in one line.
    """
    with service("--database-url", "postgresql://dcm@no-such-host.invalid/x", wait="database down") as running:
        assert running.health()["status"] == "degraded"
        assert running.stop(signal.SIGTERM) == 0
        assert "cannot find the database's host" in running.log


def test_settings_of_the_replaced_server(database: PostgresServer) -> None:
    """
    DB_USER, DB_PASSWORD and DB_PORT are enough to reach the database claude_context on this machine; it is not
    replaced by an embedded one. What disagrees with DATABASE_URL is logged once, without a password.
    """
    with other_database(database, "claude_context", "") as context:
        env = {"DB_USER": "dcm", "DB_PASSWORD": "sesame", "DB_PORT": str(database.port)}
        with service(env=env) as running:
            client = running.connect()
            assert_bridges(context, client)
            assert "embedded" not in running.log
            assert " warn " not in running.log
        url = context.url.replace("dcm@", "dcm:other-sesame@")
        with service(env=env | {"DATABASE_URL": url, "DB_NAME": "elsewhere"}) as running:
            client = running.connect()
            assert_bridges(context, client)
            assert running.log.count("are ignored: DATABASE_URL (host=127.0.0.1") == 1
            assert "DB_NAME=elsewhere and DB_PASSWORD are ignored" in running.log
            assert "sesame" not in running.log


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://dcm:sesame-37@127.0.0.1:{port}/no_such_database",
        "postgresql://no_such_role:sesame-37@127.0.0.1:{port}/postgres",
        "postgresql://dcm:sesame-37@127.0.0.1:{free}/postgres",
        "host=127.0.0.1 port={port} user=dcm password=sesame-37 dbname=no_such_database",
        "postgresql://dcm:sesame-37@no-such-host.invalid/x",
    ],
)
def test_password_is_never_logged(database: PostgresServer, url: str) -> None:
    """
    Whatever is wrong with the database, and however much is logged, the log has no password in it.
    """
    where = url.format(port=database.port, free=free_port())
    with service(env={"DATABASE_URL": where, "LOG_LEVEL": "debug"}, wait="database down") as running:
        assert "sesame" not in running.get("/health")[2].decode()
        assert "sesame" not in running.get("/stats")[2].decode()
        assert running.stop(signal.SIGTERM) == 0
        assert "sesame" not in running.log


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://dcm:sesame/37@127.0.0.1/x",
        "postgresql://dcm:sesame%zz@127.0.0.1/x",
        "postgresql://dcm:5@sesame@127.0.0.1:1/x",
        "postgresql://127.0.0.1:sesame/37@127.0.0.1/x",
        "mysql://dcm:sesame@127.0.0.1/x",
    ],
)
def test_password_that_spoils_the_url_is_not_shown(url: str) -> None:
    """
    A URL that is none because of a character in its password is refused, or not reached, without showing that.
    """
    try:
        with service(env={"DATABASE_URL": url}, wait="database down") as running:
            running.stop()
            log = running.log
    except AssertionError as ended:
        log = str(ended)
    assert "dcm_ws" in log or "dcm-ws: " in log
    assert "sesame" not in log


def test_bridge_works_in_the_right_order_after_a_reconnect(stoppable: PostgresServer) -> None:
    """
    What was sent before and what is sent after a lost connection keeps its order.
    """
    with service("--database-url", stoppable.url) as running:
        client = running.connect()
        stoppable.notify(*(event(event="row.sent", data=n) for n in range(100)))
        until(lambda: running.health()["database"]["notifications"] == 100)
        stoppable.kill_backends()
        assert [hear(client)["data"] for _ in range(100)] == list(range(100))
        hear_state(client, "down")
        hear_state(client, "up")
        stoppable.notify(*(event(event="row.sent", data=n) for n in range(100, 200)))
        assert [hear(client)["data"] for _ in range(100)] == list(range(100, 200))
