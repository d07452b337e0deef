"""
What production limits and development does not.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from dcm_ws.app.modes import (
    connections_per_address,
    drain_delay,
    http_per_address,
    of_one_worker,
    origin_patterns,
    rate_burst,
    rate_bytes,
    rate_limit,
    worker_count,
)
from dcm_ws.app.settings import Settings
from dcm_ws.http.origins import SAME_HOST

SECRET = "0123456789abcdef0123456789abcdef"


def settings(*, production: bool, **choices: Any) -> Settings:
    if production:
        choices |= {"production": True, "secret": SECRET, "database": "postgresql://localhost/x"}
    return Settings(**choices)


@pytest.mark.parametrize(("production", "limits"), [(False, (0, 0, 0, 0)), (True, (100, 2 << 20, 1000, 100))])
def test_limits_of_each_mode(production: bool, limits: tuple[int, ...]) -> None:
    """
    Production limits the rate and the connections of one client; development limits neither.
    """
    here = settings(production=production)
    found = (rate_limit(here), rate_bytes(here), connections_per_address(here), http_per_address(here))
    assert found == limits


@pytest.mark.parametrize("production", [False, True])
@pytest.mark.parametrize("limit", [0, 7])
def test_settings_override_the_mode(production: bool, limit: int) -> None:
    """
    A limit that the operator sets holds in both modes, 0 for none.
    """
    here = settings(
        production=production,
        rate_limit=float(limit),
        rate_bytes=float(limit),
        max_connections_per_ip=limit,
        max_http_per_ip=limit,
    )
    found = {rate_limit(here), rate_bytes(here), connections_per_address(here), http_per_address(here)}
    assert found == {limit}


@pytest.mark.parametrize(("production", "most", "http"), [(True, 50, 50), (True, 5000, 100), (False, 50, 50)])
def test_limit_of_connections_holds_for_http(production: bool, most: int, http: int) -> None:
    """
    An address never has more HTTP connections than connections.
    """
    assert http_per_address(settings(production=production, max_connections_per_ip=most)) == http


@pytest.mark.parametrize(
    ("production", "allowed", "same_host", "patterns"),
    [
        (False, (), True, ("*", SAME_HOST)),
        (True, (), True, (SAME_HOST,)),
        (True, (), False, ()),
        (True, ("https://a.com",), True, ("https://a.com", SAME_HOST)),
        (False, ("https://a.com",), False, ("https://a.com",)),
    ],
)
def test_origins(production: bool, allowed: tuple[str, ...], same_host: bool, patterns: tuple[str, ...]) -> None:
    """
    Development allows all web pages, production those of the same host, and each those that the operator names.
    """
    here = settings(production=production, allowed_origins=allowed, same_host=same_host)
    assert origin_patterns(here) == patterns


@pytest.mark.parametrize(
    ("rate", "burst", "found"), [(None, None, 100.0), (0.5, None, 1.0), (20.0, None, 20.0), (20.0, 5.0, 5.0)]
)
def test_messages_at_once(rate: float | None, burst: float | None, found: float) -> None:
    """
    A client may send at once what the rate limit allows in a second, and at least one message, unless the operator says
    otherwise.
    """
    assert rate_burst(settings(production=True, rate_limit=rate, rate_burst=burst)) == found


def test_number_of_workers() -> None:
    """
    C{auto} is one worker for each core.
    """
    assert worker_count(Settings()) == 1
    assert worker_count(Settings(workers=3)) == 3
    assert worker_count(Settings(workers=0)) == len(os.sched_getaffinity(0))


def test_memory_is_divided_among_workers() -> None:
    """
    Limits of memory are for all workers together, and none of them becomes 0; limits per client stay as they are.
    """
    one = of_one_worker(Settings(workers=3, max_agents=10, max_keys=1), 3)
    assert one.workers == 1
    assert one.max_agents == 4
    assert one.max_keys == 1
    assert one.max_partial_bytes * 3 >= Settings().max_partial_bytes
    assert one.max_send_buffer == Settings().max_send_buffer
    assert one.max_connections == Settings().max_connections


@pytest.mark.parametrize(
    ("choices", "seconds"),
    [({}, 0.0), ({"cluster": True}, 2.0), ({"cluster": True, "drain_delay": 0.0}, 0.0), ({"drain_delay": 7.0}, 7.0)],
)
def test_drain_delay(choices: dict[str, Any], seconds: float) -> None:
    """
    Only where there may be other nodes does a service wait for load balancers.  Its workers never do, since it waits
    for all of them.
    """
    here = Settings(database="postgresql://localhost/x", **choices)
    assert drain_delay(here) == seconds
    assert drain_delay(of_one_worker(here, 2)) == 0
