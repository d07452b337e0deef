"""
Protocol, section 6, and what section 4 shows on the wire: pings, silence, slowness, retries, and the end.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.integration.clients import ask, client_frame, close_of, handshake, hear, say, silence, unsubscribe_global
from tests.integration.machine import PATIENCE, until
from tests.integration.running import Service, service
from tests.integration.sharing import SharedServices

pytestmark = pytest.mark.integration


@pytest.fixture
def lively(services: SharedServices) -> Iterator[Service]:
    """
    A service that soon closes a client that is silent.
    """
    with services.lend("--heartbeat-interval", "0.4", "--heartbeat-timeout", "1") as running:
        yield running


@pytest.fixture
def strict(services: SharedServices) -> Iterator[Service]:
    """
    A service that soon redelivers events, and soon closes a client that is too slow.
    """
    options = ("--ack-timeout", "0.3", "--retry-interval", "0.05", "--max-send-buffer", "200000")
    with services.lend(*options) as running:
        yield running


# pings and silence


def test_server_pings(lively: Service) -> None:
    """
    Every interval a client gets a ping message and a WebSocket Ping.
    """
    client = lively.connect_raw()
    started = time.monotonic()
    for number in (1, 2):
        # some clients return the text and leave a Ping behind it unread
        assert client.read() == (9, b"")
        opcode, payload = client.read()
        assert opcode == 1
        message = json.loads(payload)
        place = {name: client.connected[name] for name in ("epoch", "pos")}
        assert message == {"type": "ping", "timestamp": message["timestamp"], **place}
        assert abs(message["timestamp"] - time.time() * 1000) < 10_000
        assert time.monotonic() - started >= 0.4 * number - 0.1
        # a sign of life
        client.socket.sendall(client_frame(b"", opcode=10))


def test_silence_is_death(lively: Service) -> None:
    """
    A client from which nothing comes is closed with 4000, Ping timeout.
    """
    client = lively.connect_raw()
    started = time.monotonic()
    while True:
        opcode, payload = client.read()
        if opcode == 8:
            break
    assert payload == (4000).to_bytes(2) + b"Ping timeout"
    assert time.monotonic() - started > 0.9


def test_ping_comes_before_the_time_out() -> None:
    """
    Where the interval is longer than the time-out, clients are pinged all the same before they are closed.
    """
    with service("--heartbeat-interval", "30", "--heartbeat-timeout", "1") as running:
        answering, mute = running.connect(), running.connect_raw()
        frames = [mute.read()]
        while frames[-1][0] != 8:
            frames.append(mute.read())
        assert (9, b"") in frames
        assert frames[-1] == (8, (4000).to_bytes(2) + b"Ping timeout")
        assert ask(answering, type="ping")["type"] == "pong"
        assert running.stats()["limits"]["heartbeatTimeout"] == 1


def test_pause_of_the_service_is_nobodys_silence() -> None:
    """
    After the process was stopped for longer than every time-out, clients that live stay, what they said meanwhile
    counts, and only then time begins to count against those that are silent.
    """
    options = ("--heartbeat-interval", "0.4", "--heartbeat-timeout", "1", "--ack-timeout", "0.8", "--max-attempts", "1")
    with service(*options, "--handshake-timeout", "1") as running:
        clients = [running.connect() for _ in range(20)]
        for number in range(3):
            mute, late = running.connect_raw(), running.socket()
            say(clients[0], type="publish", channel="global", event="task.created")
            heard = [heard_event(client) for client in clients]
            # it is counted only for those who have acknowledged before
            for client in clients:
                say(client, type="ack", message_id="msg_unknown")
            running.process.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            for client, event in zip(clients, heard, strict=True):
                say(client, type="ack", message_id=event["id"])
            late.sendall(handshake())
            # a stop is over when it has lasted longer than the time-outs
            until(lambda since=stopped: time.monotonic() - since > 2.5)
            running.process.send_signal(signal.SIGCONT)
            continued = time.monotonic()
            assert late.recv(100).startswith(b"HTTP/1.1 101 ")
            assert mute.close_code() == 4000
            assert time.monotonic() - continued > 0.9
            assert all(ask(client, type="ping")["type"] == "pong" for client in clients)
            late.close()
            stats = running.stats()
            assert (stats["failedDeliveries"], stats["pendingDeliveries"]) == (0, 0), number


def heard_event(client: ClientConnection) -> dict[str, Any]:
    """
    The next event, past the pings.
    """
    while "event" not in (message := hear(client)):
        pass
    return message


def test_anything_is_life(lively: Service) -> None:
    """
    Whatever arrives from a client counts as life, a library's own Pong among it.
    """
    signs = {
        "pong": client_frame(b'{"type":"pong"}'),
        "ping": client_frame(b'{"type":"ping"}'),
        "nonsense": client_frame(b"no JSON"),
        "Ping frame": client_frame(b"", opcode=9),
        "Pong frame": client_frame(b"", opcode=10),
        "binary frame": client_frame(b"x", opcode=2),
        "half a frame": b"\x81",
        "the other half": b"\x80" + bytes(4),
    }
    clients = {name: lively.connect_raw() for name in signs}
    clients["the other half"] = clients["half a frame"]
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        for name, client in clients.items():
            while True:
                opcode, payload = client.read()
                assert opcode != 8, (name, payload)
                if opcode == 1 and json.loads(payload).get("type") == "ping":
                    break
            client.socket.sendall(signs[name])


def test_library_pongs_by_itself(lively: Service) -> None:
    """
    A client that only listens stays connected: its WebSocket library answers the Pings.
    """
    client = lively.connect()
    for _ in range(4):
        assert json.loads(client.recv(timeout=PATIENCE))["type"] == "ping"
    silence(client)


def test_client_closes(lively: Service) -> None:
    """
    A client that closes is answered, and no longer counted.
    """
    client = lively.connect()
    until(lambda: lively.health()["connectedClients"] == 1)
    client.close(3000, "enough")
    assert client.protocol.close_rcvd is not None
    until(lambda: lively.health()["connectedClients"] == 0)


def test_client_vanishes(lively: Service) -> None:
    """
    A client whose connection breaks without a word is no longer counted.
    """
    client = lively.connect_raw()
    client.socket.close()
    until(lambda: lively.health()["connectedClients"] == 0)


@pytest.mark.parametrize(
    "frame",
    [
        client_frame(b"", opcode=3),
        b"\x81\x04ping",
        b"\xc1\x80\0\0\0\0",
        b"\x09\x80\0\0\0\0",
        client_frame(b"x", opcode=0),
    ],
    ids=["reserved opcode", "unmasked", "reserved bit", "fragmented Ping", "continuation of nothing"],
)
def test_websocket_protocol_errors(lively: Service, frame: bytes) -> None:
    """
    A client that breaks the WebSocket protocol is closed with 1002.
    """
    client = lively.connect_raw()
    client.socket.sendall(frame)
    assert client.close_code() == 1002


# retries and slowness


def test_retry(strict: Service) -> None:
    """
    A tracked event that nobody acknowledges comes three times in all, the same each time, and is then given up.
    """
    client = strict.connect()
    before = strict.stats()
    say(client, type="publish", channel="global", event="task.created", data={"n": 1})
    first = hear(client)
    sent = time.monotonic()
    assert strict.stats()["pendingDeliveries"] == 1
    for number in (1, 2):
        assert hear(client) == first
        assert time.monotonic() - sent >= 0.3 * number - 0.05
    until(lambda: strict.stats()["deliveries"]["neverAcknowledged"] == before["deliveries"]["neverAcknowledged"] + 1)
    assert strict.stats()["pendingDeliveries"] == 0
    silence(client)


def test_acknowledged_event_is_not_sent_again(strict: Service) -> None:
    """
    An acknowledged event comes once.
    """
    client = strict.connect()
    say(client, type="publish", channel="global", event="message.new")
    say(client, type="ack", message_id=hear(client)["id"])
    # a later event, unacknowledged, comes back: then the first would have, too
    say(client, type="publish", channel="global", event="subtask.created")
    later = hear(client)
    assert hear(client) == later
    assert hear(client) == later


def test_refused_event_is_sent_again(strict: Service) -> None:
    """
    A refused event comes again, three times in all; to refuse the last one gives it up.
    """
    client, before = strict.connect(), strict.stats()
    say(client, type="publish", channel="global", event="task.created", data=1)
    first = hear(client)
    for _ in range(2):
        say(client, type="nack", message_id=first["id"])
        assert hear(client) == first
    say(client, type="nack", message_id=first["id"], delay_ms=3_600_000)
    until(lambda: strict.stats()["failedDeliveries"] == before["failedDeliveries"] + 1)
    assert strict.stats()["deliveries"]["nacked"] == before["deliveries"]["nacked"] + 3
    silence(client)


def test_untracked_event_is_not_sent_again(strict: Service) -> None:
    """
    An event other than of tasks, subtasks and messages needs no ack.
    """
    client = strict.connect()
    say(client, type="publish", channel="global", event="system.info")
    assert hear(client)["event"] == "system.info"
    assert strict.stats()["pendingDeliveries"] == 0


def test_client_that_never_reads(strict: Service) -> None:
    """
    A client that does not read what it is sent is closed with 4008, and nobody else notices.
    """
    slow, publisher = strict.connect_raw(), strict.connect()
    unsubscribe_global(publisher)
    data = "x" * 60_000

    def closed() -> bool:
        for number in range(10):
            message = {"type": "publish", "channel": "global", "event": "system.info", "data": data, "id": number}
            assert ask(publisher, **message)["success"] is True
        return "4008" in strict.stats()["closes"]

    until(closed)
    until(lambda: strict.stats()["connectedClients"] == 1)
    assert slow.close_code() == 4008


# the end


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_shutdown(how: signal.Signals) -> None:
    """
    SIGTERM or SIGINT: the clients are notified, /health says draining, all are closed with 1012, and the exit status is
    0.
    """
    with service("--drain", "0.5") as running:
        unfinished = running.socket()
        unfinished.sendall(b"GET / HT")
        clients = [running.connect() for _ in range(3)]
        # one that does not answer the close, so that the draining takes its time
        stubborn = running.connect_raw()
        kept_alive = HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE)
        kept_alive.request("GET", "/health")
        answer = kept_alive.getresponse()
        assert (answer.status, json.loads(answer.read())["status"]) == (200, "healthy")
        running.process.send_signal(how)
        notice = hear(clients[0])
        assert (notice["channel"], notice["event"]) == ("global", "system.info")
        assert notice["data"] == {"component": "server", "state": "draining"}
        kept_alive.request("GET", "/health")
        answer = kept_alive.getresponse()
        assert (answer.status, json.loads(answer.read())["status"]) == (503, "draining")
        for client in clients:
            assert close_of(client)[0] == 1012
        assert stubborn.close_code() == 1012
        stubborn.socket.close()
        assert unfinished.recv(100) == b""
        with pytest.raises(ConnectionRefusedError):
            running.connect()
        assert running.process.wait(timeout=PATIENCE) == 0
        kept_alive.close()


def test_second_signal() -> None:
    """
    Who cannot wait signals twice: the second one ends the service at once.
    """
    with service() as running:
        client = running.connect_raw()
        running.process.send_signal(signal.SIGTERM)
        assert client.close_code() == 1012
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=30) == -signal.SIGTERM


def test_shutdown_without_clients() -> None:
    """
    A service that nobody is connected to ends at once, with exit status 0.
    """
    with service("--drain", "3600") as running:
        assert running.stop(signal.SIGTERM) == 0


def test_sent_before_the_close(strict: Service) -> None:
    """
    What a client was sent before it was closed, it still gets.
    """
    client = strict.connect()
    for number in range(100):
        say(client, type="subscribe", channel="metrics", id=number)
    client.send(b"\xff", text=True)
    ids = []
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            ids.append(hear(client)["id"])
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1007
    assert ids == list(range(100))


def test_goodbye_right_after_a_request(strict: Service) -> None:
    """
    A client that closes right behind a request is still answered.
    """
    request = b'{"type":"subscribe","channel":"metrics","id":"last"}'
    client = strict.connect_raw(more=client_frame(request) + client_frame((1000).to_bytes(2), opcode=8))
    assert client.hear()["id"] == "last"
    assert client.close_code() == 1000
