"""
The clients of L{benchmarks.across}: publishers and subscribers that speak the protocol of dcm-ws, or that of NATS.

Both kinds send the same events through WebSockets.  They do not use the libraries for either protocol, because these
would take more processor time than the servers that are measured: what is received is searched for marks, and no frame
is read by itself.  All of them share one process and one epoll.
"""

from __future__ import annotations

import json
import re
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from benchmarks.durable_rig import PAD
from benchmarks.returns import HEAD, said

FIRST = 1_000_000
"""
The number of the first event: all numbers have as many digits, so that all frames have one size.
"""

_MARK = b',"pad":"'
_NUMBER = re.compile(rb'"n":(\d{7}),"pad":"')
_TAIL = 64
_READ = 1 << 18
_STALL_SECONDS = 1.0
_REST_SECONDS = 5.0
_ANSWER_SECONDS = 20.0
_TRIES = 30
_PATTERN = json.dumps({"n": 0, "pad": PAD}, separators=(",", ":")).replace('"n":0', '"n":%d')


class Dialect(Protocol):
    """
    What clients say to a kind of server.

    @ivar acks: what each answer to a publish contains, if publishes are answered.
    """

    acks: bytes | None

    def greet(self) -> bytes:
        """
        What a client sends after its handshake, which is answered with what C{greeted} has.
        """

    greeted: bytes

    def subscribe(self, number: int) -> bytes:
        """
        What a client sends to get the events, which is answered with what C{subscribed} has.

        @param number: of the client.
        """

    subscribed: bytes

    def publish(self, numbers: Sequence[int]) -> bytes:
        """
        What a publisher sends for some events.
        """

    def alive(self, chunk: bytes) -> bytes:
        """
        What a client that has received C{chunk} sends as a sign of life.
        """


class Dcm:
    """
    dcm-ws.

    @param event: decides whether the events are logged.
    @param is_logged: if publishes are answered, which they are when the event has been logged.
    """

    greeted = b'"id":"quiet"'
    subscribed = b'"id":"on"'

    def __init__(self, event: str, is_logged: bool) -> None:
        self.acks = b'"type":"ack"' if is_logged else None
        ending: dict[str, Any] = {"id": 0} if is_logged else {}
        frame = said(type="publish", channel="topics/bench", event=event, data="DATA", **ending)
        self._frame = _sized(frame, b'"DATA"', _PATTERN.encode())

    def greet(self) -> bytes:
        return said(type="unsubscribe", channel="global", id="quiet")

    def subscribe(self, number: int) -> bytes:
        return said(type="subscribe", channel="topics/bench", id="on")

    def publish(self, numbers: Sequence[int]) -> bytes:
        return b"".join(self._frame % number for number in numbers)

    def alive(self, chunk: bytes) -> bytes:
        return said(type="pong") if b'"type":"ping"' in chunk else b""


class Nats:
    """
    A NATS server.

    @param stream: of JetStream; None without it.
    """

    greeted = subscribed = b"PONG\r\n"

    def __init__(self, stream: str | None = None) -> None:
        self.acks = b'"stream":"' if stream else None
        self._stream = stream
        inbox = b" _INBOX.acks" if stream else b""
        payload = b'{"channel":"topics/bench","event":"session.created","data":%s}' % _PATTERN.encode()
        size = len(payload % FIRST)
        self._message = b"PUB bench.events%s %d\r\n%s\r\n" % (inbox, size, payload)

    def greet(self) -> bytes:
        options = {"verbose": False, "pedantic": False, "lang": "python", "version": "1", "protocol": 1}
        inbox = b"SUB _INBOX.acks 1\r\n" if self._stream else b""
        return binary(b"CONNECT %s\r\n%sPING\r\n" % (json.dumps(options).encode(), inbox))

    def subscribe(self, number: int) -> bytes:
        if self._stream is None:
            return binary(b"SUB bench.events 2\r\nPING\r\n")
        options = {
            "stream_name": self._stream,
            "config": {
                "name": f"subscriber{number}",
                "deliver_subject": f"_INBOX.events.{number}",
                "deliver_policy": "new",
                "ack_policy": "none",
                "num_replicas": 1,
                "mem_storage": True,
                "inactive_threshold": 30_000_000_000,
            },
        }
        subject = f"$JS.API.CONSUMER.CREATE.{self._stream}.subscriber{number}"
        asked = json.dumps(options).encode()
        return binary(
            b"SUB _INBOX.events.%d 2\r\nSUB _INBOX.made.%d 3\r\nPUB %s _INBOX.made.%d %d\r\n%s\r\n"
            % (number, number, subject.encode(), number, len(asked), asked)
        )

    def publish(self, numbers: Sequence[int]) -> bytes:
        # the clients of NATS write all that waits as one frame, too
        return binary(b"".join(self._message % number for number in numbers))

    def alive(self, chunk: bytes) -> bytes:
        return binary(b"PONG\r\n") if b"PING\r\n" in chunk else b""


