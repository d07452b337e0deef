"""
Limits and origins that depend on the mode, unless the operator sets them: production is stricter than development.
"""

from __future__ import annotations

from dcm_ws.app.settings import Settings
from dcm_ws.http.origins import SAME_HOST

PRODUCTION_RATE_LIMIT = 100.0
"""
Messages a second from one client.
"""

PRODUCTION_RATE_BYTES = float(2 << 20)
"""
Bytes of messages a second from one client.
"""

PRODUCTION_CONNECTIONS_PER_IP = 1000
"""
Connections from one address.
"""

PRODUCTION_HTTP_CONNECTIONS_PER_IP = 100
"""
HTTP connections from one address.
"""


def rate_limit(settings: Settings) -> float:
    """
    Messages a second from one client; 0 for no limit.
    """
    if settings.rate_limit is not None:
        return settings.rate_limit
    return PRODUCTION_RATE_LIMIT if settings.production else 0.0


def rate_bytes(settings: Settings) -> float:
    """
    Bytes of messages a second from one client; 0 for no limit.
    """
    if settings.rate_bytes is not None:
        return settings.rate_bytes
    return PRODUCTION_RATE_BYTES if settings.production else 0.0


def connections_per_address(settings: Settings) -> int:
    """
    Connections at once from one address; 0 for no limit.
    """
    if settings.max_connections_per_ip is not None:
        return settings.max_connections_per_ip
    return PRODUCTION_CONNECTIONS_PER_IP if settings.production else 0


def http_per_address(settings: Settings) -> int:
    """
    HTTP connections at once from one address; 0 for no limit.
    """
    if settings.max_http_per_ip is not None:
        return settings.max_http_per_ip
    usual = PRODUCTION_HTTP_CONNECTIONS_PER_IP if settings.production else 0
    # an operator who allows an address fewer connections than that means HTTP connections, too
    most = settings.max_connections_per_ip or 0
    return min(usual or most, most or usual)


def origin_patterns(settings: Settings) -> tuple[str, ...]:
    """
    The origins of web pages that may connect.
    """
    patterns = settings.allowed_origins or (() if settings.production else ("*",))
    return (*patterns, SAME_HOST) if settings.same_host else patterns
