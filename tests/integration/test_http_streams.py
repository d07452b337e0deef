"""
Streams over HTTP: on real sockets, with TLS, behind several nodes, and when the service stops.
"""

from __future__ import annotations

import json
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPSConnection
from typing import Any

import pytest

from tests.integration.certificates import Certificate
from tests.integration.clients import Client, ask, say
from tests.integration.databases import PostgresServer, postgres
from tests.integration.machine import PATIENCE, until
from tests.integration.nodes import cluster
from tests.integration.running import Service, service

pytestmark = pytest.mark.integration


@pytest.fixture
def database() -> Iterator[PostgresServer]:
    with postgres() as server:
        yield server


class Stream:
    """
    An event stream, of which the test reads the messages.
    """

    def __init__(self, connection: HTTPConnection, channel: str, query: str = "?offset=now&live=sse") -> None:
        self.connection = connection
        connection.request("GET", f"/v1/streams/{channel}{query}")
        self.response = connection.getresponse()
        assert self.response.status == 200, self.response.read()

    def close(self) -> None:
        """
        The client goes.
        """
        # the connection is the response's, since it ends with it
        self.response.close()
        self.connection.close()

    def event(self) -> dict[str, str]:
        """
        The fields of the next event; none at the end.
        """
        fields: dict[str, str] = {}
        while True:
            line = self.response.readline().decode().removesuffix("\n")
            if not line:
                return fields
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")

    def messages(self, count: int) -> list[Any]:
        """
        The data of the next messages.
        """
        got: list[Any] = []
        while len(got) < count:
            event = self.event()
            if event.get("event") == "data":
                got += [message["data"] for message in json.loads(event["data"])]
        return got


def stream(running: Service, channel: str, query: str = "?offset=now&live=sse") -> Stream:
    return Stream(HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE), channel, query)


def publisher(running: Service) -> Client:
    client = running.connect()
    ask(client, type="unsubscribe", channel="global", id="out")
    return client


def publish(client: Client, *data: Any, channel: str = "topics/a") -> None:
    for one in data:
        assert ask(client, type="publish", channel=channel, event="session.created", data=one, id="p")["success"]


def page(running: Service, target: str) -> tuple[int, str, list[Any]]:
    """
    The status of a page, where it goes on, and its data.
    """
    status, headers, body = running.get(f"/v1/streams/{target}")
    data = [message["data"] for message in json.loads(body)] if status == 200 else []
    return status, headers.get("Stream-Next-Offset", ""), data


def test_stream_counts_as_a_websocket() -> None:
    """
    An event stream takes the room of a WebSocket, and not that of an HTTP connection, until its client is gone.
    Event streams and long polls are counted apart.
    """
    with service() as running, ExitStack() as open_:
        for _ in range(5):
            open_.callback(stream(running, "topics/a").close)
        stats = running.stats()
        assert stats["connectedClients"] == 5
        assert stats["channelStats"] == {"topics/a": 5}
        # one is that of the request for the figures
        poll = HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE)
        open_.callback(poll.close)
        poll.request("GET", "/v1/streams/topics/b?offset=now&live=long-poll")
        kinds = {"waiting": 0, "http": 2, "websocket": 0, "eventStream": 5, "longPoll": 1}
        until(lambda: running.stats()["connections"] == kinds)
        metrics = running.get("/metrics")[2]
        assert b'dcm_ws_open_connections{kind="event_stream"} 5.0' in metrics
        assert b'dcm_ws_open_connections{kind="long_poll"} 1.0' in metrics
        open_.close()
        until(lambda: running.stats()["connections"] == dict.fromkeys(kinds, 0) | {"http": 1})
        assert running.stats()["connectedClients"] == 0


def test_limits() -> None:
    """
    Streams and WebSockets have one limit for all, and one for each address.
    """
    with service("--max-connections", "3", "--max-connections-per-ip", "2") as running:
        client = running.connect()
        first = stream(running, "topics/a")
        status, _, body = running.get("/v1/streams/topics/a?offset=now&live=sse")
        assert (status, json.loads(body)["code"]) == (503, "TOO_MANY_CONNECTIONS")
        assert running.stats()["limits"]["maxConnectionsPerIp"] == 1
        first.close()
        until(lambda: running.stats()["connectedClients"] == 1)
        stream(running, "topics/a").close()
        say(client, type="ping")


def test_end_of_the_service() -> None:
    """
    When the service stops, a stream ends in order, with the time after which its client should come back.
    """
    with service("--drain", "0.2") as running:
        reader, client = stream(running, "topics/a"), publisher(running)
        publish(client, 1)
        assert reader.messages(1) == [1]
        assert running.stop(signal.SIGTERM) == 0
        events = []
        while event := reader.event():
            events.append(event)
        assert 500 <= int(events[-1]["retry"]) < 3500
        # the last chunk was there: nothing was cut off
        assert reader.response.isclosed()


def test_client_that_does_not_read() -> None:
    """
    A client that does not read is closed, and nobody else notices.
    """
    with service("--max-send-buffer", "200000") as running:
        slow = socket.create_connection(("127.0.0.1", running.port))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(b"GET /v1/streams/topics/a?offset=now&live=sse HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: running.stats()["connectedClients"] == 1)
        quick, client = stream(running, "topics/a"), publisher(running)
        for number in range(100):
            publish(client, [number, "x" * 50_000])
            assert quick.messages(1)[0][0] == number
        until(lambda: running.stats()["limits"]["maxSendBuffer"] == 1)
        assert running.stats()["connectedClients"] == 2
        slow.close()


def test_tls(tmp_path: Any) -> None:
    """
    Over TLS a stream is the same, and ends with the service.
    """
    certificate = Certificate(tmp_path, "localhost")
    with service(f"--listen={certificate.endpoint()}") as running:
        context: ssl.SSLContext = certificate.trusting
        reader = Stream(HTTPSConnection("localhost", running.port, timeout=PATIENCE, context=context), "topics/a")
        connection = HTTPSConnection("localhost", running.port, timeout=PATIENCE, context=context)
        for number in range(3):
            body = json.dumps({"channel": "topics/a", "event": "session.created", "data": [number, "x" * 100_000]})
            connection.request("POST", "/v1/publish", body)
            assert connection.getresponse().read()
        assert [one[0] for one in reader.messages(3)] == [0, 1, 2]
        assert running.stop(signal.SIGTERM) == 0
        while reader.event():
            pass


def test_several_nodes(schema: PostgresServer) -> None:
    """
    A client that goes from node to node gets everything once: no node takes an offset of another one for a gap.
    """
    with cluster(schema, 3) as nodes:
        client = publisher(nodes[0])
        offset = "-1"
        got: list[Any] = []
        readers = [stream(node, "topics/a") for node in nodes]
        for number in range(90):
            publish(client, number)
            # the node that numbers the events has it first, and the others a little later
            status, following, data = page(nodes[number % 3], f"topics/a?offset={offset}&live=long-poll")
            assert status in (200, 204)
            offset, got = following, got + data
        status, _, data = page(nodes[2], f"topics/a?offset={offset}")
        assert (status, got + data) == (200, list(range(90)))
        for reader in readers:
            assert reader.messages(90) == list(range(90))
            reader.close()
