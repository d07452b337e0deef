"""
Every limit of /stats crossed once, by its option: the client receives the error of the protocol, and the counter goes
up.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from http.client import HTTPConnection
from typing import Any

import psycopg2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from tests.integration.attacks import Attacker, frame, narrow, push, read_to_the_end, resident, status
from tests.integration.clients import (
    answer_to,
    ask,
    ask_past_events,
    close_of,
    handshake,
    hear,
    say,
    silence,
    unsubscribe_global,
)
from tests.integration.databases import PostgresServer
from tests.integration.machine import PATIENCE, until
from tests.integration.running import Service, production_service, report, service, unread_service
from tests.integration.tokens import make_token

pytestmark = pytest.mark.integration


def count(running: Service, limit: str) -> int:
    """
    How often a limit was crossed, as /stats says.
    """
    limits: dict[str, int] = running.stats()["limits"]
    return limits[limit]


def connect_deaf(running: Service) -> ClientConnection:
    """
    A client that hears no events.
    """
    client = running.connect()
    unsubscribe_global(client)
    return client


def publish(client: ClientConnection, event: str, data: object = None, channel: str = "global") -> None:
    """
    Publish, and wait until it is done.
    """
    ask_past_events(client, type="publish", channel=channel, event=event, data=data, id="published")


def test_max_log_waiting(schema: PostgresServer) -> None:
    """
    While the log cannot be written, so many publishes wait, and one more is refused at once; all others after a second.
    """
    with service("--database-url", schema.url, "--max-log-waiting", "5") as running:
        client = running.connect()
        with contextlib.closing(psycopg2.connect(schema.url)) as connection, connection.cursor() as cursor:
            cursor.execute("lock table dcm_ws.log in exclusive mode")
            # the first one is being written, and does not wait any more; its second is over first
            say(client, type="publish", channel="topics/a", event="task.created", id=0)
            silence(client)
            until(lambda: running.stats()["log"]["waiting"] == 0)
            for number in range(1, 8):
                say(client, type="publish", channel="topics/a", event="task.created", id=number)
            answers = [hear(client) for _ in range(8)]
        assert [answer["code"] for answer in answers] == ["NOT_AVAILABLE"] * 8
        assert [answer["id"] for answer in answers if answer["id"] != 0][:2] == [6, 7]
        assert running.stats()["limits"]["maxLogWaiting"] == 2


def test_all_limits_are_known() -> None:
    """
    /stats names every limit, and none has been crossed when the service has just begun.
    """
    with service() as running:
        limits = running.stats()["limits"]
    crossed_here = {name for name in globals() if name.startswith("test_")}
    assert set(limits.values()) == {0}
    # clients cannot cross it
    crossed_elsewhere = {
        "test_early_acks",
        "test_log_buffer",
        "test_max_bus_waiting",
        "test_max_revoked",
        "test_ledger_max_bytes",
    }
    # tests/integration/test_web_tokens.py
    crossed_elsewhere |= {"test_token_keys_time", "test_max_token_keys_size", "test_max_token_keys"}
    crossed_elsewhere |= {"test_max_token_key_waiting", "test_token_key_fetches"}
    # tests/http/test_mcp.py
    crossed_elsewhere |= {"test_max_mcp_sessions", "test_max_mcp_per_agent", "test_max_mcp_calls"}
    crossed_elsewhere |= {"test_max_mcp_waiting", "test_mcp_idle"}
    assert {f"test_{_snake(name)}" for name in limits} <= crossed_here | crossed_elsewhere


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


# connecting


def test_max_ignored() -> None:
    """
    A client that goes on sending after its request for an event stream is dropped, and does not keep the service busy.
    """
    with service() as running, running.socket() as chatty:
        chatty.sendall(b"GET /v1/streams/topics/a?offset=now&live=sse HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: running.stats()["connectedClients"] == 1)
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                chatty.sendall(bytes(1 << 16))
        until(lambda: running.stats()["connectedClients"] == 0)
        assert count(running, "maxIgnored") == 1


def test_max_batch_events() -> None:
    """
    An HTTP request may publish a thousand events; with one more, none of them is published.
    """
    with service() as running:
        event = {"channel": "topics/a", "event": "session.created"}
        assert post(running, [event] * 1000) == 200
        assert post(running, [event] * 1001) == 413
        assert count(running, "maxBatchEvents") == 1
        assert running.stats()["log"]["head"] == 1000


def test_max_batch_size() -> None:
    """
    The body of a request may be as long as the limit; if it is longer, nothing is published.
    """
    with service("--max-batch-size", "2000", "--max-message-size", "2000") as running:
        event = {"channel": "topics/a", "event": "session.created", "data": "x" * 500}
        assert post(running, [event] * 3) == 200
        assert post(running, [event] * 4) == 413
        assert count(running, "maxBatchSize") == 1
        assert running.stats()["log"]["head"] == 3


def post(running: Service, events: object) -> int:
    """
    The status of a request that publishes.
    """
    connection = HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/publish", json.dumps(events))
        return connection.getresponse().status


def test_max_ledger() -> None:
    """
    If the ledger is full, its oldest part is forgotten.
    """
    with service("--max-ledger", "1000") as running:
        client = running.connect()
        ask_past_events(client, type="auth", agent_id="ann", id="in")
        ask_past_events(client, type="subscribe", channel="topics/a", id="on")
        event = {"channel": "topics/a", "event": "session.created"}

        def is_full() -> bool:
            assert post(running, [event] * 100) == 200
            return count(running, "maxLedger") > 0

        until(is_full)


def test_max_connections() -> None:
    """
    One client too many is closed with 1013 after its handshake; when another has left there is room again.
    """
    with service("--max-connections", "2") as running:
        first, _ = running.connect(), running.connect()
        over = Attacker(running.socket())
        assert over.close_code() == 1013
        assert count(running, "maxConnections") == 1
        first.close()
        until(lambda: running.stats()["connectedClients"] == 1)
        silence(connect_deaf(running))
        assert count(running, "maxConnections") == 1


def test_max_connections_per_ip() -> None:
    """
    One connection too many from one address is refused with 503; other addresses still may.
    """
    options = ("--max-connections-per-ip", "2", "--trusted-proxy", "127.0.0.1")
    with service(*options) as running:
        clients = [running.connect(), running.connect()]
        with pytest.raises(InvalidStatus) as refused:
            running.connect()
        response = refused.value.response
        assert (response.status_code, json.loads(response.body)["code"]) == (503, "TOO_MANY_CONNECTIONS")
        assert count(running, "maxConnectionsPerIp") == 1
        running.connect(additional_headers={"X-Forwarded-For": "192.0.2.1"})
        clients[0].close()
        until(lambda: running.stats()["connectedClients"] == 2)
        running.connect()
        assert count(running, "maxConnectionsPerIp") == 1


def test_max_connections_per_ip_through_haproxy() -> None:
    """
    Behind a proxy that speaks the PROXY protocol the limit holds for the clients' addresses, not for the proxy's.
    """
    with service("--max-connections-per-ip", "1", "--listen", "haproxy:tcp:0:interface=127.0.0.1") as running:

        def connect_from(address: str) -> int:
            plain = running.socket()
            push(plain, f"PROXY TCP4 {address} 127.0.0.1 50000 80\r\n".encode() + handshake())
            return status(plain.recv(1 << 16))

        assert [connect_from(f"192.0.2.{n}") for n in (1, 2, 1)] == [101, 101, 503]
        plain = running.socket()
        push(
            plain,
            b"PROXY TCP4 192.0.2.9 127.0.0.1 50000 80\r\nGET /stats HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        stats = json.loads(read_to_the_end(plain).partition(b"\r\n\r\n")[2])
        assert stats["limits"]["maxConnectionsPerIp"] == 1
        running.read_log_until("joined from 192.0.2.2")


def test_allowed_origin() -> None:
    """
    A page of an origin that is not allowed gets 403; one that fits a pattern, and a program, may connect.
    """
    with service("--allowed-origin", "https://*.example.com", "--allowed-origin", "http://[::1]:3000") as running:
        for origin in ("https://evil.com", "https://example.com", "http://a.example.com", "http://[::2]:3000"):
            with pytest.raises(InvalidStatus) as refused:
                running.connect(origin=origin)
            response = refused.value.response
            assert (response.status_code, json.loads(response.body)["code"]) == (403, "ORIGIN_NOT_ALLOWED")
        assert count(running, "allowedOrigin") == 4
        for allowed in ("https://a.example.com", "https://a.b.example.com", "http://[::1]:3000", None):
            running.connect(origin=allowed)
        assert count(running, "allowedOrigin") == 4


def connects(running: Service, origin: str, host: str, *headers: str) -> bool:
    """
    Whether a page of C{origin} may connect to C{host}.
    """
    plain = running.socket()
    request = handshake("/", f"Origin: {origin}", *headers).replace(b"Host: 127.0.0.1", f"Host: {host}".encode())
    push(plain, request)
    answered = status(plain.recv(1 << 16))
    assert answered in (101, 403)
    return answered == 101


def test_same_host_next_to_allowed_origins() -> None:
    """
    Pages of the service's own host may connect whatever other origins are allowed, unless --no-same-host is given.
    """
    with service("--allowed-origin", "https://a.example") as running:
        assert connects(running, "https://a.example", "dcm.example")
        assert connects(running, "https://dcm.example", "dcm.example")
        assert not connects(running, "https://b.example", "dcm.example")
    with service("--allowed-origin", "https://a.example", "--no-same-host") as running:
        assert connects(running, "https://a.example", "dcm.example")
        assert not connects(running, "https://dcm.example", "dcm.example")


def test_same_host_in_production(database: PostgresServer) -> None:
    """
    In production pages of the same host may connect, also behind a proxy; a name that somebody pointed at this machine
    is not the same host.  What was compared is logged once a minute.
    """
    with production_service(database.url, "--trusted-proxy", "127.0.0.1") as running:
        own = running.port
        for origin, host in (
            (f"http://127.0.0.1:{own}", f"127.0.0.1:{own}"),
            (f"http://localhost:{own}", f"LOCALHOST:{own}"),
            ("https://dcm.example", "dcm.example"),
            ("https://dcm.example", "dcm.example.:443"),
            ("https://dcm.example:8443", "dcm.example"),
        ):
            assert connects(running, origin, host), (origin, host)
        forwarded = ("X-Forwarded-Host: dcm.example:8443", "X-Forwarded-Proto: https")
        assert connects(running, "https://dcm.example:8443", f"127.0.0.1:{own}", *forwarded)
        assert count(running, "allowedOrigin") == 0
        assert not connects(running, f"http://evil.example:{own}", f"evil.example:{own}")
        running.read_log_until(
            f"its Origin 'http://evil.example:{own}' is not allowed, and is not the Host 'evil.example:"
        )
        assert not connects(running, "http://b.example", "a.example")
        assert count(running, "allowedOrigin") == 2
        assert running.log.count("may not connect") == 1


def test_server_name(database: PostgresServer) -> None:
    """
    With names of its own, the service takes pages of the same host under these names only.
    """
    names = ("--server-name", "dcm.example", "--server-name", "*.dcm.example")
    with production_service(database.url, *names) as running:
        for host in ("dcm.example", "a.dcm.example", f"dcm.example:{running.port}", "127.0.0.1", "localhost:3000"):
            assert connects(running, f"http://{host}", host), host
        for host in ("evil.example", f"evil.example:{running.port}"):
            assert not connects(running, f"http://{host}", host), host


def test_handshake_timeout() -> None:
    """
    A connection that has not sent its request in time, here longer than the default of 5 s, gets 408.
    """
    with service("--handshake-timeout", "5.5") as running:
        plain = running.socket()
        push(plain, handshake()[:-1])
        started = time.monotonic()
        assert status(read_to_the_end(plain)) == 408
        assert time.monotonic() - started > 5.4
        assert count(running, "handshakeTimeout") == 1


def test_max_head_size() -> None:
    """
    A request head over the limit gets 431; one of exactly the limit is read.
    """
    with service("--max-head-size", "1000") as running:
        request = handshake("/", "X: ")
        # the blank line at the end is not counted
        fill = b"x" * (1000 - len(request) + 4)
        plain = running.socket()
        push(plain, request.replace(b"X: ", b"X: " + fill))
        assert status(plain.recv(1 << 16)) == 101
        assert status(b"" + _answer(running, request.replace(b"X: ", b"X: x" + fill))) == 431
        assert count(running, "maxHeadSize") == 1


def _answer(running: Service, request: bytes) -> bytes:
    plain = running.socket()
    push(plain, request)
    return read_to_the_end(plain)


def test_max_waiting() -> None:
    """
    Where too many connections are there that have sent no request, the oldest of them makes room.
    """
    with service("--max-connections", "2") as running:
        silent = [running.socket() for _ in range(2)]
        until(lambda: count(running, "maxWaiting") != 0)
        assert read_to_the_end(silent[0]) == b""
        client = running.connect()
        assert ask(client, type="ping")["type"] == "pong"


def ask_http(running: Service, more: bytes = b"", host: str = "x") -> tuple[socket.socket, bytes]:
    """
    An HTTP connection, and what is answered at once.
    """
    plain = running.socket()
    push(plain, f"GET /livez HTTP/1.1\r\nHost: {host}\r\n".encode() + more + b"\r\n")
    return plain, plain.recv(1 << 16)


def test_max_http_connections() -> None:
    """
    One HTTP connection too many gets 503, and WebSockets still connect; and the other way round.
    """
    with service("--max-http-connections", "3", "--max-connections", "2") as running:
        kept = [ask_http(running) for _ in range(2)]
        client = running.connect()
        third, answer = ask_http(running)
        assert [status(answer) for _, answer in (*kept, (third, answer))] == [200] * 3
        _, answer = ask_http(running)
        assert status(answer) == 503 and b"TOO_MANY_CONNECTIONS" in answer
        running.connect()
        assert Attacker(running.socket()).close_code() == 1013
        third.close()
        until(lambda: status(ask_http(running, b"Connection: close\r\n")[1]) == 200)
        assert count(running, "maxHttpConnections") >= 1
        assert running.stats()["connections"]["http"] == 3
        assert ask(client, type="ping")["type"] == "pong"


def test_max_http_per_ip() -> None:
    """
    One HTTP connection too many from one address gets 503, whatever it waits for; other addresses are served.
    """
    options = ("--max-http-per-ip", "2", "--trusted-proxy", "127.0.0.1")
    with service(*options) as running:
        slow = running.socket()
        push(slow, b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        _, answer = ask_http(running)
        assert status(answer) == 200
        until(lambda: status(ask_http(running)[1]) == 503)
        _, answer = ask_http(running, b"X-Forwarded-For: 192.0.2.1\r\n")
        assert status(answer) == 200
        slow.close()
        until(lambda: status(ask_http(running, b"Connection: close\r\n")[1]) == 200)
        assert count(running, "maxHttpPerIp") >= 1


def test_http_follows_the_limit_of_connections_per_ip() -> None:
    """
    Who limits the connections of an address limits its HTTP connections and those that say nothing, too.
    """
    with service("--max-connections-per-ip", "4", "--admin-listen", "tcp:0:interface=127.0.0.1") as running:
        silent = [running.socket() for _ in range(6)]
        ended = [plain for plain in silent if not _stays(plain)]
        assert len(ended) == 2
        for plain in silent:
            plain.close()
        answers: list[bytes] = []

        def asked() -> bool:
            answers.append(ask_http(running)[1])
            return len(answers) == 8

        until(asked)
        assert sorted(map(status, answers)) == [200] * 4 + [503] * 4


def _stays(plain: socket.socket) -> bool:
    plain.settimeout(0.5)
    try:
        return bool(plain.recv(1))
    except TimeoutError:
        return True


def test_http_timeout() -> None:
    """
    A request whose body comes byte by byte has no more time than others, all in all.
    """
    with service("--http-timeout", "0.5") as running:
        plain = running.socket()
        push(plain, b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        sent = 0
        while push(plain, b"x") and sent < 1000:
            sent += 1
            time.sleep(0.02)
        assert sent < 1000
        assert count(running, "httpTimeout") == 1
        # the head of a second request
        plain, head = ask_http(running)
        assert status(head) == 200
        push(plain, b"GET /health HTTP/1.1\r\n")
        assert read_to_the_end(plain) == b""
        until(lambda: count(running, "httpTimeout") == 2)


# messages


def test_max_message_size() -> None:
    """
    A message over the limit closes with 1009, one of exactly the limit is read; so it is for fragments together.
    """
    with service("--max-message-size", "1000") as running:
        client = running.connect()
        text = '{"type":"ping"' + " " * 985 + "}"
        client.send(text)
        assert hear(client)["type"] == "pong"
        client.send(text + " ")
        assert close_of(client) == (1009, "Message too large")
        assert count(running, "maxMessageSize") == 1
        pieces = running.connect_raw()
        push(pieces.socket, frame(b"x" * 600, 1, final=False) + frame(b"x" * 401, 0))
        assert pieces.close_code() == 1009
        assert count(running, "maxMessageSize") == 2


def test_max_message_size_inflated() -> None:
    """
    With compression the limit holds for what a message inflates to.
    """
    with service("--max-message-size", "1000", "--compression", "on") as running:
        client = running.connect()
        client.send('{"type":"ping"' + " " * 985 + "}")
        assert hear(client)["type"] == "pong"
        client.send('{"type":"ping"' + " " * 100_000 + "}")
        assert close_of(client) == (1009, "Message too large")
        assert count(running, "maxMessageSize") == 1


def test_max_depth() -> None:
    """
    Data nested too deeply is refused with C{INVALID_MESSAGE}, and the connection stays.
    """
    with service("--max-depth", "3") as running:
        client = connect_deaf(running)
        publish(client, "system.info", [[{"a": "[[[["}]])
        answer = ask(client, type="publish", channel="global", event="system.info", data=[[{"a": []}]], id=1)
        assert (answer["success"], answer["code"]) == (False, "INVALID_MESSAGE")
        assert "3 levels" in answer["error"]
        assert count(running, "maxDepth") == 1


def test_max_subscriptions() -> None:
    """
    One subscription too many is refused; what is subscribed already is not one more; also what is restored is limited.
    """
    with service("--max-subscriptions", "3") as running:
        client = running.connect()
        for channel in ("topics/a", "topics/b", "topics/a"):
            assert ask(client, type="subscribe", channel=channel, id=1)["success"] is True
        answer = ask(client, type="subscribe", channel="topics/c", id=1)
        assert (answer["success"], answer["code"]) == (False, "TOO_MANY_SUBSCRIPTIONS")
        assert count(running, "maxSubscriptions") == 1


def test_rate_limit() -> None:
    """
    Over the rate limit a message is refused with C{RATE_LIMITED}, and says when to try again; then it succeeds.
    """
    with service("--rate-limit", "60/m", "--rate-burst", "3") as running:
        client = running.connect()
        for number in range(3):
            assert ask(client, type="subscribe", channel="metrics", id=number)["success"] is True
        answer = ask(client, type="subscribe", channel="metrics", id=3)
        assert (answer["success"], answer["code"]) == (False, "RATE_LIMITED")
        assert 0 < answer["retry_after_ms"] <= 1000
        assert count(running, "rateLimit") == 1
        # pongs, and acks of what is owed, are not counted
        for _ in range(100):
            say(client, type="pong")
        due = time.monotonic() + answer["retry_after_ms"] / 1000
        until(lambda: time.monotonic() >= due)
        assert ask(client, type="subscribe", channel="metrics", id=4)["success"] is True
        assert (count(running, "rateLimit"), count(running, "rateLimitTenfold")) == (1, 0)


def test_settling_acks_are_free() -> None:
    """
    Acks that settle a delivery do not count against the rate limit; acks of anything else do.
    """
    with service("--rate-limit", "60/m", "--rate-burst", "5") as running:
        client = running.connect()
        publishers = [connect_deaf(running) for _ in range(5)]
        for publisher in publishers:
            for _ in range(4):
                say(publisher, type="publish", channel="global", event="task.created")
        for _ in range(20):
            say(client, type="ack", message_id=hear(client)["id"])
        silence(client)
        assert count(running, "rateLimit") == 0
        assert running.stats()["deliveries"]["acked"] == 20
        for _ in range(5):
            say(client, type="ack", message_id="msg_never_sent")
        assert hear(client)["code"] == "RATE_LIMITED"
        assert count(running, "rateLimit") == 1


def test_rate_limit_tenfold() -> None:
    """
    Who sends ten times what the rate limit allows is closed with 4029.
    """
    with service("--rate-limit", "1/m", "--rate-burst", "4") as running:
        client = running.connect()
        codes: list[Any] = []
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                codes.append(ask(client, type="subscribe", channel="metrics", id=1).get("code"))
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4029
        # what the time that this took allows comes on top
        assert codes[:4] == [None] * 4 and set(codes[4:]) == {"RATE_LIMITED"} and 35 <= len(codes) - 4 <= 37
        assert (count(running, "rateLimit"), count(running, "rateLimitTenfold")) == (len(codes) - 4 + 1, 1)


def test_rate_limit_is_an_agents() -> None:
    """
    All connections of an agent share what it may send, and a new one has no more; other agents are not touched.
    """
    with service("--rate-limit", "6/m", "--rate-burst", "5") as running:
        anns = [running.connect(max_queue=None) for _ in range(20)]
        for ann in anns:
            ask_past_events(ann, type="auth", agent_id="ann", id="in")
        bob = running.connect(max_queue=None)
        ask_past_events(bob, type="auth", agent_id="bob", id="in")
        for ann in anns:
            say(ann, type="subscribe", channel="metrics", id="asked")
            answer_to(ann, "asked")
        assert count(running, "rateLimit") == 15
        ask_past_events(bob, type="subscribe", channel="metrics", id="asked")


def test_pongs_are_limited() -> None:
    """
    Pongs that nobody asked for are charged like other messages, and so are Pings and Pongs of the WebSocket itself.
    """
    for flood in (frame(b'{"type":"pong"}'), frame(b"", 9), frame(b"", 10)):
        with service("--rate-limit", "50/s") as running:
            flooder = running.connect_raw()
            for _ in range(20):
                push(flooder.socket, flood * 100)
            assert flooder.close_code() == 4029
            assert count(running, "rateLimitTenfold") == 1


def test_rate_bytes() -> None:
    """
    Over the limit of bytes a message is refused with C{RATE_LIMITED}, and says when to try again; fragments of a
    message that never ends count, too.
    """
    with service("--rate-bytes", "20000") as running:
        client = connect_deaf(running)
        big = {"type": "subscribe", "channel": "metrics", "fill": "x" * 25_000}
        assert ask(client, **big, id=1)["success"] is True
        answer = ask(client, **big, id=2)
        assert (answer["id"], answer["success"], answer["code"]) == (2, False, "RATE_LIMITED")
        assert 0 < answer["retry_after_ms"] < 1000
        assert count(running, "rateBytes") == 1
        time.sleep(answer["retry_after_ms"] / 1000)
        assert ask(client, type="ping")["type"] == "pong"
        endless = running.connect_raw()
        push(endless.socket, frame(b"", final=False))
        for _ in range(20):
            push(endless.socket, frame(b"", 0, final=False) * 100)
        assert endless.close_code() == 4029
        assert count(running, "rateLimitTenfold") == 1


def test_stranger_rate(database: PostgresServer) -> None:
    """
    In production a client may send few messages before it authenticates, and more after.
    """
    with production_service(database.url, "--stranger-rate", "1/m") as running:
        client = running.connect()
        assert [ask(client, type="ping").get("code") for _ in range(2)] == [None, "RATE_LIMITED"]
        assert count(running, "strangerRate") == 1
        other = running.connect()
        assert ask(other, type="auth", token=make_token("ann"), id=1)["success"] is True
        for number in range(20):
            ask_past_events(other, type="subscribe", channel=f"topics/{number}", id=number)
        assert (count(running, "strangerRate"), count(running, "rateLimit")) == (1, 0)


def test_max_stranger_message(database: PostgresServer) -> None:
    """
    In production a client may send short messages only before it authenticates, and longer ones after.
    """
    with production_service(database.url, "--max-stranger-message", "1000") as running:
        for data in (
            frame(b"x" * 1001),
            frame(b"x", length=1001),
            frame(b"x" * 600, final=False) + frame(b"x" * 401, 0),
        ):
            stranger = running.connect_raw()
            push(stranger.socket, data)
            assert stranger.close_code() == 1009
        assert (count(running, "maxStrangerMessage"), count(running, "maxMessageSize")) == (3, 0)
        client = running.connect()
        token = make_token("ann")
        assert ask(client, type="auth", token=token, fill="x" * (900 - len(token)), id=1)["success"] is True
        for size in (2000, 100_000):
            ask_past_events(client, type="subscribe", channel="metrics", fill="x" * size, id="long")
        told = running.connect(f"/?token={token}")
        ask_past_events(told, type="subscribe", channel="metrics", fill="x" * 2000, id="long")


@pytest.mark.parametrize("more", ["fragments", "frame"])
def test_max_partial_bytes(database: PostgresServer, more: str) -> None:
    """
    Incomplete messages of strangers have little room, together: the one with most is closed with 1009; agents have more
    of it, and what is complete or gone counts no more.
    """
    part = frame(b"x" * 40_000, final=False) if more == "fragments" else frame(b"x" * 40_000, length=50_000)
    with production_service(database.url, "--max-partial-bytes", "800000") as running:
        strangers = [running.connect_raw() for _ in range(3)]
        push(strangers[0].socket, part)
        until(lambda: running.stats()["partialBytes"] >= 40_000)
        push(strangers[1].socket, part)
        until(lambda: running.stats()["partialBytes"] >= 80_000)
        push(strangers[2].socket, part)
        assert strangers[0].close_code() == 1009
        assert count(running, "maxPartialBytes") == 1
        agents = []
        for number in range(5):
            agent = running.connect_raw(f"/?token={make_token(f'agent-{number}')}")
            push(agent.socket, frame(b"x" * 150_000, final=False))
            agents.append(agent)
            until(lambda most=150_000 * (number + 1): running.stats()["partialBytes"] >= min(most, 600_000))
        assert agents[0].close_code() == 1009
        assert count(running, "maxPartialBytes") == 2
        for client in (*strangers, *agents):
            client.socket.close()
        until(lambda: running.stats()["partialBytes"] == 0)


# reading


def test_max_send_buffer(database: PostgresServer) -> None:
    """
    Who lets more wait than the limit is closed with 4008; its tracked deliveries are there when it comes back.
    """
    with service("--max-send-buffer", "1000000", "--ack-timeout", "60") as running:
        slow = Attacker(narrow(running), path="/")
        push(slow.socket, frame(b'{"type":"auth","agent_id":"slow","id":"in"}'))
        while slow.hear().get("id") != "in":
            pass
        publisher = connect_deaf(running)
        published = 0
        while not count(running, "maxSendBuffer"):
            publish(publisher, "task.created", {"n": published, "fill": "x" * 20_000}, "agents/slow")
            published += 1
            assert published < 10_000
        assert running.stats()["closes"] == {"4008": 1}
        until(lambda: running.stats()["pendingDeliveries"] == 0)
        back = running.connect(max_queue=None)
        say(back, type="auth", agent_id="slow")
        heard: set[int] = set()
        while len(heard) < published:
            event = hear(back)
            if event.get("event") == "task.created":
                heard.add(event["data"]["n"])
                say(back, type="ack", message_id=event["id"])
        assert heard == set(range(published))
        assert count(running, "maxSendBuffer") == 1


def test_shed() -> None:
    """
    Above a quarter of the send buffer a client gets no metrics and no heartbeats; when it has caught up, the latest of
    each, and nothing else is lost.
    """
    with service("--max-send-buffer", "8000000") as running:
        slow = Attacker(running.socket())
        slow.hear()
        publisher = connect_deaf(running)
        sent = 0
        for sent in range(1, 1000):
            publish(publisher, "system.info", {"n": sent, "fill": "x" * 50_000})
            publish(publisher, "metric.update", sent)
            publish(publisher, "agent.heartbeat", {"agent_id": f"agent-{sent % 3}", "n": sent})
            if count(running, "shed") >= 20:
                break
        assert running.stats()["closes"] == {}
        infos: list[int] = []
        metrics: list[int] = []
        beats: list[int] = []
        while len(infos) < sent or metrics[-1:] != [sent] or len({n % 3 for n in beats if n > sent - 3}) < 3:
            event = slow.hear()
            match event.get("event"):
                case "system.info":
                    infos.append(event["data"]["n"])
                case "metric.update":
                    metrics.append(event["data"])
                case "agent.heartbeat":
                    beats.append(event["data"]["n"])
        assert infos == list(range(1, sent + 1))
        assert metrics == sorted(set(metrics)) and len(metrics) < sent
        # of each metric and each agent one, the latest, was kept
        shed = 2 * sent - len(metrics) - len(beats)
        assert shed == count(running, "shed") - 4


def test_latest_dropped() -> None:
    """
    Heartbeats that wait for a client take no more memory than its send buffer, however many agents they are of.
    """
    with service() as running:
        slow = Attacker(running.socket())
        publisher = connect_deaf(running)
        before = resident(running)
        for number in range(50):
            publish(publisher, "agent.heartbeat", {"agent_id": f"agent-{number}", "fill": "x" * 1_000_000})
        assert count(running, "latestDropped") > 40
        assert resident(running) - before < 30 << 20
        assert running.stats()["closes"] == {}
        while (event := slow.hear()).get("data", {}).get("agent_id") != "agent-49":
            pass
        assert event["event"] == "agent.heartbeat"


def test_latest_event_option() -> None:
    """
    Of events that C{--latest-event} names, a client that is behind gets the last one for each value of the field.
    """
    options = ("--latest-event", "capacity.*:project_id", "--extra-event", "capacity.update")
    with service(*options, "--max-send-buffer", "2000000") as running:
        slow = Attacker(running.socket())
        publisher = connect_deaf(running)
        for number in range(150):
            publish(publisher, "capacity.update", {"project_id": number % 3, "n": number, "fill": "x" * 20_000})
        assert running.stats()["closes"] == {}
        assert count(running, "shed") > 0
        heard: list[int] = []
        while len({n for n in heard if n >= 147}) < 3:
            event = slow.hear()
            if event.get("event") == "capacity.update":
                heard.append(event["data"]["n"])
        assert len(heard) < 150


def test_heartbeat_timeout() -> None:
    """
    A client that is silent for too long is closed with 4000.
    """
    with service("--heartbeat-timeout", "0.5") as running:
        assert Attacker(running.socket()).close_code() == 4000
        assert count(running, "heartbeatTimeout") == 1


def test_auth_timeout(database: PostgresServer) -> None:
    """
    In production a client that does not authenticate in time is closed with 4001.
    """
    with production_service(database.url, "--auth-timeout", "0.3") as running:
        good = running.connect(f"/?token={make_token('ann')}")
        assert close_of(running.connect())[0] == 4001
        assert hear(good)["success"] is True
        assert count(running, "authTimeout") == 1


# acknowledging


def test_max_pending() -> None:
    """
    To a client that owes as many acks as it may, further events are sent when it owes fewer.
    """
    with service("--max-pending", "3", "--ack-timeout", "0.5", "--retry-interval", "0.1") as running:
        client, publisher = running.connect(), connect_deaf(running)
        for number in range(5):
            publish(publisher, "task.created", number)
        assert running.stats()["pendingDeliveries"] == 3
        # three are sent three times and given up, and then the others come
        assert [hear(client)["data"] for _ in range(11)] == [0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4]
        assert count(running, "maxPending") == 0


def test_max_pending_bytes() -> None:
    """
    Where all clients together have too much to acknowledge, the clients that owe most get no more until they
    acknowledge some, and lose nothing.
    """
    with service("--max-pending-bytes", "100000", "--ack-timeout", "60") as running:
        client, publisher = running.connect(), connect_deaf(running)
        for number in range(5):
            publish(publisher, "task.created", f"{number}" * 30_000)
        assert count(running, "maxPendingBytes") == 1
        assert running.stats()["pendingDeliveries"] == 4
        for number in range(5):
            task = hear(client)
            assert task["data"][0] == f"{number}"
            say(client, type="ack", message_id=task["id"])
        until(lambda: running.stats()["pendingDeliveries"] == 0)


# being away


def leave_owing(running: Service, publisher: ClientConnection, agent: str, events: int) -> None:
    """
    C{agent} comes, is sent events, acknowledges none, and leaves.
    """
    absent = running.stats()["agents"]["absent"]
    client = running.connect(max_queue=None)
    ask_past_events(client, type="auth", agent_id=agent, id="in")
    for _ in range(events):
        publish(publisher, "task.created", None, f"agents/{agent}")
    client.close()
    until(lambda: running.stats()["agents"]["absent"] == absent + 1)


def test_max_kept() -> None:
    """
    Where too many deliveries are kept for absent agents, the agents that have most lose their oldest.
    """
    with service("--max-kept", "5", "--ack-timeout", "60") as running:
        publisher = connect_deaf(running)
        leave_owing(running, publisher, "ann", 3)
        assert count(running, "maxKept") == 0
        leave_owing(running, publisher, "bob", 2)
        assert running.stats()["deliveries"]["keptForAbsentAgents"] == 5
        client = running.connect(max_queue=None)
        ask_past_events(client, type="auth", agent_id="cy", id="in")
        publish(publisher, "task.created", None, "agents/cy")
        client.close()
        until(lambda: count(running, "maxKept") == 1)
        assert running.stats()["deliveries"]["keptForAbsentAgents"] == 5
        assert running.stats()["deliveries"]["neverAcknowledged"] == 1


def test_max_agent_bytes() -> None:
    """
    Who is subscribed to most is forgotten; the others keep their subscriptions.
    """
    with service("--max-agent-bytes", "20000") as running:
        for agent, channels in (("ann", 1), ("mallory", 100)):
            client = running.connect()
            ask_past_events(client, type="auth", agent_id=agent, id="in")
            for number in range(channels):
                ask_past_events(client, type="subscribe", channel=f"topics/{number}", id="topic")
            client.close()
            until(lambda: running.stats()["connectedClients"] == 0)
        assert count(running, "maxAgentBytes") == 1
        assert running.stats()["agents"]["remembered"] == 1
        back = running.connect()
        say(back, type="auth", agent_id="ann")
        assert "topics/0" in hear(back)["subscriptions"]


def test_max_keys() -> None:
    """
    The publisher with most keys loses its oldest; the same key publishes again then.
    """
    with service("--max-keys", "10") as running:
        client = connect_deaf(running)
        ask_past_events(client, type="auth", agent_id="ann", id="in")

        def publish_once(key: int) -> dict[str, Any]:
            more = {"channel": "topics/t", "event": "system.info", "key": str(key), "id": "once"}
            return ask_past_events(client, type="publish", **more)

        first = [publish_once(key)["message_id"] for key in range(11)]
        assert publish_once(10)["message_id"] == first[10]
        assert publish_once(0)["message_id"] != first[0]
        assert count(running, "maxKeys") == 2
        assert running.stats()["keys"] == {"remembered": 10, "duplicates": 1}


def test_max_dead_letters() -> None:
    """
    The agent with most dead letters loses its oldest.
    """
    with service("--max-dead-letters", "3", "--ack-timeout", "0.2", "--retry-interval", "0.05") as running:
        client, publisher = running.connect(), connect_deaf(running)
        say(client, type="auth", agent_id="ann", durable=True)
        for number in range(5):
            publish(publisher, "task.created", number, "agents/ann")
        until(lambda: running.stats()["deadLetters"]["died"] == 5)
        assert count(running, "maxDeadLetters") == 2
        assert running.stats()["deadLetters"]["kept"] == 3


def test_max_recent_events() -> None:
    """
    Of what absent agents miss a limited number of events is remembered, the latest.
    """
    with service("--max-recent-events", "3") as running:
        publisher = connect_deaf(running)
        leave_owing(running, publisher, "ann", 0)
        for number in range(5):
            publish(publisher, "task.created", number, "agents/ann")
        assert count(running, "maxRecentEvents") == 2
        back = running.connect()
        say(back, type="auth", agent_id="ann")
        missed: list[int] = []
        while len(missed) < 3:
            event = hear(back)
            if event.get("event") == "task.created" and event["channel"] == "agents/ann":
                missed.append(event["data"])
        assert missed == [2, 3, 4]


def test_max_agents() -> None:
    """
    Of too many agents the one that has been away for the longest is forgotten, with its subscriptions.
    """
    with service("--max-agents", "2") as running:
        for agent in ("ann", "bob", "cy"):
            client = running.connect()
            ask_past_events(client, type="auth", agent_id=agent, id="in")
            ask_past_events(client, type="subscribe", channel=f"topics/{agent}", id="topic")
            client.close()
            until(lambda: running.stats()["connectedClients"] == 0)
        assert count(running, "maxAgents") == 1
        assert running.stats()["agents"]["remembered"] == 2
        for agent, remembered in (("bob", True), ("cy", True), ("ann", False)):
            client = running.connect()
            say(client, type="auth", agent_id=agent)
            assert (f"topics/{agent}" in hear(client)["subscriptions"]) is remembered


def test_log_buffer() -> None:
    """
    A line of the log that cannot be written is counted.
    """
    writing = os.open("/dev/full", os.O_WRONLY)
    try:
        with unread_service(writing) as port:
            until(lambda: report(port, "stats")["limits"]["logBuffer"] > 0)
    finally:
        os.close(writing)
