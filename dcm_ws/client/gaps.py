"""
Gaps: events that a client does not receive, and positions in the server's log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

_REASONS = {
    "epoch": "the server has another log, as after a restart",
    "expired": "the server no longer keeps them",
    "ahead": "the position is beyond the end of the server's log",
    "rights": "the token does not allow every channel any more",
    "refused": "the server does not let the client go on from its position",
}


class Position(NamedTuple):
    """
    A position in the log of a server.

    @ivar epoch: names the log.
    @ivar pos: of an event in it; 0 is before the first.
    """

    epoch: str
    pos: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.pos}"


@dataclass(frozen=True, slots=True)
class Gap:
    """
    Events that the client does not receive.  A program that derives its state from events has to load it again.

    @ivar reason: C{epoch}, C{expired}, C{ahead} or C{rights} (docs/protocol.md, Positions and resuming), or
        C{refused}: the server does not let the client resume a channel.
    @ivar first: the oldest position from which events are kept; None if the server did not say.
    @ivar epoch: the server's log; None for a server without positions.
    @ivar pos: the end of the log when the gap was found; None for a server without positions.
    """

    reason: str
    first: int | None = None
    epoch: str | None = None
    pos: int | None = None

    def __str__(self) -> str:
        why = _REASONS.get(self.reason, self.reason)
        return f"events may be missing: {why}"


def gap_of(fields: object, frame: dict[str, Any]) -> Gap:
    """
    The gap that a frame reports.

    @param fields: has C{reason} and C{first}.
    @param frame: has C{epoch} and C{pos}.
    """
    said: dict[str, Any] = fields if isinstance(fields, dict) else {}
    epoch, pos = place_of(frame)
    return Gap(str(said.get("reason", "")), number_of(said.get("first")), epoch, pos if epoch is not None else None)


def place_of(frame: dict[str, Any]) -> tuple[str | None, int]:
    """
    The epoch and the position in a frame; without an epoch if it has none, or not both.
    """
    epoch, pos = frame.get("epoch"), number_of(frame.get("pos"))
    return (epoch, pos) if isinstance(epoch, str) and epoch and pos is not None else (None, 0)


def number_of(value: object) -> int | None:
    """
    A position; None if it is anything else.
    """
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
