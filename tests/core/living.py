"""
The parts of the core as tests make them, and the passing of time as the running service sees it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.task import Clock

from dcm_ws.core.agents import AgentMemory
from dcm_ws.core.assembly import Core
from dcm_ws.core.changed import Changed
from dcm_ws.core.counts import Counts
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.ledger import Ledger

RULES: dict[str, Any] = {
    "production": False,
    "mirror_clients": True,
    "anonymous_listeners": False,
    "strict_private": False,
    "enforce_expiry": False,
    "auth_timeout": 10.0,
    "heartbeat_interval": 30.0,
    "heartbeat_timeout": 60.0,
    "sweep_interval": 1.0,
    "max_subscriptions": 1000,
    "max_depth": 100,
    "rate_limit": 0.0,
    "rate_burst": 100.0,
    "rate_bytes": 0.0,
    "stranger_rate": 0.0,
    "stranger_bytes": 0.0,
}
QUEUE_LIMITS: dict[str, Any] = {"ack_timeout": 5.0, "max_attempts": 3, "max_pending": 10_000, "max_bytes": 256 << 20}
MEMORY_LIMITS: dict[str, Any] = {
    "max_agents": 10_000,
    "max_agent_bytes": 64 << 20,
    "max_kept": 500_000,
}
LOG_LIMITS: dict[str, Any] = {"keep": 86_400.0, "max_events": 100_000, "max_bytes": 64 << 20}


def make_ledger(clock: Clock, counts: Counts | None = None, max_bytes: int = 16 << 20) -> Ledger:
    """
    A ledger on C{clock}, with the limit of production unless another is given.
    """
    count = (counts or Counts()).limits.max_ledger
    return Ledger(clock.seconds, lambda: round(clock.seconds() * 1000), count, max_bytes=max_bytes)


def make_queue(
    clock: Clock,
    counts: Counts | None = None,
    changed: Changed | None = None,
    ledger: Ledger | None = None,
    **limits: Any,
) -> DeliveryQueue:
    """
    A queue of deliveries on C{clock}, with the limits of production except for those that are given.
    """
    counts = counts or Counts()
    ledger = ledger or make_ledger(clock, counts)
    return DeliveryQueue(clock.seconds, counts, changed or Changed(), ledger, **(QUEUE_LIMITS | limits))


def make_memory(
    clock: Clock, counts: Counts | None = None, changed: Changed | None = None, **limits: Any
) -> AgentMemory:
    """
    A memory of absent agents on C{clock}, with the limits of production except for those that are given.
    """
    return AgentMemory(clock.seconds, counts or Counts(), changed or Changed(), **(MEMORY_LIMITS | limits))


def finish(job: Iterator[None]) -> int:
    """
    Do all steps of a job; answers how many there were.
    """
    return sum(1 for _ in job)


def live(core: Core, clock: Clock, seconds: float, step: float = 1.0) -> None:
    """
    Let time pass, with a sweep and a retry check every C{step} seconds.
    """
    for _ in range(round(seconds / step)):
        clock.advance(step)
        finish(core.hub.sweep())
        finish(core.retrying.sweep())


def events(messages: list[dict[str, Any]], *families: str) -> list[tuple[str, str]]:
    """
    The channel and the name of each event among C{messages}, of some families where any are named.
    """
    return [
        (message["channel"], message["event"])
        for message in messages
        if "event" in message and (not families or message["event"].partition(".")[0] in families)
    ]
