"""
The state of the service as values.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

import pytest
from twisted.internet.task import Clock

from dcm_ws.brokers.bus_memory import MemoryHub
from dcm_ws.core.assembly import Core
from dcm_ws.core.ports import LogReport
from dcm_ws.http.shares import Share
from tests.fakes import WALL_MS, make_core, make_report


def test_connections(clock: Clock) -> None:
    """
    The connections of all ports are added up.  An event stream is not counted as a WebSocket.
    """
    waiting, http, websockets = [Share(), Share()], [Share(), Share()], Share()
    for share in (waiting[0], waiting[1], http[0], http[1], http[1], websockets):
        share.enter("192.0.2.1")
    for _ in range(2):
        websockets.enter("192.0.2.1")
    report = make_report(
        make_core(clock),
        waiting=waiting,
        http=http,
        websockets=websockets,
        event_streams={"an event stream"},
        long_polls={"a long poll"},
    )
    assert report.stats(False)["connections"] == {
        "waiting": 2, "http": 3, "websocket": 2, "eventStream": 1, "longPoll": 1,
    }  # fmt: skip


@pytest.mark.parametrize("names", [False, True])
def test_names(clock: Clock, names: bool) -> None:
    """
    The names of channels and agents are left out on request.
    """
    report = make_report(make_core(clock))
    assert ("channelStats" in report.health(names)) is names
    assert {"channelStats", "agentStats"} & report.stats(names).keys() == (
        {"channelStats", "agentStats"} if names else set()
    )


def log_in(core: Core, state: str, engine: str = "postgres", reason: str = "") -> Callable[[], LogReport]:
    """
    Reports a log in that state.
    """
    return lambda: {**core.log.report(), "engine": engine, "state": state, "reason": reason}


DOWN = "database dcm at db.example.com does not answer"


@pytest.mark.parametrize(
    ("state", "status"), [("up", "healthy"), ("following", "healthy"), ("standby", "degraded"), ("down", "degraded")]
)
def test_health_follows_the_log(clock: Clock, state: str, status: str) -> None:
    """
    A service whose log is not up is degraded, even if it listens to the database.
    """
    core = make_core(clock)
    report = make_report(core, database=lambda: {"state": "up"}, log=log_in(core, state))
    assert report.health(True)["status"] == report.health(False)["status"] == status


def test_state_of_the_log_is_not_for_everybody(clock: Clock) -> None:
    """
    /health shows no more than before to those who may not see names: neither where the log is, nor why it is not up.
    """
    core = make_core(clock)
    journal = dict[str, object](lastFlush=WALL_MS, pending=1, rows=2)
    report = make_report(core, log=log_in(core, "down", reason=DOWN), journal=lambda: journal)
    assert report.health(True)["log"] == {"engine": "postgres", "state": "down", "reason": DOWN}
    assert report.health(False).keys() == make_report(core).health(False).keys()
    assert not {"log", "journal"} & report.health(False).keys()
    assert "db.example.com" not in json.dumps(report.health(False))


def test_journal(clock: Clock) -> None:
    """
    The journal of what agents are owed is reported with the age of its last flush; without one, nothing is.
    """
    core = make_core(clock)
    core.counts.journal.flushes, core.counts.journal.failures = 7, 8
    last: list[int | None] = [None]
    report = make_report(core, journal=lambda: {"lastFlush": last[0], "pending": 5, "rows": 6})
    expected = {"lastFlush": None, "age": None, "pending": 5, "rows": 6, "flushes": 7, "failures": 8}
    assert report.stats(False)["journal"] == report.health(True)["journal"] == expected
    last[0] = core.world.wall_ms()
    clock.advance(2.5)
    assert report.stats(True)["journal"] == expected | {"lastFlush": last[0], "age": 2.5}
    # a clock that was put back
    last[0] = core.world.wall_ms() + 1000
    assert report.stats(True)["journal"]["age"] == 0
    assert "journal" not in make_report(core).stats(True)


def test_owners(clock: Clock) -> None:
    """
    The agents of this node are reported, if it is one of a cluster.
    """
    core = make_core(clock)
    counts = core.counts.owners
    counts.taken, counts.asked, counts.forced, counts.given, counts.given_back = 3, 4, 5, 6, 7
    counts.lost, counts.merged, counts.refused = 8, 9, 10
    report = make_report(core, owners=lambda: {"owned": 1, "awaited": 2})
    assert list(report.stats(False)["owners"].values()) == list(range(1, 11))
    assert "owners" not in make_report(core).stats(True)


def test_bus(clock: Clock) -> None:
    """
    The bus between nodes is reported, if there is one; why it is down only to those who may see names.
    """
    core = make_core(clock)
    bus = MemoryHub(clock.callLater, clock.seconds, Random(1)).bus(core.counts)
    bus.join("7", "tests")
    report = make_report(core, bus=bus.report)
    assert report.health(True)["bus"] == {"engine": "memory", "state": "up", "reason": ""}
    bus.cut()
    bus.cast("events", b"hello")
    assert report.health(True)["bus"] == {"engine": "memory", "state": "down", "reason": "cut off"}
    assert report.stats(True)["bus"] == bus.report()
    assert report.stats(False)["bus"] == bus.report() | {"reason": ""}
    assert report.stats(False)["bus"]["waiting"] == 1
    assert "bus" not in report.health(False)
    assert "bus" not in make_report(core).stats(True).keys() | make_report(core).health(True).keys()


NOT_CONNECTED = "the database is not connected"
STANDBY = "another dcm-ws has the log of the database"


@pytest.mark.parametrize(
    ("needed", "state", "log", "reason"),
    [
        (False, "down", "up", ""),
        (False, "down", "down", ""),
        (False, "connecting", "connecting", ""),
        (False, "up", "standby", STANDBY),
        (True, "up", "up", ""),
        (True, "down", "up", NOT_CONNECTED),
        (True, "none", "up", NOT_CONNECTED),
        (True, "down", "down", NOT_CONNECTED),
        (True, "up", "standby", STANDBY),
        (True, "up", "connecting", "the log in the database is not up (connecting)"),
        (True, "up", "down", "the log in the database is not up (down)"),
    ],
)
def test_ready(clock: Clock, needed: bool, state: str, log: str, reason: str) -> None:
    """
    A service is ready whatever its database does, unless --ready-needs-database is set.  One that is stopping is not,
    and neither is one whose log is another process's: its clients would receive nothing.
    """
    core = make_core(clock)
    report = make_report(core, ready_needs_database=needed, database=lambda: {"state": state}, log=log_in(core, log))
    assert report.not_ready() == reason
    core.hub.drain()
    assert report.not_ready() == "draining"
