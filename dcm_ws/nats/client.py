"""
A client of a NATS cluster: keeps one connection to one of its servers, and its subscriptions over reconnections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger

from dcm_ws.nats.connection import Credentials, Heard, NatsConnection
from dcm_ws.nats.urls import Server, read_discovered
from dcm_ws.nats.watch import CONNECT_SECONDS, PING_SECONDS, watched

_log = Logger(namespace="dcm_ws.bus")

BACKOFF_FIRST = 0.1
BACKOFF_LAST = 2.0
"""
Seconds to wait before the servers are tried again: after the first round, and at most.
"""

_DISCOVERED_MOST = 16


class NatsClient(Service):
    """
    A client.

    @param servers: the servers that were given; those that they name are used, too.
    @param name: returns the name of the client, for the operators of the servers.
    @param credentials: returns what is shown to the servers, for each connection.
    @param tls: makes the context of TLS for the name of a server.
    @param up: called with the address of the server that has accepted the client.
    @param down: called with the reason when a connection has ended, or could not be made.
    @param writable: called when more can be sent.
    @param probed: called with the seconds that a ping took.
    @param now: monotonic seconds.
    @param random: returns a number from 0 to 1.
    """

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[Server],
        *,
        name: Callable[[], str],
        credentials: Callable[[], Credentials],
        tls: Callable[[str], Any],
        up: Callable[[str], object],
        down: Callable[[str], object],
        writable: Callable[[], object],
        probed: Callable[[float], object],
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._given = list(servers)
        self._name_of_client = name
        self._credentials = credentials
        self._tls = tls
        self._up = up
        self._down = down
        self._writable = writable
        self._probed = probed
        self._now = now
        self._random = random
        self._sids = count(1)
        self._subscriptions: dict[bytes, tuple[bytes, Heard]] = {}
        self._discovered: list[Server] = []
        # open, and accepted by the server
        self._open: NatsConnection | None = None
        self._connection: NatsConnection | None = None
        self._connecting: Deferred[Any] | None = None
        self._nap: Deferred[None] | None = None
        self._working: Deferred[None] | None = None

    @property
    def writable(self) -> bool:
        """
        Whether a message can be sent now.
        """
        return self._connection is not None and self._connection.writable

    @property
    def max_payload(self) -> int:
        """
        Bytes that a message may have.
        """
        return 1 << 20 if self._connection is None else self._connection.max_payload

    def publish(self, subject: bytes, payload: bytes, reply: bytes = b"") -> None:
        """
        Send a message.  It is lost if there is no connection.
        """
        if self._connection is not None:
            self._connection.publish(subject, payload, reply)

    def subscribe(self, subject: bytes, heard: Heard) -> bytes:
        """
        Have C{heard} called with all messages of a subject, over all connections.  Returns what ends that.
        """
        sid = b"%d" % next(self._sids)
        self._subscriptions[sid] = (subject, heard)
        if self._open is not None:
            self._open.subscribe(sid, subject)
        return sid

    def unsubscribe(self, sid: bytes) -> None:
        """
        End a subscription.
        """
        del self._subscriptions[sid]
        if self._open is not None:
            self._open.unsubscribe(sid)

    def startService(self) -> None:
        super().startService()
        self._working = Deferred.fromCoroutine(self._work())
        self._working.addErrback(lambda failure: _log.failure("the client of NATS failed", failure))

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        for waiting in (self._connecting, self._nap):
            if waiting is not None:
                waiting.cancel()
        if self._open is not None:
            self._open.close()
        return self._working

    async def _work(self) -> None:
        attempt, row = 0, self._mixed(self._given)
        while self.running:
            if not row:
                await self._sleep(backoff(attempt, self._random()))
                attempt += 1
                row = self._mixed(self._known())
                continue
            server, since = row.pop(0), self._now()
            connection = await self._use(server)
            if connection.was_accepted:
                self._discovered = self._read(connection.others)
                # one that ends at once each time must not be tried without a pause
                if self._now() - since >= PING_SECONDS:
                    attempt, row = 0, self._mixed([other for other in self._known() if other != server])

    async def _use(self, server: Server) -> NatsConnection:
        """
        Use one server until the connection ends.
        """
        ended: Deferred[str] = Deferred()

        def ready() -> None:
            if self._connection is None:
                self._connection = connection
                self._up(server.shown)
            self._writable()

        connection = NatsConnection(
            server, self._name_of_client(), self._credentials, self._tls, self._subscriptions, ready, ended.callback
        )
        try:
            endpoint = HostnameEndpoint(self._reactor, server.host.encode(), server.port, timeout=CONNECT_SECONDS)
            self._connecting = endpoint.connect(Factory.forProtocol(lambda: connection))
            await self._connecting
            self._connecting, self._open = None, connection
            with watched(self._reactor, connection, self._probed, self._now):
                reason = await ended
        except Exception as error:
            # the errors of look-ups and connections have no common class
            reason = str(error) or type(error).__name__
        finally:
            self._connecting = self._open = self._connection = None
        if self.running:
            self._down(f"{server.shown}: {reason}")
        return connection

    def _known(self) -> list[Server]:
        return self._given + self._discovered

    def _read(self, others: Sequence[str]) -> list[Server]:
        known = {(server.host, server.port) for server in self._given}
        found = (read_discovered(other, self._given) for other in others[:_DISCOVERED_MOST])
        return [server for server in found if server is not None and (server.host, server.port) not in known]

    def _mixed(self, servers: Sequence[Server]) -> list[Server]:
        """
        In random order, so that not all clients go to the same server.
        """
        return sorted(servers, key=lambda server: self._random())

    async def _sleep(self, seconds: float) -> None:
        self._nap = deferLater(self._reactor, seconds)
        with suppress(CancelledError):
            await self._nap
        self._nap = None


def backoff(attempt: int, random: float) -> float:
    """
    Returns the seconds to wait before the servers are tried again: exponential, and up to half of it random.

    @param attempt: the number of the attempt, from 0.
    @param random: a number from 0 to 1.
    """
    return min(BACKOFF_LAST, BACKOFF_FIRST * 2.0 ** min(attempt, 32)) * (0.5 + random / 2)
