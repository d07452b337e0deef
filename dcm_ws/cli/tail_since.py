"""
C{dcm-ws tail --since}: where it begins, and which of the events that the service replays are too old.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from dcm_ws.cli.times import period
from dcm_ws.client import Event, Gap
from dcm_ws.client.moments import moment_of

_POSITION = re.compile(r"(?:[^\s.]{1,64}\.)?\d{1,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Since:
    """
    @ivar start: the position to begin at, for the client.
    @ivar seconds: how old events may be; None for any age.
    """

    start: str
    seconds: float | None = None


def read(text: str) -> Since:
    """
    @raise ValueError: it is neither a period nor a position.
    """
    seconds = period(text)
    if seconds is not None:
        # the log has no index by time: it is read from its beginning
        return Since("0", seconds)
    if _POSITION.fullmatch(text) is not None:
        return Since(text)
    raise ValueError(f"{text!r} is neither a period (30s, 10m, 2h, 1d) nor a position (POS or EPOCH.POS)")


class Window:
    """
    Leaves out the events that the service replays and that are older than C{--since} says.

    @param since: None without C{--since}.
    """

    def __init__(self, since: Since | None) -> None:
        self._seconds = since.seconds if since is not None else None
        self._oldest: float | None = None
        self._head = 0
        self._gap: Gap | None = None

    def choose(self, item: Event | Gap, greeting: dict[str, Any]) -> list[Event | Gap]:
        """
        What to show when an event or a gap has come.

        @param greeting: of the service, on the first connection; it has the service's time, and the end of its log.
        """
        if self._seconds is None:
            return [item]
        if self._oldest is None:
            self._oldest = (moment_of(greeting.get("timestamp")) or 0) - self._seconds * 1000
            self._head = greeting.get("pos", 0)
        if isinstance(item, Gap):
            if item.reason == "expired" and item.first is not None and item.first <= self._head + 1:
                # what has left the log may be too old anyway
                self._gap = item
                return []
            return [item]
        gap, self._gap = self._gap, None
        if item.timestamp < self._oldest and item.pos is not None and item.pos <= self._head:
            return []
        return [item] if gap is None else [gap, item]
