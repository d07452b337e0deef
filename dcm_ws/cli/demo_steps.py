"""
What happens on a day of C{dcm-ws demo}.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LENGTH = 600.0
"""
Seconds that a day takes.
"""

_BEGIN = 9 * 60
_MINUTES = 8 * 60


@dataclass(frozen=True, slots=True)
class Step:
    """
    Something that an agent does.

    @ivar at: seconds since the beginning of the day.
    """

    at: float
    agent: str


@dataclass(frozen=True, slots=True)
class Publish(Step):
    """
    An agent publishes an event.
    """

    channel: str
    event: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Leave(Step):
    """
    An agent loses its connection.
    """


@dataclass(frozen=True, slots=True)
class Return(Step):
    """
    An agent connects again.
    """


@dataclass(frozen=True, slots=True)
class Day:
    """
    Everything that happens on a day.

    @ivar steps: in the order of time; the last one is at L{LENGTH}.
    @ivar refused: the id of the message that its receiver cannot read, and never acknowledges.
    """

    steps: tuple[Step, ...]
    refused: str


def time_of_day(at: float) -> str:
    """
    The time that the agents' clocks show, from 09:00 to 17:00.

    @param at: seconds since the beginning of the day.
    """
    minutes = _BEGIN + int(_MINUTES * at / LENGTH)
    return f"{minutes // 60:02}:{minutes % 60:02}"
