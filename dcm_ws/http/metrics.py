"""
The counts of a service as Prometheus metrics.  Nothing is counted here: each request reads the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred
from twisted.web.server import Request

from dcm_ws.core.counters import Histogram
from dcm_ws.core.counts import AUDIENCES, LATENCIES, Counts
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.hub import Hub
from dcm_ws.http.bus_metrics import bus_metrics
from dcm_ws.http.common_metrics import Family, MergedMetrics, to_families
from dcm_ws.http.families import counter, gauge, histogram, one_of, plain
from dcm_ws.http.gathering import Gathered, Joined, families_of
from dcm_ws.http.log_metrics import log_metrics
from dcm_ws.http.owner_metrics import owner_metrics
from dcm_ws.http.report import StatsReport
from dcm_ws.http.request_headers import accepted_types, header
from dcm_ws.http.resources import Page, forbid_caching
from dcm_ws.http.sparing import Sparing
from dcm_ws.protocol.events import CATEGORIES

STATES = ("none", "connecting", "up", "down", "stopped")
"""
States of the database.
"""

_KINDS: dict[str, Literal["waiting", "http", "websocket", "eventStream", "longPoll"]] = {
    "waiting": "waiting",
    "http": "http",
    "websocket": "websocket",
    "event_stream": "eventStream",
    "long_poll": "longPoll",
}
_OPENMETRICS = "application/openmetrics-text"


class ReactorLag:
    """
    Measures how late the reactor runs its timers.

    @param interval: seconds between two measurements.
    """

    def __init__(self, now: Callable[[], float], interval: float = 0.5) -> None:
        self._now = now
        self.interval = interval
        self._due: float | None = None
        self.seconds = Histogram(LATENCIES)

    def look(self) -> None:
        """
        Measure; call this once in each C{interval}.
        """
        now = self._now()
        if self._due is not None:
            self.seconds.observe(max(0.0, now - self._due))
        self._due = now + self.interval


class ServiceCollector(Collector):
    """
    Makes metrics of what the service has counted.  No label has a value that a client, or the database, can choose.

    @param stats: returns the body of C{/stats}.
    """

    def __init__(
        self,
        counts: Counts,
        *,
        hub: Hub,
        deliveries: DeliveryQueue,
        stats: Callable[[], StatsReport],
        lag: ReactorLag,
    ) -> None:
        self._counts = counts
        self._hub = hub
        self._deliveries = deliveries
        self._stats = stats
        self._lag = lag

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        yield from self._connections(stats)
        yield from self._messages()
        yield from self._tracked(stats)
        yield from log_metrics(stats, self._counts)
        yield from bus_metrics(stats, self._counts)
        yield from owner_metrics(stats, self._counts)
        yield from self._database(stats)
        yield counter("limits_hit", "How often each limit was crossed", "limit", self._counts.limits.report())
        yield histogram("reactor_lag_seconds", "How late the reactor runs its timers", self._lag.seconds)

    def _connections(self, stats: StatsReport) -> Iterator[Metric]:
        authenticated = stats["authenticatedClients"]
        here = GaugeMetricFamily("dcm_ws_connections", "Clients connected", labels=["state"])
        here.add_metric(["authenticated"], authenticated)
        here.add_metric(["anonymous"], stats["connectedClients"] - authenticated)
        yield here
        kinds = GaugeMetricFamily("dcm_ws_open_connections", "Connections that are open", labels=["kind"])
        for kind, name in _KINDS.items():
            kinds.add_metric([kind], stats["connections"][name])
        yield kinds
        yield gauge("observers", "Clients connected that need not acknowledge", stats["observers"])
        yield plain("connections_opened", "Clients that connected", self._counts.connections)
        yield counter("connections_closed", "Connections that the service closed", "code", stats["closes"])
        yield gauge("channels", "Channels with a subscriber", stats["activeChannels"])
        yield gauge("draining", "1 while the service is about to stop", int(self._hub.draining))

    def _messages(self) -> Iterator[Metric]:
        counts = self._counts
        fanout = Histogram(AUDIENCES, counts.events.audiences)
        yield counter("messages_received", "Messages of clients", "type", _received(counts))
        yield plain("received_bytes", "Bytes from clients, after the handshake", counts.received.bytes)
        yield counter("messages_sent", "Frames to clients", "type", _sent(counts, int(fanout.sum)))
        yield plain("sent_bytes", "Bytes to clients, after the handshake", counts.sent.bytes)
        yield counter(
            "refusals",
            "Messages that were refused",
            "code",
            {str(code): times for code, times in counts.refusals.items()},
        )
        events = CounterMetricFamily("dcm_ws_events", "Events published", labels=["source", "category"])
        for source, categories in (
            ("client", counts.events.client),
            ("database", counts.events.database),
            ("service", counts.events.service),
        ):
            for category in (*CATEGORIES, "other"):
                events.add_metric([source, category], categories[category])
        yield events
        yield histogram("event_subscribers", "Subscribers that an event went to", fanout)
        yield histogram("publish_seconds", "From a client's publish to the queued frames", counts.publish_seconds)
        yield histogram("notify_seconds", "From a notification's arrival to the written frames", counts.notify_seconds)

    def _tracked(self, stats: StatsReport) -> Iterator[Metric]:
        queue, deliveries = self._deliveries, self._counts.deliveries
        yield plain("deliveries_sent", "Tracked deliveries started", deliveries.begun)
        yield plain("deliveries_acked", "Tracked deliveries that were acknowledged", deliveries.acked)
        yield plain("deliveries_retried", "Sends beyond each delivery's first", deliveries.retried)
        yield plain("deliveries_given_up", "Tracked deliveries that were given up", deliveries.given_up)
        yield plain(
            "deliveries_never_acknowledged",
            "Tracked deliveries that were given up, to clients that have never acknowledged anything",
            deliveries.never_acknowledged,
        )
        yield gauge("deliveries_pending", "Tracked deliveries that await an ack", queue.pending)
        kept = stats["deliveries"]["keptForAbsentAgents"]
        yield gauge("deliveries_kept", "Tracked deliveries kept for absent agents", kept)
        yield gauge("deliveries_held_bytes", "Bytes of the frames that await an ack", queue.held)
        yield gauge("agents_absent", "Agents for which deliveries are kept", stats["agents"]["absent"])

    def _database(self, stats: StatsReport) -> Iterator[Metric]:
        database = stats["database"]
        yield one_of("database_state", "1 for the state that LISTEN is in", "state", STATES, database["state"])
        yield plain("database_reconnects", "Connections to the database after the first", database.get("reconnects", 0))
        yield plain("notifications", "Notifications of the database", database.get("notifications", 0))
        yield plain("bad_notifications", "Notifications that were not events", self._counts.events.bad_notifications)
        yield gauge("notifications_waiting", "Notifications that wait to be published", database.get("waiting", 0))
        yield histogram(
            "database_probe_seconds", "Round trips on the connection that listens", self._counts.probe_seconds
        )


def _received(counts: Counts) -> dict[str, int]:
    """
    Messages of clients, by their type.
    """
    received = counts.received
    return {
        "subscribe": received.subscribe,
        "unsubscribe": received.unsubscribe,
        "publish": received.publish,
        "auth": received.auth,
        "resume": received.resume,
        "ping": received.ping,
        "pong": received.pong,
        "ack": received.ack + counts.deliveries.acked,
        "nack": received.nack + counts.deliveries.nacked,
        "invalid": received.invalid,
        "limited": received.limited,
    }


def _sent(counts: Counts, events: int) -> dict[str, int]:
    """
    Frames to clients, by what they are.

    @param events: those of events that were sent for the first time.
    """
    return {
        "connected": counts.connections,
        "event": events + counts.sent.again,
        "ack": counts.sent.ack,
        "error": counts.sent.error,
        "ping": counts.sent.ping,
        "pong": counts.received.ping,
    }


class MetricsPage(Page):
    """
    C{/metrics}, as OpenMetrics if the request accepts it, else as Prometheus' own text format.

    @param gather: asks the other workers for theirs; None if there are none.
    """

    def __init__(
        self,
        wall_ms: Callable[[], int],
        collector: Collector,
        now: Callable[[], float],
        gather: Callable[[str, bool], Deferred[Gathered]] | None = None,
    ) -> None:
        super().__init__(wall_ms)
        self._texts = Sparing(self._text, now)
        self._gather = gather
        self._common = Joined(self._common_text, now)
        # not the global one: there may be several services in one process
        self.registry = CollectorRegistry()
        self.registry.register(collector)
        for process in (ProcessCollector, PlatformCollector, GCCollector):
            process(registry=self.registry)

    def families(self) -> list[Family]:
        """
        The metrics of this worker, for another one.
        """
        return to_families(self.registry.collect())

    def get(self, request: Request) -> bytes | Deferred[bytes]:
        openmetrics = _OPENMETRICS in accepted_types(header(request, "Accept"))
        if self._gather is not None:
            return self._common(openmetrics).addCallback(partial(self._show, request))
        return self._show(request, self._texts(openmetrics))

    def _show(self, request: Request, page: tuple[str, bytes]) -> bytes:
        content_type, text = page
        request.setHeader("Content-Type", content_type)
        forbid_caching(request)
        return text

    def _text(self, openmetrics: bool) -> tuple[str, bytes]:
        encode, content_type = choose_encoder(_OPENMETRICS if openmetrics else "")
        return content_type, encode(self.registry)

    def _common_text(self, openmetrics: bool) -> Deferred[tuple[str, bytes]]:
        encode, content_type = choose_encoder(_OPENMETRICS if openmetrics else "")
        assert self._gather is not None
        return self._gather("metrics", False).addCallback(
            lambda gathered: (content_type, encode(MergedMetrics(families_of(self.families(), gathered))))
        )
