"""
Everything that the service counts from its start on.  L{Counts} is made once and handed to everything that
counts; C{/stats} and C{/metrics} read it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, fields
from functools import cache, partial
from typing import Any

from dcm_ws.core.counters import Count, Histogram, SharedCount
from dcm_ws.protocol.errors import CloseCode, ErrorCode

LATENCIES = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""
Bounds of the buckets of times, in seconds.
"""

AUDIENCES = (0, 1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
"""
Bounds of the buckets of the number of subscribers that one event went to.
"""

SAMPLED = 16
"""
One in this many client publishes is timed: reading the clock twice for each would cost more than counting it.
"""


@dataclass(slots=True, frozen=True)
class LimitCounts:
    """
    How often each limit was crossed: one attribute for each row of L{dcm_ws.core.limits.TABLE}, in its order.
    """

    max_connections: Count = field(default_factory=Count)
    max_connections_per_ip: Count = field(default_factory=Count)
    max_waiting: Count = field(default_factory=Count)
    max_http_connections: Count = field(default_factory=Count)
    max_http_per_ip: Count = field(default_factory=Count)
    handshake_timeout: Count = field(default_factory=Count)
    http_timeout: Count = field(default_factory=Count)
    max_head_size: Count = field(default_factory=Count)
    allowed_origin: Count = field(default_factory=Count)
    auth_timeout: Count = field(default_factory=Count)
    heartbeat_timeout: Count = field(default_factory=Count)
    max_message_size: Count = field(default_factory=Count)
    max_batch_size: Count = field(default_factory=Count)
    max_batch_events: Count = field(default_factory=Count)
    max_stranger_message: Count = field(default_factory=Count)
    max_partial_bytes: Count = field(default_factory=Count)
    max_ignored: Count = field(default_factory=Count)
    max_depth: Count = field(default_factory=Count)
    rate_limit: Count = field(default_factory=Count)
    rate_bytes: Count = field(default_factory=Count)
    stranger_rate: Count = field(default_factory=Count)
    rate_limit_tenfold: Count = field(default_factory=Count)
    max_subscriptions: Count = field(default_factory=Count)
    max_send_buffer: Count = field(default_factory=Count)
    shed: Count = field(default_factory=Count)
    latest_dropped: Count = field(default_factory=Count)
    max_pending: Count = field(default_factory=Count)
    max_pending_bytes: SharedCount = field(default_factory=SharedCount)
    early_acks: Count = field(default_factory=Count)
    max_kept: SharedCount = field(default_factory=SharedCount)
    max_agents: SharedCount = field(default_factory=SharedCount)
    max_agent_bytes: SharedCount = field(default_factory=SharedCount)
    max_recent_events: SharedCount = field(default_factory=SharedCount)
    max_log_waiting: SharedCount = field(default_factory=SharedCount)
    max_dead_letters: SharedCount = field(default_factory=SharedCount)
    max_ledger: Count = field(default_factory=Count)
    ledger_max_bytes: Count = field(default_factory=Count)
    max_keys: SharedCount = field(default_factory=SharedCount)
    max_bus_waiting: SharedCount = field(default_factory=SharedCount)
    max_revoked: Count = field(default_factory=Count)
    token_keys_time: Count = field(default_factory=Count)
    max_token_keys_size: Count = field(default_factory=Count)
    max_token_keys: Count = field(default_factory=Count)
    max_token_key_waiting: Count = field(default_factory=Count)
    token_key_fetches: Count = field(default_factory=Count)
    log_buffer: Count = field(default_factory=Count)
    max_mcp_sessions: Count = field(default_factory=Count)
    max_mcp_per_agent: Count = field(default_factory=Count)
    max_mcp_calls: Count = field(default_factory=Count)
    max_mcp_waiting: Count = field(default_factory=Count)
    mcp_idle: Count = field(default_factory=Count)

    def report(self) -> dict[str, int]:
        """
        The counts by the names that they have under C{limits} in C{/stats}.
        """
        return {_camel_case(limit.name): getattr(self, limit.name).value for limit in fields(self)}


@cache
def _camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


@dataclass(slots=True)
class Received:
    """
    What came from clients after the handshake: messages by their type, and bytes.

    @ivar ping: each was answered with a pong.
    @ivar ack: without those that settled a delivery, which L{DeliveryCounts} has.
    @ivar nack: without those of an event that was owed, which L{DeliveryCounts} has.
    @ivar invalid: messages that could not be decoded.
    @ivar limited: messages that were over the rate limit.
    """

    subscribe: int = 0
    unsubscribe: int = 0
    publish: int = 0
    auth: int = 0
    resume: int = 0
    ping: int = 0
    pong: int = 0
    ack: int = 0
    nack: int = 0
    invalid: int = 0
    limited: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Sent:
    """
    What was written to clients after the handshake: frames by what they are, and bytes.

    @ivar again: frames of events that were sent again, or replayed.
    @ivar bytes: before compression and TLS.
    """

    ack: int = 0
    error: int = 0
    ping: int = 0
    again: int = 0
    bytes: int = 0


def _zeros() -> defaultdict[Any, int]:
    # adding to a Counter takes more than twice as long
    return defaultdict(int)


@dataclass(slots=True)
class EventCounts:
    """
    Events that were published.

    @ivar client: those of clients, by category.
    @ivar database: those of notifications, by category.
    @ivar service: those of the service's own, by category.
    @ivar audiences: events by how many subscribers they went to.
    @ivar bad_notifications: NOTIFY payloads that were not events.
    """

    client: defaultdict[str, int] = field(default_factory=_zeros)
    database: defaultdict[str, int] = field(default_factory=_zeros)
    service: defaultdict[str, int] = field(default_factory=_zeros)
    audiences: defaultdict[int, int] = field(default_factory=_zeros)
    bad_notifications: int = 0


@dataclass(slots=True)
class DeliveryCounts:
    """
    Tracked deliveries, one for each client and event.

    @ivar begun: sent for the first time.
    @ivar acked: acknowledged.
    @ivar nacked: refused by the client, to be sent again.
    @ivar retried: sends beyond each delivery's first.
    @ivar given_up: deliveries that were dropped, to clients that acknowledge.
    @ivar never_acknowledged: the same to clients, such as dashboards, that have never acknowledged anything.
    """

    begun: int = 0
    acked: int = 0
    nacked: int = 0
    retried: int = 0
    given_up: int = 0
    never_acknowledged: int = 0


@dataclass(slots=True)
class LogCounts:
    """
    What became of clients that caught up with the log.

    @ivar replays: times that a client began to catch up.
    @ivar gaps: times that a client was told of events that it does not get.
    @ivar takeovers: connections that took over what their agent owed, or had not been sent, on another one.
    """

    replays: int = 0
    gaps: int = 0
    takeovers: int = 0


@dataclass(slots=True)
class DeadLetterCounts:
    """
    Dead letters.

    @ivar died: events that became dead letters, and of which agents lately.
    @ivar poison: those of them that were sent too often over the returns of their agents.
    @ivar redriven: dead letters that were sent again.
    """

    died: SharedCount = field(default_factory=SharedCount)
    poison: int = 0
    redriven: int = 0


@dataclass(slots=True)
class KeyCounts:
    """
    What became of publishes with a key.

    @ivar duplicates: those that published nothing, because their publisher had used the key before.
    """

    duplicates: int = 0


_latencies = partial(Histogram, LATENCIES)


@dataclass(slots=True)
class EngineCounts:
    """
    What a log in a database does.

    @ivar steps: numbering steps that found something.
    @ivar numbered: events that got a position.
    @ivar refused: publishes that were refused, because too many waited for the log, or they did so for too long; and
        whose they were lately.
    @ivar reads: pages and single events that were read in the database.
    @ivar step_seconds: how long the steps took.
    @ivar lag_seconds: from an event's timestamp to its delivery, of events that were published in the database.
    """

    steps: int = 0
    numbered: int = 0
    refused: SharedCount = field(default_factory=SharedCount)
    reads: int = 0
    step_seconds: Histogram = field(default_factory=_latencies)
    lag_seconds: Histogram = field(default_factory=_latencies)


@dataclass(slots=True)
class JournalCounts:
    """
    What became of the journal in which a log in the database keeps what agents are owed.

    @ivar flushes: times that it was written.
    @ivar failures: times that it could not be written; what was to be written is written with the next flush.
    @ivar flush_seconds: how long the flushes took.
    """

    flushes: int = 0
    failures: int = 0
    flush_seconds: Histogram = field(default_factory=_latencies)


@dataclass(slots=True)
class BusCounts:
    """
    What a node says to the other nodes of its cluster, and hears of them.

    @ivar connects: times that the bus could be used again.
    @ivar sent: messages that were sent; and their bytes.
    @ivar heard: messages of other nodes; and their bytes.
    @ivar dropped: messages that were not sent, because there was no room or they waited for too long.
    @ivar broken: packets and messages that arrived incomplete, or could not be read.
    @ivar unanswered: questions that had no answer in time.
    @ivar probe_seconds: round trips to the server that carries the messages, and back.
    """

    connects: int = 0
    sent: int = 0
    heard: int = 0
    sent_bytes: int = 0
    heard_bytes: int = 0
    dropped: int = 0
    broken: int = 0
    unanswered: int = 0
    probe_seconds: Histogram = field(default_factory=_latencies)


@dataclass(slots=True)
class OwnerCounts:
    """
    What became of agents in a cluster.

    @ivar taken: agents that this node took over.
    @ivar asked: agents of other nodes, which these were asked for.
    @ivar forced: those of them that were taken without an answer, with what the database had.
    @ivar given: agents that another node took, and was given by this one.
    @ivar given_back: agents whose states were written for the next node, because this one was about to stop.
    @ivar lost: agents that another node took without this one knowing, because the two could not speak to each other.
    @ivar merged: connections that ended here after their agent had been taken, and left something for it.
    @ivar refused: clients that were closed because their agent could not be taken.
    @ivar take_seconds: how long clients waited for their agents.
    """

    taken: int = 0
    asked: int = 0
    forced: int = 0
    given: int = 0
    given_back: int = 0
    lost: int = 0
    merged: int = 0
    refused: int = 0
    take_seconds: Histogram = field(default_factory=_latencies)


@dataclass(slots=True)
class TokenKeyCounts:
    """
    The keys of tokens.

    @ivar fetches: times that they were fetched, or read from their file.
    @ivar failures: those that failed.
    @ivar refused: tokens for whose unknown key nothing was fetched, because of the limits.
    """

    fetches: int = 0
    failures: int = 0
    refused: int = 0


@dataclass(slots=True)
class Counts:
    """
    All counts of one service.

    @ivar connections: clients that have connected.
    @ivar refusals: messages that were refused, by the code of the reply.
    @ivar closes: connections that the service closed, by the close code.
    @ivar publish_seconds: from a client's message to the frames queued for the subscribers, of one in L{SAMPLED}.
    @ivar notify_seconds: from a notification's arrival to its frames written.
    @ivar probe_seconds: round trips on the connection that listens to the database.
    """

    limits: LimitCounts = field(default_factory=LimitCounts)
    received: Received = field(default_factory=Received)
    sent: Sent = field(default_factory=Sent)
    events: EventCounts = field(default_factory=EventCounts)
    deliveries: DeliveryCounts = field(default_factory=DeliveryCounts)
    log: LogCounts = field(default_factory=LogCounts)
    dead_letters: DeadLetterCounts = field(default_factory=DeadLetterCounts)
    keys: KeyCounts = field(default_factory=KeyCounts)
    engine: EngineCounts = field(default_factory=EngineCounts)
    journal: JournalCounts = field(default_factory=JournalCounts)
    bus: BusCounts = field(default_factory=BusCounts)
    owners: OwnerCounts = field(default_factory=OwnerCounts)
    token_keys: TokenKeyCounts = field(default_factory=TokenKeyCounts)
    connections: int = 0
    refusals: defaultdict[ErrorCode, int] = field(default_factory=_zeros)
    closes: defaultdict[CloseCode, int] = field(default_factory=_zeros)
    publish_seconds: Histogram = field(default_factory=_latencies)
    notify_seconds: Histogram = field(default_factory=_latencies)
    probe_seconds: Histogram = field(default_factory=_latencies)
