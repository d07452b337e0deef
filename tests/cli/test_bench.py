"""
dcm-ws bench, against real services.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands import url
from tests.cli.running import run
from tests.integration.running import Service
from tests.integration.tokens import make_token

pytestmark = pytest.mark.integration


def test_bench(tmp_path: Path, running: Service) -> None:
    """
    It says what it will do, and every event reaches every subscriber.
    """
    arguments = ("--connections", "10", "--messages", "20", "--rate", "100", "--json")
    done = run(tmp_path, "bench", "--url", url(running), *arguments)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["expected"], figures["received"]) == (200, 200)
    assert 0 < figures["latency_p50_ms"] <= figures["latency_p99_ms"] <= figures["latency_max_ms"]
    assert "10 connections" in done.stderr and "200 deliveries" in done.stderr
    assert run(tmp_path, "bench", "--url", "ws://events.invalid/").returncode == 2


def test_bench_in_production(tmp_path: Path, guarded: Service) -> None:
    """
    In production it needs a token of any agent, and not an operator's.
    """
    arguments = ("--connections", "10", "--messages", "20", "--rate", "100", "--json")
    done = run(tmp_path, "bench", "--url", url(guarded), *arguments, DCM_WS_TOKEN=make_token("ann"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["received"] == 200
