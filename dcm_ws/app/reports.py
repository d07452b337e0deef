"""
Makes the pages that report on the service, for this process or for all workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from os import getpid
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.resource import IResource

from dcm_ws.app.base import Base
from dcm_ws.app.cluster import ClusterNode
from dcm_ws.app.database import Database
from dcm_ws.app.listening import Endpoints
from dcm_ws.app.ports import Shares
from dcm_ws.app.siblings import Siblings
from dcm_ws.core.assembly import Core
from dcm_ws.http.api import Gate
from dcm_ws.http.assets import pages
from dcm_ws.http.event_stream import EventStreams
from dcm_ws.http.gathering import CommonReports, Joined
from dcm_ws.http.metrics import MetricsPage, ReactorLag, ServiceCollector
from dcm_ws.http.report import DatabaseStats, Report
from dcm_ws.http.resources import Probe
from dcm_ws.http.sparing import Sparing
from dcm_ws.http.status import ReportPage
from dcm_ws.version import VERSION
from dcm_ws.websocket.factory import WebSocketConnections

REPORTS_A_SECOND = 100.0
"""
How often C{/health} and C{/stats} each are rendered at most.
"""


def make_report(
    base: Base,
    core: Core,
    database: Database | None,
    endpoints: Endpoints,
    websockets: WebSocketConnections,
    streams: EventStreams,
    polls: Sized,
    shares: Sequence[Shares],
    node: ClusterNode | None,
) -> Report:
    """
    Make what reads the state of all parts.

    @param polls: the long polls that wait.
    @param node: this process in its cluster; None without one.
    """
    return Report(
        core.hub,
        world=base.world,
        rules=core.rules,
        stats=core.stats,
        version=VERSION,
        name=base.settings.name,
        database=_no_database if database is None else database.report,
        log=core.log.report,
        journal=_no_journal if database is None else database.journal,
        journal_counts=core.counts.journal,
        bus=_no_bus if node is None else node.bus.report,
        owners=_no_owners if node is None else node.agents.owned.takes.report,
        owner_counts=core.counts.owners,
        port=lambda: endpoints.number,
        ready_needs_database=base.settings.ready_needs_database or base.settings.cluster,
        websockets=websockets.share,
        event_streams=streams,
        long_polls=polls,
        waiting=[share.waiting for share in shares],
        http=[share.http for share in shares],
        partial=websockets.partial,
    )


def make_resources(base: Base, core: Core, report: Report, metrics: MetricsPage, gate: Gate) -> dict[bytes, IResource]:
    """
    All pages but that of the metrics, each under its path.
    """
    siblings = base.siblings
    if siblings is None:
        return _make_resources(core, report, gate)
    siblings.reports.update(
        health=report.health,
        stats=report.stats,
        ready=lambda names: report.not_ready(),
        metrics=lambda names: metrics.families(),
    )
    return _make_common_resources(core, report, siblings, gate)


def _make_resources(core: Core, report: Report, gate: Gate) -> dict[bytes, IResource]:
    now = core.world.now
    return _make_pages(
        core,
        gate,
        health=Sparing(report.health, now, REPORTS_A_SECOND),
        stats=Sparing(report.stats, now, REPORTS_A_SECOND),
        not_ready=report.not_ready,
    )


def _make_common_resources(core: Core, report: Report, siblings: Siblings, gate: Gate) -> dict[bytes, IResource]:
    """
    The same for a worker, which answers for all.
    """
    common, now = CommonReports(siblings.worker, getpid(), report, siblings.gather), core.world.now
    not_ready: Joined[None, str] = Joined(lambda _: common.not_ready(), now)
    return _make_pages(
        core,
        gate,
        health=Joined(common.health, now),
        stats=Joined(common.stats, now),
        not_ready=lambda: not_ready(None),
    )


def _make_pages(
    core: Core,
    gate: Gate,
    *,
    health: Callable[[bool], Mapping[str, object] | Deferred[Any]],
    stats: Callable[[bool], Mapping[str, object] | Deferred[Any]],
    not_ready: Callable[[], str | Deferred[str]],
) -> dict[bytes, IResource]:
    world, may_see_names = core.world, gate.has_token if core.rules.production else None
    return {
        b"health": ReportPage(world.wall_ms, health, may_see_names),
        b"stats": ReportPage(world.wall_ms, stats, may_see_names),
        b"livez": Probe(world.wall_ms, lambda: ""),
        b"readyz": Probe(world.wall_ms, not_ready),
        **dict(pages(world.wall_ms)),
    }


def make_metrics(base: Base, core: Core, report: Report, lag: ReactorLag) -> MetricsPage:
    """
    Make the page for Prometheus.
    """
    collector = ServiceCollector(
        core.counts, hub=core.hub, deliveries=core.deliveries, stats=lambda: report.stats(False), lag=lag
    )
    gather = None if base.siblings is None else base.siblings.gather
    return MetricsPage(core.world.wall_ms, collector, core.world.now, gather)


def _no_database() -> DatabaseStats:
    return {"state": "none"}


def _no_journal() -> None:
    return None


def _no_bus() -> None:
    return None


def _no_owners() -> None:
    return None
