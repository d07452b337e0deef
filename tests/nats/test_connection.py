"""
A connection to a NATS server, without one.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from dcm_ws.nats.connection import Credentials, NatsConnection
from dcm_ws.nats.nkeys import NatsKeyError, UserKey
from dcm_ws.nats.reading import Message
from dcm_ws.nats.urls import Server, read_urls
from dcm_ws.nats.watch import watched
from tests.nats.test_nkeys import SEED

INFO = b'INFO {"max_payload": 1000, "nonce": "abc", "connect_urls": ["10.0.0.1:4222", 5]}\r\n'


class Transport(StringTransport):
    """
    A transport that says if it was aborted.

    @ivar encrypted: the context of TLS.
    @ivar plain: what was written before that.
    """

    aborted = False
    encrypted: Any = None
    plain = b""

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def abortConnection(self) -> None:
        self.aborted = True

    def startTLS(self, context: Any) -> None:
        self.encrypted, self.plain = context, self.value()


class End:
    """
    A connection, and what it calls.
    """

    def __init__(self, server: Server, credentials: Any = Credentials) -> None:
        self.readies = 0
        self.ends: list[str] = []
        self.heard: list[Message] = []
        self.subscriptions = {b"1": (b"a.*", self.heard.append)}
        self.connection = NatsConnection(
            server, "test", credentials, lambda name: f"tls {name}", self.subscriptions, self.ready, self.ends.append
        )
        self.transport = Transport()
        self.connection.makeConnection(self.transport)

    def ready(self) -> None:
        self.readies += 1

    def connect(self) -> dict[str, Any]:
        """
        What was sent in CONNECT.
        """
        line = next(line for line in self.transport.value().split(b"\r\n") if line.startswith(b"CONNECT "))
        found: dict[str, Any] = json.loads(line[8:])
        return found


def accepted() -> End:
    end = End(Server("one", 4222))
    end.connection.dataReceived(INFO + b"PONG\r\n")
    end.transport.clear()
    return end


def test_greeting() -> None:
    """
    After INFO, the client says who it is and what it subscribes to, and is ready when the server has read that.
    """
    end = End(Server("one", 4222))
    assert end.transport.value() == b""
    end.connection.dataReceived(INFO)
    assert end.transport.value().endswith(b"\r\nSUB a.* 1\r\nPING\r\n")
    assert (end.connect()["echo"], end.connect()["tls_required"], end.connect()["name"]) == (False, False, "test")
    assert (end.readies, end.connection.writable, end.connection.was_accepted) == (0, False, False)
    end.connection.dataReceived(b"PONG\r\n")
    assert (end.readies, end.connection.writable, end.connection.was_accepted) == (1, True, True)
    assert (end.connection.max_payload, end.connection.others) == (1000, ["10.0.0.1:4222"])
    end.connection.dataReceived(b'INFO {"connect_urls": ["b:1"], "max_payload": "x"}\r\n')
    assert (end.connection.max_payload, end.connection.others) == (1000, ["b:1"])


@pytest.mark.parametrize(
    ("url", "credentials", "shown"),
    [
        ("nats://ann:pw@one", Credentials(), {"user": "ann", "pass": "pw"}),
        ("nats://token@one", Credentials(), {"auth_token": "token"}),
        ("nats://one", Credentials(UserKey(SEED)), {"nkey": UserKey(SEED).public, "sig": UserKey(SEED).sign("abc")}),
        ("nats://one", Credentials(UserKey(SEED), "j.w.t"), {"jwt": "j.w.t", "sig": UserKey(SEED).sign("abc")}),
    ],
)
def test_credentials(url: str, credentials: Credentials, shown: dict[str, str]) -> None:
    """
    The client shows what it was given, and nothing else.
    """
    end = End(read_urls([url])[0], lambda: credentials)
    end.connection.dataReceived(INFO)
    secrets = {"user", "pass", "auth_token", "nkey", "jwt", "sig"}
    assert {name: value for name, value in end.connect().items() if name in secrets} == shown
    assert "j.w.t" not in repr(credentials)


def test_credentials_that_cannot_be_read() -> None:
    """
    The connection ends with the reason.
    """

    def fail() -> Credentials:
        raise NatsKeyError("there is no nkey in the file")

    end = End(Server("one", 4222), fail)
    end.connection.dataReceived(INFO)
    end.connection.connectionLost(Failure(ConnectionResetError()))
    assert (end.transport.aborted, end.ends) == (True, ["there is no nkey in the file"])


def test_tls() -> None:
    """
    TLS begins after INFO, if the URL or the server wants it, with the name that the certificate must be for; nothing is
    sent before.
    """
    for server, info in (
        (Server("one", 1, tls=True), {"tls_available": True}),
        (Server("10.0.0.1", 1, name="one"), {"tls_required": True}),
    ):
        end = End(server)
        end.connection.dataReceived(b"INFO " + json.dumps(info).encode() + b"\r\n")
        assert (end.transport.plain, end.transport.encrypted) == (b"", "tls one")
        assert end.connect()["tls_required"] is True


def test_tls_that_the_server_has_not() -> None:
    """
    If the URL wants TLS and the server has none, nothing is sent to it.
    """
    end = End(Server("one", 1, tls=True))
    end.connection.dataReceived(INFO)
    end.connection.connectionLost(Failure(ConnectionResetError()))
    assert (end.transport.value(), end.transport.aborted) == (b"", True)
    assert "no TLS" in end.ends[0]


def test_messages() -> None:
    """
    A message comes to who subscribed to it; PING is answered; what was ended is ignored.
    """
    end = accepted()
    end.connection.dataReceived(b"MSG a.b 1 2\r\nhi\r\nMSG a.b 7 2\r\nhi\r\nPING\r\n")
    assert [message.payload for message in end.heard] == [b"hi"]
    assert end.transport.value() == b"PONG\r\n"


def test_sending() -> None:
    """
    Messages, subscriptions, and their end.
    """
    end = accepted()
    end.connection.publish(b"a.b", b"hello")
    end.connection.publish(b"a.b", b"?", b"back")
    end.connection.subscribe(b"2", b"c")
    end.connection.unsubscribe(b"2")
    assert end.transport.value() == b"PUB a.b  5\r\nhello\r\nPUB a.b back 1\r\n?\r\nSUB c 2\r\nUNSUB 2\r\n"


def test_subscriptions_while_connecting() -> None:
    """
    A subscription that begins before the greeting is in it; one that begins after it, before the server has accepted
    the client, is sent by itself.
    """
    end = End(Server("one", 4222))
    for sid in (b"2", b"3"):
        end.subscriptions[sid] = (b"c." + sid, end.heard.append)
        end.connection.subscribe(sid, b"c." + sid)
        end.connection.dataReceived(INFO)
    end.connection.unsubscribe(b"2")
    sent = end.transport.value().split(b"\r\n")
    assert [line for line in sent if b"SUB" in line] == [b"SUB a.* 1", b"SUB c.2 2", b"SUB c.3 3", b"UNSUB 2"]


def test_server_that_reads_slowly() -> None:
    """
    While the transport has enough, the connection is not writable; then it is ready again.
    """
    end = accepted()
    end.connection.pauseProducing()
    assert not end.connection.writable
    end.connection.resumeProducing()
    assert (end.connection.writable, end.readies) == (True, 2)
    end.connection.abort("why")
    end.connection.resumeProducing()
    end.connection.stopProducing()
    assert (end.connection.writable, end.readies) == (False, 2)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"-ERR 'Authorization Violation'\r\nPONG\r\n", "NATS refused: Authorization Violation"),
        (b"SSH-2.0-OpenSSH\r\n", "NATS sent something that cannot be read: an operation is unknown"),
    ],
)
def test_ends_with_a_reason(data: bytes, reason: str) -> None:
    """
    An error of the server, or nonsense, ends the connection; what follows is ignored, and the reason is kept.
    """
    end = End(Server("one", 4222))
    end.connection.dataReceived(INFO)
    end.connection.dataReceived(data)
    end.connection.abort("another")
    end.connection.connectionLost(Failure(ConnectionResetError()))
    assert (end.transport.aborted, end.readies, end.ends) == (True, 0, [reason])


def test_listener_that_fails(no_logged_failures: list[Any]) -> None:
    """
    A listener that fails is logged, and the next message is heard.
    """
    end = accepted()
    end.subscriptions[b"2"] = (b"b", lambda message: 1 / 0)  # type: ignore[assignment]
    end.connection.dataReceived(b"MSG b 2 1\r\n1\r\nMSG a.b 1 1\r\n2\r\n")
    assert [message.payload for message in end.heard] == [b"2"]
    assert len(no_logged_failures) == 1
    no_logged_failures.clear()


def test_close() -> None:
    """
    A connection that is closed sends what was to be sent.
    """
    end = accepted()
    end.connection.close()
    assert (end.transport.disconnecting, end.connection.writable) == (True, False)


def test_server_that_does_not_answer(clock: Clock) -> None:
    """
    A server that does not accept the client in time is given up.
    """
    end = End(Server("one", 4222))
    with watched(clock, end.connection, lambda seconds: None, clock.seconds):
        clock.advance(2.9)
        assert not end.transport.aborted
        clock.advance(0.2)
    end.connection.connectionLost(Failure(ConnectionResetError()))
    assert (end.transport.aborted, end.ends) == (True, ["no answer within 3 s"])
    assert clock.getDelayedCalls() == []


def test_pings(clock: Clock) -> None:
    """
    The connection is pinged; the time of each ping is reported; one on which nothing comes any more ends.
    """
    end, probed = accepted(), list[float]()
    with watched(clock, end.connection, probed.append, clock.seconds):
        clock.advance(3)
        assert end.transport.value() == b"PING\r\n"
        clock.advance(0.25)
        end.connection.dataReceived(b"PONG\r\n")
        for _ in range(5):
            clock.advance(1)
            # anything that comes shows that the server is there
            end.connection.dataReceived(b"MSG a.b 1 1\r\n1\r\n")
        assert (probed, end.transport.aborted) == ([0.25], False)
        for _ in range(5):
            clock.advance(1)
    assert end.transport.aborted
    assert clock.getDelayedCalls() == []
