"""
The life of the service: it starts, is ready, drains its clients and stops.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from math import ceil
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcm_ws.app.database import Database
from dcm_ws.app.drain_delay import DrainDelay
from dcm_ws.app.errors import StartError
from dcm_ws.app.listening import Endpoints
from dcm_ws.app.mcp import McpService
from dcm_ws.app.modes import drain_delay
from dcm_ws.app.settings import Settings
from dcm_ws.core.application_hub import ApplicationHub
from dcm_ws.core.clients import Clients
from dcm_ws.core.counts import Counts
from dcm_ws.core.expulsion import Expelled, Expulsion
from dcm_ws.core.hub import Hub
from dcm_ws.core.identity import Identity
from dcm_ws.http.event_stream import EventStreams
from dcm_ws.http.jwks import KeySource
from dcm_ws.http.port import Port
from dcm_ws.protocol.errors import CloseCode, ProtocolError
from dcm_ws.websocket.factory import WebSocketConnections

# an operator may filter by this name
_log = Logger(namespace="dcm_ws.service.DCMService")

_CLOSES_A_SECOND = 1000
# the other nodes have work with each client, and a client is only away from its own close on
_CLOSES_A_SECOND_IN_CLUSTER = 100
_CLOSE_TICK = 0.05
_CLOSE_GRACE = 3.0


class DCMService(MultiService):
    """
    dcm-ws as a Twisted service.  C{dcm_ws.app.build.make_service} makes its parts.

    @param endpoints: where to listen.
    @param port: serves clients, on C{settings.listen}.
    @param admin_port: serves operators, on C{settings.admin_listen}.
    @param database: None if the service has none.
    @param keys: reads the keys of tokens; None if there are none.
    @param mcp: serves MCP clients; None if none are to be served.
    @param timers: run while the service does.

    @ivar hub: for an application that embeds the service: publishes its events, and looks after dead letters.
    @ivar counts: what the service counts.
    @ivar ready: fires with the service once it listens and, if it has a database, LISTENs there; fails with
        L{StartError} if the service cannot start.
    @ivar delay: what passes before it closes connections.
    @ivar ports: what it listens on, in the order of C{settings.listen}, and then of C{settings.admin_listen}.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        *,
        hub: Hub,
        application_hub: ApplicationHub,
        counts: Counts,
        clients: Clients,
        expulsion: Expulsion,
        identity: Identity,
        endpoints: Endpoints,
        websockets: WebSocketConnections,
        streams: EventStreams,
        port: Port,
        admin_port: Port,
        database: Database | None,
        keys: KeySource | None,
        mcp: McpService | None,
        timers: Iterable[IService],
    ) -> None:
        super().__init__()
        self.setName("dcm-ws")
        self.hub = application_hub
        self._hub = hub
        self.counts = counts
        self._clients = clients
        self._expulsion = expulsion
        self._identity = identity
        self.ready: Deferred[DCMService] = Deferred()
        self.ports: list[IListeningPort] = endpoints.ports
        self._settings = settings
        self._reactor = reactor
        self._endpoints = endpoints
        self._websockets = websockets
        self._streams = streams
        self._port = port
        self._admin_port = admin_port
        self._database = database
        self._keys = keys
        self._mcp = mcp
        self._starting: Deferred[None] | None = None
        self._is_ready = False
        self.delay = DrainDelay(reactor, drain_delay(settings))
        for timer in timers:
            timer.setServiceParent(self)

    def startService(self) -> None:
        self._starting = Deferred.fromCoroutine(self._start()).addCallbacks(self.ready.callback, self._not_started)

    def _not_started(self, failure: Failure) -> None:
        # to stop before it is ready is not a failure
        if not failure.check(CancelledError):
            self.ready.errback(failure)

    async def _start(self) -> DCMService:
        if self._keys is not None:
            try:
                self._keys.start()
            except ValueError as error:
                raise StartError(f"--jwks {error}") from None
        if self._mcp is not None:
            self._mcp.check()
        for description in self._settings.listen:
            await self._endpoints.listen(description, self._port, is_public=True)
        for description in self._settings.admin_listen:
            await self._endpoints.listen(description, self._admin_port, is_public=False)
        super().startService()
        if self._database is not None:
            await self._database.prepare()
            self._database.setServiceParent(self)
            await self._database.up()
        if self._mcp is not None:
            self._mcp.setServiceParent(self)
        self._is_ready = True
        # not before a signal would stop it in order
        self._reactor.callWhenRunning(_log.info, "ready")
        return self

    def use_secrets(self, secrets: Sequence[str]) -> None:
        """
        From now on accept tokens that are signed with one of C{secrets}, and read the keys of tokens again.  Connected
        clients stay connected.
        """
        self._identity.secrets = tuple(secrets)
        self._identity.keys.refresh()
        _log.info("secrets taken over: {n} in use", n=len(secrets))

    def disconnect_agent(self, agent: str, *, revoke: bool = False) -> Deferred[Expelled]:
        """
        Close all connections of an agent with 4003, at all nodes of a cluster.

        @param revoke: refuse its tokens that were issued up to now.
        @return: fails with L{ProtocolError} if that is not possible; then nothing was done.
        """
        done: Deferred[Expelled] = Deferred()

        def ready(found: Expelled | ProtocolError) -> None:
            if isinstance(found, ProtocolError):
                done.errback(found)
            else:
                done.callback(found)

        self._expulsion.expel(agent, ready, revoke=revoke)
        return done

    def use_database(self, url: str | None) -> None:
        """
        Make the next connection to the database with C{url}.  Nothing happens if it is None, or if the service was
        made without a database.
        """
        if url is not None and self._database is not None:
            self._database.use(url)

    def stopService(self) -> Deferred[None]:
        """
        Let the drain delay pass, stop listening, notify the clients, close their connections, spread over the drain
        time, and stop the rest.
        """
        return Deferred.fromCoroutine(self._stop())

    def is_stopping(self) -> None:
        """
        Tell load balancers, operators and other nodes that this service is about to stop.  Clients do not notice.
        """
        self._hub.draining = True
        if self._database is not None:
            self._database.is_stopping()

    async def _stop(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
        if self.running:
            self.is_stopping()
        if self._is_ready:
            # otherwise nobody was sent here
            await self.delay.passed()
        await self._endpoints.close()
        if self.running:
            _log.info("draining {n} clients", n=len(self._clients.sessions))
            # the other nodes have the same log, and closing may take long
            self._hub.drain(accept=self._settings.cluster)
            if self._mcp is not None:
                self._mcp.drain()
            self._port.drop()
            self._admin_port.drop()
            await self._close_clients()
            self._websockets.abort()
            self._streams.abort()
            self._port.abort()
            self._admin_port.abort()
            await super().stopService()
        if self._database is not None:
            await self._database.shut_down()
        _log.info("stopped")

    async def _close_clients(self) -> None:
        sessions = list(self._clients.sessions)
        # those that connected at the same time come back at different times
        random.shuffle(sessions)
        rate = _CLOSES_A_SECOND_IN_CLUSTER if self._settings.cluster else _CLOSES_A_SECOND
        seconds = min(self._settings.drain, len(sessions) / rate)
        ticks = max(1, ceil(seconds / _CLOSE_TICK))
        for tick in range(ticks):
            for session in sessions[tick::ticks]:
                self._hub.close(session, CloseCode.RESTART)
            await deferLater(self._reactor, _CLOSE_TICK)
        waited = 0.0
        while (len(self._websockets) or len(self._streams)) and waited < _CLOSE_GRACE:
            await deferLater(self._reactor, _CLOSE_TICK)
            waited += _CLOSE_TICK
