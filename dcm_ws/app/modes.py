"""
Limits and origins that depend on the mode, unless the operator sets them: production is stricter than development.
"""

from __future__ import annotations

import os
from dataclasses import replace
from math import ceil
from typing import Any

from dcm_ws.app.options import BY_FIELD
from dcm_ws.app.settings import Settings
from dcm_ws.http.origins import SAME_HOST

_DRAIN_DELAY = 2.0
_KEEP_DURABLE = 86_400.0


def rate_limit(settings: Settings) -> float:
    """
    Messages a second from one client; 0 for no limit.
    """
    return float(_value(settings, "rate_limit"))


def rate_burst(settings: Settings) -> float:
    """
    Messages at once from one client, if there is a rate limit.
    """
    return max(1.0, rate_limit(settings)) if settings.rate_burst is None else settings.rate_burst


def rate_bytes(settings: Settings) -> float:
    """
    Bytes of messages a second from one client; 0 for no limit.
    """
    return float(_value(settings, "rate_bytes"))


def connections_per_address(settings: Settings) -> int:
    """
    Connections at once from one address; 0 for no limit.
    """
    return int(_value(settings, "max_connections_per_ip"))


def http_per_address(settings: Settings) -> int:
    """
    HTTP connections at once from one address; 0 for no limit.
    """
    if settings.max_http_per_ip is not None:
        return settings.max_http_per_ip
    usual = int(_value(settings, "max_http_per_ip"))
    # an operator who allows an address fewer connections than that means HTTP connections, too
    most = settings.max_connections_per_ip or 0
    return min(usual or most, most or usual)


def log_bytes(settings: Settings, *, durable: bool) -> int:
    """
    Bytes of the log.

    @param durable: of the one in the database.
    """
    if settings.log_max_bytes is not None:
        return settings.log_max_bytes
    return 4 << 30 if durable else 64 << 20


def has_durable_log(settings: Settings) -> bool:
    """
    May the log be in the database?
    """
    return settings.log != "memory" and (settings.embedded or settings.database is not None)


def worker_count(settings: Settings) -> int:
    """
    Processes that serve clients; one for each core that this process may use if they are C{auto}.
    """
    return settings.workers or len(os.sched_getaffinity(0))


def of_one_worker(settings: Settings, workers: int) -> Settings:
    """
    The settings of one of several workers: they are nodes of a cluster, and limits of memory are divided among them.
    """
    shared = (
        *("max_partial_bytes", "max_pending_bytes", "max_kept", "max_agents", "max_agent_bytes", "max_keys"),
        *("max_dead_letters", "max_dead_letter_bytes", "max_log_waiting", "max_bus_waiting", "max_ledger"),
    )
    cluster = settings.cluster or has_durable_log(settings)
    # the supervisor waits for all
    return replace(
        settings,
        workers=1,
        cluster=cluster,
        drain_delay=0.0,
        **{name: ceil(getattr(settings, name) / workers) for name in shared},
    )


def drain_delay(settings: Settings) -> float:
    """
    Seconds between the signal to stop and the closing of connections.
    """
    if settings.drain_delay is not None:
        return settings.drain_delay
    # without other nodes, a load balancer has nowhere else to send clients
    return _DRAIN_DELAY if settings.cluster else 0.0


def needs_durable_log(settings: Settings) -> bool:
    """
    Does the service refuse to start without a log in the database?
    """
    return settings.log == "postgres" or settings.cluster


def origin_patterns(settings: Settings) -> tuple[str, ...]:
    """
    The origins of web pages that may connect.
    """
    patterns: tuple[str, ...] = _value(settings, "allowed_origins")
    return (*patterns, SAME_HOST) if settings.same_host else patterns


_OWN_MACHINE = tuple(
    f"{scheme}://{host}{port}"
    for scheme in ("http", "https")
    for host in ("localhost", "*.localhost", "127.0.0.1", "[::1]")
    for port in ("", ":*")
)


def writing_origin_patterns(settings: Settings) -> tuple[str, ...]:
    """
    The origins of web pages that may call over HTTP what changes something: in development, unless C{--allowed-origin}
    names others, those of the own machine.  A browser sends a simple request to it without asking first.
    """
    if settings.production or settings.allowed_origins:
        return origin_patterns(settings)
    return (*_OWN_MACHINE, SAME_HOST) if settings.same_host else _OWN_MACHINE


def _value(settings: Settings, field: str) -> Any:
    """
    The value of a field, or the default of the mode if the field has its default.
    """
    row, value = BY_FIELD[field], getattr(settings, field)
    return row.mode_default(settings.production) if value == row.default else value


def keep_durable(settings: Settings) -> float:
    """
    Seconds for which what absent agents miss is kept if the log is durable.
    """
    return _KEEP_DURABLE if settings.keep_deliveries is None else settings.keep_deliveries