class JetStream(Nats):
    """
    JetStream of a NATS server.
    """

    subscribed = b"consumer_create_response"

    def __init__(self, stream: str) -> None:
        super().__init__(stream)


def binary(payload: bytes) -> bytes:
    """
    A binary frame with a mask of zeros.
    """
    size = len(payload)
    if size < 126:
        return bytes((0x82, 0x80 | size)) + bytes(4) + payload
    if size < 1 << 16:
        return b"\x82\xfe" + size.to_bytes(2) + bytes(4) + payload
    return b"\x82\xff" + size.to_bytes(8) + bytes(4) + payload


def _sized(frame: bytes, old: bytes, new: bytes) -> bytes:
    """
    A frame with something else in its place, which is formatted with the number of an event.
    """
    payload = frame[frame.index(b"{") :].replace(old, new)
    size = len(payload % FIRST)
    return b"\x81\xfe" + size.to_bytes(2) + bytes(4) + payload


class RefusedError(Exception):
    """
    A server has refused something.
    """


class Client:
    """
    One connection.

    @ivar count: events, or answers to publishes, that have come.
    """

    def __init__(self, port: int, dialect: Dialect, mark: bytes | None) -> None:
        self._dialect = dialect
        self._mark = mark
        self._tail = b""
        self._waits = b""
        self.count = 0
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ask(HEAD, b"\r\n\r\n")
        self.ask(dialect.greet(), dialect.greeted)

    def ask(self, question: bytes, answer: bytes, seconds: float = _ANSWER_SECONDS) -> bytes:
        """
        Send something, and wait for an answer; returns it.

        @raises RefusedError: if the answer is an error.
        @raises TimeoutError: if there is none.
        """
        self.socket.settimeout(seconds)
        self.socket.sendall(question)
        received = b""
        while answer not in received:
            chunk = self.socket.recv(_READ)
            if not chunk or b'"type":"error"' in chunk or b'"error":{' in chunk:
                raise RefusedError(received + chunk)
            received += chunk
        return received

    def read(self) -> bytes:
        """
        Read what there is, and count; returns it, with the end of what came before.
        """
        chunk = self.socket.recv(_READ)
        if not chunk:
            raise SystemExit(f"a server has closed a connection: {self._tail!r}")
        if sign := self._dialect.alive(chunk):
            self.send(sign)
        joined = self._tail + chunk
        if self._mark is not None:
            self.count += joined.count(self._mark) - self._tail.count(self._mark)
        self._tail = joined[-_TAIL:]
        return joined

    def send(self, data: bytes) -> None:
        """
        Send frames, as soon as the server reads.
        """
        self._waits += data
        self.flush()

    def flush(self) -> bool:
        """
        Send what waits; returns if all of it was sent.
        """
        if self._waits:
            try:
                self._waits = self._waits[self.socket.send(self._waits) :]
            except BlockingIOError:
                return False
        return not self._waits


def made_stream(port: int, stream: str, replicas: int) -> str:
    """
    Make a stream of JetStream, on files; returns the name of the server that leads it.
    """
    options = {"name": stream, "subjects": ["bench.events"], "storage": "file", "num_replicas": replicas}
    asked = json.dumps(options).encode()
    question = b"PUB $JS.API.STREAM.CREATE.%s _INBOX.made %d\r\n%s\r\n" % (stream.encode(), len(asked), asked)
    client = Client(port, Nats(), None)
    client.ask(binary(b"SUB _INBOX.made 1\r\nPING\r\n"), b"PONG")
    # the servers refuse streams, or do not answer, until they have elected one that knows all streams
    for _ in range(_TRIES):
        try:
            answer = client.ask(binary(question), b'"did_create":true', 1.0)
        except TimeoutError:
            continue
        except RefusedError:
            time.sleep(0.5)
            continue
        client.socket.close()
        made = json.loads(answer[answer.index(b"{") : answer.rindex(b"}") + 1])
        return str(made["cluster"]["leader"])
    raise SystemExit("the stream was not made")


