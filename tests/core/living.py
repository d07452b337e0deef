"""
The passing of time, as the running service sees it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.task import Clock

from dcm_ws.core.hub import Hub


def finish(job: Iterator[None]) -> int:
    """
    Do all steps of a job; answers how many there were.
    """
    return sum(1 for _ in job)


def live(hub: Hub, clock: Clock, seconds: float, step: float = 1.0) -> None:
    """
    Let time pass, with a sweep and a retry check every C{step} seconds.
    """
    for _ in range(round(seconds / step)):
        clock.advance(step)
        finish(hub.sweep())
        finish(hub.retry())


def events(messages: list[dict[str, Any]], *families: str) -> list[tuple[str, str]]:
    """
    The channel and the name of each event among C{messages}, of some families where any are named.
    """
    return [
        (message["channel"], message["event"])
        for message in messages
        if "event" in message and (not families or message["event"].partition(".")[0] in families)
    ]
