"""
The state of the service as values: C{/health}, C{/stats} and C{/readyz} show it, and C{/metrics} reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from datetime import UTC, datetime
from typing import Protocol, Required, TypedDict

from dcm_ws.core.counts import JournalCounts, OwnerCounts
from dcm_ws.core.hub import Hub
from dcm_ws.core.ports import BusReport, JournalReport, LogReport, OwnersReport, World
from dcm_ws.core.rules import Rules
from dcm_ws.core.stats import CoreStats, Sizes, Stats
from dcm_ws.http.shares import Share


class DatabaseStats(TypedDict, total=False):
    """
    The state of the database; only C{state} if the service has none.
    """

    state: Required[str]
    reconnects: int
    notifications: int
    waiting: int
    pauses: int


class ConnectionStats(TypedDict):
    """
    Connections that are open, by what they are for.  Long polls are HTTP connections, too.
    """

    waiting: int
    http: int
    websocket: int
    eventStream: int
    longPoll: int


class LogHealth(TypedDict):
    """
    Where the log or the bus is, and what it does; C{reason} says why it is not C{up}, or why the log is in memory.
    """

    engine: str
    state: str
    reason: str


class JournalStats(TypedDict):
    """
    The journal of what agents are owed.

    C{lastFlush} is in ms since the epoch; C{age} is the number of seconds since then.
    """

    lastFlush: int | None
    age: float | None
    pending: int
    rows: int
    flushes: int
    failures: int


class JournalPart(TypedDict, total=False):
    """
    The journal, if the log is in the database.
    """

    journal: JournalStats


class BusHealthPart(TypedDict, total=False):
    """
    The bus between nodes, if there is one.
    """

    bus: LogHealth


class OwnerStats(TypedDict):
    """
    The agents of this node, and what became of those that went from one node to another.
    """

    owned: int
    awaited: int
    taken: int
    asked: int
    forced: int
    given: int
    givenBack: int
    lost: int
    merged: int
    refused: int


class OwnersPart(TypedDict, total=False):
    """
    The agents of this node, if it is one of a cluster.
    """

    owners: OwnerStats


class LogPart(JournalPart, BusHealthPart, total=False):
    """
    The log, the journal and the bus between nodes, if names are included.
    """

    log: LogHealth


class BusPart(TypedDict, total=False):
    """
    The bus between nodes, if there is one; without names, C{reason} is empty.
    """

    bus: BusReport


class StatsReport(CoreStats, JournalPart, BusPart, OwnersPart):
    """
    The body of C{/stats}.
    """

    database: DatabaseStats
    partialBytes: int
    connections: ConnectionStats


class HealthReport(Sizes, LogPart):
    """
    The body of C{/health}.
    """

    status: str
    type: str
    port: int | None
    database: DatabaseStats
    anonymousListeners: bool
    version: str
    name: str | None
    uptime_s: float
    timestamp: str


class Partial(Protocol):
    """
    What is known of messages that are not complete yet.
    """

    @property
    def total(self) -> int: ...


class Report:
    """
    Puts together what the parts of the service count.

    @param version: of the service.
    @param name: of the installation; None if it has none.
    @param database: returns the state of the database.
    @param log: returns the state of the log.
    @param journal: returns the state of the journal of what agents are owed; None if there is none.
    @param journal_counts: what became of the journal.
    @param bus: returns the state of the bus between nodes; None if there is none.
    @param owners: returns how many agents this node of a cluster has; None if it is not one.
    @param owner_counts: what became of these.
    @param port: returns the number of the port, once the service listens.
    @param ready_needs_database: the service is not ready while it does not LISTEN.
    @param websockets: counts the WebSockets and the event streams.
    @param event_streams: those of them that are event streams.
    @param long_polls: those that wait.
    @param waiting: count the connections without a request head, one of each port.
    @param http: count the HTTP connections, one of each port.
    @param partial: counts the bytes of incomplete messages.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        world: World,
        rules: Rules,
        stats: Stats,
        version: str,
        name: str | None,
        database: Callable[[], DatabaseStats],
        log: Callable[[], LogReport],
        journal: Callable[[], JournalReport | None],
        journal_counts: JournalCounts,
        bus: Callable[[], BusReport | None],
        owners: Callable[[], OwnersReport | None],
        owner_counts: OwnerCounts,
        port: Callable[[], int | None],
        ready_needs_database: bool,
        websockets: Share,
        event_streams: Sized,
        long_polls: Sized,
        waiting: Sequence[Share],
        http: Sequence[Share],
        partial: Partial,
    ) -> None:
        self._hub = hub
        self._world = world
        self._rules = rules
        self._stats = stats
        self._version = version
        self._name = name
        self._database = database
        self._log = log
        self._journal = journal
        self._journal_counts = journal_counts
        self._bus = bus
        self._owners = owners
        self._owner_counts = owner_counts
        self._port = port
        self._ready_needs_database = ready_needs_database
        self._websockets = websockets
        self._event_streams = event_streams
        self._long_polls = long_polls
        self._waiting = waiting
        self._http = http
        self._partial = partial
        self._started = world.now()

    def health(self, names: bool) -> HealthReport:
        """
        The body of C{/health}.

        @param names: include the names of the channels, and the state of the log.
        """
        database, log = self._database(), self._log()
        if self._hub.draining:
            status = "draining"
        elif database["state"] in ("up", "none") and log["state"] in ("up", "following"):
            status = "healthy"
        else:
            status = "degraded"
        now = datetime.fromtimestamp(self._world.wall_ms() / 1000, UTC)
        details: LogPart = {}
        if names:
            details = {
                "log": {"engine": log["engine"], "state": log["state"], "reason": log["reason"]},
                **self._of_journal(),
                **self._bus_health(),
            }
        return {
            "status": status,
            "type": "websocket",
            "port": self._port(),
            **self._stats.sizes(names=names),
            "database": database,
            **details,
            "anonymousListeners": not self._rules.production or self._rules.anonymous_listeners,
            "version": self._version,
            "name": self._name,
            "uptime_s": round(self._world.now() - self._started, 3),
            "timestamp": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }

    def stats(self, names: bool) -> StatsReport:
        """
        The body of C{/stats}.

        @param names: include the names of the channels and of the agents.
        """
        return {
            **self._stats.report(names=names),
            "database": self._database(),
            **self._of_journal(),
            **self._of_bus(names),
            **self._of_owners(),
            "partialBytes": self._partial.total,
            "connections": {
                "waiting": sum(map(len, self._waiting)),
                "http": sum(map(len, self._http)),
                "websocket": len(self._websockets) - len(self._event_streams),
                "eventStream": len(self._event_streams),
                "longPoll": len(self._long_polls),
            },
        }

    def not_ready(self) -> str:
        """
        Why a load balancer should not send clients here; empty if it should.
        """
        if self._hub.draining:
            return "draining"
        log = self._log()["state"]
        if log == "standby":
            # clients would get nothing here
            return "another dcm-ws has the log of the database"
        if not self._ready_needs_database:
            return ""
        if self._database()["state"] != "up":
            return "the database is not connected"
        return "" if log in ("up", "following") else f"the log in the database is not up ({log})"

    def _bus_health(self) -> BusHealthPart:
        bus = self._bus()
        return {} if bus is None else {"bus": {"engine": bus["engine"], "state": bus["state"], "reason": bus["reason"]}}

    def _of_bus(self, names: bool) -> BusPart:
        bus = self._bus()
        if bus is None:
            return {}
        if not names:
            # it has the addresses of servers
            bus["reason"] = ""
        return {"bus": bus}

    def _of_owners(self) -> OwnersPart:
        owners, counts = self._owners(), self._owner_counts
        if owners is None:
            return {}
        return {
            "owners": {
                "owned": owners["owned"],
                "awaited": owners["awaited"],
                "taken": counts.taken,
                "asked": counts.asked,
                "forced": counts.forced,
                "given": counts.given,
                "givenBack": counts.given_back,
                "lost": counts.lost,
                "merged": counts.merged,
                "refused": counts.refused,
            }
        }

    def _of_journal(self) -> JournalPart:
        journal, counts = self._journal(), self._journal_counts
        if journal is None:
            return {}
        last = journal["lastFlush"]
        age = None if last is None else max(0.0, (self._world.wall_ms() - last) / 1000)
        return {
            "journal": {
                "lastFlush": last,
                "age": age,
                "pending": journal["pending"],
                "rows": journal["rows"],
                "flushes": counts.flushes,
                "failures": counts.failures,
            }
        }
