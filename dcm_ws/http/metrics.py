"""
The counts of a service as Prometheus metrics.  Nothing is counted here: each request reads the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from twisted.web.server import Request

from dcm_ws.core.counts import AUDIENCES, LATENCIES, Counts, Histogram
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.hub import Hub
from dcm_ws.http.report import StatsReport
from dcm_ws.http.request_headers import accepted_types, header
from dcm_ws.http.resources import Page, forbid_caching
from dcm_ws.http.sparing import Sparing
from dcm_ws.protocol.events import CATEGORIES

STATES = ("none", "connecting", "up", "down", "stopped")
"""
States of the database.
"""

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
        yield from self._log(stats)
        yield from self._database(stats)
        yield _counter("limits_hit", "How often each limit was crossed", "limit", self._counts.limits.report())
        yield _histogram("reactor_lag_seconds", "How late the reactor runs its timers", self._lag.seconds)

    def _connections(self, stats: StatsReport) -> Iterator[Metric]:
        authenticated = stats["authenticatedClients"]
        here = GaugeMetricFamily("dcm_ws_connections", "Clients connected", labels=["state"])
        here.add_metric(["authenticated"], authenticated)
        here.add_metric(["anonymous"], stats["connectedClients"] - authenticated)
        yield here
        yield GaugeMetricFamily("dcm_ws_observers", "Clients connected that need not acknowledge", stats["observers"])
        yield _plain("connections_opened", "Clients that connected", self._counts.connections)
        yield _counter("connections_closed", "Connections that the service closed", "code", stats["closes"])
        yield GaugeMetricFamily("dcm_ws_channels", "Channels with a subscriber", stats["activeChannels"])
        yield GaugeMetricFamily("dcm_ws_draining", "1 while the service is about to stop", int(self._hub.draining))

    def _messages(self) -> Iterator[Metric]:
        counts = self._counts
        fanout = Histogram(AUDIENCES, counts.events.audiences)
        yield _counter("messages_received", "Messages of clients", "type", _received(counts))
        yield _plain("received_bytes", "Bytes from clients, after the handshake", counts.received.bytes)
        yield _counter("messages_sent", "Frames to clients", "type", _sent(counts, int(fanout.sum)))
        yield _plain("sent_bytes", "Bytes to clients, after the handshake", counts.sent.bytes)
        yield _counter(
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
        yield _histogram("event_subscribers", "Subscribers that an event went to", fanout)
        yield _histogram("publish_seconds", "From a client's publish to the queued frames", counts.publish_seconds)
        yield _histogram("notify_seconds", "From a notification's arrival to the written frames", counts.notify_seconds)

    def _tracked(self, stats: StatsReport) -> Iterator[Metric]:
        queue, deliveries = self._deliveries, self._counts.deliveries
        yield _plain("deliveries_sent", "Tracked deliveries started", deliveries.begun)
        yield _plain("deliveries_acked", "Tracked deliveries that were acknowledged", deliveries.acked)
        yield _plain("deliveries_retried", "Sends beyond each delivery's first", deliveries.retried)
        yield _plain("deliveries_given_up", "Tracked deliveries that were given up", deliveries.given_up)
        yield _plain(
            "deliveries_never_acknowledged",
            "Tracked deliveries that were given up, to clients that have never acknowledged anything",
            deliveries.never_acknowledged,
        )
        yield GaugeMetricFamily("dcm_ws_deliveries_pending", "Tracked deliveries that await an ack", queue.pending)
        kept = stats["deliveries"]["keptForAbsentAgents"]
        yield GaugeMetricFamily("dcm_ws_deliveries_kept", "Tracked deliveries kept for absent agents", kept)
        yield GaugeMetricFamily("dcm_ws_deliveries_held_bytes", "Bytes of the frames that await an ack", queue.held)
        yield GaugeMetricFamily(
            "dcm_ws_agents_absent", "Agents for which deliveries are kept", stats["agents"]["absent"]
        )

    def _log(self, stats: StatsReport) -> Iterator[Metric]:
        log, letters, keys = stats["log"], stats["deadLetters"], stats["keys"]
        yield GaugeMetricFamily("dcm_ws_log_head", "The last position of the log", log["head"])
        yield GaugeMetricFamily("dcm_ws_log_first", "The oldest position that is kept", log["first"])
        yield GaugeMetricFamily("dcm_ws_log_events", "Events in the log", log["events"])
        yield GaugeMetricFamily("dcm_ws_log_bytes", "Bytes of the log", log["bytes"])
        yield GaugeMetricFamily("dcm_ws_clients_catching_up", "Clients that catch up with the log", log["catchingUp"])
        yield GaugeMetricFamily(
            "dcm_ws_log_behind", "Events of the log that the slowest client has not passed yet", log["behind"]
        )
        yield GaugeMetricFamily("dcm_ws_deliveries_owed", "Deliveries that clients and agents owe", log["owed"])
        yield _plain("log_replays", "Times that a client began to catch up", log["replays"])
        yield _plain("log_gaps", "Times that a client was told of a gap", log["gaps"])
        yield _plain("log_takeovers", "Connections that took over what their agent owed", log["takeovers"])
        yield GaugeMetricFamily("dcm_ws_dead_letters", "Dead letters that are kept", letters["kept"])
        yield GaugeMetricFamily("dcm_ws_dead_letter_bytes", "Bytes of the dead letters", letters["bytes"])
        yield _plain("dead_letters_died", "Events that became dead letters", letters["died"])
        yield _plain("dead_letters_poison", "Those of them that were sent too often over returns", letters["poison"])
        yield _plain("dead_letters_redriven", "Dead letters that were sent again", letters["redriven"])
        yield GaugeMetricFamily("dcm_ws_publish_keys", "Keys of publishes that are remembered", keys["remembered"])
        yield _plain("publish_duplicates", "Publishes that repeated one with the same key", keys["duplicates"])

    def _database(self, stats: StatsReport) -> Iterator[Metric]:
        database = stats["database"]
        state = GaugeMetricFamily("dcm_ws_database_state", "1 for the state that LISTEN is in", labels=["state"])
        for name in STATES:
            state.add_metric([name], int(database["state"] == name))
        yield state
        yield _plain(
            "database_reconnects", "Connections to the database after the first", database.get("reconnects", 0)
        )
        yield _plain("notifications", "Notifications of the database", database.get("notifications", 0))
        yield _plain("bad_notifications", "Notifications that were not events", self._counts.events.bad_notifications)
        yield GaugeMetricFamily(
            "dcm_ws_notifications_waiting", "Notifications that wait to be published", database.get("waiting", 0)
        )
        yield _histogram(
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


def _plain(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"dcm_ws_{name}", text, value)


def _counter(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"dcm_ws_{name}", text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    bounds = [*(str(float(bound)) for bound in histogram.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
    return HistogramMetricFamily(f"dcm_ws_{name}", text, buckets=buckets, sum_value=histogram.sum)


class MetricsPage(Page):
    """
    C{/metrics}, as OpenMetrics if the request accepts it, else as Prometheus' own text format.
    """

    def __init__(self, wall_ms: Callable[[], int], collector: Collector, now: Callable[[], float]) -> None:
        super().__init__(wall_ms)
        self._texts = Sparing(self._text, now)
        # not the global one: there may be several services in one process
        self.registry = CollectorRegistry()
        self.registry.register(collector)
        for process in (ProcessCollector, PlatformCollector, GCCollector):
            process(registry=self.registry)

    def get(self, request: Request) -> bytes:
        content_type, text = self._texts(_OPENMETRICS in accepted_types(header(request, "Accept")))
        request.setHeader("Content-Type", content_type)
        forbid_caching(request)
        return text

    def _text(self, openmetrics: bool) -> tuple[str, bytes]:
        encode, content_type = choose_encoder(_OPENMETRICS if openmetrics else "")
        return content_type, encode(self.registry)
