"""
Every limit that a client can exceed: the counters of C{/stats}, and the table of limits in docs/limits.md.
"""

from __future__ import annotations

from typing import NamedTuple


class Limit(NamedTuple):
    """
    One limit.

    @ivar counter: its name under C{limits} in C{/stats}.
    @ivar bounded: what is limited.
    @ivar per: what has the limit.
    @ivar effect: what happens when it is exceeded.
    @ivar option: the option that sets it; empty if there is none.
    @ivar default: the default in words, with the names of options in braces for their defaults; empty for the default
        of C{option}.
    """

    counter: str
    bounded: str
    per: str
    effect: str
    option: str
    default: str = ""


_CONNECTIONS = (
    Limit(
        "maxConnections",
        "WebSockets, event streams and long polls",
        "service",
        "a WebSocket is opened and closed with 1013, the others get 503",
        "--max-connections",
    ),
    Limit(
        "maxConnectionsPerIp",
        "WebSockets and event streams; as many connections that have not sent a request",
        "address",
        "503; without a request, the connection is closed",
        "--max-connections-per-ip",
    ),
    Limit(
        "maxWaiting",
        "connections that have not sent a request",
        "service",
        "the one that has waited longest is closed",
        "--max-connections",
    ),
    Limit(
        "maxHttpConnections", "HTTP connections", "service", "503, and the connection ends", "--max-http-connections"
    ),
    Limit(
        "maxHttpPerIp",
        "HTTP connections, never more than `--max-connections-per-ip`",
        "address",
        "503, and the connection ends",
        "--max-http-per-ip",
    ),
    Limit(
        "handshakeTimeout",
        "time for the first request head",
        "connection",
        "408, and the connection ends",
        "--handshake-timeout",
    ),
    Limit(
        "httpTimeout",
        "time for an HTTP request with its body, and between two requests",
        "connection",
        "the connection ends; counted only within a request",
        "--http-timeout",
    ),
    Limit("maxHeadSize", "bytes of a request head", "connection", "431, and the connection ends", "--max-head-size"),
    Limit(
        "allowedOrigin",
        "origins of pages; also `--no-same-host`, `--server-name`",
        "service",
        "403",
        "--allowed-origin",
        "the same host; development: all",
    ),
    Limit(
        "authTimeout",
        "time to authenticate; the token's time with `--enforce-expiry`",
        "connection",
        "close 4001",
        "--auth-timeout",
    ),
    Limit("heartbeatTimeout", "time of silence", "connection", "close 4000", "--heartbeat-timeout"),
)

_MESSAGES = (
    Limit(
        "maxMessageSize",
        "bytes of a message, as it comes and as it inflates to; of an event published over HTTP",
        "connection",
        "close 1009; 413",
        "--max-message-size",
    ),
    Limit(
        "maxBatchSize",
        "bytes of the body of an HTTP request",
        "request",
        "413",
        "--max-batch-size",
    ),
    Limit("maxBatchEvents", "events published with one HTTP request", "request", "413", "", "1,000"),
    Limit(
        "maxStrangerMessage",
        "bytes of a message, or of the body of an HTTP request, before authentication",
        "connection",
        "close 1009; 413",
        "--max-stranger-message",
    ),
    Limit(
        "maxPartialBytes",
        "bytes of incomplete messages and bodies; in production an eighth for clients that have not authenticated",
        "service",
        "the client that holds most is closed with 1009, or gets 503",
        "--max-partial-bytes",
    ),
    Limit(
        "maxIgnored",
        "bytes that are sent after the request for an event stream",
        "connection",
        "the connection ends",
        "",
        "4,096",
    ),
    Limit("maxDepth", "nesting depth of event data", "message", "`INVALID_MESSAGE`", "--max-depth"),
    Limit(
        "rateLimit",
        "messages a second; at once: `--rate-burst`",
        "agent",
        "`RATE_LIMITED` with `retry_after_ms`",
        "--rate-limit",
    ),
    Limit("rateBytes", "bytes of messages a second", "agent", "`RATE_LIMITED` with `retry_after_ms`", "--rate-bytes"),
    Limit(
        "strangerRate",
        "messages a second before authentication (50 at once); bytes a second: `--max-stranger-message`",
        "connection and address",
        "`RATE_LIMITED` with `retry_after_ms`",
        "--stranger-rate",
        "{stranger-rate} and {max-stranger-message}",
    ),
    Limit(
        "rateLimitTenfold",
        "messages and bytes refused lately by the last three",
        "agent",
        "close 4029",
        "--rate-burst",
        "nine times what may be sent at once",
    ),
)

