"""
Builds the service: makes every object once, and hands each the others that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from twisted.application.service import IService

from dcm_ws.app.base import Base
from dcm_ws.app.calls import make_bodies, make_calls, make_streams
from dcm_ws.app.cluster import ClusterNode
from dcm_ws.app.core import make_core, make_log
from dcm_ws.app.database import Database
from dcm_ws.app.files import default_folder
from dcm_ws.app.listening import Endpoints
from dcm_ws.app.mcp import McpService, make_mcp, make_mcp_page
from dcm_ws.app.modes import worker_count
from dcm_ws.app.ports import make_admission, make_await_key, make_port, make_shares, make_websockets
from dcm_ws.app.reports import make_metrics, make_report, make_resources
from dcm_ws.app.service import DCMService
from dcm_ws.app.settings import Settings, SettingsError
from dcm_ws.app.siblings import Siblings
from dcm_ws.app.summary import Summary
from dcm_ws.app.timers import Sliced, every
from dcm_ws.app.world import real_world
from dcm_ws.brokers.flushes import FLUSH_SECONDS
from dcm_ws.brokers.membership import Membership
from dcm_ws.brokers.postgres_log import PostgresLog
from dcm_ws.brokers.stored_revocations import StoredRevocations
from dcm_ws.core.assembly import Core
from dcm_ws.core.clock import RunningClock
from dcm_ws.core.counts import Counts
from dcm_ws.core.log import MemoryLog
from dcm_ws.core.ports import World
from dcm_ws.http.addresses import TrustedProxies
from dcm_ws.http.api import Gate
from dcm_ws.http.jwks import RETRY, KeySource
from dcm_ws.http.metrics import ReactorLag
from dcm_ws.http.pacing import Pacing
from dcm_ws.http.page_reader import PageReader
from dcm_ws.http.port import Port
from dcm_ws.postgres.embedded import EmbeddedPostgres
from dcm_ws.protocol.channels import Channels
from dcm_ws.websocket.factory import PATHS


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
    base = Base(settings, reactor, replace(world, now=clock), siblings)
    counts = Counts()
    channels = Channels(settings.extra_channels)
    log = make_log(base, counts, channels)
    endpoints = Endpoints(reactor, production=settings.production) if siblings is None else siblings.endpoints
    node = None
    if settings.cluster:
        # it has a durable log
        assert isinstance(log, PostgresLog)
        node = ClusterNode(base, counts, log, endpoints)
    core = make_core(base, counts, log, channels, node)
    clock.longest = 3 * core.liveness.interval
    lag = ReactorLag(clock.real)
    summary = Summary(counts, clock)
    pacing = Pacing(reactor)
    database = _make_database(base, core, log, summary, pacing, None if node is None else node.membership(core))
    if node is not None and database is not None:
        node.attach(core, database)
    revocations = None
    if database is not None and isinstance(log, PostgresLog):
        revocations = _make_revocations(base, core, database, log)
    proxies = TrustedProxies(settings.trusted_proxies)
    admission = make_admission(base, core, proxies, summary)
    websockets = make_websockets(base, core, admission, pacing)
    # separate, so that strangers who fill the public port do not keep operators out
    public, admin = (make_shares(base, kind, websockets, counts.limits) for kind in ("", " of operators"))
    streams = make_streams(base, core, pacing, websockets.share)
    polls: set[PageReader] = set()
    report = make_report(base, core, database, endpoints, websockets, streams, polls, (public, admin), node)
    metrics = make_metrics(base, core, report, lag)
    keys = _make_keys(base, core)
    gate = Gate(admission, core.callers, core.identity)
    pages = make_resources(base, core, report, metrics, gate)
    resources = pages | make_calls(base, core, channels, gate, streams, polls, database, log)
    mcp = make_mcp(base, core)
    if mcp is not None:
        resources |= {b"mcp": make_mcp_page(base, core, channels, gate, mcp)}
    bodies = make_bodies(settings, core, gate, websockets.partial)
    with_metrics = resources | {b"metrics": metrics}
    public_resources = resources if settings.admin_listen else with_metrics
    awaits_key = make_await_key(base, core, admission)
    port = make_port(base, counts.limits, websockets, proxies, PATHS, public_resources, public, bodies, awaits_key)
    if mcp is not None:
        mcp.port = port
    admin_port = make_port(base, counts.limits, websockets, proxies, (), with_metrics, admin, bodies)
    return DCMService(
        settings,
        reactor,
        hub=core.hub,
        application_hub=core.application_hub,
        counts=counts,
        clients=core.clients,
        expulsion=core.expulsion,
        identity=core.identity,
        endpoints=endpoints,
        websockets=websockets,
        streams=streams,
        port=port,
        admin_port=admin_port,
        database=database,
        keys=keys,
        mcp=mcp,
        timers=_make_timers(base, clock, core, (port, admin_port), lag, summary, database, keys, revocations, mcp),
    )


def _make_revocations(base: Base, core: Core, database: Database, log: PostgresLog) -> StoredRevocations:
    expulsion = core.expulsion
    revocations = StoredRevocations(
        base.reactor,
        database.place,
        log,
        expulsion.load,
        now=base.world.now,
        wall_ms=base.world.wall_ms,
        shared=base.settings.cluster,
    )
    expulsion.save = revocations.save
    revocations.setServiceParent(database)
    return revocations


def _make_keys(base: Base, core: Core) -> KeySource | None:
    if base.settings.jwks is None:
        return None
    return KeySource(base.settings.jwks, core.identity.keys, core.counts.limits, base.reactor, base.world.now)


def _make_database(
    base: Base,
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
        ledger=core.ledger,
        loading=core.loading,
        redriving=core.redriving,
        membership=membership,
    )


def _make_timers(
    base: Base,
    clock: RunningClock,
    core: Core,
    ports: Iterable[Port],
    lag: ReactorLag,
    summary: Summary,
    database: Database | None,
    keys: KeySource | None,
    revocations: StoredRevocations | None,
    mcp: McpService | None,
) -> list[IService]:
    settings, reactor = base.settings, base.reactor
    sweep = Sliced("the heartbeat sweep", core.hub.sweep, reactor)
    retry = Sliced("the retry sweep", core.retrying.sweep, reactor)

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
    if revocations is not None:
        timers.append((1.0, "the look at revoked tokens", revocations.look))
    if keys is not None:
        timers.append((RETRY, "the keys of tokens", keys.look))
    if mcp is not None:
        timers.append((min(5.0, settings.mcp_idle), "the sweep of MCP sessions", mcp.sessions.sweep))
    return [every(seconds, name, step, reactor) for seconds, name, step in timers]
