"""
The streams of a service, above sockets whose kernel takes what the test lets it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.tcp import Server
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from dcm_ws.core.assembly import Core
from dcm_ws.core.counts import LimitCounts
from dcm_ws.http.event_stream import EventStreams
from dcm_ws.http.pacing import Pacing
from dcm_ws.http.page_reader import PageReader
from dcm_ws.http.shares import Share
from dcm_ws.http.site import QuietSite, make_site
from dcm_ws.http.streams import StreamPage, StreamParts
from dcm_ws.protocol.channels import Channels, parse_channel
from tests.fakes import make_core, make_gate
from tests.websocket.ends import KernelSocket

LONG_POLL = 20.0
SEND_BUFFER = 300_000


def dechunked(data: bytes) -> bytes:
    """
    The body of a chunked response, as far as it has come.
    """
    body = b""
    while data:
        length, _, data = data.partition(b"\r\n")
        size = int(length, 16)
        body, rest = body + data[:size], data[size:]
        assert rest.startswith(b"\r\n")
        data = rest[2:]
    return body


def events_of(text: bytes) -> Iterator[dict[str, str]]:
    """
    The blocks of an event stream, as an C{EventSource} reads them.
    """
    assert text == b"" or text.endswith(b"\n\n")
    for block in text.decode().split("\n\n")[:-1]:
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name in fields else value
        yield fields


class Far:
    """
    The far end of an HTTP connection.
    """

    def __init__(self, ground: Ground, host: str = "192.0.2.1") -> None:
        self.reactor = ground.reactor
        self.socket = KernelSocket()
        channel = ground.site.buildProtocol(None)
        self.transport = Server(self.socket, channel, (host, 50_000), None, 1, ground.reactor)  # type: ignore[arg-type]
        channel.makeConnection(self.transport)

    def ask(self, target: str, method: str = "GET", version: str = "1.1", **headers: str) -> None:
        """
        Send a request.
        """
        fields = {"Host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.transport._dataReceived(f"{method} /v1/streams/{target} HTTP/{version}\r\n{lines}\r\n".encode())
        self.turn()

    def turn(self) -> None:
        """
        The reactor's next turn: what was put off is done, and sockets that can be written to are.
        """
        self.reactor.advance(0)
        self.write()

    def write(self) -> None:
        """
        The kernel takes what waits for it.
        """
        while self.transport in self.reactor.writers and (self.socket.room or self.socket.broken):
            lost = self.transport.doWrite()
            if lost is not None:
                self.transport.connectionLost(Failure(lost))

    def turns(self, count: int = 30) -> None:
        """
        Some turns, of a hundredth of a second.
        """
        for _ in range(count):
            self.reactor.advance(0.01)
            self.turn()

    def lose(self) -> None:
        """
        The far end is gone.
        """
        self.transport.connectionLost(Failure(ConnectionDone()))

    def take(self) -> bytes:
        """
        What has come since the last call.
        """
        data = b"".join(self.socket.sent)
        self.socket.sent.clear()
        return data

    def response(self) -> tuple[int, dict[str, str], bytes]:
        """
        The status, the headers by lower-case name, and the body of a whole response.
        """
        head, end, body = self.take().partition(b"\r\n\r\n")
        assert end
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if "content-length" in headers:
            assert len(body) == int(headers["content-length"])
        return int(first.split()[1]), headers, body

    def get(self, target: str, **more: str) -> tuple[int, dict[str, str], bytes]:
        """
        The response to a request that is answered at once.
        """
        self.ask(target, **more)
        return self.response()

    def events(self) -> list[dict[str, str]]:
        """
        The events of a chunked event stream that have come since the last call.
        """
        data = self.take()
        if data.startswith(b"HTTP/"):
            data = data.partition(b"\r\n\r\n")[2]
        return list(events_of(dechunked(data)))


class Ground:
    """
    A service that has only streams.
    """

    def __init__(self, *, per_address: int = 0, send_buffer: int = SEND_BUFFER, **choices: Any) -> None:
        self.reactor = MemoryReactorClock()
        self.reactor.advance(1000)
        self.core: Core = make_core(self.reactor, **choices)
        self.share = Share(per_address=per_address)
        self.pacing = Pacing(self.reactor)
        world = self.core.world
        self.streams = EventStreams(
            self.core.hub,
            self.core.readers,
            self.core.counts,
            pacing=self.pacing,
            share=self.share,
            send_buffer=send_buffer,
            chance=world.random,
        )
        self.polls: set[PageReader] = set()
        parts = StreamParts(
            Channels(),
            self.core.readers,
            self.core.hub,
            self.streams,
            self.polls,
            self.reactor,
            world.random,
            LONG_POLL,
        )
        self.page = StreamPage(world.wall_ms, make_gate(self.core), parts)
        self.site: QuietSite = make_site(
            world.wall_ms, {b"v1/streams": self.page}, self.reactor, 30.0, ("/", "/ws"), LimitCounts()
        )

    def connect(self, host: str = "192.0.2.1") -> Far:
        """
        Connect.
        """
        return Far(self, host)

    def publish(self, *data: object, channel: str = "topics/a", event: str = "session.created") -> None:
        """
        Publish events.
        """
        for one in data:
            self.core.application_hub.publish(parse_channel(channel), event, json.dumps(one).encode())


def data_of(body: bytes) -> list[Any]:
    """
    The data of the messages of a page.
    """
    return [message["data"] for message in json.loads(body)]
