"""
The state of the service as values.
"""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dcm_ws.http.shares import Share
from tests.fakes import make_core, make_report


def test_connections(clock: Clock) -> None:
    """
    The connections of all ports are added up.
    """
    waiting, http, websockets = [Share(), Share()], [Share(), Share()], Share()
    for share in (waiting[0], waiting[1], http[0], http[1], http[1], websockets):
        share.enter("192.0.2.1")
    report = make_report(make_core(clock), waiting=waiting, http=http, websockets=websockets)
    assert report.stats(False)["connections"] == {"waiting": 2, "http": 3, "websocket": 1}


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


@pytest.mark.parametrize(
    ("needed", "state", "reason"),
    [
        (False, "down", ""),
        (True, "up", ""),
        (True, "down", "the database is not connected"),
        (True, "none", "the database is not connected"),
    ],
)
def test_ready(clock: Clock, needed: bool, state: str, reason: str) -> None:
    """
    A service is ready whatever its database does, unless --ready-needs-database is set; one that is stopping is not.
    """
    core = make_core(clock)
    report = make_report(core, ready_needs_database=needed, database=lambda: {"state": state})
    assert report.not_ready() == reason
    core.hub.drain()
    assert report.not_ready() == "draining"
