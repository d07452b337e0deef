"""
C{/health} and C{/stats}, without a port.
"""

from __future__ import annotations

import json

import pytest

from dcm_ws.core.stats import NAMES_SHOWN
from dcm_ws.protocol.tokens import sign
from tests.fakes import SECRET, WALL_MS, Client
from tests.http.service import Service


@pytest.mark.parametrize(
    ("state", "status"),
    [("up", "healthy"), ("none", "healthy"), ("down", "degraded"), ("connecting", "degraded")],
)
def test_health_follows_the_database(service: Service, state: str, status: str) -> None:
    """
    Without its database the service is degraded, and still answers 200.
    """
    service.database = {"state": state, "reconnects": 3}
    code, _, body = service.get("/health")
    assert code == 200
    health = json.loads(body)
    assert health["status"] == status
    assert health["database"] == {"state": state, "reconnects": 3}


@pytest.mark.parametrize("state", ["up", "down"])
def test_draining(service: Service, state: str) -> None:
    """
    A service that is stopping answers 503, whatever the state of its database, and still reports its counts.
    """
    service.database = {"state": state}
    service.core.hub.drain()
    code, _, body = service.get("/health")
    assert code == 503
    assert json.loads(body)["status"] == "draining"
    assert service.get("/health", "HEAD")[0] == 503
    assert service.get("/stats")[0] == 200


def test_health_times(service: Service) -> None:
    """
    uptime_s counts from the start, on the monotonic clock.
    """
    service.reactor.advance(61.5)
    health = service.json("/health")
    assert health["uptime_s"] == 61.5
    assert health["timestamp"] == "2024-01-23T08:54:21.500Z"
    assert (health["port"], health["version"], health["name"]) == (3849, "1.2.3", "staging")


def test_many_channels() -> None:
    """
    channelStats lists a limited number of channels; activeChannels counts all.
    """
    service = Service(max_subscriptions=NAMES_SHOWN + 10)
    client = Client(service.core)
    for number in range(NAMES_SHOWN):
        client.say(type="subscribe", channel=f"topics/{number}")
    health = service.json("/health")
    assert len(health["channelStats"]) == NAMES_SHOWN
    assert health["activeChannels"] == NAMES_SHOWN + 1


@pytest.mark.parametrize(
    ("authorization", "shown"),
    [
        (None, False),
        ("", False),
        ("Bearer", False),
        ("Bearer ", False),
        ("Bearer x", False),
        ("Bearer {expired}", False),
        ("Basic {good}", False),
        ("{good}", False),
        ("Bearer {good}", True),
        ("bearer  {good} ", True),
    ],
)
def test_channels_in_production(authorization: str | None, shown: bool) -> None:
    """
    In production the names of channels need a valid Bearer token.
    """
    service = Service(production=True)
    tokens = {
        "good": sign(SECRET, "lara", None, WALL_MS),
        "expired": sign(SECRET, "lara", None, WALL_MS - 3_600_001),
    }
    headers = {} if authorization is None else {"Authorization": authorization.format(**tokens)}
    for path in ("/health", "/stats"):
        assert ("channelStats" in service.json(path, **headers)) is shown
