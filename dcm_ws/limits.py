"""
Every limit that a client, or a stranger, can cross: the counters of C{/stats} and the table in docs/operations.md.
"""

from __future__ import annotations

from typing import NamedTuple


class Limit(NamedTuple):
    """
    @ivar counter: its name under C{limits} in C{/stats}.
    @ivar bounded: what is limited.
    @ivar per: whose it is.
    @ivar default: in production, and in development if that differs.
    @ivar option: the option that sets it; empty if nothing does.
    """

    counter: str
    bounded: str
    per: str
    default: str
    option: str = ""


_SERVICE = "service"
_CONNECTION = "connection"

TABLE = (
    # connections
    Limit("maxConnections", "WebSockets at once", _SERVICE, "10,000", "--max-connections"),
    Limit(
        "maxConnectionsPerIp",
        "WebSockets at once, and connections without a request",
        "address",
        "1,000; development: none",
        "--max-connections-per-ip",
    ),
    Limit("maxWaiting", "connections without a request", _SERVICE, "10,000", "--max-connections"),
    Limit("maxHttpConnections", "HTTP connections at once", _SERVICE, "1,000", "--max-http-connections"),
    Limit("maxHttpPerIp", "HTTP connections at once", "address", "100; development: none", "--max-http-per-ip"),
    Limit("handshakeTimeout", "time for the first request head", _CONNECTION, "5 s", "--handshake-timeout"),
    Limit("httpTimeout", "time for an HTTP request with its body", _CONNECTION, "30 s", "--http-timeout"),
    Limit("maxHeadSize", "bytes of a request head", _CONNECTION, "16 KiB", "--max-head-size"),
    Limit("allowedOrigin", "origins of pages", _SERVICE, "the same host; development: all", "--allowed-origin"),
    Limit("authTimeout", "time to authenticate", _CONNECTION, "10 s; development: none", "--auth-timeout"),
    Limit("heartbeatTimeout", "time of silence", _CONNECTION, "60 s", "--heartbeat-timeout"),
    # what clients send
    Limit("maxMessageSize", "bytes of a message", _CONNECTION, "1 MiB", "--max-message-size"),
    Limit(
        "maxStrangerMessage",
        "bytes of a message before authentication",
        _CONNECTION,
        "64 KiB; development: none",
        "--max-stranger-message",
    ),
    Limit("maxPartialBytes", "bytes of incomplete messages", _SERVICE, "128 MiB", "--max-partial-bytes"),
    Limit("maxDepth", "nesting depth of event data", "message", "100", "--max-depth"),
    Limit("rateLimit", "messages a second", "agent", "100; development: none", "--rate-limit"),
    Limit("rateBytes", "bytes of messages a second", "agent", "2 MiB; development: none", "--rate-bytes"),
    Limit(
        "strangerRate",
        "messages and bytes a second before authentication",
        "connection and address",
        "10 and 64 KiB; development: none",
        "--stranger-rate",
    ),
    Limit("rateLimitTenfold", "messages and bytes refused lately", "agent", "nine bursts", "--rate-burst"),
    # what clients make the service hold
    Limit("maxSubscriptions", "channels subscribed to", _CONNECTION, "1,000", "--max-subscriptions"),
    Limit("maxSendBuffer", "bytes that wait to be read", _CONNECTION, "4 MiB", "--max-send-buffer"),
    Limit("shed", "bytes that wait before only the latest is kept", _CONNECTION, "1 MiB", "--max-send-buffer"),
    Limit("latestDropped", "bytes and number of latest events kept", _CONNECTION, "4 MiB, 1,000", "--max-send-buffer"),
    Limit("maxPending", "deliveries that await an ack", _CONNECTION, "10,000", "--max-pending"),
    Limit("maxPendingBytes", "bytes of events that await an ack", _SERVICE, "256 MiB", "--max-pending-bytes"),
    Limit("maxKept", "deliveries kept for absent agents", _SERVICE, "500,000", "--max-kept"),
    Limit("maxAgents", "agents remembered", _SERVICE, "10,000", "--max-agents"),
    Limit("maxRecentEvents", "events remembered for absent agents", _SERVICE, "100,000", "--max-recent-events"),
    Limit("logBuffer", "characters of the log that wait to be written", _SERVICE, "1,048,576"),
)

_HEAD = "| what is limited | per | default | option | counter |"
COUNTERS = tuple(limit.counter for limit in TABLE)


def markdown() -> str:
    """
    The table of docs/operations.md.
    """
    rows = (f"| {e.bounded} | {e.per} | {e.default} | {e.option and f'`{e.option}`'} | `{e.counter}` |" for e in TABLE)
    return "\n".join(
        ("| what is limited | per | default | option | counter |", "| --- | --- | --- | --- | --- |", *rows)
    )
