"""
One connection to a NATS server: greeting, TLS, authentication, and the messages of its subscriptions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from dcm_ws.nats.nkeys import NatsKeyError, UserKey
from dcm_ws.nats.reading import Message, NatsProtocolError, Reading
from dcm_ws.nats.urls import Server
from dcm_ws.version import VERSION

_log = Logger(namespace="dcm_ws.bus")

Heard = Callable[[Message], object]


@dataclass(frozen=True, slots=True)
class Credentials:
    """
    What a client shows to a server in addition to what is in the URL.

    @ivar key: signs what the server wants to have signed; None for no key.
    @ivar jwt: says what the owner of the key may do; empty if the server knows the key.
    """

    key: UserKey | None = None
    jwt: str = field(default="", repr=False)


@implementer(IPushProducer)
class NatsConnection(Protocol):
    """
    A connection.

    @param server: which one it leads to.
    @param name: of the client, for the operators of the server.
    @param credentials: returns them; it may raise L{NatsKeyError} and C{OSError}.
    @param tls: makes the context of TLS for the name of a server.
    @param subscriptions: by their id: the subject, and who receives the messages.
    @param ready: called when the server has accepted the client, and again each time that it takes more to send.
    @param ended: called once, when the connection has ended, with the reason.

    @ivar writable: the server takes more to send.
    @ivar was_accepted: the server has accepted the client.
    @ivar max_payload: bytes that a message may have.
    @ivar others: addresses of other servers of the cluster.
    @ivar alive: something has come since this was set to False.
    """

    transport: Any

    def __init__(
        self,
        server: Server,
        name: str,
        credentials: Callable[[], Credentials],
        tls: Callable[[str], Any],
        subscriptions: Mapping[bytes, tuple[bytes, Heard]],
        ready: Callable[[], object],
        ended: Callable[[str], object],
    ) -> None:
        self._server = server
        self._name = name
        self._credentials = credentials
        self._tls = tls
        self._subscriptions = subscriptions
        self._ready = ready
        self._ended = ended
        self._reading = Reading(
            message=self._deliver, info=self._greet, ping=self._answer_ping, pong=self._ponged, error=self._refused
        )
        self._greeted = False
        self._encrypted = False
        self._reason = ""
        self._pongs: list[Callable[[], object]] = []
        self.writable = False
        self.was_accepted = False
        self.max_payload = 1 << 20
        self.others: list[str] = []
        self.alive = True

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.setTcpKeepAlive(True)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        self.alive = True
        try:
            self._reading.feed(data)
        except NatsProtocolError as error:
            self.abort(f"NATS sent something that cannot be read: {error}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.writable = False
        self._reading.stopped = True
        self._ended(self._reason or reason.getErrorMessage().splitlines()[0])

    def publish(self, subject: bytes, payload: bytes, reply: bytes = b"") -> None:
        """
        Send a message; C{payload} is no longer than L{max_payload}.
        """
        self.transport.write(b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload))

    def subscribe(self, sid: bytes, subject: bytes) -> None:
        """
        Begin a subscription, unless the greeting will.
        """
        if self._greeted:
            self.transport.write(b"SUB %b %b\r\n" % (subject, sid))

    def unsubscribe(self, sid: bytes) -> None:
        """
        End a subscription.
        """
        if self._greeted:
            self.transport.write(b"UNSUB %b\r\n" % sid)

    def ping(self, answered: Callable[[], object]) -> None:
        """
        Have C{answered} called when the server has read all that was sent before.
        """
        self._pongs.append(answered)
        self.transport.write(b"PING\r\n")

    def close(self) -> None:
        """
        End the connection after what was sent.
        """
        self.writable = False
        self._reading.stopped = True
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def abort(self, reason: str) -> None:
        """
        End the connection at once.
        """
        self._reason = self._reason or reason
        self.writable = False
        self._reading.stopped = True
        self.transport.abortConnection()

    def pauseProducing(self) -> None:
        self.writable = False

    def resumeProducing(self) -> None:
        if self.was_accepted and not self._reading.stopped:
            self.writable = True
            self._ready()

    def stopProducing(self) -> None:
        self.writable = False

    def _greet(self, info: dict[str, Any]) -> None:
        """
        INFO has come: the first one begins the connection, later ones say that something has changed.
        """
        size, others = info.get("max_payload"), info.get("connect_urls")
        if isinstance(size, int) and size > 0:
            self.max_payload = size
        if isinstance(others, list):
            self.others = [other for other in others if isinstance(other, str)]
        if self._greeted:
            return
        required = bool(info.get("tls_required"))
        if self._server.tls and not required and not info.get("tls_available"):
            self.abort("the NATS server has no TLS, and its URL begins with tls://")
            return
        try:
            credentials = self._credentials()
        except (NatsKeyError, OSError) as error:
            self.abort(str(error))
            return
        if self._server.tls or required:
            self._encrypted = True
            self.transport.startTLS(self._tls(self._server.name or self._server.host))
        nonce = info.get("nonce")
        self._greeted = True
        connect = self._connect(credentials, nonce if isinstance(nonce, str) else "")
        subscriptions = b"".join(b"SUB %b %b\r\n" % (subject, sid) for sid, (subject, _) in self._subscriptions.items())
        self.transport.write(b"CONNECT %b\r\n%bPING\r\n" % (json.dumps(connect).encode(), subscriptions))
        self._pongs.append(self._accept)

    def _connect(self, credentials: Credentials, nonce: str) -> dict[str, object]:
        server = self._server
        connect: dict[str, object] = {
            "verbose": False,
            "pedantic": False,
            "tls_required": self._encrypted,
            "name": self._name,
            "lang": "python-twisted",
            "version": VERSION,
            "protocol": 1,
            "headers": True,
            "no_responders": True,
            "echo": False,
        }
        if server.token:
            connect["auth_token"] = server.token
        elif server.user:
            connect |= {"user": server.user, "pass": server.password}
        if credentials.key is not None and nonce:
            connect["sig"] = credentials.key.sign(nonce)
            # the JWT has the public key in it
            connect |= {"jwt": credentials.jwt} if credentials.jwt else {"nkey": credentials.key.public}
        return connect

    def _accept(self) -> None:
        self.was_accepted = self.writable = True
        self._ready()

    def _ponged(self) -> None:
        if self._pongs:
            self._pongs.pop(0)()

    def _answer_ping(self) -> None:
        self.transport.write(b"PONG\r\n")

    def _refused(self, error: str) -> None:
        # a client that may not subscribe or publish is of no use as a bus, so each error ends the connection
        self.abort(f"NATS refused: {error}")

    def _deliver(self, message: Message) -> None:
        subscription = self._subscriptions.get(message.sid)
        if subscription is not None:
            try:
                subscription[1](message)
            except Exception:
                _log.failure("a message of NATS failed")
