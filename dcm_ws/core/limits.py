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
    @ivar effect: what happens when it is crossed.
    @ivar option: the option that sets it; empty if nothing does.
    """

    counter: str
    bounded: str
    per: str
    default: str
    effect: str
    option: str = ""


_CONNECTIONS = (
    Limit("maxConnections", "WebSockets", "service", "10,000", "opened and closed with 1013", "--max-connections"),
    Limit(
        "maxConnectionsPerIp",
        "WebSockets; as many connections that have not sent a request",
        "address",
        "1,000; development: none",
        "503; without a request, the connection is closed",
        "--max-connections-per-ip",
    ),
    Limit(
        "maxWaiting",
        "connections that have not sent a request",
        "service",
        "10,000",
        "the one that has waited longest is closed",
        "--max-connections",
    ),
    Limit(
        "maxHttpConnections",
        "HTTP connections",
        "service",
        "1,000",
        "503, and the connection ends",
        "--max-http-connections",
    ),
    Limit(
        "maxHttpPerIp",
        "HTTP connections, never more than `--max-connections-per-ip`",
        "address",
        "100; development: none",
        "503, and the connection ends",
        "--max-http-per-ip",
    ),
    Limit(
        "handshakeTimeout",
        "time for the first request head",
        "connection",
        "5 s",
        "408, and the connection ends",
        "--handshake-timeout",
    ),
    Limit(
        "httpTimeout",
        "time for an HTTP request with its body, and between two requests",
        "connection",
        "30 s",
        "the connection ends; counted only within a request",
        "--http-timeout",
    ),
    Limit(
        "maxHeadSize",
        "bytes of a request head",
        "connection",
        "16 KiB",
        "431, and the connection ends",
        "--max-head-size",
    ),
    Limit(
        "allowedOrigin",
        "origins of pages; also `--no-same-host`, `--server-name`",
        "service",
        "the same host; development: all",
        "403",
        "--allowed-origin",
    ),
    Limit(
        "authTimeout",
        "time to authenticate; the token's time with `--enforce-expiry`",
        "connection",
        "10 s; development: none",
        "close 4001",
        "--auth-timeout",
    ),
    Limit("heartbeatTimeout", "time of silence", "connection", "60 s", "close 4000", "--heartbeat-timeout"),
)

_MESSAGES = (
    Limit(
        "maxMessageSize",
        "bytes of a message, as it comes and as it inflates to",
        "connection",
        "1 MiB",
        "close 1009",
        "--max-message-size",
    ),
    Limit(
        "maxStrangerMessage",
        "bytes of a message before authentication",
        "connection",
        "64 KiB; development: none",
        "close 1009",
        "--max-stranger-message",
    ),
    Limit(
        "maxPartialBytes",
        "bytes of incomplete messages; in production an eighth for clients that have not authenticated",
        "service",
        "128 MiB",
        "the client that holds most is closed with 1009",
        "--max-partial-bytes",
    ),
    Limit("maxDepth", "nesting depth of event data", "message", "100", "`INVALID_MESSAGE`", "--max-depth"),
    Limit(
        "rateLimit",
        "messages a second; at once: `--rate-burst`",
        "agent",
        "100; development: none",
        "`RATE_LIMITED` with `retry_after_ms`",
        "--rate-limit",
    ),
    Limit(
        "rateBytes",
        "bytes of messages a second",
        "agent",
        "2 MiB; development: none",
        "`RATE_LIMITED` with `retry_after_ms`",
        "--rate-bytes",
    ),
    Limit(
        "strangerRate",
        "messages a second before authentication (50 at once); bytes a second: `--max-stranger-message`",
        "connection and address",
        "10 and 64 KiB; development: none",
        "`RATE_LIMITED` with `retry_after_ms`",
        "--stranger-rate",
    ),
    Limit(
        "rateLimitTenfold",
        "messages and bytes refused lately by the last three",
        "agent",
        "nine times what may be sent at once",
        "close 4029",
        "--rate-burst",
    ),
)

_STATE = (
    Limit(
        "maxSubscriptions",
        "channels subscribed to",
        "connection",
        "1,000",
        "`TOO_MANY_SUBSCRIPTIONS`; of restored subscriptions the rest is left out",
        "--max-subscriptions",
    ),
    Limit(
        "maxSendBuffer",
        "bytes that wait to be read; the kernel holds some 128 KiB more",
        "connection",
        "4 MiB",
        "close 4008; tracked events are kept for the agent",
        "--max-send-buffer",
    ),
    Limit(
        "shed",
        "bytes that wait before only the [latest](#events-of-which-only-the-latest-matters) is kept",
        "connection",
        "a quarter of `--max-send-buffer`",
        "the last one is sent when the client has caught up",
        "--max-send-buffer",
    ),
    Limit(
        "latestDropped",
        "bytes and number of these latest events",
        "connection",
        "4 MiB, 1,000",
        "the oldest is dropped",
        "--max-send-buffer",
    ),
    Limit(
        "maxPending",
        "deliveries that await an ack",
        "connection",
        "10,000",
        "the client's oldest delivery is given up",
        "--max-pending",
    ),
    Limit(
        "maxPendingBytes",
        "bytes of events that await an ack",
        "service",
        "256 MiB",
        "the deliveries that are due first are given up",
        "--max-pending-bytes",
    ),
    Limit(
        "maxKept",
        "deliveries kept for absent agents; bytes: `--max-recent-bytes`",
        "service",
        "500,000, 64 MiB",
        "those of the agent that left first are given up",
        "--max-kept",
    ),
    Limit(
        "maxAgents",
        "agents remembered",
        "service",
        "10,000",
        "the agent that was away longest is forgotten",
        "--max-agents",
    ),
    Limit(
        "maxRecentEvents",
        "events remembered for absent agents; bytes: `--max-recent-bytes`",
        "service",
        "100,000, 64 MiB",
        "the oldest are forgotten: absent agents will not receive them",
        "--max-recent-events",
    ),
    Limit(
        "logBuffer",
        "characters of the log that wait to be written",
        "service",
        "1,048,576",
        "the line is dropped; the log says how many are missing, and where",
    ),
)

TABLE = (*_CONNECTIONS, *_MESSAGES, *_STATE)
COUNTERS = tuple(limit.counter for limit in TABLE)

_HEAD = (
    "| what is limited | per | default | when it is crossed | option | counter |\n| --- | --- | --- | --- | --- | --- |"
)


def markdown() -> str:
    """
    The table of docs/operations.md.
    """
    rows = (
        f"| {row.bounded} | {row.per} | {row.default} | {row.effect} | {row.option and f'`{row.option}`'}"
        f" | `{row.counter}` |"
        for row in TABLE
    )
    return "\n".join((_HEAD, *rows))