class Crowd:
    """
    One publisher, and some subscribers.

    @param publisher: the port that the publisher connects to.
    @param subscribers: the port of each subscriber.
    """

    def __init__(self, dialect: Dialect, publisher: int, subscribers: Sequence[int]) -> None:
        self._dialect = dialect
        self._next = FIRST
        self._epoll = select.epoll()
        self._publisher = Client(publisher, dialect, dialect.acks)
        self._subscribers = [Client(port, dialect, _MARK) for port in subscribers]
        for number, client in enumerate(self._subscribers):
            client.ask(dialect.subscribe(number), dialect.subscribed)
        self._by_file = {one.socket.fileno(): one for one in [self._publisher, *self._subscribers]}
        for file, client in self._by_file.items():
            client.socket.setblocking(False)
            self._epoll.register(file, select.EPOLLIN)

    def close(self) -> None:
        """
        Close all connections.
        """
        for client in self._by_file.values():
            client.socket.close()
        self._epoll.close()

    def most(self, seconds: float, window: int) -> tuple[int, int, float]:
        """
        Publish as fast as the subscribers get the events and the publisher its answers.

        Returns how many events were published, how many deliveries are missing, and the seconds until the last one.

        @param window: events that have not been answered, or have not arrived everywhere, at most.
        """
        sent, gone, begun = 0, 0, time.monotonic()
        start, answered = self._arrived(), self._publisher.count
        number, last, known = len(self._subscribers), begun, 0
        while (now := time.monotonic()) < begun + seconds or (sent > gone + known and now < last + _REST_SECONDS):
            done = (self._arrived() - start) // number
            if self._dialect.acks is not None:
                done = min(done, self._publisher.count - answered)
            if done > known:
                known, last = done, now
            elif now > last + _STALL_SECONDS and sent > gone + known and now < begun + seconds:
                # they are lost; so that the others can come, they do not count as waiting
                gone, last = sent - known, now
            room = window - (sent - gone - known)
            if now < begun + seconds and room >= min(window, 20) and self._publisher.flush():
                self._publisher.send(self._dialect.publish(range(self._next, self._next + room)))
                self._next += room
                sent += room
            self._poll(0.01)
        return sent, sent * number - (self._arrived() - start), last - begun

    def steady(self, seconds: float, rate: float) -> tuple[int, int, list[float]]:
        """
        Publish events at a fixed rate.

        Returns how many events were published, how many deliveries are missing, and the seconds that each took from
        the publish to the subscriber.
        """
        sent_at, took = dict[int, float](), list[float]()
        sent, start, begun = 0, self._arrived(), time.monotonic()
        while (now := time.monotonic()) < begun + seconds:
            due = begun + sent / rate
            if now >= due:
                sent_at[self._next] = now
                self._publisher.send(self._dialect.publish((self._next,)))
                self._next += 1
                sent += 1
            else:
                self._poll(due - now, lambda number, then: took.append(then - sent_at[number]))
        wanted = sent * len(self._subscribers)
        end = time.monotonic() + _REST_SECONDS
        while self._arrived() - start < wanted and time.monotonic() < end:
            self._poll(0.01, lambda number, then: took.append(then - sent_at[number]))
        return sent, wanted - (self._arrived() - start), took

    def _arrived(self) -> int:
        return sum(one.count for one in self._subscribers)

    def _poll(self, seconds: float, note: Callable[[int, float], object] | None = None) -> None:
        self._publisher.flush()
        for file, _ in self._epoll.poll(seconds):
            client = self._by_file[file]
            before = client.count
            chunk = client.read()
            if note is not None and client is not self._publisher and client.count > before:
                now = time.monotonic()
                numbers = _NUMBER.findall(chunk)
                for number in numbers[before - client.count :]:
                    note(int(number), now)
