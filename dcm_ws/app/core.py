"""
Makes the log and the core, as the settings ask for.
"""

from __future__ import annotations

from dcm_ws.app.base import Base
from dcm_ws.app.cluster import ClusterNode
from dcm_ws.app.modes import (
    has_durable_log,
    keep_durable,
    log_bytes,
    rate_burst,
    rate_bytes,
    rate_limit,
)
from dcm_ws.app.settings import Settings
from dcm_ws.app.testee import EchoHub, EchoInterpreter
from dcm_ws.brokers.log_rows import LogRows
from dcm_ws.brokers.postgres_log import PostgresLog
from dcm_ws.core.agents import KEEP_DELIVERIES, AgentMemory
from dcm_ws.core.assembly import Core, assemble
from dcm_ws.core.changed import Changed
from dcm_ws.core.counts import Counts
from dcm_ws.core.dead_letters import DeadLetters
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.hub import Hub
from dcm_ws.core.interpreter import Interpreter
from dcm_ws.core.keys import PublishKeys
from dcm_ws.core.latest import LatestEvents
from dcm_ws.core.ledger import Ledger
from dcm_ws.core.log import MemoryLog
from dcm_ws.core.publish_queue import PublishQueue
from dcm_ws.core.rules import Rules
from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.events import Ephemeral, Publishable
from dcm_ws.protocol.web_tokens import Audience
from dcm_ws.version import SERVER


def make_log(base: Base, counts: Counts, channels: Channels) -> MemoryLog | PostgresLog:
    """
    Make the log; where it may be in the database, memory has its end.
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


def make_core(
    base: Base,
    counts: Counts,
    log: MemoryLog | PostgresLog,
    channels: Channels,
    node: ClusterNode | None,
) -> Core:
    """
    Make the core.

    @param node: this process in its cluster; None without one.
    """
    settings, now, changed = base.settings, base.world.now, Changed()
    keep_deliveries = settings.keep_deliveries
    ledger = Ledger(now, base.world.wall_ms, counts.limits.max_ledger, max_bytes=settings.max_ledger)
    return assemble(
        base.world,
        _make_rules(settings),
        counts,
        server=SERVER,
        secrets=settings.secrets,
        audience=Audience(settings.jwt_audience, settings.jwt_issuer),
        publishable=Publishable(settings.extra_events),
        latest=LatestEvents(settings.latest_events),
        channels=channels,
        deliveries=DeliveryQueue(
            now,
            counts,
            changed,
            ledger,
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
        bus=None if node is None else node.bus,
        owners=None if node is None else node.agents.owned,
        ephemeral=Ephemeral(settings.ephemeral_events),
        changed=changed,
        ledger=ledger,
        keep_durable=keep_durable(settings),
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
        strict_private=settings.strict_private,
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
