"""
Builds the service: makes every object once, and hands each the others that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from os import getpid
from typing import Any, NamedTuple

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.web.resource import IResource

from dcm_ws.app.bus import make_bus
from dcm_ws.app.cluster import make_membership
from dcm_ws.app.database import Database
from dcm_ws.app.files import default_folder
from dcm_ws.app.listening import Endpoints
from dcm_ws.app.modes import (
    connections_per_address,
    has_durable_log,
    http_per_address,
    log_bytes,
    origin_patterns,
    rate_burst,
    rate_bytes,
    rate_limit,
    worker_count,
)
from dcm_ws.app.owning import NodeAgents
from dcm_ws.app.service import DCMService
from dcm_ws.app.settings import Settings, SettingsError
from dcm_ws.app.siblings import Siblings
from dcm_ws.app.summary import Summary
from dcm_ws.app.testee import EchoHub, EchoInterpreter
from dcm_ws.app.timers import Sliced, every
from dcm_ws.app.world import real_world
from dcm_ws.brokers.bus_postgres import PostgresBus
from dcm_ws.brokers.flushes import FLUSH_SECONDS
from dcm_ws.brokers.log_rows import LogRows
from dcm_ws.brokers.membership import Membership
from dcm_ws.brokers.postgres_log import PostgresLog
from dcm_ws.core.agents import KEEP_DELIVERIES, AgentMemory
from dcm_ws.core.assembly import Core, assemble
from dcm_ws.core.changed import Changed
from dcm_ws.core.clock import RunningClock
from dcm_ws.core.counts import Count, Counts, LimitCounts
from dcm_ws.core.dead_letters import DeadLetters
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.hub import Hub
from dcm_ws.core.interpreter import Interpreter
from dcm_ws.core.keys import PublishKeys
from dcm_ws.core.latest import LatestEvents
from dcm_ws.core.log import MemoryLog
from dcm_ws.core.ports import Bus, Owners, World
from dcm_ws.core.publish_queue import PublishQueue
from dcm_ws.core.rules import Rules
from dcm_ws.http.addresses import TrustedProxies
from dcm_ws.http.admission import Admission
from dcm_ws.http.assets import pages
from dcm_ws.http.gathering import CommonReports, Joined
from dcm_ws.http.metrics import MetricsPage, ReactorLag, ServiceCollector
from dcm_ws.http.origins import AllowedOrigins
from dcm_ws.http.port import Port
from dcm_ws.http.report import DatabaseStats, Report
from dcm_ws.http.request_headers import read_headers
from dcm_ws.http.resources import Probe
from dcm_ws.http.shares import Share
from dcm_ws.http.site import make_site
from dcm_ws.http.sparing import Sparing
from dcm_ws.http.status import ReportPage
from dcm_ws.postgres.connection import Place
from dcm_ws.postgres.embedded import EmbeddedPostgres
from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.events import Ephemeral, Publishable
from dcm_ws.version import SERVER, VERSION
from dcm_ws.websocket.connection import ConnectionLimits
from dcm_ws.websocket.factory import PATHS, WebSocketConnections
from dcm_ws.websocket.pacing import Pacing

REPORTS_A_SECOND = 100.0
"""
How often C{/health} and C{/stats} each are rendered at most.
"""

_KEEP_DURABLE = 86_400.0
"""
Seconds for which what absent agents miss is kept if the log is durable, and nothing else is set.
"""


class _Base(NamedTuple):
    """
    What every part is made from.

    @ivar siblings: the other workers; None if this is the only process of the service.
    """

    settings: Settings
    reactor: Any
    world: World
    siblings: Siblings | None

    def share(
        self, kind: str, most: int = 0, per_address: int = 0, *, full: Count | None = None, crowded: Count
    ) -> Share:
        """
        Room for connections, as in L{Siblings.share}.
        """
        if self.siblings is None:
            return Share(most, per_address, full=full, crowded=crowded)
        return self.siblings.share(kind, most, per_address, full=full, crowded=crowded)


class _Shares(NamedTuple):
    """
    Room for the connections of one port.
    """

    waiting: Share
    http: Share


def make_service(settings: Settings, reactor: Any, world: World | None = None) -> DCMService:
    """
    Build the service, ready to be started, by itself or as a part of another application.

    @param world: the clocks and the randomness; the real ones if it is None.
    @raise SettingsError: the settings ask for several workers, which need processes of their own.
    """
    if worker_count(settings) > 1:
        raise SettingsError("an application cannot have workers: run dcm-ws serve --workers, or set workers to 1")
    return build_service(settings, reactor, world)


def build_service(
    settings: Settings, reactor: Any, world: World | None = None, siblings: Siblings | None = None
) -> DCMService:
    """
    Build the service of this process.

    @param world: as in L{make_service}.
    @param siblings: the other workers; None if this is the only process of the service.
    """
    world = real_world() if world is None else world
    clock = RunningClock(world.now)
    base = _Base(settings, reactor, replace(world, now=clock), siblings)
    counts = Counts()
    channels = Channels(settings.extra_channels)
    log = _make_log(base, counts, channels)
    bus = make_bus(settings, reactor, lambda: _place_of(database), counts, base.world.now) if settings.cluster else None
    agents = None
    if bus is not None:
        # a cluster has a durable log
        assert isinstance(log, PostgresLog)
        agents = NodeAgents(reactor, lambda: _place_of(database), base.world, counts, log, bus, _keep_durable(settings))
    core = _make_core(base, counts, log, channels, bus, None if agents is None else agents.owned)
    clock.longest = 3 * core.liveness.interval
    lag = ReactorLag(clock.real)
    summary = Summary(counts, clock)
    pacing = Pacing(reactor)
    endpoints = Endpoints(reactor, production=settings.production) if siblings is None else siblings.endpoints
    membership = None
    if settings.cluster:
        membership = make_membership(settings, base.world, endpoints, core.clients, log)
    database = _make_database(base, core, log, summary, pacing, membership)
    if bus is not None and membership is not None:
        join = bus.join
        membership.joined = lambda node, cluster: join(str(node), cluster)
        if agents is not None and database is not None:
            agents.attach(core, database, membership)
        bus.setServiceParent(database)
        if database is not None and isinstance(bus, PostgresBus):
            database.hurries.append(bus.hurry)
    proxies = TrustedProxies(settings.trusted_proxies)
    websockets = _make_websockets(base, core, proxies, summary, pacing)
    # separate, so that strangers who fill the public port do not keep operators out
    public, admin = (_make_shares(base, kind, websockets, counts.limits) for kind in ("", " of operators"))
    report = _make_report(base, core, database, endpoints, websockets, (public, admin), bus, agents)
    metrics = _make_metrics(base, core, report, lag)
    if siblings is None:
        resources = _make_resources(core, report)
    else:
        siblings.reports.update(
            health=report.health,
            stats=report.stats,
            ready=lambda names: report.not_ready(),
            metrics=lambda names: metrics.families(),
        )
        resources = _make_common_resources(core, report, siblings)
    with_metrics = resources | {b"metrics": metrics}

    public_resources = resources if settings.admin_listen else with_metrics
    port = _make_port(base, counts.limits, websockets, proxies, PATHS, public_resources, public)
    admin_port = _make_port(base, counts.limits, websockets, proxies, (), with_metrics, admin)
    return DCMService(
        settings,
        reactor,
        hub=core.hub,
        counts=counts,
        clients=core.clients,
        identity=core.identity,
        endpoints=endpoints,
        websockets=websockets,
        port=port,
        admin_port=admin_port,
        database=database,
        timers=_make_timers(base, clock, core, (port, admin_port), lag, summary, database),
    )


def _make_log(base: _Base, counts: Counts, channels: Channels) -> MemoryLog | PostgresLog:
    """
    The log; where it may be in the database, memory has its end.
    """
    settings, now = base.settings, base.world.now
    durable = has_durable_log(settings)
    memory = MemoryLog(
        base.world.random(8),
        now,
        keep=settings.log_keep,
        max_events=settings.max_recent_events,
        max_bytes=min(log_bytes(settings, durable=False), log_bytes(settings, durable=durable)),
        crowded=None if durable else counts.limits.max_recent_events.add_of,
        wall_ms=base.world.wall_ms,
    )
    if not durable:
        return memory
    queue = PublishQueue(
        now,
        counts.limits.max_log_waiting.add_of,
        max_events=settings.max_log_waiting,
        max_bytes=64 << 20,
    )
    return PostgresLog(
        memory,
        LogRows(channels),
        queue,
        counts.engine,
        later=base.reactor.callLater,
        now=now,
        keep=settings.log_keep,
        max_bytes=log_bytes(settings, durable=True),
        crowded=counts.limits.max_recent_events.add_of,
        shares=settings.cluster,
    )


def _place_of(database: Database | None) -> Deferred[Place]:
    # a cluster has a database
    assert database is not None
    return database.place()


def _keep_durable(settings: Settings) -> float:
    return _KEEP_DURABLE if settings.keep_deliveries is None else settings.keep_deliveries


def _make_core(
    base: _Base,
    counts: Counts,
    log: MemoryLog | PostgresLog,
    channels: Channels,
    bus: Bus | None,
    owners: Owners | None,
) -> Core:
    settings, now, changed = base.settings, base.world.now, Changed()
    keep_deliveries = settings.keep_deliveries
    return assemble(
        base.world,
        _make_rules(settings),
        counts,
        server=SERVER,
        secrets=settings.secrets,
        publishable=Publishable(settings.extra_events),
        latest=LatestEvents(settings.latest_events),
        channels=channels,
        deliveries=DeliveryQueue(
            now,
            counts,
            changed,
            ack_timeout=settings.ack_timeout,
            max_attempts=settings.max_attempts,
            max_pending=settings.max_pending,
            max_bytes=settings.max_pending_bytes,
        ),
        memory=AgentMemory(
            now,
            counts,
            changed,
            keep_deliveries=KEEP_DELIVERIES if keep_deliveries is None else keep_deliveries,
            max_agents=settings.max_agents,
            max_agent_bytes=settings.max_agent_bytes,
            max_kept=settings.max_kept,
        ),
        letters=DeadLetters(
            now,
            base.world.wall_ms,
            counts,
            max_letters=settings.max_dead_letters,
            max_bytes=settings.max_dead_letter_bytes,
        ),
        keys=PublishKeys(now, counts, max_keys=settings.max_keys),
        log=log,
        bus=bus,
        owners=owners,
        ephemeral=Ephemeral(settings.ephemeral_events),
        changed=changed,
        keep_durable=_keep_durable(settings),
        max_pending=settings.max_pending,
        max_connections=settings.max_connections,
        pool=None if base.siblings is None else base.siblings.pool,
        clients_elsewhere=None if base.siblings is None else base.siblings.clients_elsewhere,
        hub=EchoHub if settings.testee else Hub,
        interpreter=EchoInterpreter if settings.testee else Interpreter,
    )


def _make_rules(settings: Settings) -> Rules:
    return Rules(
        production=settings.production,
        mirror_clients=settings.mirror_clients,
        anonymous_listeners=settings.anonymous_listeners,
        enforce_expiry=settings.enforce_expiry,
        auth_timeout=settings.auth_timeout,
        heartbeat_interval=settings.heartbeat_interval,
        heartbeat_timeout=settings.heartbeat_timeout,
        sweep_interval=min(1.0, settings.handshake_timeout / 4, settings.ack_timeout / 4),
        max_subscriptions=settings.max_subscriptions,
        max_depth=settings.max_depth,
        rate_limit=rate_limit(settings),
        rate_bytes=rate_bytes(settings),
        stranger_rate=settings.stranger_rate,
        stranger_bytes=float(settings.max_stranger_message) if settings.stranger_rate else 0.0,
        rate_burst=rate_burst(settings),
    )


def _make_database(
    base: _Base,
    core: Core,
    log: MemoryLog | PostgresLog,
    summary: Summary,
    pacing: Pacing,
    membership: Membership | None,
) -> Database | None:
    settings, postgres = base.settings, None
    if not settings.embedded and settings.database is None:
        return None
    if settings.embedded:
        postgres = (
            EmbeddedPostgres(base.reactor, settings.data_folder or default_folder())
            if base.siblings is None
            else base.siblings.postgres
        )
    return Database(
        settings,
        base.reactor,
        base.world,
        postgres=postgres,
        router=core.router,
        wants_metrics=core.presence.wants_metrics,
        counts=core.counts,
        summary=summary,
        pacing=pacing,
        log=log if isinstance(log, PostgresLog) else None,
        journal=core.journal,
        loading=core.loading,
        hub=core.hub,
        membership=membership,
    )


def _no_database() -> DatabaseStats:
    return {"state": "none"}


def _no_journal() -> None:
    return None


def _no_bus() -> None:
    return None


def _no_owners() -> None:
    return None


def _make_websockets(
    base: _Base, core: Core, proxies: TrustedProxies, summary: Summary, pacing: Pacing
) -> WebSocketConnections:
    settings = base.settings
    admission = Admission(
        core.identity.verify,
        origins=AllowedOrigins(origin_patterns(settings), settings.server_names),
        proxies=proxies,
        refused=summary.page_refused,
        limits=core.counts.limits,
    )
    return WebSocketConnections(
        core.hub,
        core.interpreter,
        core.charges,
        base.reactor,
        world=base.world,
        counts=core.counts,
        production=settings.production,
        server=SERVER,
        limits=_connection_limits(settings),
        # the hub limits their number, once they are open
        share=base.share(
            "websocket",
            per_address=connections_per_address(settings),
            crowded=core.counts.limits.max_connections_per_ip,
        ),
        admission=admission,
        pacing=pacing,
    )


def _connection_limits(settings: Settings) -> ConnectionLimits:
    message, send_buffer = settings.max_message_size, settings.max_send_buffer
    if settings.testee:
        # the testsuite sends up to 16 MiB, and all messages of a case before it reads
        message, send_buffer = 32 << 20, 256 << 20
    return ConnectionLimits(
        message=message,
        send_buffer=send_buffer,
        compression=settings.compression,
        stranger_message=settings.max_stranger_message,
        partial=settings.max_partial_bytes,
    )


def _make_shares(base: _Base, kind: str, websockets: WebSocketConnections, limits: LimitCounts) -> _Shares:
    """
    @param kind: of the port, behind the names of the shares.
    """
    settings = base.settings
    return _Shares(
        # from one address as many without a request head as WebSockets
        waiting=base.share(
            f"waiting{kind}", per_address=websockets.share.per_address, crowded=limits.max_connections_per_ip
        ),
        http=base.share(
            f"http{kind}",
            settings.max_http_connections,
            http_per_address(settings),
            full=limits.max_http_connections,
            crowded=limits.max_http_per_ip,
        ),
    )


def _client_address(proxies: TrustedProxies, peer: str, head: bytes) -> str:
    """
    The address that an HTTP connection is counted by.
    """
    if not proxies.trusts(peer):
        return peer
    return proxies.client(peer, read_headers(head).get("x-forwarded-for", ""))


def _make_report(
    base: _Base,
    core: Core,
    database: Database | None,
    endpoints: Endpoints,
    websockets: WebSocketConnections,
    shares: Sequence[_Shares],
    bus: Bus | None,
    agents: NodeAgents | None,
) -> Report:
    return Report(
        core.hub,
        world=base.world,
        rules=core.rules,
        stats=core.stats,
        version=VERSION,
        database=_no_database if database is None else database.report,
        log=core.log.report,
        journal=_no_journal if database is None else database.journal,
        journal_counts=core.counts.journal,
        bus=_no_bus if bus is None else bus.report,
        owners=_no_owners if agents is None else agents.owned.takes.report,
        owner_counts=core.counts.owners,
        port=lambda: endpoints.number,
        ready_needs_database=base.settings.ready_needs_database or base.settings.cluster,
        websockets=websockets.share,
        waiting=[share.waiting for share in shares],
        http=[share.http for share in shares],
        partial=websockets.partial,
    )


def _make_port(
    base: _Base,
    limits: LimitCounts,
    websockets: WebSocketConnections,
    proxies: TrustedProxies,
    paths: tuple[str, ...],
    resources: Mapping[bytes, IResource],
    shares: _Shares,
) -> Port:
    settings, reactor, world, siblings = base
    return Port(
        websockets,
        make_site(world.wall_ms, resources, reactor, settings.http_timeout, paths, limits),
        paths=paths,
        now=world.now,
        wall_ms=world.wall_ms,
        head_timeout=settings.handshake_timeout,
        max_head=settings.max_head_size,
        max_waiting=settings.max_connections if siblings is None else ceil(settings.max_connections / siblings.workers),
        clock=reactor,
        waiting=shares.waiting,
        http=shares.http,
        limits=limits,
        trusts=proxies.trusts,
        client=lambda peer, head: _client_address(proxies, peer, head),
    )


def _make_resources(core: Core, report: Report) -> dict[bytes, IResource]:
    now = core.world.now
    return _make_pages(
        core,
        health=Sparing(report.health, now, REPORTS_A_SECOND),
        stats=Sparing(report.stats, now, REPORTS_A_SECOND),
        not_ready=report.not_ready,
    )


def _make_common_resources(core: Core, report: Report, siblings: Siblings) -> dict[bytes, IResource]:
    """
    The same for a worker, which answers for all.
    """
    common, now = CommonReports(siblings.worker, getpid(), report, siblings.gather), core.world.now
    not_ready: Joined[None, str] = Joined(lambda _: common.not_ready(), now)
    return _make_pages(
        core,
        health=Joined(common.health, now),
        stats=Joined(common.stats, now),
        not_ready=lambda: not_ready(None),
    )


def _make_pages(
    core: Core,
    *,
    health: Callable[[bool], Mapping[str, object] | Deferred[Any]],
    stats: Callable[[bool], Mapping[str, object] | Deferred[Any]],
    not_ready: Callable[[], str | Deferred[str]],
) -> dict[bytes, IResource]:
    world, verify, production = core.world, core.identity.verify, core.rules.production
    return {
        b"health": ReportPage(world.wall_ms, health, verify=verify, production=production),
        b"stats": ReportPage(world.wall_ms, stats, verify=verify, production=production),
        b"livez": Probe(world.wall_ms, lambda: ""),
        b"readyz": Probe(world.wall_ms, not_ready),
        **dict(pages(world.wall_ms)),
    }


def _make_metrics(base: _Base, core: Core, report: Report, lag: ReactorLag) -> MetricsPage:
    collector = ServiceCollector(
        core.counts, hub=core.hub, deliveries=core.deliveries, stats=lambda: report.stats(False), lag=lag
    )
    gather = None if base.siblings is None else base.siblings.gather
    return MetricsPage(core.world.wall_ms, collector, core.world.now, gather)


def _make_timers(
    base: _Base,
    clock: RunningClock,
    core: Core,
    ports: Iterable[Port],
    lag: ReactorLag,
    summary: Summary,
    database: Database | None,
) -> list[IService]:
    settings, reactor = base.settings, base.reactor
    sweep = Sliced("the heartbeat sweep", core.hub.sweep, reactor)
    retry = Sliced("the retry sweep", core.hub.retry, reactor)

    def start_sweep() -> None:
        # the clock leaves out most of a pause, so it is the clock that knows of one
        core.liveness.paused(clock.tick())
        sweep.start()

    timers: list[tuple[float, str, Callable[[], object]]] = [
        (core.liveness.interval, "the heartbeat sweep", start_sweep),
        (min(1.0, settings.retry_interval), "the retry sweep", retry.start),
        *((1.0, "the sweep of a port", port.sweep) for port in ports),
        (lag.interval, "the measurement of the reactor's lag", lag.look),
        (summary.interval, "the summary", summary.write),
    ]
    if database is not None:
        timers.append((settings.metrics_interval, "the metrics", database.poll_metrics))
        timers.append((FLUSH_SECONDS, "the flush of what agents are owed", database.flush))
    return [every(seconds, name, step, reactor) for seconds, name, step in timers]
