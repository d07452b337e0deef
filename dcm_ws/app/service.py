"""
The object graph: every object of the service is built here, once; the timers, the start and the drain.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from ipaddress import ip_address
from math import ceil
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from dcm_ws.app.files import default_folder
from dcm_ws.app.logs import Seldom, shown
from dcm_ws.app.settings import Settings
from dcm_ws.app.testee import EchoHub
from dcm_ws.app.timers import Sliced, every
from dcm_ws.core.agents import AgentMemory
from dcm_ws.core.clock import RunningClock
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.hub import Hub, World, base36
from dcm_ws.core.latest import LatestEvents
from dcm_ws.core.session import Rules
from dcm_ws.http.addresses import TrustedProxies
from dcm_ws.http.admission import Admission
from dcm_ws.http.assets import pages
from dcm_ws.http.endpoints import is_open_to_all, listen
from dcm_ws.http.metrics import HubCollector, MetricsPage, ReactorLag
from dcm_ws.http.origins import SAME_HOST, AllowedOrigins, Target
from dcm_ws.http.port import Port, bound_unsent
from dcm_ws.http.resources import Counts, Probe, QuietSite, health_report, make_site
from dcm_ws.http.shares import Share
from dcm_ws.http.sparing import Sparing
from dcm_ws.postgres.connection import Address, Place, one_line
from dcm_ws.postgres.data_folder import EmbeddedError
from dcm_ws.postgres.embedded import EmbeddedPostgres
from dcm_ws.postgres.kpis import KpiPoller
from dcm_ws.postgres.listener import NotifyListener
from dcm_ws.protocol.channels import GLOBAL, METRICS, Channels
from dcm_ws.protocol.errors import CloseCode, ProtocolError
from dcm_ws.protocol.events import Publishable
from dcm_ws.version import SERVER, VERSION
from dcm_ws.websocket.connection import PATHS, ConnectionLimits, WebSocketConnections
from dcm_ws.websocket.shortcuts import read_headers

# an operator may filter by this name
_log = Logger(namespace="dcm_ws.service.DCMService")

PRODUCTION_RATE_LIMIT = 100.0
"""
Messages a second from one client, where the operator has not said otherwise.
"""

PRODUCTION_RATE_BYTES = float(2 << 20)
"""
Bytes of messages a second from one client, unless the operator says otherwise.
"""

PRODUCTION_CONNECTIONS_PER_IP = 1000
"""
Connections from one address, where the operator has not said otherwise.
"""

PRODUCTION_HTTP_CONNECTIONS_PER_IP = 100
"""
HTTP connections from one address, unless the operator says otherwise.
"""

COUNTS_A_SECOND = 100.0
"""
How often C{/health} and C{/stats} each are rendered at most.
"""

_CLOSES_A_SECOND = 1000
_CLOSE_TICK = 0.05
_CLOSE_GRACE = 3.0
_SUMMARY_INTERVAL = 60.0


class StartError(Exception):
    """
    The service cannot start; the text says why, in one line.
    """


def _random_base36(length: int) -> str:
    return base36(secrets.randbelow(36**length)).rjust(length, "0")


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _limits(settings: Settings) -> ConnectionLimits:
    if settings.testee:
        # the testsuite sends up to 16 MiB, and all of a case before it reads
        return ConnectionLimits(32 << 20, 256 << 20, settings.compression)
    per_ip = settings.max_connections_per_ip
    if per_ip is None:
        per_ip = PRODUCTION_CONNECTIONS_PER_IP if settings.production else 0
    return ConnectionLimits(
        settings.max_message_size,
        settings.max_send_buffer,
        settings.compression,
        connections_per_ip=per_ip,
        stranger_message=settings.max_stranger_message,
        partial=settings.max_partial_bytes,
    )


def _allowed_origins(settings: Settings) -> AllowedOrigins:
    patterns = settings.allowed_origins or (() if settings.production else ("*",))
    return AllowedOrigins((*patterns, SAME_HOST) if settings.same_host else patterns, settings.server_names)


def _rate_bytes(settings: Settings) -> float:
    if settings.rate_bytes is not None:
        return settings.rate_bytes
    return PRODUCTION_RATE_BYTES if settings.production else 0.0


def _http_per_address(settings: Settings) -> int:
    per_ip = settings.max_http_per_ip
    if per_ip is not None:
        return per_ip
    per_ip = PRODUCTION_HTTP_CONNECTIONS_PER_IP if settings.production else 0
    # who limits an address to less has HTTP in mind, too
    most = settings.max_connections_per_ip or 0
    return min(per_ip or most, most or per_ip)


def real_world() -> World:
    """
    The clocks and the chance that are really there.
    """
    return World(now=time.monotonic, wall_ms=_wall_ms, random=_random_base36)


def make_service(settings: Settings, reactor: Any, world: World | None = None) -> DCMService:
    """
    The whole service, ready to be started, alone or as a part of another application.

    @param world: the clocks and the chance; the real ones where it is None.
    """
    world = real_world() if world is None else world
    sweep_interval = min(1.0, settings.handshake_timeout / 4, settings.ack_timeout / 4)
    clock = RunningClock(world.now)
    world = replace(world, now=clock)
    rate_limit = settings.rate_limit
    if rate_limit is None:
        rate_limit = PRODUCTION_RATE_LIMIT if settings.production else 0.0
    hub = (EchoHub if settings.testee else Hub)(
        world,
        server=SERVER,
        secrets=settings.secrets,
        rules=Rules(
            production=settings.production,
            mirror_clients=settings.mirror_clients,
            anonymous_listeners=settings.anonymous_listeners,
            enforce_expiry=settings.enforce_expiry,
            auth_timeout=settings.auth_timeout,
            heartbeat_interval=settings.heartbeat_interval,
            heartbeat_timeout=settings.heartbeat_timeout,
            sweep_interval=sweep_interval,
            max_subscriptions=settings.max_subscriptions,
            max_depth=settings.max_depth,
            rate_limit=rate_limit,
            rate_bytes=_rate_bytes(settings),
            stranger_rate=settings.stranger_rate,
            stranger_bytes=float(settings.max_stranger_message) if settings.stranger_rate else 0.0,
            rate_burst=max(1.0, rate_limit) if settings.rate_burst is None else settings.rate_burst,
        ),
        publishable=Publishable(settings.extra_events),
        latest=LatestEvents(settings.latest_events),
        channels=Channels(settings.extra_channels),
        deliveries=DeliveryQueue(
            world.now,
            ack_timeout=settings.ack_timeout,
            max_attempts=settings.max_attempts,
            max_pending=settings.max_pending,
            max_bytes=settings.max_pending_bytes,
        ),
        memory=AgentMemory(
            world.now,
            max_agents=settings.max_agents,
            max_kept=settings.max_kept,
            max_events=settings.max_recent_events,
            max_bytes=settings.max_recent_bytes,
        ),
        max_connections=settings.max_connections,
    )
    clock.longest = 3 * hub.sweep_interval
    return DCMService(settings, reactor, world, clock, hub)


class DCMService(MultiService):
    """
    dcm-ws as a Twisted service.

    @ivar hub: the clients.
    @ivar ready: fires with the service once it listens and, where it has a database, LISTENs there; fails with
        L{StartError} if that can never be.
    @ivar ports: what it listens on, in the order of C{settings.listen}, and then of C{settings.admin_listen}.
    """

    def __init__(self, settings: Settings, reactor: Any, world: World, clock: RunningClock, hub: Hub) -> None:
        super().__init__()
        self.setName("dcm-ws")
        self.hub = hub
        self.ready: Deferred[DCMService] = Deferred()
        self.ports: list[IListeningPort] = []
        self._settings = settings
        self._reactor = reactor
        self._clock = clock
        self._embedded: EmbeddedPostgres | None = None
        self._database: NotifyListener | None = None
        self._starting: Deferred[None] | None = None
        self._summed = (0, 0)
        self._why_bad = ""
        # a port that has stopped listening no longer tells its number
        self._number: int | None = None
        self._add_database(world)
        self._add_port(world)
        self._add_timers()

    # building

    def _add_database(self, world: World) -> None:
        settings = self._settings
        if settings.embedded:
            folder = settings.data_folder or default_folder()
            self._embedded = EmbeddedPostgres(self._reactor, folder)
            address: Address = self._embedded.place
        elif settings.database is not None:
            self._url = settings.database
            # read again each time, since the password may change
            address = lambda: succeed(Place(self._url))  # noqa: E731
        else:
            return
        self._database = NotifyListener(
            self._reactor,
            address,
            heard=self._heard,
            changed=self._database_changed,
            written=self.hub.tally.notify_seconds.observe,
            probed=self.hub.tally.probe_seconds.observe,
            now=world.now,
            random=random.random,
        )
        self._kpis = KpiPoller(
            self._reactor,
            address,
            took=lambda kpis: self.hub.announce(METRICS, "metric.update", kpis),
            wall_ms=world.wall_ms,
        )

    def _add_port(self, world: World) -> None:
        settings, hub = self._settings, self.hub
        self._proxies = TrustedProxies(settings.trusted_proxies)
        self._admission = Admission(
            hub.verify,
            origins=_allowed_origins(settings),
            proxies=self._proxies,
            refused=self._page_refused,
        )
        self._pages_refused = Seldom(world.now)
        self._websockets = WebSocketConnections(
            hub, self._reactor, server=SERVER, limits=_limits(settings), admission=self._admission
        )
        self._lag = ReactorLag(self._clock.real)
        health = health_report(hub, version=VERSION, database=self._database_report, port=lambda: self._number)
        counts: dict[bytes, IResource] = {
            b"health": Counts(hub, Sparing(health, world.now, COUNTS_A_SECOND)),
            b"stats": Counts(hub, Sparing(self._stats_report, world.now, COUNTS_A_SECOND)),
            b"livez": Probe(world.wall_ms, lambda: ""),
            b"readyz": Probe(world.wall_ms, self._not_ready),
            **dict(pages(world.wall_ms)),
        }
        collector = HubCollector(hub, lambda: self._stats_report(False)[1], self._lag)
        with_metrics = {b"metrics": MetricsPage(world.wall_ms, collector, world.now), **counts}
        self._sites: list[QuietSite] = []
        self._port = self._make_port(world, counts if settings.admin_listen else with_metrics, PATHS)
        # operators are not to be kept out by strangers who fill the other ports' shares
        self._admin_port = self._make_port(world, with_metrics, ())

    def _make_port(self, world: World, resources: Mapping[bytes, IResource], paths: tuple[str, ...]) -> Port:
        settings = self._settings
        site = make_site(world.wall_ms, resources, self._reactor, settings.http_timeout, paths)
        self._sites.append(site)
        return Port(
            self._websockets,
            site,
            paths=paths,
            now=world.now,
            wall_ms=world.wall_ms,
            head_timeout=settings.handshake_timeout,
            max_head=settings.max_head_size,
            max_waiting=settings.max_connections,
            clock=self._reactor,
            waiting=Share(per_address=self._websockets.share.per_address),
            http=Share(settings.max_http_connections, _http_per_address(settings)),
            trusts=self._proxies.trusts,
            client=self._http_client,
        )

    def _http_client(self, peer: str, head: bytes) -> str:
        """
        The address that an HTTP connection is counted by.
        """
        if not self._proxies.trusts(peer):
            return peer
        return self._proxies.client(peer, read_headers(head).get("x-forwarded-for", ""))

    def _add_timers(self) -> None:
        settings, hub, reactor = self._settings, self.hub, self._reactor
        sweep = Sliced("the heartbeat sweep", hub.sweep, reactor)
        retry = Sliced("the retry sweep", hub.retry, reactor)

        def start_sweep() -> None:
            # the clock leaves out most of a pause, so it is the clock that knows of one
            hub.paused(self._clock.tick())
            sweep.start()

        timers: list[tuple[float, str, Callable[[], object]]] = [
            (hub.sweep_interval, "the heartbeat sweep", start_sweep),
            (min(1.0, settings.retry_interval), "the retry sweep", retry.start),
            (1.0, "the sweep of the port", self._port.sweep),
            (1.0, "the sweep of the admin port", self._admin_port.sweep),
            (self._lag.interval, "the look at the reactor", self._lag.look),
            (_SUMMARY_INTERVAL, "the summary", self._summarize),
        ]
        if self._database is not None:
            timers.append((settings.metrics_interval, "the metrics", self._poll_metrics))
        for seconds, name, step in timers:
            every(seconds, name, step, reactor).setServiceParent(self)

    # starting

    def startService(self) -> None:
        self._starting = Deferred.fromCoroutine(self._start()).addCallbacks(self.ready.callback, self._not_started)

    def _not_started(self, failure: Failure) -> None:
        # to stop before it is ready is no failure
        if not failure.check(CancelledError):
            self.ready.errback(failure)

    async def _start(self) -> DCMService:
        for description in self._settings.listen:
            await self._listen(description, self._port)
        for description in self._settings.admin_listen:
            await self._listen(description, self._admin_port)
        super().startService()
        if self._embedded is not None:
            try:
                url = (await self._embedded.place()).dsn
            except EmbeddedError as error:
                raise StartError(str(error)) from None
            # its password is good for nothing else, and psql needs it
            _log.info("embedded PostgreSQL: {url}", url=url)
        if self._database is not None:
            self._kpis.setServiceParent(self)
            self._database.setServiceParent(self)
            await self._database.up
        # not before a signal would stop it in order
        self._reactor.callWhenRunning(_log.info, "ready")
        return self

    async def _listen(self, description: str, factory: Port) -> None:
        try:
            port = await listen(self._reactor, description, factory)
        except (CannotListenError, OSError) as error:
            # OSError is of a file that the endpoint names: a Unix socket's folder, a key
            reason = one_line(getattr(error, "socketError", error))
            raise StartError(f"cannot listen on {description}: {reason}") from None
        except Exception as error:
            raise StartError(
                f"cannot listen on {description!r}, which should be a Twisted endpoint"
                f" such as tcp:3849:interface=127.0.0.1: {one_line(error)}"
            ) from None
        bound_unsent(port)
        self.ports.append(port)
        self._note_address(description, port)

    def _note_address(self, description: str, port: IListeningPort) -> None:
        address = port.getHost()
        if not isinstance(address, IPv4Address | IPv6Address):
            _log.info("listening on {endpoint}", endpoint=description)
            if is_open_to_all(port):
                _log.warn(
                    "every account of this machine may connect to {endpoint}: use mode=660 and a group",
                    endpoint=description,
                )
            return
        if self._number is None:
            self._number = int(address.port)
        host = f"[{address.host}]" if ":" in address.host else address.host
        _log.info(
            "listening on ws{s}://{host}:{port}/ (health: http{s}://{host}:{port}/health)",
            s="s" if description.startswith("ssl:") else "",
            host=host,
            port=address.port,
        )
        if not self._settings.production and not ip_address(address.host).is_loopback:
            _log.warn(
                "development mode on {host}:{port}: everybody who can reach it may read and publish everything;"
                " set DCM_ENV=production, or HOST=127.0.0.1",
                host=host,
                port=address.port,
            )

    # running

    def _heard(self, payload: str) -> None:
        try:
            self.hub.notified(payload)
        except ProtocolError as error:
            self._why_bad = error.reason
            _log.debug("bad notification: {reason!a}", reason=error.reason)

    def _page_refused(self, origin: str, target: Target) -> None:
        held = self._pages_refused.held_back()
        if held is not None:
            _log.warn(
                "a web page may not connect: its Origin {origin} is not allowed, and is not the Host {host};"
                " see --allowed-origin, --server-name and --trusted-proxy ({held} more in the last minute)",
                origin=shown(origin),
                host=shown(target.host),
                held=held,
            )

    def _database_changed(self, up: bool) -> None:
        event = "system.info" if up else "system.error"
        state = "up" if up else "down"
        self.hub.announce(GLOBAL, event, {"component": "database", "state": state})

    def _poll_metrics(self) -> None:
        if self.hub.metrics_wanted:
            self._kpis.tick()

    def _summarize(self) -> None:
        """
        Once a minute, in sum, what would be too much to log one by one.
        """
        given_up, bad = now = (self.hub.given_up, self.hub.bad_notifications)
        given_up_before, bad_before = self._summed
        self._summed = now
        if given_up > given_up_before:
            _log.warn("{n} deliveries given up in the last minute", n=given_up - given_up_before)
        if bad > bad_before:
            _log.warn(
                "{n} bad notifications in the last minute; the last one: {reason!a}",
                n=bad - bad_before,
                reason=self._why_bad,
            )

    # counts

    @property
    def _waiting(self) -> list[Share]:
        return [self._port.waiting, self._admin_port.waiting]

    @property
    def _http(self) -> list[Share]:
        return [self._port.http, self._admin_port.http]

    def _database_report(self) -> Mapping[str, object]:
        if self._database is None:
            return {"state": "none"}
        return self._database.report()

    def _not_ready(self) -> str:
        """
        Why no client should be sent here; empty where there is no reason.
        """
        if self.hub.draining:
            return "draining"
        if self._settings.ready_needs_database and self._database_report()["state"] != "up":
            return "the database is not listened to"
        return ""

    def _stats_report(self, channels: bool) -> tuple[HTTPStatus, dict[str, object]]:
        stats = self.hub.stats(channels=channels)
        stats["database"] = self._database_report()
        stats["partialBytes"] = self._websockets.partial.total
        stats["connections"] = {
            "waiting": sum(map(len, self._waiting)),
            "http": sum(map(len, self._http)),
            "websocket": len(self._websockets.share),
        }
        limits = stats["limits"]
        assert isinstance(limits, dict)
        limits |= {
            "handshakeTimeout": self._port.timed_out + self._admin_port.timed_out,
            "maxHeadSize": self._port.too_long + self._admin_port.too_long,
            "maxWaiting": self._port.crowded_out + self._admin_port.crowded_out,
            "maxConnectionsPerIp": sum(share.crowded for share in (self._websockets.share, *self._waiting)),
            "maxHttpConnections": sum(share.full for share in self._http),
            "maxHttpPerIp": sum(share.crowded for share in self._http),
            "maxPartialBytes": self._websockets.partial.crowded_out,
            "httpTimeout": sum(site.timed_out for site in self._sites),
            "allowedOrigin": self._admission.origins_refused,
        }
        return HTTPStatus.OK, stats

    def use_secrets(self, secrets: Sequence[str]) -> None:
        """
        From now on tokens are good that are signed with one of C{secrets}.  No connection is touched.
        """
        self.hub.secrets = tuple(secrets)
        _log.info("secrets taken over: {n} in use", n=len(secrets))

    def use_database(self, url: str | None) -> None:
        """
        The next connection to the database is made with C{url}.  Nothing happens where the service was not given one.
        """
        if url is not None:
            self._url = url

    # stopping

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, tell the clients and close their connections, spread over the drain time, and stop the rest.
        """
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
        for port in self.ports:
            await maybeDeferred(port.stopListening)
        if self.running:
            _log.info("draining {n} clients", n=len(self.hub.sessions))
            self.hub.drain()
            self._port.drop()
            self._admin_port.drop()
            await self._close_clients()
            self._websockets.abort()
            self._port.abort()
            self._admin_port.abort()
            await super().stopService()
        if self._embedded is not None:
            await self._embedded.stop()
        _log.info("stopped")

    async def _close_clients(self) -> None:
        sessions = list(self.hub.sessions)
        seconds = min(self._settings.drain, len(sessions) / _CLOSES_A_SECOND)
        ticks = max(1, ceil(seconds / _CLOSE_TICK))
        for tick in range(ticks):
            for session in sessions[tick::ticks]:
                self.hub.close(session, CloseCode.RESTART)
            await deferLater(self._reactor, _CLOSE_TICK)
        waited = 0.0
        while len(self._websockets) and waited < _CLOSE_GRACE:
            await deferLater(self._reactor, _CLOSE_TICK)
            waited += _CLOSE_TICK