_STATE = (
    Limit(
        "maxSubscriptions",
        "channels subscribed to",
        "connection",
        "`TOO_MANY_SUBSCRIPTIONS`; of restored subscriptions the rest is left out",
        "--max-subscriptions",
    ),
    Limit(
        "maxSendBuffer",
        "bytes that wait to be read; the kernel holds some 128 KiB more",
        "connection",
        "close 4008; tracked events are kept for the agent; an event stream is closed",
        "--max-send-buffer",
    ),
    Limit(
        "shed",
        "bytes that wait before only the [latest](#events-of-which-only-the-latest-matters) is kept",
        "connection",
        "the last one is sent when the client has caught up",
        "--max-send-buffer",
        "a quarter of `--max-send-buffer`",
    ),
    Limit(
        "latestDropped",
        "bytes and number of these latest events",
        "connection",
        "the oldest is dropped",
        "--max-send-buffer",
        "{max-send-buffer}, 1,000",
    ),
    Limit(
        "maxPending",
        "deliveries that await an ack",
        "connection",
        "further events wait in the log; if the client has never acknowledged any, its oldest is given up",
        "--max-pending",
    ),
    Limit(
        "maxPendingBytes",
        "bytes of events that await an ack, and 64 for each client that owes one",
        "service",
        "the agents that owe most get no more until they acknowledge; a quarter beyond it, they lose their oldest",
        "--max-pending-bytes",
    ),
    Limit(
        "earlyAcks",
        "acks of events that it has not been sent yet, by other connections of its agent",
        "connection",
        "the oldest is forgotten: the connection owes an ack for that event",
        "",
        "1,000",
    ),
    Limit(
        "maxKept",
        "deliveries kept for absent agents",
        "service",
        "the agents that have most lose their oldest",
        "--max-kept",
    ),
    Limit(
        "maxAgents",
        "agents remembered",
        "service",
        "one that shared a connection with most others is forgotten, or the one that was away longest",
        "--max-agents",
    ),
    Limit(
        "maxAgentBytes",
        "bytes of the subscriptions remembered of agents",
        "service",
        "of the connections that were subscribed to most, the agents are forgotten",
        "--max-agent-bytes",
    ),
    Limit(
        "maxRecentEvents",
        "events in the log in memory; bytes: `--log-max-bytes`",
        "service",
        "the publisher that has most there loses its oldest; clients that have not received them get a `gap`",
        "--max-recent-events",
        "{max-recent-events}, 64 MiB",
    ),
    Limit(
        "maxLogWaiting",
        "events that wait to be written to the log in the database, and 64 MiB of them",
        "service",
        "`NOT_AVAILABLE` for the publisher that has most",
        "--max-log-waiting",
    ),
    Limit(
        "maxDeadLetters",
        "dead letters; bytes: `--max-dead-letter-bytes`",
        "service",
        "the agents that have most lose their oldest",
        "--max-dead-letters",
        "{max-dead-letters}, {max-dead-letter-bytes}",
    ),
    Limit(
        "maxLedger",
        "bytes of the ledger in memory, where it waits to be written to the database if there is one",
        "service",
        "its oldest pages are forgotten: what became of events that long ago is not known",
        "--max-ledger",
    ),
    Limit(
        "ledgerMaxBytes",
        "bytes of the ledger in the database",
        "service",
        "the oldest of its partitions is emptied: what became of events that long ago is not known",
        "--ledger-max-bytes",
    ),
    Limit(
        "maxKeys",
        "keys of publishes remembered, for 10 minutes",
        "service",
        "the publishers that have most lose their oldest: the same key publishes again",
        "--max-keys",
    ),
    Limit(
        "maxBusWaiting",
        "bytes of messages to other nodes that cannot be sent yet, and 256 for each",
        "service",
        "the topics that have most lose their oldest",
        "--max-bus-waiting",
    ),
    Limit(
        "maxRevoked",
        "agents whose tokens are revoked",
        "service",
        "`NOT_AVAILABLE`, and nothing is done",
        "",
        "10,000",
    ),
    Limit(
        "tokenKeysTime",
        "time to fetch the [keys of JSON Web Tokens](identity.md#json-web-tokens)",
        "fetch",
        "the service keeps the keys that it has",
        "",
        "5 s",
    ),
    Limit(
        "maxTokenKeysSize",
        "bytes of these keys, as they are fetched or in a file",
        "fetch",
        "the service keeps the keys that it has",
        "",
        "256 KiB",
    ),
    Limit("maxTokenKeys", "number of these keys", "fetch", "the service keeps the keys that it has", "", "100"),
    Limit(
        "maxTokenKeyWaiting",
        "clients that wait for a key that is not known; in all 1,000",
        "address",
        "`TOKEN_INVALID`",
        "",
        "10",
    ),
    Limit(
        "tokenKeyFetches",
        "fetches because of a key that is not known; for an address with a key that does not exist, one a minute",
        "service",
        "`TOKEN_INVALID`",
        "",
        "one in 5 s",
    ),
    Limit(
        "logBuffer",
        "characters of the log that wait to be written",
        "service",
        "the line is dropped; the log says how many are missing, and where",
        "",
        "1,048,576",
    ),
)

_MCP = (
    Limit("maxMcpSessions", "MCP sessions over HTTP", "service", "503", "--max-mcp-sessions"),
    Limit("maxMcpPerAgent", "MCP sessions over HTTP", "agent", "429", "--max-mcp-per-agent"),
    Limit("maxMcpCalls", "requests of an MCP session that wait for their answers", "session", "429", "", "64"),
    Limit(
        "maxMcpWaiting",
        "bytes of messages of MCP clients that the process for MCP has not read",
        "service",
        "`NOT_AVAILABLE`, 503",
        "",
        "16 MiB",
    ),
    Limit(
        "mcpIdle",
        "time without a request or a stream",
        "MCP session",
        "the session ends: the client gets 404, and begins another one",
        "--mcp-idle",
    ),
)

TABLE = (*_CONNECTIONS, *_MESSAGES, *_STATE, *_MCP)
COUNTERS = tuple(limit.counter for limit in TABLE)
